// SPDX-License-Identifier: Apache-2.0
//
// Disks without room: a daemon on a small file system of its own, which is filled up. Each mutation
// either works or fails with ResourceExhausted and has changed nothing; the daemon lives, starts
// again on the full disk, and works as before once there is room. Needs root.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshotter.h"
#include "tests/support/loop_mount.h"
#include "tests/support/server_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;
constexpr std::chrono::seconds kLimit{60};  // only a test that fails waits this long
constexpr int kTries = 40;                  // of one mutation on a full disk

constexpr int kChurn = 1000;  // mutations at the boundary
constexpr int kPasses = 6;    // of a fault point that are tried

using State = std::map<std::string, SnapshotInfo>;

// A daemon on a root, with a client.
class Daemon {
 public:
  static StatusOr<std::unique_ptr<Daemon>> Start(
      const std::string& kind, const std::string& root, const TempDir& directory,
      const std::map<std::string, std::string>& environment) {
    const char* build = std::getenv("STRATA_BUILD_ROOT");
    if (build == nullptr) {
      return MakeStatus(StatusCode::kInvalidArgument, "STRATA_BUILD_ROOT is not set");
    }
    // Another one each time: gRPC remembers of an address that nobody answered, and pauses.
    static int starts = 0;
    const std::string socket = directory.Join(std::to_string(++starts) + ".sock");
    STRATA_ASSIGN_OR_RETURN(ServerProcess server,
                            ServerProcess::Start({
                                .program = std::string(build) + "/services/strata-" + kind,
                                .root = root,
                                .socket = socket,
                                .log = directory.Join("log"),
                                .extra_arguments = {"--allow-volatile-root", "--anchor-dir", ""},
                                .environment = environment,
                            }));
    std::unique_ptr<Daemon> daemon(new Daemon(std::move(server)));
    STRATA_RETURN_IF_ERROR(daemon->server_.WaitServing());
    STRATA_ASSIGN_OR_RETURN(auto channel, Dial(socket, {.wait_for_ready = kLimit}));
    daemon->client_ = NewProxySnapshotter(
        std::move(channel),
        {.snapshotter_name = "test", .containerd_namespace = "", .call_timeout = kLimit});
    return daemon;
  }

  Snapshotter& client() { return *client_; }
  ServerProcess& server() { return server_; }

  // The client goes first: the server waits for what a connected one still has to say.
  StatusOr<int> Stop() {
    client_.reset();
    return server_.Stop();
  }

  // What List says; with `stat` what Stat says has to be the same.
  StatusOr<State> Show(bool stat = false) {
    CallContext call;
    State state;
    STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotCursor> cursor, client_->List(call, {}));
    while (true) {
      STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotInfo> rows, cursor->Next());
      if (rows.empty()) {
        return state;
      }
      for (const SnapshotInfo& row : rows) {
        if (stat) {
          STRATA_ASSIGN_OR_RETURN(const SnapshotInfo info, client_->Stat(call, row.name));
          if (!(info == row)) {
            return MakeStatus(StatusCode::kDataLoss, "List and Stat differ for " + row.name);
          }
        }
        state.emplace(row.name, row);
      }
    }
  }

 private:
  explicit Daemon(ServerProcess server) : server_(std::move(server)) {}

  ServerProcess server_;
  std::unique_ptr<Snapshotter> client_;
};

// Takes the room on a file system, and gives it back.
class Ballast {
 public:
  explicit Ballast(std::string path) : path_(std::move(path)) {}

  // All that is there but for `spared` bytes.
  void Fill(int64_t spared = 0) {
    const UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd.valid()) << std::strerror(errno);
    const std::string block(64 << 10, 'b');
    // Written and not only set aside: how much is set aside for what differs between file systems.
    for (size_t bytes = block.size(); bytes > 0; bytes /= 2) {
      while (true) {
        const ssize_t count = ::pwrite(fd.get(), block.data(), bytes, size_);
        if (count <= 0) {
          break;
        }
        size_ += count;
      }
      (void)::fsync(fd.get());  // where the lack of room shows on some
    }
    Resize(std::max<int64_t>(0, size_ - spared));
    (void)::fsync(fd.get());
  }

  void Resize(int64_t size) {
    ASSERT_EQ(::truncate(path_.c_str(), size), 0) << std::strerror(errno);
    size_ = size;
  }

  void Empty() {
    ASSERT_EQ(::unlink(path_.c_str()), 0) << std::strerror(errno);
    size_ = 0;
    const UniqueFd top(::open(path_.substr(0, path_.rfind('/')).c_str(), O_RDONLY | O_CLOEXEC));
    (void)::fsync(top.get());
  }

  [[nodiscard]] int64_t size() const { return size_; }

 private:
  const std::string path_;
  int64_t size_ = 0;
};

struct DiskCase {
  std::string kind;
  std::string file_system;
  int64_t mebibytes;
};

void PrintTo(const DiskCase& disk, std::ostream* out) {
  *out << disk.kind << " on " << disk.file_system;
}

class FullDiskTest : public ::testing::TestWithParam<DiskCase> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "not run: needs root to make file systems";
    }
    ASSERT_THAT(EnterPrivateMountNamespace(), IsOk());
  }

  void TearDown() override {
    if (daemon_ != nullptr) {
      Stop();
    }
  }

  void MakeDisk(const std::vector<std::string>& more_options = {}) {
    LoopMountOptions options = {.type = GetParam().file_system,
                                .mkfs_options = {"-q"},
                                .size_bytes = GetParam().mebibytes * kMebibyte,
                                .mount_data = ""};
    if (options.type == "ext4") {
      options.mkfs_options = {"-q", "-m", "0"};
    }
    options.mkfs_options.insert(options.mkfs_options.end(), more_options.begin(),
                                more_options.end());
    auto disk = LoopMount::Create(options);
    if (disk.status().code() == StatusCode::kNotFound) {
      GTEST_SKIP() << "not run: " << StatusMessage(disk.status());
    }
    ASSERT_THAT(disk, IsOk());
    disk_ = *std::move(disk);
    ballast_.emplace(disk_->Join("ballast"));
  }

  Status TryStart(const std::map<std::string, std::string>& environment = {}) {
    STRATA_ASSIGN_OR_RETURN(
        daemon_, Daemon::Start(GetParam().kind, disk_->Join("root"), directory_, environment));
    return OkStatus();
  }

  void Start() { ASSERT_THAT(TryStart(), IsOk()); }

  void Stop() {
    const StatusOr<int> code = daemon_->Stop();
    daemon_.reset();
    ASSERT_THAT(code, IsOk());
    EXPECT_EQ(*code, 0);
  }

  Snapshotter& client() { return daemon_->client(); }

  State Show(bool stat = false) {
    StatusOr<State> state = daemon_->Show(stat);
    EXPECT_THAT(state, IsOk());
    return state.ok() ? *std::move(state) : State();
  }

  Status Prepare(const std::string& key, const std::string& parent = "") {
    return client().Prepare(call_, key, parent, {}).status();
  }
  Status Commit(const std::string& name, const std::string& key) {
    return client().Commit(call_, name, key, {});
  }
  Status Remove(const std::string& key) { return client().Remove(call_, key); }
  Status Update(const std::string& name, const std::string& value) {
    return client()
        .Update(call_, {.name = name, .parent = "", .labels = {{"key", value}}}, {})
        .status();
  }

  // A committed "base", and of each kind a number of others.
  void MakeSnapshots(int count) {
    ASSERT_THAT(Prepare("base-key"), IsOk());
    ASSERT_THAT(Commit("base", "base-key"), IsOk());
    for (int i = 0; i < count; ++i) {
      const std::string number = std::to_string(i);
      ASSERT_THAT(Prepare("active-" + number, "base"), IsOk());
      ASSERT_THAT(Prepare("layer-key-" + number, "base"), IsOk());
      ASSERT_THAT(Commit("layer-" + number, "layer-key-" + number), IsOk());
      ASSERT_THAT(client().View(call_, "view-" + number, "base", {}).status(), IsOk());
    }
  }

  // Runs a mutation that touches `names`: it works, or it fails for want of room and has changed
  // nothing. Returns whether it worked.
  bool Mutate(const std::vector<std::string>& names, const std::function<Status()>& mutation) {
    if (HasFailure()) {
      return false;  // the first one says what is wrong
    }
    State before = Show();
    const Status status = mutation();
    State after = Show();
    if (!status.ok()) {
      EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
      EXPECT_EQ(before, after) << "a failed mutation has changed something: " << status;
      return false;
    }
    for (const std::string& name : names) {
      before.erase(name);
      after.erase(name);
    }
    EXPECT_EQ(before, after) << "a mutation has changed something else";
    return true;
  }

  // What each kind of call does in turn, `kTries` times or until the disk is full for it.
  void MutateUntilFull(const std::string& round) {
    int prepared = 0;
    while (prepared < kTries && Mutate({"new-" + round + std::to_string(prepared)}, [&] {
             return Prepare("new-" + round + std::to_string(prepared), "base");
           })) {
      ++prepared;
    }
    int viewed = 0;
    while (viewed < kTries && Mutate({"look-" + round + std::to_string(viewed)}, [&] {
             return client()
                 .View(call_, "look-" + round + std::to_string(viewed), "base", {})
                 .status();
           })) {
      ++viewed;
    }
    const bool updated =
        Mutate({"base"}, [&] { return Update("base", std::string(300'000, 'v')); });
    const bool small = Mutate({"base"}, [&] { return Update("base", "v" + round); });
    const std::string number = std::to_string(std::atoi(round.c_str()));
    const bool committed = Mutate({"active-" + number, "done-" + number},
                                  [&] { return Commit("done-" + number, "active-" + number); });
    const bool removed = Mutate({"layer-" + number}, [&] { return Remove("layer-" + number); });
    std::printf("  round %s: prepared %d, viewed %d, updated %d and %d, committed %d, removed %d\n",
                round.c_str(), prepared, viewed, updated, small, committed, removed);
  }

  void ExpectAllWorks(const std::string& round) {
    EXPECT_THAT(Prepare("works-key-" + round, "base"), IsOk());
    EXPECT_THAT(Commit("works-" + round, "works-key-" + round), IsOk());
    EXPECT_THAT(client().View(call_, "works-view-" + round, "works-" + round, {}).status(), IsOk());
    EXPECT_THAT(Update("works-" + round, std::string(100'000, 'v')), IsOk());
    EXPECT_THAT(Remove("works-view-" + round), IsOk());
    EXPECT_THAT(Remove("works-" + round), IsOk());
  }

  const TempDir directory_;
  std::unique_ptr<LoopMount> disk_;  // goes after the daemon
  std::optional<Ballast> ballast_;
  std::unique_ptr<Daemon> daemon_;
  CallContext call_;
};

TEST_P(FullDiskTest, EachMutationWorksOrChangesNothing) {
  ASSERT_NO_FATAL_FAILURE(MakeDisk());
  if (IsSkipped()) {
    return;
  }
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(MakeSnapshots(6));
  for (int round = 0; round < 3 && !HasFailure(); ++round) {
    ballast_->Fill();
    MutateUntilFull(std::to_string(round));
    const State before = Show();
    // It has to start on a full disk, or nothing could ever be removed from it.
    ASSERT_NO_FATAL_FAILURE(Stop());
    ASSERT_NO_FATAL_FAILURE(Start());
    EXPECT_EQ(Show(/*stat=*/true), before);
    MutateUntilFull(std::to_string(round + 3));
    ballast_->Empty();
    ExpectAllWorks(std::to_string(round));
  }
}

TEST_P(FullDiskTest, RemoveMakesRoomOnAFullDisk) {
  ASSERT_NO_FATAL_FAILURE(MakeDisk());
  if (IsSkipped()) {
    return;
  }
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(MakeSnapshots(40));
  ballast_->Fill();
  for (int i = 0; i < 40 && !HasFailure(); ++i) {
    EXPECT_THAT(Remove("view-" + std::to_string(i)), IsOk()) << i;
  }
  const State before = Show();
  ASSERT_NO_FATAL_FAILURE(Stop());
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(Show(), before);
  for (int i = 0; i < 40 && !HasFailure(); ++i) {
    EXPECT_THAT(Remove("layer-" + std::to_string(i)), IsOk()) << i;
  }
  ballast_->Empty();
  ExpectAllWorks("end");
}

TEST_P(FullDiskTest, NoInodesLeftIsNoRoom) {
  if (GetParam().file_system != "ext4") {
    GTEST_SKIP() << "not run: only ext4 has a fixed number of inodes";
  }
  ASSERT_NO_FATAL_FAILURE(MakeDisk({"-N", "160"}));
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_THAT(Prepare("base-key"), IsOk());
  ASSERT_THAT(Commit("base", "base-key"), IsOk());
  std::vector<std::string> keys;
  while (keys.size() < 200 && Mutate({"key-" + std::to_string(keys.size())}, [&] {
           return Prepare("key-" + std::to_string(keys.size()), "base");
         })) {
    keys.push_back("key-" + std::to_string(keys.size()));
  }
  ASSERT_LT(keys.size(), 200U) << "the disk did not get full";
  std::printf("  %zu actives in 160 inodes\n", keys.size());
  EXPECT_TRUE(Mutate({keys[0], "done"}, [&] { return Commit("done", keys[0]); }));
  EXPECT_TRUE(Mutate({"base"}, [&] { return Update("base", "value"); }));
  EXPECT_TRUE(Mutate({keys[1]}, [&] { return Remove(keys[1]); }));
  // The room is given back in the background.
  ASSERT_THAT(client().Cleanup(call_), IsOk());
  const auto limit = std::chrono::steady_clock::now() + kLimit;
  Status status;
  while (!(status = Prepare("again", "base")).ok() && std::chrono::steady_clock::now() < limit) {
    ASSERT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
  }
  EXPECT_THAT(status, IsOk());
}

TEST_P(FullDiskTest, ChurnAtTheBoundaryLosesNoAnswer) {
  ASSERT_NO_FATAL_FAILURE(MakeDisk());
  if (IsSkipped()) {
    return;
  }
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(MakeSnapshots(1));
  State expected = Show();
  std::minstd_rand random(7);
  ballast_->Fill(/*spared=*/512 << 10);
  int failed = 0;
  int worked = 0;
  for (int i = 0; i < kChurn && !HasFailure(); ++i) {
    if (i % 25 == 0) {
      ballast_->Fill(static_cast<int64_t>(random() % (32 << 10)));
    }
    const std::string key = "churn-" + std::to_string(i);
    Status status;
    switch (random() % 4) {
      case 0:
      case 1:
        status = Prepare(key, "base");
        if (status.ok()) {
          expected[key] = {.name = key, .parent = "base", .kind = Kind::kActive};
        }
        break;
      case 2: {
        const auto active = std::find_if(expected.begin(), expected.end(), [](const auto& one) {
          return one.second.kind == Kind::kActive;
        });
        if (active == expected.end()) {
          continue;
        }
        status = Commit(key, active->first);
        if (status.ok()) {
          expected[key] = {.name = key, .parent = active->second.parent, .kind = Kind::kCommitted};
          expected.erase(active);
        }
        break;
      }
      default: {
        auto victim = expected.begin();
        std::advance(victim, static_cast<ptrdiff_t>(random() % expected.size()));
        if (victim->first == "base") {
          continue;
        }
        status = Remove(victim->first);
        if (status.ok()) {
          expected.erase(victim);
        }
      }
    }
    worked += status.ok() ? 1 : 0;
    failed += status.ok() ? 0 : 1;
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kResourceExhausted) << status;
  }
  std::printf("  worked %d, failed %d\n", worked, failed);
  // btrfs finds room for small directories long after it has none for data.
  EXPECT_TRUE(failed > 0 || GetParam().file_system == "btrfs") << "the disk was never full";
  EXPECT_GT(worked, 0);
  const auto same = [](const State& a, const State& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
      return x.first == y.first && x.second.parent == y.second.parent &&
             x.second.kind == y.second.kind;
    });
  };
  EXPECT_TRUE(same(Show(), expected));
  daemon_->server().Kill();
  daemon_.reset();
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_TRUE(same(Show(/*stat=*/true), expected)) << "an answered mutation is lost";
  ballast_->Empty();
  ExpectAllWorks("end");
}

INSTANTIATE_TEST_SUITE_P(
    Daemon, FullDiskTest,
    ::testing::Values(DiskCase{"native", "ext4", 24}, DiskCase{"overlayfs", "ext4", 24},
                      DiskCase{"overlayfs", "xfs", 320}, DiskCase{"overlayfs", "btrfs", 120}),
    [](const auto& one) { return one.param.kind + "_" + one.param.file_system; });

struct FaultCase {
  std::string kind;
  std::string point;
  int error;
};

void PrintTo(const FaultCase& fault, std::ostream* out) {
  *out << fault.point << " errno " << fault.error;
}

std::vector<FaultCase> FaultCases() {
  std::vector<FaultCase> cases;
  for (const int error : {ENOSPC, EDQUOT}) {
    for (const char* point :
         {"store.begin", "store.changed", "store.commit", "spare.mkdir", "spare.folder",
          "spare.sync", "create.directories_made", "commit.measured"}) {
      cases.push_back({"overlayfs", point, error});
    }
    for (const char* point :
         {"store.commit", "spare.mkdir", "create.copy", "create.copied", "commit.measured"}) {
      cases.push_back({"native", point, error});
    }
  }
  return cases;
}

// Kernels without quotas have no EDQUOT to give, so it comes from the fault points, as ENOSPC for
// comparison.
class FullDiskFaultTest : public ::testing::TestWithParam<FaultCase> {
 protected:
  // One of each mutation; false when one of them failed, which then has to have changed nothing and
  // to work when it is tried again.
  static bool RunScript(Daemon& daemon, CallContext& call) {
    Snapshotter& client = daemon.client();
    const std::vector<std::function<Status()>> script = {
        [&] { return client.Prepare(call, "script", "base", {}).status(); },
        [&] { return client.View(call, "script-view", "base", {}).status(); },
        [&] { return client.Commit(call, "script-done", "script", {}); },
        [&] {
          return client.Update(call, {.name = "base", .parent = "", .labels = {{"k", "v"}}}, {})
              .status();
        },
        [&] { return client.Remove(call, "script-view"); },
        [&] { return client.Remove(call, "script-done"); },
    };
    bool all = true;
    for (size_t step = 0; step < script.size(); ++step) {
      const StatusOr<State> before = daemon.Show();
      EXPECT_THAT(before, IsOk());
      const Status status = script[step]();
      if (status.ok()) {
        continue;
      }
      all = false;
      EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted)) << "step " << step;
      const StatusOr<State> after = daemon.Show();
      EXPECT_THAT(after, IsOk());
      EXPECT_TRUE(before.ok() && after.ok() && *before == *after) << "step " << step;
      EXPECT_THAT(script[step](), IsOk()) << "step " << step << ", tried again";
    }
    return all;
  }
};

TEST_P(FullDiskFaultTest, MutationFailsAloneAndWorksAgain) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "not run: needs root for the overlay that the daemon tries";
  }
  const TempDir directory;
  const std::string root = directory.Join("root");
  CallContext call;
  {
    const auto daemon = Daemon::Start(GetParam().kind, root, directory, {});
    ASSERT_THAT(daemon, IsOk());
    ASSERT_THAT((*daemon)->client().Prepare(call, "base-key", "", {}).status(), IsOk());
    ASSERT_THAT((*daemon)->client().Commit(call, "base", "base-key", {}), IsOk());
    ASSERT_THAT((*daemon)->Stop(), IsOk());
  }
  int hit = 0;
  bool untouched = false;
  for (int pass = 1; pass <= kPasses && !untouched; ++pass) {
    const std::string fault =
        GetParam().point + ":" + std::to_string(pass) + ":" + std::to_string(GetParam().error);
    const auto daemon = Daemon::Start(GetParam().kind, root, directory, {{"STRATA_FAULT", fault}});
    if (!daemon.ok()) {
      ++hit;  // passed at the start; the next one is without the fault
      continue;
    }
    untouched = RunScript(**daemon, call);
    hit += untouched ? 0 : 1;
    const StatusOr<int> code = (*daemon)->Stop();
    ASSERT_THAT(code, IsOk());
    EXPECT_EQ(*code, 0);
  }
  EXPECT_GT(hit, 0) << "the fault was never met";
}

INSTANTIATE_TEST_SUITE_P(Daemon, FullDiskFaultTest, ::testing::ValuesIn(FaultCases()),
                         [](const auto& one) {
                           std::string name = one.param.kind + "_" + one.param.point + "_" +
                                              (one.param.error == EDQUOT ? "EDQUOT" : "ENOSPC");
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace strata::testing
