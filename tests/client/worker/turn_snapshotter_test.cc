// SPDX-License-Identifier: Apache-2.0
//
// One root of the native snapshotter, and several who take turns at it.
#include "client/worker/turn_snapshotter.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/native/native_snapshotter.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

class TurnSnapshotterTest : public ::testing::Test {
 protected:
  std::unique_ptr<TurnSnapshotter> New(milliseconds patience = hours(1),
                                       milliseconds idle = milliseconds(200)) {
    auto made = TurnSnapshotter::Create(
        {.directory = directory_.path(),
         .patience = patience,
         .idle = idle,
         .open = [this]() -> StatusOr<std::unique_ptr<Snapshotter>> {
           ++opened_;
           NativeOptions options;
           options.root = directory_.Join("root");
           options.allow_volatile = true;
           STRATA_ASSIGN_OR_RETURN(auto opened, NativeSnapshotter::Create(options));
           return std::unique_ptr<Snapshotter>(std::move(opened));
         }});
    EXPECT_THAT(made, IsOk());
    return *std::move(made);
  }

  const TempDir directory_;
  std::atomic<int> opened_{0};
  CallContext call_;
};

TEST_F(TurnSnapshotterTest, OpensWithTheFirstCallOnly) {
  const auto snapshotter = New();
  EXPECT_EQ(opened_, 0);
  EXPECT_THAT(snapshotter->Prepare(call_, "a", "", {}), IsOk());
  EXPECT_EQ(opened_, 1);
}

TEST_F(TurnSnapshotterTest, TwoSeeEachOthersSnapshots) {
  const auto one = New();
  const auto other = New();
  EXPECT_THAT(one->Prepare(call_, "a", "", {}), IsOk());
  EXPECT_THAT(other->Commit(call_, "b", "a", {}), IsOk());
  EXPECT_THAT(one->Stat(call_, "b"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, other->List(call_, {}));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto rows, cursor->Next());
  EXPECT_EQ(rows.size(), 1U);
  EXPECT_THAT(one->Remove(call_, "b"), IsOk());
}

TEST_F(TurnSnapshotterTest, ManyAtOnceAllGetTheirTurn) {
  constexpr int kWorkers = 4;
  constexpr int kEach = 5;
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (int worker = 0; worker < kWorkers; ++worker) {
    threads.emplace_back([this, worker, &done] {
      const auto snapshotter = New();
      CallContext call;
      for (int i = 0; i < kEach; ++i) {
        const std::string name = std::to_string(worker) + "-" + std::to_string(i);
        done += snapshotter->Prepare(call, name, "", {}).ok() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(done, kWorkers * kEach);
}

TEST_F(TurnSnapshotterTest, BusyOneGivesWay) {
  const auto busy = New(hours(1), hours(1));
  const auto other = New();
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    CallContext call;
    while (!stop) {
      (void)busy->Stat(call, "none");  // NotFound; only that it is asked counts
    }
  });
  EXPECT_THAT(other->Prepare(call_, "a", "", {}), IsOk());
  stop = true;
  thread.join();
}

TEST_F(TurnSnapshotterTest, WaitsForItsTurnOnlyForSoLong) {
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd directory,
                              OpenFile(directory_.path(), O_RDONLY | O_DIRECTORY));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto held,
                              FileLock::Try(directory.get(), "turn", FileLock::Mode::kExclusive));
  ASSERT_TRUE(held.has_value());
  const auto snapshotter = New(milliseconds(1));
  EXPECT_THAT(snapshotter->Stat(call_, "a"),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr(directory_.path())));
  call_.Cancel();
  EXPECT_THAT(New()->Stat(call_, "a"), StatusIs(StatusCode::kCancelled));
}

TEST_F(TurnSnapshotterTest, FailureToOpenIsTheCallsAndTheNextOneTriesAgain) {
  int tries = 0;
  auto made = TurnSnapshotter::Create(
      {.directory = directory_.path(), .open = [&]() -> StatusOr<std::unique_ptr<Snapshotter>> {
         ++tries;
         return MakeStatus(StatusCode::kFailedPrecondition, "NO");
       }});
  ASSERT_THAT(made, IsOk());
  EXPECT_THAT((*made)->Stat(call_, "a"), StatusIs(StatusCode::kFailedPrecondition, "NO"));
  EXPECT_THAT((*made)->Stat(call_, "a"), StatusIs(StatusCode::kFailedPrecondition, "NO"));
  EXPECT_EQ(tries, 2);
}

}  // namespace
}  // namespace strata::testing
