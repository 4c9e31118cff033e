// SPDX-License-Identifier: Apache-2.0
#include "client/network/bridge.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/mount_helper.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::string_view kOwnPrefix = "buildkit-cni-";

// The kernel's rule for names of interfaces (dev_valid_name), less what a shell would mind.
bool IsInterfaceName(std::string_view name) {
  return !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '.' || c == '-';
         });
}

bool IsSubnet(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) {
    return false;
  }
  const std::string address = text.substr(0, slash);
  std::array<char, sizeof(in6_addr)> bytes{};
  int longest = 0;
  if (::inet_pton(AF_INET, address.c_str(), bytes.data()) == 1) {
    longest = 32;
  } else if (::inet_pton(AF_INET6, address.c_str(), bytes.data()) == 1) {
    longest = 128;
  }
  int length = -1;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + slash + 1, end, length);
  // Host-local needs room for the gateway and a container.
  return error == std::errc() && at == end && length > 0 && length <= longest - 2;
}

struct Plugins {
  std::string prefix;  // of their names
  std::string path;
};

std::optional<Plugins> FindPlugins(const std::string& binary_dir) {
  struct stat found {};
  if (::stat((binary_dir + "/bridge").c_str(), &found) == 0 && S_ISREG(found.st_mode)) {
    return Plugins{"", binary_dir};
  }
  const std::optional<std::string> own = FindProgram(std::string(kOwnPrefix) + "bridge");
  if (!own.has_value()) {
    return std::nullopt;
  }
  return Plugins{std::string(kOwnPrefix), own->substr(0, own->rfind('/')) + ":" + binary_dir};
}

ifreq RequestFor(const std::string& name) {
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  return request;
}

}  // namespace

StatusOr<BridgeNetwork> MakeBridgeNetwork(const BridgeOptions& options) {
  if (!IsInterfaceName(options.name)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "bridge name " + ShowName(options.name) +
                          ": expected 1 to 15 letters, digits, '_', '.' and '-'");
  }
  if (!IsSubnet(options.subnet)) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "bridge subnet " + ShowName(options.subnet) +
                          ": expected an address and the length of its network's part, as "
                          "10.10.0.0/16");
  }
  const std::optional<Plugins> plugins = FindPlugins(options.binary_dir);
  if (!plugins.has_value()) {
    return MakeStatus(StatusCode::kNotFound, "failed to find CNI bridge \"" + options.binary_dir +
                                                 "/bridge\" or buildkit-cni-bridge");
  }
  const json range = {{"subnet", options.subnet}};
  json firewall = {{"type", plugins->prefix + "firewall"}, {"ingressPolicy", "same-bridge"}};
  if (options.rootless) {
    // firewalld of the host is not that of RootlessKit's namespace.
    firewall["backend"] = "iptables";
  }
  const json bridge = {
      {"type", plugins->prefix + "bridge"},
      {"bridge", options.name},
      {"isDefaultGateway", true},
      {"ipMasq", true},
      {"ipam",
       {{"type", plugins->prefix + "host-local"}, {"ranges", json::array({json::array({range})})}}},
  };
  const json network = {
      {"cniVersion", "1.0.0"}, {"name", "buildkit"}, {"plugins", json::array({bridge, firewall})}};
  StatusOr<CniConfig> config = ParseCniConfig(network.dump(), /*list=*/true);
  STRATA_RETURN_IF_ERROR(config.status());
  return BridgeNetwork{*std::move(config), plugins->path};
}

bool InterfaceExists(const std::string& name) {
  return ::if_nametoindex(name.c_str()) != 0;
}

Status RemoveBridge(const std::string& name) {
  if (!InterfaceExists(name)) {
    return OkStatus();
  }
  const std::string what = "remove the bridge " + ShowName(name);
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return ErrnoStatus(errno, what);
  }
  ifreq request = RequestFor(name);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
    return ErrnoStatus(errno, what);
  }
  // One that is up is busy.
  request.ifr_flags = static_cast<int16_t>(request.ifr_flags & ~IFF_UP);
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0 ||
      ::ioctl(socket.get(), SIOCBRDELBR, name.c_str()) != 0) {
    return ErrnoStatus(errno, what);
  }
  return OkStatus();
}

}  // namespace strata
