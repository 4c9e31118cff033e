// SPDX-License-Identifier: Apache-2.0
//
// What is kept and what is given back: usage, restarts, and the space of removed snapshots
// (snapshots-contract 2.3, 3.2).
#include <ftw.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <set>
#include <thread>
#include <utility>

#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

constexpr Usage kEmptyOnExt4 = {.size = 4096, .inodes = 1};

// What du counts; nftw has no context pointer.
thread_local Usage g_du;
thread_local std::set<std::pair<dev_t, ino_t>> g_du_seen;

Usage DiskUsageOf(const std::string& directory) {
  g_du = {};
  g_du_seen.clear();
  const auto count = [](const char* /*path*/, const struct stat* st, int /*type*/,
                        struct FTW* /*ftw*/) {
    if (g_du_seen.emplace(st->st_dev, st->st_ino).second) {
      g_du.size += st->st_blocks * 512;
      ++g_du.inodes;
    }
    return 0;
  };
  EXPECT_EQ(::nftw(directory.c_str(), count, /*nopenfd=*/16, FTW_PHYS), 0) << directory;
  return g_du;
}

bool OnExt4(const std::string& path) {
  struct statfs st {};
  EXPECT_EQ(::statfs(path.c_str(), &st), 0) << path;
  return st.f_type == EXT4_SUPER_MAGIC && st.f_bsize == 4096;
}

// 1 MiB, its hard link, a symlink, a sparse file of 100 MB and a directory.
void FillGolden(const std::string& directory) {
  WriteFile(directory + "/file", std::string(1 << 20, 'x'));
  HardLink(directory + "/file", directory + "/link");
  EXPECT_EQ(::symlink("file", (directory + "/symlink").c_str()), 0);
  WriteFile(directory + "/sparse", "");
  EXPECT_EQ(::truncate((directory + "/sparse").c_str(), 100'000'000), 0);
  MakeDirs(directory + "/subdir");
  ::sync();  // blocks are allocated late
}

TEST_P(SnapshotterSuite, UsageOfAnActiveIsThatOfDu) {
  const std::string directory = OwnDirectory(Prepare("a"));
  EXPECT_EQ(*sn().GetUsage(call_, "a"), DiskUsageOf(directory));
  if (OnExt4(directory)) {
    EXPECT_EQ(*sn().GetUsage(call_, "a"), kEmptyOnExt4);
  }
  // Another one: of what took long to walk (on a busy machine) the last answer holds for a while.
  const std::string filled = OwnDirectory(Prepare("b"));
  FillGolden(filled);
  EXPECT_EQ(*sn().GetUsage(call_, "b"), DiskUsageOf(filled));
  if (OnExt4(filled)) {
    EXPECT_EQ(*sn().GetUsage(call_, "b"), (Usage{.size = 1'056'768, .inodes = 5}));
  }
}

TEST_P(SnapshotterSuite, UsageOfACommittedIsThatOfTheCommit) {
  const std::string directory = OwnDirectory(Prepare("a"));
  FillGolden(directory);
  const Usage usage = DiskUsageOf(directory);
  Commit("c", "a");
  EXPECT_EQ(*sn().GetUsage(call_, "c"), usage);
  WriteFile(directory + "/later", std::string(100'000, 'x'));  // nobody may, but it tells
  EXPECT_EQ(*sn().GetUsage(call_, "c"), usage);
  Restart();
  EXPECT_EQ(*sn().GetUsage(call_, "c"), usage);
}

TEST_P(SnapshotterSuite, UsageOfAChild) {
  const std::string parent = OwnDirectory(Prepare("p-tmp"));
  FillGolden(parent);
  Commit("p", "p-tmp");
  const std::string directory = OwnDirectory(Prepare("a", "p"));
  ::sync();
  EXPECT_EQ(*sn().GetUsage(call_, "a"), DiskUsageOf(directory));
  if (overlay()) {  // native has a whole copy
    EXPECT_EQ(sn().GetUsage(call_, "a")->inodes, 1);
  }
}

TEST_P(SnapshotterSuite, UsageOfAViewIsNothing) {
  FillGolden(OwnDirectory(Prepare("p-tmp")));
  Commit("p", "p-tmp");
  View("v", "p");
  View("v0");
  EXPECT_EQ(*sn().GetUsage(call_, "v"), Usage{});
  EXPECT_EQ(*sn().GetUsage(call_, "v0"), Usage{});
}

TEST_P(SnapshotterSuite, EverythingIsThereAfterARestart) {
  AddLayer("p", "", {{"l", "v"}});
  AddLayer("c", "p");
  const auto active = Prepare("a", "c", {{"m", "w"}});
  const auto view = View("v", "c");
  WriteFile(OwnDirectory(active) + "/file", "content");
  ASSERT_THAT(sn().Update(call_, {.name = "a", .labels = {{"u", "x"}}}, {"labels.u"}), IsOk());
  const auto rows = List();
  for (int i = 0; i < 3; ++i) {
    Restart();
    EXPECT_THAT(List(), UnorderedElementsAreArray(rows));
    EXPECT_EQ(*sn().Mounts(call_, "a"), active);
    EXPECT_EQ(*sn().Mounts(call_, "v"), view);
    EXPECT_EQ(ReadFile(OwnDirectory(active) + "/file"), "content");
  }
  EXPECT_THAT(sn().Remove(call_, "c"), StatusIs(StatusCode::kFailedPrecondition));
  Commit("top", "a");
  Remove("v");
  EXPECT_EQ(Stat("top").parent, "c");
}

TEST_P(SnapshotterSuite, RemovedStaysRemovedAfterARestart) {
  Prepare("a");
  AddLayer("c");
  Remove("a");
  Remove("c");
  Restart();
  EXPECT_THAT(List(), IsEmpty());
  EXPECT_THAT(sn().Stat(call_, "a"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(sn().Cleanup(call_), IsOk());
}

TEST_P(SnapshotterSuite, CleanupGivesBackRemovedDirectoriesAndNoOthers) {
  const std::string kept = OwnDirectory(Prepare("kept"));
  WriteFile(kept + "/file", "content");
  const std::string gone = OwnDirectory(Prepare("gone"));
  MakeDirs(gone + "/a/b/c");
  WriteFile(gone + "/a/file", "content");
  Remove("gone");
  const auto start = std::chrono::steady_clock::now();
  do {
    EXPECT_THAT(sn().Cleanup(call_), IsOk());
    std::this_thread::yield();
  } while (::access(gone.c_str(), F_OK) == 0 &&
           std::chrono::steady_clock::now() - start < kSuiteLimit);
  EXPECT_NE(::access(gone.c_str(), F_OK), 0) << gone;
  EXPECT_EQ(ReadFile(kept + "/file"), "content");
}

}  // namespace
}  // namespace strata::testing
