// SPDX-License-Identifier: Apache-2.0
#include "client/run/host_facts.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <iterator>
#include <sstream>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr size_t kMaxProcBytes = size_t{64} * 1024;
constexpr uint64_t kTerminalGroup = 5;  // "tty" of every distribution

// By number (capabilities(7)).
constexpr std::string_view kCapabilities[] = {"CAP_CHOWN",
                                              "CAP_DAC_OVERRIDE",
                                              "CAP_DAC_READ_SEARCH",
                                              "CAP_FOWNER",
                                              "CAP_FSETID",
                                              "CAP_KILL",
                                              "CAP_SETGID",
                                              "CAP_SETUID",
                                              "CAP_SETPCAP",
                                              "CAP_LINUX_IMMUTABLE",
                                              "CAP_NET_BIND_SERVICE",
                                              "CAP_NET_BROADCAST",
                                              "CAP_NET_ADMIN",
                                              "CAP_NET_RAW",
                                              "CAP_IPC_LOCK",
                                              "CAP_IPC_OWNER",
                                              "CAP_SYS_MODULE",
                                              "CAP_SYS_RAWIO",
                                              "CAP_SYS_CHROOT",
                                              "CAP_SYS_PTRACE",
                                              "CAP_SYS_PACCT",
                                              "CAP_SYS_ADMIN",
                                              "CAP_SYS_BOOT",
                                              "CAP_SYS_NICE",
                                              "CAP_SYS_RESOURCE",
                                              "CAP_SYS_TIME",
                                              "CAP_SYS_TTY_CONFIG",
                                              "CAP_MKNOD",
                                              "CAP_LEASE",
                                              "CAP_AUDIT_WRITE",
                                              "CAP_AUDIT_CONTROL",
                                              "CAP_SETFCAP",
                                              "CAP_MAC_OVERRIDE",
                                              "CAP_MAC_ADMIN",
                                              "CAP_SYSLOG",
                                              "CAP_WAKE_ALARM",
                                              "CAP_BLOCK_SUSPEND",
                                              "CAP_AUDIT_READ",
                                              "CAP_PERFMON",
                                              "CAP_BPF",
                                              "CAP_CHECKPOINT_RESTORE"};

bool Exists(const char* path) {
  return ::access(path, F_OK) == 0;
}

// The rest of the line that begins with `key`, "" when there is none.
std::string_view LineOf(std::string_view text, std::string_view key) {
  size_t start = 0;
  while (start < text.size()) {
    const size_t end = std::min(text.find('\n', start), text.size());
    std::string_view line = text.substr(start, end - start);
    if (line.starts_with(key)) {
      line.remove_prefix(key.size());
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      return line;
    }
    start = end + 1;
  }
  return {};
}

std::string Unquoted(std::string_view value) {
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    value = value.substr(1, value.size() - 2);
  }
  return std::string(value);
}

// What the policy's own file says of containers; nothing where SELinux is off or has no such file.
std::optional<SelinuxContexts> ReadSelinux() {
  if (!Exists("/sys/fs/selinux/enforce")) {
    return std::nullopt;
  }
  const StatusOr<std::string> config = ReadFileAt(AT_FDCWD, "/etc/selinux/config", kMaxProcBytes);
  const std::string policy = config.ok() ? std::string(LineOf(*config, "SELINUXTYPE=")) : "";
  if (policy.empty() || policy.find('/') != std::string::npos) {
    return std::nullopt;
  }
  const StatusOr<std::string> contexts =
      ReadFileAt(AT_FDCWD, "/etc/selinux/" + policy + "/contexts/lxc_contexts", kMaxProcBytes);
  if (!contexts.ok()) {
    return std::nullopt;
  }
  // "process = "system_u:system_r:container_t:s0"" (container_contexts(5)).
  SelinuxContexts found{Unquoted(LineOf(*contexts, "process = ")),
                        Unquoted(LineOf(*contexts, "file = "))};
  return found.process.empty() || found.file.empty() ? std::nullopt : std::optional(found);
}

}  // namespace

std::vector<std::string> CapabilityNames(uint64_t mask) {
  std::vector<std::string> names;
  for (size_t i = 0; i < std::size(kCapabilities); ++i) {
    if ((mask >> i & 1U) != 0) {
      names.emplace_back(kCapabilities[i]);
    }
  }
  return names;
}

bool IsInitialIdMap(std::string_view map) {
  std::istringstream fields{std::string(map)};
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t count = 0;
  std::string more;
  return (fields >> inside >> outside >> count) && inside == 0 && outside == 0 &&
         count == 4294967295U && !(fields >> more);
}

bool MapsId(std::string_view map, uint64_t id) {
  std::istringstream fields{std::string(map)};
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t count = 0;
  while (fields >> inside >> outside >> count) {
    if (id >= inside && id - inside < count) {
      return true;
    }
  }
  return false;
}

StatusOr<HostFacts> ReadHostFacts() {
  HostFacts facts;
  STRATA_ASSIGN_OR_RETURN(const std::string status,
                          ReadFileAt(AT_FDCWD, "/proc/self/status", kMaxProcBytes));
  facts.seccomp = !LineOf(status, "Seccomp:").empty();  // proc(5): only with CONFIG_SECCOMP
  const std::string_view effective = LineOf(status, "CapEff:");
  uint64_t mask = 0;
  (void)std::from_chars(effective.data(), effective.data() + effective.size(), mask, 16);
  facts.capabilities = CapabilityNames(mask);
  facts.cgroup_mount = Exists("/sys/fs/cgroup");
  facts.cgroup_namespace =
      Exists("/proc/self/ns/cgroup") && Exists("/sys/fs/cgroup/cgroup.subtree_control");
  // Absent where the kernel has no user namespaces.
  if (const auto map = ReadFileAt(AT_FDCWD, "/proc/self/uid_map", kMaxProcBytes); map.ok()) {
    facts.user_namespace = !IsInitialIdMap(*map);
  }
  if (const auto map = ReadFileAt(AT_FDCWD, "/proc/self/gid_map", kMaxProcBytes); map.ok()) {
    facts.terminal_group = MapsId(*map, kTerminalGroup);
  }
  facts.selinux = ReadSelinux();
  return facts;
}

}  // namespace strata
