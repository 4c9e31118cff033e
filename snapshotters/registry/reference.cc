// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/reference.h"

#include <algorithm>
#include <cstddef>

namespace strata {
namespace {

constexpr size_t kLongestReference = 1024;
constexpr size_t kLongestRepository = 255;  // The distribution specification's.
constexpr size_t kLongestTag = 128;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsLower(char c) {
  return c >= 'a' && c <= 'z';
}
bool IsUpper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool IsAlphaNumeric(char c) {
  return IsDigit(c) || IsLower(c) || IsUpper(c);
}
bool IsLowerHex(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'f');
}

Status Bad(std::string_view text, std::string_view why) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    "parse reference '" + std::string(text) + "': " + std::string(why));
}

bool IsPort(std::string_view port) {
  return !port.empty() && port.size() <= 5 && std::all_of(port.begin(), port.end(), IsDigit);
}

bool IsHostName(std::string_view host) {
  if (host.empty() || host.size() > 253) {
    return false;
  }
  // Labels of letters, digits and inner dashes.
  while (true) {
    const std::string_view label = host.substr(0, host.find('.'));
    if (label.empty() || !IsAlphaNumeric(label.front()) || !IsAlphaNumeric(label.back()) ||
        !std::all_of(label.begin(), label.end(),
                     [](char c) { return IsAlphaNumeric(c) || c == '-'; })) {
      return false;
    }
    if (label.size() == host.size()) {
      return true;
    }
    host.remove_prefix(label.size() + 1);
  }
}

bool IsHost(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t close = host.find(']');
    if (close == std::string_view::npos) {
      return false;
    }
    const std::string_view address = host.substr(1, close - 1);
    const std::string_view after = host.substr(close + 1);
    return address.size() >= 2 && address.size() <= 45 &&
           std::all_of(
               address.begin(), address.end(),
               [](char c) { return IsLowerHex(c) || IsUpper(c) || c == ':' || c == '.'; }) &&
           (after.empty() || (after.front() == ':' && IsPort(after.substr(1))));
  }
  const size_t colon = std::min(host.find(':'), host.size());
  return IsHostName(host.substr(0, colon)) &&
         (colon == host.size() || IsPort(host.substr(colon + 1)));
}

// [a-z0-9]+ parts joined by '.', '_', '__' or dashes.
bool IsPathComponent(std::string_view component) {
  if (component.empty() || !(IsDigit(component.front()) || IsLower(component.front()))) {
    return false;
  }
  size_t at = 0;
  while (at < component.size()) {
    if (IsDigit(component[at]) || IsLower(component[at])) {
      ++at;
      continue;
    }
    const size_t next = component.find_first_of("abcdefghijklmnopqrstuvwxyz0123456789", at);
    if (next == std::string_view::npos) {
      return false;
    }
    const std::string_view joint = component.substr(at, next - at);
    if (joint != "." && joint != "_" && joint != "__" &&
        joint.find_first_not_of('-') != std::string_view::npos) {
      return false;
    }
    at = next;
  }
  return true;
}

bool IsRepository(std::string_view repository) {
  if (repository.size() > kLongestRepository) {
    return false;
  }
  while (true) {
    const std::string_view component = repository.substr(0, repository.find('/'));
    if (!IsPathComponent(component)) {
      return false;
    }
    if (component.size() == repository.size()) {
      return true;
    }
    repository.remove_prefix(component.size() + 1);
  }
}

bool IsTag(std::string_view tag) {
  return !tag.empty() && tag.size() <= kLongestTag && tag.front() != '.' && tag.front() != '-' &&
         std::all_of(tag.begin(), tag.end(),
                     [](char c) { return IsAlphaNumeric(c) || c == '_' || c == '.' || c == '-'; });
}

}  // namespace

Status ValidateDigest(std::string_view digest) {
  size_t length = 0;
  if (digest.starts_with("sha256:")) {
    length = 64;
  } else if (digest.starts_with("sha512:")) {
    length = 128;
  } else {
    return MakeStatus(StatusCode::kInvalidArgument, "digest is neither sha256 nor sha512");
  }
  const std::string_view hex = digest.substr(7);
  if (hex.size() != length || !std::all_of(hex.begin(), hex.end(), IsLowerHex)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "digest has not " + std::to_string(length) + " lower case hex digits");
  }
  return OkStatus();
}

StatusOr<Reference> ParseReference(std::string_view text) {
  if (text.size() > kLongestReference) {
    return Bad(text.substr(0, 64), "longer than 1024 bytes");
  }
  Reference reference;
  std::string_view rest = text;
  const size_t at = rest.find('@');
  if (at != std::string_view::npos) {
    reference.digest = rest.substr(at + 1);
    const Status valid = ValidateDigest(reference.digest);
    if (!valid.ok()) {
      return Bad(text, StatusMessage(valid));
    }
    rest = rest.substr(0, at);
  }
  const size_t slash = rest.find('/');
  if (slash == std::string_view::npos) {
    return Bad(text, "no host (write docker.io/library/NAME)");
  }
  reference.host = rest.substr(0, slash);
  if (!IsHost(reference.host)) {
    return Bad(text, "bad host");
  }
  rest.remove_prefix(slash + 1);
  const size_t colon = rest.find(':');
  if (colon != std::string_view::npos) {
    reference.tag = rest.substr(colon + 1);
    if (!IsTag(reference.tag)) {
      return Bad(text, "bad tag");
    }
    rest = rest.substr(0, colon);
  }
  reference.repository = rest;
  if (!IsRepository(reference.repository)) {
    return Bad(text, "bad repository");
  }
  return reference;
}

std::string ShowReference(const Reference& reference) {
  std::string text = reference.host + "/" + reference.repository;
  if (!reference.tag.empty()) {
    text += ":" + reference.tag;
  }
  if (!reference.digest.empty()) {
    text += "@" + reference.digest;
  }
  return text;
}

}  // namespace strata
