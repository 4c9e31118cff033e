// SPDX-License-Identifier: Apache-2.0
//
// Executor: a process in a container on a snapshot's mounts, through runc or crun (worker-parity
// 2.3, 2.6). Safe from any thread; a run blocks its thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/image/image_config.h"
#include "client/network/name_files.h"
#include "client/network/provider.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// One entry of a uid or gid map.
struct IdRange {
  uint32_t container = 0;
  uint32_t host = 0;
  uint32_t size = 0;
};

struct ExecutorOptions {
  std::string directory;  // <state>/executor; made when missing (0711)
  // "" : the first of buildkit-runc and runc in PATH. NotFound "failed to find X binary".
  std::string binary;
  bool rootless = false;
  bool no_process_sandbox = false;
  std::string apparmor_profile;
  bool selinux = false;
  std::string default_cgroup_parent;
  DnsConfig dns;
  std::vector<IdRange> uid_map;  // empty: no user namespace of its own
  std::vector<IdRange> gid_map;
};

// Where the three streams come from and go to. With a terminal all are one.
struct ProcessStreams {
  int in = -1;  // not owned; -1: nothing
  int out = -1;
  int err = -1;
  bool terminal = false;  // a pty for the process; in and out are then relayed
};

struct ProcessRequest {
  std::vector<std::string> args;  // at least one
  std::vector<std::string> env;   // NAME=VALUE, later ones win
  std::string user;               // "", "uid[:gid]", "name[:group]"
  std::string cwd;                // "": "/"
  ProcessStreams streams;
};

struct ExtraMount {
  std::string destination;
  Mount mount;
};

enum class RunNetwork { kDefault, kNone, kHost };

struct RunRequest {
  std::string id;  // "": a random one
  ProcessRequest process;
  std::vector<Mount> rootfs;  // of the snapshot
  bool read_only_root = false;
  std::vector<ExtraMount> mounts;
  RunNetwork network = RunNetwork::kDefault;
  bool insecure = false;  // all capabilities, no seccomp, nothing masked
  std::string hostname;   // "": kDefaultHostname
  std::vector<ExtraHost> extra_hosts;
  std::string cgroup_parent;                              // "": the executor's default
  std::vector<std::pair<std::string, uint64_t>> ulimits;  // "nofile": both limits
  std::string stop_signal;                                // of the image; "": SIGTERM
  std::string image;                                      // noted for List
  // Called once the process runs, with the pid on the host.
  std::function<void(int pid)> started;
};

// What ended the process; `code` is what a shell would say (128 + signal).
struct RunResult {
  int code = 0;
};

struct RunningContainer {
  std::string id;
  std::string status;  // "running", "stopped"...
  int pid = 0;
  std::string image;    // as noted by the caller of Run, from <directory>/<id>
  std::string command;  // shown
  int64_t started_unix = 0;
};

class Executor {
 public:
  // `network` must outlive this.
  static StatusOr<std::unique_ptr<Executor>> Create(const ExecutorOptions& options,
                                                    NetworkProvider& network);
  virtual ~Executor() = default;

  // Mounts the root, runs, and takes everything down again, also when the process cannot be
  // started. An error is ours or the runtime's, with its text; a process that ran and failed is
  // none. Cancelled by `call`: the process is killed first.
  virtual StatusOr<RunResult> Run(CallContext& call, const RunRequest& request) = 0;

  // One more process in a container that runs; waits for it to run, as BuildKit does. NotFound
  // "container X not found".
  virtual StatusOr<RunResult> Exec(CallContext& call, std::string_view id,
                                   const ProcessRequest& process) = 0;

  virtual StatusOr<std::vector<RunningContainer>> List(CallContext& call) = 0;
  virtual Status Kill(CallContext& call, std::string_view id, int signal) = 0;

  // To every Run and Exec of this Executor that is under way: the signal goes to the process, and
  // instead of SIGTERM the image's stop signal. SIGWINCH: the user's terminal has another size.
  virtual void Forward(int signal) = 0;
  // Removes what runs that were killed with their worker have left (bundles, mounts, containers).
  virtual Status RemoveStale(CallContext& call) = 0;
};

}  // namespace strata
