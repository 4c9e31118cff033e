// SPDX-License-Identifier: Apache-2.0
//
// What is durable afterwards is shown by tests/power_cut/commit_cut_test; this is about the rest.
#include "snapshotters/os/tree_sync.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "snapshotters/base/unique_fd.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

constexpr int kDeep = 100;  // more than are held open

class TreeSyncTest : public ::testing::Test {
 protected:
  Status Sync(SyncAtCommit how) {
    const UniqueFd top(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return SyncTree(call_, top.get(), how);
  }

  CallContext call_;
  const TempDir dir_;
};

TEST_F(TreeSyncTest, TakesEveryKindOfEntry) {
  std::ofstream(dir_.Join("file")) << "x";
  std::ofstream(dir_.Join("unreadable")) << "x";
  ASSERT_EQ(::chmod(dir_.Join("unreadable").c_str(), ::geteuid() == 0 ? 0 : 0400), 0);
  ASSERT_EQ(::mkfifo(dir_.Join("fifo").c_str(), 0600), 0);  // opened, it would block
  std::filesystem::create_symlink("nowhere", dir_.Join("dangling"));
  std::filesystem::create_symlink("/", dir_.Join("outside"));
  std::filesystem::create_directory(dir_.Join("empty"));
  for (const SyncAtCommit how :
       {SyncAtCommit::kNone, SyncAtCommit::kLayer, SyncAtCommit::kFilesystem}) {
    EXPECT_THAT(Sync(how), IsOk());
  }
}

TEST_F(TreeSyncTest, GoesAsDeepAsTheTree) {
  std::string path = dir_.path();
  for (int i = 0; i < kDeep; ++i) {
    path += "/d";
    std::filesystem::create_directory(path);
    std::ofstream(path + "/file") << "x";
  }
  EXPECT_THAT(Sync(SyncAtCommit::kLayer), IsOk());
}

TEST_F(TreeSyncTest, EndsWhenTheCallerHasGone) {
  std::ofstream(dir_.Join("file")) << "x";
  call_.Cancel();
  EXPECT_THAT(Sync(SyncAtCommit::kLayer), StatusIs(StatusCode::kCancelled));
}

}  // namespace
}  // namespace strata::testing
