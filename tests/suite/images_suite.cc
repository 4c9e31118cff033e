// SPDX-License-Identifier: Apache-2.0
//
// Layers with files in them, mounted for real: what is changed in one layer is what the next sees
// (snapshots-contract 2.2). Every change is made to a flat directory as well, and compared.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "snapshotters/os/overlay_probe.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

TEST_P(SnapshotterSuite, LayersStackUp) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("base", "", [](const std::string& root) {
    WriteFile(root + "/foo", "foo\n", 0777);
    MakeDirs(root + "/a/b/c");
    WriteFile(root + "/a/b/file", "below");
  });
  EXPECT_THAT(sn().Stat(call_, "base-tmp"), StatusIs(StatusCode::kNotFound));
  ExpectSameAsFlat("base");
  AddLayer("next", "base", [](const std::string& root) {
    WriteFile(root + "/bar", "bar\n", 0777);
    WriteFile(root + "/foo", "foo, again\n", 0777);
    RemoveAll(root + "/a/b");
  });
  ExpectSameAsFlat("next");
  EXPECT_EQ(Stat("next").parent, "base");
  EXPECT_THAT(sn().Remove(call_, "base"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("remove")));
  Remove("next");
  Remove("base");
}

TEST_P(SnapshotterSuite, AllKindsOfFilesSurviveALayer) {
  STRATA_SUITE_NEEDS_ROOT();
  const Change files = [](const std::string& root) {
    WriteFile(root + "/plain", std::string(100'000, 'x'), 0640);
    WriteFile(root + "/setuid", "s", 04755);
    HardLink(root + "/plain", root + "/link");
    MakeDirs(root + "/sticky", 01777);
    MakeDirs(root + "/setgid", 02755);
    ChangeOwner(root + "/setgid", 12, 34);
    EXPECT_EQ(::symlink("/no/where", (root + "/symlink").c_str()), 0);
    ChangeOwner(root + "/symlink", 5, 6);
    EXPECT_EQ(::mkfifo((root + "/fifo").c_str(), 0600), 0);
    if (!RunningInUserNamespace()) {  // which may make no devices
      EXPECT_EQ(::mknod((root + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
    }
    EXPECT_EQ(::truncate((root + "/link").c_str(), 10'000'000), 0);  // a hole at its end
  };
  AddLayer("files", "", files);
  AddLayer("child", "files", [](const std::string& root) { WriteFile(root + "/more", "m"); });
  ExpectSameAsFlat("child");
}

TEST_P(SnapshotterSuite, CommitWhileMountedWorks) {
  STRATA_SUITE_NEEDS_ROOT();
  ScopedMount mount = MountThem(Prepare("a"));
  WriteFile(mount.target() + "/foo", "foo");
  Commit("c", "a");
  EXPECT_EQ(Stat("c").kind, Kind::kCommitted);
  ASSERT_THAT(mount.Unmount(), IsOk());
  ScopedMount view = MountThem(View("v", "c"));
  EXPECT_EQ(ReadFile(view.target() + "/foo"), "foo");
  EXPECT_THAT(view.Unmount(), IsOk());
}

TEST_P(SnapshotterSuite, FilesOfEqualSizeAndTimeAreReplaced) {
  STRATA_SUITE_NEEDS_ROOT();
  for (int run = 0; run < 5; ++run) {
    const std::string prefix = "run" + std::to_string(run) + "-";
    const auto rewrite = [](const std::string& text) {
      return [text](const std::string& root) {
        MakeDirs(root + "/etc");
        for (const std::string name : {"/etc/hosts", "/etc/resolv.conf", "/etc/profile"}) {
          WriteFile(root + name, text);
        }
      };
    };
    AddLayer(prefix + "1", "", rewrite("first " + std::to_string(run)));
    AddLayer(prefix + "2", prefix + "1", rewrite("other " + std::to_string(run)));
    ExpectSameAsFlat(prefix + "2");
  }
}

TEST_P(SnapshotterSuite, DirectoryMadeAgainHidesTheOldOne) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("1", "", [](const std::string& root) {
    MakeDirs(root + "/lib");
    WriteFile(root + "/lib/hidden", "h");
  });
  AddLayer("2", "1", [](const std::string& root) {
    RemoveAll(root + "/lib");
    MakeDirs(root + "/lib");
    WriteFile(root + "/lib/not-hidden", "n");
  });
  AddLayer("3", "2", [](const std::string& root) { WriteFile(root + "/lib/newer", "n"); });
  ExpectSameAsFlat("3");
}

TEST_P(SnapshotterSuite, ChownReachesTheNextLayer) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("1", "", [](const std::string& root) {
    MakeDirs(root + "/opt/a/b");
    WriteFile(root + "/opt/a/file", "f");
  });
  AddLayer("2", "1", [](const std::string& root) {
    ChangeOwner(root + "/opt", 1, 1);
    ChangeOwner(root + "/opt/a", 1, 1);
    ChangeOwner(root + "/opt/a/b", 1, 2);
    ChangeOwner(root + "/opt/a/file", 3, 4);
  });
  ExpectSameAsFlat("2");
}

TEST_P(SnapshotterSuite, ModesAndOwnersOfDirectoriesAreKept) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("1", "", [](const std::string& root) {
    MakeDirs(root + "/dir1");
    MakeDirs(root + "/dir2");
    MakeDirs(root + "/dir3");
    MakeDirs(root + "/dir4");
    WriteFile(root + "/dir4/f", "f");
    MakeDirs(root + "/dir5");
    WriteFile(root + "/dir5/f", "f");
  });
  AddLayer("2", "1", [](const std::string& root) {
    MakeDirs(root + "/dir1/d", 0700);
    MakeDirs(root + "/dir2/d", 0700);
    ChangeOwner(root + "/dir1", 1, 1);
    RemoveAll(root + "/dir3");
    MakeDirs(root + "/dir3", 0700);
    RemoveAll(root + "/dir4");
    MakeDirs(root + "/dir4", 0700);
    ChangeOwner(root + "/dir4", 1, 1);
    ChangeOwner(root + "/dir5/f", 1, 1);
  });
  AddLayer("3", "2", [](const std::string& root) {
    RemoveAll(root + "/dir1");
    MakeDirs(root + "/dir1", 0700);
    RemoveAll(root + "/dir2");
    ChangeOwner(root + "/dir3", 1, 1);
    ChangeOwner(root + "/dir5", 1, 1);
  });
  ExpectSameAsFlat("3");
}

TEST_P(SnapshotterSuite, DeletedFilesStayDeletedUnderAnEmptyLayer) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("1", "", [](const std::string& root) {
    WriteFile(root + "/foo", "foo");
    WriteFile(root + "/bar", "bar");
  });
  AddLayer("2", "1", [](const std::string& root) { RemoveAll(root + "/foo"); });
  AddLayer("3", "2", [](const std::string& /*root*/) {});
  ExpectSameAsFlat("3");
}

TEST_P(SnapshotterSuite, FileOfALowerLayerCanBeLinkedElsewhere) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("1", "", [](const std::string& root) {
    MakeDirs(root + "/dir1");
    MakeDirs(root + "/dir2");
    WriteFile(root + "/dir1/f1", "f1");
    WriteFile(root + "/dir2/f2", "f2");
  });
  AddLayer("2", "1", [](const std::string& root) {
    RemoveAll(root + "/dir1");
    MakeDirs(root + "/dir3");
    HardLink(root + "/dir2/f2", root + "/dir3/f2");
    RemoveAll(root + "/dir2/f2");
  });
  ExpectSameAsFlat("2");
}

TEST_P(SnapshotterSuite, FilesOfALowerLayerCanBeRenamed) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("1", "", [](const std::string& root) {
    WriteFile(root + "/foo1", "foo1");
    WriteFile(root + "/foo2", "foo2");
    WriteFile(root + "/foo3", "foo3");
    MakeDirs(root + "/dir1/deep");
    WriteFile(root + "/dir1/deep/f", "f");
  });
  AddLayer("2", "1", [this](const std::string& root) {
    Rename(root + "/foo1", root + "/foo2");  // over an existing one
    Rename(root + "/foo3", root + "/foo4");
    if (!overlay()) {  // overlay has no redirect_dir by default: EXDEV, and callers then copy
      Rename(root + "/dir1", root + "/dir2");
    }
  });
  ExpectSameAsFlat("2");
}

TEST_P(SnapshotterSuite, ViewCannotBeWritten) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("p");
  AddLayer("c", "p");
  for (const std::string parent : {"", "p", "c"}) {
    ScopedMount mount = MountThem(View("v" + parent, parent));
    const std::string file = mount.target() + "/testfile";
    EXPECT_EQ(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644), -1) << parent;
    EXPECT_EQ(errno, EROFS) << parent;
    EXPECT_THAT(mount.Unmount(), IsOk());
  }
}

TEST_P(SnapshotterSuite, MountedRootIs0755) {
  STRATA_SUITE_NEEDS_ROOT();
  ScopedMount mount = MountThem(Prepare("a"));
  struct stat st {};
  ASSERT_EQ(::stat(mount.target().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777U, 0755U);
  EXPECT_THAT(mount.Unmount(), IsOk());
}

// Under a root whose path is so long that those of the layers fill several pages.
TEST_P(SnapshotterSuite, OneHundredAndTwentyEightLayersCanBeMounted) {
  STRATA_SUITE_NEEDS_ROOT();
  constexpr size_t kRootBytes = 100;
  ASSERT_LT(root_.size(), kRootBytes);
  instance_.reset();
  instance_ = GetParam().make(root_ + std::string(kRootBytes - root_.size(), 'r'));
  ASSERT_NE(instance_, nullptr);
  std::string parent;
  for (int i = 1; i <= 128; ++i) {
    const std::string number = std::to_string(i);
    const std::string name = "layer-" + number;
    AddLayer(name, parent, [&](const std::string& root) {
      WriteFile(root + "/file-" + number, number);
      WriteFile(root + "/bottom", number);  // in every layer
      MakeDirs(root + "/dir");
      WriteFile(root + "/dir/" + number, number);
      if (i > 1) {
        RemoveAll(root + "/dir/" + std::to_string(i - 1));
      }
    });
    parent = name;
  }
  ExpectSameAsFlat(parent);
}

// The daemon may go and come back while containers run on its mounts.
TEST_P(SnapshotterSuite, MountsLiveThroughARestart) {
  STRATA_SUITE_NEEDS_ROOT();
  AddLayer("p", "", [](const std::string& root) { WriteFile(root + "/lower", "l"); });
  ScopedMount mount = MountThem(Prepare("a", "p"));
  ScopedMount view = MountThem(View("v", "p"));
  WriteFile(mount.target() + "/before", "b");
  Restart();
  EXPECT_EQ(ReadFile(mount.target() + "/lower"), "l");
  EXPECT_EQ(ReadFile(view.target() + "/lower"), "l");
  WriteFile(mount.target() + "/after", "a");
  EXPECT_THAT(mount.Unmount(), IsOk());
  EXPECT_THAT(view.Unmount(), IsOk());
  Commit("c", "a");
  ScopedMount result = MountThem(View("w", "c"));
  EXPECT_EQ(ReadFile(result.target() + "/before"), "b");
  EXPECT_EQ(ReadFile(result.target() + "/after"), "a");
  EXPECT_THAT(result.Unmount(), IsOk());
}

}  // namespace
}  // namespace strata::testing
