// SPDX-License-Identifier: Apache-2.0
//
// List: filters, pages, and what may happen while a list is open (snapshots-contract 1.3, 4.8).
#include <map>

#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using ::testing::UnorderedElementsAreArray;

std::vector<std::string> Numbered(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    names.push_back("n" + std::to_string(i));
  }
  return names;
}

TEST_P(SnapshotterSuite, FiltersChooseRows) {
  AddLayer("p");
  Prepare("a-np");
  Prepare("a", "p");
  View("v", "p");
  AddLayer("p-wl", "", {{"l", "1"}, {"x.y/z", "root"}});
  Prepare("a-wl", "p-wl", {{"l", "2"}});
  View("v-wl", "p-wl", {{"l", "3"}});
  Prepare("a-np-wl", "", {{"l", "2"}});
  const std::vector<std::pair<std::vector<std::string>, std::vector<std::string>>> cases = {
      {{}, {"p", "a-np", "a", "v", "p-wl", "a-wl", "v-wl", "a-np-wl"}},
      {{""}, {"p", "a-np", "a", "v", "p-wl", "a-wl", "v-wl", "a-np-wl"}},
      {{"kind==active"}, {"a-np", "a", "a-wl", "a-np-wl"}},
      {{"kind==view"}, {"v", "v-wl"}},
      {{"kind==committed"}, {"p", "p-wl"}},
      {{"kind==COMMITTED"}, {}},
      {{"name==p", "name==a-np-wl"}, {"p", "a-np-wl"}},
      {{"name==a-wl,labels.l"}, {"a-wl"}},
      {{"name==a,labels.l"}, {}},
      {{"parent==p"}, {"a", "v"}},
      {{"parent==\"\""}, {"p", "a-np", "p-wl", "a-np-wl"}},
      {{"parent!=\"\""}, {"a", "v", "a-wl", "v-wl"}},
      {{"labels.l"}, {"p-wl", "a-wl", "v-wl", "a-np-wl"}},
      {{"labels.l==2"}, {"a-wl", "a-np-wl"}},
      {{"labels.l!=2"}, {"p", "a-np", "a", "v", "p-wl", "v-wl"}},
      {{"labels.\"x.y/z\"==root"}, {"p-wl"}},
      {{"labels.\"x.y/z\"==\"root\",parent==\"\""}, {"p-wl"}},
      {{"name~=/^a-(np|wl)$/"}, {"a-np", "a-wl"}},
      {{"nosuchfield"}, {}},
      {{"labels.l==1", "kind==view"}, {"p-wl", "v", "v-wl"}},
  };
  for (const auto& [filters, names] : cases) {
    EXPECT_THAT(ListNames(filters), UnorderedElementsAreArray(names))
        << ::testing::PrintToString(filters);
  }
}

TEST_P(SnapshotterSuite, BadFilterFailsBeforeAnyRow) {
  Prepare("a");
  for (const std::string bad :
       {"==", "name==", "name=a", "name==fc,", ",", "name==\"open", "labels.==x", "name==a "}) {
    EXPECT_THAT(sn().List(call_, {"name==a", bad}), StatusIs(StatusCode::kInvalidArgument)) << bad;
  }
}

TEST_P(SnapshotterSuite, RowsAreThoseOfStat) {
  AddLayer("p", "", {{"l", "v"}});
  Prepare("a", "p", {{"m", "w"}});
  View("v", "p");
  ASSERT_THAT(sn().Update(call_, {.name = "a", .labels = {{"u", "x"}}}, {"labels.u"}), IsOk());
  EXPECT_THAT(List(), UnorderedElementsAre(Stat("p"), Stat("a"), Stat("v")));
}

TEST_P(SnapshotterSuite, ManyRowsComeInPagesEachOnce) {
  const auto numbered = Numbered(250);
  for (const std::string& name : numbered) {
    Prepare(name);
  }
  EXPECT_THAT(ListNames(), UnorderedElementsAreArray(numbered));
}

TEST_P(SnapshotterSuite, EndOfAListStaysTheEnd) {
  Prepare("a");
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, sn().List(call_, {}));
  EXPECT_THAT(*cursor->Next(), SizeIs(1));
  EXPECT_THAT(*cursor->Next(), IsEmpty());
  Prepare("b");
  EXPECT_THAT(*cursor->Next(), IsEmpty());
}

TEST_P(SnapshotterSuite, StatWorksOnEveryRowWhileTheListIsOpen) {
  for (const std::string& name : Numbered(150)) {
    Prepare(name);
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, sn().List(call_, {}));
  for (;;) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto page, cursor->Next());
    if (page.empty()) {
      break;
    }
    for (const SnapshotInfo& row : page) {
      EXPECT_EQ(Stat(row.name), row);
    }
  }
}

// As containerd's collector might: everything goes while it is read.
TEST_P(SnapshotterSuite, RemoveWorksOnEveryRowWhileTheListIsOpen) {
  for (const std::string& name : Numbered(250)) {
    Prepare(name);
  }
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, sn().List(call_, {}));
  int rows = 0;
  for (;;) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto page, cursor->Next());
    if (page.empty()) {
      break;
    }
    for (const SnapshotInfo& row : page) {
      Remove(row.name);
      ++rows;
    }
  }
  EXPECT_EQ(rows, 250);
  EXPECT_THAT(List(), IsEmpty());
}

TEST_P(SnapshotterSuite, ChangesDuringAListLeaveTheOtherRowsInIt) {
  const auto kept = Numbered(220);
  for (const std::string& name : kept) {
    Prepare(name);
    Prepare("gone-" + name);
  }
  std::map<std::string, int> seen;
  STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, sn().List(call_, {}));
  int next = 0;
  for (;;) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto page, cursor->Next());
    if (page.empty()) {
      break;
    }
    for (const SnapshotInfo& row : page) {
      ++seen[row.name];
    }
    for (int i = 0; i < 40 && next < 220; ++i, ++next) {
      Remove("gone-n" + std::to_string(next));
      Prepare("added-n" + std::to_string(next));
    }
  }
  for (const std::string& name : kept) {
    EXPECT_EQ(seen[name], 1) << name;
  }
  for (const auto& [name, times] : seen) {
    EXPECT_LE(times, 1) << name;
  }
}

TEST_P(SnapshotterSuite, DroppedListHoldsNothing) {
  for (const std::string& name : Numbered(250)) {
    Prepare(name);
  }
  for (int i = 0; i < 20; ++i) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto cursor, sn().List(call_, {}));
    STRATA_ASSERT_OK_AND_ASSIGN(const auto page, cursor->Next());
    EXPECT_THAT(page, ::testing::Not(IsEmpty()));
  }
  Prepare("after");
  EXPECT_THAT(ListNames(), SizeIs(251));
}

}  // namespace
}  // namespace strata::testing
