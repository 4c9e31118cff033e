// SPDX-License-Identifier: Apache-2.0
//
// The config.json of a container (OCI runtime specification) as BuildKit's executor writes it
// (worker-parity 2.3, points 7-16, and 2.6). Pure; safe from any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "client/network/provider.h"
#include "client/run/executor.h"
#include "client/run/host_facts.h"
#include "client/run/user_lookup.h"
#include "snapshotters/base/status.h"

namespace strata {

// Of a terminal. Runtimes set it before the process begins; 0 for not known.
struct ConsoleSize {
  uint16_t rows = 0;
  uint16_t columns = 0;
};

// What is known of a container once its root is mounted.
struct SpecInput {
  std::string id;
  std::string rootfs;       // path on the host
  std::string resolv_conf;  // "
  std::string hosts;        // "
  ProcessUser user;
  ConsoleSize console;
  ContainerNetwork::Kind network = ContainerNetwork::Kind::kHost;
  std::string network_path;  // for kPath
  // The request's, as the runtime is to make them.
  std::vector<ExtraMount> mounts;
};

// FailedPrecondition "selinux is not available"; InvalidArgument for arguments, environment,
// limits or mounts that are none.
StatusOr<nlohmann::json> RuntimeSpec(const RunRequest& request, const SpecInput& input,
                                     const ExecutorOptions& options, const HostFacts& facts);

// The `process` of one more process in a container: that of its config.json with the request's
// arguments and, where it names them, user and working directory; its environment is added.
StatusOr<nlohmann::json> ExecProcess(const nlohmann::json& spec, const ProcessRequest& request,
                                     const ProcessUser* user, const ConsoleSize& console);

// `environment` without what a later entry replaces, PATH in front where it is missing.
// InvalidArgument for an entry without a name.
StatusOr<std::vector<std::string>> CompleteEnvironment(const std::vector<std::string>& environment,
                                                       bool terminal);

// "/buildkit/<id>" below `parent`; for systemd ("machine.slice:worker:") what it expects.
std::string CgroupsPath(std::string_view parent, std::string_view id);

}  // namespace strata
