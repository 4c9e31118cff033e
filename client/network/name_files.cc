// SPDX-License-Identifier: Apache-2.0
#include "client/network/name_files.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

constexpr size_t kMaxResolvConfBytes = size_t{64} * 1024;
constexpr std::string_view kResolvedStub = "127.0.0.53";
constexpr std::string_view kSpaces = " \t\r\v\f";
// Google's, as BuildKit has them for containers that cannot reach the host's own.
constexpr std::string_view kPublicNameservers[] = {"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888",
                                                   "2001:4860:4860::8844"};

// Words of one line, without its comment (resolv.conf(5): '#' and ';').
std::vector<std::string> WordsOf(std::string_view line) {
  line = line.substr(0, line.find_first_of("#;"));
  std::vector<std::string> words;
  while (true) {
    const size_t start = line.find_first_not_of(kSpaces);
    if (start == std::string_view::npos) {
      return words;
    }
    line.remove_prefix(start);
    const std::string_view word = line.substr(0, line.find_first_of(kSpaces));
    words.emplace_back(word);
    line.remove_prefix(word.size());
  }
}

std::vector<std::string_view> LinesOf(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    lines.push_back(line);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return lines;
}

bool IsNameserver(const std::vector<std::string>& words) {
  return words.size() == 2 && words[0] == "nameserver";
}

bool IsLoopback(std::string_view address) {
  return address.starts_with("127.") || address == "::1";
}

// What a resolv.conf says.
DnsConfig Parse(std::string_view text) {
  DnsConfig dns;
  for (const std::string_view line : LinesOf(text)) {
    std::vector<std::string> words = WordsOf(line);
    if (IsNameserver(words)) {
      dns.nameservers.push_back(std::move(words[1]));
    } else if (!words.empty() && (words[0] == "search" || words[0] == "options")) {
      std::vector<std::string>& list = words[0] == "search" ? dns.search_domains : dns.options;
      words.erase(words.begin());
      list = std::move(words);  // the last such line counts
    }
  }
  return dns;
}

void AppendLine(std::string_view word, const std::vector<std::string>& values, std::string& out) {
  if (values.empty()) {
    return;
  }
  out += word;
  for (const std::string& value : values) {
    out += ' ';
    out += value;
  }
  out += '\n';
}

std::string Format(const DnsConfig& dns) {
  std::string out;
  // A search list of just "." means: none.
  if (dns.search_domains != std::vector<std::string>{"."}) {
    AppendLine("search", dns.search_domains, out);
  }
  for (const std::string& nameserver : dns.nameservers) {
    AppendLine("nameserver", {nameserver}, out);
  }
  AppendLine("options", dns.options, out);
  return out;
}

// `text` for a network namespace in which the host's loopback is not there.
std::string ForOwnNamespace(std::string_view text) {
  std::string out;
  bool has_nameserver = false;
  for (const std::string_view line : LinesOf(text)) {
    const std::vector<std::string> words = WordsOf(line);
    if (IsNameserver(words)) {
      if (IsLoopback(words[1])) {
        continue;
      }
      has_nameserver = true;
    }
    out += line;
    out += '\n';
  }
  if (!has_nameserver) {
    for (const std::string_view nameserver : kPublicNameservers) {
      AppendLine("nameserver", {std::string(nameserver)}, out);
    }
  }
  return out;
}

// "" for a file that is not there.
StatusOr<std::string> ReadWhole(const std::string& path) {
  StatusOr<UniqueFd> fd = OpenFile(path, O_RDONLY);
  if (!fd.ok()) {
    return StatusErrno(fd.status()) == ENOENT ? StatusOr<std::string>(std::string())
                                              : StatusOr<std::string>(fd.status());
  }
  return ReadAll(fd->get(), path, kMaxResolvConfBytes);
}

}  // namespace

std::string ResolvConf(std::string_view host, const DnsConfig& dns, bool host_network) {
  std::string text(host);
  if (dns != DnsConfig{}) {
    DnsConfig merged = Parse(host);
    const auto prefer = [](const std::vector<std::string>& given, std::vector<std::string>& out) {
      if (!given.empty()) {
        out = given;
      }
    };
    prefer(dns.nameservers, merged.nameservers);
    prefer(dns.options, merged.options);
    prefer(dns.search_domains, merged.search_domains);
    text = Format(merged);
  }
  return host_network ? text : ForOwnNamespace(text);
}

std::string HostsFile(std::string_view hostname, const std::vector<ExtraHost>& extra) {
  std::string out = "127.0.0.1\tlocalhost ";
  out += hostname.empty() ? kDefaultHostname : hostname;
  out += "\n::1\tlocalhost ip6-localhost ip6-loopback\n";
  for (const auto& [address, name] : extra) {
    out += address;
    out += '\t';
    out += name;
    out += '\n';
  }
  return out;
}

StatusOr<std::string> ReadHostResolvConf(const std::string& path, const std::string& behind_stub) {
  STRATA_ASSIGN_OR_RETURN(std::string text, ReadWhole(path));
  if (Parse(text).nameservers == std::vector<std::string>{std::string(kResolvedStub)}) {
    STRATA_ASSIGN_OR_RETURN(std::string behind, ReadWhole(behind_stub));
    if (!behind.empty()) {
      return behind;
    }
  }
  return text;
}

}  // namespace strata
