// SPDX-License-Identifier: Apache-2.0
//
// strata-power-cut: cuts the power of the disk under a real daemon again and again and checks what
// its root holds afterwards: every answered mutation is there, every record has its directory, no
// directory is without a record once the sweep has ended, no number is handed out twice.
//   --server PROGRAM  the daemon
//   --fs TYPE         file system of the disk: ext4 or xfs
//   --rounds N        cuts; at random moments under load, or while the daemon starts
//   --lie             the disk ignores flushes: succeeds when the loss is found
//   --seed S
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "tests/crash/crash_model.h"
#include "tests/power_cut/disk_mount.h"
#include "tests/power_cut/forgetful_disk.h"
#include "tests/support/loop_mount.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr std::chrono::milliseconds kCallLimit{20'000};
constexpr std::chrono::seconds kSweepLimit{30};
constexpr int64_t kDiskBytes = int64_t{512} * 1024 * 1024;  // mkfs.xfs wants more than 300 MiB
constexpr int kCallers = 6;
constexpr int kRoundsPerDisk = 10;
constexpr int kSkipped = 77;  // to meson

struct Arguments {
  std::string server;
  std::string fs = "ext4";
  int rounds = 5;
  uint64_t seed = 1;
  bool lie = false;
};

// What returns after a cut has begun counts as not answered: its caller lost power too.
class UntilCut final : public Snapshotter {
 public:
  // Both must outlive this.
  UntilCut(Snapshotter& inner, const ForgetfulDisk& disk) : inner_(inner), disk_(disk) {}

  StatusOr<SnapshotInfo> Stat(CallContext& call, std::string_view name) override {
    return Judge(inner_.Stat(call, name));
  }
  StatusOr<SnapshotInfo> Update(CallContext& call, const SnapshotInfo& info,
                                const std::vector<std::string>& mask) override {
    return Judge(inner_.Update(call, info, mask));
  }
  StatusOr<Usage> GetUsage(CallContext& call, std::string_view key) override {
    return Judge(inner_.GetUsage(call, key));
  }
  StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view key) override {
    return Judge(inner_.Mounts(call, key));
  }
  StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                       std::string_view parent, const Labels& labels) override {
    return Judge(inner_.Prepare(call, key, parent, labels));
  }
  StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view key,
                                    std::string_view parent, const Labels& labels) override {
    return Judge(inner_.View(call, key, parent, labels));
  }
  Status Commit(CallContext& call, std::string_view name, std::string_view key,
                const CommitOptions& options) override {
    return Judge(inner_.Commit(call, name, key, options));
  }
  Status Remove(CallContext& call, std::string_view key) override {
    return Judge(inner_.Remove(call, key));
  }
  StatusOr<std::unique_ptr<SnapshotCursor>> List(CallContext& call,
                                                 const std::vector<std::string>& filters) override {
    return Judge(inner_.List(call, filters));
  }
  Status Cleanup(CallContext& call) override { return Judge(inner_.Cleanup(call)); }

 private:
  template <typename Result>
  Result Judge(Result result) {
    if (disk_.off()) {
      return MakeStatus(StatusCode::kUnavailable, "the power is off");
    }
    return result;
  }

  Snapshotter& inner_;
  const ForgetfulDisk& disk_;
};

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::set<std::string> NamesIn(const std::string& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; it != end; it.increment(error)) {
    names.insert(it->path().filename().string());
  }
  return names;
}

// One root on the disk, its daemon, and the callers that know what must be in it.
class CutRoot {
 public:
  // `folder` is on another disk, whose power stays on; the root is `root`.
  CutRoot(const Arguments& arguments, const ForgetfulDisk& disk, std::string folder,
          std::string root, uint64_t seed)
      : arguments_(arguments),
        disk_(disk),
        folder_(std::move(folder)),
        root_(std::move(root)),
        overlay_(arguments.server.ends_with("overlayfs")) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < kCallers; ++i) {
      callers_.emplace_back("c" + std::to_string(i) + "/", random());
    }
  }

  // Without a daemon, as the cut left it: the store is whole and every record has its directory. A
  // root whose making was cut has nothing yet.
  bool CheckRecords() {
    const std::string marker = ReadText(root_ + "/strata-root");
    if (marker.empty()) {
      return marked_ ? Fail("the root has lost its marker") : true;
    }
    marked_ = true;
    const nlohmann::json fields =
        nlohmann::json::parse(marker, nullptr, /*allow_exceptions=*/false);
    if (!fields.is_object()) {
      return Fail("the marker is damaged: " + marker);
    }
    const auto store = OpenLmdbMetaStore({.directory = root_ + "/metadata",
                                          .kind = fields.value("kind", ""),
                                          .uuid = fields.value("uuid", "")});
    const auto ids =
        store.ok() ? (*store)->Ids() : StatusOr<std::vector<SnapshotId>>(store.status());
    if (!ids.ok()) {
      return Fail(ids.status().ToString());
    }
    for (const SnapshotId id : *ids) {
      if (const std::string path = PathOf(id);
          !std::filesystem::is_directory(overlay_ ? path + "/fs" : path)) {
        return Fail("a record has lost " + path);
      }
    }
    return true;
  }

  bool Launch() {
    auto server = ServerProcess::Start(
        {.program = arguments_.server,
         .root = root_,
         .socket = folder_ + "/s",
         .log = folder_ + "/log",
         .extra_arguments = {"--log-level", "warn", "--anchor-dir", folder_ + "/anchors"},
         .environment = {}});
    if (!server.ok()) {
      return Fail(server.status().ToString());
    }
    server_ = std::make_unique<ServerProcess>(*std::move(server));
    return true;
  }

  bool Start() {
    if (!Launch()) {
      return false;
    }
    if (const Status status = server_->WaitServing(); !status.ok()) {
      return Fail(status.ToString());
    }
    marked_ = true;
    auto channel = Dial(folder_ + "/s", {});
    if (!channel.ok()) {
      return Fail(channel.status().ToString());
    }
    proxy_ = NewProxySnapshotter(*channel, {.call_timeout = kCallLimit});
    return true;
  }

  // All callers mutate until the disk is off. `cut` turns it off.
  void Run(const std::function<void()>& cut) {
    UntilCut snapshotter(*proxy_, disk_);
    std::vector<std::thread> threads;
    for (CrashCaller& caller : callers_) {
      threads.emplace_back([&snapshotter, &caller] {
        while (caller.Step(snapshotter)) {
        }
      });
    }
    cut();
    Kill();
    for (std::thread& thread : threads) {
      thread.join();
    }
    proxy_.reset();
  }

  void Kill() {
    if (server_ != nullptr) {
      server_->Kill();
    }
  }

  // With a fresh daemon running: everything the callers know, and nothing else.
  bool Check() {
    for (CrashCaller& caller : callers_) {
      std::vector<SnapshotInfo> rows;
      if (!ListAll(caller.prefix(), &rows)) {
        return false;
      }
      if (const std::string problem = caller.Settle(*proxy_, rows); !problem.empty()) {
        return Fail(problem);
      }
      if (!caller.errors().empty()) {
        return Fail("a call failed while the power was on: " + caller.errors().front());
      }
      for (const uint64_t id : caller.TakeNewIds()) {
        if (!ids_.insert(id).second) {
          return Fail("number " + std::to_string(id) + " was handed out twice");
        }
      }
    }
    return CheckDirectories();
  }

  [[nodiscard]] uint64_t answered() const {
    uint64_t sum = 0;
    for (const CrashCaller& caller : callers_) {
      sum += caller.answered();
    }
    return sum;
  }

 private:
  bool Fail(const std::string& problem) {
    (void)std::fprintf(stderr, "power-cut: %s\nlog of the server:\n%s", problem.c_str(),
                       ReadText(folder_ + "/log").c_str());
    return false;
  }

  [[nodiscard]] std::string PathOf(uint64_t id) const {
    return root_ + "/snapshots/" + std::to_string(id);
  }

  bool ListAll(const std::string& prefix, std::vector<SnapshotInfo>* rows) {
    CallContext call;
    auto cursor = proxy_->List(call, {"name~=\"^" + prefix + "\""});
    if (!cursor.ok()) {
      return Fail("list: " + cursor.status().ToString());
    }
    while (true) {
      auto page = (*cursor)->Next();
      if (!page.ok()) {
        return Fail("list: " + page.status().ToString());
      }
      if (page->empty()) {
        return true;
      }
      rows->insert(rows->end(), page->begin(), page->end());
    }
  }

  // Once the sweep has ended snapshots/ holds one whole directory a record, and trash/ nothing.
  bool CheckDirectories() {
    size_t expected = 0;
    for (const CrashCaller& caller : callers_) {
      expected += caller.state().size();
      for (const auto& [name, snapshot] : caller.state()) {
        const std::string path = PathOf(snapshot.id);
        if (snapshot.id != 0 && !std::filesystem::is_directory(overlay_ ? path + "/work" : path)) {
          return Fail("snapshot " + name + " has lost " + path);
        }
      }
    }
    const auto deadline = std::chrono::steady_clock::now() + kSweepLimit;
    while (true) {
      const std::set<std::string> found = NamesIn(root_ + "/snapshots");
      const size_t trash = NamesIn(root_ + "/trash").size();
      if (found.size() == expected && trash == 0) {
        return std::all_of(found.begin(), found.end(), [this](const std::string& name) {
          const std::string path = root_ + "/snapshots/" + name + (overlay_ ? "/fs" : "");
          return std::filesystem::is_directory(path) || Fail("no directory " + path);
        });
      }
      if (std::chrono::steady_clock::now() > deadline) {
        return Fail(std::to_string(found.size()) + " directories and " + std::to_string(trash) +
                    " in trash, expected " + std::to_string(expected) + " and 0");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  const Arguments& arguments_;
  const ForgetfulDisk& disk_;
  const std::string folder_;
  const std::string root_;
  const bool overlay_;
  bool marked_ = false;  // the root has been seen whole
  std::vector<CrashCaller> callers_;
  std::set<uint64_t> ids_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Snapshotter> proxy_;
};

struct Totals {
  int rounds = 0;
  int starts = 0;  // cut while the daemon started
  uint64_t answered = 0;
  CutReport blocks;
};

// A disk, and the cuts that it lives through.
class Bench {
 public:
  enum class Outcome { kWhole, kLoss, kError, kMissing };

  Bench(const Arguments& arguments, const TempDir& dir, ForgetfulDisk& disk)
      : arguments_(arguments), dir_(dir), disk_(disk), random_(arguments.seed) {}

  // `rounds` cuts of a new disk, and the check after the last.
  Outcome RunDisk(int rounds, int number) {
    const std::string folder = dir_.Join("life-" + std::to_string(number));
    std::error_code error;
    std::filesystem::create_directory(folder, error);  // shows when the log cannot be made
    if (const Status status = MakeDisk(dir_.Join("image"), kDiskBytes, arguments_.fs);
        !status.ok()) {
      return Error(status);
    }
    CutRoot root(arguments_, disk_, folder, dir_.Join("mnt/root"), random_());
    Outcome outcome = Outcome::kWhole;
    for (int round = 0; round <= rounds && outcome == Outcome::kWhole; ++round) {
      outcome = RunRound(root, /*last=*/round == rounds);
    }
    totals_.answered += root.answered();
    return outcome;
  }

  [[nodiscard]] const Totals& totals() const { return totals_; }

 private:
  // The disk comes back from the cut before, and is cut again; the last time only checked.
  Outcome RunRound(CutRoot& root, bool last) {
    if (const Status status = disk_.PowerOn(); !status.ok()) {
      return Error(status);
    }
    const bool direct = random_() % 2 == 0;
    const auto mount = DiskMount::Create(disk_.path(), arguments_.fs, dir_.Join("mnt"), direct);
    if (!mount.ok()) {
      return Error(mount.status());
    }
    const Outcome outcome = UseRoot(root, last);
    root.Kill();  // before its disk is unmounted
    return outcome;
  }

  Outcome UseRoot(CutRoot& root, bool last) {
    if (!root.CheckRecords()) {
      return Outcome::kLoss;
    }
    // A lying disk is to lose mutations, not the root.
    const bool at_start = !last && !arguments_.lie && totals_.rounds % 4 == cut_start_of_;
    if (at_start) {
      if (!root.Launch()) {
        return Outcome::kError;
      }
      Cut(kMostStartUs, kMostStartWrites);
      ++totals_.starts;
    } else {
      if (!root.Start() || !root.Check()) {
        return Outcome::kLoss;
      }
      if (last) {
        return Outcome::kWhole;
      }
      root.Run([this] { Cut(kMostLoadUs, kMostLoadWrites); });
    }
    ++totals_.rounds;
    return cut_.ok() ? Outcome::kWhole : Error(cut_);
  }

  // At a random moment before `most_us`, or, since writes come in bursts that are flushed at once,
  // after a random write below `most_writes`.
  void Cut(int64_t most_us, uint64_t most_writes) {
    auto moment = std::chrono::steady_clock::now();
    if (random_() % 3 == 0) {
      moment += std::chrono::microseconds(random_() % static_cast<uint64_t>(most_us));
    } else {
      moment += std::chrono::microseconds(most_us);
      cut_ = disk_.GoOffAfter(1 + random_() % most_writes);
    }
    while (!disk_.off() && std::chrono::steady_clock::now() < moment) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    const StatusOr<CutReport> report = disk_.Cut(random_());
    cut_.Update(report.status());
    if (report.ok()) {
      totals_.blocks.volatile_blocks += report->volatile_blocks;
      totals_.blocks.dropped_blocks += report->dropped_blocks;
    }
  }

  static Outcome Error(const Status& status) {
    (void)std::fprintf(stderr, "power-cut: %s\n", status.ToString().c_str());
    return status.code() == StatusCode::kNotFound ? Outcome::kMissing : Outcome::kError;
  }

  static constexpr int64_t kMostStartUs = 100'000;
  static constexpr uint64_t kMostStartWrites = 30;
  static constexpr int64_t kMostLoadUs = 600'000;
  static constexpr uint64_t kMostLoadWrites = 1000;

  const Arguments& arguments_;
  const TempDir& dir_;
  ForgetfulDisk& disk_;
  std::mt19937_64 random_;
  const int cut_start_of_ = static_cast<int>(random_() % 4);  // of four rounds
  Status cut_;
  Totals totals_;
};

int Run(const Arguments& arguments) {
  if (::geteuid() != 0) {
    (void)std::fprintf(stderr, "power-cut: skipped, needs root\n");
    return kSkipped;
  }
  TempDir dir;
  std::error_code error;
  std::filesystem::create_directory(dir.Join("disk"), error);  // shows below
  std::filesystem::create_directory(dir.Join("mnt"), error);
  // Whatever happens to this process, its mounts go with it.
  Status status = EnterPrivateMountNamespace();
  if (status.ok()) {
    status = MakeDisk(dir.Join("image"), kDiskBytes, arguments.fs);
  }
  StatusOr<std::unique_ptr<ForgetfulDisk>> disk =
      status.ok()
          ? ForgetfulDisk::Create(
                {.image = dir.Join("image"), .mount_point = dir.Join("disk"), .lie = arguments.lie})
          : StatusOr<std::unique_ptr<ForgetfulDisk>>(status);
  if (!disk.ok()) {
    (void)std::fprintf(stderr, "power-cut: %s\n", disk.status().ToString().c_str());
    return disk.status().code() == StatusCode::kNotFound ? kSkipped : 1;
  }
  Bench bench(arguments, dir, **disk);
  auto outcome = Bench::Outcome::kWhole;
  for (int number = 0;
       bench.totals().rounds < arguments.rounds && outcome == Bench::Outcome::kWhole; ++number) {
    outcome =
        bench.RunDisk(std::min(kRoundsPerDisk, arguments.rounds - bench.totals().rounds), number);
  }
  const Totals& totals = bench.totals();
  const bool lost = outcome == Bench::Outcome::kLoss;
  (void)std::printf(
      "%s%s: %d cuts (%d of a start), %llu answered mutations, %llu flushes, %llu blocks not "
      "flushed, %llu of them dropped: %s\n",
      arguments.fs.c_str(), arguments.lie ? ", flushes ignored" : "", totals.rounds, totals.starts,
      static_cast<unsigned long long>(totals.answered),
      static_cast<unsigned long long>((*disk)->flushes()),
      static_cast<unsigned long long>(totals.blocks.volatile_blocks),
      static_cast<unsigned long long>(totals.blocks.dropped_blocks),
      lost                                ? "LOSS"
      : outcome == Bench::Outcome::kWhole ? "all there"
                                          : "cannot run");
  if (outcome == Bench::Outcome::kMissing) {
    return kSkipped;
  }
  if (lost || outcome == Bench::Outcome::kError) {
    (void)std::fprintf(stderr, "power-cut: seed %llu\n",
                       static_cast<unsigned long long>(arguments.seed));
  }
  return outcome == (arguments.lie ? Bench::Outcome::kLoss : Bench::Outcome::kWhole) ? 0 : 1;
}

}  // namespace
}  // namespace strata::testing

int main(int argc, char** argv) {
  strata::testing::Arguments arguments;
  CLI::App app("cuts the power of the disk under a daemon and checks its root");
  app.add_option("--server", arguments.server)->required();
  app.add_option("--fs", arguments.fs)->check(CLI::IsMember({"ext4", "xfs"}));
  app.add_option("--rounds", arguments.rounds);
  app.add_option("--seed", arguments.seed);
  app.add_flag("--lie", arguments.lie);
  CLI11_PARSE(app, argc, argv);
  // The long form of the same test (./dev crash N).
  if (const char* kills = std::getenv("STRATA_CRASH_KILLS"); kills != nullptr && !arguments.lie) {
    arguments.rounds = std::atoi(kills);
  }
  return strata::testing::Run(arguments);
}
