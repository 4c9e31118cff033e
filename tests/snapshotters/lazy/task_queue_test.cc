// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/task_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>

namespace strata {
namespace {

TEST(TaskQueueTest, RunsTasksInTheirOrder) {
  TaskQueue queue(1);
  std::vector<int> order;
  std::promise<void> done;
  queue.Post([&] { order.push_back(1); });
  queue.Post([&] { order.push_back(2); });
  queue.Post([&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(TaskQueueTest, RunsAsManyAtOnceAsItHasThreads) {
  TaskQueue queue(2);
  std::promise<void> first_runs;
  std::promise<void> second_runs;
  std::promise<void> done;
  queue.Post([&] {
    first_runs.set_value();
    second_runs.get_future().wait();
    done.set_value();
  });
  queue.Post([&] {
    first_runs.get_future().wait();
    second_runs.set_value();
  });
  EXPECT_EQ(done.get_future().wait_for(std::chrono::minutes(1)), std::future_status::ready);
}

TEST(TaskQueueTest, LetsGoOfATaskThatHasRun) {
  std::promise<void> gone;
  const auto say = [&gone](const int* /*held*/) { gone.set_value(); };
  static constexpr int kHeld = 0;
  TaskQueue queue(1);
  queue.Post([held = std::shared_ptr<const int>(&kHeld, say)] {});
  // No other task comes.
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::minutes(1)), std::future_status::ready);
}

TEST(TaskQueueTest, RunsWhatIsPostedForLater) {
  TaskQueue queue(1);
  std::vector<int> order;
  std::promise<void> go;
  std::promise<void> done;
  // Whatever the clock says by then, the one thread sees all three at once.
  queue.Post([&] { go.get_future().wait(); });
  const auto now = std::chrono::steady_clock::now();
  queue.PostAt(now + std::chrono::hours(1), [&] { order.push_back(9); });
  queue.PostAt(now + std::chrono::milliseconds(2), [&] {
    order.push_back(2);
    done.set_value();
  });
  queue.PostAt(now + std::chrono::milliseconds(1), [&] { order.push_back(1); });
  go.set_value();
  EXPECT_EQ(done.get_future().wait_for(std::chrono::minutes(1)), std::future_status::ready);
  queue.Stop();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(TaskQueueTest, StopEndsTheTaskInHandAndDropsTheOthers) {
  TaskQueue queue(1);
  std::promise<void> runs;
  std::promise<void> may_end;
  bool ended = false;
  bool other_ran = false;
  queue.Post([&] {
    runs.set_value();
    may_end.get_future().wait();
    ended = true;
  });
  // Once it is dropped, Stop is waiting for the task in hand.
  auto dropped = std::make_shared<std::promise<void>>();
  auto is_dropped = dropped->get_future();
  queue.Post([&other_ran, dropped] { other_ran = true; });
  dropped.reset();
  runs.get_future().wait();
  auto stopping = std::async(std::launch::async, [&] { queue.Stop(); });
  EXPECT_EQ(is_dropped.wait_for(std::chrono::minutes(1)), std::future_status::ready);
  may_end.set_value();
  stopping.get();
  EXPECT_TRUE(ended);
  EXPECT_FALSE(other_ran);
}

TEST(TaskQueueTest, DropsWhatIsPostedAfterStop) {
  TaskQueue queue(1);
  queue.Stop();
  const auto held = std::make_shared<int>(0);
  queue.Post([held] { (void)held; });
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace strata
