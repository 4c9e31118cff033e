// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/stratactl.h"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "client/dial.h"
#include "client/stratactl/control_commands.h"
#include "client/stratactl/node.h"
#include "client/stratactl/probe.h"
#include "client/stratactl/root_commands.h"
#include "client/stratactl/snapshot_commands.h"
#include "client/stratactl/table.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr std::chrono::milliseconds kDialPatience{2'000};
constexpr char kSocketFolder[] = "/run/strata";
// Where there is nothing that tells: the place of the daemon for which stratactl was made first.
constexpr char kDefaultSocket[] = "/run/strata/stargz.sock";
constexpr char kDefaultRoots[] = "/var/lib/strata";

struct Options {
  std::string socket;
  std::string root;
  bool json = false;
  bool labels = false;
  bool repair = false;
  int64_t timeout_seconds = 0;
};

// A command: its work, once the arguments are read.
using Work = std::function<Status()>;

// The only socket in /run/strata.
StatusOr<std::string> TheSocket() {
  std::vector<std::string> sockets;
  if (const auto folder = OpenFile(kSocketFolder, O_RDONLY | O_DIRECTORY); folder.ok()) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(folder->get()));
    for (const std::string& name : names) {
      if (name.ends_with(".sock")) {
        sockets.push_back(std::string(kSocketFolder) + "/" + name);
      }
    }
  }
  std::sort(sockets.begin(), sockets.end());
  if (sockets.size() > 1) {
    std::string all;
    for (const std::string& socket : sockets) {
      all += " --socket " + socket;
    }
    return MakeStatus(StatusCode::kInvalidArgument,
                      "there are several snapshotters, so say which is meant: one of" + all);
  }
  return sockets.empty() ? kDefaultSocket : sockets.front();
}

StatusOr<std::shared_ptr<grpc::Channel>> DialDaemon(const Options& options) {
  if (!options.root.empty()) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "this is asked of a daemon: expected its --socket, not a --root");
  }
  std::string socket = options.socket;
  if (socket.empty()) {
    STRATA_ASSIGN_OR_RETURN(socket, TheSocket());
  }
  return Dial(socket, {.wait_for_ready = kDialPatience});
}

StatusOr<std::unique_ptr<Node>> OpenNode(const Options& options) {
  if (!options.root.empty()) {
    if (!options.socket.empty()) {
      return MakeStatus(StatusCode::kInvalidArgument, "expected --socket or --root, not both");
    }
    return OpenStoppedNode(options.root);
  }
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, DialDaemon(options));
  return NewServedNode(std::move(channel));
}

// Where probe tries things if it is not told: where the roots are, or will be.
std::string ProbedDirectory(const Options& options) {
  if (!options.root.empty()) {
    return options.root;
  }
  return OpenFile(kDefaultRoots, O_PATH | O_DIRECTORY).ok() ? kDefaultRoots : "/var/lib";
}

class CommandLine {
 public:
  CommandLine(std::ostream& out, std::ostream& err, const Terminal& terminal)
      : output_{.out = out, .err = err, .terminal = terminal} {
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.add_option("--socket", options_.socket,
                    "the daemon's; default: the only one in /run/strata");
    app_.add_option("--root", options_.root,
                    "the root of a daemon that is stopped; for probe, where to try");
    app_.add_flag("--json", options_.json, "for programs");
    AddNodeCommands();
    AddControlCommands();
    AddCommand("probe", "what this host and a root's file system can do, tried",
               [this] { return ShowProbe(ProbedDirectory(options_), output_); });
  }

  int Run(const std::vector<std::string>& arguments) {
    // CLI11 throws; this is the only place that sees it. It takes arguments from the last to the
    // first.
    try {
      app_.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    } catch (const CLI::ParseError& error) {
      return app_.exit(error, output_.out, output_.err) == 0 ? kExitOk : kExitUsage;
    }
    output_.json = options_.json;
    const Status status = chosen_();
    if (!status.ok()) {
      output_.err << "stratactl: " << Printable(StatusMessage(status)) << std::endl;
      return kExitFailure;
    }
    return kExitOk;
  }

 private:
  CLI::App& AddCommand(const std::string& name, const std::string& help, const Work& work) {
    CLI::App* command = app_.add_subcommand(name, help);
    command->callback([this, work] { chosen_ = work; });
    return *command;
  }

  CLI::App& AddNode(const std::string& name, const std::string& help,
                    const std::function<Status(Node&)>& run) {
    return AddCommand(name, help, [this, run]() -> Status {
      STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Node> node, OpenNode(options_));
      return run(*node);
    });
  }

  CLI::App& AddControl(const std::string& name, const std::string& help,
                       const std::function<Status(const ControlCommand&)>& run) {
    return AddCommand(name, help, [this, run]() -> Status {
      STRATA_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, DialDaemon(options_));
      return run({.channel = channel,
                  .out = output_.out,
                  .json = output_.json,
                  .columns = output_.terminal.columns});
    });
  }

  void AddNodeCommands() {
    AddNode("ls", "snapshots", [this](Node& node) {
      return ShowSnapshots(node, options_.labels, output_);
    }).add_flag("--labels", options_.labels, "with their labels");
    AddNode("tree", "which snapshot is on which, and who has them mounted",
            [this](Node& node) { return ShowTree(node, output_); });
    AddNode("du", "what snapshots take on disk, the largest first",
            [this](Node& node) { return ShowUsage(node, output_); });
    AddNode("df", "what takes the root's file system besides snapshots",
            [this](Node& node) { return ShowSpace(node, output_); });
    AddNode("fsck", "what is wrong in a root, and how it is mended", [this](Node& node) {
      return CheckNode(node, options_.repair, output_);
    }).add_flag("--repair", options_.repair, "mend it; only with --root");
    AddNode("cleanup", "give back the space of what was removed, now",
            [this](Node& node) { return CleanUp(node, output_); });
  }

  void AddControlCommands() {
    AddControl("layers", "lazy layers, and those that could not be", ShowLayers);
    AddControl("counters", "how often things happened since the start", ShowCounters);
    AddControl("health", "whether it serves", ShowHealth);
    AddControl("drain", "fetch all that is missing of every layer, and wait for it",
               [this](const ControlCommand& command) {
                 return DrainLayers(command, std::chrono::seconds(options_.timeout_seconds));
               })
        .add_option("--timeout", options_.timeout_seconds,
                    "seconds to wait; 0: as long as it takes")
        ->check(CLI::NonNegativeNumber);
  }

  Options options_;
  Output output_;
  Work chosen_;
  CLI::App app_{"Looks at a snapshotter of strata, running or stopped, and at what a host can do",
                "stratactl"};
};

}  // namespace

int Stratactl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err,
              const Terminal& terminal) {
  return CommandLine(out, err, terminal).Run(arguments);
}

}  // namespace strata
