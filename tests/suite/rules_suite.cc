// SPDX-License-Identifier: Apache-2.0
//
// Rules of the single operations: kinds, parents, codes and the order in which they are found,
// times and labels (snapshots-contract 2.1 and 2.4).
#include <set>

#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr StatusCode kNotFound = StatusCode::kNotFound;
constexpr StatusCode kAlreadyExists = StatusCode::kAlreadyExists;
constexpr StatusCode kFailedPrecondition = StatusCode::kFailedPrecondition;
constexpr StatusCode kInvalidArgument = StatusCode::kInvalidArgument;

TEST_P(SnapshotterSuite, PrepareMakesAnActive) {
  const TimeNs before = WallClock();
  EXPECT_EQ(Prepare("a", "", {{"l", "v"}}).size(), 1U);
  const TimeNs after = WallClock();
  const SnapshotInfo info = Stat("a");
  EXPECT_EQ(info, (SnapshotInfo{.name = "a",
                                .kind = Kind::kActive,
                                .created = info.created,
                                .updated = info.created,
                                .labels = {{"l", "v"}}}));
  EXPECT_LE(before, info.created);
  EXPECT_LE(info.created, after);
}

TEST_P(SnapshotterSuite, ViewMakesAView) {
  AddLayer("p");
  const TimeNs before = WallClock();
  EXPECT_EQ(View("v", "p", {{"l", "v"}}).size(), 1U);
  const TimeNs after = WallClock();
  const SnapshotInfo info = Stat("v");
  EXPECT_EQ(info, (SnapshotInfo{.name = "v",
                                .parent = "p",
                                .kind = Kind::kView,
                                .created = info.created,
                                .updated = info.created,
                                .labels = {{"l", "v"}}}));
  EXPECT_LE(before, info.created);
  EXPECT_LE(info.created, after);
}

TEST_P(SnapshotterSuite, ViewNeedsNoParent) {
  EXPECT_EQ(View("v").size(), 1U);
  EXPECT_EQ(Stat("v").parent, "");
}

TEST_P(SnapshotterSuite, ParentMustExistAndBeCommitted) {
  Prepare("active");
  View("view");
  EXPECT_THAT(TryPrepare("k", "missing"), StatusIs(kNotFound));
  EXPECT_THAT(TryView("k", "missing"), StatusIs(kNotFound));
  EXPECT_THAT(TryPrepare("k", "active"), StatusIs(kInvalidArgument));
  EXPECT_THAT(TryView("k", "active"), StatusIs(kInvalidArgument));
  EXPECT_THAT(TryPrepare("k", "view"), StatusIs(kInvalidArgument));
  EXPECT_THAT(TryView("k", "view"), StatusIs(kInvalidArgument));
  EXPECT_THAT(TryPrepare("k", "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Stat(call_, "k"), StatusIs(kNotFound));
}

TEST_P(SnapshotterSuite, ParentIsLookedAtBeforeTheKey) {
  Prepare("a");
  EXPECT_THAT(TryPrepare("a", "missing"), StatusIs(kNotFound));
  EXPECT_THAT(TryView("a", "a"), StatusIs(kInvalidArgument));
  EXPECT_THAT(TryPrepare("a", ""), StatusIs(kAlreadyExists));
}

TEST_P(SnapshotterSuite, AllKindsShareOneSpaceOfNames) {
  AddLayer("committed");
  Prepare("active", "committed");
  View("view", "committed");
  for (const std::string name : {"committed", "active", "view"}) {
    EXPECT_THAT(TryPrepare(name, "committed"), StatusIs(kAlreadyExists)) << name;
    EXPECT_THAT(TryView(name, "committed"), StatusIs(kAlreadyExists)) << name;
    EXPECT_THAT(TryPrepare(name, ""), StatusIs(kAlreadyExists)) << name;
  }
}

TEST_P(SnapshotterSuite, CommitTurnsTheActiveIntoACommitted) {
  AddLayer("p");
  Prepare("a", "p", {{"of-active", "1"}, {"both", "active"}});
  const SnapshotInfo active = Stat("a");
  const TimeNs before = WallClock();
  Commit("c", "a", {.labels = {{"both", "commit"}, {"of-commit", "1"}}});
  const TimeNs after = WallClock();
  const SnapshotInfo info = Stat("c");
  EXPECT_EQ(info, (SnapshotInfo{.name = "c",
                                .parent = "p",
                                .kind = Kind::kCommitted,
                                .created = info.created,
                                .updated = info.created,
                                .labels = {{"both", "commit"}, {"of-commit", "1"}}}));
  EXPECT_LE(before, info.created);
  EXPECT_LE(info.created, after);
  EXPECT_THAT(sn().Stat(call_, "a"), StatusIs(kNotFound));
}

TEST_P(SnapshotterSuite, CommitWithoutLabelsHasNone) {
  Prepare("a", "", {{"of-active", "1"}});
  Commit("c", "a");
  EXPECT_THAT(Stat("c").labels, IsEmpty());
}

TEST_P(SnapshotterSuite, CommitFindsErrorsInTheOrderKeyNameKind) {
  AddLayer("p");
  AddLayer("taken");
  Prepare("a", "p");
  View("v", "p");
  View("v0");
  EXPECT_THAT(sn().Commit(call_, "taken", "missing", {}), StatusIs(kNotFound));
  EXPECT_THAT(sn().Commit(call_, "taken", "a", {}), StatusIs(kAlreadyExists));
  EXPECT_THAT(sn().Commit(call_, "v", "a", {}), StatusIs(kAlreadyExists));
  EXPECT_THAT(sn().Commit(call_, "a", "a", {}), StatusIs(kAlreadyExists));
  EXPECT_THAT(sn().Commit(call_, "taken", "v", {}), StatusIs(kAlreadyExists));
  EXPECT_THAT(sn().Commit(call_, "n", "v", {}), StatusIs(kFailedPrecondition));
  EXPECT_THAT(sn().Commit(call_, "n", "v0", {}), StatusIs(kFailedPrecondition));
  EXPECT_THAT(sn().Commit(call_, "n", "p", {}), StatusIs(kFailedPrecondition));
}

TEST_P(SnapshotterSuite, FailedCommitChangesNothing) {
  AddLayer("taken");
  Prepare("a", "taken", {{"l", "v"}});
  const auto before = List();
  EXPECT_THAT(sn().Commit(call_, "taken", "a", {.labels = {{"x", "y"}}}), StatusIs(kAlreadyExists));
  EXPECT_EQ(List(), before);
}

TEST_P(SnapshotterSuite, CommitGivesAParentToAnActiveWithoutOne) {
  AddLayer("p");
  Prepare("a");
  Commit("c", "a", {.parent = "p"});
  EXPECT_EQ(Stat("c").parent, "p");
  EXPECT_THAT(sn().Remove(call_, "p"), StatusIs(kFailedPrecondition));
  Remove("c");
  Remove("p");
}

TEST_P(SnapshotterSuite, CommitMayNameThePresentParent) {
  AddLayer("p");
  Prepare("a", "p");
  Commit("c", "a", {.parent = "p"});
  EXPECT_EQ(Stat("c").parent, "p");
}

TEST_P(SnapshotterSuite, CommitCannotChangeAParent) {
  AddLayer("p");
  AddLayer("other");
  Prepare("a", "p");
  EXPECT_THAT(sn().Commit(call_, "c", "a", {.parent = "other"}), StatusIs(kInvalidArgument));
  EXPECT_EQ(Stat("a").kind, Kind::kActive);
}

TEST_P(SnapshotterSuite, NewParentOfACommitMustExistAndBeCommitted) {
  Prepare("a");
  Prepare("active");
  View("view");
  EXPECT_THAT(sn().Commit(call_, "c", "a", {.parent = "missing"}), StatusIs(kNotFound));
  EXPECT_THAT(sn().Commit(call_, "c", "a", {.parent = "c"}), StatusIs(kNotFound));
  EXPECT_THAT(sn().Commit(call_, "c", "a", {.parent = "active"}), StatusIs(kFailedPrecondition));
  EXPECT_THAT(sn().Commit(call_, "c", "a", {.parent = "view"}), StatusIs(kFailedPrecondition));
  EXPECT_THAT(sn().Commit(call_, "c", "a", {.parent = "a"}), StatusIs(kFailedPrecondition));
  EXPECT_EQ(Stat("a").kind, Kind::kActive);
  EXPECT_EQ(Stat("a").parent, "");
}

TEST_P(SnapshotterSuite, RemoveOfAParentFailsAndSaysSo) {
  AddLayer("p");
  AddLayer("c", "p");
  Prepare("a", "c");
  View("v", "c");
  for (const std::string name : {"p", "c"}) {
    EXPECT_THAT(sn().Remove(call_, name), StatusIs(kFailedPrecondition, HasSubstr("remove")));
  }
  Remove("a");
  EXPECT_THAT(sn().Remove(call_, "c"), StatusIs(kFailedPrecondition));
  Remove("v");
  Remove("c");
  Remove("p");
  EXPECT_THAT(List(), IsEmpty());
}

TEST_P(SnapshotterSuite, RemoveOfAnInBetweenLayerFails) {
  AddLayer("base");
  AddLayer("inter", "base");
  Prepare("top", "inter");
  EXPECT_THAT(sn().Remove(call_, "inter"), StatusIs(kFailedPrecondition));
  Remove("top");
  Remove("inter");
  Remove("base");
}

TEST_P(SnapshotterSuite, SecondRemoveFindsNothing) {
  Prepare("a");
  Remove("a");
  EXPECT_THAT(sn().Remove(call_, "a"), StatusIs(kNotFound));
}

TEST_P(SnapshotterSuite, NamesAreFreeAtOnceAfterRemove) {
  AddLayer("committed-1");
  Prepare("reuse", "committed-1");
  Remove("reuse");
  View("reuse", "committed-1");
  Remove("reuse");
  Prepare("reuse");
  Remove("committed-1");
  Commit("committed-1", "reuse");
  EXPECT_EQ(Stat("committed-1").kind, Kind::kCommitted);
}

TEST_P(SnapshotterSuite, MountsRepeatsWhatWasReturned) {
  AddLayer("p");
  AddLayer("c", "p");
  for (const std::string parent : {"", "p", "c"}) {
    const auto active = Prepare("a" + parent, parent);
    const auto view = View("v" + parent, parent);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(*sn().Mounts(call_, "a" + parent), active);
      EXPECT_EQ(*sn().Mounts(call_, "v" + parent), view);
    }
  }
}

TEST_P(SnapshotterSuite, CommittedHasNoMounts) {
  AddLayer("c");
  EXPECT_THAT(sn().Mounts(call_, "c"), StatusIs(kFailedPrecondition));
}

TEST_P(SnapshotterSuite, MissingKeyIsNotFoundEverywhere) {
  Prepare("there");
  EXPECT_THAT(sn().Stat(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().GetUsage(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Mounts(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Remove(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Update(call_, {.name = "k"}, {}), StatusIs(kNotFound));
  EXPECT_THAT(sn().Commit(call_, "n", "k", {}), StatusIs(kNotFound));
}

TEST_P(SnapshotterSuite, MissingKeyIsNotFoundInAnEmptyStore) {
  EXPECT_THAT(sn().Stat(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().GetUsage(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Mounts(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Remove(call_, "k"), StatusIs(kNotFound));
  EXPECT_THAT(sn().Update(call_, {.name = "k"}, {}), StatusIs(kNotFound));
  EXPECT_THAT(sn().Commit(call_, "n", "k", {}), StatusIs(kNotFound));
}

TEST_P(SnapshotterSuite, EmptyStoreListsAndCleansUp) {
  EXPECT_THAT(List(), IsEmpty());
  EXPECT_THAT(List({"kind==active"}), IsEmpty());
  EXPECT_THAT(sn().Cleanup(call_), IsOk());
}

TEST_P(SnapshotterSuite, ChainOfParentsCanBeWalked) {
  AddLayer("a");
  AddLayer("b", "a");
  EXPECT_EQ(Stat("a").parent, "");
  EXPECT_EQ(Stat("b").parent, "a");
  EXPECT_EQ(Stat(Stat("b").parent).parent, "");
}

TEST_P(SnapshotterSuite, LabelsWithEmptyValuesAreNotStored) {
  const Labels labels = {{"empty", ""}, {"full", "v"}};
  Prepare("a", "", labels);
  View("v", "", labels);
  AddLayer("c", "", labels);
  for (const std::string name : {"a", "v", "c"}) {
    EXPECT_EQ(Stat(name).labels, (Labels{{"full", "v"}})) << name;
  }
}

TEST_P(SnapshotterSuite, LabelsAreStoredAsTheyAre) {
  const Labels labels = {{"containerd.io/snapshot.ref", "sha256:0123"},
                         {"a b=c:d/\x01", "größe \"quoted\" \x02"},
                         {"large", std::string(5000, 'x')}};
  Prepare("a", "", labels);
  EXPECT_EQ(Stat("a").labels, labels);
}

TEST_P(SnapshotterSuite, DirectoriesAreNeverUsedASecondTime) {
  std::set<std::string> seen;
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(seen.insert(OwnDirectory(Prepare("a"))).second);
    Remove("a");
    if (i == 2) {
      Restart();
    }
  }
}

}  // namespace
}  // namespace strata::testing
