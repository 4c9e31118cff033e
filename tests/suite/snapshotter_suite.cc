// SPDX-License-Identifier: Apache-2.0
#include "tests/suite/snapshotter_suite.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

namespace strata {

void PrintTo(const Mount& mount, std::ostream* out) {
  *out << mount.type << " " << mount.source << " '" << mount.target << "' "
       << ::testing::PrintToString(mount.options);
}

void PrintTo(const SnapshotInfo& info, std::ostream* out) {
  *out << KindName(info.kind) << " " << ShowName(info.name) << " on " << ShowName(info.parent)
       << " created " << info.created << " updated " << info.updated << " "
       << ::testing::PrintToString(info.labels);
}

void PrintTo(const Usage& usage, std::ostream* out) {
  *out << usage.size << " bytes " << usage.inodes << " inodes";
}

}  // namespace strata

namespace strata::testing {
namespace {

namespace fs = std::filesystem;

// 0 when the call worked, so that EXPECT_EQ shows the errno's text otherwise.
std::string Outcome(int result) {
  return result == 0 ? "" : std::strerror(errno);
}

std::string DescribeContent(const fs::path& path, const struct stat& st) {
  if (S_ISREG(st.st_mode)) {
    return std::to_string(st.st_size) + " " + ReadFile(path);
  }
  if (S_ISLNK(st.st_mode)) {
    std::error_code error;
    return fs::read_symlink(path, error);
  }
  return S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? std::to_string(st.st_rdev) : "";
}

std::string Octal(mode_t mode) {
  std::ostringstream out;
  out << std::oct << mode;
  return out.str();
}

}  // namespace

void SnapshotterSuite::SetUp() {
  if (overlay() && ::geteuid() != 0) {
    GTEST_SKIP() << "SKIPPED: overlayfs needs root";
  }
  instance_ = GetParam().make(root_);
  if (instance_ == nullptr) {
    GTEST_SKIP() << "SKIPPED: target " << GetParam().name << " is not available";
  }
}

std::vector<Mount> SnapshotterSuite::Prepare(std::string_view key, std::string_view parent,
                                             const Labels& labels) {
  auto mounts = sn().Prepare(call_, key, parent, labels);
  EXPECT_THAT(mounts, IsOk()) << "prepare " << key;
  return mounts.ok() ? *std::move(mounts) : std::vector<Mount>();
}

std::vector<Mount> SnapshotterSuite::View(std::string_view key, std::string_view parent,
                                          const Labels& labels) {
  auto mounts = sn().View(call_, key, parent, labels);
  EXPECT_THAT(mounts, IsOk()) << "view " << key;
  return mounts.ok() ? *std::move(mounts) : std::vector<Mount>();
}

void SnapshotterSuite::Commit(std::string_view name, std::string_view key,
                              const CommitOptions& options) {
  EXPECT_THAT(sn().Commit(call_, name, key, options), IsOk()) << "commit " << name;
}

void SnapshotterSuite::Remove(std::string_view key) {
  EXPECT_THAT(sn().Remove(call_, key), IsOk()) << "remove " << key;
}

SnapshotInfo SnapshotterSuite::Stat(std::string_view name) {
  auto info = sn().Stat(call_, name);
  EXPECT_THAT(info, IsOk()) << "stat " << name;
  return info.ok() ? *std::move(info) : SnapshotInfo();
}

void SnapshotterSuite::AddLayer(const std::string& name, std::string_view parent,
                                const Labels& labels) {
  Prepare(name + "-tmp", parent, labels);
  Commit(name, name + "-tmp", {.labels = labels});
}

std::vector<SnapshotInfo> SnapshotterSuite::List(const std::vector<std::string>& filters) {
  std::vector<SnapshotInfo> rows;
  const auto cursor = sn().List(call_, filters);
  EXPECT_THAT(cursor, IsOk());
  while (cursor.ok()) {
    const auto page = (*cursor)->Next();
    EXPECT_THAT(page, IsOk());
    if (!page.ok() || page->empty()) {
      break;
    }
    EXPECT_LE(page->size(), kListPageSize);
    rows.insert(rows.end(), page->begin(), page->end());
  }
  return rows;
}

std::vector<std::string> SnapshotterSuite::ListNames(const std::vector<std::string>& filters) {
  std::vector<std::string> names;
  for (const SnapshotInfo& row : List(filters)) {
    names.push_back(row.name);
  }
  return names;
}

Status SnapshotterSuite::TryPrepare(std::string_view key, std::string_view parent,
                                    const Labels& labels) {
  return sn().Prepare(call_, key, parent, labels).status();
}

Status SnapshotterSuite::TryView(std::string_view key, std::string_view parent,
                                 const Labels& labels) {
  return sn().View(call_, key, parent, labels).status();
}

ScopedMount SnapshotterSuite::MountThem(const std::vector<Mount>& mounts) {
  const std::string target = dir_.Join("mnt" + std::to_string(mount_points_++));
  MakeDirs(target);
  auto mounted = ScopedMount::Mount(mounts, target);
  EXPECT_THAT(mounted, IsOk());
  return mounted.ok() ? *std::move(mounted) : ScopedMount();
}

void SnapshotterSuite::AddLayer(const std::string& name, std::string_view parent,
                                const Change& change) {
  {
    ScopedMount mount = MountThem(Prepare(name + "-tmp", parent));
    ASSERT_FALSE(mount.target().empty());
    change(mount.target());
    change(Flat());
    EXPECT_EQ(TreeListing(mount.target()), TreeListing(Flat())) << "active of " << name;
    EXPECT_THAT(mount.Unmount(), IsOk());
  }
  Commit(name, name + "-tmp");
}

std::string SnapshotterSuite::Flat() {
  const std::string flat = dir_.Join("flat");
  MakeDirs(flat);
  return flat;
}

void SnapshotterSuite::ExpectSameAsFlat(const std::string& name) {
  {
    ScopedMount mount = MountThem(View(name + "-view", name));
    ASSERT_FALSE(mount.target().empty());
    EXPECT_EQ(TreeListing(mount.target()), TreeListing(Flat())) << "view of " << name;
    EXPECT_THAT(mount.Unmount(), IsOk());
  }
  Remove(name + "-view");
}

std::string OwnDirectory(const std::vector<Mount>& mounts) {
  constexpr std::string_view kUpper = "upperdir=";
  if (mounts.size() != 1) {
    ADD_FAILURE() << mounts.size() << " mounts instead of one";
    return "";
  }
  for (const std::string& option : mounts[0].options) {
    if (option.starts_with(kUpper)) {
      return option.substr(kUpper.size());
    }
  }
  return mounts[0].source;
}

TimeNs WallClock() {
  timespec now{};
  EXPECT_EQ(::clock_gettime(CLOCK_REALTIME, &now), 0);
  return TimeNs{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::vector<std::string> TreeListing(const std::string& directory) {
  std::vector<fs::path> paths = {directory};
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    paths.push_back(it->path());
  }
  EXPECT_FALSE(error) << directory << ": " << error.message();
  std::sort(paths.begin(), paths.end());

  std::map<std::pair<dev_t, ino_t>, std::string> first_names;
  std::vector<std::string> lines;
  for (const fs::path& path : paths) {
    struct stat st {};
    EXPECT_EQ(Outcome(::lstat(path.c_str(), &st)), "") << path;
    const std::string name = path.string().substr(directory.size());
    std::string line = name + " mode " + Octal(st.st_mode) + " owner " + std::to_string(st.st_uid) +
                       ":" + std::to_string(st.st_gid) + " " + DescribeContent(path, st);
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
      line += " same as " + first_names.try_emplace({st.st_dev, st.st_ino}, name).first->second;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

void WriteFile(const std::string& path, std::string_view content, mode_t mode) {
  {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << content;
    EXPECT_TRUE(file.flush()) << path;
  }
  EXPECT_EQ(Outcome(::chmod(path.c_str(), mode)), "") << path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

void MakeDirs(const std::string& path, mode_t mode) {
  std::error_code error;
  if (fs::create_directories(path, error)) {
    EXPECT_EQ(Outcome(::chmod(path.c_str(), mode)), "") << path;
  }
  EXPECT_FALSE(error) << path << ": " << error.message();
}

void RemoveAll(const std::string& path) {
  std::error_code error;
  EXPECT_GT(fs::remove_all(path, error), 0U) << path;
  EXPECT_FALSE(error) << path << ": " << error.message();
}

void ChangeOwner(const std::string& path, uid_t uid, gid_t gid) {
  EXPECT_EQ(Outcome(::lchown(path.c_str(), uid, gid)), "") << path;
}

void HardLink(const std::string& from, const std::string& to) {
  EXPECT_EQ(Outcome(::link(from.c_str(), to.c_str())), "") << to;
}

void Rename(const std::string& from, const std::string& to) {
  EXPECT_EQ(Outcome(::rename(from.c_str(), to.c_str())), "") << to;
}

}  // namespace strata::testing
