// SPDX-License-Identifier: Apache-2.0
#include "services/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace strata::testing {
namespace {

// Only a test that fails waits this long.
constexpr std::chrono::seconds kLimit{30};

// Keeps jobs where they are until it is opened.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++inside_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --inside_;
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool WaitInside(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLimit, [&] { return inside_ >= count; });
  }
  size_t inside() {
    const std::lock_guard lock(mutex_);
    return inside_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t inside_ = 0;
  bool open_ = false;
};

TEST(WorkerPoolTest, RunsAJobOnAThreadOfItsOwn) {
  std::promise<std::thread::id> ran;
  WorkerPool pool({});
  ASSERT_TRUE(pool.Submit([&ran] { ran.set_value(std::this_thread::get_id()); }));
  std::future<std::thread::id> done = ran.get_future();
  ASSERT_EQ(done.wait_for(kLimit), std::future_status::ready);
  EXPECT_NE(done.get(), std::this_thread::get_id());
}

TEST(WorkerPoolTest, RunsAsManyJobsAtATimeAsItHasThreads) {
  Gate gate;
  WorkerPool pool({.threads = 3, .waiting = 100});
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(pool.Submit([&gate] { gate.Pass(); }));
  }
  EXPECT_TRUE(gate.WaitInside(3));
  EXPECT_EQ(gate.inside(), 3U);
  gate.Open();
}

TEST(WorkerPoolTest, RefusesMoreThanMayWait) {
  Gate gate;
  WorkerPool pool({.threads = 1, .waiting = 2});
  ASSERT_TRUE(pool.Submit([&gate] { gate.Pass(); }));
  ASSERT_TRUE(gate.WaitInside(1));
  EXPECT_TRUE(pool.Submit([] {}));
  EXPECT_TRUE(pool.Submit([] {}));
  EXPECT_FALSE(pool.Submit([] { ADD_FAILURE() << "a refused job runs"; }));
  gate.Open();
}

TEST(WorkerPoolTest, DestructorRunsWhatWasAccepted) {
  std::atomic<int> ran = 0;
  Gate gate;
  std::thread opener;
  {
    WorkerPool pool({.threads = 2, .waiting = 100});
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(pool.Submit([&] {
        gate.Pass();
        ++ran;
      }));
    }
    ASSERT_TRUE(gate.WaitInside(2));
    opener = std::thread([&gate] { gate.Open(); });
  }
  EXPECT_EQ(ran, 50);
  opener.join();
}

TEST(WorkerPoolTest, DestructorOfAnUnusedPoolReturns) {
  const WorkerPool pool({});
}

TEST(WorkerPoolTest, DestructorDoesNotWaitForIdleThreadsToLeave) {
  const auto start = std::chrono::steady_clock::now();
  {
    Gate gate;  // outlives the threads that leave it
    WorkerPool pool({.threads = 4, .waiting = 100});
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(pool.Submit([&gate] { gate.Pass(); }));
    }
    ASSERT_TRUE(gate.WaitInside(4));
    gate.Open();
  }
  // They would leave by themselves after 10 s.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(8));
}

TEST(WorkerPoolTest, JobsMaySubmitJobs) {
  std::promise<void> last;
  WorkerPool pool({.threads = 1, .waiting = 10});
  int left = 10;  // touched by one job at a time
  std::function<void()> next = [&] {
    if (--left == 0) {
      last.set_value();
    } else {
      EXPECT_TRUE(pool.Submit(next));
    }
  };
  ASSERT_TRUE(pool.Submit(next));
  EXPECT_EQ(last.get_future().wait_for(kLimit), std::future_status::ready);
}

TEST(WorkerPoolTest, JobIsDestroyedBeforeItsThreadTakesTheNext) {
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> seen = held;
  std::promise<bool> gone;
  WorkerPool pool({.threads = 1, .waiting = 10});
  Gate gate;
  ASSERT_TRUE(pool.Submit([&gate] { gate.Pass(); }));
  ASSERT_TRUE(pool.Submit([held = std::move(held)] { EXPECT_EQ(*held, 0); }));
  ASSERT_TRUE(pool.Submit([&] { gone.set_value(seen.expired()); }));
  gate.Open();
  std::future<bool> done = gone.get_future();
  ASSERT_EQ(done.wait_for(kLimit), std::future_status::ready);
  EXPECT_TRUE(done.get());
}

TEST(WorkerPoolTest, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    WorkerPool pool({.threads = 1, .waiting = 1000});
    for (int i = 0; i < 500; ++i) {
      ASSERT_TRUE(pool.Submit([&order, i] { order.push_back(i); }));
    }
  }
  ASSERT_EQ(order.size(), 500U);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(WorkerPoolTest, ManyThreadsMaySubmit) {
  std::atomic<int> ran = 0;
  std::atomic<int> accepted = 0;
  {
    WorkerPool pool({.threads = 8, .waiting = 64});
    std::vector<std::thread> callers;
    for (int i = 0; i < 8; ++i) {
      callers.emplace_back([&] {
        for (int j = 0; j < 2000; ++j) {
          accepted += pool.Submit([&ran] { ++ran; }) ? 1 : 0;
        }
      });
    }
    for (std::thread& caller : callers) {
      caller.join();
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_EQ(ran, accepted);
}

}  // namespace
}  // namespace strata::testing
