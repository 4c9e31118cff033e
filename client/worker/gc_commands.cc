// SPDX-License-Identifier: Apache-2.0
//
// The verbs prune and du.
#include <signal.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "client/stratactl/output.h"
#include "client/stratactl/table.h"
#include "client/worker/commands.h"
#include "client/worker/prune.h"
#include "client/worker/signal_relay.h"
#include "client/worker/verb_arguments.h"
#include "client/worker/worker.h"

namespace strata {
namespace {

constexpr int64_t kMegabyte = 1'000'000;
constexpr TimeNs kSecond = 1'000'000'000;
constexpr double kMostMegabytes = 9e12;

// "3m20s ago".
std::string Ago(TimeNs time, TimeNs now) {
  return time == 0 ? "never"
                   : ShowSeconds(static_cast<uint64_t>(std::max<TimeNs>(now - time, 0) / kSecond)) +
                         " ago";
}

uint64_t SizeOf(const WorkerRecord& record) {
  return static_cast<uint64_t>(std::max<int64_t>(record.usage.size, 0));
}

nlohmann::json AsJson(const WorkerRecord& record) {
  return {{"name", record.name},
          {"parent", record.parent},
          {"kind", std::string(KindName(record.kind))},
          {"type", std::string(RecordTypeName(record.type))},
          {"description", record.description},
          {"created_ns", record.created},
          {"last_used_ns", record.last_used},
          {"uses", record.use_count},
          {"in_use", record.in_use},
          {"shared", record.shared},
          {"bytes", SizeOf(record)}};
}

void PrintRecords(const std::vector<WorkerRecord>& records, TimeNs now, std::ostream& out) {
  std::vector<std::vector<std::string>> rows;
  uint64_t total = 0;
  for (const WorkerRecord& record : records) {
    total += SizeOf(record);
    rows.push_back({Shortened(Printable(record.name), 40), std::string(KindName(record.kind)),
                    std::string(RecordTypeName(record.type)), ShowBytes(SizeOf(record)),
                    Ago(record.last_used, now), std::to_string(record.use_count),
                    record.in_use ? "yes" : "no", Shortened(Printable(record.description), 60)});
  }
  PrintTable(out, {"NAME", "KIND", "TYPE", "SIZE", "USED", "USES", "IN USE", "DESCRIPTION"}, rows);
  out << "Total: " << ShowBytes(total) << "\n";
}

// A signal ends what is under way after the step in hand.
StatusOr<std::unique_ptr<SignalRelay>> CancelOnSignal(CallContext* context) {
  return SignalRelay::Start([context](int number) {
    if (number != SIGWINCH) {
      context->Cancel();
    }
  });
}

}  // namespace

StatusOr<int> DuVerb(const VerbCall& call) {
  bool json = false;
  VerbArguments verb("du", "Shows what this worker's snapshots take");
  verb.app().add_flag("--json", json, "for programs");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  CallContext context;
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SignalRelay> signals, CancelOnSignal(&context));
  STRATA_ASSIGN_OR_RETURN(WorkerSnapshots * snapshots, worker->Snapshots());
  STRATA_ASSIGN_OR_RETURN(const std::vector<WorkerRecord> records,
                          snapshots->List(context, /*with_usage=*/true));
  if (!json) {
    PrintRecords(records, snapshots->clock().Now(), call.out);
    return kWorkerOk;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const WorkerRecord& record : records) {
    list.push_back(AsJson(record));
  }
  PrintJson(call.out, list);
  return kWorkerOk;
}

StatusOr<int> PruneVerb(const VerbCall& call) {
  GcRule rule;
  std::string keep_duration;
  double keep_megabytes = 0;
  bool json = false;
  VerbArguments verb("prune", "Removes snapshots that nobody uses, and blobs that no image has");
  verb.app().add_flag("--all", rule.all, "internal and shared ones, too");
  verb.app()
      .add_option("--keep-duration", keep_duration,
                  "keep what was used so recently: 48h, or seconds")
      ->type_name("DURATION");
  verb.app()
      .add_option("--keep-storage", keep_megabytes, "keep so much (MB)")
      ->check(CLI::Range(0.0, kMostMegabytes))
      ->type_name("MB");
  verb.AddTexts("--filter", &rule.filters, "only what this matches, as type==regular", "FILTER");
  verb.app().add_flag("--json", json, "for programs");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(rule.keep_duration, ParseKeepDuration(keep_duration));
  rule.keep_bytes = static_cast<int64_t>(keep_megabytes * static_cast<double>(kMegabyte));
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  CallContext context;
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SignalRelay> signals, CancelOnSignal(&context));
  STRATA_ASSIGN_OR_RETURN(WorkerSnapshots * snapshots, worker->Snapshots());
  STRATA_ASSIGN_OR_RETURN(const Pruned pruned, Prune(context, *snapshots, {rule}, nullptr));
  STRATA_ASSIGN_OR_RETURN(const uint64_t blobs, worker->RemoveBlobs());
  for (const auto& [name, status] : pruned.failed) {
    LogWarn("a snapshot cannot be pruned",
            {{"snapshot", name}, {"error", std::string(StatusMessage(status))}});
  }
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const WorkerRecord& record : pruned.removed) {
      list.push_back(AsJson(record));
    }
    PrintJson(call.out, {{"removed", list}, {"bytes", pruned.bytes}, {"blob_bytes", blobs}});
  } else {
    for (const WorkerRecord& record : pruned.removed) {
      call.out << Printable(record.name) << "  " << ShowBytes(SizeOf(record)) << "\n";
    }
    call.out << "Total: " << ShowBytes(pruned.bytes) << " of snapshots, " << ShowBytes(blobs)
             << " of blobs\n";
  }
  return pruned.failed.empty() ? kWorkerOk : kWorkerFailure;
}

}  // namespace strata
