// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/snapshot_commands.h"

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <utility>

#include "client/stratactl/table.h"

namespace strata {
namespace {

using Json = nlohmann::json;

constexpr TimeNs kSecond = 1'000'000'000;

std::string Age(TimeNs since, TimeNs now) {
  return ShowSeconds(static_cast<uint64_t>(std::max<TimeNs>(0, now - since) / kSecond));
}

// RFC 3339, to the second.
std::string ShowTime(TimeNs time) {
  const time_t seconds = time / kSecond;
  tm parts{};
  char text[64] = "";
  if (::gmtime_r(&seconds, &parts) != nullptr) {
    (void)std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);  // fits
  }
  return text;
}

std::string SizeOf(const NodeSnapshot& snapshot) {
  return snapshot.unmeasured.empty() ? ShowBytes(static_cast<uint64_t>(snapshot.usage.size)) : "?";
}

std::string Kinds(const NodeSnapshot& snapshot) {
  return std::string(KindName(snapshot.info.kind));
}

Json ToJson(const NodeSnapshot& snapshot) {
  Json out = {{"id", snapshot.id},
              {"name", snapshot.info.name},
              {"parent", snapshot.info.parent},
              {"kind", Kinds(snapshot)},
              {"created", ShowTime(snapshot.info.created)},
              {"updated", ShowTime(snapshot.info.updated)},
              {"size", snapshot.usage.size},
              {"inodes", snapshot.usage.inodes}};
  if (!snapshot.tenant.empty()) {
    out["tenant"] = snapshot.tenant;
  }
  if (!snapshot.unmeasured.empty()) {
    out["size"] = Json();
    out["inodes"] = Json();
    out["unmeasured"] = snapshot.unmeasured;
  }
  return out;
}

bool HaveTenants(const std::vector<NodeSnapshot>& snapshots) {
  return std::any_of(snapshots.begin(), snapshots.end(),
                     [](const NodeSnapshot& snapshot) { return !snapshot.tenant.empty(); });
}

std::string ShowLabels(const Labels& labels) {
  std::string text;
  for (const auto& [key, value] : labels) {
    text += text.empty() ? "" : " ";
    text += key;
    text += "=";
    text += value;
  }
  return text;
}

}  // namespace

void PrintSnapshots(const std::vector<NodeSnapshot>& snapshots, bool labels, TimeNs now,
                    const Output& output) {
  if (output.json) {
    Json list = Json::array();
    for (const NodeSnapshot& snapshot : snapshots) {
      list.push_back(ToJson(snapshot));
      if (labels) {
        list.back()["labels"] = snapshot.info.labels;
      }
    }
    PrintJson(output.out, list);
    return;
  }
  const bool tenants = HaveTenants(snapshots);
  std::vector<std::string> header = {"ID", "NAME", "KIND", "PARENT", "SIZE", "AGE"};
  if (tenants) {
    header.emplace_back("TENANT");
  }
  if (labels) {
    header.emplace_back("LABELS");
  }
  std::vector<std::vector<std::string>> rows;
  rows.reserve(snapshots.size());
  for (const NodeSnapshot& snapshot : snapshots) {
    const SnapshotInfo& info = snapshot.info;
    rows.push_back({std::to_string(snapshot.id), info.name, Kinds(snapshot), info.parent,
                    SizeOf(snapshot), Age(info.created, now)});
    if (tenants) {
      rows.back().push_back(snapshot.tenant);
    }
    if (labels) {
      rows.back().push_back(ShowLabels(info.labels));
    }
  }
  PrintTable(output.out, header, rows, output.terminal.columns);
}

void PrintUsage(std::vector<NodeSnapshot> snapshots, const Output& output) {
  std::stable_sort(
      snapshots.begin(), snapshots.end(),
      [](const NodeSnapshot& a, const NodeSnapshot& b) { return a.usage.size > b.usage.size; });
  int64_t bytes = 0;
  int64_t inodes = 0;
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const NodeSnapshot& snapshot : snapshots) {
    bytes += snapshot.usage.size;
    inodes += snapshot.usage.inodes;
    list.push_back(ToJson(snapshot));
    rows.push_back({SizeOf(snapshot),
                    snapshot.unmeasured.empty() ? std::to_string(snapshot.usage.inodes) : "?",
                    Kinds(snapshot), snapshot.info.name, snapshot.unmeasured});
  }
  if (output.json) {
    PrintJson(output.out, {{"snapshots", list}, {"total_size", bytes}, {"total_inodes", inodes}});
    return;
  }
  rows.push_back({ShowBytes(static_cast<uint64_t>(bytes)), std::to_string(inodes), "total",
                  std::to_string(snapshots.size()) + " snapshots", ""});
  PrintTable(output.out, {"SIZE", "INODES", "KIND", "NAME", ""}, rows, output.terminal.columns);
}

Status ShowSnapshots(Node& node, bool labels, const Output& output) {
  Progress progress(output);
  STRATA_ASSIGN_OR_RETURN(const std::vector<NodeSnapshot> snapshots,
                          node.Snapshots(labels, progress));
  PrintSnapshots(snapshots, labels, Clock::System().Now(), output);
  return OkStatus();
}

Status ShowUsage(Node& node, const Output& output) {
  Progress progress(output);
  STRATA_ASSIGN_OR_RETURN(std::vector<NodeSnapshot> snapshots,
                          node.Snapshots(/*labels=*/false, progress));
  PrintUsage(std::move(snapshots), output);
  return OkStatus();
}

}  // namespace strata
