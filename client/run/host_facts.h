// SPDX-License-Identifier: Apache-2.0
//
// HostFacts: what a container's configuration depends on and the machine alone can tell. Plain
// data; the functions are stateless and safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

struct SelinuxContexts {
  std::string process;  // with a level: "system_u:system_r:container_t:s0"
  std::string file;
};

struct HostFacts {
  bool seccomp = false;
  bool cgroup_namespace = false;          // and the cgroup v2 tree is at /sys/fs/cgroup itself
  bool cgroup_mount = false;              // there is a /sys/fs/cgroup at all
  bool user_namespace = false;            // we are in one
  bool terminal_group = true;             // group 5, which owns terminals, is mapped for us
  std::vector<std::string> capabilities;  // our effective ones, "CAP_CHOWN"
  // What containers get, where SELinux is on.
  std::optional<SelinuxContexts> selinux;
};

StatusOr<HostFacts> ReadHostFacts();

// The names of a mask as /proc/PID/status has it, lowest bit first. Bits without a name are left
// out: no runtime would know them either.
std::vector<std::string> CapabilityNames(uint64_t mask);

// Of the text of an id map (user_namespaces(7)).
bool IsInitialIdMap(std::string_view map);
bool MapsId(std::string_view map, uint64_t id);

}  // namespace strata
