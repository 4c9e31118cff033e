// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/status_matchers.h"

namespace strata {
namespace {

using ::strata::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

std::string Text(std::string_view message, std::initializer_list<LogField> fields = {}) {
  return FormatLogLineForTest(LogFormat::kText, LogLevel::kInfo, message, fields);
}

nlohmann::json Json(LogLevel level, std::string_view message,
                    std::initializer_list<LogField> fields = {}) {
  return nlohmann::json::parse(FormatLogLineForTest(LogFormat::kJson, level, message, fields),
                               /*cb=*/nullptr, /*allow_exceptions=*/false);
}

TEST(LogOptionTest, LevelsHaveNames) {
  EXPECT_EQ(ParseLogLevel("debug").value(), LogLevel::kDebug);
  EXPECT_EQ(ParseLogLevel("info").value(), LogLevel::kInfo);
  EXPECT_EQ(ParseLogLevel("warn").value(), LogLevel::kWarn);
  EXPECT_EQ(ParseLogLevel("error").value(), LogLevel::kError);
}

TEST(LogOptionTest, FormatsHaveNames) {
  EXPECT_EQ(ParseLogFormat("text").value(), LogFormat::kText);
  EXPECT_EQ(ParseLogFormat("json").value(), LogFormat::kJson);
}

TEST(LogOptionTest, OtherNamesAreErrorsThatListTheGoodOnes) {
  EXPECT_THAT(ParseLogLevel("Info"), StatusIs(StatusCode::kInvalidArgument,
                                              HasSubstr("expected debug, info, warn or error")));
  EXPECT_THAT(ParseLogLevel(""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseLogFormat("yaml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("expected text or json")));
}

TEST(LogTextTest, PlainValuesStandAsTheyAre) {
  EXPECT_EQ(Text("removed", {{"key", "a/b:c"}, {"id", "7"}}), "info removed key=a/b:c id=7");
}

TEST(LogTextTest, ValuesThatCouldMisleadAreQuoted) {
  EXPECT_EQ(Text("m", {{"k", ""}}), R"(info m k="")");
  EXPECT_EQ(Text("m", {{"k", "a b"}}), R"(info m k="a b")");
  EXPECT_EQ(Text("m", {{"k", "a=b"}}), R"(info m k="a=b")");
  EXPECT_EQ(Text("m", {{"k", "a\"b\\c"}}), R"(info m k="a\"b\\c")");
  EXPECT_EQ(Text("m", {{"k", "a\nb\tc\x1b"}}), R"(info m k="a\nb\tc\u001b")");
  EXPECT_EQ(Text("m", {{"k", "ü"}}), R"(info m k="ü")");
}

TEST(LogTextTest, BrokenUtf8IsReplaced) {
  EXPECT_EQ(Text("m", {{"k", "a\xff"}}), "info m k=\"a\ufffd\"");
}

TEST(LogTextTest, MessageStaysOnOneLine) {
  EXPECT_EQ(Text("one\ntwo\r\x7fthree"), "info one two  three");
}

TEST(LogJsonTest, LineIsAnObject) {
  const nlohmann::json line = Json(LogLevel::kError, "a \"b\"\nc", {{"k", "v\n"}, {"empty", ""}});
  EXPECT_EQ(line, (nlohmann::json{
                      {"level", "error"}, {"msg", "a \"b\"\nc"}, {"k", "v\n"}, {"empty", ""}}));
}

TEST(LogJsonTest, LineHasNoLineBreakInside) {
  EXPECT_THAT(FormatLogLineForTest(LogFormat::kJson, LogLevel::kInfo, "a\nb", {{"k", "c\nd"}}),
              Not(HasSubstr("\n")));
}

TEST(LogJsonTest, BrokenUtf8IsReplaced) {
  EXPECT_EQ(Json(LogLevel::kInfo, "a\xff", {{"k", "\xc3"}}),
            (nlohmann::json{{"level", "info"}, {"msg", "a\ufffd"}, {"k", "\ufffd"}}));
}

TEST(LogJsonTest, EveryLevelHasAName) {
  EXPECT_EQ(Json(LogLevel::kDebug, "m")["level"], "debug");
  EXPECT_EQ(Json(LogLevel::kInfo, "m")["level"], "info");
  EXPECT_EQ(Json(LogLevel::kWarn, "m")["level"], "warning");
  EXPECT_EQ(Json(LogLevel::kError, "m")["level"], "error");
}

// What reaches standard error. The log is one for the process: each test leaves it as it was.
class LogOutputTest : public ::testing::Test {
 protected:
  void SetUp() override { ::testing::internal::CaptureStderr(); }
  void TearDown() override {
    if (!taken_) {
      (void)Taken();
    }
    ConfigureLog(LogLevel::kInfo, LogFormat::kText);
  }

  std::string Taken() {
    taken_ = true;
    return ::testing::internal::GetCapturedStderr();
  }

 private:
  bool taken_ = false;
};

TEST_F(LogOutputTest, TextLineHasTimeAndLevel) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText);
  LogWarn("slow", {{"key", "k"}});
  EXPECT_THAT(Taken(), MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
                                    "\\.[0-9]{6}Z warning slow key=k\n"));
}

TEST_F(LogOutputTest, JsonLineParses) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kJson);
  LogError("a %v {} b", {{"key", "%v{}"}});
  const auto line = nlohmann::json::parse(Taken(), /*cb=*/nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(line.is_object());
  EXPECT_EQ(line["level"], "error");
  EXPECT_EQ(line["msg"], "a %v {} b");
  EXPECT_EQ(line["key"], "%v{}");
  EXPECT_TRUE(line["pid"].is_number());
  EXPECT_TRUE(line["time"].is_string());
}

TEST_F(LogOutputTest, LowerLevelsAreLeftOut) {
  ConfigureLog(LogLevel::kWarn, LogFormat::kText);
  LogDebug("one");
  LogInfo("two");
  LogWarn("three");
  LogError("four");
  EXPECT_THAT(Taken(), AllOf(Not(HasSubstr("one")), Not(HasSubstr("two")), HasSubstr("three"),
                             HasSubstr("four")));
}

TEST_F(LogOutputTest, DebugIsShownWhenAskedFor) {
  ConfigureLog(LogLevel::kDebug, LogFormat::kText);
  LogDebug("one");
  EXPECT_THAT(Taken(), HasSubstr("debug one"));
}

TEST_F(LogOutputTest, ThreadsDoNotMixLines) {
  constexpr int kThreads = 4;
  constexpr int kLines = 100;
  ConfigureLog(LogLevel::kInfo, LogFormat::kText);
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([] {
        for (int line = 0; line < kLines; ++line) {
          LogInfo("line", {{"k", "v"}});
        }
      });
    }
  }
  const std::string output = Taken();
  std::string_view rest = output;
  int lines = 0;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size() - 1);
    EXPECT_TRUE(rest.substr(0, end).ends_with("Z info line k=v")) << rest.substr(0, end);
    rest.remove_prefix(end + 1);
    ++lines;
  }
  EXPECT_EQ(lines, kThreads * kLines);
}

}  // namespace
}  // namespace strata
