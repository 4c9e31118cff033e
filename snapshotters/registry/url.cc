// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/url.h"

#include <algorithm>
#include <cstddef>

namespace strata {
namespace {

constexpr size_t kLongestUrl = 16 * 1024;

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  c = Lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string PercentDecode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 &&
        HexValue(text[i + 2]) >= 0) {
      decoded += static_cast<char>(HexValue(text[i + 1]) * 16 + HexValue(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i] == '+' ? ' ' : text[i];
    }
  }
  return decoded;
}

bool IsAuthority(std::string_view authority) {
  return !authority.empty() && std::all_of(authority.begin(), authority.end(), [](char c) {
    return IsUnreserved(c) || c == ':' || c == '[' || c == ']';
  });
}

}  // namespace

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), Lower);
  return lower;
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return Lower(x) == Lower(y); });
}

std::string_view TrimBlanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string Url::ToString() const {
  std::string text = scheme + "://" + authority + path;
  if (!query.empty()) {
    text += '?';
    text += query;
  }
  return text;
}

StatusOr<Url> ParseUrl(std::string_view text) {
  const auto bad = [](std::string_view why) {
    return MakeStatus(StatusCode::kInvalidArgument, std::string("bad URL: ") + std::string(why));
  };
  if (text.size() > kLongestUrl) {
    return bad("too long");
  }
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c == 0x7f; })) {
    return bad("a blank, a control character or a byte outside of ASCII");
  }
  const size_t colon = text.find("://");
  Url url;
  url.scheme = LowerCase(text.substr(0, std::min(colon, text.size())));
  if (colon == std::string_view::npos || (url.scheme != "http" && url.scheme != "https")) {
    return bad("neither http nor https");
  }
  std::string_view rest = text.substr(colon + 3);
  rest = rest.substr(0, rest.find('#'));
  const size_t end = std::min(rest.find_first_of("/?"), rest.size());
  url.authority = LowerCase(rest.substr(0, end));
  if (!IsAuthority(url.authority)) {
    return bad("no host, or one with characters that hosts do not have");
  }
  const std::string own_port = url.scheme == "https" ? ":443" : ":80";
  if (url.authority.size() > own_port.size() && url.authority.ends_with(own_port)) {
    url.authority.resize(url.authority.size() - own_port.size());
  }
  rest.remove_prefix(end);
  const size_t question = std::min(rest.find('?'), rest.size());
  url.path = question == 0 ? "/" : std::string(rest.substr(0, question));
  if (question < rest.size()) {
    url.query = rest.substr(question + 1);
  }
  return url;
}

StatusOr<Url> ResolveLocation(const Url& base, std::string_view location) {
  location = TrimBlanks(location);
  if (location.empty()) {
    return MakeStatus(StatusCode::kInvalidArgument, "bad URL: empty Location");
  }
  const std::string origin = base.scheme + "://" + base.authority;
  const size_t colon = location.find("://");
  if (colon != std::string_view::npos && colon < location.find_first_of("/?#")) {
    return ParseUrl(location);
  }
  if (location.starts_with("//")) {
    return ParseUrl(base.scheme + ":" + std::string(location));
  }
  if (location.front() == '/') {
    return ParseUrl(origin + std::string(location));
  }
  if (location.front() == '?') {
    return ParseUrl(origin + base.path + std::string(location));
  }
  const std::string folder = base.path.substr(0, base.path.rfind('/') + 1);
  return ParseUrl(origin + folder + std::string(location));
}

std::optional<std::string> QueryParameter(const Url& url, std::string_view name) {
  std::string_view rest = url.query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    if (EqualsIgnoreCase(pair.substr(0, equals), name)) {
      return PercentDecode(pair.substr(std::min(equals + 1, pair.size())));
    }
  }
  return std::nullopt;
}

std::string PercentEncode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (IsUnreserved(c)) {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += '%';
      encoded += kHex[byte >> 4U];
      encoded += kHex[byte & 15U];
    }
  }
  return encoded;
}

bool IsLoopback(std::string_view authority) {
  if (authority == "[::1]" || authority.starts_with("[::1]:")) {
    return true;
  }
  const std::string host = LowerCase(authority.substr(0, authority.find(':')));
  if (host == "localhost" || host.ends_with(".localhost")) {
    return true;
  }
  // 127.evil.example is a name, not an address.
  return host.starts_with("127.") && std::count(host.begin(), host.end(), '.') == 3 &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

}  // namespace strata
