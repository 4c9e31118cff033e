// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_crew.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::StatusIs;

constexpr size_t kMany = 100'000;  // entries that a crew calls help for

TreeCrew::Part PartNamed(const std::string& path) {
  return {.directory = {}, .path = path, .some = {}};
}

// Counts parts; one called "N" gives N-1 others while it goes on, as a walk does.
class Counter {
 public:
  Status Count(TreeCrew& crew, const TreeCrew::Part& part) {
    for (int left = std::atoi(part.path.c_str()); left > 0; --left) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++counted_;
      }
      crew.Looked(kMany);
      std::this_thread::yield();
      if (crew.Hungry() && left > 1) {
        --left;
        crew.Give(PartNamed("1"));
      }
    }
    return OkStatus();
  }
  [[nodiscard]] int counted() const { return counted_; }

 private:
  std::mutex mutex_;
  int counted_ = 0;
};

TEST(TreeCrewTest, DoesEachPartOnce) {
  Counter counter;
  TreeCrew crew(
      [&](TreeCrew& all, const TreeCrew::Part& part) { return counter.Count(all, part); });
  ASSERT_THAT(crew.Run(PartNamed("5000")), IsOk());
  EXPECT_EQ(counter.counted(), 5000);
}

TEST(TreeCrewTest, ASmallTreeIsForOneThread) {
  std::set<std::thread::id> threads;
  TreeCrew crew([&](TreeCrew& all, const TreeCrew::Part& /*part*/) {
    all.Looked(100);
    threads.insert(std::this_thread::get_id());
    return OkStatus();
  });
  ASSERT_THAT(crew.Run(PartNamed("top")), IsOk());
  EXPECT_THAT(threads, ::testing::ElementsAre(std::this_thread::get_id()));
}

// All walks go on until all have asked for help, and somebody has come.
TEST(TreeCrewTest, ManyWalksDoNotMakeManyThreads) {
  constexpr size_t kCrews = 10;
  constexpr size_t kMostHelpers = 6;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::atomic<size_t> begun = 0;
  const auto wait = [&] {
    while (std::chrono::steady_clock::now() < deadline) {
      {
        const std::lock_guard<std::mutex> lock(mutex);
        threads.insert(std::this_thread::get_id());
        if (begun == kCrews && threads.size() > kCrews) {
          return;
        }
      }
      std::this_thread::yield();
    }
  };
  const auto work = [&](TreeCrew& all, const TreeCrew::Part& part) {
    if (part.path == "top") {
      for (int i = 0; i < 20; ++i) {
        all.Looked(kMany);
        all.Give(PartNamed("part"));
      }
      ++begun;
    }
    wait();
    return OkStatus();
  };
  std::vector<std::thread> walks;
  for (size_t i = 0; i < kCrews; ++i) {
    walks.emplace_back([&] { EXPECT_THAT(TreeCrew(work).Run(PartNamed("top")), IsOk()); });
  }
  for (std::thread& walk : walks) {
    walk.join();
  }
  EXPECT_GT(threads.size(), kCrews);
  EXPECT_LE(threads.size(), kCrews + kMostHelpers);
}

TEST(TreeCrewTest, AFailureIsTheAnswerAndEndsTheWalk) {
  std::atomic<int> done = 0;
  TreeCrew crew([&](TreeCrew& all, const TreeCrew::Part& part) {
    if (part.path == "top") {
      for (int i = 0; i < 100; ++i) {
        all.Give(PartNamed("part"));
      }
      return OkStatus();
    }
    ++done;
    EXPECT_FALSE(all.failed());
    return MakeStatus(StatusCode::kDataLoss, "no good");
  });
  EXPECT_THAT(crew.Run(PartNamed("top")), StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(done, 1);
  EXPECT_TRUE(crew.failed());
}

}  // namespace
}  // namespace strata
