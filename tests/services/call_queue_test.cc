// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/call_queue.h"

#include <grpcpp/alarm.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace strata {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kLimit{30};
constexpr milliseconds kForever{std::chrono::hours(1)};

class CallQueueTest : public ::testing::Test {
 protected:
  // A queue needs a server, though nobody calls it.
  void Start(milliseconds patience) {
    grpc::ServerBuilder builder;
    queue_ = std::make_unique<CallQueue>(builder.AddCompletionQueue(), patience);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    queue_->Start();
  }

  void TearDown() override {
    if (server_ != nullptr) {
      server_->Shutdown();
      queue_->Stop();
    }
  }

  // `what` is done by the queue. From one thread.
  void Post(std::function<void()> what) {
    jobs_.emplace_back(std::move(what));
    Job& job = jobs_.back();
    job.alarm.Set(&queue_->queue(), std::chrono::system_clock::now(), job.ForGrpc());
  }

  // Another thread may not be waiting yet: then it comes to it soon.
  void HandOver() {
    while (!queue_->HandOver()) {
      std::this_thread::yield();
    }
  }

  // Outlives all jobs: who waits may go on before set_value has returned.
  template <typename T>
  std::promise<T>& Promise() {
    auto promise = std::make_shared<std::promise<T>>();
    kept_.push_back(promise);
    return *promise;
  }

  struct Job final : CallQueue::Tag {
    explicit Job(std::function<void()> job) : what(std::move(job)) {}
    void Proceed(bool /*ok*/) override { what(); }
    const std::function<void()> what;
    grpc::Alarm alarm;
  };

  struct Sent final : CallQueue::Outgoing {
    void Send() override { sent.set_value(); }
    [[nodiscard]] bool Comes() {
      return sent.get_future().wait_for(kLimit) == std::future_status::ready;
    }
    std::promise<void> sent;
  };
  Sent& Answer() {
    auto sent = std::make_shared<Sent>();
    kept_.push_back(sent);
    return *sent;
  }

  std::vector<std::shared_ptr<void>> kept_;
  std::deque<Job> jobs_;
  std::unique_ptr<CallQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
};

// Alarms that are due at once come in any order.
TEST_F(CallQueueTest, OneThreadRunsAll) {
  constexpr int kJobs = 100;
  Start(kForever);
  std::set<std::thread::id> threads;
  std::promise<void>& done = Promise<void>();
  int count = 0;
  for (int i = 0; i < kJobs; ++i) {
    Post([&] {
      threads.insert(std::this_thread::get_id());
      if (++count == kJobs) {
        done.set_value();
      }
    });
  }
  ASSERT_EQ(done.get_future().wait_for(kLimit), std::future_status::ready);
  EXPECT_EQ(threads.size(), 1U);
}

TEST_F(CallQueueTest, AnotherThreadLeadsWhileOneBlocks) {
  Start(kForever);
  std::promise<void>& reached = Promise<void>();
  std::promise<void>& other_has_run = Promise<void>();
  std::promise<bool>& was_there = Promise<bool>();
  Post([&, other = other_has_run.get_future().share()] {
    HandOver();
    reached.set_value();
    was_there.set_value(other.wait_for(kLimit) == std::future_status::ready);
  });
  ASSERT_EQ(reached.get_future().wait_for(kLimit), std::future_status::ready);
  Post([&] { other_has_run.set_value(); });
  EXPECT_TRUE(was_there.get_future().get());
}

TEST_F(CallQueueTest, WithNobodyLeftToLeadAHandOverIsRefused) {
  Start(kForever);
  std::promise<void>& reached = Promise<void>();
  std::promise<bool>& second = Promise<bool>();
  std::promise<void>& go_on = Promise<void>();
  Post([&, wait = go_on.get_future().share()] {
    HandOver();
    reached.set_value();
    wait.wait();
  });
  ASSERT_EQ(reached.get_future().wait_for(kLimit), std::future_status::ready);
  Post([&] { second.set_value(queue_->HandOver()); });
  std::future<bool> granted = second.get_future();
  EXPECT_EQ(granted.wait_for(kLimit), std::future_status::ready);
  EXPECT_FALSE(granted.get());
  go_on.set_value();
}

TEST_F(CallQueueTest, ALeaderThatIsStuckIsReplacedAgainAndAgain) {
  Start(milliseconds(20));
  std::promise<void>& go_on = Promise<void>();
  const std::shared_future<void> wait = go_on.get_future().share();
  std::promise<void>& last = Promise<void>();
  for (int i = 0; i < 4; ++i) {
    Post([wait] { wait.wait(); });
  }
  Post([&last] { last.set_value(); });
  EXPECT_EQ(last.get_future().wait_for(kLimit), std::future_status::ready);
  go_on.set_value();
}

TEST_F(CallQueueTest, WhoWasReplacedMayHandOver) {
  Start(milliseconds(20));
  std::promise<void>& reached = Promise<void>();
  std::promise<void>& other_has_run = Promise<void>();
  std::promise<bool>& granted = Promise<bool>();
  Post([&, other = other_has_run.get_future().share()] {
    reached.set_value();
    other.wait();
    granted.set_value(queue_->HandOver());
  });
  ASSERT_EQ(reached.get_future().wait_for(kLimit), std::future_status::ready);
  Post([&] { other_has_run.set_value(); });
  std::future<bool> result = granted.get_future();
  ASSERT_EQ(result.wait_for(kLimit), std::future_status::ready);
  EXPECT_TRUE(result.get());
}

TEST_F(CallQueueTest, AnAnswerIsSentWhenNothingElseHasCome) {
  Start(kForever);
  Sent& answer = Answer();
  std::promise<bool>& kept = Promise<bool>();
  Post([&] { kept.set_value(queue_->SendLater(answer)); });
  EXPECT_TRUE(kept.get_future().get());
  EXPECT_TRUE(answer.Comes());
  EXPECT_FALSE(queue_->SendLater(answer)) << "this thread does not lead";
}

TEST_F(CallQueueTest, ManyAnswersAreSentAtOnce) {
  Start(kForever);
  std::vector<Sent*> answers(100);
  for (Sent*& answer : answers) {
    answer = &Answer();
  }
  Post([&] {
    for (Sent* answer : answers) {
      EXPECT_TRUE(queue_->SendLater(*answer));
    }
  });
  for (Sent* answer : answers) {
    EXPECT_TRUE(answer->Comes());
  }
}

TEST_F(CallQueueTest, AnAnswerDoesNotWaitForALeaderThatIsStuck) {
  Start(milliseconds(20));
  Sent& answer = Answer();
  std::promise<void>& go_on = Promise<void>();
  std::promise<bool>& kept_at_the_end = Promise<bool>();
  Post([&, wait = go_on.get_future().share()] {
    EXPECT_TRUE(queue_->SendLater(answer));
    wait.wait();
    kept_at_the_end.set_value(queue_->SendLater(answer));
  });
  EXPECT_TRUE(answer.Comes());
  go_on.set_value();
  EXPECT_FALSE(kept_at_the_end.get_future().get()) << "another leads";
}

TEST_F(CallQueueTest, AnswersAreSentBeforeAHandOver) {
  Start(kForever);
  Sent& answer = Answer();
  std::promise<bool>& sent = Promise<bool>();
  Post([&] {
    EXPECT_TRUE(queue_->SendLater(answer));
    HandOver();
    sent.set_value(answer.Comes());
    EXPECT_FALSE(queue_->SendLater(answer));
  });
  EXPECT_TRUE(sent.get_future().get());
}

}  // namespace
}  // namespace strata
