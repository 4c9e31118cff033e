// SPDX-License-Identifier: Apache-2.0
//
// Calls at the same time (snapshots-contract 2.3): every outcome is one that some order of the
// calls would have had.
#include <atomic>
#include <set>
#include <thread>

#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kThreads = 16;

// Runs `work` on kThreads threads, which start at the same time.
void Together(const std::function<void(int number, CallContext& call)>& work) {
  std::atomic<int> waiting = kThreads;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting > 0) {
        std::this_thread::yield();
      }
      CallContext call;
      work(i, call);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_P(SnapshotterSuite, ManyCanPrepareOnOneParentAtOnce) {
  WriteFile(OwnDirectory(Prepare("p-tmp")) + "/file", "content");
  Commit("p", "p-tmp");
  std::vector<std::string> directories(kThreads);
  Together([&](int number, CallContext& call) {
    const auto mounts = sn().Prepare(call, "a" + std::to_string(number), "p", {});
    ASSERT_THAT(mounts, IsOk());
    directories[static_cast<size_t>(number)] = OwnDirectory(*mounts);
  });
  EXPECT_THAT(std::set<std::string>(directories.begin(), directories.end()), SizeIs(kThreads));
  EXPECT_THAT(ListNames({"parent==p"}), SizeIs(kThreads));
}

TEST_P(SnapshotterSuite, OneOfManyGetsTheKey) {
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> winners = 0;
    Together([&](int number, CallContext& call) {
      const Status status = number % 2 == 0 ? sn().Prepare(call, "key", "", {}).status()
                                            : sn().View(call, "key", "", {}).status();
      if (status.ok()) {
        ++winners;
      } else {
        EXPECT_THAT(status, StatusIs(StatusCode::kAlreadyExists));
      }
    });
    EXPECT_EQ(winners, 1);
    EXPECT_THAT(List(), SizeIs(1));
    Remove("key");
  }
}

TEST_P(SnapshotterSuite, OneOfManyGetsTheNameAtCommit) {
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < kThreads; ++i) {
      Prepare("a" + std::to_string(i));
    }
    std::atomic<int> winners = 0;
    Together([&](int number, CallContext& call) {
      const Status status = sn().Commit(call, "name", "a" + std::to_string(number), {});
      if (status.ok()) {
        ++winners;
      } else {
        EXPECT_THAT(status, StatusIs(StatusCode::kAlreadyExists));
      }
    });
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(Stat("name").kind, Kind::kCommitted);
    // Those who lost still have what they made.
    const auto losers = ListNames({"kind==active"});
    EXPECT_THAT(losers, SizeIs(kThreads - 1));
    for (const std::string& key : losers) {
      Remove(key);
    }
    Remove("name");
  }
}

TEST_P(SnapshotterSuite, OneOfManyCommitsTheKey) {
  for (int round = 0; round < 3; ++round) {
    Prepare("a");
    std::atomic<int> winners = 0;
    Together([&](int number, CallContext& call) {
      const Status status = sn().Commit(call, "name" + std::to_string(number), "a", {});
      if (status.ok()) {
        ++winners;
      } else {
        EXPECT_THAT(status, StatusIs(StatusCode::kNotFound));
      }
    });
    EXPECT_EQ(winners, 1);
    const auto names = ListNames();
    ASSERT_THAT(names, SizeIs(1));
    Remove(names[0]);
  }
}

TEST_P(SnapshotterSuite, OneOfManyRemovesTheKey) {
  for (int round = 0; round < 5; ++round) {
    Prepare("a");
    std::atomic<int> winners = 0;
    Together([&](int /*number*/, CallContext& call) {
      const Status status = sn().Remove(call, "a");
      if (status.ok()) {
        ++winners;
      } else {
        EXPECT_THAT(status, StatusIs(StatusCode::kNotFound));
      }
    });
    EXPECT_EQ(winners, 1);
  }
}

TEST_P(SnapshotterSuite, ParentIsEitherRemovedOrUsed) {
  for (int round = 0; round < 5; ++round) {
    AddLayer("p");
    std::atomic<int> children = 0;
    std::atomic<bool> removed = false;
    Together([&](int number, CallContext& call) {
      if (number == kThreads / 2) {
        removed = sn().Remove(call, "p").ok();
      } else if (const Status status =
                     sn().Prepare(call, "a" + std::to_string(number), "p", {}).status();
                 status.ok()) {
        ++children;
      } else {
        EXPECT_THAT(status, StatusIs(StatusCode::kNotFound));
      }
    });
    EXPECT_EQ(removed, children == 0);
    for (const std::string& key : ListNames({"kind==active"})) {
      Remove(key);
    }
    if (!removed) {
      Remove("p");
    }
  }
}

TEST_P(SnapshotterSuite, ChurnLeavesNothingBehind) {
  AddLayer("p");
  Together([&](int number, CallContext& call) {
    const std::string key = "key" + std::to_string(number);
    const std::string name = "name" + std::to_string(number);
    for (int i = 0; i < 20; ++i) {
      EXPECT_THAT(sn().Prepare(call, key, "p", {}), IsOk());
      EXPECT_THAT(sn().Stat(call, key), IsOk());
      if (i % 2 == 0) {
        EXPECT_THAT(sn().Commit(call, name, key, {}), IsOk());
        EXPECT_THAT(sn().Remove(call, name), IsOk());
      } else {
        EXPECT_THAT(sn().Remove(call, key), IsOk());
      }
      if (i % 8 == 0) {
        EXPECT_THAT(sn().Cleanup(call), IsOk());
        EXPECT_THAT(sn().List(call, {}), IsOk());
      }
    }
  });
  EXPECT_THAT(List(), SizeIs(1));
  Remove("p");
  EXPECT_THAT(List(), IsEmpty());
}

}  // namespace
}  // namespace strata::testing
