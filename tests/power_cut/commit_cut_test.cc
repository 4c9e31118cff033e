// SPDX-License-Identifier: Apache-2.0
//
// What is left of a layer when the power goes off right after its Commit was answered, by
// sync_at_commit. A process a test: the disk wants to be made before there are threads.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "snapshotters/overlayfs/overlayfs_snapshotter.h"
#include "tests/power_cut/disk_mount.h"
#include "tests/power_cut/forgetful_disk.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr int64_t kDiskBytes = int64_t{512} * 1024 * 1024;  // mkfs.xfs wants more than 300 MiB
constexpr int kFolders = 5;
constexpr int kFiles = 40;
constexpr size_t kFileBytes = 10'000;

std::string PathOf(const std::string& top, int folder, int file) {
  return top + "/deep/" + std::to_string(folder) + "/below/" + std::to_string(file);
}

std::string ContentOf(int folder, int file) {
  return std::string(kFileBytes, static_cast<char>('a' + (folder + file) % 26));
}

// As a layer is unpacked, with nothing synced.
void WriteLayer(const std::string& top) {
  for (int folder = 0; folder < kFolders; ++folder) {
    std::filesystem::create_directories(top + "/deep/" + std::to_string(folder) + "/below");
    for (int file = 0; file < kFiles; ++file) {
      std::ofstream(PathOf(top, folder, file)) << ContentOf(folder, file);
    }
  }
  std::filesystem::create_symlink("below", top + "/deep/link");
}

// Files that are not what they were.
int LostFiles(const std::string& top) {
  int lost = 0;
  for (int folder = 0; folder < kFolders; ++folder) {
    for (int file = 0; file < kFiles; ++file) {
      std::ifstream in(PathOf(top, folder, file));
      const std::string found((std::istreambuf_iterator<char>(in)), {});
      lost += found == ContentOf(folder, file) ? 0 : 1;
    }
  }
  std::error_code error;
  return lost + (std::filesystem::read_symlink(top + "/deep/link", error) == "below" ? 0 : 1);
}

class CommitCutTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "SKIPPED: needs root to mount";
    }
    for (const char* name : {"disk", "mnt"}) {
      ASSERT_EQ(::mkdir(dir_.Join(name).c_str(), 0700), 0);
    }
    ASSERT_THAT(EnterPrivateMountNamespace(), IsOk());
  }

  // How many files are lost by a cut after a Commit that has synced that.
  void CutAfterCommit(const std::string& fs, SyncAtCommit sync, int* lost) {
    ASSERT_THAT(MakeDisk(dir_.Join("image"), kDiskBytes, fs), IsOk());
    STRATA_ASSERT_OK_AND_ASSIGN(
        const auto disk,
        ForgetfulDisk::Create({.image = dir_.Join("image"), .mount_point = dir_.Join("disk")}));
    std::string files;
    {
      ASSERT_THAT(disk->PowerOn(), IsOk());
      STRATA_ASSERT_OK_AND_ASSIGN(
          const auto mount,
          DiskMount::Create(disk->path(), fs, dir_.Join("mnt"), /*direct=*/false));
      STRATA_ASSERT_OK_AND_ASSIGN(
          const auto snapshotter,
          OverlayfsSnapshotter::Create({.root = dir_.Join("mnt/root"), .sync_at_commit = sync}));
      CallContext call;
      STRATA_ASSERT_OK_AND_ASSIGN(const auto mounts, snapshotter->Prepare(call, "key", "", {}));
      files = mounts.at(0).source;
      WriteLayer(files);
      ASSERT_THAT(snapshotter->Commit(call, "name", "key", {}), IsOk());
      STRATA_ASSERT_OK_AND_ASSIGN(const CutReport report, disk->Cut(/*seed=*/1));
      (void)report;
    }
    ASSERT_THAT(disk->PowerOn(), IsOk());
    STRATA_ASSERT_OK_AND_ASSIGN(
        const auto mount, DiskMount::Create(disk->path(), fs, dir_.Join("mnt"), /*direct=*/false));
    STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter,
                                OverlayfsSnapshotter::Create({.root = dir_.Join("mnt/root")}));
    CallContext call;
    EXPECT_THAT(snapshotter->Stat(call, "name"), IsOk());  // it was answered
    *lost = LostFiles(files);
  }

  TempDir dir_;
};

TEST_F(CommitCutTest, LayerIsWholeOnExt4) {
  int lost = -1;
  ASSERT_NO_FATAL_FAILURE(CutAfterCommit("ext4", SyncAtCommit::kLayer, &lost));
  EXPECT_EQ(lost, 0);
}

TEST_F(CommitCutTest, LayerIsWholeOnXfs) {
  int lost = -1;
  ASSERT_NO_FATAL_FAILURE(CutAfterCommit("xfs", SyncAtCommit::kLayer, &lost));
  EXPECT_EQ(lost, 0);
}

TEST_F(CommitCutTest, FilesystemIsWholeOnExt4) {
  int lost = -1;
  ASSERT_NO_FATAL_FAILURE(CutAfterCommit("ext4", SyncAtCommit::kFilesystem, &lost));
  EXPECT_EQ(lost, 0);
}

// Shows that the others can fail.
TEST_F(CommitCutTest, NothingSyncedIsLost) {
  int lost = -1;
  ASSERT_NO_FATAL_FAILURE(CutAfterCommit("ext4", SyncAtCommit::kNone, &lost));
  EXPECT_GT(lost, kFiles);
}

}  // namespace
}  // namespace strata::testing
