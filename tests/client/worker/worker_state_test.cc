// SPDX-License-Identifier: Apache-2.0
#include "client/worker/worker_state.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(WorkerStateTest, AllWhoComeAtOnceHaveTheSameId) {
  const TempDir root;
  std::vector<std::string> ids(8);
  std::vector<std::thread> threads;
  for (std::string& id : ids) {
    threads.emplace_back([&root, &id] {
      const auto state = WorkerState::Open(root.path(), "native");
      id = state.ok() ? (*state)->worker_id() : "";
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1U);
  EXPECT_EQ(ids.front().size(), 25U);
}

TEST(WorkerStateTest, NameThatIsNoFoldersIsRefused) {
  const TempDir root;
  for (const std::string name : {"", "a/b", "a b"}) {
    EXPECT_THAT(WorkerState::Open(root.path(), name), StatusIs(StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(WorkerState::Open("relative", "native"), StatusIs(StatusCode::kInvalidArgument));
}

TEST(WorkerStateTest, DamagedIdIsNotReplaced) {
  const TempDir root;
  ASSERT_THAT(WorkerState::Open(root.path(), "native"), IsOk());
  ASSERT_EQ(::unlink(root.Join("runc-native/workerid").c_str()), 0);
  std::ofstream(root.Join("runc-native/workerid")) << "short";
  EXPECT_THAT(WorkerState::Open(root.path(), "native"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("workerid")));
}

mode_t ModeOf(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
}

TEST(WorkerStateTest, GuestsCanPass) {
  const TempDir temporary;
  ASSERT_EQ(::chmod(temporary.path().c_str(), 0711), 0);
  const std::string root = temporary.Join("root");
  ASSERT_THAT(WorkerState::Open(root, "native"), IsOk());
  EXPECT_EQ(ModeOf(root + "/runc-native"), 0700U);
  EXPECT_EQ(ModeOf(root), 0700U);

  const WorkerState::Guest guest{.uid = 200000, .gid = 200000};
  if (::geteuid() == 0) {  // nobody else can look at it as the guest
    EXPECT_THAT(WorkerState::Open(root, "native", guest),
                StatusIs(StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr("'" + root + "'"), HasSubstr("user 200000"))));
  }
  ASSERT_EQ(::chmod(root.c_str(), 0711), 0);
  ASSERT_THAT(WorkerState::Open(root, "native", guest), IsOk());
  EXPECT_EQ(ModeOf(root + "/runc-native"), 0711U);

  const std::string other = temporary.Join("other");
  ASSERT_THAT(WorkerState::Open(other, "native", guest), IsOk());
  EXPECT_EQ(ModeOf(other), 0711U);
  // The worker's own rights are what they were.
  ASSERT_EQ(::chmod(root.c_str(), 0700), 0);
  EXPECT_THAT(WorkerState::Open(root, "native"), IsOk());
}

TEST(WorkerStateTest, RootOfABuildKitDaemonIsRefused) {
  const TempDir root;
  STRATA_ASSERT_OK_AND_ASSIGN(const UniqueFd daemon,
                              OpenFile(root.Join("buildkitd.lock"), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::flock(daemon.get(), LOCK_EX), 0);
  EXPECT_THAT(
      WorkerState::Open(root.path(), "native"),
      StatusIs(StatusCode::kFailedPrecondition,
               "could not lock " + root.Join("buildkitd.lock") + ", another instance running?"));
}

TEST(WorkerStateTest, SlotsBoundHowManyRunAtOnce) {
  const TempDir root;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto one, WorkerState::Open(root.path(), "native"));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto other, WorkerState::Open(root.path(), "native"));
  CallContext call;
  STRATA_ASSERT_OK_AND_ASSIGN(auto first, one->TakeSlot(call, 2, milliseconds(0)));
  STRATA_ASSERT_OK_AND_ASSIGN(auto second, other->TakeSlot(call, 2, milliseconds(0)));
  EXPECT_TRUE(first.has_value() && second.has_value());
  EXPECT_THAT(one->TakeSlot(call, 2, milliseconds(0)), StatusIs(StatusCode::kDeadlineExceeded));
  second.reset();
  EXPECT_THAT(one->TakeSlot(call, 2, milliseconds(0)), IsOk());
}

TEST(WorkerStateTest, WaitForASlotEndsWhenItIsCalledOff) {
  const TempDir root;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto state, WorkerState::Open(root.path(), "native"));
  CallContext call;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto taken, state->TakeSlot(call, 1, milliseconds(0)));
  call.Cancel();
  EXPECT_THAT(state->TakeSlot(call, 1, std::chrono::hours(1)), StatusIs(StatusCode::kCancelled));
}

TEST(WorkerStateTest, CollectsOnceAMinute) {
  const TempDir root;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto state, WorkerState::Open(root.path(), "native"));
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto first, state->TakeCollection());
    EXPECT_TRUE(first.has_value());
    STRATA_ASSERT_OK_AND_ASSIGN(const auto beside, state->TakeCollection());
    EXPECT_FALSE(beside.has_value());
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto soon, state->TakeCollection());
  EXPECT_FALSE(soon.has_value());
  const timespec long_ago[2] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
  ASSERT_EQ(::utimensat(state->fd(), "gc.last", long_ago, 0), 0);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto later, state->TakeCollection());
  EXPECT_TRUE(later.has_value());
}

}  // namespace
}  // namespace strata::testing
