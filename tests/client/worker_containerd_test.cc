// SPDX-License-Identifier: Apache-2.0
//
// Two workers, and a tenant that is neither, on the socket of a real containerd (its native
// snapshotter), which has a garbage collector of its own.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "client/worker/prune.h"
#include "client/worker_snapshots.h"
#include "snapshotters/os/mount_helper.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr std::chrono::seconds kLimit{30};  // a test that waits longer has failed

// Starts a program, its output in a file.
pid_t Spawn(std::vector<std::string> command, const std::string& output) {
  posix_spawn_file_actions_t actions;
  (void)::posix_spawn_file_actions_init(&actions);
  (void)::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(),
                                           O_WRONLY | O_CREAT | O_TRUNC, 0600);
  (void)::posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  std::vector<char*> arguments;
  for (std::string& argument : command) {
    arguments.push_back(argument.data());
  }
  arguments.push_back(nullptr);
  pid_t pid = -1;
  EXPECT_EQ(::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ), 0);
  (void)::posix_spawn_file_actions_destroy(&actions);
  return pid;
}

int Wait(pid_t pid) {
  int state = -1;
  while (::waitpid(pid, &state, 0) < 0 && errno == EINTR) {
  }
  return state;
}

class WorkerContainerdMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: containerd needs root";
    }
    if (!FindProgram("containerd").has_value()) {
      GTEST_SKIP() << "containerd is not installed";
    }
    std::ofstream(dir_.Join("config.toml"))
        << "version = 2\nroot = \"" << dir_.Join("root") << "\"\nstate = \"" << dir_.Join("state")
        << "\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", "
           "\"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", "
           "\"io.containerd.snapshotter.v1.devmapper\", "
           "\"io.containerd.snapshotter.v1.overlayfs\", "
           "\"io.containerd.snapshotter.v1.zfs\", \"io.containerd.internal.v1.opt\"]\n"
           "[grpc]\n  address = \""
        << socket_ << "\"\n[ttrpc]\n  address = \"" << dir_.Join("t.sock") << "\"\n";
    StartContainerd();
    ASSERT_TRUE(WaitForSocket());
    one_snapshotter_ = Connect("workers");
    ours_ = Worker("one");
    theirs_ = Worker("two");
    tenant_ = Connect("somebody");
    ASSERT_THAT(tenant_->Prepare(call_, "key", "", {{"containerd.io/gc.root", "yes"}}), IsOk());
  }

  void TearDown() override {
    if (containerd_ > 0) {
      (void)::kill(containerd_, SIGKILL);
      (void)Wait(containerd_);
    }
  }

  // Dies with this process.
  void StartContainerd() {
    containerd_ = Spawn(
        {"setpriv", "--pdeathsig", "KILL", "containerd", "--config", dir_.Join("config.toml")},
        dir_.Join("log"));
  }

  // Whether it is there in time; that somebody listens is waited for by each call.
  [[nodiscard]] bool WaitForSocket() const {
    const auto end = std::chrono::steady_clock::now() + kLimit;
    while (::access(socket_.c_str(), F_OK) != 0) {
      if (std::chrono::steady_clock::now() > end) {
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }

  std::unique_ptr<Snapshotter> Connect(const std::string& name_space) {
    auto channel = Dial(socket_, {.backoff_base = std::chrono::milliseconds(50)});
    EXPECT_THAT(channel, IsOk());
    return NewProxySnapshotter(*std::move(channel), {.snapshotter_name = "native",
                                                     .containerd_namespace = name_space,
                                                     .call_timeout = kLimit,
                                                     .wait_for_ready = true});
  }

  std::unique_ptr<WorkerSnapshots> Worker(const std::string& id) {
    auto worker = WorkerSnapshots::Create(
        *one_snapshotter_, {.worker_id = id, .holds_directory = dir_.Join("holds-" + id)});
    EXPECT_THAT(worker, IsOk());
    return *std::move(worker);
  }

  void Add(WorkerSnapshots& worker, const std::string& name, const std::string& parent = "") {
    ASSERT_THAT(worker.Prepare(call_, "key", parent, RecordType::kRegular, "made", {}), IsOk());
    ASSERT_THAT(worker.Commit(call_, name, "key", RecordType::kCacheMount, "made", {}), IsOk());
  }

  std::vector<std::string> Names(WorkerSnapshots& worker) {
    std::vector<std::string> names;
    const auto records = worker.List(call_, /*with_usage=*/true);
    EXPECT_THAT(records, IsOk());
    for (const WorkerRecord& record : *records) {
      names.push_back(record.name);
    }
    return names;
  }

  // Deleting a lease in this way waits for a collection.
  void CollectGarbage() {
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"leases", "create", "--id", "l"},
          {"leases", "delete", "--sync", "l"}}) {
      std::vector<std::string> command = {"ctr", "-a", socket_, "-n", "workers"};
      command.insert(command.end(), arguments.begin(), arguments.end());
      ASSERT_EQ(Wait(Spawn(command, dir_.Join("ctr"))), 0);
    }
  }

  TempDir dir_;
  const std::string socket_ = dir_.Join("c.sock");
  CallContext call_;
  pid_t containerd_ = -1;
  std::unique_ptr<Snapshotter> one_snapshotter_;
  std::unique_ptr<Snapshotter> tenant_;
  std::unique_ptr<WorkerSnapshots> ours_;
  std::unique_ptr<WorkerSnapshots> theirs_;
};

TEST_F(WorkerContainerdMountTest, WorkersKeepApartAndTheirRecordsStay) {
  Add(*ours_, "base");
  Add(*ours_, "top", "base");
  Add(*theirs_, "base");
  ASSERT_THAT(ours_->Touch(call_, "top"), IsOk());
  EXPECT_THAT(Names(*ours_), UnorderedElementsAre("base", "top"));
  EXPECT_THAT(Names(*theirs_), ElementsAre("base"));
  STRATA_ASSERT_OK_AND_ASSIGN(const WorkerRecord top, ours_->Find(call_, "top"));
  EXPECT_EQ(top.parent, "base");
  EXPECT_EQ(top.type, RecordType::kCacheMount);
  EXPECT_EQ(top.description, "made");
  EXPECT_EQ(top.use_count, 1U);
  EXPECT_THAT(ours_->Find(call_, "nothing"),
              StatusIs(StatusCode::kNotFound, Not(HasSubstr("strata-worker"))));
}

TEST_F(WorkerContainerdMountTest, ContainerdsGarbageCollectorLeavesThemAlone) {
  Add(*ours_, "base");
  ASSERT_THAT(ours_->Prepare(call_, "active", "base", RecordType::kRegular, "", {}), IsOk());
  ASSERT_THAT(one_snapshotter_->Prepare(call_, "garbage", "", {}), IsOk());
  CollectGarbage();
  EXPECT_THAT(one_snapshotter_->Stat(call_, "garbage"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Names(*ours_), UnorderedElementsAre("base", "active"));
}

TEST_F(WorkerContainerdMountTest, APruneTakesOnlyItsOwn) {
  Add(*ours_, "base");
  Add(*ours_, "top", "base");
  Add(*theirs_, "base");
  STRATA_ASSERT_OK_AND_ASSIGN(const Pruned pruned, Prune(call_, *ours_, {{.all = true}}, {}));
  EXPECT_THAT(pruned.failed, IsEmpty());
  EXPECT_THAT(Names(*ours_), IsEmpty());
  EXPECT_THAT(Names(*theirs_), ElementsAre("base"));
  EXPECT_THAT(tenant_->Stat(call_, "key"), IsOk());
}

TEST_F(WorkerContainerdMountTest, NothingIsForgottenWhileItIsAway) {
  Add(*ours_, "base");
  ASSERT_EQ(::kill(containerd_, SIGKILL), 0);
  (void)Wait(containerd_);
  auto channel = Dial(socket_, {.backoff_base = std::chrono::milliseconds(50)});
  ASSERT_THAT(channel, IsOk());
  const auto impatient = NewProxySnapshotter(
      *std::move(channel), {.snapshotter_name = "native", .containerd_namespace = "workers"});
  STRATA_ASSERT_OK_AND_ASSIGN(
      const auto worker,
      WorkerSnapshots::Create(*impatient,
                              {.worker_id = "one", .holds_directory = dir_.Join("holds-one")}));
  EXPECT_THAT(Prune(call_, *worker, {{.all = true}}, {}), StatusIs(StatusCode::kUnavailable));
  StartContainerd();
  EXPECT_THAT(Names(*ours_), ElementsAre("base"));
}

}  // namespace
}  // namespace strata::testing
