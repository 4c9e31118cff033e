// SPDX-License-Identifier: Apache-2.0
//
// strata.control.v1.Control over a real socket.
#include "services/rpc/control_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <strata/control/v1/control.grpc.pb.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "services/control_source.h"
#include "services/rpc/listener.h"
#include "services/rpc/server.h"
#include "services/worker_pool.h"
#include "tests/support/no_snapshotter.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

namespace wire = ::strata::control::v1;

class FakeSource final : public ControlSource {
 public:
  std::vector<ControlLayer> ListLayers() override {
    return {{.number = 7,
             .reference = "r.test/a:1",
             .digest = "sha256:aa",
             .blob_bytes = 100,
             .chunks = 4,
             .present_chunks = 3,
             .allocated_bytes = 8192,
             .presenter = "fuse",
             .disk_full = true},
            {.digest = "sha256:bb", .reason = "no-pin", .detail = "no digest pins it"}};
  }
  std::vector<ControlCounter> Counters() override {
    return {{"fill.wants", 3}, {"fuse.reads", uint64_t{1} << 40}};
  }
  void FetchAll() override { ++fetched; }
  ControlDrain DrainState() override {
    const uint64_t now = left;
    ControlDrain state{.layers = 5, .layers_left = now, .bytes_left = now * 1000};
    if (now != 0) {
      state.failed.push_back({.number = 7, .reference = "r.test/a:1", .detail = "host is down"});
    }
    return state;
  }

  ControlDescription Describe() override {
    return {.kind = "overlayfs", .root = "/r", .version = "1.2", .pid = 7};
  }
  StatusOr<std::vector<ControlSnapshot>> Snapshots(CallContext& /*call*/,
                                                   SnapshotId after) override {
    if (after != 0) {
      return MakeStatus(StatusCode::kDataLoss, "after " + std::to_string(after));
    }
    return std::vector<ControlSnapshot>{
        {.id = 5,
         .info = {.name = "a",
                  .parent = "b",
                  .kind = Kind::kCommitted,
                  .created = 11,
                  .updated = 12,
                  .labels = {{"k", "v"}}},
         .usage = Usage{.size = 4096, .inodes = 2}},
        {.id = 6,
         .info = {.name = "c"},
         .usage = MakeStatus(StatusCode::kDataLoss, "it has lost its directory")}};
  }
  StatusOr<RootCheck> Check(CallContext& call) override {
    is_asked = true;
    while (waits && !call.cancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    STRATA_RETURN_IF_ERROR(call.Check());
    RootFinding finding{.problem = RootProblem::kNoRecord,
                        .id = 9,
                        .path = "snapshots/\xff",
                        .bytes = 100,
                        .detail = "why",
                        .repair = "how",
                        .repairable = true};
    return RootCheck{.findings = {finding}, .records = 2, .directories = 3};
  }
  StatusOr<RootSpace> Space(CallContext& /*call*/) override {
    return RootSpace{.file_system = "ext4", .total_bytes = 10, .free_bytes = 4, .trash_bytes = 3};
  }

  std::atomic<int> fetched{0};
  std::atomic<uint64_t> left{0};
  std::atomic<bool> waits{false};  // Check, until it is cancelled
  std::atomic<bool> is_asked{false};
};

class ControlServiceTest : public ::testing::Test {
 protected:
  void Serve(ControlSource* source) {
    const std::string socket = dir_.Join("s.sock");
    auto listener = Listener::Bind(socket);
    ASSERT_THAT(listener, IsOk());
    std::vector<Listener> listeners;
    listeners.push_back(*std::move(listener));
    auto server =
        RpcServer::Start({.snapshotter = snapshotter_, .mutations = pool_, .walks = pool_}, source,
                         std::move(listeners));
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
    auto channel = Dial(socket, {.wait_for_ready = std::chrono::minutes(1)});
    ASSERT_THAT(channel, IsOk());
    stub_ = wire::Control::NewStub(*channel);
  }

  TempDir dir_;
  NoSnapshotter snapshotter_;
  FakeSource source_;
  WorkerPool pool_{{}};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<wire::Control::Stub> stub_;
  grpc::ClientContext context_;
};

TEST_F(ControlServiceTest, ShowsLayersAndThoseThatAreNotLazy) {
  Serve(&source_);
  wire::ListLayersResponse answer;
  const grpc::Status status = stub_->ListLayers(&context_, {}, &answer);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(answer.layers_size(), 2);
  const wire::Layer& lazy = answer.layers(0);
  EXPECT_EQ(lazy.number(), 7U);
  EXPECT_EQ(lazy.reference(), "r.test/a:1");
  EXPECT_EQ(lazy.digest(), "sha256:aa");
  EXPECT_EQ(lazy.reason(), "");
  EXPECT_EQ(lazy.blob_bytes(), 100U);
  EXPECT_EQ(lazy.chunks(), 4U);
  EXPECT_EQ(lazy.present_chunks(), 3U);
  EXPECT_EQ(lazy.allocated_bytes(), 8192U);
  EXPECT_EQ(lazy.presenter(), "fuse");
  EXPECT_TRUE(lazy.disk_full());
  EXPECT_EQ(answer.layers(1).reason(), "no-pin");
  EXPECT_EQ(answer.layers(1).detail(), "no digest pins it");
}

TEST_F(ControlServiceTest, CountsByName) {
  Serve(&source_);
  wire::CountersResponse answer;
  const grpc::Status status = stub_->Counters(&context_, {}, &answer);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(answer.counters_size(), 2);
  EXPECT_EQ(answer.counters(1).name(), "fuse.reads");
  EXPECT_EQ(answer.counters(1).value(), uint64_t{1} << 40);
}

TEST_F(ControlServiceTest, DrainSaysHowFarItIsUntilNothingIsLeft) {
  source_.left = 2;
  Serve(&source_);
  const auto stream = stub_->Drain(&context_, {});
  wire::DrainProgress progress;
  ASSERT_TRUE(stream->Read(&progress));
  EXPECT_GE(source_.fetched, 1);
  EXPECT_EQ(progress.layers(), 5U);
  EXPECT_EQ(progress.layers_left(), 2U);
  EXPECT_EQ(progress.bytes_left(), 2000U);
  ASSERT_EQ(progress.failed_size(), 1);
  EXPECT_EQ(progress.failed(0).number(), 7U);
  EXPECT_EQ(progress.failed(0).reference(), "r.test/a:1");
  EXPECT_EQ(progress.failed(0).detail(), "host is down");
  source_.left = 0;
  do {  // what was said before comes first
    ASSERT_TRUE(stream->Read(&progress));
  } while (progress.layers_left() != 0);
  EXPECT_FALSE(stream->Read(&progress));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ControlServiceTest, DrainEndsWithItsClient) {
  source_.left = 2;
  Serve(&source_);
  const auto stream = stub_->Drain(&context_, {});
  wire::DrainProgress progress;
  ASSERT_TRUE(stream->Read(&progress));
  context_.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Would wait for a call that is still there.
  server_->Stop(std::chrono::minutes(1));
}

TEST_F(ControlServiceTest, DrainEndsWithTheServer) {
  source_.left = 2;
  Serve(&source_);
  const auto stream = stub_->Drain(&context_, {});
  wire::DrainProgress progress;
  ASSERT_TRUE(stream->Read(&progress));
  server_->Stop(std::chrono::minutes(1));
  while (stream->Read(&progress)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ControlServiceTest, SaysWhoServes) {
  Serve(&source_);
  wire::DescribeResponse answer;
  ASSERT_TRUE(stub_->Describe(&context_, {}, &answer).ok());
  EXPECT_EQ(answer.kind(), "overlayfs");
  EXPECT_EQ(answer.root(), "/r");
  EXPECT_EQ(answer.version(), "1.2");
  EXPECT_EQ(answer.pid(), 7);
}

TEST_F(ControlServiceTest, ShowsSnapshotsAndThoseThatCannotBeMeasured) {
  Serve(&source_);
  wire::SnapshotsRequest request;
  request.set_labels(true);
  wire::SnapshotsResponse answer;
  ASSERT_TRUE(stub_->Snapshots(&context_, request, &answer).ok());
  ASSERT_EQ(answer.rows_size(), 2);
  EXPECT_EQ(answer.rows(0).id(), 5U);
  EXPECT_EQ(answer.rows(0).name(), "a");
  EXPECT_EQ(answer.rows(0).parent(), "b");
  EXPECT_EQ(answer.rows(0).kind(), 3U);
  EXPECT_EQ(answer.rows(0).created(), 11);
  EXPECT_EQ(answer.rows(0).updated(), 12);
  EXPECT_EQ(answer.rows(0).size(), 4096);
  EXPECT_EQ(answer.rows(0).inodes(), 2);
  EXPECT_EQ(answer.rows(0).labels().at("k"), "v");
  EXPECT_EQ(answer.rows(1).unmeasured(), "it has lost its directory");
}

TEST_F(ControlServiceTest, GivesLabelsOnlyWhenAsked) {
  Serve(&source_);
  wire::SnapshotsResponse answer;
  ASSERT_TRUE(stub_->Snapshots(&context_, {}, &answer).ok());
  EXPECT_TRUE(answer.rows(0).labels().empty());
}

TEST_F(ControlServiceTest, PassesOnWhereAPageBeginsAndAnError) {
  Serve(&source_);
  wire::SnapshotsRequest request;
  request.set_after(6);
  wire::SnapshotsResponse answer;
  const grpc::Status status = stub_->Snapshots(&context_, request, &answer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(status.error_message(), "after 6");
}

TEST_F(ControlServiceTest, TellsWhatIsWrong) {
  Serve(&source_);
  wire::CheckResponse answer;
  ASSERT_TRUE(stub_->Check(&context_, {}, &answer).ok());
  EXPECT_EQ(answer.records(), 2U);
  EXPECT_EQ(answer.directories(), 3U);
  EXPECT_FALSE(answer.truncated());
  ASSERT_EQ(answer.findings_size(), 1);
  EXPECT_EQ(answer.findings(0).problem(), "no-record");
  EXPECT_EQ(answer.findings(0).id(), 9U);
  EXPECT_EQ(answer.findings(0).path(), "snapshots/\xff");
  EXPECT_EQ(answer.findings(0).size(), 100U);
  EXPECT_EQ(answer.findings(0).detail(), "why");
  EXPECT_EQ(answer.findings(0).repair(), "how");
  EXPECT_TRUE(answer.findings(0).repairable());
  EXPECT_FALSE(answer.findings(0).harmless());
}

TEST_F(ControlServiceTest, EndsACheckWhoseClientHasGone) {
  source_.waits = true;
  Serve(&source_);
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  wire::CheckResponse answer;
  EXPECT_EQ(stub_->Check(&context_, {}, &answer).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // Would wait for a call that is still there.
  server_->Stop(std::chrono::minutes(1));
}

TEST_F(ControlServiceTest, ACheckEndsWithTheServer) {
  source_.waits = true;
  Serve(&source_);
  grpc::Status status;
  std::thread asker([&] {
    wire::CheckResponse answer;
    status = stub_->Check(&context_, {}, &answer);
  });
  while (!source_.is_asked) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  server_->Stop(std::chrono::minutes(1));
  asker.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED) << status.error_message();
}

TEST_F(ControlServiceTest, SaysWhatTheDiskHas) {
  Serve(&source_);
  wire::SpaceResponse answer;
  ASSERT_TRUE(stub_->Space(&context_, {}, &answer).ok());
  EXPECT_EQ(answer.file_system(), "ext4");
  EXPECT_EQ(answer.total_bytes(), 10U);
  EXPECT_EQ(answer.free_bytes(), 4U);
  EXPECT_EQ(answer.trash_bytes(), 3U);
}

TEST_F(ControlServiceTest, IsNotThereForServersWithoutIt) {
  Serve(nullptr);
  wire::CountersResponse answer;
  EXPECT_EQ(stub_->Counters(&context_, {}, &answer).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace strata::testing
