// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/stratactl.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <functional>

#include "client/dial.h"
#include "client/stratactl/control_commands.h"
#include "client/stratactl/probe.h"
#include "client/stratactl/table.h"

namespace strata {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr std::chrono::milliseconds kDialPatience{2'000};

struct Options {
  std::string socket = "/run/strata/stargz.sock";
  bool json = false;
  int64_t timeout_seconds = 0;
  std::string root = "/var/lib/strata/stargz";
};

// A command: its work, once the arguments are read.
using Work = std::function<Status()>;

void AddControl(CLI::App& app, const Options& options, std::ostream& out, Work& chosen,
                const std::string& name, const std::string& help,
                const std::function<Status(const ControlCommand&)>& run) {
  app.add_subcommand(name, help)->callback([&options, &out, &chosen, run] {
    chosen = [&options, &out, run]() -> Status {
      STRATA_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                              Dial(options.socket, {.wait_for_ready = kDialPatience}));
      return run({.channel = channel, .out = out, .json = options.json});
    };
  });
}

}  // namespace

int Stratactl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  Options options;
  Work chosen;
  CLI::App app("Looks at a running snapshotter of strata, and at what a host can do for one",
               "stratactl");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--socket", options.socket, "the snapshotter's socket")->capture_default_str();
  app.add_flag("--json", options.json, "for programs");
  AddControl(app, options, out, chosen, "layers", "lazy layers, and those that could not be",
             ShowLayers);
  AddControl(app, options, out, chosen, "counters", "how often things happened since the start",
             ShowCounters);
  AddControl(app, options, out, chosen, "health", "whether it serves", ShowHealth);
  AddControl(app, options, out, chosen, "drain",
             "fetch all that is missing of every layer, and wait for it",
             [&options](const ControlCommand& command) {
               return DrainLayers(command, std::chrono::seconds(options.timeout_seconds));
             });
  app.get_subcommand("drain")
      ->add_option("--timeout", options.timeout_seconds, "seconds to wait; 0: as long as it takes")
      ->check(CLI::NonNegativeNumber);
  CLI::App* probe = app.add_subcommand("probe", "what this host can do, tried in a root");
  probe->add_option("--root", options.root, "directory to try it in")->capture_default_str();
  probe->callback([&options, &out, &chosen] {
    chosen = [&options, &out] { return ShowProbe(options.root, options.json, out); };
  });
  // CLI11 throws; this is the only place that sees it. It takes arguments from the last to the
  // first.
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, err) == 0 ? kExitOk : kExitUsage;
  }
  const Status status = chosen();
  if (!status.ok()) {
    err << "stratactl: " << Printable(StatusMessage(status)) << std::endl;
    return kExitFailure;
  }
  return kExitOk;
}

}  // namespace strata
