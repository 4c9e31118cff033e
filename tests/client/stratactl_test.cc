// SPDX-License-Identifier: Apache-2.0
//
// stratactl without a snapshotter; tests/integration/test_stratactl.py has one.
#include "client/stratactl/stratactl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "client/stratactl/table.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

Ran Ctl(const std::vector<std::string>& arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const int code = Stratactl(arguments, out, err);
  return {.code = code, .out = out.str(), .err = err.str()};
}

TEST(StratactlTest, WantsACommand) {
  EXPECT_EQ(Ctl({}).code, 2);
  EXPECT_EQ(Ctl({"bake"}).code, 2);
}

TEST(StratactlTest, HelpIsNoFailure) {
  const Ran ran = Ctl({"--help"});
  EXPECT_EQ(ran.code, 0);
  for (const char* command : {"layers", "counters", "health", "drain", "probe", "ls", "tree", "du",
                              "df", "fsck", "cleanup"}) {
    EXPECT_THAT(ran.out, HasSubstr(command));
  }
}

TEST(StratactlTest, SaysWhichSocketIsMissing) {
  const testing::TempDir dir;
  const Ran ran = Ctl({"layers", "--socket", dir.Join("none.sock")});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr(dir.Join("none.sock")));
  EXPECT_THAT(ran.out, IsEmpty());
}

TEST(StratactlTest, RefusesATimeThatIsNone) {
  EXPECT_EQ(Ctl({"drain", "--timeout", "-1"}).code, 2);
}

TEST(StratactlTest, AsksADaemonOnlyByItsSocket) {
  const testing::TempDir dir;
  for (const char* command : {"layers", "counters", "health", "drain"}) {
    const Ran ran = Ctl({"--root", dir.path(), command});
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.err, HasSubstr("--socket"));
  }
}

TEST(StratactlTest, TakesASocketOrARoot) {
  const Ran ran = Ctl({"--root", "/r", "--socket", "/s", "ls"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("not both"));
}

TEST(StratactlTest, ProbeLeavesNothingBehind) {
  const testing::TempDir dir;
  EXPECT_EQ(Ctl({"probe", "--root", dir.path()}).code, 0);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(StratactlTest, ProbesOnlyADirectoryThatIsThere) {
  const testing::TempDir dir;
  EXPECT_EQ(Ctl({"probe", "--root", dir.Join("none")}).code, 1);
  EXPECT_EQ(Ctl({"probe", "--root", "relative"}).code, 1);
}

TEST(StratactlTest, ProbesWhatTheHostCanDo) {
  const testing::TempDir dir;
  const Ran ran = Ctl({"--json", "probe", "--root", dir.path()});
  EXPECT_EQ(ran.code, 0) << ran.err;
  for (const char* name : {"d_type", "overlay", "userxattr", "idmap", "reflink", "fuse",
                           "fuse-overlayfs", "erofs-file", "fanotify", "erofs", "auto"}) {
    EXPECT_THAT(ran.out, HasSubstr("\"name\":\"" + std::string(name) + "\""));
  }
}

TEST(StratactlTableTest, AlignsColumns) {
  std::ostringstream out;
  PrintTable(out, {"A", "LONG", "C"}, {{"1234", "x", "last"}, {"1", "y", ""}});
  EXPECT_EQ(out.str(), "A     LONG  C\n1234  x     last\n1     y\n");
}

TEST(StratactlTableTest, PrintsNoControlCharacters) {
  std::ostringstream out;
  PrintTable(out, {"A"}, {{"a\x1b[31m\nb"}});
  EXPECT_EQ(out.str(), "A\na?[31m?b\n");
}

TEST(StratactlTableTest, ShowsBytesInTheUnitThatFits) {
  EXPECT_EQ(ShowBytes(0), "0 B");
  EXPECT_EQ(ShowBytes(1023), "1023 B");
  EXPECT_EQ(ShowBytes(1536), "1.5 KiB");
  EXPECT_EQ(ShowBytes(uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(ShowBytes(~uint64_t{0}), "16384.0 PiB");
}

TEST(StratactlTableTest, ShowsTimes) {
  EXPECT_EQ(ShowSeconds(59), "59s");
  EXPECT_EQ(ShowSeconds(200), "3m20s");
  EXPECT_EQ(ShowSeconds(7500), "2h5m");
}

}  // namespace
}  // namespace strata
