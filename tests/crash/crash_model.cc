// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/crash_model.h"

#include <absl/strings/numbers.h>

#include <utility>

namespace strata::testing {
namespace {

constexpr size_t kMostSnapshots = 40;  // a caller keeps about this many
constexpr std::string_view kLabel = "test/value";

// Nobody answered: what became of the call is not known.
bool Unanswered(const Status& status) {
  return status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kCancelled ||
         status.code() == StatusCode::kDeadlineExceeded;
}

std::string Show(const ModelState& state) {
  std::string text;
  for (const auto& [name, snapshot] : state) {
    text += "\n    " + name + " " + std::string(KindName(snapshot.kind)) + " parent '" +
            snapshot.parent + "' label '" + snapshot.label + "'";
  }
  return text;
}

bool SameButIds(const ModelState& a, const ModelState& b) {
  if (a.size() != b.size()) {
    return false;
  }
  for (auto left = a.begin(), right = b.begin(); left != a.end(); ++left, ++right) {
    if (left->first != right->first || left->second.kind != right->second.kind ||
        left->second.parent != right->second.parent || left->second.label != right->second.label) {
      return false;
    }
  }
  return true;
}

}  // namespace

uint64_t IdOfMounts(const std::vector<Mount>& mounts) {
  constexpr std::string_view kUpper = "upperdir=";
  constexpr std::string_view kFolder = "/snapshots/";
  if (mounts.size() != 1) {
    return 0;
  }
  std::string path = mounts.front().source;
  for (const std::string& option : mounts.front().options) {
    if (option.starts_with(kUpper)) {
      path = option.substr(kUpper.size());
    }
  }
  const size_t start = path.rfind(kFolder);
  if (start == std::string::npos) {
    return 0;
  }
  std::string number = path.substr(start + kFolder.size());
  number.resize(std::min(number.find('/'), number.size()));
  uint64_t id = 0;
  return absl::SimpleAtoi(number, &id) ? id : 0;
}

std::vector<std::string> CrashCaller::NamesOf(Kind kind) const {
  std::vector<std::string> names;
  for (const auto& [name, snapshot] : state_) {
    if (snapshot.kind == kind) {
      names.push_back(name);
    }
  }
  return names;
}

std::vector<std::string> CrashCaller::Leaves() const {
  std::set<std::string> parents;
  for (const auto& [name, snapshot] : state_) {
    parents.insert(snapshot.parent);
  }
  std::vector<std::string> leaves;
  for (const auto& [name, snapshot] : state_) {
    if (!parents.contains(name)) {
      leaves.push_back(name);
    }
  }
  return leaves;
}

std::string CrashCaller::PickOne(const std::vector<std::string>& names) {
  return names.empty() ? "" : names[random_() % names.size()];
}

bool CrashCaller::Step(Snapshotter& snapshotter) {
  const std::vector<std::string> actives = NamesOf(Kind::kActive);
  const uint64_t choice = state_.size() >= kMostSnapshots ? 9 : random_() % 10;
  if (choice <= 2 || state_.empty()) {
    return Create(snapshotter, Kind::kActive);
  }
  if (choice == 3) {
    return Create(snapshotter, Kind::kView);
  }
  if (choice <= 5 && !actives.empty()) {
    return Commit(snapshotter, PickOne(actives));
  }
  if (choice == 6) {
    const auto any = std::next(state_.begin(), static_cast<ptrdiff_t>(random_() % state_.size()));
    return Update(snapshotter, std::string(any->first));
  }
  return Remove(snapshotter, PickOne(Leaves()));
}

bool CrashCaller::Create(Snapshotter& snapshotter, Kind kind) {
  const std::string key = prefix_ + "key-" + std::to_string(next_++);
  const std::string parent = random_() % 4 == 0 ? "" : PickOne(NamesOf(Kind::kCommitted));
  const std::string label = std::to_string(random_() % 1000);
  CallContext call;
  const Labels labels = {{std::string(kLabel), label}};
  const auto mounts = kind == Kind::kActive ? snapshotter.Prepare(call, key, parent, labels)
                                            : snapshotter.View(call, key, parent, labels);
  ModelState after = state_;
  after[key] = {.kind = kind, .parent = parent, .label = label};
  if (mounts.ok() && kind == Kind::kActive) {
    after[key].id = IdOfMounts(*mounts);
    new_ids_.push_back(after[key].id);
  }
  return Finish(mounts.status(), std::move(after));
}

bool CrashCaller::Commit(Snapshotter& snapshotter, const std::string& key) {
  const std::string name = prefix_ + "name-" + std::to_string(next_++);
  const std::string label = std::to_string(random_() % 1000);
  CallContext call;
  const Status status =
      snapshotter.Commit(call, name, key, {.labels = {{std::string(kLabel), label}}, .parent = ""});
  ModelState after = state_;
  after[name] = after[key];
  after[name].kind = Kind::kCommitted;
  after[name].label = label;
  after.erase(key);
  return Finish(status, std::move(after));
}

bool CrashCaller::Remove(Snapshotter& snapshotter, const std::string& name) {
  CallContext call;
  const Status status = snapshotter.Remove(call, name);
  ModelState after = state_;
  after.erase(name);
  return Finish(status, std::move(after));
}

bool CrashCaller::Update(Snapshotter& snapshotter, const std::string& name) {
  const std::string label = std::to_string(random_() % 1000);
  CallContext call;
  SnapshotInfo info;
  info.name = name;
  info.labels = {{std::string(kLabel), label}};
  const Status status = snapshotter.Update(call, info, {"labels"}).status();
  ModelState after = state_;
  after[name].label = label;
  return Finish(status, std::move(after));
}

bool CrashCaller::Finish(const Status& status, ModelState after) {
  if (Unanswered(status)) {
    pending_ = std::move(after);
    return false;
  }
  if (status.ok()) {
    state_ = std::move(after);
    ++answered_;
    return true;
  }
  // A fault that a test injected, or a full disk: an answer too, and nothing may have changed.
  ++refused_;
  if (status.code() != StatusCode::kResourceExhausted) {
    errors_.push_back(status.ToString());
  }
  return true;
}

std::string CrashCaller::Settle(Snapshotter& snapshotter, const std::vector<SnapshotInfo>& actual) {
  ModelState found;
  for (const SnapshotInfo& info : actual) {
    const auto label = info.labels.find(kLabel);
    found[info.name] = {.kind = info.kind,
                        .parent = info.parent,
                        .label = label == info.labels.end() ? "" : label->second};
  }
  const bool is_old = SameButIds(found, state_);
  const bool is_new = pending_.has_value() && SameButIds(found, *pending_);
  if (!is_old && !is_new) {
    return "the server has" + Show(found) + "\n  expected" + Show(state_) +
           (pending_.has_value() ? "\n  or" + Show(*pending_) : "");
  }
  if (is_new && !is_old) {
    state_ = *std::move(pending_);
  }
  pending_.reset();
  for (auto& [name, snapshot] : state_) {
    if (snapshot.kind != Kind::kActive) {
      continue;
    }
    CallContext call;
    const auto mounts = snapshotter.Mounts(call, name);
    const uint64_t id = mounts.ok() ? IdOfMounts(*mounts) : 0;
    if (id == 0 || (snapshot.id != 0 && snapshot.id != id)) {
      return "mounts of " + name + ": number " + std::to_string(id) + ", expected " +
             std::to_string(snapshot.id) + " " + mounts.status().ToString();
    }
    if (snapshot.id == 0) {
      snapshot.id = id;
      new_ids_.push_back(id);
    }
  }
  return "";
}

}  // namespace strata::testing
