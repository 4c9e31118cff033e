// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/core/snapshot.h"
#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::strata::testing::IsOk;
using ::strata::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

template <typename Case>
std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

SnapshotInfo Sample() {
  return {
      .name = "foo",
      .parent = "/a/b c",
      .kind = Kind::kCommitted,
      .labels = {{"l", "2"},
                 {"empty", ""},
                 {"a.b", "x,y"},
                 {"containerd.io/snapshot.ref", "sha256:aa"},
                 {"é", "ü\n\"q\""},
                 {"newline", "one\ntwo"}},
  };
}

// --- What matches ---

struct MatchCase {
  const char* name;
  std::string text;
  bool matches;
};

void PrintTo(const MatchCase& c, std::ostream* out) {
  *out << ShowName(c.text);
}

class FilterMatchTest : public ::testing::TestWithParam<MatchCase> {};

TEST_P(FilterMatchTest, AgreesWithTheTable) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({GetParam().text}));
  EXPECT_EQ(filter.Matches(Sample()), GetParam().matches);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, FilterMatchTest,
    ::testing::Values(
        MatchCase{"Name", "name==foo", true}, MatchCase{"OtherName", "name==fo", false},
        MatchCase{"Parent", R"(parent=="/a/b c")", true},
        MatchCase{"Kind", "kind==committed", true}, MatchCase{"OtherKind", "kind==view", false},
        MatchCase{"KindIsCaseSensitive", "kind==Committed", false},
        MatchCase{"FieldIsCaseSensitive", "Name==foo", false},
        MatchCase{"QuotedField", R"("name"==foo)", true},
        MatchCase{"EscapedField", R"("\x6eame"==foo)", true},
        MatchCase{"Label", "labels.l==2", true}, MatchCase{"OtherLabel", "labels.m==2", false},
        MatchCase{"LabelPathIsJoined", "labels.a.b~=x", true},
        MatchCase{"QuotedLabel", R"(labels."a.b"~=x)", true},
        MatchCase{"QuotedParts", R"(labels."a"."b"~=x)", true},
        MatchCase{"MixedParts", R"(labels."a".b~=x)", true},
        MatchCase{"LabelWithSlash", R"(labels."containerd.io/snapshot.ref"==sha256:aa)", true},
        MatchCase{"LabelBeyondAscii", R"(labels."é"~=q)", true},
        MatchCase{"PathBelowName", "name.x==foo", true},
        MatchCase{"UnknownField", "unknown==x", false},
        MatchCase{"OneCharacterField", "x==x", false}, MatchCase{"DigitField", "1==1", false},
        MatchCase{"UnderscoreField", "_==_", false}, MatchCase{"EmptyField", R"(""==x)", false},
        MatchCase{"CreatedIsNoField", "created", false}),
    CaseName<MatchCase>);

INSTANTIATE_TEST_SUITE_P(
    Presence, FilterMatchTest,
    ::testing::Values(MatchCase{"Name", "name", true}, MatchCase{"Parent", "parent", true},
                      MatchCase{"Kind", "kind", true}, MatchCase{"Label", "labels.l", true},
                      MatchCase{"EmptyLabel", "labels.empty", true},
                      MatchCase{"AbsentLabel", "labels.m", false},
                      MatchCase{"LabelsAlone", "labels", false},
                      MatchCase{"EmptyLabelKey", R"(labels."")", false},
                      MatchCase{"UnknownField", "unknown", false},
                      MatchCase{"SeveralOfThem", "labels.l,name,labels.empty", true},
                      MatchCase{"OneOfThemAbsent", "labels.l,labels.m,name", false}),
    CaseName<MatchCase>);

INSTANTIATE_TEST_SUITE_P(
    Operators, FilterMatchTest,
    ::testing::Values(
        MatchCase{"EqualEmpty", R"(labels.empty=="")", true},
        MatchCase{"EqualNeedsTheField", R"(labels.m=="")", false},
        MatchCase{"NotEqual", "name!=bar", true}, MatchCase{"NotEqualButIs", "name!=foo", false},
        MatchCase{"NotEqualOfAbsent", "labels.m!=x", true},
        MatchCase{"NotEqualOfUnknown", "unknown!=x", true},
        // An absent field counts as "" here.
        MatchCase{"NotEmptyOfAbsent", R"(labels.m!="")", false},
        MatchCase{"NotEmptyOfEmpty", R"(labels.empty!="")", false},
        MatchCase{"NotEmpty", R"(labels.l!="")", true},
        MatchCase{"RegexUnanchored", "name~=o", true},
        MatchCase{"RegexAnchored", "name~=^o", false}, MatchCase{"RegexPlain", "name~=^f.o$", true},
        MatchCase{"RegexQuoted", R"(name~="^f.o$")", true},
        MatchCase{"RegexSlashes", "name~=/^f.o$/", true},
        MatchCase{"RegexBars", "name~=|^f.o$|", true},
        MatchCase{"RegexEscapedSlash", R"(parent~=/^\/a\//)", true},
        MatchCase{"RegexEscapedBar", R"(name~=|^(bar\|foo)$|)", true},
        MatchCase{"RegexBackslashTwice", R"(name~=/^\\w+$/)", true},
        MatchCase{"RegexEmpty", "name~=//", true},
        MatchCase{"RegexOfAbsent", "labels.m~=/^$/", true},
        MatchCase{"RegexOfAbsentNeedsMore", "labels.m~=/./", false},
        MatchCase{"RegexWithSlashInside", "labels.\"containerd.io/snapshot.ref\"~=a/b", false},
        MatchCase{"RegexWithComma", "labels.a.b~=/^x,y$/", true},
        MatchCase{"RegexDotStopsAtNewline", "labels.newline~=/one.two/", false},
        MatchCase{"RegexEndIsTheEnd", "labels.newline~=/one$/", false},
        MatchCase{"RegexFlags", "name~=(?i)FOO", true},
        MatchCase{"RegexBroken", "name~=/(/", false},
        MatchCase{"RegexBrokenClass", R"(name~="[")", false},
        MatchCase{"RegexLookahead", "name~=/f(?=o)/", false},
        MatchCase{"RegexNotUtf8", R"(name~="\xff")", false}),
    CaseName<MatchCase>);

INSTANTIATE_TEST_SUITE_P(
    Values, FilterMatchTest,
    ::testing::Values(MatchCase{"SingleQuotesAreOrdinary", "name=='foo'", false},
                      MatchCase{"SemicolonIsPartOfTheValue", "name==foo;kind==committed", false},
                      MatchCase{"OperatorsInside", "labels.l==2=!~", false},
                      MatchCase{"DotInside", "labels.l==2.0", false},
                      MatchCase{"QuoteInside", R"(name==foo"")", false},
                      MatchCase{"BarInside", "name==foo|bar", false},
                      MatchCase{"Symbols", "name==$+<^`", false},
                      MatchCase{"Emoji", "name==\U0001F600", false},
                      MatchCase{"CombiningMark", "name==e\u0301", false},
                      MatchCase{"UnassignedRune", "name==\u0378", false}),
    CaseName<MatchCase>);

INSTANTIATE_TEST_SUITE_P(
    Spaces, FilterMatchTest,
    ::testing::Values(MatchCase{"BeforeAField", " name==foo", true},
                      MatchCase{"BeforeAnOperator", "name ==foo", true},
                      MatchCase{"BeforeAValue", "name== foo", true},
                      MatchCase{"BeforeAQuotedValue", R"(name== "foo")", true},
                      MatchCase{"BeforeARegex", "name~= /foo/", true},
                      MatchCase{"AfterAComma", "name==foo, kind==committed", true},
                      MatchCase{"AfterADot", "labels. l==2", true},
                      MatchCase{"TabsAndNewlines", "\t\n\v\f\rname\t==\nfoo", true},
                      MatchCase{"BeyondAscii", "\u0085\u00a0\u1680\u2003\u2028\u3000name", true}),
    CaseName<MatchCase>);

INSTANTIATE_TEST_SUITE_P(
    Conjunctions, FilterMatchTest,
    ::testing::Values(MatchCase{"All", "name==foo,kind==committed,labels.l==2", true},
                      MatchCase{"FirstFails", "name==bar,kind==committed", false},
                      MatchCase{"LastFails", "name==foo,kind==view", false},
                      MatchCase{"QuotedComma", R"(labels.a.b=="x,y",name)", true}),
    CaseName<MatchCase>);

// --- Escapes: the literal is compared with a label of that value ---

struct EscapeCase {
  const char* name;
  std::string literal;
  std::string value;
};

void PrintTo(const EscapeCase& c, std::ostream* out) {
  *out << ShowName(c.literal);
}

class FilterEscapeTest : public ::testing::TestWithParam<EscapeCase> {};

TEST_P(FilterEscapeTest, StandsForItsValue) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter,
                              Filter::Parse({"labels.v==" + GetParam().literal}));
  EXPECT_TRUE(filter.Matches({.name = "n", .labels = {{"v", GetParam().value}}}));
  EXPECT_FALSE(filter.Matches({.name = "n", .labels = {{"v", GetParam().value + "x"}}}));
}

INSTANTIATE_TEST_SUITE_P(
    All, FilterEscapeTest,
    ::testing::Values(EscapeCase{"None", R"("a b,c=='/|")", "a b,c=='/|"},
                      EscapeCase{"Letters", R"("\a\b\f\n\r\t\v")", "\a\b\f\n\r\t\v"},
                      EscapeCase{"Backslash", R"("\\")", "\\"},
                      EscapeCase{"Quote", R"("\"")", "\""},
                      EscapeCase{"Octal", R"("\000\157\377")", std::string("\0o\xff", 3)},
                      EscapeCase{"Hex", R"("\x6f\xC3\xbc")", "oü"},
                      EscapeCase{"HexTakesTwoDigits", R"("\x6ff")", "of"},
                      EscapeCase{"ShortRune", R"("\u006f\u00fc\u20AC")", "oü€"},
                      EscapeCase{"LongRune", R"("\U0001f600\U0010ffff")", "\U0001f600\U0010ffff"},
                      EscapeCase{"SurrogateIsReplaced", R"("\ud800")", "\ufffd"},
                      EscapeCase{"LiteralTab", "\"a\tb\"", "a\tb"},
                      EscapeCase{"LiteralRunes", "\"\u00a0\ufffd\U0001f600\"",
                                 "\u00a0\ufffd\U0001f600"}),
    CaseName<EscapeCase>);

// --- What is refused ---

struct ErrorCase {
  const char* name;
  std::string text;
  size_t offset;
  std::string expected;
};

void PrintTo(const ErrorCase& c, std::ostream* out) {
  *out << ShowName(c.text);
}

class FilterErrorTest : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(FilterErrorTest, SaysWhereAndWhatWasExpected) {
  const ErrorCase& c = GetParam();
  EXPECT_THAT(
      Filter::Parse({c.text}),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr(ShowName(c.text)), HasSubstr("at byte " + std::to_string(c.offset) +
                                                            ": expected " + c.expected))));
}

constexpr const char* kField = "a field";
constexpr const char* kOperator = "an operator: ==, != or ~=";
constexpr const char* kValue = "a value";
constexpr const char* kMore = "',' or the end";
constexpr const char* kEscape = "an escape";

INSTANTIATE_TEST_SUITE_P(
    Structure, FilterErrorTest,
    ::testing::Values(ErrorCase{"OnlyASpace", " ", 1, kField},
                      ErrorCase{"OnlyAComma", ",", 0, kField},
                      ErrorCase{"CommaInFront", ",name", 0, kField},
                      ErrorCase{"CommaAtTheEnd", "name,", 5, kField},
                      ErrorCase{"CommaAfterAValue", "name==fc,", 9, kField},
                      ErrorCase{"TwoCommas", "name,,kind", 5, kField},
                      ErrorCase{"DotInFront", ".name", 0, kField},
                      ErrorCase{"DotAtTheEnd", "labels.", 7, kField},
                      ErrorCase{"TwoDots", "labels..l", 7, kField},
                      ErrorCase{"SpaceBeforeADot", "labels .l", 7, kOperator},
                      ErrorCase{"SpaceBeforeAComma", "name ,kind", 5, kOperator},
                      ErrorCase{"SpaceAtTheEnd", "name==foo ", 9, kMore},
                      ErrorCase{"SpaceAfterAQuotedValue", "name==\"foo\" ", 11, kMore},
                      ErrorCase{"SpaceAfterAField", "name ", 5, kOperator},
                      ErrorCase{"TwoValues", "name==foo bar", 9, kMore},
                      ErrorCase{"QuotedAndPlainValue", R"(name=="foo"bar)", 11, kMore},
                      ErrorCase{"TwoQuotedValues", R"(name=="foo""bar")", 11, kMore},
                      ErrorCase{"TwoFields", "name foo", 5, kOperator},
                      ErrorCase{"FieldBesideAQuotedOne", R"("name"x)", 6, kOperator},
                      ErrorCase{"HyphenInAField", "labels.a-b", 8, kOperator},
                      ErrorCase{"HyphenInFront", "-name", 0, kField},
                      ErrorCase{"FieldBeyondAscii", "labels.é", 7, kField},
                      ErrorCase{"NotUtf8", "name==f\xff", 7, "valid UTF-8"},
                      ErrorCase{"NotUtf8AfterRunes", "name==ü€\xc3", 11, "valid UTF-8"},
                      ErrorCase{"Nul", std::string("name==a\0b", 9), 7, kMore}),
    CaseName<ErrorCase>);

INSTANTIATE_TEST_SUITE_P(Operators, FilterErrorTest,
                         ::testing::Values(ErrorCase{"OneEqualsSign", "name=foo", 4, kOperator},
                                           ErrorCase{"ThreeEqualsSigns", "name===foo", 4,
                                                     kOperator},
                                           ErrorCase{"Exclamation", "name!foo", 4, kOperator},
                                           ErrorCase{"Tilde", "name~foo", 4, kOperator},
                                           ErrorCase{"Reversed", "name=!foo", 4, kOperator},
                                           ErrorCase{"RunOfThem", "name==!foo", 4, kOperator},
                                           ErrorCase{"NotMatches", "name!~foo", 4, kOperator},
                                           ErrorCase{"Apart", "name= =foo", 4, kOperator},
                                           ErrorCase{"Less", "name<foo", 4, kOperator}),
                         CaseName<ErrorCase>);

INSTANTIATE_TEST_SUITE_P(
    Values, FilterErrorTest,
    ::testing::Values(ErrorCase{"None", "name==", 6, kValue},
                      ErrorCase{"OnlySpace", "name== ", 7, kValue},
                      ErrorCase{"Comma", "name==,", 6, kValue},
                      ErrorCase{"DotInFront", "name==.foo", 6, kValue},
                      ErrorCase{"OperatorInFront", "name== =foo", 7, kValue},
                      ErrorCase{"PathWithoutQuotes", "name==/a/b", 6, kValue},
                      ErrorCase{"SlashQuotesOfEqual", "name==/foo/", 6, kValue},
                      ErrorCase{"BarQuotesOfNotEqual", "name!=|foo|", 6, kValue},
                      ErrorCase{"SlashQuotesOfAField", "/name/==foo", 0, kField},
                      ErrorCase{"BarQuotesOfAField", "labels.|l|", 7, kField},
                      ErrorCase{"Control", "name==\x01", 6, kValue},
                      ErrorCase{"ControlInside", "name==a\x7f", 7, kMore},
                      ErrorCase{"FormatCharacter", "name==a\u200b", 7, kMore},
                      ErrorCase{"PrivateUse", "name==a\ue000", 7, kMore},
                      ErrorCase{"SpaceBeyondAscii", "name==a\u2003", 7, kMore}),
    CaseName<ErrorCase>);

INSTANTIATE_TEST_SUITE_P(
    Quoted, FilterErrorTest,
    ::testing::Values(ErrorCase{"Open", R"(name=="foo)", 10,
                                "the \" that closes the one at byte 6"},
                      ErrorCase{"OpenAfterAnEscape", R"(name=="foo\")", 12, "the \""},
                      ErrorCase{"OpenRegex", "name~=/foo", 10, "the / that closes"},
                      ErrorCase{"OpenField", "\"name", 5, "the \" that closes"},
                      ErrorCase{"RawNewline", "name==\"a\nb\"", 8, "the \" that closes"},
                      ErrorCase{"BackslashAtTheEnd", "name==\"\\", 7, kEscape},
                      ErrorCase{"UnknownEscape", R"(name=="fo\q")", 9, kEscape},
                      ErrorCase{"EscapedSingleQuote", R"(name=="\'")", 7, kEscape},
                      ErrorCase{"EscapedOtherQuote", R"(name~=/\"/)", 7, kEscape},
                      ErrorCase{"EscapedSlash", R"(name=="\/")", 7, kEscape},
                      ErrorCase{"RegexClass", R"(name~=/\w/)", 7, kEscape},
                      ErrorCase{"ShortHex", R"(name=="\x4")", 7, "an escape with 2 digits"},
                      ErrorCase{"ShortOctal", R"(name=="\12")", 7, "an escape with 3 digits"},
                      ErrorCase{"OctalDigitTooHigh", R"(name=="\128")", 7, "an escape with 3"},
                      ErrorCase{"OctalTooLarge", R"(name=="\400")", 7, "a byte"},
                      ErrorCase{"ShortRune", R"(name=="\u12g4")", 7, "an escape with 4 digits"},
                      ErrorCase{"ShortLongRune", R"(name=="\U0001f60")", 7, "an escape with 8"},
                      ErrorCase{"RuneTooLarge", R"(name=="\U00110000")", 7, "a rune"},
                      ErrorCase{"LargestNumber", R"(name=="\Uffffffff")", 7, "a rune"}),
    CaseName<ErrorCase>);

// --- Several texts ---

TEST(FilterTest, NoTextMatchesEverything) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({}));
  EXPECT_TRUE(filter.matches_all());
  EXPECT_TRUE(filter.Matches(Sample()));
}

TEST(FilterTest, DefaultMatchesEverything) {
  const Filter filter;
  EXPECT_TRUE(filter.matches_all());
  EXPECT_TRUE(filter.Matches({}));
}

TEST(FilterTest, EmptyTextMatchesEverything) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({"name==bar", ""}));
  EXPECT_TRUE(filter.matches_all());
  EXPECT_TRUE(filter.Matches(Sample()));
}

TEST(FilterTest, OneSelectorDoesNotMatchEverything) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({"name"}));
  EXPECT_FALSE(filter.matches_all());
}

TEST(FilterTest, AnyTextSuffices) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({"name==bar", "kind==committed"}));
  EXPECT_TRUE(filter.Matches(Sample()));
}

TEST(FilterTest, NoneOfTheTextsMatches) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({"name==bar", "kind==view"}));
  EXPECT_FALSE(filter.Matches(Sample()));
}

TEST(FilterTest, OneBadTextFailsAll) {
  EXPECT_THAT(Filter::Parse({"name==foo", "", "kind="}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("'kind='")));
}

TEST(FilterTest, MovesWithItsRegularExpressions) {
  STRATA_ASSERT_OK_AND_ASSIGN(Filter filter, Filter::Parse({"name~=/^fo/"}));
  const Filter moved = std::move(filter);
  EXPECT_TRUE(moved.Matches(Sample()));
  EXPECT_FALSE(moved.Matches({.name = "bar"}));
}

// --- Bounds ---

TEST(FilterTest, TextAtTheLimitIsTaken) {
  std::string text = "name==";
  text.resize(kMaxFilterBytes, 'x');
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({text}));
  EXPECT_TRUE(filter.Matches({.name = text.substr(6)}));
}

TEST(FilterTest, LongerTextIsRefused) {
  std::string text = "name==";
  text.resize(kMaxFilterBytes + 1, 'x');
  EXPECT_THAT(Filter::Parse({text}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("at most " + std::to_string(kMaxFilterBytes) + " bytes")));
}

TEST(FilterTest, ManyTextsAreTaken) {
  EXPECT_THAT(Filter::Parse(std::vector<std::string>(kMaxFilters, "name")), IsOk());
}

TEST(FilterTest, MoreTextsAreRefused) {
  EXPECT_THAT(Filter::Parse(std::vector<std::string>(kMaxFilters + 1, "")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("at most 1000 filters")));
}

std::string Selectors(size_t count) {
  std::string text = "name";
  for (size_t i = 1; i < count; ++i) {
    text += ",name";
  }
  return text;
}

TEST(FilterTest, ManySelectorsAreTaken) {
  EXPECT_THAT(Filter::Parse({Selectors(kMaxFilterSelectors)}), IsOk());
}

TEST(FilterTest, MoreSelectorsAreRefused) {
  EXPECT_THAT(Filter::Parse({Selectors(kMaxFilterSelectors + 1)}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("at most 1000 selectors")));
}

TEST(FilterTest, SelectorsOfAllTextsCount) {
  EXPECT_THAT(Filter::Parse({Selectors(kMaxFilterSelectors), "name"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("at most 1000 selectors")));
}

TEST(FilterTest, RegularExpressionThatNeedsTooMuchMemoryIsRefused) {
  EXPECT_THAT(Filter::Parse({R"(name~=/\\pL{500}/)"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("when compiled")));
}

TEST(FilterTest, ManyRegularExpressionsShareTheMemory) {
  const std::vector<std::string> texts(kMaxFilters, R"(name~=/^sha256:[0-9a-f]{64}$/)");
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse(texts));
  EXPECT_TRUE(filter.Matches({.name = "sha256:" + std::string(64, 'a')}));
}

TEST(FilterTest, NestedRepetitionTakesLinearTime) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter, Filter::Parse({"name~=/^(a*)*$/"}));
  EXPECT_FALSE(filter.Matches({.name = std::string(kMaxNameBytes - 1, 'a') + "b"}));
}

// --- What containerd sends ---

// containerd's metadata layer asks a proxy for the snapshot that it prepared remotely.
std::string RemoteSnapshotFilter(std::string_view quoted_parent) {
  return "labels.\"containerd.io/snapshot.ref\"==sha256:aa,parent==" + std::string(quoted_parent);
}

struct ParentCase {
  const char* name;
  std::string quoted;  // by Go's %q
  std::string parent;
};

void PrintTo(const ParentCase& c, std::ostream* out) {
  *out << ShowName(c.quoted);
}

class FilterFromContainerdTest : public ::testing::TestWithParam<ParentCase> {};

TEST_P(FilterFromContainerdTest, FindsTheSnapshotOfItsReferenceAndParent) {
  STRATA_ASSERT_OK_AND_ASSIGN(const Filter filter,
                              Filter::Parse({RemoteSnapshotFilter(GetParam().quoted)}));
  SnapshotInfo info = {.name = "n",
                       .parent = GetParam().parent,
                       .kind = Kind::kCommitted,
                       .labels = {{"containerd.io/snapshot.ref", "sha256:aa"}}};
  EXPECT_TRUE(filter.Matches(info));
  info.labels["containerd.io/snapshot.ref"] = "sha256:ab";
  EXPECT_FALSE(filter.Matches(info));
  info.labels["containerd.io/snapshot.ref"] = "sha256:aa";
  info.parent += "x";
  EXPECT_FALSE(filter.Matches(info));
}

INSTANTIATE_TEST_SUITE_P(
    Parents, FilterFromContainerdTest,
    ::testing::Values(ParentCase{"None", R"("")", ""},
                      ParentCase{"Usual", R"("default/12/sha256:bb")", "default/12/sha256:bb"},
                      ParentCase{"QuoteAndBackslash", R"("a\"b\\c")", "a\"b\\c"},
                      ParentCase{"Controls", R"("\a\b\f\n\r\t\v\x00\x1b\x7f")",
                                 std::string("\a\b\f\n\r\t\v\0\x1b\x7f", 10)},
                      ParentCase{"PrintableRunes", "\"ü€\U0001f600\"", "ü€\U0001f600"},
                      ParentCase{"OtherRunes", R"("\u00a0\u200b\ue000\U000e0001")",
                                 "\u00a0\u200b\ue000\U000e0001"},
                      ParentCase{"Separators", R"("a,b c==d;'e'|f/")", "a,b c==d;'e'|f/"}),
    CaseName<ParentCase>);

TEST(FilterTest, FieldsOfWhatIsNoSnapshotAreAskedFor) {
  const auto value_of = [](std::string_view field) -> std::optional<std::string_view> {
    if (field == "type") {
      return "regular";
    }
    return field == "shared" ? std::optional<std::string_view>("") : std::nullopt;
  };
  const auto matches = [&](const std::string& text) {
    const StatusOr<Filter> filter = Filter::Parse({text});
    EXPECT_THAT(filter, IsOk());
    return filter.ok() && filter->MatchesFields(value_of);
  };
  EXPECT_TRUE(matches("type==regular"));
  EXPECT_TRUE(matches("shared,type~=\"^reg\""));
  EXPECT_TRUE(matches("type.x==regular"));
  EXPECT_TRUE(matches(""));
  EXPECT_FALSE(matches("type==internal"));
  EXPECT_FALSE(matches("private"));
  EXPECT_FALSE(matches("name==\"\""));
}

// The table of the Walk test of containerd's snapshotter suite.
class FilterOfWalkTest : public ::testing::Test {
 protected:
  static SnapshotInfo Make(std::string name, std::string parent, Kind kind, Labels labels = {}) {
    labels["containerd.io/gc.root"] = "check-walk";
    return {.name = std::move(name),
            .parent = std::move(parent),
            .kind = kind,
            .labels = std::move(labels)};
  }

  static std::vector<std::string> Walk(const std::vector<std::string>& texts) {
    const std::vector<SnapshotInfo> snapshots = {
        Make("a-np", "", Kind::kActive),
        Make("p", "", Kind::kCommitted),
        Make("a", "p", Kind::kActive),
        Make("v", "p", Kind::kView),
        Make("p-wl", "", Kind::kCommitted, {{"l", "1"}}),
        Make("a-wl", "p-wl", Kind::kActive, {{"l", "2"}}),
        Make("v-wl", "p-wl", Kind::kView, {{"l", "3"}}),
        Make("a-np-wl", "", Kind::kActive, {{"l", "2"}}),
        {.name = "other", .parent = "p", .kind = Kind::kActive},
    };
    std::vector<std::string> names;
    const StatusOr<Filter> filter = Filter::Parse(texts);
    EXPECT_THAT(filter, IsOk());
    for (const SnapshotInfo& info : snapshots) {
      if (filter.ok() && filter->Matches(info)) {
        names.push_back(info.name);
      }
    }
    return names;
  }

  static constexpr const char* kRoot = R"(labels."containerd.io/gc.root"==check-walk)";
};

TEST_F(FilterOfWalkTest, Label) {
  EXPECT_THAT(Walk({kRoot}),
              UnorderedElementsAre("a-np", "p", "a", "v", "p-wl", "a-wl", "v-wl", "a-np-wl"));
}

TEST_F(FilterOfWalkTest, Kind) {
  const std::string root = kRoot;
  EXPECT_THAT(Walk({"kind==active," + root}), UnorderedElementsAre("a-np", "a", "a-wl", "a-np-wl"));
  EXPECT_THAT(Walk({"kind==view," + root}), UnorderedElementsAre("v", "v-wl"));
  EXPECT_THAT(Walk({"kind==committed," + root}), UnorderedElementsAre("p", "p-wl"));
}

TEST_F(FilterOfWalkTest, Names) {
  EXPECT_THAT(Walk({"name==p", "name==a-np-wl"}), UnorderedElementsAre("p", "a-np-wl"));
}

TEST_F(FilterOfWalkTest, NameAndLabel) {
  EXPECT_THAT(Walk({"name==a-wl,labels.l"}), ElementsAre("a-wl"));
  EXPECT_THAT(Walk({"name==a,labels.l"}), IsEmpty());
}

TEST_F(FilterOfWalkTest, Parent) {
  const std::string root = kRoot;
  EXPECT_THAT(Walk({"parent==p," + root}), UnorderedElementsAre("a", "v"));
  EXPECT_THAT(Walk({"parent!=\"\"," + root}), UnorderedElementsAre("a", "v", "a-wl", "v-wl"));
}

TEST_F(FilterOfWalkTest, LabelPresence) {
  EXPECT_THAT(Walk({"labels.l"}), UnorderedElementsAre("p-wl", "a-wl", "v-wl", "a-np-wl"));
}

TEST_F(FilterOfWalkTest, LabelValue) {
  EXPECT_THAT(Walk({"labels.l==2"}), UnorderedElementsAre("a-wl", "a-np-wl"));
}

}  // namespace
}  // namespace strata
