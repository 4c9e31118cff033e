// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/health_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using testing::IsOk;
using testing::StatusIs;

const std::string kServing("\x08\x01", 2);
const std::string kNotServing("\x08\x02", 2);
const std::string kUnknown("\x08\x03", 2);
// A request with the name "a.B".
const std::string kNamed(
    "\x0a\x03"
    "a.B",
    5);

// Keep what they are told.
class FakeUnary final : public RpcCall {
 public:
  CallContext& context() override { return context_; }
  bool MayBlock() override { return false; }
  void Finish(Answer answer) override { ended = std::move(answer); }

  std::optional<Answer> ended;

 private:
  CallContext context_;
};

// A message is on its way until Sent.
class FakeStream final : public StreamCall {
 public:
  CallContext& context() override { return context_; }
  void Finish(const Status& status) override { ended = status; }
  void Write(std::string message, std::function<void(bool ok)> then) override {
    EXPECT_FALSE(sending_) << "two messages at a time";
    written.push_back(std::move(message));
    sending_ = std::move(then);
  }
  void Wait(std::chrono::milliseconds /*time*/, std::function<void()> /*then*/) override {
    ADD_FAILURE() << "nobody waits";
  }
  void WhenCancelled(std::function<void()> then) override { gone_ = std::move(then); }

  void Sent(bool ok) { std::exchange(sending_, nullptr)(ok); }
  void Leave() { gone_(); }

  std::vector<std::string> written;
  std::optional<Status> ended;

 private:
  CallContext context_;
  std::function<void(bool)> sending_;
  std::function<void()> gone_;
};

class HealthServiceTest : public ::testing::Test {
 protected:
  HealthServiceTest() : health_(NewHealthService({"a.B"})) { health_->AddTo(&methods_); }

  Answer Check(const std::string& request) {
    FakeUnary call;
    methods_.unary.at("/grpc.health.v1.Health/Check").begin(call, request);
    return call.ended.value_or(MakeStatus(StatusCode::kInternal, "it was not answered"));
  }
  void Watch(FakeStream& call, const std::string& request) {
    methods_.streams.at("/grpc.health.v1.Health/Watch").begin(call, request);
  }

  const std::unique_ptr<HealthService> health_;
  MethodTable methods_;
};

TEST_F(HealthServiceTest, SaysWhetherItServes) {
  EXPECT_EQ(Check("").value_or("?"), kNotServing);
  health_->SetServing(true);
  EXPECT_EQ(Check("").value_or("?"), kServing);
  EXPECT_EQ(Check(kNamed).value_or("?"), kServing);
  health_->SetServing(false);
  EXPECT_EQ(Check(kNamed).value_or("?"), kNotServing);
}

TEST_F(HealthServiceTest, KnowsOnlyItsServices) {
  EXPECT_THAT(Check(std::string("\x0a\x01"
                                "c",
                                3))
                  .status(),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Check("\x0a\x05"
                    "c")
                  .status(),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(HealthServiceTest, WatchTellsOfEachChangeOneAtATime) {
  health_->SetServing(true);
  FakeStream call;
  Watch(call, kNamed);
  EXPECT_THAT(call.written, ElementsAre(kServing));
  health_->SetServing(false);
  EXPECT_THAT(call.written, ElementsAre(kServing));
  call.Sent(true);
  EXPECT_THAT(call.written, ElementsAre(kServing, kNotServing));
  call.Sent(true);
  health_->SetServing(false);
  EXPECT_EQ(call.written.size(), 2U);
  call.Leave();
  ASSERT_TRUE(call.ended.has_value());
  health_->SetServing(true);
  EXPECT_EQ(call.written.size(), 2U);
}

TEST_F(HealthServiceTest, AWatcherThatGoesWhileItIsToldEndsOnce) {
  FakeStream call;
  Watch(call, "");
  call.Leave();
  EXPECT_FALSE(call.ended.has_value());
  call.Sent(true);
  EXPECT_TRUE(call.ended.has_value());
  EXPECT_EQ(call.written.size(), 1U);
}

TEST_F(HealthServiceTest, AWatcherThatCannotBeToldEnds) {
  FakeStream call;
  Watch(call, "");
  call.Sent(false);
  EXPECT_TRUE(call.ended.has_value());
  call.Leave();
}

TEST_F(HealthServiceTest, AnUnknownServiceIsWatchedAsSuch) {
  FakeStream call;
  Watch(call, std::string("\x0a\x01"
                          "c",
                          3));
  EXPECT_THAT(call.written, ElementsAre(kUnknown));
  call.Sent(true);
  health_->SetServing(true);
  EXPECT_EQ(call.written.size(), 1U);
  call.Leave();
}

}  // namespace
}  // namespace strata
