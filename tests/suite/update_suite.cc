// SPDX-License-Identifier: Apache-2.0
//
// Update and its mask (snapshots-contract 1.2).
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

const Labels kOld = {{"l1", "old"}, {"l2", "old"}, {"dots.and/slash", "old"}};

struct MaskCase {
  std::vector<std::string> mask;
  Labels given;
  Labels expected;
};

TEST_P(SnapshotterSuite, MaskTellsWhichLabelsChange) {
  const std::vector<MaskCase> cases = {
      {{}, {{"new", "n"}}, {{"new", "n"}}},
      {{}, {}, {}},
      {{}, {{"new", "n"}, {"empty", ""}}, {{"new", "n"}}},
      {{"labels"}, {{"new", "n"}}, {{"new", "n"}}},
      {{"labels"}, {{"empty", ""}}, {}},
      {{"labels.l1"},
       {{"l1", "n"}, {"l4", "not named"}},
       {{"l1", "n"}, {"l2", "old"}, {"dots.and/slash", "old"}}},
      {{"labels.new"},
       {{"new", "n"}},
       {{"l1", "old"}, {"l2", "old"}, {"dots.and/slash", "old"}, {"new", "n"}}},
      // Named, but not there or empty: deleted.
      {{"labels.l1", "labels.l2"}, {{"l1", "n"}}, {{"l1", "n"}, {"dots.and/slash", "old"}}},
      {{"labels.l1"}, {{"l1", ""}}, {{"l2", "old"}, {"dots.and/slash", "old"}}},
      {{"labels.none"}, {}, kOld},
      // Everything behind the first "labels." is the key.
      {{"labels.dots.and/slash"},
       {{"dots.and/slash", "n"}},
       {{"l1", "old"}, {"l2", "old"}, {"dots.and/slash", "n"}}},
      {{"labels.labels.x"},
       {{"labels.x", "n"}},
       {{"l1", "old"}, {"l2", "old"}, {"dots.and/slash", "old"}, {"labels.x", "n"}}},
      // One after the other.
      {{"labels", "labels.l1"}, {{"l1", "n"}, {"l5", "n"}}, {{"l1", "n"}, {"l5", "n"}}},
  };
  int number = 0;
  for (const MaskCase& test : cases) {
    const std::string key = "k" + std::to_string(number++);
    Prepare(key, "", kOld);
    const auto answer = sn().Update(call_, {.name = key, .labels = test.given}, test.mask);
    ASSERT_THAT(answer, IsOk()) << key;
    EXPECT_EQ(answer->labels, test.expected) << key;
    EXPECT_EQ(*answer, Stat(key)) << key;
  }
}

TEST_P(SnapshotterSuite, OtherFieldsCannotBeUpdated) {
  Prepare("k", "", kOld);
  const SnapshotInfo before = Stat("k");
  for (const std::string path : {"name", "parent", "kind", "created", "created_at", "updated_at",
                                 "bogus", "label", "labelsx", "Labels", "info.labels"}) {
    const SnapshotInfo info{
        .name = "k", .parent = "p", .kind = Kind::kView, .labels = {{"x", "y"}}};
    EXPECT_THAT(sn().Update(call_, info, {path}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(path)));
    // A good path beside it does not help.
    EXPECT_THAT(sn().Update(call_, info, {"labels.x", path}),
                StatusIs(StatusCode::kInvalidArgument));
    EXPECT_THAT(sn().Update(call_, info, {path, "labels"}), StatusIs(StatusCode::kInvalidArgument));
  }
  EXPECT_EQ(Stat("k"), before);
}

TEST_P(SnapshotterSuite, UpdateKeepsEverythingButLabelsAndUpdated) {
  AddLayer("c1");
  AddLayer("c2", "c1");
  Prepare("a", "c2");
  View("v", "c2");
  for (const std::string name : {"c1", "c2", "a", "v"}) {
    SnapshotInfo expected = Stat(name);
    EXPECT_EQ(expected.created, expected.updated);
    expected.labels = {{"l", "v"}};
    const TimeNs before = WallClock();
    const auto answer = sn().Update(call_,
                                    {.name = name,
                                     .parent = "doesnotexist",
                                     .kind = Kind::kView,
                                     .created = 1,
                                     .updated = 1,
                                     .labels = {{"l", "v"}}},
                                    {});
    const TimeNs after = WallClock();
    ASSERT_THAT(answer, IsOk());
    EXPECT_LE(before, answer->updated) << name;
    EXPECT_LE(answer->updated, after) << name;
    expected.updated = answer->updated;
    EXPECT_EQ(*answer, expected) << name;
    EXPECT_EQ(Stat(name), expected) << name;
  }
}

TEST_P(SnapshotterSuite, UpdatedRowsStayInPlace) {
  AddLayer("p");
  Prepare("a", "p");
  const auto mounts = *sn().Mounts(call_, "a");
  ASSERT_THAT(sn().Update(call_, {.name = "p", .labels = {{"l", "v"}}}, {}), IsOk());
  ASSERT_THAT(sn().Update(call_, {.name = "a", .labels = {{"l", "v"}}}, {}), IsOk());
  EXPECT_EQ(*sn().Mounts(call_, "a"), mounts);
  EXPECT_THAT(sn().Remove(call_, "p"), StatusIs(StatusCode::kFailedPrecondition));
  Commit("c", "a");
  EXPECT_EQ(Stat("c").parent, "p");
}

}  // namespace
}  // namespace strata::testing
