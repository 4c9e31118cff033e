// SPDX-License-Identifier: Apache-2.0
#include "client/proxy_snapshotter.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "snapshotters/base/check.h"
#include "tests/client/fake_snapshots.h"
#include "tests/support/fastest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr milliseconds kLimit{60'000};     // a test that waits longer has failed
constexpr milliseconds kCancelLimit{100};  // promised by the interface
constexpr milliseconds kTimeout{200};      // of calls that are meant to reach it
constexpr milliseconds kAtOnce{500};       // much less than any wait
constexpr milliseconds kSoon{10'000};      // where the other way would be kLimit, or never
constexpr std::string_view kNotUtf8 = "a\xff";

milliseconds Since(steady_clock::time_point start) {
  return std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
}

std::unique_ptr<Snapshotter> Connect(const std::string& socket, ProxyOptions options = {}) {
  StatusOr<std::shared_ptr<grpc::Channel>> channel =
      Dial(socket, {.backoff_base = milliseconds(100), .wait_for_ready = kLimit});
  STRATA_CHECK(channel.ok());
  return NewProxySnapshotter(*std::move(channel), std::move(options));
}

// Every operation with ordinary arguments.
using Operation = std::function<Status(Snapshotter&, CallContext&)>;

struct NamedOperation {
  std::string name;
  Operation run;
};

std::vector<NamedOperation> Operations() {
  return {
      {"Stat", [](Snapshotter& s, CallContext& c) { return s.Stat(c, "k").status(); }},
      {"Update",
       [](Snapshotter& s, CallContext& c) { return s.Update(c, {.name = "k"}, {}).status(); }},
      {"GetUsage", [](Snapshotter& s, CallContext& c) { return s.GetUsage(c, "k").status(); }},
      {"Mounts", [](Snapshotter& s, CallContext& c) { return s.Mounts(c, "k").status(); }},
      {"Prepare",
       [](Snapshotter& s, CallContext& c) { return s.Prepare(c, "k", "p", {}).status(); }},
      {"View", [](Snapshotter& s, CallContext& c) { return s.View(c, "k", "p", {}).status(); }},
      {"Commit", [](Snapshotter& s, CallContext& c) { return s.Commit(c, "n", "k", {}); }},
      {"Remove", [](Snapshotter& s, CallContext& c) { return s.Remove(c, "k"); }},
      {"List", [](Snapshotter& s, CallContext& c) { return s.List(c, {}).status(); }},
      {"Cleanup", [](Snapshotter& s, CallContext& c) { return s.Cleanup(c); }},
  };
}

class ProxySnapshotterTest : public ::testing::Test {
 protected:
  FakeSnapshots& fake() { return server_.snapshots; }

  // The last request, as `Request`.
  template <typename Request>
  Request Received() {
    Request request;
    EXPECT_TRUE(request.ParseFromString(fake().seen().request));
    return request;
  }

  TempDir dir_;
  const std::string socket_ = dir_.Join("s.sock");
  FakeServer server_{socket_};
  std::unique_ptr<Snapshotter> snapshotter_ = Connect(socket_, {.snapshotter_name = "overlayfs"});
  CallContext call_;
};

Script MountScript() {
  Script script;
  script.mounts.resize(2);
  script.mounts[0].set_type("overlay");
  script.mounts[0].set_source("overlay");
  script.mounts[0].add_options("workdir=/w");
  script.mounts[0].add_options("upperdir=/u");
  script.mounts[1].set_type("bind");
  script.mounts[1].set_source("/s");
  script.mounts[1].set_target("etc");
  return script;
}

const std::vector<Mount> kScriptMounts = {
    {.type = "overlay", .source = "overlay", .options = {"workdir=/w", "upperdir=/u"}},
    {.type = "bind", .source = "/s", .target = "etc"},
};

TEST_F(ProxySnapshotterTest, PrepareSendsEverythingAndReturnsTheMounts) {
  fake().Play(MountScript());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts,
                              snapshotter_->Prepare(call_, "key", "parent", {{"l", "v"}}));
  EXPECT_EQ(mounts, kScriptMounts);
  const auto request = Received<wire::PrepareSnapshotRequest>();
  EXPECT_EQ(request.snapshotter(), "overlayfs");
  EXPECT_EQ(request.key(), "key");
  EXPECT_EQ(request.parent(), "parent");
  EXPECT_THAT(request.labels(), ElementsAre(Pair("l", "v")));
}

TEST_F(ProxySnapshotterTest, ViewSendsEverythingAndReturnsTheMounts) {
  fake().Play(MountScript());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts,
                              snapshotter_->View(call_, "key", "parent", {{"l", "v"}}));
  EXPECT_EQ(mounts, kScriptMounts);
  const auto request = Received<wire::ViewSnapshotRequest>();
  EXPECT_EQ(request.snapshotter(), "overlayfs");
  EXPECT_EQ(request.key(), "key");
  EXPECT_EQ(request.parent(), "parent");
  EXPECT_THAT(request.labels(), ElementsAre(Pair("l", "v")));
}

TEST_F(ProxySnapshotterTest, MountsReturnsTheMounts) {
  fake().Play(MountScript());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshotter_->Mounts(call_, "key"));
  EXPECT_EQ(mounts, kScriptMounts);
  EXPECT_EQ(Received<wire::MountsRequest>().snapshotter(), "overlayfs");
  EXPECT_EQ(Received<wire::MountsRequest>().key(), "key");
}

TEST_F(ProxySnapshotterTest, CommitSendsEverything) {
  ASSERT_THAT(
      snapshotter_->Commit(call_, "name", "key", {.labels = {{"l", "v"}}, .parent = "parent"}),
      IsOk());
  const auto request = Received<wire::CommitSnapshotRequest>();
  EXPECT_EQ(request.snapshotter(), "overlayfs");
  EXPECT_EQ(request.name(), "name");
  EXPECT_EQ(request.key(), "key");
  EXPECT_EQ(request.parent(), "parent");
  EXPECT_THAT(request.labels(), ElementsAre(Pair("l", "v")));
}

TEST_F(ProxySnapshotterTest, RemoveSendsTheKey) {
  ASSERT_THAT(snapshotter_->Remove(call_, "key"), IsOk());
  EXPECT_EQ(Received<wire::RemoveSnapshotRequest>().snapshotter(), "overlayfs");
  EXPECT_EQ(Received<wire::RemoveSnapshotRequest>().key(), "key");
}

TEST_F(ProxySnapshotterTest, CleanupSendsTheSnapshotter) {
  ASSERT_THAT(snapshotter_->Cleanup(call_), IsOk());
  EXPECT_EQ(Received<wire::CleanupRequest>().snapshotter(), "overlayfs");
}

TEST_F(ProxySnapshotterTest, UsageReturnsBothNumbers) {
  Script script;
  script.size = int64_t{1} << 40;
  script.inodes = 77;
  fake().Play(script);
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, snapshotter_->GetUsage(call_, "key"));
  EXPECT_EQ(usage, (Usage{.size = int64_t{1} << 40, .inodes = 77}));
  EXPECT_EQ(Received<wire::UsageRequest>().snapshotter(), "overlayfs");
  EXPECT_EQ(Received<wire::UsageRequest>().key(), "key");
}

Script InfoScript() {
  Script script;
  script.info.set_name("name");
  script.info.set_parent("parent");
  script.info.set_kind(wire::VIEW);
  script.info.mutable_created_at()->set_seconds(5);
  script.info.mutable_updated_at()->set_nanos(7);
  (*script.info.mutable_labels())["l"] = "v";
  return script;
}

SnapshotInfo ScriptInfo() {
  return {.name = "name",
          .parent = "parent",
          .kind = Kind::kView,
          .created = 5'000'000'000,
          .updated = 7,
          .labels = {{"l", "v"}}};
}

TEST_F(ProxySnapshotterTest, StatReturnsTheWholeRow) {
  fake().Play(InfoScript());
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, snapshotter_->Stat(call_, "name"));
  EXPECT_EQ(info, ScriptInfo());
  EXPECT_EQ(Received<wire::StatSnapshotRequest>().snapshotter(), "overlayfs");
  EXPECT_EQ(Received<wire::StatSnapshotRequest>().key(), "name");
}

TEST_F(ProxySnapshotterTest, UpdateSendsRowAndMaskAndReturnsTheWholeRow) {
  fake().Play(InfoScript());
  STRATA_ASSERT_OK_AND_ASSIGN(
      const SnapshotInfo info,
      snapshotter_->Update(call_, {.name = "n", .parent = "p", .labels = {{"a.b/c", "v"}}},
                           {"labels.a.b/c", "labels"}));
  EXPECT_EQ(info, ScriptInfo());
  const auto request = Received<wire::UpdateSnapshotRequest>();
  EXPECT_EQ(request.snapshotter(), "overlayfs");
  EXPECT_EQ(request.info().name(), "n");
  EXPECT_EQ(request.info().parent(), "p");
  EXPECT_THAT(request.info().labels(), ElementsAre(Pair("a.b/c", "v")));
  EXPECT_THAT(request.update_mask().paths(), ElementsAre("labels.a.b/c", "labels"));
}

TEST_F(ProxySnapshotterTest, UpdateWithoutPathsStillSendsAMask) {
  ASSERT_THAT(snapshotter_->Update(call_, {.name = "n"}, {}), IsOk());
  EXPECT_TRUE(Received<wire::UpdateSnapshotRequest>().has_update_mask());
}

TEST_F(ProxySnapshotterTest, NamesAreSentAsTheyAre) {
  std::string name = "k8s.io/12/extract a:b=c\x01";
  name += std::string(40'000, 'x');
  ASSERT_THAT(snapshotter_->Stat(call_, name), IsOk());
  EXPECT_EQ(Received<wire::StatSnapshotRequest>().key(), name);
}

TEST_F(ProxySnapshotterTest, NamespaceTravelsAsHeaderOnlyWhenSet) {
  for (const auto& [name, run] : Operations()) {
    ASSERT_THAT(run(*snapshotter_, call_), IsOk()) << name;
    EXPECT_EQ(fake().seen().headers.count("containerd-namespace"), 0U) << name;
  }
  snapshotter_ = Connect(socket_, {.containerd_namespace = "buildkit"});
  for (const auto& [name, run] : Operations()) {
    ASSERT_THAT(run(*snapshotter_, call_), IsOk()) << name;
    EXPECT_THAT(fake().seen().headers,
                ::testing::Contains(Pair("containerd-namespace", "buildkit")))
        << name;
  }
}

TEST_F(ProxySnapshotterTest, NamespaceThatNoHeaderHoldsIsRefused) {
  snapshotter_ = Connect(socket_, {.containerd_namespace = "a\nb"});
  for (const auto& [name, run] : Operations()) {
    EXPECT_THAT(run(*snapshotter_, call_), StatusIs(StatusCode::kInvalidArgument)) << name;
  }
  EXPECT_EQ(fake().seen().calls, 0);
}

TEST_F(ProxySnapshotterTest, TextThatIsNotUtf8IsRefusedHere) {
  const std::string bad(kNotUtf8);
  const std::vector<NamedOperation> operations = {
      {"Stat", [&](Snapshotter& s, CallContext& c) { return s.Stat(c, bad).status(); }},
      {"Update", [&](Snapshotter& s, CallContext& c) { return s.Update(c, {bad}, {}).status(); }},
      {"UpdateMask",
       [&](Snapshotter& s, CallContext& c) { return s.Update(c, {"k"}, {bad}).status(); }},
      {"Usage", [&](Snapshotter& s, CallContext& c) { return s.GetUsage(c, bad).status(); }},
      {"Mounts", [&](Snapshotter& s, CallContext& c) { return s.Mounts(c, bad).status(); }},
      {"Key", [&](Snapshotter& s, CallContext& c) { return s.Prepare(c, bad, "", {}).status(); }},
      {"Parent", [&](Snapshotter& s, CallContext& c) { return s.View(c, "k", bad, {}).status(); }},
      {"LabelKey",
       [&](Snapshotter& s, CallContext& c) {
         return s.View(c, "k", "", {{bad, "v"}}).status();
       }},
      {"LabelValue",
       [&](Snapshotter& s, CallContext& c) {
         return s.View(c, "k", "", {{"l", bad}}).status();
       }},
      {"Name", [&](Snapshotter& s, CallContext& c) { return s.Commit(c, bad, "k", {}); }},
      {"Remove", [&](Snapshotter& s, CallContext& c) { return s.Remove(c, bad); }},
      {"Filter", [&](Snapshotter& s, CallContext& c) { return s.List(c, {bad}).status(); }},
  };
  for (const auto& [name, run] : operations) {
    EXPECT_THAT(run(*snapshotter_, call_), StatusIs(StatusCode::kInvalidArgument)) << name;
  }
  EXPECT_EQ(fake().seen().calls, 0);
}

TEST_F(ProxySnapshotterTest, EveryCodeOfTheServerArrives) {
  for (int code = 1; code <= 16; ++code) {
    Script script;
    script.status = grpc::Status(static_cast<grpc::StatusCode>(code), "text of the server");
    fake().Play(script);
    for (const auto& [name, run] : Operations()) {
      EXPECT_THAT(run(*snapshotter_, call_),
                  StatusIs(static_cast<StatusCode>(code), "text of the server"))
          << name;
    }
  }
}

TEST_F(ProxySnapshotterTest, ManyThreadsShareOneChannel) {
  fake().Play(InfoScript());
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([this] {
      CallContext call;
      for (int j = 0; j < 50; ++j) {
        EXPECT_THAT(snapshotter_->Stat(call, "name"), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(fake().seen().calls, 16 * 50);
}

// The rows of a whole pass; no page may be larger than allowed.
std::vector<std::string> ReadAll(SnapshotCursor& cursor) {
  std::vector<std::string> names;
  for (;;) {
    const auto page = cursor.Next();
    EXPECT_THAT(page, IsOk());
    if (!page.ok() || page->empty()) {
      return names;
    }
    EXPECT_LE(page->size(), kListPageSize);
    for (const SnapshotInfo& info : *page) {
      names.push_back(info.name);
    }
  }
}

class ListPagesTest : public ProxySnapshotterTest,
                      public ::testing::WithParamInterface<std::vector<int>> {};

TEST_P(ListPagesTest, EveryRowComesOnceInOrder) {
  Script script = InfoScript();
  script.messages = GetParam();
  fake().Play(script);
  std::vector<std::string> expected;
  for (const int rows : GetParam()) {
    for (int i = 0; i < rows; ++i) {
      expected.push_back("row-" + std::to_string(expected.size()));
    }
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, snapshotter_->List(call_, {}));
  EXPECT_EQ(ReadAll(*cursor), expected);
  EXPECT_THAT(*cursor->Next(), IsEmpty());  // the end stays the end
}

INSTANTIATE_TEST_SUITE_P(Messages, ListPagesTest,
                         ::testing::Values(std::vector<int>{}, std::vector<int>{0},
                                           std::vector<int>{1}, std::vector<int>{99},
                                           std::vector<int>{100}, std::vector<int>{101},
                                           std::vector<int>{250}, std::vector<int>{100, 100, 50},
                                           std::vector<int>{0, 0, 3, 0, 250, 0},
                                           std::vector<int>{200, 1, 300}, std::vector<int>(120, 1),
                                           std::vector<int>{10'000}));

TEST_F(ProxySnapshotterTest, ListReturnsWholeRowsAndSendsTheFilters) {
  Script script = InfoScript();
  script.messages = {1};
  fake().Play(script);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor,
                              snapshotter_->List(call_, {"kind==active", "parent==\"\""}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto page, cursor->Next());
  SnapshotInfo expected = ScriptInfo();
  expected.name = "row-0";
  EXPECT_THAT(page, ElementsAre(expected));
  const auto request = Received<wire::ListSnapshotsRequest>();
  EXPECT_EQ(request.snapshotter(), "overlayfs");
  EXPECT_THAT(request.filters(), ElementsAre("kind==active", "parent==\"\""));
}

TEST_F(ProxySnapshotterTest, ListFailsByItselfWhenThereIsNoRow) {
  Script script;
  script.status = grpc::Status(grpc::INVALID_ARGUMENT, "bad filter");
  fake().Play(script);
  EXPECT_THAT(snapshotter_->List(call_, {"=="}),
              StatusIs(StatusCode::kInvalidArgument, "bad filter"));
}

TEST_F(ProxySnapshotterTest, ErrorAfterSomeRowsComesAfterThemAndStays) {
  Script script = InfoScript();
  script.messages = {150};
  script.status = grpc::Status(grpc::DATA_LOSS, "row lost");
  fake().Play(script);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, snapshotter_->List(call_, {}));
  EXPECT_THAT(*cursor->Next(), SizeIs(100));
  EXPECT_THAT(*cursor->Next(), SizeIs(50));
  EXPECT_THAT(cursor->Next(), StatusIs(StatusCode::kDataLoss, "row lost"));
  EXPECT_THAT(cursor->Next(), StatusIs(StatusCode::kDataLoss, "row lost"));
}

TEST_F(ProxySnapshotterTest, CallsMayBeMadeWhileAListIsOpen) {
  Script script = InfoScript();
  script.messages = {100, 100};
  fake().Play(script);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, snapshotter_->List(call_, {}));
  EXPECT_THAT(*cursor->Next(), SizeIs(100));
  EXPECT_THAT(snapshotter_->Stat(call_, "name"), IsOk());
  EXPECT_THAT(snapshotter_->Remove(call_, "name"), IsOk());
  EXPECT_THAT(*cursor->Next(), SizeIs(100));
  EXPECT_THAT(*cursor->Next(), IsEmpty());
}

TEST_F(ProxySnapshotterTest, DroppedCursorCancelsTheStream) {
  Script script = InfoScript();
  script.messages = {250};
  script.hang = true;
  fake().Play(script);
  STRATA_ASSERT_OK_AND_ASSIGN(auto cursor, snapshotter_->List(call_, {}));
  EXPECT_THAT(*cursor->Next(), SizeIs(100));
  cursor.reset();
  EXPECT_TRUE(fake().WaitForGoneCallers(1));
}

TEST_F(ProxySnapshotterTest, CursorMayOutliveItsCallWhenItIsOnlyDropped) {
  Script script = InfoScript();
  script.messages = {1};
  script.hang = true;
  fake().Play(script);
  auto short_call = std::make_unique<CallContext>();
  STRATA_ASSERT_OK_AND_ASSIGN(auto cursor, snapshotter_->List(*short_call, {}));
  short_call.reset();
  cursor.reset();
  EXPECT_TRUE(fake().WaitForGoneCallers(1));
}

TEST_F(ProxySnapshotterTest, DeadlineOfAListBoundsEachWaitNotThePass) {
  Script script = InfoScript();
  script.messages = {1, 1, 1, 1, 1};
  script.pause = milliseconds(900);
  fake().Play(script);
  snapshotter_ = Connect(socket_, {.call_timeout = milliseconds(4000)});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, snapshotter_->List(call_, {}));
  EXPECT_THAT(ReadAll(*cursor), SizeIs(5));
}

TEST_F(ProxySnapshotterTest, PageThatDoesNotComeEndsTheStream) {
  Script script = InfoScript();
  script.messages = {1};
  script.hang = true;
  fake().Play(script);
  constexpr milliseconds kPageTimeout{2000};  // within which the first one has to come
  snapshotter_ = Connect(socket_, {.call_timeout = kPageTimeout});
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, snapshotter_->List(call_, {}));
  EXPECT_THAT(*cursor->Next(), SizeIs(1));
  const auto start = steady_clock::now();
  EXPECT_THAT(cursor->Next(), StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("2000 ms")));
  EXPECT_GE(Since(start), kPageTimeout);
  EXPECT_LT(Since(start), kPageTimeout + kSoon);
  EXPECT_THAT(cursor->Next(), StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_TRUE(fake().WaitForGoneCallers(1));
}

class EachOperationTest : public ProxySnapshotterTest,
                          public ::testing::WithParamInterface<NamedOperation> {
 protected:
  Script HangingScript() {
    Script script;
    script.hang = true;
    return script;
  }
  Status Run() { return GetParam().run(*snapshotter_, call_); }
};

INSTANTIATE_TEST_SUITE_P(Operations, EachOperationTest, ::testing::ValuesIn(Operations()),
                         [](const auto& test) { return test.param.name; });

TEST_P(EachOperationTest, EndsByItsDeadlineWhateverTheServerDoes) {
  fake().Play(HangingScript());
  // On a busy machine a short one may end before the server has heard of the call.
  for (milliseconds timeout = kTimeout; fake().seen().calls == 0 && timeout < kLimit;
       timeout *= 5) {
    snapshotter_ = Connect(socket_, {.call_timeout = timeout});
    const auto start = steady_clock::now();
    EXPECT_THAT(Run(), StatusIs(StatusCode::kDeadlineExceeded,
                                HasSubstr(std::to_string(timeout.count()) + " ms")));
    EXPECT_GE(Since(start), timeout);
    EXPECT_LT(Since(start), timeout + kSoon);
  }
  EXPECT_TRUE(fake().WaitForGoneCallers(1));
}

TEST_P(EachOperationTest, EndsSoonAfterItIsCancelled) {
  fake().Play(HangingScript());
  milliseconds fastest = kLimit;
  // A busy machine may be late now and then, but not always.
  for (int attempt = 1; attempt <= 5 && fastest > kCancelLimit; ++attempt) {
    CallContext call;
    steady_clock::time_point cancelled;
    std::thread other([&] {
      EXPECT_TRUE(fake().WaitForCalls(attempt));
      cancelled = steady_clock::now();
      call.Cancel();
    });
    const Status status = GetParam().run(*snapshotter_, call);
    const auto ended = steady_clock::now();
    other.join();
    EXPECT_THAT(status, StatusIs(StatusCode::kCancelled, std::string(StatusMessage(call.Check()))));
    fastest = std::min(fastest, std::chrono::duration_cast<milliseconds>(ended - cancelled));
    EXPECT_TRUE(fake().WaitForGoneCallers(attempt));
  }
  EXPECT_LE(fastest, kCancelLimit);
}

TEST_P(EachOperationTest, IsNotSentForACancelledCaller) {
  call_.Cancel();
  EXPECT_THAT(Run(), StatusIs(StatusCode::kCancelled));
  EXPECT_EQ(fake().seen().calls, 0);
}

TEST_P(EachOperationTest, FailsAtOnceWithoutAServer) {
  server_.Stop();
  const milliseconds fastest = FastestOf(kAtOnce, [this] {
    const auto start = steady_clock::now();
    EXPECT_THAT(Run(), StatusIs(StatusCode::kUnavailable));
    return Since(start);
  });
  EXPECT_LE(fastest, kAtOnce);
}

TEST_P(EachOperationTest, WaitsForTheServerUntilTheDeadlineWhenTold) {
  snapshotter_ = Connect(socket_, {.call_timeout = kTimeout, .wait_for_ready = true});
  server_.Stop();
  const auto start = steady_clock::now();
  EXPECT_THAT(Run(), StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_GE(Since(start), kTimeout);
  EXPECT_LT(Since(start), kTimeout + kSoon);
}

TEST_P(EachOperationTest, IsDoneByAServerThatComesLate) {
  snapshotter_ = Connect(socket_, {.call_timeout = kLimit, .wait_for_ready = true});
  server_.Stop();
  std::thread late([this] {
    std::this_thread::sleep_for(milliseconds(100));
    server_.Start();
  });
  EXPECT_THAT(Run(), IsOk());
  late.join();
}

// A server in a process of its own, which stands still or dies with a call in flight.
class FailingServerTest : public ::testing::TestWithParam<NamedOperation> {
 protected:
  Status Run() { return GetParam().run(*snapshotter_, call_); }

  TempDir dir_;
  ServerProcess server_{dir_.Join("s.sock")};
  std::unique_ptr<Snapshotter> snapshotter_ =  // connected
      Connect(dir_.Join("s.sock"), {.call_timeout = kTimeout});
  CallContext call_;
};

INSTANTIATE_TEST_SUITE_P(Operations, FailingServerTest, ::testing::ValuesIn(Operations()),
                         [](const auto& test) { return test.param.name; });

TEST_P(FailingServerTest, StoppedServerHoldsNoCallPastItsDeadline) {
  server_.Stop();
  const auto start = steady_clock::now();
  EXPECT_THAT(Run(), StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_GE(Since(start), kTimeout);
  EXPECT_LT(Since(start), kTimeout + kSoon);
  server_.Continue();
  snapshotter_ = Connect(dir_.Join("s.sock"), {.call_timeout = kLimit});
  EXPECT_THAT(Run(), IsOk());
}

TEST_P(FailingServerTest, DyingServerEndsTheCall) {
  snapshotter_ = Connect(dir_.Join("s.sock"), {.call_timeout = kLimit});
  ASSERT_THAT(Run(), IsOk());
  server_.Stop();
  Status status;
  std::thread calling([&] { status = Run(); });
  std::this_thread::sleep_for(milliseconds(50));  // whether it was sent by then does not matter
  const auto start = steady_clock::now();
  server_.Kill();
  calling.join();
  EXPECT_THAT(status, StatusIs(StatusCode::kUnavailable));
  EXPECT_LT(Since(start), kSoon);
}

}  // namespace
}  // namespace strata::testing
