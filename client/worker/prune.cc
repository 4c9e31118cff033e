// SPDX-License-Identifier: Apache-2.0
#include "client/worker/prune.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "snapshotters/core/filter.h"

namespace strata {
namespace {

struct Entry {
  WorkerRecord record;
  size_t children = 0;
  bool failed = false;  // not tried again
  bool gone = false;
};

bool IsMutable(const WorkerRecord& record) {
  return record.kind == Kind::kActive;
}

// A field that is text is absent when it is empty; one that is a fact has no text.
std::optional<std::string_view> Text(std::string_view text) {
  return text.empty() ? std::nullopt : std::optional(text);
}
std::optional<std::string_view> Fact(bool holds) {
  return holds ? std::optional<std::string_view>("") : std::nullopt;
}

std::optional<std::string_view> FieldOf(const WorkerRecord& record, std::string_view field) {
  if (field == "id") {
    return Text(record.name);
  }
  if (field == "parents") {
    return Text(record.parent);
  }
  if (field == "description") {
    return Text(record.description);
  }
  if (field == "type") {
    return RecordTypeName(record.type);
  }
  if (field == "inuse") {
    return Fact(record.in_use);
  }
  if (field == "mutable" || field == "immutable") {
    return Fact(IsMutable(record) == (field == "mutable"));
  }
  if (field == "shared" || field == "private") {
    return Fact(record.shared == (field == "shared"));
  }
  return std::nullopt;
}

struct Rule {
  const GcRule* given = nullptr;
  Filter filter;
};

StatusOr<std::vector<Rule>> ParseRules(const std::vector<GcRule>& rules) {
  std::vector<Rule> parsed;
  parsed.reserve(rules.size());
  for (const GcRule& rule : rules) {
    StatusOr<Filter> filter = Filter::Parse(rule.filters);
    if (!filter.ok()) {
      return Annotate(filter.status(), "rule " + std::to_string(parsed.size() + 1));
    }
    parsed.push_back({&rule, *std::move(filter)});
  }
  return parsed;
}

// The places of the candidates in the order of `value`, equal values in one place, from 0 to 1.
template <typename Value>
std::vector<double> Ranks(const std::vector<Entry*>& candidates, const Value& value) {
  using Number = std::decay_t<decltype(value(candidates.front()->record))>;
  std::vector<Number> places;
  places.reserve(candidates.size());
  for (const Entry* entry : candidates) {
    places.push_back(value(entry->record));
  }
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  const double last = static_cast<double>(std::max<size_t>(places.size(), 2) - 1);
  std::vector<double> ranks;
  ranks.reserve(candidates.size());
  for (const Entry* entry : candidates) {
    const auto place = std::lower_bound(places.begin(), places.end(), value(entry->record));
    ranks.push_back(static_cast<double>(place - places.begin()) / last);
  }
  return ranks;
}

// The least useful one first: long unused, and seldom used.
std::vector<Entry*> InOrder(const std::vector<Entry*>& candidates) {
  if (candidates.empty()) {
    return {};
  }
  const std::vector<double> last_used =
      Ranks(candidates, [](const WorkerRecord& record) { return record.last_used; });
  const std::vector<double> use_count =
      Ranks(candidates, [](const WorkerRecord& record) { return record.use_count; });
  std::vector<size_t> order(candidates.size());
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto key = [&](size_t i) {
      const WorkerRecord& record = candidates[i]->record;
      return std::tuple(last_used[i] + use_count[i], record.last_used,
                        std::string_view(record.name));
    };
    return key(a) < key(b);
  });
  std::vector<Entry*> ordered;
  ordered.reserve(order.size());
  for (const size_t i : order) {
    ordered.push_back(candidates[i]);
  }
  return ordered;
}

class Pass {
 public:
  Pass(CallContext& call, WorkerSnapshots& snapshots,
       const std::function<void(const WorkerRecord&)>& on_removed)
      : call_(call), snapshots_(snapshots), on_removed_(on_removed) {}

  Status Load();
  Status Apply(const Rule& rule);
  void CleanUp();
  Pruned Take() { return std::move(pruned_); }

 private:
  [[nodiscard]] bool IsCandidate(const Entry& entry, const Rule& rule) const;
  std::vector<Entry*> Candidates(const Rule& rule);
  // The error is one that ends the pass.
  Status Remove(Entry& entry);
  void Forget(Entry& entry);

  CallContext& call_;
  WorkerSnapshots& snapshots_;
  const std::function<void(const WorkerRecord&)>& on_removed_;

  TimeNs now_ = 0;
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, Entry*> by_name_;
  int64_t total_ = 0;  // bytes of what is not shared
  Pruned pruned_;
};

Status Pass::Load() {
  now_ = snapshots_.clock().Now();
  STRATA_ASSIGN_OR_RETURN(std::vector<WorkerRecord> records,
                          snapshots_.List(call_, /*with_usage=*/true));
  entries_.reserve(records.size());
  for (WorkerRecord& record : records) {
    entries_.push_back({std::move(record)});
  }
  for (Entry& entry : entries_) {
    by_name_.emplace(entry.record.name, &entry);
    total_ += entry.record.shared ? 0 : entry.record.usage.size;
  }
  for (const Entry& entry : entries_) {
    const auto parent = by_name_.find(entry.record.parent);
    if (parent != by_name_.end()) {
      ++parent->second->children;
    }
  }
  return OkStatus();
}

bool Pass::IsCandidate(const Entry& entry, const Rule& rule) const {
  const WorkerRecord& record = entry.record;
  // What has children cannot be removed before them.
  if (entry.gone || entry.failed || entry.children != 0 || record.in_use) {
    return false;
  }
  const bool kept_but_by_all =
      record.shared || record.type == RecordType::kInternal || record.type == RecordType::kFrontend;
  if (kept_but_by_all && !rule.given->all) {
    return false;
  }
  const TimeNs keep = std::chrono::nanoseconds(rule.given->keep_duration).count();
  if (keep != 0 && record.last_used > now_ - keep) {
    return false;
  }
  return rule.filter.MatchesFields(
      [&record](std::string_view field) { return FieldOf(record, field); });
}

std::vector<Entry*> Pass::Candidates(const Rule& rule) {
  std::vector<Entry*> candidates;
  for (Entry& entry : entries_) {
    if (IsCandidate(entry, rule)) {
      candidates.push_back(&entry);
    }
  }
  return InOrder(candidates);
}

void Pass::Forget(Entry& entry) {
  entry.gone = true;
  total_ -= entry.record.shared ? 0 : entry.record.usage.size;
  const auto parent = by_name_.find(entry.record.parent);
  if (parent != by_name_.end()) {
    --parent->second->children;
  }
}

Status Pass::Remove(Entry& entry) {
  STRATA_RETURN_IF_ERROR(call_.Check());
  Status status = snapshots_.RemoveUnused(call_, entry.record.name);
  if (status.ok()) {
    Forget(entry);
    pruned_.bytes += static_cast<uint64_t>(std::max<int64_t>(entry.record.usage.size, 0));
    pruned_.removed.push_back(entry.record);
    if (on_removed_) {
      on_removed_(entry.record);
    }
    return OkStatus();
  }
  if (status.code() == StatusCode::kNotFound) {
    Forget(entry);  // somebody else was faster
    return OkStatus();
  }
  if (status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kCancelled ||
      status.code() == StatusCode::kDeadlineExceeded) {
    return status;
  }
  entry.failed = true;
  pruned_.failed.emplace_back(entry.record.name, std::move(status));
  return OkStatus();
}

Status Pass::Apply(const Rule& rule) {
  const int64_t keep_bytes = rule.given->keep_bytes;
  while (keep_bytes == 0 || total_ >= keep_bytes) {
    const std::vector<Entry*> candidates = Candidates(rule);
    if (candidates.empty()) {
      break;
    }
    // With a bound the order is made anew after each one: its parent may be the next.
    for (Entry* entry : candidates) {
      STRATA_RETURN_IF_ERROR(Remove(*entry));
      if (keep_bytes != 0) {
        break;
      }
    }
  }
  return OkStatus();
}

void Pass::CleanUp() {
  Status status = snapshots_.Cleanup(call_);
  if (!status.ok()) {
    pruned_.failed.emplace_back("", Annotate(status, "clean up"));
  }
}

}  // namespace

StatusOr<Pruned> Prune(CallContext& call, WorkerSnapshots& snapshots,
                       const std::vector<GcRule>& rules,
                       const std::function<void(const WorkerRecord&)>& on_removed) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Rule> parsed, ParseRules(rules));
  Pass pass(call, snapshots, on_removed);
  STRATA_RETURN_IF_ERROR(pass.Load());
  for (const Rule& rule : parsed) {
    STRATA_RETURN_IF_ERROR(pass.Apply(rule));
  }
  pass.CleanUp();
  return pass.Take();
}

}  // namespace strata
