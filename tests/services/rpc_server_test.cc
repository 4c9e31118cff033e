// SPDX-License-Identifier: Apache-2.0
//
// What a server answers that no method does, over a real socket.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "services/rpc/listener.h"
#include "services/rpc/server.h"
#include "services/worker_pool.h"
#include "tests/support/no_snapshotter.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr seconds kLimit{30};

class RpcServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string socket = dir_.Join("s.sock");
    auto listener = Listener::Bind(socket);
    ASSERT_THAT(listener, IsOk());
    std::vector<Listener> listeners;
    listeners.push_back(*std::move(listener));
    STRATA_ASSERT_OK_AND_ASSIGN(
        server_, RpcServer::Start({.snapshotter = snapshotter_, .mutations = pool_, .walks = pool_},
                                  nullptr, std::move(listeners)));
    auto channel = Dial(socket, {.wait_for_ready = std::chrono::minutes(1)});
    ASSERT_THAT(channel, IsOk());
    stub_ = std::make_unique<grpc::GenericStub>(*channel);
    context_.set_deadline(std::chrono::system_clock::now() + kLimit);
  }

  void TearDown() override {
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // What was begun last is done.
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  // A call without a message, up to its status.
  grpc::Status CallWithout(const std::string& method) {
    const auto call = stub_->PrepareCall(&context_, method, &queue_);
    call->StartCall(nullptr);
    EXPECT_TRUE(Next());
    call->WritesDone(nullptr);
    EXPECT_TRUE(Next());
    grpc::Status status;
    call->Finish(&status, nullptr);
    EXPECT_TRUE(Next());
    return status;
  }

  TempDir dir_;
  NoSnapshotter snapshotter_;
  WorkerPool pool_{{}};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
};

TEST_F(RpcServerTest, AMethodThatIsNotThereIsUnimplemented) {
  const grpc::Status status = CallWithout("/a.B/C");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("'/a.B/C'"));
}

TEST_F(RpcServerTest, ACallWithoutARequestIsAnError) {
  const grpc::Status status = CallWithout("/containerd.services.snapshots.v1.Snapshots/Stat");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
}

TEST_F(RpcServerTest, AWatchOfItsHealthIsToldOfTheEndAndDoesNotHoldItUp) {
  const auto call = stub_->PrepareCall(&context_, "/grpc.health.v1.Health/Watch", &queue_);
  call->StartCall(nullptr);
  ASSERT_TRUE(Next());
  const grpc::Slice nothing;
  call->Write(grpc::ByteBuffer(&nothing, 1), nullptr);
  ASSERT_TRUE(Next());
  const auto read = [&] {
    grpc::ByteBuffer message;
    call->Read(&message, nullptr);
    grpc::Slice slice;
    return Next() && message.DumpToSingleSlice(&slice).ok()
               ? std::string(reinterpret_cast<const char*>(slice.begin()), slice.size())
               : std::string("none");
  };
  EXPECT_EQ(read(), std::string("\x08\x01", 2));
  const auto begin = std::chrono::steady_clock::now();
  server_->Stop(kLimit);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kLimit);
  EXPECT_EQ(read(), std::string("\x08\x02", 2));
  grpc::Status status;
  call->Finish(&status, nullptr);
  EXPECT_TRUE(Next());
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace strata::testing
