// SPDX-License-Identifier: Apache-2.0
//
// What stratactl prints of snapshots and roots, as tables and as JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "client/stratactl/node.h"
#include "client/stratactl/output.h"
#include "client/stratactl/root_commands.h"
#include "client/stratactl/snapshot_commands.h"
#include "client/stratactl/table.h"
#include "tests/support/status_matchers.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;

constexpr TimeNs kSecond = 1'000'000'000;
constexpr TimeNs kNow = 1'700'000'000 * kSecond;

NodeSnapshot Snapshot(SnapshotId id, std::string name, std::string parent, Kind kind,
                      int64_t size) {
  return {.id = id,
          .info = {.name = std::move(name),
                   .parent = std::move(parent),
                   .kind = kind,
                   .created = kNow - 90 * kSecond,
                   .updated = kNow - 90 * kSecond,
                   .labels = {{"k", "v"}, {"l", "w"}}},
          .usage = {.size = size, .inodes = 3}};
}

// What `print` prints.
template <typename Print>
std::string Printed(Print print, bool json = false, size_t columns = 0) {
  std::ostringstream out;
  std::ostringstream err;
  print(Output{.out = out, .err = err, .json = json, .terminal = {.columns = columns}});
  return out.str();
}

TEST(StratactlOutputTest, ShortensTheMiddleOfLongCellsUntilLinesFit) {
  const std::string digest = "sha256:" + std::string(64, 'a') + "tail";
  std::ostringstream out;
  PrintTable(out, {"ID", "NAME"}, {{"1", digest}}, 30);
  EXPECT_EQ(out.str(), "ID  NAME\n1   sha256:aaaaa...aaaaaaatail\n");
}

TEST(StratactlOutputTest, ShortensNothingWithoutATerminal) {
  const std::string name(500, 'x');
  std::ostringstream out;
  PrintTable(out, {"NAME"}, {{name}});
  EXPECT_EQ(out.str(), "NAME\n" + name + "\n");
}

TEST(StratactlOutputTest, ShortensTheWidestColumnsFirst) {
  std::ostringstream out;
  PrintTable(out, {"A", "B", "C"}, {{std::string(30, 'a'), std::string(20, 'b'), "short"}}, 40);
  EXPECT_THAT(out.str(), HasSubstr("short"));
  std::istringstream lines(out.str());
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 40U) << line;
  }
}

TEST(StratactlOutputTest, CountsCharactersAndNotBytes) {
  std::ostringstream out;
  PrintTable(out, {"NAME", "B"}, {{"\xc3\xa4\xc3\xb6", "x"}, {"abcdef", "y"}});
  EXPECT_EQ(out.str(), "NAME    B\n\xc3\xa4\xc3\xb6      x\nabcdef  y\n");
  EXPECT_EQ(Shortened("\xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\xc3\xb6\xc3\xbc", 5),
            "\xc3\xa4...\xc3\xbc");
}

TEST(StratactlOutputTest, PrintsNothingThatATerminalObeys) {
  EXPECT_EQ(Printable("a\x1b[2Jb\x7f\n"), "a?[2Jb??");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "?31m")
      << "a control character of UTF-8";
  EXPECT_EQ(Printable("\xe2\x80\xae"
                      "gpj.exe"),
            "?gpj.exe")
      << "turns the direction of writing";
  EXPECT_EQ(Printable("\xff\xc3"), "??");
  EXPECT_EQ(Printable("\xc0\x9b"), "??") << "longer than it need be";
  EXPECT_EQ(Printable("\xc3\xa4\xf0\x9f\x90\xa7"), "\xc3\xa4\xf0\x9f\x90\xa7");
}

TEST(StratactlOutputTest, PrintsJsonInAscii) {
  std::ostringstream out;
  PrintJson(out, {{"name", "\x1b\x7f\xc2\x9b\xff"}});
  EXPECT_EQ(out.str(), "{\"name\":\"\\u001b\\u007f\\u009b\\ufffd\"}\n");
}

TEST(StratactlOutputTest, ListsSnapshots) {
  const std::vector<NodeSnapshot> rows = {Snapshot(1, "base", "", Kind::kCommitted, 4096),
                                          Snapshot(2, "c", "base", Kind::kActive, 1 << 20)};
  EXPECT_EQ(Printed([&](const Output& o) { PrintSnapshots(rows, /*labels=*/false, kNow, o); }),
            "ID  NAME  KIND       PARENT  SIZE     AGE\n"
            "1   base  committed          4.0 KiB  1m30s\n"
            "2   c     active     base    1.0 MiB  1m30s\n");
  EXPECT_THAT(Printed([&](const Output& o) { PrintSnapshots(rows, /*labels=*/true, kNow, o); }),
              HasSubstr("k=v l=w"));
}

TEST(StratactlOutputTest, ListsSnapshotsAsJson) {
  NodeSnapshot unknown = Snapshot(2, "c", "base", Kind::kActive, 0);
  unknown.unmeasured = "it is gone";
  const std::vector<NodeSnapshot> rows = {Snapshot(1, "base", "", Kind::kCommitted, 4096), unknown};
  const Json list = Json::parse(Printed(
      [&](const Output& o) { PrintSnapshots(rows, /*labels=*/false, kNow, o); }, /*json=*/true));
  EXPECT_EQ(list[0], Json({{"id", 1},
                           {"name", "base"},
                           {"parent", ""},
                           {"kind", "committed"},
                           {"created", "2023-11-14T22:11:50Z"},
                           {"updated", "2023-11-14T22:11:50Z"},
                           {"size", 4096},
                           {"inodes", 3}}));
  EXPECT_TRUE(list[1]["size"].is_null());
  EXPECT_EQ(list[1]["unmeasured"], "it is gone");
}

TEST(StratactlOutputTest, SaysWhoseASnapshotIs) {
  NodeSnapshot row = Snapshot(1,
                              "\x01"
                              "build\x01"
                              "a",
                              "\x01"
                              "build\x01"
                              "b",
                              Kind::kView, 0);
  TakeTenant(row);
  EXPECT_EQ(row.tenant, "build");
  EXPECT_EQ(row.info.name, "a");
  EXPECT_EQ(row.info.parent, "b");
  const auto print = [&](const Output& o) { PrintSnapshots({row}, /*labels=*/false, kNow, o); };
  EXPECT_THAT(Printed(print), HasSubstr("TENANT"));
  EXPECT_EQ(Json::parse(Printed(print, /*json=*/true))[0]["tenant"], "build");
}

TEST(StratactlOutputTest, LeavesANameWithoutATenantAsItIs) {
  NodeSnapshot row = Snapshot(1,
                              "\x01"
                              "a",
                              "", Kind::kView, 0);
  TakeTenant(row);
  EXPECT_EQ(row.tenant, "");
  EXPECT_EQ(row.info.name,
            "\x01"
            "a");
}

TEST(StratactlOutputTest, DrawsAnOnlyChildBelowItsParent) {
  std::vector<UsedSnapshot> rows;
  for (NodeSnapshot& snapshot : std::vector<NodeSnapshot>{
           Snapshot(1, "a", "", Kind::kCommitted, 1), Snapshot(2, "b", "a", Kind::kCommitted, 1),
           Snapshot(3, "c", "b", Kind::kCommitted, 1), Snapshot(4, "d", "c", Kind::kCommitted, 1),
           Snapshot(5, "e", "c", Kind::kCommitted, 1), Snapshot(6, "f", "d", Kind::kActive, 1),
           Snapshot(7, "g", "e", Kind::kActive, 1), Snapshot(8, "h", "gone", Kind::kView, 0)}) {
    rows.push_back({.snapshot = std::move(snapshot), .users = {}});
  }
  rows[5].users = {{.mount_point = "/run/c/rootfs", .pids = {17, 18}}};
  EXPECT_EQ(Printed([&](const Output& o) { PrintTree(rows, kNow, o); }),
            "SNAPSHOT                   KIND       SIZE  AGE    USED BY\n"
            "a                          committed  1 B   1m30s\n"
            "`- b                       committed  1 B   1m30s\n"
            "`- c                       committed  1 B   1m30s\n"
            "   |- d                    committed  1 B   1m30s\n"
            "   |  `- f                 active     1 B   1m30s  /run/c/rootfs (pid 17 18)\n"
            "   `- e                    committed  1 B   1m30s\n"
            "      `- g                 active     1 B   1m30s\n"
            "h (its parent is missing)  view       0 B   1m30s\n");
  const Json list =
      Json::parse(Printed([&](const Output& o) { PrintTree(rows, kNow, o); }, /*json=*/true));
  ASSERT_EQ(list.size(), 8U);
  EXPECT_EQ(list[4]["name"], "f");
  EXPECT_EQ(list[4]["used_by"][0]["pids"], Json({17, 18}));
}

TEST(StratactlOutputTest, DrawsParentsInACircleOnce) {
  const std::vector<UsedSnapshot> rows = {
      {.snapshot = Snapshot(1, "a", "b", Kind::kCommitted, 1), .users = {}},
      {.snapshot = Snapshot(2, "b", "a", Kind::kCommitted, 1), .users = {}}};
  EXPECT_EQ(Json::parse(Printed([&](const Output& o) { PrintTree(rows, kNow, o); }, /*json=*/true))
                .size(),
            2U);
}

TEST(StratactlOutputTest, AddsUpWhatIsUsed) {
  const std::vector<NodeSnapshot> rows = {Snapshot(1, "small", "", Kind::kCommitted, 4096),
                                          Snapshot(2, "large", "", Kind::kActive, 1 << 20)};
  EXPECT_EQ(Printed([&](const Output& o) { PrintUsage(rows, o); }),
            "SIZE     INODES  KIND       NAME\n"
            "1.0 MiB  3       active     large\n"
            "4.0 KiB  3       committed  small\n"
            "1.0 MiB  6       total      2 snapshots\n");
  const Json all = Json::parse(Printed([&](const Output& o) { PrintUsage(rows, o); }, true));
  EXPECT_EQ(all["total_size"], (1 << 20) + 4096);
  EXPECT_EQ(all["total_inodes"], 6);
}

TEST(StratactlOutputTest, ShowsSpace) {
  const RootSpace space{.file_system = "ext4",
                        .total_bytes = uint64_t{10} << 30,
                        .free_bytes = uint64_t{4} << 30,
                        .trash_entries = 2,
                        .trash_bytes = 8192,
                        .layers = 3,
                        .layer_bytes = 1 << 20};
  const auto print = [&](const std::string& kind) {
    return [&, kind](const Output& o) { PrintSpace({.kind = kind, .root = "/r"}, space, o); };
  };
  EXPECT_THAT(Printed(print("overlayfs")), HasSubstr("4.0 GiB   40% of it"));
  EXPECT_THAT(Printed(print("overlayfs")), Not(HasSubstr("layers")));
  EXPECT_THAT(Printed(print("stargz")), HasSubstr("3 lazy layers"));
  EXPECT_EQ(Json::parse(Printed(print("stargz"), /*json=*/true))["trash_size"], 8192);
}

// A root with what the test says is wrong; all that is repairable can be mended.
class FakeNode final : public Node {
 public:
  StatusOr<Description> Describe() override { return Description{.kind = "native", .root = "/r"}; }
  StatusOr<std::vector<NodeSnapshot>> Snapshots(bool /*labels*/, Progress& /*p*/) override {
    return std::vector<NodeSnapshot>();
  }
  StatusOr<NodeCheck> Check(Progress& /*progress*/) override { return check; }
  StatusOr<RootSpace> Space() override { return RootSpace(); }
  Status Cleanup() override { return OkStatus(); }
  Status CanRepair() override { return can_repair; }
  StatusOr<std::vector<Status>> Repair(const std::vector<RootFinding>& findings) override {
    if (repair_result.ok()) {
      check.findings.clear();
    }
    return std::vector<Status>(findings.size(), repair_result);
  }

  NodeCheck check;
  Status can_repair;
  Status repair_result;
};

NodeFinding Orphan(const std::string& path) {
  return {.problem = "no-record",
          .found = {.path = path,
                    .bytes = 4096,
                    .detail = "no snapshot has this directory",
                    .repair = "it is removed",
                    .repairable = true}};
}

TEST(StratactlOutputTest, FsckSaysWhatItFindsAndWhatWouldBeDone) {
  FakeNode node;
  node.check = {.findings = {Orphan("snapshots/7")}, .records = 3, .directories = 4};
  Status status;
  const std::string out =
      Printed([&](const Output& o) { status = CheckNode(node, /*repair=*/false, o); });
  EXPECT_EQ(out,
            "no-record: snapshots/7 (4.0 KiB)\n"
            "    no snapshot has this directory\n"
            "    repair: it is removed\n"
            "3 snapshots, 4 directories: 1 wrong\n");
  EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("1 of")));
}

TEST(StratactlOutputTest, FsckSaysWhatWasRepaired) {
  FakeNode node;
  node.check = {.findings = {Orphan("snapshots/7")}};
  Status status;
  const std::string out =
      Printed([&](const Output& o) { status = CheckNode(node, /*repair=*/true, o); });
  EXPECT_THAT(out, HasSubstr("repaired: snapshots/7\n"));
  EXPECT_THAT(out, HasSubstr("nothing wrong, 1 repaired"));
  EXPECT_THAT(status, IsOk());
}

TEST(StratactlOutputTest, FsckEndsWhenARepairFails) {
  FakeNode node;
  node.check = {.findings = {Orphan("snapshots/7\n")}};
  node.repair_result = MakeStatus(StatusCode::kUnavailable, "disk\x1b full");
  Status status;
  const std::string out =
      Printed([&](const Output& o) { status = CheckNode(node, /*repair=*/true, o); });
  EXPECT_THAT(out, HasSubstr("not repaired: snapshots/7?: disk? full\n"));
  EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition));
}

TEST(StratactlOutputTest, FsckDoesNothingWhereItMayNotRepair) {
  FakeNode node;
  node.can_repair = MakeStatus(StatusCode::kFailedPrecondition, "it is served");
  Status status;
  EXPECT_THAT(Printed([&](const Output& o) { status = CheckNode(node, /*repair=*/true, o); }),
              IsEmpty());
  EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition, "it is served"));
}

TEST(StratactlOutputTest, SaysHowFarLongWorkIsOnlyOnATerminal) {
  std::ostringstream out;
  std::ostringstream err;
  const Output output{.out = out, .err = err};
  Progress progress(output);
  progress.Tell("far");
  EXPECT_THAT(err.str(), IsEmpty());
}

}  // namespace
}  // namespace strata::testing
