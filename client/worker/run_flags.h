// SPDX-License-Identifier: Apache-2.0
//
// What `run` and `exec` can be told, and the run that follows from it and an image. Pure functions;
// safe from any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "client/image/image_config.h"
#include "client/run/executor.h"
#include "client/worker/verb_arguments.h"
#include "snapshotters/base/status.h"

namespace strata {

enum class PullWhen { kMissing, kAlways, kNever };

struct RunFlags {
  std::string image;
  std::vector<std::string> command;  // empty: the image's
  std::vector<std::string> env;      // NAME=VALUE
  std::optional<std::string> entrypoint;
  std::string user;
  std::string cwd;
  bool tty = false;
  bool interactive = false;
  bool remove = false;
  bool quiet = false;
  std::string commit;  // the image to make of the result; "": none
  std::vector<ExtraMount> mounts;
  bool read_only = false;
  RunNetwork network = RunNetwork::kDefault;
  std::string hostname;
  std::vector<ExtraHost> extra_hosts;
  std::vector<std::pair<std::string, uint64_t>> ulimits;
  bool insecure = false;
  std::string cgroup_parent;
  std::string id;
  PullWhen pull = PullWhen::kMissing;
};

struct ExecFlags {
  std::string id;
  ProcessRequest process;  // but for its streams
  bool tty = false;
  bool interactive = false;
};

// What NAME alone stands for in --env NAME: that of this process, if it has one.
using Variable = std::function<std::optional<std::string>(const char* name)>;

StatusOr<std::variant<RunFlags, VerbUsage>> ReadRunFlags(const std::vector<std::string>& arguments,
                                                         const Variable& variable);
StatusOr<std::variant<ExecFlags, VerbUsage>> ReadExecFlags(
    const std::vector<std::string>& arguments, const Variable& variable);

// The image's own words where the flags say nothing. InvalidArgument: neither says what to run.
StatusOr<RunRequest> RequestFor(const RunFlags& flags, const ImageConfig& image);

// "type=bind,source=/a,target=/b,readonly", "type=tmpfs,target=/t,size=1000".
StatusOr<ExtraMount> ParseMount(const std::string& text);

}  // namespace strata
