// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>

namespace strata {
namespace {

std::atomic<LogFormat> g_format{LogFormat::kText};

// Text on one line whatever the value holds, so that a hostile name cannot forge a line.
std::string Quoted(std::string_view value) {
  return nlohmann::json(std::string(value))
      .dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

bool NeedsQuotes(std::string_view value) {
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= ' ' || byte >= 0x7f || c == '"' || c == '=' || c == '\\') {
      return true;
    }
  }
  return value.empty();
}

std::string OneLine(std::string_view message) {
  std::string line(message);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) {
      c = ' ';
    }
  }
  return line;
}

std::string Body(LogFormat format, std::string_view message,
                 std::initializer_list<LogField> fields) {
  std::string body;
  if (format == LogFormat::kJson) {
    body = "\"msg\":" + Quoted(message);
    for (const LogField& field : fields) {
      body += "," + Quoted(field.key) + ":" + Quoted(field.value);
    }
    return body;
  }
  body = OneLine(message);
  for (const LogField& field : fields) {
    body += " ";
    body += field.key;
    body += "=";
    body += NeedsQuotes(field.value) ? Quoted(field.value) : field.value;
  }
  return body;
}

const char* Pattern(LogFormat format) {
  return format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l","pid":%P,%v})"
                                    : "%Y-%m-%dT%H:%M:%S.%fZ %l %v";
}

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>("strata",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern(Pattern(LogFormat::kText), spdlog::pattern_time_type::utc);
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

}  // namespace

StatusOr<LogLevel> ParseLogLevel(std::string_view text) {
  if (text == "debug") {
    return LogLevel::kDebug;
  }
  if (text == "info") {
    return LogLevel::kInfo;
  }
  if (text == "warn") {
    return LogLevel::kWarn;
  }
  if (text == "error") {
    return LogLevel::kError;
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "log level '" + std::string(text) + "': expected debug, info, warn or error");
}

StatusOr<LogFormat> ParseLogFormat(std::string_view text) {
  if (text == "text") {
    return LogFormat::kText;
  }
  if (text == "json") {
    return LogFormat::kJson;
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "log format '" + std::string(text) + "': expected text or json");
}

void ConfigureLog(LogLevel level, LogFormat format) {
  g_format.store(format);
  Logger().set_level(ToSpdlog(level));
  Logger().set_pattern(Pattern(format), spdlog::pattern_time_type::utc);
}

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (!Logger().should_log(ToSpdlog(level))) {
    return;
  }
  const std::string body = Body(g_format.load(), message, fields);
  Logger().log(ToSpdlog(level), spdlog::string_view_t(body.data(), body.size()));
}

std::string FormatLogLineForTest(LogFormat format, LogLevel level, std::string_view message,
                                 std::initializer_list<LogField> fields) {
  const std::string body = Body(format, message, fields);
  if (format == LogFormat::kJson) {
    return "{\"level\":\"" + std::string(LevelName(level)) + "\"," + body + "}";
  }
  return std::string(LevelName(level)) + " " + body;
}

}  // namespace strata
