// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_fields.h"

#include <string>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using testing::StatusIs;

TEST(TocTimeTest, KnowsTimesOnBothSidesOf1970) {
  EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00Z"), (TocTime{0, 0}));
  EXPECT_EQ(ParseRfc3339("2026-11-24T02:15:35Z"), (TocTime{1795486535, 0}));
  EXPECT_EQ(ParseRfc3339("1969-12-31T23:59:59.5Z"), (TocTime{-1, 500'000'000}));
  EXPECT_EQ(ParseRfc3339("0000-01-01T00:00:00Z"), (TocTime{-62167219200, 0}));
  EXPECT_EQ(ParseRfc3339("9999-12-31T23:59:59Z"), (TocTime{253402300799, 0}));
  EXPECT_EQ(ParseRfc3339("2000-02-29T00:00:00Z"), (TocTime{951782400, 0}));
}

TEST(TocTimeTest, CutsFractionsAtNanosecondsAndAddsZones) {
  EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00.123456789999Z"), (TocTime{0, 123'456'789}));
  EXPECT_EQ(ParseRfc3339("1970-01-01T01:30:00+01:30"), (TocTime{0, 0}));
  EXPECT_EQ(ParseRfc3339("1969-12-31T23:00:00-01:00"), (TocTime{0, 0}));
}

TEST(TocTimeTest, RefusesWhatIsNoTime) {
  for (const std::string_view text :
       {"", "1970", "1970-01-01", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z",
        "1970-00-01T00:00:00Z", "1970-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
        "1970-01-01T24:00:00Z", "1970-01-01T00:60:00Z", "1970-01-01T00:00:60Z",
        "1970-01-01T00:00:00.Z", "1970-01-01T00:00:00Zx", "1970-01-01T00:00:00+1:00",
        "1970-01-01 00:00:00Z", "-970-01-01T00:00:00Z"}) {
    EXPECT_EQ(ParseRfc3339(text), std::nullopt) << text;
  }
}

TEST(Base64Test, DecodesEveryLength) {
  for (const auto& [text, bytes] : std::initializer_list<std::pair<std::string, std::string>>{
           {"", ""},
           {"Zg==", "f"},
           {"Zm8=", "fo"},
           {"Zm9v", "foo"},
           {"Zm9vYg==", "foob"},
           {"AP+/", std::string("\0\xff\xbf", 3)}}) {
    std::string out;
    EXPECT_TRUE(AppendBase64(text, out)) << text;
    EXPECT_EQ(out, bytes);
  }
}

TEST(Base64Test, RefusesOtherTexts) {
  for (const std::string_view text : {"Z", "Zg=", "Zg", "Z===", "Zg=x", "Zm-v", "Zm9v\n"}) {
    std::string out;
    EXPECT_FALSE(AppendBase64(text, out)) << text;
  }
}

StatusOr<std::string> Clean(std::string_view name) {
  std::string scratch;
  STRATA_ASSIGN_OR_RETURN(const std::string_view clean, CleanName(name, 20, 8, scratch));
  return std::string(clean);
}

TEST(CleanNameTest, LeavesOneFormOfEachName) {
  for (const auto& [name, clean] :
       std::initializer_list<std::pair<std::string, std::string>>{{"", ""},
                                                                  {"/", ""},
                                                                  {"./", ""},
                                                                  {"a", "a"},
                                                                  {"/a//b/", "a/b"},
                                                                  {"./a/./b", "a/b"},
                                                                  {"..a/b..", "..a/b.."},
                                                                  {"a/...", "a/..."}}) {
    STRATA_ASSERT_OK_AND_ASSIGN(const std::string result, Clean(name));
    EXPECT_EQ(result, clean) << name;
  }
}

TEST(CleanNameTest, RefusesWhatLeavesTheLayerOrIsTooLong) {
  for (const std::string& name :
       {std::string(".."), std::string("a/../b"), std::string("/.."), std::string("a\0b", 3),
        std::string("123456789"), std::string("a/b/c/d/e/f/g/h/i/j/k")}) {
    EXPECT_THAT(Clean(name), StatusIs(StatusCode::kDataLoss)) << name;
  }
}

}  // namespace
}  // namespace strata
