// SPDX-License-Identifier: Apache-2.0
//
// The mounts themselves, exactly as containerd's own snapshotters return them, and the directories
// they name: mode and owner (snapshots-contract 4.2, 4.3, 4.5).
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>

#include "snapshotters/os/overlay_probe.h"
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kUidMapping = "containerd.io/snapshot/uidmapping";
constexpr std::string_view kGidMapping = "containerd.io/snapshot/gidmapping";

struct Ownership {
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;

  bool operator==(const Ownership&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Ownership& owner) {
  return out << std::oct << owner.mode << std::dec << " " << owner.uid << ":" << owner.gid;
}

Ownership OwnershipOf(const std::string& path) {
  struct stat st {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
  return {.mode = st.st_mode & 07777U, .uid = st.st_uid, .gid = st.st_gid};
}

// Puts the process's umask back.
class ScopedUmask {
 public:
  explicit ScopedUmask(mode_t mask) : old_(::umask(mask)) {}
  ~ScopedUmask() { ::umask(old_); }
  ScopedUmask(const ScopedUmask&) = delete;
  ScopedUmask& operator=(const ScopedUmask&) = delete;

 private:
  mode_t old_;
};

class OverlayMounts {
 public:
  OverlayMounts(const std::string& root, const SuiteTarget& target)
      : snapshots_(root + "/snapshots/"), appended_(target.mount_options) {
    if (target.kind == "fuse-overlayfs") {
      type_ = "fuse3.fuse-overlayfs";
      return;
    }
    const StatusOr<bool> userxattr = NeedsUserXattr(root);
    EXPECT_THAT(userxattr, IsOk());
    if (userxattr.ok() && *userxattr) {
      appended_.emplace_back("userxattr");
    }
    if (::access("/sys/module/overlay/parameters/index", F_OK) == 0) {
      appended_.emplace_back("index=off");
    }
  }

  // The number in "<root>/snapshots/<id>/fs", which must have that form.
  [[nodiscard]] std::string IdOf(const std::string& directory) const {
    EXPECT_THAT(directory, StartsWith(snapshots_));
    EXPECT_TRUE(directory.ends_with("/fs")) << directory;
    const std::string id = directory.substr(
        snapshots_.size(), directory.size() - std::min(directory.size(), snapshots_.size() + 3));
    EXPECT_FALSE(id.empty());
    EXPECT_TRUE(std::all_of(id.begin(), id.end(), [](unsigned char c) { return std::isdigit(c); }))
        << directory;
    return id;
  }
  [[nodiscard]] std::string Fs(const std::string& id) const { return snapshots_ + id + "/fs"; }

  [[nodiscard]] static Mount Bind(const std::string& source, const std::string& flag) {
    return {.type = "bind", .source = source, .options = {flag, "rbind"}};
  }
  [[nodiscard]] Mount Writable(const std::string& id,
                               const std::vector<std::string>& parents) const {
    return Overlay({"workdir=" + snapshots_ + id + "/work", "upperdir=" + Fs(id)}, parents);
  }
  [[nodiscard]] Mount ReadOnly(const std::vector<std::string>& parents) const {
    return Overlay({}, parents);
  }

 private:
  [[nodiscard]] Mount Overlay(std::vector<std::string> options,
                              const std::vector<std::string>& parents) const {
    std::string lower = "lowerdir=";
    for (const std::string& parent : parents) {
      lower += (lower.back() == '=' ? "" : ":") + Fs(parent);
    }
    options.push_back(lower);
    options.insert(options.end(), appended_.begin(), appended_.end());
    return {.type = type_, .source = "overlay", .options = options};
  }

  const std::string snapshots_;
  std::string type_ = "overlay";
  std::vector<std::string> appended_;
};

TEST_P(SnapshotterSuite, OverlayMountsAreExact) {
  if (!overlay()) {
    GTEST_SKIP() << "of overlayfs";
  }
  const OverlayMounts expected(root_, GetParam());

  const auto base = Prepare("base-tmp");
  const std::string base_id = expected.IdOf(OwnDirectory(base));
  EXPECT_THAT(base, ElementsAre(expected.Bind(expected.Fs(base_id), "rw")));
  Commit("base", "base-tmp");

  const auto empty = View("view-0");
  EXPECT_THAT(empty,
              ElementsAre(expected.Bind(expected.Fs(expected.IdOf(OwnDirectory(empty))), "ro")));
  EXPECT_THAT(View("view-1", "base"), ElementsAre(expected.Bind(expected.Fs(base_id), "ro")));

  const auto second = Prepare("second-tmp", "base");
  const std::string second_id = expected.IdOf(OwnDirectory(second));
  EXPECT_THAT(second, ElementsAre(expected.Writable(second_id, {base_id})));
  Commit("second", "second-tmp");
  EXPECT_THAT(View("view-2", "second"), ElementsAre(expected.ReadOnly({second_id, base_id})));

  const auto third = Prepare("third", "second");
  const std::string third_id = expected.IdOf(OwnDirectory(third));
  EXPECT_THAT(third, ElementsAre(expected.Writable(third_id, {second_id, base_id})));
}

TEST_P(SnapshotterSuite, OverlayMountsFollowTheParentGivenAtCommit) {
  if (!overlay()) {
    GTEST_SKIP() << "of overlayfs";
  }
  const OverlayMounts expected(root_, GetParam());
  const std::string base_id = expected.IdOf(OwnDirectory(Prepare("base-tmp")));
  Commit("base", "base-tmp");
  const std::string top_id = expected.IdOf(OwnDirectory(Prepare("top-tmp")));
  Commit("top", "top-tmp", {.parent = "base"});
  EXPECT_THAT(View("view", "top"), ElementsAre(expected.ReadOnly({top_id, base_id})));
}

TEST_P(SnapshotterSuite, NativeMountsAreExact) {
  if (GetParam().kind != "native") {
    GTEST_SKIP() << "of native";
  }
  const auto bind = [](const std::string& source, const std::string& flag) {
    return Mount{.type = "bind", .source = source, .options = {"rbind", flag}};
  };
  const auto base = Prepare("base-tmp");
  const std::string base_directory = OwnDirectory(base);
  EXPECT_THAT(base_directory, StartsWith(root_ + "/snapshots/"));
  EXPECT_THAT(base, ElementsAre(bind(base_directory, "rw")));
  Commit("base", "base-tmp");
  const auto empty = View("view-0");
  EXPECT_THAT(empty, ElementsAre(bind(OwnDirectory(empty), "ro")));
  EXPECT_NE(OwnDirectory(empty), base_directory);
  EXPECT_THAT(View("view-1", "base"), ElementsAre(bind(base_directory, "ro")));
  const auto second = Prepare("second", "base");
  EXPECT_THAT(second, ElementsAre(bind(OwnDirectory(second), "rw")));
  EXPECT_NE(OwnDirectory(second), base_directory);
}

TEST_P(SnapshotterSuite, MountsHaveNoTarget) {
  AddLayer("p");
  EXPECT_THAT(Prepare("a", "p"), Each(Field(&Mount::target, "")));
  EXPECT_THAT(View("v", "p"), Each(Field(&Mount::target, "")));
}

TEST_P(SnapshotterSuite, RootOfANewSnapshotIs0755WhateverTheUmask) {
  int number = 0;
  for (const mode_t mask : {0000U, 0022U, 0077U}) {
    instance_.reset();
    const ScopedUmask scoped(mask);
    instance_ = GetParam().make(root_);
    ASSERT_NE(instance_, nullptr);
    const std::string key = "a" + std::to_string(number++);
    EXPECT_EQ(OwnershipOf(OwnDirectory(Prepare(key))).mode, 0755U) << std::oct << mask;
    EXPECT_EQ(OwnershipOf(OwnDirectory(View(key + "v"))).mode, 0755U) << std::oct << mask;
    Commit(key + "c", key);
    EXPECT_EQ(OwnershipOf(OwnDirectory(Prepare(key + "child", key + "c"))).mode, 0755U);
  }
}

TEST_P(SnapshotterSuite, NobodyElseGetsIntoTheRoot) {
  Prepare("a");
  EXPECT_EQ(OwnershipOf(root_).mode, 0700U);
  EXPECT_EQ(OwnershipOf(root_ + "/snapshots").mode, 0700U);
}

TEST_P(SnapshotterSuite, RootOfAChildHasTheOwnerOfItsParents) {
  STRATA_SUITE_NEEDS_ROOT();
  ChangeOwner(OwnDirectory(Prepare("p-tmp")), 1000, 2000);
  Commit("p", "p-tmp");
  const std::string child = OwnDirectory(Prepare("c-tmp", "p"));
  EXPECT_EQ(OwnershipOf(child), (Ownership{.mode = 0755, .uid = 1000, .gid = 2000}));
  // The immediate parent's, not the base's.
  ChangeOwner(child, 3000, 4000);
  Commit("c", "c-tmp");
  EXPECT_EQ(OwnershipOf(OwnDirectory(Prepare("a", "c"))),
            (Ownership{.mode = 0755, .uid = 3000, .gid = 4000}));
}

TEST_P(SnapshotterSuite, OverlayDoesNotInheritTheModeOfTheParent) {
  if (!overlay()) {
    GTEST_SKIP() << "of overlayfs";
  }
  ASSERT_EQ(::chmod(OwnDirectory(Prepare("p-tmp")).c_str(), 0700), 0);
  Commit("p", "p-tmp");
  EXPECT_EQ(OwnershipOf(OwnDirectory(Prepare("a", "p"))).mode, 0755U);
}

struct MappingCase {
  Labels labels;
  Ownership owner;
};

TEST_P(SnapshotterSuite, MappingLabelsGiveTheOwner) {
  STRATA_SUITE_NEEDS_ROOT();
  if (!overlay()) {
    GTEST_SKIP() << "of overlayfs";
  }
  const Ownership parents_owner = {.mode = 0755, .uid = 1000, .gid = 1000};
  const std::string uid(kUidMapping);
  const std::string gid(kGidMapping);
  const std::vector<MappingCase> cases = {
      {{{uid, "0:10000:65536"}, {gid, "0:20000:65536"}}, {0755, 10000, 20000}},
      {{{uid, "0:10000:65536"}}, {0755, 10000, 0}},
      {{{gid, "0:20000:65536"}}, {0755, 0, 20000}},
      {{{uid, "1:5:10,0:10000:1"}, {gid, "0:0:4294967295"}}, {0755, 10000, 0}},
  };
  ChangeOwner(OwnDirectory(Prepare("p-tmp")), 1000, 1000);
  Commit("p", "p-tmp");
  int number = 0;
  for (const auto& [labels, owner] : cases) {
    const std::string key = "k" + std::to_string(number++);
    EXPECT_EQ(OwnershipOf(OwnDirectory(Prepare(key, "", labels))), owner) << key;
    // They win over the parent's owner, but where the mount maps ids.
    EXPECT_EQ(OwnershipOf(OwnDirectory(Prepare(key + "-child", "p", labels))),
              fuse() ? parents_owner : owner)
        << key;
    EXPECT_EQ(Stat(key).labels, labels);
  }
}

TEST_P(SnapshotterSuite, FuseOverlayfsMappingLabelsAreOptions) {
  if (!fuse()) {
    GTEST_SKIP() << "of fuse-overlayfs";
  }
  const OverlayMounts expected(root_, GetParam());
  const Labels labels = {{std::string(kUidMapping), "0:10000:1000,1000:5000:1"},
                         {std::string(kGidMapping), "0:20000:65536"}};
  AddLayer("p");
  AddLayer("c", "p");
  for (const auto& mounts : {Prepare("active", "c", labels), View("view", "c", labels)}) {
    ASSERT_EQ(mounts.size(), 1U);
    const std::vector<std::string>& options = mounts[0].options;
    ASSERT_GE(options.size(), 3U);
    EXPECT_EQ(options[options.size() - 2], "uidmapping=0:10000:1000:1000:5000:1");
    EXPECT_EQ(options.back(), "gidmapping=0:20000:65536");
  }
  const auto bind = Prepare("base", "", labels);
  EXPECT_THAT(bind, ElementsAre(expected.Bind(OwnDirectory(bind), "rw")));
}

// What a mapping label says is checked when it comes, but a label can be changed behind that.
TEST_P(SnapshotterSuite, FuseOverlayfsSpoiledMappingLabelIsNotPassedOn) {
  if (!fuse()) {
    GTEST_SKIP() << "of fuse-overlayfs";
  }
  const std::string label(kUidMapping);
  AddLayer("p");
  Prepare("active", "p", {{label, "0:10000:65536"}});
  SnapshotInfo info = Stat("active");
  info.labels[label] = "0:1:1,allow_root";
  ASSERT_THAT(sn().Update(call_, info, {}), IsOk());
  EXPECT_THAT(sn().Mounts(call_, "active"), StatusIs(StatusCode::kInvalidArgument));
}

TEST_P(SnapshotterSuite, MappingThatLeavesOutContainerRootFails) {
  STRATA_SUITE_NEEDS_ROOT();
  if (!overlay()) {
    GTEST_SKIP() << "of overlayfs";
  }
  for (const std::string bad : {"1:100000:65536", "nonsense", "0:100000", "0:x:1"}) {
    const Labels labels = {{std::string(kUidMapping), bad}};
    EXPECT_THAT(TryPrepare("k", "", labels), StatusIs(StatusCode::kInvalidArgument)) << bad;
  }
  EXPECT_THAT(List(), IsEmpty());
}

TEST_P(SnapshotterSuite, NoMountOfAnActiveIsReadOnly) {
  AddLayer("p");
  AddLayer("c", "p");
  for (const std::string parent : {"", "p", "c"}) {
    for (const Mount& mount : Prepare("a" + parent, parent)) {
      EXPECT_THAT(mount.options, Each(Not("ro")));
    }
  }
}

}  // namespace
}  // namespace strata::testing
