// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc.h"

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::IsOk;
using testing::StatusIs;

class FunctionVisitor : public TocVisitor {
 public:
  explicit FunctionVisitor(std::function<Status(const TocEntry&)> function)
      : function_(std::move(function)) {}
  Status OnEntry(const TocEntry& entry) override { return function_(entry); }

 private:
  std::function<Status(const TocEntry&)> function_;
};

StatusOr<TocSummary> Parse(std::string json, const std::function<Status(const TocEntry&)>& function,
                           const TocLimits& limits = {}) {
  FunctionVisitor visitor(function);
  return ParseToc(json, limits, visitor);
}

StatusOr<TocSummary> Parse(std::string json, const TocLimits& limits = {}) {
  return Parse(
      std::move(json), [](const TocEntry&) { return OkStatus(); }, limits);
}

std::string Toc(std::string_view entries) {
  return R"({"version":1,"entries":[)" + std::string(entries) + "]}";
}

// What the one entry of the TOC is, as its test sees it.
Status See(std::string_view entry, const std::function<void(const TocEntry&)>& look) {
  size_t seen = 0;
  const auto result = Parse(Toc(entry), [&](const TocEntry& found) {
    ++seen;
    look(found);
    return OkStatus();
  });
  EXPECT_EQ(seen, result.ok() ? 1 : 0);
  return result.status();
}

TEST(TocTest, ReadsEveryFieldOfAFile) {
  const std::string digest = "sha256:" + std::string(64, 'a');
  const std::string chunk = "sha256:" + std::string(64, 'b');
  EXPECT_THAT(
      See(R"({"name":"usr/bin/x","type":"reg","size":9000000000,"modtime":"1969-12-31T23:59:58.25Z",
              "mode":35309,"uid":70000,"gid":4294967295,"userName":"u","offset":11,
              "chunkOffset":12,"chunkSize":13,"innerOffset":14,"endOffset":15,"NumLink":3,
              "xattrs":{"security.capability":"AQID","user.e":""},"unknown":[{"a":[1,null]}],
              "digest":")" +
              digest + R"(","chunkDigest":")" + chunk + R"("})",
          [](const TocEntry& entry) {
            EXPECT_EQ(entry.type, EntryType::kRegular);
            EXPECT_EQ(entry.name, "usr/bin/x");
            EXPECT_EQ(entry.size, 9'000'000'000);
            EXPECT_EQ(entry.mtime_s, -2);
            EXPECT_EQ(entry.mtime_ns, 250'000'000);
            EXPECT_EQ(entry.mode, 04755);
            EXPECT_EQ(entry.uid, 70000);
            EXPECT_EQ(entry.gid, 4294967295);
            EXPECT_EQ(entry.offset, 11);
            EXPECT_EQ(entry.chunk_offset, 12);
            EXPECT_EQ(entry.chunk_size, 13);
            EXPECT_EQ(entry.inner_offset, 14);
            EXPECT_EQ(entry.end_offset, 15);
            EXPECT_FALSE(entry.zeros);
            ASSERT_EQ(entry.xattrs.size(), 2);
            EXPECT_EQ(entry.xattrs[0].name, "security.capability");
            EXPECT_EQ(entry.xattrs[0].value, "\1\2\3");
            EXPECT_EQ(entry.xattrs[1].value, "");
            ASSERT_TRUE(entry.digest && entry.chunk_digest);
            EXPECT_EQ(entry.digest->front(), 0xaa);
            EXPECT_EQ(entry.chunk_digest->front(), 0xbb);
          }),
      IsOk());
}

TEST(TocTest, LeavesAbsentAndNullFieldsAtZero) {
  EXPECT_THAT(See(R"({"type":"fifo","name":"p","modtime":null,"size":null,"xattrs":null,
                      "digest":""})",
                  [](const TocEntry& entry) {
                    EXPECT_EQ(entry.type, EntryType::kFifo);
                    EXPECT_EQ(entry.mtime_s, 0);
                    EXPECT_EQ(entry.size, 0);
                    EXPECT_TRUE(entry.xattrs.empty());
                    EXPECT_FALSE(entry.digest);
                  }),
              IsOk());
}

TEST(TocTest, ReadsEveryType) {
  const std::map<std::string, EntryType> types = {
      {"reg", EntryType::kRegular},       {"chunk", EntryType::kChunk},
      {"dir", EntryType::kDirectory},     {"char", EntryType::kCharDevice},
      {"block", EntryType::kBlockDevice}, {"fifo", EntryType::kFifo},
      {"symlink", EntryType::kSymlink},   {"hardlink", EntryType::kHardlink}};
  for (const auto& type : types) {
    EXPECT_THAT(
        See(R"({"name":"a","linkName":"b","devMajor":8,"devMinor":1,"type":")" + type.first + "\"}",
            [&](const TocEntry& entry) {
              EXPECT_EQ(entry.type, type.second);
              EXPECT_EQ(entry.dev_major, 8);
              EXPECT_EQ(entry.dev_minor, 1);
            }),
        IsOk());
  }
}

TEST(TocTest, CleansNamesButNotWhatSymlinksHold) {
  EXPECT_THAT(See(R"({"name":"/a//./b/","type":"hardlink","linkName":"./c/d"})",
                  [](const TocEntry& entry) {
                    EXPECT_EQ(entry.name, "a/b");
                    EXPECT_EQ(entry.link_name, "c/d");
                  }),
              IsOk());
  EXPECT_THAT(See(R"({"name":"l","type":"symlink","linkName":"../../x/"})",
                  [](const TocEntry& entry) { EXPECT_EQ(entry.link_name, "../../x/"); }),
              IsOk());
  EXPECT_THAT(See(R"({"name":"./","type":"dir"})",
                  [](const TocEntry& entry) { EXPECT_EQ(entry.name, ""); }),
              IsOk());
}

TEST(TocTest, DecodesEscapedNamesAndKeys) {
  EXPECT_THAT(See(R"({"\u006eame":"\u00fc\n\"","type":"dir"})",
                  [](const TocEntry& entry) { EXPECT_EQ(entry.name, "ü\n\""); }),
              IsOk());
}

TEST(TocTest, ForgetsTheEntryBefore) {
  std::vector<std::string> seen;
  EXPECT_THAT(Parse(Toc(R"({"name":"a","type":"reg","size":5,"xattrs":{"user.a":"AQID"}},
                           {"type":"chunk"})"),
                    [&](const TocEntry& entry) {
                      seen.push_back(std::string(entry.name) + " " + std::to_string(entry.size) +
                                     " " + std::to_string(entry.xattrs.size()));
                      return OkStatus();
                    }),
              IsOk());
  EXPECT_EQ(seen, (std::vector<std::string>{"a 5 1", " 0 0"}));
}

TEST(TocTest, KnowsZeros) {
  EXPECT_THAT(See(R"({"name":"a","type":"reg","chunkType":"zeros"})",
                  [](const TocEntry& entry) { EXPECT_TRUE(entry.zeros); }),
              IsOk());
  EXPECT_THAT(See(R"({"name":"a","type":"reg","chunkType":""})",
                  [](const TocEntry& entry) { EXPECT_FALSE(entry.zeros); }),
              IsOk());
}

TEST(TocTest, FindsLandmarksOfTheRootOnly) {
  STRATA_ASSERT_OK_AND_ASSIGN(
      const TocSummary with,
      Parse(Toc(R"({"name":".prefetch.landmark","type":"reg","size":1,"offset":77})")));
  EXPECT_TRUE(with.has_prefetch_landmark);
  EXPECT_EQ(with.prefetch_end, 77);
  STRATA_ASSERT_OK_AND_ASSIGN(
      const TocSummary without,
      Parse(Toc(R"({"name":"./.no.prefetch.landmark","type":"reg","size":1,"offset":77},
                   {"name":"d/.prefetch.landmark","type":"reg","size":1,"offset":78})")));
  EXPECT_TRUE(without.no_prefetch);
  EXPECT_FALSE(without.has_prefetch_landmark);
  EXPECT_EQ(without.entries, 2);
}

TEST(TocTest, AcceptsAnEmptyLayer) {
  EXPECT_THAT(Parse(Toc("")), IsOk());
  EXPECT_THAT(Parse(R"({"entries":null,"version":1})"), IsOk());
}

struct TocCase {
  std::string name;
  std::string json;
};

class BadTocTest : public ::testing::TestWithParam<TocCase> {};

TEST_P(BadTocTest, IsRefused) {
  const TocLimits limits = {.entries = 2,
                            .name_bytes = 30,
                            .component_bytes = 10,
                            .xattrs = 2,
                            .xattr_value_bytes = 4,
                            .xattr_total_bytes = 6,
                            .file_bytes = 1000};
  EXPECT_THAT(Parse(GetParam().json, limits), StatusIs(StatusCode::kDataLoss));
}

std::string Reg(std::string_view fields) {
  return Toc(R"({"name":"a","type":"reg",)" + std::string(fields) + "}");
}

INSTANTIATE_TEST_SUITE_P(
    Hostile, BadTocTest,
    ::testing::ValuesIn(std::vector<TocCase>{
        {"empty", ""},
        {"no_object", "[]"},
        {"no_version", R"({"entries":[]})"},
        {"other_version", R"({"version":2,"entries":[]})"},
        {"version_of_wrong_type", R"({"version":"1","entries":[]})"},
        {"entries_of_wrong_type", R"({"version":1,"entries":{}})"},
        {"entries_twice", R"({"version":1,"entries":[],"entries":[]})"},
        {"cut", R"({"version":1,"entries":[{"name":"a","type":"dir"})"},
        {"cut_in_text", R"({"version":1,"entries":[{"name":"a)"},
        {"more_behind", Toc("") + "{}"},
        {"entry_of_wrong_type", Toc("1")},
        {"no_type", Toc(R"({"name":"a"})")},
        {"unknown_type", Toc(R"({"name":"a","type":"socket"})")},
        {"no_name", Toc(R"({"type":"reg"})")},
        {"root_is_a_file", Toc(R"({"name":"/","type":"reg"})")},
        {"dot_dot", Toc(R"({"name":"a/../b","type":"reg"})")},
        {"nul", Toc(R"({"name":"a\u0000b","type":"reg"})")},
        {"not_utf8", Toc("{\"name\":\"a\xff\",\"type\":\"reg\"}")},
        {"lone_surrogate", Toc(R"({"name":"\ud800","type":"reg"})")},
        {"long_name", Toc(R"({"name":"a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p","type":"reg"})")},
        {"long_component", Toc(R"({"name":"12345678901","type":"reg"})")},
        {"too_many", Toc(R"({"name":"a","type":"dir"},{"name":"b","type":"dir"},
                            {"name":"c","type":"dir"})")},
        {"hardlink_to_nothing", Toc(R"({"name":"a","type":"hardlink"})")},
        {"hardlink_out", Toc(R"({"name":"a","type":"hardlink","linkName":"../b"})")},
        {"symlink_to_nothing", Toc(R"({"name":"a","type":"symlink"})")},
        {"symlink_nul", Toc(R"({"name":"a","type":"symlink","linkName":"x\u0000"})")},
        {"symlink_long",
         Toc(R"({"name":"a","type":"symlink","linkName":"123456789012345678901234567890"})")},
        {"size_negative", Reg(R"("size":-1)")},
        {"size_float", Reg(R"("size":1.5)")},
        {"size_text", Reg(R"("size":"1")")},
        {"size_large", Reg(R"("size":1001)")},
        {"size_wraps", Reg(R"("size":18446744073709551617)")},
        {"offset_large", Reg(R"("offset":9223372036854775808)")},
        {"uid_large", Reg(R"("uid":4294967296)")},
        {"time", Reg(R"("modtime":"yesterday")")},
        {"digest", Reg(R"("digest":"sha256:00")")},
        {"digest_algorithm", Reg(R"("chunkDigest":"md5:00")")},
        {"chunk_type", Reg(R"("chunkType":"ones")")},
        {"xattr_base64", Reg(R"("xattrs":{"user.a":"!"})")},
        {"xattr_no_name", Reg(R"("xattrs":{"":"AQID"})")},
        {"xattr_twice", Reg(R"("xattrs":{"user.a":"AQID","user.a":"AQID"})")},
        {"xattr_number", Reg(R"("xattrs":{"user.a":1})")},
        {"xattr_large", Reg(R"("xattrs":{"user.a":"AQIDBAU="})")},
        {"xattrs_large", Reg(R"("xattrs":{"user.a":"AQIDBA==","user.b":"AQID"})")},
        {"xattrs_many", Reg(R"("xattrs":{"user.a":"","user.b":"","user.c":""})")},
    }),
    [](const auto& test_info) { return test_info.param.name; });

TEST(TocTest, NamesTheEntryInErrors) {
  EXPECT_THAT(
      Parse(Toc(R"({"name":"a","type":"dir"},{"name":"usr/bin/x","type":"reg","size":-1})")),
      StatusIs(StatusCode::kDataLoss, ::testing::StartsWith("TOC: entry 1 'usr/bin/x': 'size'")));
}

TEST(TocTest, GivesTheVisitorsErrorBack) {
  EXPECT_THAT(
      Parse(Toc(R"({"name":"a","type":"dir"})"),
            [](const TocEntry&) { return MakeStatus(StatusCode::kResourceExhausted, "full"); }),
      StatusIs(StatusCode::kResourceExhausted, "TOC: entry 0 'a': full"));
}

TEST(TocTest, BoundsTheWholeText) {
  EXPECT_THAT(Parse(Toc(""), {.toc_bytes = 10}), StatusIs(StatusCode::kDataLoss));
}

}  // namespace
}  // namespace strata
