// SPDX-License-Identifier: Apache-2.0
//
// What the rules leave, on real snapshots of the native snapshotter (without mounts) and with a
// clock of the test's own.
#include "client/worker/prune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/native/native_snapshotter.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using std::chrono::hours;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr TimeNs kHour = std::chrono::nanoseconds(hours(1)).count();

class TestClock final : public Clock {
 public:
  TimeNs Now() override { return now; }
  TimeNs now = 1'000 * kHour;
};

// Passes everything on, but fails as it is told.
class FailingSnapshotter final : public Snapshotter {
 public:
  explicit FailingSnapshotter(Snapshotter& real) : real_(real) {}

  StatusOr<SnapshotInfo> Stat(CallContext& call, std::string_view name) override {
    return real_.Stat(call, name);
  }
  StatusOr<SnapshotInfo> Update(CallContext& call, const SnapshotInfo& info,
                                const std::vector<std::string>& mask) override {
    return real_.Update(call, info, mask);
  }
  StatusOr<Usage> GetUsage(CallContext& call, std::string_view key) override {
    return real_.GetUsage(call, key);
  }
  StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view key) override {
    return real_.Mounts(call, key);
  }
  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                       std::string_view parent, const Labels& labels) override {
    return real_.Prepare(call, key, parent, labels);
  }
  StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view key,
                                    std::string_view parent, const Labels& labels) override {
    return real_.View(call, key, parent, labels);
  }
  Status Commit(CallContext& call, std::string_view name, std::string_view key,
                const CommitOptions& options) override {
    return real_.Commit(call, name, key, options);
  }
  Status Remove(CallContext& call, std::string_view key) override {
    if (key.ends_with(fail_remove_of) && !fail_remove_of.empty()) {
      return MakeStatus(fail_with, "told so");
    }
    return real_.Remove(call, key);
  }
  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& call,
                                                 const std::vector<std::string>& filters) override {
    if (!fail_list.ok()) {
      return fail_list;
    }
    return real_.List(call, filters);
  }
  Status Cleanup(CallContext& call) override {
    ++cleanups;
    return fail_cleanup.ok() ? real_.Cleanup(call) : fail_cleanup;
  }

  std::string fail_remove_of;
  StatusCode fail_with = StatusCode::kFailedPrecondition;
  Status fail_list;
  Status fail_cleanup;
  int cleanups = 0;

 private:
  Snapshotter& real_;
};

// A snapshot to make.
struct Wanted {
  std::string parent;
  RecordType type = RecordType::kRegular;
  int64_t mebibytes = 0;
  hours unused{0};
  int uses = 0;
  bool shared = false;
  std::string description;
};

class PruneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto real = NativeSnapshotter::Create({.root = dir_.Join("root"), .allow_volatile = true});
    ASSERT_THAT(real, IsOk());
    real_ = *std::move(real);
    snapshotter_ = std::make_unique<FailingSnapshotter>(*real_);
    worker_ = Worker("one");
  }

  std::unique_ptr<WorkerSnapshots> Worker(const std::string& id) {
    auto worker = WorkerSnapshots::Create(
        *snapshotter_, {.worker_id = id, .holds_directory = dir_.Join(id), .clock = &clock_});
    EXPECT_THAT(worker, IsOk());
    return worker.ok() ? *std::move(worker) : nullptr;
  }

  // A committed snapshot, or an active one that nobody holds any more.
  void Add(const std::string& name, const Wanted& wanted = {}, bool commit = true) {
    const auto maker = Worker("one");
    const std::string key = commit ? "key of " + name : name;
    Labels labels;
    if (wanted.shared) {
      labels.emplace(kSharedRecordLabel, "yes");
    }
    const TimeNs now = clock_.now;
    clock_.now -= std::chrono::nanoseconds(wanted.unused).count();
    STRATA_ASSERT_OK_AND_ASSIGN(
        const auto mounts,
        maker->Prepare(call_, key, wanted.parent, wanted.type, wanted.description, labels));
    if (wanted.mebibytes != 0) {
      // The content is in the way of nobody, and a copy of the parent's would count here, too.
      std::ofstream(mounts[0].source + "/file of " + name)
          << std::string(static_cast<size_t>(wanted.mebibytes * kMiB), 'x');
    }
    if (commit) {
      ASSERT_THAT(maker->Commit(call_, name, key, wanted.type, wanted.description, labels), IsOk());
    }
    for (int i = 0; i < wanted.uses; ++i) {
      ASSERT_THAT(maker->Touch(call_, name), IsOk());
    }
    clock_.now = now;
  }

  // Names in the order of their removal.
  std::vector<std::string> Removed(const std::vector<GcRule>& rules) {
    const auto pruned = Prune(call_, *worker_, rules, {});
    EXPECT_THAT(pruned, IsOk());
    std::vector<std::string> names;
    if (pruned.ok()) {
      EXPECT_THAT(pruned->failed, IsEmpty());
      for (const WorkerRecord& record : pruned->removed) {
        names.push_back(record.name);
      }
    }
    return names;
  }

  std::vector<std::string> Left(WorkerSnapshots& worker) {
    std::vector<std::string> names;
    const auto records = worker.List(call_, /*with_usage=*/false);
    EXPECT_THAT(records, IsOk());
    for (const WorkerRecord& record : *records) {
      names.push_back(record.name);
    }
    return names;
  }

  TempDir dir_;
  CallContext call_;
  TestClock clock_;
  std::unique_ptr<NativeSnapshotter> real_;
  std::unique_ptr<FailingSnapshotter> snapshotter_;
  std::unique_ptr<WorkerSnapshots> worker_;
};

TEST_F(PruneTest, NoRuleRemovesNothing) {
  Add("a");
  EXPECT_THAT(Removed({}), IsEmpty());
  EXPECT_THAT(Left(*worker_), ElementsAre("a"));
}

TEST_F(PruneTest, ChildrenGoBeforeTheirParents) {
  Add("base", {.unused = hours(9)});
  Add("middle", {.parent = "base", .unused = hours(8)});
  Add("top", {.parent = "middle"});
  EXPECT_THAT(Removed({{.all = true}}), ElementsAre("top", "middle", "base"));
}

TEST_F(PruneTest, KeepDurationKeepsWhatWasUsedSince) {
  Add("old", {.unused = hours(48)});
  Add("edge", {.unused = hours(24)});
  Add("new", {.unused = hours(23)});
  EXPECT_THAT(Removed({{.keep_duration = hours(24)}}), ElementsAre("old", "edge"));
}

TEST_F(PruneTest, AParentStaysWithAChildThatIsKept) {
  Add("base", {.unused = hours(48)});
  Add("top", {.parent = "base"});
  EXPECT_THAT(Removed({{.keep_duration = hours(24)}}), IsEmpty());
}

TEST_F(PruneTest, NothingHappensBelowKeepBytes) {
  Add("a", {.mebibytes = 1});
  EXPECT_THAT(Removed({{.keep_bytes = 8 * kMiB}}), IsEmpty());
}

TEST_F(PruneTest, KeepBytesRemovesNoMoreThanItMust) {
  Add("first", {.mebibytes = 2, .unused = hours(3)});
  Add("second", {.mebibytes = 2, .unused = hours(2)});
  Add("third", {.mebibytes = 2, .unused = hours(1)});
  EXPECT_THAT(Removed({{.keep_bytes = 5 * kMiB}}), ElementsAre("first"));
}

TEST_F(PruneTest, ATotalOfJustKeepBytesIsTooMuch) {
  Add("first", {.mebibytes = 2, .unused = hours(3)});
  Add("second", {.mebibytes = 2, .unused = hours(2)});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto records, worker_->List(call_, /*with_usage=*/true));
  const int64_t total = records[0].usage.size + records[1].usage.size;
  EXPECT_THAT(Removed({{.keep_bytes = total + 1}}), IsEmpty());
  EXPECT_THAT(Removed({{.keep_bytes = total}}), ElementsAre("first"));
}

TEST_F(PruneTest, BothTheLastUseAndTheNumberOfUsesCount) {
  // Places by last use 0, 1/2, 1; by uses 1, 0, 1/2: sums 1, 1/2, 3/2.
  Add("oldest", {.mebibytes = 1, .unused = hours(3), .uses = 9});
  Add("seldom", {.mebibytes = 1, .unused = hours(2)});
  Add("newest", {.mebibytes = 1, .unused = hours(1), .uses = 3});
  EXPECT_THAT(Removed({{.keep_bytes = 1}}), ElementsAre("seldom", "oldest", "newest"));
}

TEST_F(PruneTest, SharedOnesAreNeitherCountedNorTakenWithoutAll) {
  Add("shared", {.mebibytes = 4, .unused = hours(9), .shared = true});
  Add("own", {.mebibytes = 1});
  EXPECT_THAT(Removed({{.keep_bytes = 3 * kMiB}}), IsEmpty());
  EXPECT_THAT(Removed({{}}), ElementsAre("own"));
  EXPECT_THAT(Removed({{.all = true}}), ElementsAre("shared"));
}

TEST_F(PruneTest, InternalAndFrontendOnesOnlyGoWithAll) {
  Add("internal", {.type = RecordType::kInternal, .unused = hours(2)});
  Add("frontend", {.type = RecordType::kFrontend, .unused = hours(1)});
  Add("regular");
  EXPECT_THAT(Removed({{}}), ElementsAre("regular"));
  EXPECT_THAT(Removed({{.all = true}}), ElementsAre("internal", "frontend"));
}

TEST_F(PruneTest, WhatIsHeldStays) {
  Add("base");
  Add("held", {.parent = "base"});
  Add("free", {.parent = "base"});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto hold, Worker("one")->HoldSnapshot("held"));
  EXPECT_THAT(Removed({{.all = true}}), ElementsAre("free"));
}

TEST_F(PruneTest, AnActiveThatItsMakerLeftGoes) {
  Add("base");
  Add("left", {.parent = "base"}, /*commit=*/false);
  EXPECT_THAT(Removed({{}}), ElementsAre("left", "base"));
}

TEST_F(PruneTest, AnActiveOfSomebodyWhoIsAtItStays) {
  const auto maker = Worker("one");
  ASSERT_THAT(maker->Prepare(call_, "busy", "", RecordType::kRegular, "", {}), IsOk());
  EXPECT_THAT(Removed({{.all = true}}), IsEmpty());
}

TEST_F(PruneTest, AnotherWorkersStay) {
  const auto other = Worker("two");
  ASSERT_THAT(other->Prepare(call_, "key", "", RecordType::kRegular, "", {}), IsOk());
  ASSERT_THAT(other->Commit(call_, "theirs", "key", RecordType::kRegular, "", {}), IsOk());
  ASSERT_THAT(real_->Prepare(call_, "containerd's", "", {}), IsOk());
  Add("ours");
  EXPECT_THAT(Removed({{.all = true}}), ElementsAre("ours"));
  EXPECT_THAT(Left(*other), ElementsAre("theirs"));
  EXPECT_THAT(real_->Stat(call_, "containerd's"), IsOk());
}

TEST_F(PruneTest, RulesRunInTheirOrder) {
  Add("cache", {.type = RecordType::kCacheMount, .unused = hours(1)});
  Add("regular", {.unused = hours(50)});
  EXPECT_THAT(Removed({{.filters = {"type==exec.cachemount"}}, {.keep_duration = hours(24)}}),
              ElementsAre("cache", "regular"));
}

TEST_F(PruneTest, OneOfSeveralFiltersIsEnoughAndAllPartsOfOneAreNeeded) {
  Add("local", {.type = RecordType::kSourceLocal, .unused = hours(2)});
  Add("git", {.type = RecordType::kSourceGit, .unused = hours(1)});
  Add("regular");
  EXPECT_THAT(Removed({{.filters = {"type==source.local,type==source.git.checkout"}}}), IsEmpty());
  EXPECT_THAT(Removed({{.filters = {"type==source.local", "type==source.git.checkout"}}}),
              ElementsAre("local", "git"));
}

struct FilterCase {
  std::string name;
  std::string filter;
  std::vector<std::string> removed;
};

class PruneFilterTest : public PruneTest, public ::testing::WithParamInterface<FilterCase> {};

TEST_P(PruneFilterTest, Chooses) {
  Add("base", {.description = "the base"});
  Add("held");
  Add("shared", {.shared = true});
  Add("active", {.parent = "base"}, /*commit=*/false);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto hold, Worker("one")->HoldSnapshot("held"));
  const auto pruned = Prune(call_, *worker_, {{.all = true, .filters = {GetParam().filter}}}, {});
  ASSERT_THAT(pruned, IsOk());
  std::vector<std::string> names;
  for (const WorkerRecord& record : pruned->removed) {
    names.push_back(record.name);
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAreArray(GetParam().removed));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, PruneFilterTest,
    ::testing::Values(FilterCase{"Id", "id==shared", {"shared"}},
                      FilterCase{"IdByRegularExpression", "id~=\"^sha\"", {"shared"}},
                      FilterCase{"Parents", "parents==base", {"active"}},
                      FilterCase{"Description", "description~=active", {}},
                      FilterCase{"Type", "type!=regular", {}}, FilterCase{"InUse", "inuse", {}},
                      FilterCase{"Mutable", "mutable", {"active"}},
                      FilterCase{"Immutable", "immutable", {"shared"}},
                      FilterCase{"Shared", "shared", {"shared"}},
                      FilterCase{"Private", "private", {"active", "base"}},
                      FilterCase{"Unknown", "colour==red", {}}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(PruneTest, ABadFilterIsRefusedBeforeAnythingIsRemoved) {
  Add("a");
  EXPECT_THAT(Prune(call_, *worker_, {{.all = true}, {.filters = {"type=regular"}}}, {}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("rule 2"), HasSubstr("type=regular"))));
  EXPECT_THAT(Left(*worker_), ElementsAre("a"));
}

TEST_F(PruneTest, WhatCannotBeRemovedIsReportedAndTheOthersGo) {
  Add("base");
  Add("stuck", {.parent = "base", .unused = hours(2)});
  Add("free", {.unused = hours(1)});
  snapshotter_->fail_remove_of = "/stuck";
  STRATA_ASSERT_OK_AND_ASSIGN(const Pruned pruned,
                              Prune(call_, *worker_, {{.keep_bytes = 1}, {.all = true}}, {}));
  EXPECT_THAT(pruned.failed, ElementsAre(Pair("stuck", StatusIs(StatusCode::kFailedPrecondition))));
  EXPECT_THAT(Left(*worker_), UnorderedElementsAre("base", "stuck"));
}

TEST_F(PruneTest, WhatSomebodyElseRemovedIsNoFailure) {
  Add("base");
  Add("top", {.parent = "base"});
  snapshotter_->fail_remove_of = "/top";
  snapshotter_->fail_with = StatusCode::kNotFound;
  STRATA_ASSERT_OK_AND_ASSIGN(const Pruned pruned, Prune(call_, *worker_, {{.all = true}}, {}));
  EXPECT_THAT(pruned.removed, IsEmpty());
  // Here it is still there, so that its parent cannot go; but that was tried.
  EXPECT_THAT(pruned.failed, ElementsAre(Pair("base", StatusIs(StatusCode::kFailedPrecondition))));
}

TEST_F(PruneTest, ASnapshotterThatIsAwayIsUnavailable) {
  Add("a");
  snapshotter_->fail_list = MakeStatus(StatusCode::kUnavailable, "away");
  EXPECT_THAT(Prune(call_, *worker_, {{.all = true}}, {}), StatusIs(StatusCode::kUnavailable));
  snapshotter_->fail_list = OkStatus();
  EXPECT_THAT(Left(*worker_), ElementsAre("a"));
}

TEST_F(PruneTest, ASnapshotterThatGoesAwayEndsThePass) {
  Add("a", {.unused = hours(2)});
  Add("b", {.unused = hours(1)});
  snapshotter_->fail_remove_of = "/a";
  snapshotter_->fail_with = StatusCode::kUnavailable;
  EXPECT_THAT(Prune(call_, *worker_, {{.all = true}}, {}), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(Left(*worker_), UnorderedElementsAre("a", "b"));
}

TEST_F(PruneTest, ACancelledCallEndsThePass) {
  Add("a");
  call_.Cancel();
  EXPECT_THAT(Prune(call_, *worker_, {{.all = true}}, {}), StatusIs(StatusCode::kCancelled));
}

TEST_F(PruneTest, TellsOfEachRemovalAndCountsTheBytes) {
  Add("a", {.mebibytes = 2, .unused = hours(1)});
  Add("b", {.mebibytes = 1});
  std::vector<std::string> told;
  STRATA_ASSERT_OK_AND_ASSIGN(const Pruned pruned, Prune(call_, *worker_, {{.all = true}},
                                                         [&told](const WorkerRecord& record) {
                                                           told.push_back(record.name);
                                                         }));
  EXPECT_THAT(told, ElementsAre("a", "b"));
  EXPECT_GE(pruned.bytes, uint64_t{3 * kMiB});
  EXPECT_LT(pruned.bytes, uint64_t{4 * kMiB});
}

TEST_F(PruneTest, CleansUpOnceAtTheEnd) {
  Add("a");
  Add("b");
  EXPECT_THAT(Removed({{.all = true}, {.all = true}}), ::testing::SizeIs(2));
  EXPECT_EQ(snapshotter_->cleanups, 1);
}

TEST_F(PruneTest, ACleanUpThatFailsIsReported) {
  snapshotter_->fail_cleanup = MakeStatus(StatusCode::kResourceExhausted, "no");
  STRATA_ASSERT_OK_AND_ASSIGN(const Pruned pruned, Prune(call_, *worker_, {}, {}));
  EXPECT_THAT(
      pruned.failed,
      ElementsAre(Pair("", StatusIs(StatusCode::kResourceExhausted, HasSubstr("clean up")))));
}

TEST_F(PruneTest, TheDefaultPolicyKeepsWhatFits) {
  Add("cache", {.type = RecordType::kCacheMount, .mebibytes = 1, .unused = hours(72)});
  Add("regular", {.mebibytes = 1, .unused = hours(24 * 90)});
  EXPECT_THAT(Removed(DefaultGcPolicy(64 * kMiB)), IsEmpty());
  EXPECT_THAT(Removed(DefaultGcPolicy(1)), ElementsAre("regular", "cache"));
}

}  // namespace
}  // namespace strata::testing
