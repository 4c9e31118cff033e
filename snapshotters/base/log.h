// SPDX-License-Identifier: Apache-2.0
//
// One log for the process: a line an event on standard error, as text or as JSON. Libraries return
// errors instead of logging them; what logs are the processes in services/ and client/, and
// background work whose error has no caller. Safe from any thread.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "snapshotters/base/status.h"

namespace strata {

enum class LogLevel { kDebug, kInfo, kWarn, kError };
enum class LogFormat { kText, kJson };

// "debug" | "info" | "warn" | "error"; "text" | "json". Anything else: InvalidArgument that lists
// what was expected.
StatusOr<LogLevel> ParseLogLevel(std::string_view text);
StatusOr<LogFormat> ParseLogFormat(std::string_view text);

// Call before threads log. The default is info, as text.
void ConfigureLog(LogLevel level, LogFormat format);

struct LogField {
  std::string_view key;
  std::string value;
};

// Never give it a secret: a log is read by more people than a credential store.
void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});

inline void LogDebug(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kDebug, message, fields);
}
inline void LogInfo(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarn(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarn, message, fields);
}
inline void LogError(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, message, fields);
}

// The line that Log would write, without the time; for tests of escaping.
std::string FormatLogLineForTest(LogFormat format, LogLevel level, std::string_view message,
                                 std::initializer_list<LogField> fields);

}  // namespace strata
