// SPDX-License-Identifier: Apache-2.0
//
// Names and labels at their edges (snapshots-contract 1.5).
#include "tests/suite/snapshotter_suite.h"

namespace strata::testing {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

constexpr StatusCode kInvalidArgument = StatusCode::kInvalidArgument;

TEST_P(SnapshotterSuite, NamesAreOpaque) {
  const std::vector<std::string> names = {"with blank",
                                          " leading",
                                          "trailing ",
                                          "a/b/c",
                                          "/absolute/path",
                                          "../../escape",
                                          ".",
                                          "..",
                                          "a:b",
                                          "a=b",
                                          "\x01",
                                          "new\nline",
                                          "größe",
                                          "😀",
                                          "k8s.io/12/extract-458-ByGC sha256:b29c",
                                          "quote\"'`\\",
                                          "-flag",
                                          "%41",
                                          "*",
                                          std::string(300, 'x'),
                                          std::string(40'000, 'y')};
  for (const std::string& name : names) {
    const std::string committed = "c:" + name;
    const auto mounts = Prepare(name, "", {{"name", "v"}});
    EXPECT_EQ(Stat(name).name, name);
    EXPECT_EQ(*sn().Mounts(call_, name), mounts);
    EXPECT_THAT(sn().Update(call_, {.name = name, .labels = {{"u", "x"}}}, {}), IsOk());
    EXPECT_THAT(ListNames(), Contains(name));
    EXPECT_THAT(sn().GetUsage(call_, name), IsOk());
    Commit(committed, name);
    View(name, committed);
    EXPECT_EQ(Stat(name).parent, committed);
    Remove(name);
    Remove(committed);
  }
  EXPECT_THAT(List(), IsEmpty());
}

TEST_P(SnapshotterSuite, NamesThatDifferAreNotTheSame) {
  const std::vector<std::string> names = {"a", "A", "a ", " a", "a/", "a//", "ä", "a\xcc\x88"};
  for (const std::string& name : names) {
    Prepare(name);
  }
  EXPECT_THAT(ListNames(), ::testing::UnorderedElementsAreArray(names));
}

TEST_P(SnapshotterSuite, LongestNameWorks) {
  const std::string name(GetParam().longest_name, 'n');
  Prepare(name);
  EXPECT_EQ(Stat(name).name, name);
  Remove(name);
}

std::vector<std::string> BadNames() {
  return {"",
          std::string(kMaxNameBytes + 1, 'n'),
          "a\xff",
          "\xc3",
          "\xed\xa0\x80",
          std::string("nul\0byte", 8)};
}

TEST_P(SnapshotterSuite, BadNamesAreInvalidEverywhere) {
  AddLayer("p");
  Prepare("a");
  const auto before = List();
  for (const std::string& bad : BadNames()) {
    const std::string shown = ShowName(bad);
    EXPECT_THAT(TryPrepare(bad, "p"), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(TryView(bad, "p"), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Commit(call_, bad, "a", {}), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Commit(call_, "n", bad, {}), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Stat(call_, bad), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().GetUsage(call_, bad), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Mounts(call_, bad), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Remove(call_, bad), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Update(call_, {.name = bad}, {}), StatusIs(kInvalidArgument)) << shown;
    if (!bad.empty()) {
      EXPECT_THAT(TryPrepare("k", bad), StatusIs(kInvalidArgument)) << shown;
      EXPECT_THAT(TryView("k", bad), StatusIs(kInvalidArgument)) << shown;
      EXPECT_THAT(sn().Commit(call_, "n", "a", {.parent = bad}), StatusIs(kInvalidArgument))
          << shown;
    }
  }
  EXPECT_EQ(List(), before);
}

TEST_P(SnapshotterSuite, BadLabelsAreInvalidEverywhere) {
  Prepare("a", "", {{"l", "v"}});
  const auto before = List();
  const std::vector<Labels> all = {{{"", "v"}},
                                   {{"a\xff", "v"}},
                                   {{"l", "v\xff"}},
                                   {{"large", std::string(kMaxLabelsBytes + 1, 'x')}}};
  for (const Labels& labels : all) {
    const std::string shown = ShowName(labels.begin()->first);
    EXPECT_THAT(TryPrepare("k", "", labels), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(TryView("k", "", labels), StatusIs(kInvalidArgument)) << shown;
    EXPECT_THAT(sn().Commit(call_, "n", "a", {.labels = labels}), StatusIs(kInvalidArgument))
        << shown;
    EXPECT_THAT(sn().Update(call_, {.name = "a", .labels = labels}, {}), StatusIs(kInvalidArgument))
        << shown;
  }
  EXPECT_EQ(List(), before);
}

}  // namespace
}  // namespace strata::testing
