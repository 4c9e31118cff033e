// SPDX-License-Identifier: Apache-2.0
//
// strata-power-cut: cuts the power of the disk under a real daemon again and again and checks what
// its root holds afterwards (CrashRoot).
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
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "snapshotters/core/lmdb_meta_store.h"
#include "tests/crash/crash_root.h"
#include "tests/power_cut/disk_mount.h"
#include "tests/power_cut/forgetful_disk.h"
#include "tests/support/loop_mount.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

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

// One root on the disk.
class CutRoot {
 public:
  // `folder` is on another disk, whose power stays on; the root is `root`.
  CutRoot(const Arguments& arguments, const ForgetfulDisk& disk, const std::string& folder,
          const std::string& root, uint64_t seed)
      : disk_(disk),
        path_(root),
        root_({.test = "power-cut",
               .server = arguments.server,
               .root = root,
               .folder = folder,
               .extra_arguments = {"--anchor-dir", folder + "/anchors"},
               .callers = kCallers,
               .seed = seed}) {}

  // Without a daemon, as the cut left it: the store is whole and every record has its directory. A
  // root whose making was cut has nothing yet.
  bool CheckRecords() {
    const std::string marker = ReadText(path_ + "/strata-root");
    if (marker.empty()) {
      return marked_ ? root_.Fail("the root has lost its marker") : true;
    }
    marked_ = true;
    const nlohmann::json fields =
        nlohmann::json::parse(marker, nullptr, /*allow_exceptions=*/false);
    if (!fields.is_object()) {
      return root_.Fail("the marker is damaged: " + marker);
    }
    const auto store = OpenLmdbMetaStore({.directory = path_ + "/metadata",
                                          .kind = fields.value("kind", ""),
                                          .uuid = fields.value("uuid", "")});
    const auto ids =
        store.ok() ? (*store)->Ids() : StatusOr<std::vector<SnapshotId>>(store.status());
    if (!ids.ok()) {
      return root_.Fail(ids.status().ToString());
    }
    for (const SnapshotId id : *ids) {
      if (const std::string path = root_.PathOf(id, "fs"); !std::filesystem::is_directory(path)) {
        return root_.Fail("a record has lost " + path);
      }
    }
    return true;
  }

  bool Launch() { return root_.Launch({}); }

  bool Start() {
    if (!root_.Start({})) {
      return root_.Ended() ? root_.Fail("the daemon does not start") : false;
    }
    marked_ = true;
    return true;
  }

  // All callers mutate until the disk is off. `cut` turns it off.
  void Run(const std::function<void()>& cut) {
    UntilCut snapshotter(root_.snapshotter(), disk_);
    root_.RunCallers(snapshotter, cut);
  }

  void Kill() { root_.Kill(); }
  bool Check() { return root_.Check(); }
  [[nodiscard]] uint64_t answered() const { return root_.answered(); }

 private:
  const ForgetfulDisk& disk_;
  const std::string path_;
  CrashRoot root_;
  bool marked_ = false;  // the root has been seen whole
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

int main(int argc, char** argv) try {
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
} catch (const std::exception& error) {  // of CLI11
  (void)std::fprintf(stderr, "power-cut: %s\n", error.what());
  return 1;
}
