// SPDX-License-Identifier: Apache-2.0
#include "client/worker/id_remap.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>

namespace strata {
namespace {

using ReadFile = std::function<StatusOr<std::string>(const std::string& path)>;

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) {
      return parts;
    }
    text.remove_prefix(end + 1);
  }
}

std::optional<uint32_t> Number(const std::string& text) {
  uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stopped == end ? std::optional<uint32_t>(number) : std::nullopt;
}

// The user id of `name`, by passwd(5); a number is its own.
StatusOr<std::string> UserId(const std::string& name, const ReadFile& read_file) {
  STRATA_ASSIGN_OR_RETURN(const std::string passwd, read_file("/etc/passwd"));
  for (const std::string& line : Split(passwd, '\n')) {
    const std::vector<std::string> fields = Split(line, ':');
    if (fields.size() >= 3 && (fields[0] == name || fields[2] == name)) {
      return fields[2];
    }
  }
  return Bad("could not get user for username " + name + ": getent unable to find entry \"" + name +
             "\" in passwd database");
}

// The ranges of an owner in subuid(5), one behind the other from 0 on in the container.
StatusOr<std::vector<IdRange>> RangesOf(const std::string& owner, const std::string& file) {
  std::vector<IdRange> ranges;
  uint32_t next = 0;
  for (const std::string& line : Split(file, '\n')) {
    const std::vector<std::string> fields = Split(line, ':');
    if (fields.size() != 3 || fields[0] != owner) {
      continue;
    }
    const std::optional<uint32_t> first = Number(fields[1]);
    const std::optional<uint32_t> size = Number(fields[2]);
    if (!first.has_value() || !size.has_value() || *size == 0 ||
        *size > std::numeric_limits<uint32_t>::max() - std::max(next, *first)) {
      return Bad("invalid range '" + line + "': expected OWNER:FIRST:COUNT");
    }
    ranges.push_back({.container = next, .host = *first, .size = *size});
    next += *size;
  }
  return ranges;
}

StatusOr<std::vector<IdRange>> RangesOfUser(const std::string& name, const std::string& id,
                                            const std::string& path, const std::string& what,
                                            const ReadFile& read_file) {
  STRATA_ASSIGN_OR_RETURN(const std::string file, read_file(path));
  STRATA_ASSIGN_OR_RETURN(std::vector<IdRange> ranges, RangesOf(id, file));
  if (ranges.empty()) {
    STRATA_ASSIGN_OR_RETURN(ranges, RangesOf(name, file));
  }
  if (ranges.empty()) {
    return Bad("no " + what + " ranges found for user \"" + name + "\"");
  }
  return ranges;
}

}  // namespace

StatusOr<IdMaps> ReadIdMaps(std::string_view specification, const ReadFile& read_file) {
  if (specification.empty()) {
    return IdMaps{};
  }
  const std::vector<std::string> parts = Split(specification, ':');
  if (parts.size() > 2) {
    return Bad("invalid userns remap specification in \"" + std::string(specification) + "\"");
  }
  const auto read = [&]() -> StatusOr<IdMaps> {
    IdMaps maps;
    const std::string& name = parts.front();
    STRATA_ASSIGN_OR_RETURN(const std::string id, UserId(name, read_file));
    STRATA_ASSIGN_OR_RETURN(maps.uids, RangesOfUser(name, id, "/etc/subuid", "subuid", read_file));
    STRATA_ASSIGN_OR_RETURN(maps.gids, RangesOfUser(name, id, "/etc/subgid", "subgid", read_file));
    return maps;
  };
  StatusOr<IdMaps> maps = read();
  return maps.ok() ? maps : Annotate(maps.status(), "failed to create ID mappings");
}

}  // namespace strata
