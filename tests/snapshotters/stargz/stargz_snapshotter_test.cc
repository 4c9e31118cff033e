// SPDX-License-Identifier: Apache-2.0
//
// The remote-snapshot protocol (snapshots-contract 6.2, 6.3), over a layer store that a test holds
// in its hands.
#include "snapshotters/stargz/stargz_snapshotter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "snapshotters/base/fault.h"
#include "snapshotters/lazy/fallback_reason.h"
#include "tests/snapshotters/stargz/fake_layer_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::FakeLayers;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using testing::OpenFake;
using ::testing::Pair;
using testing::StatusIs;
using testing::TempDir;

const std::string kImage = "registry.test/team/image:1";

std::string Digest(char digit) {
  return "sha256:" + std::string(64, digit);
}

std::string Chain(int number) {
  std::string digits = std::to_string(number);
  return "sha256:" + std::string(64 - digits.size(), '0') + digits;
}

Labels CriLabels(const std::string& target, const std::string& digest,
                 const std::string& layers = "") {
  Labels labels = {{"containerd.io/snapshot.ref", target},
                   {"containerd.io/snapshot/cri.image-ref", kImage},
                   {"containerd.io/snapshot/cri.layer-digest", digest}};
  if (!layers.empty()) {
    labels["containerd.io/snapshot/cri.image-layers"] = layers;
  }
  return labels;
}

Labels StargzLabels(const std::string& target, const std::string& digest) {
  return {{"containerd.io/snapshot.ref", target},
          {"containerd.io/snapshot/remote/stargz.reference", kImage},
          {"containerd.io/snapshot/remote/stargz.digest", digest}};
}

// Works without root but for what overlay needs of the machine: probes mount.
class StargzSnapshotterMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "SKIPPED: needs root to mount";
    }
    for (const char digit : {'a', 'b', 'c'}) {
      const auto number = static_cast<uint64_t>(digit - 'a' + 1);
      layers_.answers.emplace(
          Digest(digit),
          FakeLayers::Layer{.number = number, .size = {.bytes = 4096 * number, .inodes = number}});
    }
    Open();
  }
  void TearDown() override { FaultPoints::Arm({}); }

  void Open() {
    snapshotter_.reset();
    auto opened = StargzSnapshotter::Create({.root = root_,
                                             .allow_volatile = true,
                                             .reaper = {.rest = std::chrono::milliseconds(0)},
                                             .open_layers = OpenFake(&layers_)});
    ASSERT_THAT(opened, IsOk());
    snapshotter_ = *std::move(opened);
  }

  StatusOr<std::vector<Mount>> Prepare(const std::string& key, const std::string& parent,
                                       const Labels& labels = {}) {
    return snapshotter_->Prepare(call_, key, parent, labels);
  }
  void ExpectRemote(const std::string& key, const std::string& parent, const Labels& labels) {
    EXPECT_THAT(Prepare(key, parent, labels),
                StatusIs(StatusCode::kAlreadyExists, HasSubstr("target snapshot")));
  }
  StatusOr<SnapshotInfo> Stat(const std::string& name) { return snapshotter_->Stat(call_, name); }

  // Names of committed rows that containerd would adopt for the target.
  std::vector<std::string> Adoptable(const std::string& target, const std::string& parent) {
    std::vector<std::string> names;
    auto cursor = snapshotter_->List(call_, {"labels.\"containerd.io/snapshot.ref\"==" + target +
                                             ",parent==\"" + parent + "\""});
    EXPECT_THAT(cursor, IsOk());
    auto rows = (*cursor)->Next();
    EXPECT_THAT(rows, IsOk());
    for (const SnapshotInfo& row : *rows) {
      if (row.kind == Kind::kCommitted) {
        names.push_back(row.name);
      }
    }
    return names;
  }

  // Texts of the links in snapshots/.
  std::vector<std::string> Links() {
    std::vector<std::string> links;
    for (const auto& folder : std::filesystem::directory_iterator(root_ + "/snapshots")) {
      std::error_code error;
      const auto target = std::filesystem::read_symlink(folder.path() / "layer", error);
      if (!error) {
        links.push_back(target.string());
      }
    }
    return links;
  }

  CallContext call_;
  TempDir dir_;
  const std::string root_ = dir_.Join("root");
  FakeLayers layers_;
  std::unique_ptr<StargzSnapshotter> snapshotter_;
};

TEST_F(StargzSnapshotterMountTest, LayerThatCanBeHadIsCommittedUnderItsTarget) {
  ExpectRemote("k8s.io/1/extract-1", "", CriLabels(Chain(1), Digest('a')));
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, Stat(Chain(1)));
  EXPECT_EQ(info.kind, Kind::kCommitted);
  EXPECT_EQ(info.parent, "");
  EXPECT_THAT(info.labels, Contains(Pair("containerd.io/snapshot.ref", Chain(1))));
  EXPECT_THAT(info.labels, Contains(Pair("containerd.io/snapshot/cri.layer-digest", Digest('a'))));
  EXPECT_THAT(info.labels, Contains(Pair("containerd.io/snapshot/remote", "remote snapshot")));
  EXPECT_THAT(Stat("k8s.io/1/extract-1"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Links(), ElementsAre("../../l/1"));
}

TEST_F(StargzSnapshotterMountTest, BothFamiliesOfLabelsWillDo) {
  ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a')));
  ExpectRemote("k2", Chain(1), StargzLabels(Chain(2), Digest('b')));
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, Stat(Chain(2)));
  EXPECT_EQ(info.parent, Chain(1));
}

TEST_F(StargzSnapshotterMountTest, NextPlaceIsAskedWhenTheFirstHasNothing) {
  Labels labels = CriLabels(Chain(1), Digest('9'));
  labels.merge(StargzLabels(Chain(1), Digest('a')));
  ExpectRemote("k", "", labels);
  EXPECT_EQ(layers_.asked.size(), 2U);
}

TEST_F(StargzSnapshotterMountTest, TimeIsSpentOnce) {
  layers_.answers.insert_or_assign(
      Digest('9'),
      WithReason(MakeStatus(StatusCode::kDeadlineExceeded, "too slow"), FallbackReason::kTimeout));
  Labels labels = CriLabels(Chain(1), Digest('9'));
  labels.merge(StargzLabels(Chain(1), Digest('a')));
  EXPECT_THAT(Prepare("k", "", labels), IsOk());
  EXPECT_EQ(layers_.asked.size(), 1U);
}

TEST_F(StargzSnapshotterMountTest, WithoutTargetNobodyIsAsked) {
  Labels labels = CriLabels(Chain(1), Digest('a'));
  labels.erase(std::string(kTargetLabel));
  EXPECT_THAT(Prepare("k", "", labels), IsOk());
  EXPECT_THAT(layers_.asked, IsEmpty());
}

TEST_F(StargzSnapshotterMountTest, ViewIsNeverRemote) {
  EXPECT_THAT(snapshotter_->View(call_, "v", "", CriLabels(Chain(1), Digest('a'))), IsOk());
  EXPECT_THAT(layers_.asked, IsEmpty());
}

TEST_F(StargzSnapshotterMountTest, SecondPrepareOfALayerAsksNobody) {
  ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a')));
  ExpectRemote("k2", "", CriLabels(Chain(1), Digest('a')));
  EXPECT_EQ(layers_.asked.size(), 1U);
  EXPECT_THAT(Links(), ElementsAre("../../l/1"));
}

TEST_F(StargzSnapshotterMountTest, NameThatIsTakenOnAnotherParentMakesWayForTheKey) {
  // An ordinary layer of another namespace is the parent there.
  ASSERT_THAT(Prepare("b/1/extract", ""), IsOk());
  ASSERT_THAT(snapshotter_->Commit(call_, "b/2/" + Chain(1), "b/1/extract", {}), IsOk());
  ExpectRemote("a/1/k1", "", CriLabels(Chain(1), Digest('a')));
  ExpectRemote("a/2/k2", Chain(1), CriLabels(Chain(2), Digest('b')));
  ExpectRemote("b/3/k3", "b/2/" + Chain(1), CriLabels(Chain(2), Digest('b')));
  EXPECT_THAT(Adoptable(Chain(2), Chain(1)), ElementsAre(Chain(2)));
  EXPECT_THAT(Adoptable(Chain(2), "b/2/" + Chain(1)), ElementsAre("b/3/k3"));
}

TEST_F(StargzSnapshotterMountTest, SnapshotWithoutTheLabelIsNotTakenForTheTarget) {
  ASSERT_THAT(Prepare("tmp", ""), IsOk());
  ASSERT_THAT(snapshotter_->Commit(call_, Chain(1), "tmp", {}), IsOk());
  ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a')));
  EXPECT_THAT(Adoptable(Chain(1), ""), ElementsAre("k1"));
}

TEST_F(StargzSnapshotterMountTest, LayerThatAnotherCallRecordsMeanwhileIsTaken) {
  layers_.on_get = [this] {
    layers_.on_get = {};
    ExpectRemote("k2", "", CriLabels(Chain(1), Digest('a')));
  };
  ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a')));
  EXPECT_THAT(Adoptable(Chain(1), ""), ElementsAre(Chain(1)));
}

TEST_F(StargzSnapshotterMountTest, KeyThatIsTakenIsRefusedWithoutAskingAnybody) {
  ASSERT_THAT(Prepare("k", ""), IsOk());
  EXPECT_THAT(Prepare("k", "", CriLabels(Chain(1), Digest('a'))),
              StatusIs(StatusCode::kAlreadyExists, Not(HasSubstr("target"))));
  EXPECT_THAT(layers_.asked, IsEmpty());
}

TEST_F(StargzSnapshotterMountTest, ParentIsCheckedBeforeAnybodyIsAsked) {
  ASSERT_THAT(Prepare("active", ""), IsOk());
  const Labels labels = CriLabels(Chain(1), Digest('a'));
  EXPECT_THAT(Prepare("k", "missing", labels), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Prepare("k", "active", labels), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(layers_.asked, IsEmpty());
}

struct FallbackCase {
  std::string name;
  Status failure;
};

class StargzFallbackMountTest : public StargzSnapshotterMountTest,
                                public ::testing::WithParamInterface<FallbackCase> {};

TEST_P(StargzFallbackMountTest, IsAnOrdinaryPrepare) {
  layers_.answers.insert_or_assign(Digest('a'), GetParam().failure);
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts,
                              Prepare("k", "", CriLabels(Chain(1), Digest('a'))));
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].type, "bind");
  STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotInfo info, Stat("k"));
  EXPECT_EQ(info.kind, Kind::kActive);
  EXPECT_THAT(snapshotter_->Commit(call_, "ns/2/" + Chain(1), "k",
                                   {.labels = CriLabels(Chain(1), Digest('a'))}),
              IsOk());
  EXPECT_THAT(Links(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    All, StargzFallbackMountTest,
    ::testing::Values(
        FallbackCase{"NotLazy", MakeStatus(StatusCode::kFailedPrecondition, "no footer")},
        FallbackCase{"BadLayer", MakeStatus(StatusCode::kDataLoss, "digest")},
        FallbackCase{"Registry", MakeStatus(StatusCode::kUnavailable, "refused")},
        FallbackCase{"NotThere", MakeStatus(StatusCode::kNotFound, "404")},
        FallbackCase{"Credentials", MakeStatus(StatusCode::kUnauthenticated, "401")},
        FallbackCase{"Timeout", MakeStatus(StatusCode::kDeadlineExceeded, "slow")},
        FallbackCase{"Disk", ErrnoStatus(ENOSPC, "write")},
        // Of the store, not of the caller.
        FallbackCase{"Cancelled", MakeStatus(StatusCode::kCancelled, "the client ends")},
        FallbackCase{"NameThatIsTaken", MakeStatus(StatusCode::kAlreadyExists, "strange")}),
    [](const auto& one) { return one.param.name; });

TEST_F(StargzSnapshotterMountTest, FolderThatCannotBeMadeMeansAnOrdinaryPrepare) {
  FaultPoints::Arm([](std::string_view point) {
    return point == "link.sync" ? ErrnoStatus(EIO, "sync") : OkStatus();
  });
  EXPECT_THAT(Prepare("k", "", CriLabels(Chain(1), Digest('a'))), IsOk());
  EXPECT_THAT(Stat(Chain(1)), StatusIs(StatusCode::kNotFound));
}

TEST_F(StargzSnapshotterMountTest, CancelledCallIsAnError) {
  layers_.on_get = [this] { call_.Cancel(); };
  EXPECT_THAT(Prepare("k", "", CriLabels(Chain(1), Digest('a'))), StatusIs(StatusCode::kCancelled));
  EXPECT_THAT(Stat("k"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(Stat(Chain(1)), StatusIs(StatusCode::kNotFound));
}

TEST_F(StargzSnapshotterMountTest, LayerIsInUseUntilItIsRecorded) {
  bool in_use = false;
  FaultPoints::Arm([this, &in_use](std::string_view point) {
    if (point == "adopt.linked") {
      in_use = !layers_.last_use.expired();
      EXPECT_THAT(Links(), ElementsAre("../../l/1"));
    }
    return OkStatus();
  });
  ExpectRemote("k", "", CriLabels(Chain(1), Digest('a')));
  EXPECT_TRUE(in_use);
  EXPECT_TRUE(layers_.last_use.expired());
}

TEST_F(StargzSnapshotterMountTest, NeighboursAreAnnouncedOnceAnImage) {
  const std::string all = Digest('a') + "," + Digest('b') + "," + Digest('c');
  const auto pinned = [](Labels labels) {
    labels["containerd.io/snapshot/stargz/toc.digest"] = Digest('f');
    return labels;
  };
  ExpectRemote("k1", "", pinned(CriLabels(Chain(1), Digest('a'), all)));
  ExpectRemote("k2", Chain(1),
               pinned(CriLabels(Chain(2), Digest('b'), Digest('b') + "," + Digest('c'))));
  ExpectRemote("k3", Chain(2), pinned(CriLabels(Chain(3), Digest('c'), Digest('c'))));
  ASSERT_EQ(layers_.announced.size(), 1U);
  EXPECT_EQ(layers_.announced[0].size(), 2U);
}

TEST_F(StargzSnapshotterMountTest, NeighboursOfALayerThatNothingPinsAreNotAnnounced) {
  ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a'), Digest('a') + "," + Digest('b')));
  EXPECT_THAT(layers_.announced, ::testing::IsEmpty());
}

// A lazy layer and one that a client has unpacked on top of it.
class StargzChainMountTest : public StargzSnapshotterMountTest {
 protected:
  void SetUp() override {
    StargzSnapshotterMountTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a')));
    ASSERT_THAT(Prepare("tmp", Chain(1)), IsOk());
    ASSERT_THAT(snapshotter_->Commit(call_, "ordinary", "tmp", {}), IsOk());
    ExpectRemote("k3", "ordinary", CriLabels(Chain(3), Digest('c')));
  }

  // What lowerdir= of the only mount says.
  static std::string LowerOf(const std::vector<Mount>& mounts) {
    for (const Mount& mount : mounts) {
      for (const std::string& option : mount.options) {
        if (option.starts_with("lowerdir=")) {
          return option.substr(option.find('=') + 1);
        }
      }
    }
    return "";
  }
};

TEST_F(StargzChainMountTest, ViewOfALazyLayerIsABindOfIt) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts,
                              snapshotter_->View(call_, "v", Chain(1), {}));
  EXPECT_THAT(
      mounts,
      ElementsAre(Mount{
          .type = "bind", .source = root_ + "/l/1", .target = "", .options = {"ro", "rbind"}}));
}

TEST_F(StargzChainMountTest, ContainerOnALazyLayerIsAnOverlayOverIt) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts, Prepare("c", Chain(1)));
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].type, "overlay");
  EXPECT_EQ(LowerOf(mounts), root_ + "/l/1");
}

TEST_F(StargzChainMountTest, ChainMayBeMixed) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts, Prepare("c", Chain(3)));
  const std::string lower = LowerOf(mounts);
  EXPECT_TRUE(lower.starts_with(root_ + "/l/3:" + root_ + "/snapshots/")) << lower;
  EXPECT_TRUE(lower.ends_with("/fs:" + root_ + "/l/1")) << lower;
}

TEST_F(StargzChainMountTest, MountsAreTheSameAfterARestart) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> before, Prepare("c", Chain(3)));
  Open();
  const size_t asked = layers_.asked.size();
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> after, snapshotter_->Mounts(call_, "c"));
  EXPECT_EQ(before, after);
  EXPECT_EQ(layers_.asked.size(), asked);
}

TEST_F(StargzChainMountTest, LayerThatIsLostIsNeverMountedEmpty) {
  ASSERT_THAT(Prepare("c", Chain(1)), IsOk());
  layers_.on_disk.clear();
  EXPECT_THAT(snapshotter_->Mounts(call_, "c"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("layer 1")));
  EXPECT_THAT(Prepare("d", Chain(1)), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Stat("d"), StatusIs(StatusCode::kNotFound));
}

TEST_F(StargzChainMountTest, LinkThatIsNoneOfOursIsNeverFollowed) {
  for (const auto& folder : std::filesystem::directory_iterator(root_ + "/snapshots")) {
    if (std::filesystem::is_symlink(folder.path() / "layer")) {
      std::filesystem::remove(folder.path() / "layer");
      std::filesystem::create_symlink("/etc", folder.path() / "layer");
    }
  }
  Open();
  EXPECT_THAT(snapshotter_->View(call_, "v", Chain(1), {}), StatusIs(StatusCode::kDataLoss));
}

TEST_F(StargzChainMountTest, StoreIsToldWhatIsReferredTo) {
  STRATA_ASSERT_OK_AND_ASSIGN(const std::set<uint64_t> numbers, layers_.root.referenced());
  EXPECT_THAT(numbers, ElementsAre(1, 3));
}

TEST_F(StargzChainMountTest, RemovedSnapshotReleasesItsLayer) {
  ASSERT_THAT(snapshotter_->Remove(call_, Chain(3)), IsOk());
  // At once: the Cleanup that follows would not evict the layer otherwise.
  STRATA_ASSERT_OK_AND_ASSIGN(const std::set<uint64_t> numbers, layers_.root.referenced());
  EXPECT_THAT(numbers, ElementsAre(1));
  ASSERT_THAT(snapshotter_->Cleanup(call_), IsOk());
  EXPECT_EQ(layers_.reclaims, 1);
  EXPECT_EQ(layers_.reclaims_of_all, 0);
  EXPECT_TRUE(std::filesystem::exists(root_ + "/l/3"));  // the link went, not what it names
}

TEST_F(StargzChainMountTest, UsageIsWhatIsOnDiskNow) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage first, snapshotter_->GetUsage(call_, Chain(3)));
  EXPECT_EQ(first, (Usage{.size = 3 * 4096, .inodes = 3}));
  layers_.on_disk[3].size = {.bytes = 1 << 20, .inodes = 3};
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage later, snapshotter_->GetUsage(call_, Chain(3)));
  EXPECT_EQ(later, (Usage{.size = 1 << 20, .inodes = 3}));
}

TEST_F(StargzChainMountTest, UsageOfALostLayerIsWhatItWas) {
  layers_.on_disk.clear();
  STRATA_ASSERT_OK_AND_ASSIGN(const Usage usage, snapshotter_->GetUsage(call_, Chain(3)));
  EXPECT_EQ(usage, (Usage{.size = 3 * 4096, .inodes = 3}));
}

TEST_F(StargzChainMountTest, FolderWithoutARecordIsSwept) {
  FaultPoints::Arm([](std::string_view point) {
    return point == "adopt.linked" ? ErrnoStatus(EIO, "stopped here") : OkStatus();
  });
  EXPECT_THAT(Prepare("k", "", CriLabels(Chain(9), Digest('b'))), Not(IsOk()));
  FaultPoints::Arm({});
  Open();
  EXPECT_THAT(snapshotter_->WaitSwept().status, IsOk());
  EXPECT_THAT(Stat(Chain(9)), StatusIs(StatusCode::kNotFound));
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (Links().size() > 2 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(Links().size(), 2U);
}

TEST_F(StargzSnapshotterMountTest, NewFilesHaveTheOwnerOfALazyParentsRoot) {
  layers_.answers.insert_or_assign(Digest('a'),
                                   FakeLayers::Layer{.number = 7, .uid = 1234, .gid = 4321});
  ExpectRemote("k1", "", CriLabels(Chain(1), Digest('a')));
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts, Prepare("c", Chain(1)));
  std::string upper;
  for (const std::string& option : mounts[0].options) {
    if (option.starts_with("upperdir=")) {
      upper = option.substr(option.find('=') + 1);
    }
  }
  struct stat found {};
  ASSERT_EQ(::stat(upper.c_str(), &found), 0);
  EXPECT_EQ(found.st_uid, 1234U);
  EXPECT_EQ(found.st_gid, 4321U);
}

TEST_F(StargzSnapshotterMountTest, StoreIsToldHowOpaqueDirectoriesAreMarked) {
  EXPECT_FALSE(layers_.root.user_xattr);
  snapshotter_.reset();
  auto opened = StargzSnapshotter::Create({.root = root_,
                                           .allow_volatile = true,
                                           .overlay = {.mount_options = {"userxattr"}},
                                           .open_layers = OpenFake(&layers_)});
  ASSERT_THAT(opened, IsOk());
  EXPECT_TRUE(layers_.root.user_xattr);
}

TEST_F(StargzSnapshotterMountTest, StoreThatDoesNotOpenIsTheEndOfTheStart) {
  const auto opened = StargzSnapshotter::Create(
      {.root = dir_.Join("other"),
       .allow_volatile = true,
       .open_layers = [](const LayerRoot& /*root*/) -> StatusOr<std::unique_ptr<LayerStack>> {
         return MakeStatus(StatusCode::kUnavailable, "no layers today");
       }});
  EXPECT_THAT(opened, StatusIs(StatusCode::kUnavailable, HasSubstr("no layers today")));
}

}  // namespace
}  // namespace strata
