// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/tree_copy.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "tests/support/loop_mount.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using strata::testing::IsOk;
using strata::testing::LoopMount;
using strata::testing::StatusIs;
using strata::testing::TempDir;
using ::testing::HasSubstr;

constexpr off_t kMiB = off_t{1} << 20;

UniqueFd OpenDir(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void MakeDir(const std::string& path) {
  ASSERT_EQ(::mkdir(path.c_str(), 0755), 0) << path;
}

void WriteAt(const std::string& path, off_t offset, std::string_view bytes) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_TRUE(fd.valid()) << path;
  ASSERT_EQ(::lseek(fd.get(), offset, SEEK_SET), offset);
  ASSERT_THAT(WriteAll(fd.get(), bytes, path), IsOk());
  ASSERT_EQ(::fsync(fd.get()), 0);  // settles where the holes are
}

Status Copy(const std::string& from, const std::string& to) {
  return CopyTree(CallContext(), OpenDir(from).get(), OpenDir(to).get());
}

std::string XattrsOf(const std::string& path) {
  std::vector<char> list(65536);
  const ssize_t listed = ::llistxattr(path.c_str(), list.data(), list.size());
  std::map<std::string, std::string> found;
  for (ssize_t at = 0; at < listed;) {
    const std::string key = &list[static_cast<size_t>(at)];
    std::vector<char> value(65536);
    const ssize_t size = ::lgetxattr(path.c_str(), key.c_str(), value.data(), value.size());
    found[key] = size < 0 ? "?" : std::string(value.data(), static_cast<size_t>(size));
    at += static_cast<ssize_t>(key.size()) + 1;
  }
  std::string text;
  for (const auto& [key, value] : found) {
    text += " " + key + "=" + value;
  }
  return text;
}

// Bytes and the offsets of data segments.
std::string ContentOf(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOATIME | O_CLOEXEC));
  std::string text = " data";
  for (off_t at = 0;;) {
    const off_t data = ::lseek(fd.get(), at, SEEK_DATA);
    if (data < 0) {
      return text;
    }
    at = ::lseek(fd.get(), data, SEEK_HOLE);
    std::string bytes(static_cast<size_t>(at - data), '\0');
    EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), data),
              static_cast<ssize_t>(bytes.size()));
    text += " " + std::to_string(data) + "-" + std::to_string(at) + ":" +
            std::to_string(std::hash<std::string>{}(bytes));
  }
}

std::string TimeOf(const timespec& time) {
  return std::to_string(time.tv_sec) + "." + std::to_string(time.tv_nsec);
}

std::string Describe(const std::string& path, std::map<ino_t, std::string>& first_links,
                     const std::string& name) {
  struct stat stat {};
  EXPECT_EQ(::lstat(path.c_str(), &stat), 0) << path;
  std::string text = "mode " + std::to_string(stat.st_mode) + " owner " +
                     std::to_string(stat.st_uid) + ":" + std::to_string(stat.st_gid) + " mtime " +
                     TimeOf(stat.st_mtim);
  if (!S_ISDIR(stat.st_mode) && !S_ISLNK(stat.st_mode)) {  // reading those changes their atime
    text += " atime " + TimeOf(stat.st_atim);
  }
  if (!S_ISDIR(stat.st_mode)) {
    text += " links " + std::to_string(stat.st_nlink) + " same as " +
            first_links.try_emplace(stat.st_ino, name).first->second + " size " +
            std::to_string(stat.st_size);
  }
  if (S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode)) {
    text += " device " + std::to_string(major(stat.st_rdev)) + ":" +
            std::to_string(minor(stat.st_rdev));
  } else if (S_ISLNK(stat.st_mode)) {
    text += " to " + std::filesystem::read_symlink(path).string();
  } else if (S_ISREG(stat.st_mode)) {
    text += ContentOf(path);
  }
  return text + XattrsOf(path);
}

using Description = std::map<std::string, std::string>;

Description DescribeTree(const std::string& root) {
  std::vector<std::string> names{""};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    names.push_back(entry.path().string().substr(root.size()));
  }
  std::sort(names.begin(), names.end());
  std::map<ino_t, std::string> first_links;
  Description found;
  for (const std::string& name : names) {
    found[name] = Describe(root + name, first_links, name);
  }
  return found;
}

void SetTimes(const std::string& root) {
  int64_t second = 1'000'000'000;
  std::vector<std::string> paths{root};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    paths.push_back(entry.path().string());
  }
  for (const std::string& path : paths) {
    ++second;
    const timespec times[2] = {{second + 5, 123'456'789}, {second, 987'654'321}};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0) << path;
  }
}

// What anybody may make.
void MakeTree(const std::string& root) {
  MakeDir(root);
  for (const char* name : {"/bin", "/bin/deep", "/empty", "/locked"}) {
    MakeDir(root + name);
  }
  WriteAt(root + "/bin/small", 0, "content");
  WriteAt(root + "/bin/large", 0, std::string(3 * kMiB + 17, 'x'));
  WriteAt(root + "/bin/none", 0, "");
  WriteAt(root + "/sparse", 2 * kMiB, "middle");
  WriteAt(root + "/sparse", 7 * kMiB + 5, "end");
  ASSERT_EQ(::truncate((root + "/sparse").c_str(), 9 * kMiB), 0);
  WriteAt(root + "/hole", 0, "");
  ASSERT_EQ(::truncate((root + "/hole").c_str(), 3 * kMiB), 0);
  ASSERT_EQ(::link((root + "/bin/large").c_str(), (root + "/bin/deep/again").c_str()), 0);
  ASSERT_EQ(::link((root + "/bin/large").c_str(), (root + "/third").c_str()), 0);
  ASSERT_EQ(::symlink("/etc/passwd", (root + "/absolute").c_str()), 0);
  ASSERT_EQ(::symlink(std::string(1000, 'l').c_str(), (root + "/long").c_str()), 0);
  ASSERT_EQ(::symlink("bin", (root + "/directory").c_str()), 0);
  ASSERT_EQ(::link((root + "/directory").c_str(), (root + "/directory-again").c_str()), 0);
  ASSERT_EQ(::mkfifo((root + "/fifo").c_str(), 0640), 0);
  ASSERT_EQ(::mknod((root + "/socket").c_str(), S_IFSOCK | 0755, 0), 0);
  ASSERT_EQ(::mknod((root + "/whiteout").c_str(), S_IFCHR, 0), 0);
  ASSERT_EQ(::chmod((root + "/bin/small").c_str(), 04711), 0);
  ASSERT_EQ(::chmod((root + "/bin/none").c_str(), 0444), 0);
  ASSERT_EQ(::chmod((root + "/empty").c_str(), 01777), 0);
  ASSERT_EQ(::chmod((root + "/bin/deep").c_str(), 02750), 0);
  ASSERT_EQ(::chmod((root + "/locked").c_str(), 0555), 0);
}

// And what only root may. `with_user_xattrs`: the file system has them.
void MakeRootTree(const std::string& root) {
  MakeTree(root);
  // VFS_CAP_REVISION_2 with cap_net_raw, permitted and effective (linux/capability.h).
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};
  const auto set = [&](const char* name, const char* key, std::string_view value) {
    ASSERT_EQ(::lsetxattr((root + name).c_str(), key, value.data(), value.size(), 0), 0)
        << name << " " << key;
  };
  ASSERT_EQ(::mknod((root + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(::mknod((root + "/disk").c_str(), S_IFBLK | 0660, makedev(259, 200'000)), 0);
  for (const char* name : {"/bin/small", "/bin/deep", "/absolute", "/fifo", "/disk", "/empty"}) {
    ASSERT_EQ(::lchown((root + name).c_str(), 1234, 70'000), 0);
  }
  ASSERT_EQ(::chmod((root + "/bin/small").c_str(), 06755), 0);  // chown took it away
  ASSERT_EQ(::chmod((root + "/bin/deep").c_str(), 02750), 0);
  set("/bin/small", "security.capability",
      {reinterpret_cast<const char*>(capability), sizeof(capability)});
  set("/bin/none", "user.note", "read-only");
  set("/bin/large", "user.big", std::string(2000, 'v'));
  set("/bin/large", "user.empty", "");
  set("/empty", "trusted.overlay.opaque", "y");
  set("/absolute", "trusted.note", "of a symlink");
  set("/fifo", "trusted.note", "of a fifo");
  set("/whiteout", "trusted.note", "of a device");
  // A default ACL: user::rwx user:1000:rwx group::r-x mask::rwx other::r-x.
  const unsigned char acl[] = {2, 0,   0,   0,   1,   0,   7,  0, 255, 255, 255, 255, 2,   0,  7,
                               0, 232, 3,   0,   0,   4,   0,  5, 0,   255, 255, 255, 255, 16, 0,
                               7, 0,   255, 255, 255, 255, 32, 0, 5,   0,   255, 255, 255, 255};
  set("", "system.posix_acl_default", {reinterpret_cast<const char*>(acl), sizeof(acl)});
}

TEST(TreeCopyTest, KeepsWhatAnOwnerMayMake) {
  const TempDir dir;
  MakeTree(dir.Join("from"));
  SetTimes(dir.Join("from"));
  MakeDir(dir.Join("to"));
  const Description wanted = DescribeTree(dir.Join("from"));
  ASSERT_THAT(Copy(dir.Join("from"), dir.Join("to")), IsOk());
  EXPECT_EQ(DescribeTree(dir.Join("to")), wanted);
  EXPECT_EQ(DescribeTree(dir.Join("from")), wanted);
}

TEST(TreeCopyTest, LeavesAccessTimesOfTheSourceAlone) {
  const TempDir dir;
  MakeTree(dir.Join("from"));
  SetTimes(dir.Join("from"));
  MakeDir(dir.Join("to"));
  struct stat before {};
  struct stat after {};
  struct stat copied {};
  ASSERT_EQ(::stat(dir.Join("from/bin").c_str(), &before), 0);
  ASSERT_THAT(Copy(dir.Join("from"), dir.Join("to")), IsOk());
  ASSERT_EQ(::stat(dir.Join("from/bin").c_str(), &after), 0);
  ASSERT_EQ(::stat(dir.Join("to/bin").c_str(), &copied), 0);
  EXPECT_EQ(TimeOf(before.st_atim), TimeOf(after.st_atim));
  EXPECT_EQ(TimeOf(before.st_atim), TimeOf(copied.st_atim));
}

TEST(TreeCopyTest, ReachesTheEndOfADeepTree) {
  const TempDir dir;
  MakeDir(dir.Join("from"));
  MakeDir(dir.Join("to"));
  WriteAt(dir.Join("from/first"), 0, "linked");
  constexpr int kLevels = 5000;
  UniqueFd at = OpenDir(dir.Join("from"));
  const UniqueFd from = OpenDir(dir.Join("from"));
  for (int i = 0; i < kLevels; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), "d", 0755), 0);
    for (const char* name : {"a", "z"}) {
      if (i % 50 == 0) {
        ASSERT_EQ(::mkdirat(at.get(), name, 0755), 0);
      }
    }
    at = UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.valid());
  }
  // Two links at the bottom, whose path no single call takes.
  ASSERT_EQ(::mknodat(at.get(), "one", S_IFREG | 0644, 0), 0);
  ASSERT_EQ(::linkat(at.get(), "one", at.get(), "two", 0), 0);
  ASSERT_THAT(CopyTree(CallContext(), from.get(), OpenDir(dir.Join("to")).get()), IsOk());
  at = OpenDir(dir.Join("to"));
  for (int i = 0; i < kLevels; ++i) {
    for (const char* name : {"a", "z"}) {
      ASSERT_EQ(::faccessat(at.get(), name, F_OK, 0) == 0, i % 50 == 0) << i;
    }
    at = UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.valid()) << i;
  }
  struct stat one {};
  struct stat two {};
  ASSERT_EQ(::fstatat(at.get(), "one", &one, 0), 0);
  ASSERT_EQ(::fstatat(at.get(), "two", &two, 0), 0);
  EXPECT_EQ(one.st_ino, two.st_ino);
}

TEST(TreeCopyTest, LinksAcrossDistantDirectories) {
  const TempDir dir;
  MakeDir(dir.Join("from"));
  MakeDir(dir.Join("to"));
  UniqueFd at = OpenDir(dir.Join("from"));
  const UniqueFd top = OpenDir(dir.Join("from"));
  const std::string name(200, 'd');
  for (int i = 0; i < 40; ++i) {  // 8,000 bytes of path
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0755), 0);
    at = UniqueFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  for (const char* side : {"x", "y"}) {
    ASSERT_EQ(::mkdirat(at.get(), side, 0755), 0);
  }
  ASSERT_EQ(::mknodat(at.get(), "x/file", S_IFREG | 0644, 0), 0);
  ASSERT_EQ(::linkat(at.get(), "x/file", at.get(), "y/file", 0), 0);
  ASSERT_THAT(CopyTree(CallContext(), top.get(), OpenDir(dir.Join("to")).get()), IsOk());
  at = OpenDir(dir.Join("to"));
  for (int i = 0; i < 40; ++i) {
    at = UniqueFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at.valid()) << i;
  }
  struct stat stat {};
  ASSERT_EQ(::fstatat(at.get(), "y/file", &stat, 0), 0);
  EXPECT_EQ(stat.st_nlink, 2U);
}

TEST(TreeCopyTest, EndsWhenTheCallerHasGone) {
  const TempDir dir;
  MakeDir(dir.Join("from"));
  MakeDir(dir.Join("to"));
  CallContext call;
  call.Cancel();
  EXPECT_THAT(CopyTree(call, OpenDir(dir.Join("from")).get(), OpenDir(dir.Join("to")).get()),
              StatusIs(StatusCode::kCancelled));
}

TEST(TreeCopyTest, NamesTheEntryThatFailed) {
  const TempDir dir;
  MakeDir(dir.Join("from"));
  MakeDir(dir.Join("from/a"));
  MakeDir(dir.Join("to"));
  MakeDir(dir.Join("to/a"));
  EXPECT_THAT(Copy(dir.Join("from"), dir.Join("to")),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("make directory 'a'")));
}

class TreeCopyMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "NOT TESTED: device nodes, trusted xattrs and mounts need root";
    }
    ASSERT_THAT(strata::testing::EnterPrivateMountNamespace(), IsOk());
  }
};

bool SharesBlocks(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  alignas(fiemap) char space[sizeof(fiemap) + sizeof(fiemap_extent)] = {};
  auto* map = reinterpret_cast<fiemap*>(space);
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_flags = FIEMAP_FLAG_SYNC;
  map->fm_extent_count = 1;
  EXPECT_EQ(::ioctl(fd.get(), FS_IOC_FIEMAP, map), 0) << path;
  const auto* extent = reinterpret_cast<const fiemap_extent*>(space + sizeof(fiemap));
  return map->fm_mapped_extents == 1 && (extent->fe_flags & FIEMAP_EXTENT_SHARED) != 0;
}

struct CopyCase {
  const char* name;
  strata::testing::LoopMountOptions from;
  strata::testing::LoopMountOptions to;  // without a type: the same file system
  bool shares;
};

class TreeCopyFileSystemMountTest : public TreeCopyMountTest,
                                    public ::testing::WithParamInterface<CopyCase> {};

TEST_P(TreeCopyFileSystemMountTest, KeepsEverything) {
  const auto source = LoopMount::Create(GetParam().from);
  if (source.status().code() == StatusCode::kNotFound) {
    GTEST_SKIP() << "NOT TESTED: " << StatusMessage(source.status());
  }
  ASSERT_THAT(source, IsOk());
  std::unique_ptr<LoopMount> other;
  if (!GetParam().to.type.empty()) {
    STRATA_ASSERT_OK_AND_ASSIGN(other, LoopMount::Create(GetParam().to));
  }
  const LoopMount& target = other != nullptr ? *other : **source;
  MakeRootTree((*source)->Join("from"));
  SetTimes((*source)->Join("from"));
  MakeDir(target.Join("to"));
  const Description wanted = DescribeTree((*source)->Join("from"));

  ASSERT_THAT(Copy((*source)->Join("from"), target.Join("to")), IsOk());

  EXPECT_EQ(DescribeTree(target.Join("to")), wanted);
  EXPECT_EQ(SharesBlocks(target.Join("to/bin/large")), GetParam().shares);
}

const strata::testing::LoopMountOptions kExt4{.type = "ext4", .mkfs_options = {"-q"}};
const strata::testing::LoopMountOptions kXfs{.type = "xfs", .mkfs_options = {"-q"}};
const strata::testing::LoopMountOptions kBtrfs{.type = "btrfs", .mkfs_options = {"-q"}};

INSTANTIATE_TEST_SUITE_P(
    FileSystems, TreeCopyFileSystemMountTest,
    ::testing::Values(CopyCase{"Ext4", kExt4, {}, false}, CopyCase{"Xfs", kXfs, {}, true},
                      CopyCase{"XfsWithoutReflink",
                               {.type = "xfs", .mkfs_options = {"-q", "-m", "reflink=0"}},
                               {},
                               false},
                      CopyCase{"Btrfs", kBtrfs, {}, true},
                      CopyCase{"XfsToExt4", kXfs, kExt4, false},
                      CopyCase{"Ext4ToBtrfs", kExt4, kBtrfs, false},
                      CopyCase{"Ext4WithoutTypes",
                               {.type = "ext4", .mkfs_options = {"-q", "-O", "^filetype"}},
                               {},
                               false}),
    [](const auto& test) { return test.param.name; });

TEST_F(TreeCopyMountTest, KeepsEverythingThatTmpfsCanHold) {
  const TempDir dir;
  MakeRootTree(dir.Join("from"));
  SetTimes(dir.Join("from"));
  MakeDir(dir.Join("to"));
  ASSERT_EQ(::mount("tmpfs", dir.Join("to").c_str(), "tmpfs", 0, nullptr), 0);
  const UniqueFd probe(::open(dir.Join("to").c_str(), O_RDONLY | O_CLOEXEC));
  if (::fsetxattr(probe.get(), "user.probe", "", 0, 0) != 0) {
    GTEST_SKIP() << "NOT TESTED: user xattrs on tmpfs need Linux 6.6";
  }
  ASSERT_EQ(::fremovexattr(probe.get(), "user.probe"), 0);
  const Description wanted = DescribeTree(dir.Join("from"));
  ASSERT_THAT(Copy(dir.Join("from"), dir.Join("to")), IsOk());
  EXPECT_EQ(DescribeTree(dir.Join("to")), wanted);
}

TEST_F(TreeCopyMountTest, LeavesOutXattrsThatTheTargetDoesNotHave) {
  const TempDir dir;
  MakeRootTree(dir.Join("from"));
  MakeDir(dir.Join("to"));
  ASSERT_EQ(::mount("ramfs", dir.Join("to").c_str(), "ramfs", 0, nullptr), 0);
  ASSERT_THAT(Copy(dir.Join("from"), dir.Join("to")), IsOk());
  EXPECT_THAT(XattrsOf(dir.Join("from/bin/small")), HasSubstr("security.capability"));
  EXPECT_EQ(XattrsOf(dir.Join("to/bin/small")), "");
  struct stat stat {};
  ASSERT_EQ(::lstat(dir.Join("to/bin/small").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 07777, 06755U);
}

TEST_F(TreeCopyMountTest, DoesNotInheritTheAclOfTheTarget) {
  const TempDir dir;
  MakeRootTree(dir.Join("to"));  // has a default ACL
  for (const auto& entry : std::filesystem::directory_iterator(dir.Join("to"))) {
    std::filesystem::remove_all(entry.path());
  }
  MakeTree(dir.Join("from"));
  ASSERT_THAT(Copy(dir.Join("from"), dir.Join("to")), IsOk());
  EXPECT_EQ(DescribeTree(dir.Join("to")), DescribeTree(dir.Join("from")));
}

TEST_F(TreeCopyMountTest, DoesNotCrossIntoOtherMounts) {
  const TempDir dir;
  for (const char* name : {"from", "from/tmpfs", "from/bind", "outside", "to"}) {
    MakeDir(dir.Join(name));
  }
  WriteAt(dir.Join("outside/file"), 0, "secret");
  WriteAt(dir.Join("from/file"), 0, "");
  ASSERT_EQ(::mount("tmpfs", dir.Join("from/tmpfs").c_str(), "tmpfs", 0, nullptr), 0);
  WriteAt(dir.Join("from/tmpfs/file"), 0, "secret");
  ASSERT_EQ(::mount(dir.Join("outside").c_str(), dir.Join("from/bind").c_str(), nullptr, MS_BIND,
                    nullptr),
            0);
  ASSERT_EQ(::mount(dir.Join("outside/file").c_str(), dir.Join("from/file").c_str(), nullptr,
                    MS_BIND, nullptr),
            0);
  ASSERT_THAT(Copy(dir.Join("from"), dir.Join("to")), IsOk());
  EXPECT_TRUE(std::filesystem::is_empty(dir.Join("to/tmpfs")));
  EXPECT_TRUE(std::filesystem::is_empty(dir.Join("to/bind")));
  EXPECT_EQ(std::filesystem::file_size(dir.Join("to/file")), 0U);
}

}  // namespace
}  // namespace strata
