// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite: what every Snapshotter does, whatever is behind it. A user links suite_dep
// and instantiates SnapshotterSuite with its targets; the tests are in the *_suite.cc files. For
// tests only.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/core/snapshotter.h"
#include "snapshotters/os/mount_ops.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {

// How gtest shows them.
void PrintTo(const Mount& mount, std::ostream* out);
void PrintTo(const SnapshotInfo& info, std::ostream* out);
void PrintTo(const Usage& usage, std::ostream* out);

}  // namespace strata

namespace strata::testing {

// A snapshotter that is open on a root.
class SuiteInstance {
 public:
  virtual ~SuiteInstance() = default;
  virtual Snapshotter& snapshotter() = 0;
  // Closes it in an orderly way and opens it again on the same root.
  virtual void Restart() = 0;
};

struct SuiteTarget {
  std::string name;  // of the target, in test names: letters, digits, '_'
  std::string kind;  // "native", "overlayfs", "fuse-overlayfs", "stargz"
  // The snapshotter on `root`, which may not exist yet. Null: this target is not available, and the
  // tests are skipped.
  std::function<std::unique_ptr<SuiteInstance>(const std::string& root)> make;
  // Overlay only: options that the target was told to append to overlay mounts.
  std::vector<std::string> mount_options;
  size_t longest_name = kMaxNameBytes;
};

inline std::ostream& operator<<(std::ostream& out, const SuiteTarget& target) {
  return out << target.name;
}

// For INSTANTIATE_TEST_SUITE_P.
inline std::string SuiteTargetName(const ::testing::TestParamInfo<SuiteTarget>& test) {
  return test.param.name;
}

inline constexpr std::chrono::seconds kSuiteLimit{60};  // what takes longer has failed

class SnapshotterSuite : public ::testing::TestWithParam<SuiteTarget> {
 protected:
  using Change = std::function<void(const std::string& directory)>;

  void SetUp() override;

  Snapshotter& sn() { return instance_->snapshotter(); }
  void Restart() { instance_->Restart(); }
  [[nodiscard]] bool overlay() const { return GetParam().kind != "native"; }
  [[nodiscard]] bool fuse() const { return GetParam().kind == "fuse-overlayfs"; }

  // Operations that must succeed; a failure fails the test and returns something empty.
  std::vector<Mount> Prepare(std::string_view key, std::string_view parent = "",
                             const Labels& labels = {});
  std::vector<Mount> View(std::string_view key, std::string_view parent = "",
                          const Labels& labels = {});
  void Commit(std::string_view name, std::string_view key, const CommitOptions& options = {});
  void Remove(std::string_view key);
  SnapshotInfo Stat(std::string_view name);
  // Prepare on `parent` and Commit as `name`, with nothing done in between.
  void AddLayer(const std::string& name, std::string_view parent = "", const Labels& labels = {});
  // All rows that match, in the order they come.
  std::vector<SnapshotInfo> List(const std::vector<std::string>& filters = {});
  std::vector<std::string> ListNames(const std::vector<std::string>& filters = {});

  // The codes of calls, for tables.
  Status TryPrepare(std::string_view key, std::string_view parent, const Labels& labels = {});
  Status TryView(std::string_view key, std::string_view parent, const Labels& labels = {});

  // Mounts `mounts` on a new directory.
  ScopedMount MountThem(const std::vector<Mount>& mounts);
  // A committed layer in which `change` was made through its mount. The same change goes to Flat().
  void AddLayer(const std::string& name, std::string_view parent, const Change& change);
  // A directory to which the changes of all layers were made one after the other.
  std::string Flat();
  // The tree of committed `name`, seen through a view, is that of Flat().
  void ExpectSameAsFlat(const std::string& name);

  CallContext call_;
  TempDir dir_;  // before the instance, which lives in it
  const std::string root_ = dir_.Join("root");
  std::unique_ptr<SuiteInstance> instance_;

 private:
  int mount_points_ = 0;
};

// Where writes into the snapshot with these mounts land: the upper directory, or the source of a
// bind.
std::string OwnDirectory(const std::vector<Mount>& mounts);

// Nanoseconds of the clock that times of snapshots are compared with.
TimeNs WallClock();

// Everything that makes two trees equal but times and xattrs: a line a file with path, type, mode,
// owner, size, content, target, device, and the other names of the same inode.
std::vector<std::string> TreeListing(const std::string& directory);

// Building trees; failures fail the test.
void WriteFile(const std::string& path, std::string_view content, mode_t mode = 0644);
std::string ReadFile(const std::string& path);
void MakeDirs(const std::string& path, mode_t mode = 0755);
void RemoveAll(const std::string& path);
void ChangeOwner(const std::string& path, uid_t uid, gid_t gid);
void HardLink(const std::string& from, const std::string& to);
void Rename(const std::string& from, const std::string& to);

}  // namespace strata::testing

// At the top of a test that mounts or chowns.
#define STRATA_SUITE_NEEDS_ROOT()                             \
  if (::geteuid() != 0) {                                     \
    GTEST_SKIP() << "SKIPPED: needs root to mount and chown"; \
  }
