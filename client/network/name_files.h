// SPDX-License-Identifier: Apache-2.0
//
// The resolv.conf and hosts files of containers (worker-parity 2.3, points 3 and 4). Pure but for
// ReadHostResolvConf; safe from any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

inline constexpr std::string_view kDefaultHostname = "buildkitsandbox";

struct DnsConfig {
  std::vector<std::string> nameservers;
  std::vector<std::string> options;
  std::vector<std::string> search_domains;

  bool operator==(const DnsConfig&) const = default;
};

// `host` is the content of the host's file. Empty lists of `dns` fall back to it. Without
// `host_network` loopback name servers are dropped, and public ones put where none is left.
std::string ResolvConf(std::string_view host, const DnsConfig& dns, bool host_network);

// IP and name.
using ExtraHost = std::pair<std::string, std::string>;
std::string HostsFile(std::string_view hostname, const std::vector<ExtraHost>& extra);

// The host's resolv.conf, or systemd-resolved's own where that is only its stub; "" where there is
// none.
StatusOr<std::string> ReadHostResolvConf(
    const std::string& path = "/etc/resolv.conf",
    const std::string& behind_stub = "/run/systemd/resolve/resolv.conf");

}  // namespace strata
