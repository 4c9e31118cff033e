// SPDX-License-Identifier: Apache-2.0
//
// What a crash test knows of one caller's snapshots: everything that was answered, and the one call
// that was not. For tests only; one thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/core/snapshotter.h"

namespace strata::testing {

struct ModelSnapshot {
  Kind kind = Kind::kActive;
  std::string parent;
  std::string label;
  uint64_t id = 0;

  bool operator==(const ModelSnapshot&) const = default;
};

using ModelState = std::map<std::string, ModelSnapshot>;

class CrashCaller {
 public:
  // Names begin with `prefix`, so callers do not meet.
  CrashCaller(std::string prefix, uint64_t seed) : prefix_(std::move(prefix)), random_(seed) {}

  // One random mutation. False when the server has gone: the call is then pending.
  bool Step(Snapshotter& snapshotter);

  // Compares with what the server has now (`actual`: all rows with our prefix): every answered call
  // is there, the pending one wholly or not at all. Settles it. An empty string is success.
  std::string Settle(Snapshotter& snapshotter, const std::vector<SnapshotInfo>& actual);

  [[nodiscard]] const std::string& prefix() const { return prefix_; }
  [[nodiscard]] const ModelState& state() const { return state_; }
  [[nodiscard]] const std::vector<std::string>& errors() const { return errors_; }
  [[nodiscard]] uint64_t answered() const { return answered_; }
  [[nodiscard]] uint64_t refused() const { return refused_; }
  // Numbers handed out since the last call.
  std::vector<uint64_t> TakeNewIds() { return std::exchange(new_ids_, {}); }

 private:
  bool Create(Snapshotter& snapshotter, Kind kind);
  bool Commit(Snapshotter& snapshotter, const std::string& key);
  bool Remove(Snapshotter& snapshotter, const std::string& name);
  bool Update(Snapshotter& snapshotter, const std::string& name);
  bool Finish(const Status& status, ModelState after);
  std::string PickOne(const std::vector<std::string>& names);
  [[nodiscard]] std::vector<std::string> NamesOf(Kind kind) const;
  [[nodiscard]] std::vector<std::string> Leaves() const;

  std::string prefix_;
  std::mt19937_64 random_;
  uint64_t next_ = 0;
  ModelState state_;
  std::optional<ModelState> pending_;
  std::vector<uint64_t> new_ids_;
  std::vector<std::string> errors_;
  uint64_t answered_ = 0;
  uint64_t refused_ = 0;
};

// The number of the directory that `mounts` of an active let write; 0 when there is none.
uint64_t IdOfMounts(const std::vector<Mount>& mounts);

}  // namespace strata::testing
