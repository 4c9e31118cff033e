// SPDX-License-Identifier: Apache-2.0
#include "services/root_control.h"

#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <utility>

#include "services/version.h"

namespace strata {
namespace {

// A record may be of a megabyte; a message holds 16.
constexpr size_t kRecordsAtATime = 8;
constexpr size_t kMostRows = 512;
constexpr size_t kMostBytes = size_t{4} << 20;
constexpr std::chrono::seconds kLongestPage{1};

size_t BytesOf(const SnapshotInfo& info) {
  size_t bytes = info.name.size() + info.parent.size();
  for (const auto& [key, value] : info.labels) {
    bytes += key.size() + value.size();
  }
  return bytes;
}

// The same path where it cannot be resolved: then it is at least what was configured.
std::string WithoutSymlinks(std::string path) {
  char* resolved = ::realpath(path.c_str(), nullptr);
  if (resolved != nullptr) {
    path = resolved;
    std::free(resolved);  // realpath(3) allocates it with malloc
  }
  return path;
}

}  // namespace

RootControl::RootControl(std::string kind, std::string root, TreeSnapshotter& snapshotter,
                         LayerControl* layers)
    : kind_(std::move(kind)),
      root_(WithoutSymlinks(std::move(root))),
      snapshotter_(snapshotter),
      layers_(layers) {}

std::vector<ControlLayer> RootControl::ListLayers() {
  return layers_ != nullptr ? layers_->ListLayers() : std::vector<ControlLayer>();
}

std::vector<ControlCounter> RootControl::Counters() {
  return layers_ != nullptr ? layers_->Counters() : std::vector<ControlCounter>();
}

void RootControl::FetchAll() {
  if (layers_ != nullptr) {
    layers_->FetchAll();
  }
}

ControlDrain RootControl::DrainState() {
  return layers_ != nullptr ? layers_->DrainState() : ControlDrain();
}

ControlDescription RootControl::Describe() {
  return {.kind = kind_, .root = root_, .version = std::string(kVersion), .pid = ::getpid()};
}

StatusOr<std::vector<ControlSnapshot>> RootControl::Snapshots(CallContext& call, SnapshotId after) {
  const auto end = std::chrono::steady_clock::now() + kLongestPage;
  std::vector<ControlSnapshot> rows;
  size_t bytes = 0;
  while (rows.size() < kMostRows && bytes < kMostBytes) {
    STRATA_RETURN_IF_ERROR(call.Check());
    STRATA_ASSIGN_OR_RETURN(std::vector<SnapshotRecord> records,
                            snapshotter_.store().Page(after, kRecordsAtATime));
    if (records.empty()) {
      break;
    }
    for (SnapshotRecord& record : records) {
      after = record.id;
      StatusOr<Usage> usage = snapshotter_.GetUsage(call, record.info.name);
      if (usage.status().code() == StatusCode::kNotFound) {
        continue;  // removed meanwhile
      }
      bytes += BytesOf(record.info);
      rows.push_back({.id = record.id, .info = std::move(record.info), .usage = std::move(usage)});
      if (std::chrono::steady_clock::now() >= end) {
        return rows;
      }
    }
  }
  return rows;
}

StatusOr<RootCheck> RootControl::Check(CallContext& call) {
  return CheckRoot(
      call, snapshotter_.store(),
      {.path = root_, .kind = kind_, .served_from = snapshotter_.store().FirstNewId()});
}

StatusOr<RootSpace> RootControl::Space(CallContext& call) {
  return SpaceOf(call, root_);
}

}  // namespace strata
