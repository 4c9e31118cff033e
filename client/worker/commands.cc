// SPDX-License-Identifier: Apache-2.0
#include "client/worker/commands.h"

#include <absl/synchronization/mutex.h>

#include <array>
#include <string_view>
#include <utility>

#include "client/image/image_manifest.h"
#include "client/stratactl/output.h"
#include "client/stratactl/table.h"
#include "client/worker/config_print.h"
#include "client/worker/platforms.h"
#include "client/worker/stargz_process.h"
#include "client/worker/verb_arguments.h"
#include "client/worker/worker.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

struct Verb {
  std::string_view name;
  StatusOr<int> (*run)(const VerbCall&);
  int failure = kWorkerFailure;
  int usage = kWorkerUsage;
};

constexpr std::array<Verb, 11> kVerbs = {{
    {"config", ConfigVerb},
    {"info", InfoVerb},
    {"pull", PullVerb},
    {"images", ImagesVerb},
    {"rmi", RmiVerb},
    {"run", RunVerb, kWorkerRunFailure, kWorkerRunFailure},
    {"exec", ExecVerb, kWorkerRunFailure, kWorkerRunFailure},
    {"ps", PsVerb},
    {"kill", KillVerb},
    {"prune", PruneVerb},
    {"du", DuVerb},
}};

const Verb* FindVerb(std::string_view name) {
  for (const Verb& verb : kVerbs) {
    if (verb.name == name) {
      return &verb;
    }
  }
  return nullptr;
}

// What a command line that cannot be read ends with: that of its verb, as far as it can be told.
int UsageCode(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (const Verb* verb = FindVerb(argument); verb != nullptr) {
      return verb->usage;
    }
  }
  return kWorkerUsage;
}

void Say(std::ostream& err, const Status& status) {
  err << "strata-worker: " << Printable(StatusMessage(status)) << std::endl;
}

nlohmann::json RulesAsJson(const std::vector<GcRule>& rules) {
  nlohmann::json list = nlohmann::json::array();
  for (const GcRule& rule : rules) {
    list.push_back({{"all", rule.all},
                    {"keep_bytes", rule.keep_bytes},
                    {"keep_seconds", rule.keep_duration.count()},
                    {"filters", rule.filters}});
  }
  return list;
}

void PrintInfo(const WorkerInfo& info, std::ostream& out) {
  std::vector<std::vector<std::string>> rows = {{"id", info.id}};
  std::string platforms;
  for (const Platform& platform : info.platforms) {
    platforms += (platforms.empty() ? "" : ",") + ShowPlatform(platform);
  }
  rows.push_back({"platforms", platforms});
  for (const auto& [name, value] : info.labels) {
    rows.push_back({name, value});
  }
  for (size_t i = 0; i < info.gc_rules.size(); ++i) {
    const GcRule& rule = info.gc_rules[i];
    std::string filters;
    for (const std::string& filter : rule.filters) {
      filters += (filters.empty() ? "" : " or ") + filter;
    }
    rows.push_back({"gc rule " + std::to_string(i),
                    std::string(rule.all ? "all, " : "") + "keep " +
                        ShowBytes(static_cast<uint64_t>(rule.keep_bytes)) + ", " +
                        ShowSeconds(static_cast<uint64_t>(rule.keep_duration.count())) +
                        (filters.empty() ? "" : ", " + filters)});
  }
  PrintTable(out, {"WHAT", "VALUE"}, rows);
}

}  // namespace

StatusOr<int> ConfigVerb(const VerbCall& call) {
  VerbArguments verb("config", "Prints the configuration in effect, and where each value is from");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  call.out << (usage.has_value() ? usage->text : PrintConfig(call.config));
  return kWorkerOk;
}

StatusOr<int> InfoVerb(const VerbCall& call) {
  bool json = false;
  VerbArguments verb("info", "Prints what this worker is");
  verb.app().add_flag("--json", json, "for programs");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  const WorkerInfo info = worker->Info();
  for (const Platform& platform : info.not_runnable) {
    LogWarn("platform " + ShowPlatform(platform) +
            " cannot pass the validation, kernel support for miscellaneous binary may have not "
            "enabled.");
  }
  if (!json) {
    PrintInfo(info, call.out);
    return kWorkerOk;
  }
  std::vector<std::string> platforms;
  for (const Platform& platform : info.platforms) {
    platforms.push_back(ShowPlatform(platform));
  }
  PrintJson(call.out, {{"id", info.id},
                       {"labels", info.labels},
                       {"platforms", platforms},
                       {"gc_policy", RulesAsJson(info.gc_rules)}});
  return kWorkerOk;
}

int StrataWorker(const WorkerEnvironment& environment, const std::vector<std::string>& arguments,
                 std::ostream& out, std::ostream& err) {
  // Debian builds abseil without NDEBUG, which turns on a search for lock cycles at every lock of
  // gRPC.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  if (!arguments.empty() && arguments.front() == kStargzGuardVerb) {
    return GuardStargz({arguments.begin() + 1, arguments.end()});
  }
  const auto read = ReadWorkerCommandLine(environment, arguments);
  if (!read.ok()) {
    Say(err, read.status());
    return UsageCode(arguments);
  }
  if (const auto* usage = std::get_if<WorkerUsage>(&*read)) {
    out << usage->text << std::endl;
    return kWorkerOk;
  }
  const auto& line = std::get<WorkerCommandLine>(*read);
  ConfigureLog(line.config.log_level, LogFormat::kText);
  const Verb* verb = FindVerb(line.verb);
  if (verb == nullptr) {
    Say(err,
        MakeStatus(StatusCode::kInvalidArgument, "unknown verb '" + line.verb + "' (see --help)"));
    return kWorkerUsage;
  }
  for (const std::string& warning : line.config.warnings) {
    LogWarn(warning);
  }
  const StatusOr<int> code = verb->run(
      {.config = line.config, .environment = environment, .arguments = line.arguments, .out = out});
  out.flush();
  if (!code.ok()) {
    Say(err, code.status());
    return code.status().code() == StatusCode::kInvalidArgument ? verb->usage : verb->failure;
  }
  return *code;
}

}  // namespace strata
