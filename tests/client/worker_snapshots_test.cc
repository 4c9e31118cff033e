// SPDX-License-Identifier: Apache-2.0
//
// A worker's own snapshots on a snapshotter in this process (native, without mounts) and on one
// behind a socket that answers as it is told.
#include "client/worker_snapshots.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/core/tenant_snapshotter.h"
#include "snapshotters/native/native_snapshotter.h"
#include "tests/client/fake_snapshots.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr size_t kMaxLabelBytes = 4096;  // containerd: of key and value together

class FixedClock final : public Clock {
 public:
  TimeNs Now() override { return now; }
  TimeNs now = 1'000;
};

class WorkerSnapshotsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto all = NativeSnapshotter::Create({.root = dir_.Join("root"), .allow_volatile = true});
    ASSERT_THAT(all, IsOk());
    all_ = *std::move(all);
    one_ = Worker("one");
    two_ = Worker("two");
  }

  std::unique_ptr<WorkerSnapshots> Worker(const std::string& id) {
    auto worker = WorkerSnapshots::Create(
        *all_, {.worker_id = id, .holds_directory = dir_.Join("holds-" + id), .clock = &clock_});
    EXPECT_THAT(worker, IsOk());
    return worker.ok() ? *std::move(worker) : nullptr;
  }

  Status Add(WorkerSnapshots& worker, std::string_view name, std::string_view parent = "",
             RecordType type = RecordType::kRegular, std::string_view description = "",
             const Labels& labels = {}) {
    const std::string key = "key of " + std::string(name);
    const Status prepared = worker.Prepare(call_, key, parent, type, description, labels).status();
    return prepared.ok() ? worker.Commit(call_, name, key, type, description, labels) : prepared;
  }

  std::vector<std::string> Names(WorkerSnapshots& worker) {
    std::vector<std::string> names;
    const auto records = worker.List(call_, /*with_usage=*/false);
    EXPECT_THAT(records, IsOk());
    for (const WorkerRecord& record : *records) {
      names.push_back(record.name);
    }
    return names;
  }

  bool InUse(WorkerSnapshots& worker, std::string_view name) {
    const auto records = worker.List(call_, /*with_usage=*/false);
    EXPECT_THAT(records, IsOk());
    const auto found = std::ranges::find(*records, name, &WorkerRecord::name);
    EXPECT_NE(found, records->end()) << name;
    return found != records->end() && found->in_use;
  }

  TempDir dir_;
  CallContext call_;
  FixedClock clock_;
  std::unique_ptr<NativeSnapshotter> all_;
  std::unique_ptr<WorkerSnapshots> one_;
  std::unique_ptr<WorkerSnapshots> two_;
};

TEST_F(WorkerSnapshotsTest, NamesOnTheSnapshotterBeginWithThePrefix) {
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  ASSERT_THAT(Add(*one_, "top", "base"), IsOk());
  EXPECT_EQ(one_->prefix(), "strata-worker/one/");
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo top, all_->Stat(call_, "strata-worker/one/top"));
  EXPECT_EQ(top.parent, "strata-worker/one/base");
  EXPECT_EQ(top.kind, Kind::kCommitted);
}

TEST_F(WorkerSnapshotsTest, FindReturnsWhatTheRecordWasMadeWith) {
  clock_.now = 5'000;
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  clock_.now = 6'000;
  ASSERT_THAT(Add(*one_, "top", "base", RecordType::kCacheMount, "apt's cache"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const WorkerRecord top, one_->Find(call_, "top"));
  EXPECT_EQ(top.name, "top");
  EXPECT_EQ(top.parent, "base");
  EXPECT_EQ(top.kind, Kind::kCommitted);
  EXPECT_EQ(top.type, RecordType::kCacheMount);
  EXPECT_EQ(top.description, "apt's cache");
  EXPECT_EQ(top.last_used, 6'000);
  EXPECT_EQ(top.use_count, 0U);
  EXPECT_FALSE(top.in_use);
  EXPECT_FALSE(top.shared);
}

TEST_F(WorkerSnapshotsTest, EveryTypeComesBack) {
  for (const RecordType type :
       {RecordType::kRegular, RecordType::kInternal, RecordType::kFrontend,
        RecordType::kSourceLocal, RecordType::kSourceGit, RecordType::kCacheMount}) {
    const std::string name(RecordTypeName(type));
    ASSERT_THAT(Add(*one_, name, "", type), IsOk());
    STRATA_ASSERT_OK_AND_ASSIGN(const WorkerRecord record, one_->Find(call_, name));
    EXPECT_EQ(record.type, type) << name;
  }
}

TEST_F(WorkerSnapshotsTest, ASharedRecordIsOneWithItsLabel) {
  ASSERT_THAT(Add(*one_, "mine", "", RecordType::kRegular, "",
                  {{std::string(kSharedRecordLabel), "image"}}),
              IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const WorkerRecord record, one_->Find(call_, "mine"));
  EXPECT_TRUE(record.shared);
}

TEST_F(WorkerSnapshotsTest, WhatIsNotSyncedIsDoubtfulAfterAReboot) {
  const Labels unsynced = {{std::string(kUnsyncedLabel), "yes"}};
  ASSERT_THAT(Add(*one_, "a", "", RecordType::kRegular, "", unsynced), IsOk());
  ASSERT_THAT(Add(*one_, "b", "", RecordType::kRegular, "", unsynced), IsOk());
  ASSERT_THAT(one_->MarkSynced(call_, "b"), IsOk());
  EXPECT_EQ(one_->Find(call_, "a")->data, WorkerRecord::Data::kUnsynced);
  EXPECT_EQ(one_->Find(call_, "b")->data, WorkerRecord::Data::kSynced);
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto rebooted,
      WorkerSnapshots::Create(*all_, {.worker_id = "one",
                                      .holds_directory = dir_.Join("holds-one"),
                                      .clock = &clock_,
                                      .boot_id = "another"}));
  EXPECT_EQ(rebooted->Find(call_, "a")->data, WorkerRecord::Data::kDoubtful);
  EXPECT_EQ(rebooted->Find(call_, "b")->data, WorkerRecord::Data::kSynced);
}

TEST_F(WorkerSnapshotsTest, LabelsOfTheCallerAreKept) {
  ASSERT_THAT(Add(*one_, "base", "", RecordType::kRegular, "", {{"mine", "yes"}}), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, all_->Stat(call_, "strata-worker/one/base"));
  EXPECT_THAT(info.labels, ::testing::Contains(Pair("mine", "yes")));
  EXPECT_THAT(info.labels, ::testing::Contains(Pair("containerd.io/gc.root", Not(IsEmpty()))));
}

TEST_F(WorkerSnapshotsTest, ALongDescriptionIsCutToALabelThatContainerdTakes) {
  std::string description = "a";
  while (description.size() < 2 * kMaxLabelBytes) {
    description += "\u00e4";
  }
  ASSERT_THAT(Add(*one_, "base", "", RecordType::kRegular, description), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, all_->Stat(call_, "strata-worker/one/base"));
  for (const auto& [key, value] : info.labels) {
    EXPECT_LE(key.size() + value.size(), kMaxLabelBytes) << key;
    EXPECT_TRUE(IsValidUtf8(value)) << key;
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const WorkerRecord record, one_->Find(call_, "base"));
  EXPECT_THAT(record.description, SizeIs(::testing::Gt(kMaxLabelBytes / 2)));
}

TEST_F(WorkerSnapshotsTest, TheNameToCommitAsGetsThePrefix) {
  ASSERT_THAT(one_->Prepare(call_, "key", "", RecordType::kRegular, "",
                            {{std::string(kSnapshotRefLabel), "sha256:1"}}),
              IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, all_->Stat(call_, "strata-worker/one/key"));
  EXPECT_THAT(info.labels,
              ::testing::Contains(Pair(kSnapshotRefLabel, "strata-worker/one/sha256:1")));
}

TEST_F(WorkerSnapshotsTest, TouchCountsAndNotesTheTime) {
  ASSERT_THAT(Add(*one_, "base", "", RecordType::kFrontend, "text"), IsOk());
  clock_.now = 7'000;
  ASSERT_THAT(one_->Touch(call_, "base"), IsOk());
  clock_.now = 8'000;
  ASSERT_THAT(one_->Touch(call_, "base"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const WorkerRecord record, one_->Find(call_, "base"));
  EXPECT_EQ(record.last_used, 8'000);
  EXPECT_EQ(record.use_count, 2U);
  EXPECT_EQ(record.type, RecordType::kFrontend);
  EXPECT_EQ(record.description, "text");
}

TEST_F(WorkerSnapshotsTest, WorkersDoNotSeeOneAnothersSnapshots) {
  ASSERT_THAT(Add(*one_, "a"), IsOk());
  ASSERT_THAT(Add(*two_, "b"), IsOk());
  ASSERT_THAT(all_->Prepare(call_, "somebody's", "", {}), IsOk());
  EXPECT_THAT(Names(*one_), ElementsAre("a"));
  EXPECT_THAT(Names(*two_), ElementsAre("b"));
  EXPECT_THAT(two_->Find(call_, "a"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(two_->Remove(call_, "a"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(two_->Touch(call_, "a"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(two_->View(call_, "v", "a"), StatusIs(StatusCode::kNotFound));
}

TEST_F(WorkerSnapshotsTest, TheSameNameIsAnotherSnapshotForAnotherWorker) {
  ASSERT_THAT(Add(*one_, "a"), IsOk());
  ASSERT_THAT(Add(*two_, "a"), IsOk());
  ASSERT_THAT(two_->Remove(call_, "a"), IsOk());
  EXPECT_THAT(one_->Find(call_, "a"), IsOk());
}

TEST_F(WorkerSnapshotsTest, AnIdThatBeginsLikeAnotherIsAnotherWorker) {
  const auto longer = Worker("onetwo");
  ASSERT_THAT(Add(*longer, "a"), IsOk());
  EXPECT_THAT(Names(*one_), IsEmpty());
}

TEST_F(WorkerSnapshotsTest, ErrorsSpeakOfNamesWithoutThePrefix) {
  EXPECT_THAT(one_->Find(call_, "nothing"),
              StatusIs(StatusCode::kNotFound,
                       AllOf(HasSubstr("'nothing'"), Not(HasSubstr("strata-worker")))));
  EXPECT_THAT(one_->Prepare(call_, "key", "nothing", RecordType::kRegular, "", {}),
              StatusIs(StatusCode::kNotFound,
                       AllOf(HasSubstr("'nothing'"), Not(HasSubstr("strata-worker")))));
}

TEST_F(WorkerSnapshotsTest, ANameThatIsNoneIsRefused) {
  EXPECT_THAT(one_->Find(call_, ""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(one_->HoldSnapshot(""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(one_->Remove(call_, "a\xff"), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(WorkerSnapshotsTest, AnIdThatIsNoWordIsRefused) {
  for (const std::string id : {"", "a/b", "a b", "a.b", "\"", "a\xc3\xa4"}) {
    EXPECT_THAT(
        WorkerSnapshots::Create(*all_, {.worker_id = id, .holds_directory = dir_.Join("h")}),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr("worker id")))
        << id;
  }
}

TEST_F(WorkerSnapshotsTest, ListGoesOnOverPages) {
  constexpr size_t kCount = kListPageSize + 5;
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  for (size_t i = 0; i < kCount; ++i) {
    ASSERT_THAT(one_->View(call_, "v" + std::to_string(i), "base"), IsOk());
  }
  EXPECT_THAT(Names(*one_), SizeIs(kCount + 1));
}

TEST_F(WorkerSnapshotsTest, UsageIsThereWhenAskedFor) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts,
                              one_->Prepare(call_, "key", "", RecordType::kRegular, "", {}));
  std::filesystem::create_directory(mounts[0].source + "/folder");
  ASSERT_THAT(one_->Commit(call_, "base", "key", RecordType::kRegular, "", {}), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto without, one_->List(call_, /*with_usage=*/false));
  EXPECT_EQ(without[0].usage, Usage{});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto with, one_->List(call_, /*with_usage=*/true));
  EXPECT_EQ(with[0].usage.inodes, 2);
}

TEST_F(WorkerSnapshotsTest, AHoldMarksTheSnapshotAndItsParents) {
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  ASSERT_THAT(Add(*one_, "middle", "base"), IsOk());
  ASSERT_THAT(Add(*one_, "top", "middle"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(auto hold, one_->HoldSnapshot("middle"));
  EXPECT_TRUE(InUse(*one_, "middle"));
  EXPECT_TRUE(InUse(*one_, "base"));
  EXPECT_FALSE(InUse(*one_, "top"));
  hold.reset();
  EXPECT_FALSE(InUse(*one_, "middle"));
  EXPECT_FALSE(InUse(*one_, "base"));
}

TEST_F(WorkerSnapshotsTest, AnotherObjectOfTheSameWorkerSeesTheHold) {
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto hold, one_->HoldSnapshot("base"));
  EXPECT_TRUE(InUse(*Worker("one"), "base"));
}

TEST_F(WorkerSnapshotsTest, SeveralMayHoldTheSame) {
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(auto first, one_->HoldSnapshot("base"));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto second, one_->HoldSnapshot("base"));
  first.reset();
  EXPECT_TRUE(InUse(*one_, "base"));
}

TEST_F(WorkerSnapshotsTest, AHoldOfSomethingElseIsNone) {
  ASSERT_THAT(Add(*one_, "a"), IsOk());
  ASSERT_THAT(Add(*two_, "a"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto hold, two_->HoldSnapshot("a"));
  EXPECT_FALSE(InUse(*one_, "a"));
}

TEST_F(WorkerSnapshotsTest, NoFileIsLeftOfAHold) {
  STRATA_ASSERT_OK_AND_ASSIGN(auto first, one_->HoldSnapshot("base"));
  STRATA_ASSERT_OK_AND_ASSIGN(auto second, one_->HoldSnapshot("base"));
  first.reset();
  EXPECT_FALSE(std::filesystem::is_empty(dir_.Join("holds-one")));
  second.reset();
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("holds-one")));
}

TEST_F(WorkerSnapshotsTest, AHoldMayOutliveTheObject) {
  STRATA_ASSERT_OK_AND_ASSIGN(auto hold, one_->HoldSnapshot("base"));
  one_.reset();
  hold.reset();
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("holds-one")));
}

TEST_F(WorkerSnapshotsTest, WhatIsPreparedIsHeldUntilItIsCommitted) {
  ASSERT_THAT(one_->Prepare(call_, "key", "", RecordType::kRegular, "", {}), IsOk());
  EXPECT_TRUE(InUse(*one_, "key"));
  ASSERT_THAT(one_->Commit(call_, "base", "key", RecordType::kRegular, "", {}), IsOk());
  EXPECT_FALSE(InUse(*one_, "base"));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("holds-one")));
}

TEST_F(WorkerSnapshotsTest, WhatIsPreparedIsHeldNoLongerThanItsMakerLives) {
  auto maker = Worker("one");
  ASSERT_THAT(maker->Prepare(call_, "key", "", RecordType::kRegular, "", {}), IsOk());
  maker.reset();
  EXPECT_FALSE(InUse(*one_, "key"));
}

TEST_F(WorkerSnapshotsTest, WhatCouldNotBePreparedIsNotHeld) {
  ASSERT_THAT(one_->Prepare(call_, "key", "nothing", RecordType::kRegular, "", {}),
              StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("holds-one")));
}

TEST_F(WorkerSnapshotsTest, WhatIsHeldIsNotRemovedAsUnused) {
  ASSERT_THAT(Add(*one_, "base"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(auto hold, one_->HoldSnapshot("base"));
  EXPECT_THAT(one_->RemoveUnused(call_, "base"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("'base': it is in use")));
  EXPECT_THAT(one_->Find(call_, "base"), IsOk());
  hold.reset();
  EXPECT_THAT(one_->RemoveUnused(call_, "base"), IsOk());
  EXPECT_THAT(one_->Find(call_, "base"), StatusIs(StatusCode::kNotFound));
}

TEST_F(WorkerSnapshotsTest, RemoveDoesNotMindItsOwnHold) {
  ASSERT_THAT(one_->Prepare(call_, "key", "", RecordType::kRegular, "", {}), IsOk());
  EXPECT_THAT(one_->Remove(call_, "key"), IsOk());
  EXPECT_TRUE(std::filesystem::is_empty(dir_.Join("holds-one")));
}

TEST_F(WorkerSnapshotsTest, TwoWorkersWithTenantsOfTheirOwnWorkToo) {
  TenantSnapshotter tenant(*all_, "build");
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto worker,
      WorkerSnapshots::Create(tenant, {.worker_id = "one", .holds_directory = dir_.Join("t")}));
  ASSERT_THAT(Add(*worker, "a"), IsOk());
  EXPECT_THAT(Names(*worker), ElementsAre("a"));
  EXPECT_THAT(Names(*one_), IsEmpty());
}

// --- over a socket

class RemoteWorkerSnapshotsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto channel = Dial(socket_, {.backoff_base = std::chrono::milliseconds(100),
                                  .wait_for_ready = std::chrono::minutes(1)});
    ASSERT_THAT(channel, IsOk());
    proxy_ = NewProxySnapshotter(*std::move(channel), {.snapshotter_name = "overlayfs"});
    auto worker = WorkerSnapshots::Create(
        *proxy_, {.worker_id = "one", .holds_directory = dir_.Join("holds")});
    ASSERT_THAT(worker, IsOk());
    worker_ = *std::move(worker);
  }

  template <typename Request>
  Request Received() {
    Request request;
    EXPECT_TRUE(request.ParseFromString(server_.snapshots.seen().request));
    return request;
  }

  TempDir dir_;
  const std::string socket_ = dir_.Join("s.sock");
  FakeServer server_{socket_};
  CallContext call_;
  std::unique_ptr<Snapshotter> proxy_;
  std::unique_ptr<WorkerSnapshots> worker_;
};

TEST_F(RemoteWorkerSnapshotsTest, ListAsksForThePrefixOnly) {
  ASSERT_THAT(worker_->List(call_, /*with_usage=*/true), IsOk());
  EXPECT_THAT(Received<wire::ListSnapshotsRequest>().filters(),
              ElementsAre("name~=\"^strata-worker/one/\""));
}

TEST_F(RemoteWorkerSnapshotsTest, RowsOfOthersAreDroppedWhenTheServerIgnoresFilters) {
  Script script;
  script.messages = {3};
  server_.snapshots.Play(script);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto records, worker_->List(call_, /*with_usage=*/true));
  EXPECT_THAT(records, IsEmpty());
  EXPECT_EQ(server_.snapshots.seen().calls, 1) << "usage of others was asked for";
}

TEST_F(RemoteWorkerSnapshotsTest, AnAnswerThatBreaksOffIsAnErrorAndNoShorterList) {
  Script script;
  script.messages = {3};
  script.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down");
  server_.snapshots.Play(script);
  EXPECT_THAT(worker_->List(call_, /*with_usage=*/false), StatusIs(StatusCode::kUnavailable));
}

TEST_F(RemoteWorkerSnapshotsTest, AServerThatIsAwayIsUnavailable) {
  server_.Stop();
  EXPECT_THAT(worker_->List(call_, /*with_usage=*/false), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(worker_->Find(call_, "a"), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(worker_->Prepare(call_, "a", "", RecordType::kRegular, "", {}),
              StatusIs(StatusCode::kUnavailable));
}

TEST_F(RemoteWorkerSnapshotsTest, CodesOfTheServerAreKept) {
  Script script;
  script.status = grpc::Status(grpc::StatusCode::ALREADY_EXISTS,
                               "target snapshot \"strata-worker/one/x\": already exists");
  server_.snapshots.Play(script);
  EXPECT_THAT(worker_->Prepare(call_, "a", "", RecordType::kRegular, "", {}),
              StatusIs(StatusCode::kAlreadyExists,
                       AllOf(HasSubstr("\"x\""), Not(HasSubstr("strata-worker")))));
}

TEST_F(RemoteWorkerSnapshotsTest, TouchChangesTheTwoLabelsAndNoOther) {
  Script script;
  script.info.set_name("strata-worker/one/a");
  (*script.info.mutable_labels())["containerd.io/snapshot/strata-worker.use-count"] = "41";
  server_.snapshots.Play(script);
  ASSERT_THAT(worker_->Touch(call_, "a"), IsOk());
  const auto request = Received<wire::UpdateSnapshotRequest>();
  EXPECT_EQ(request.info().name(), "strata-worker/one/a");
  EXPECT_THAT(request.update_mask().paths(),
              UnorderedElementsAre("labels.containerd.io/snapshot/strata-worker.last-used",
                                   "labels.containerd.io/snapshot/strata-worker.use-count"));
  EXPECT_EQ(request.info().labels().at("containerd.io/snapshot/strata-worker.use-count"), "42");
}

TEST_F(RemoteWorkerSnapshotsTest, AMarkIsTakenAwayByAMaskThatNamesIt) {
  Script script;
  script.info.set_name("strata-worker/one/a");
  server_.snapshots.Play(script);
  ASSERT_THAT(worker_->MarkSynced(call_, "a"), IsOk());
  const auto request = Received<wire::UpdateSnapshotRequest>();
  EXPECT_EQ(request.info().name(), "strata-worker/one/a");
  EXPECT_THAT(request.update_mask().paths(),
              UnorderedElementsAre("labels.containerd.io/snapshot/strata-worker.unsynced"));
  EXPECT_TRUE(request.info().labels().empty());
}

TEST_F(RemoteWorkerSnapshotsTest, AServerWithoutCleanupIsFine) {
  Script script;
  script.status = grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no");
  server_.snapshots.Play(script);
  EXPECT_THAT(worker_->Cleanup(call_), IsOk());
}

}  // namespace
}  // namespace strata::testing
