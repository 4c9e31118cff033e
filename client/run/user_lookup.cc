// SPDX-License-Identifier: Apache-2.0
#include "client/run/user_lookup.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr size_t kMaxFileBytes = size_t{8} * 1024 * 1024;
constexpr uint64_t kMaxId = 2147483647;

// Digits only; nothing for anything else.
std::optional<uint64_t> Number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end != text.data() + text.size() ||
      (error != std::errc() && error != std::errc::result_out_of_range)) {
    return std::nullopt;
  }
  return error == std::errc() ? value : UINT64_MAX;
}

StatusOr<uint32_t> CheckedId(uint64_t id) {
  if (id > kMaxId) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "uids and gids must be in range 0-" + std::to_string(kMaxId));
  }
  return static_cast<uint32_t>(id);
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  size_t start = 0;
  while (start <= text.size()) {
    const size_t end = std::min(text.find(separator, start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

struct Entry {
  std::string_view name;
  uint64_t id = 0;
  std::string_view rest;  // gid of a user, members of a group
};

// Lines NAME:PASSWORD:ID:REST...; others are passed over, as everybody does (passwd(5), group(5)).
std::vector<Entry> Entries(std::string_view file) {
  std::vector<Entry> entries;
  for (std::string_view line : Split(file, '\n')) {
    while (!line.empty() && line.back() == '\r') {
      line.remove_suffix(1);
    }
    const std::vector<std::string_view> fields = Split(line, ':');
    const std::optional<uint64_t> id = fields.size() < 3 ? std::nullopt : Number(fields[2]);
    if (id.has_value() && *id <= kMaxId && !fields[0].starts_with('#')) {
      entries.push_back({fields[0], *id, fields.size() > 3 ? fields[3] : std::string_view()});
    }
  }
  return entries;
}

// By number if it is one, else by name: a user called "0" is not to be had.
const Entry* Find(const std::vector<Entry>& entries, std::string_view who) {
  const std::optional<uint64_t> number = Number(who);
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) {
    return number.has_value() ? entry.id == *number : entry.name == who;
  });
  return found == entries.end() ? nullptr : &*found;
}

StatusOr<uint32_t> ResolveGroup(std::string_view who, const std::vector<Entry>& groups) {
  if (const Entry* found = Find(groups, who)) {
    return static_cast<uint32_t>(found->id);
  }
  if (const std::optional<uint64_t> number = Number(who)) {
    return CheckedId(*number);
  }
  return MakeStatus(StatusCode::kNotFound, "unable to find group " + std::string(who) +
                                               ": no matching entries in group file");
}

}  // namespace

StatusOr<ProcessUser> ResolveUser(std::string_view user, std::string_view passwd,
                                  std::string_view group) {
  const size_t colon = std::min(user.find(':'), user.size());
  const std::string_view who = colon == 0 ? "0" : user.substr(0, colon);
  const std::string_view of_group = user.substr(std::min(colon + 1, user.size()));
  const std::vector<Entry> users = Entries(passwd);
  const std::vector<Entry> groups = Entries(group);
  ProcessUser result;
  std::string_view name;
  if (const Entry* found = Find(users, who)) {
    result.uid = static_cast<uint32_t>(found->id);
    STRATA_ASSIGN_OR_RETURN(result.gid, CheckedId(Number(found->rest).value_or(0)));
    name = found->name;
  } else if (const std::optional<uint64_t> number = Number(who)) {
    STRATA_ASSIGN_OR_RETURN(result.uid, CheckedId(*number));
  } else {
    return MakeStatus(StatusCode::kNotFound, "unable to find user " + std::string(who) +
                                                 ": no matching entries in passwd file");
  }
  if (user.empty()) {
    result.gid = 0;
  }
  if (!of_group.empty()) {
    STRATA_ASSIGN_OR_RETURN(result.gid, ResolveGroup(of_group, groups));
    name = {};  // who asks for a group gets that one and no other
  }
  result.additional_gids.push_back(result.gid);
  for (const Entry& entry : groups) {
    const std::vector<std::string_view> members = Split(entry.rest, ',');
    const auto id = static_cast<uint32_t>(entry.id);
    const auto& known = result.additional_gids;
    if (!name.empty() && std::find(members.begin(), members.end(), name) != members.end() &&
        std::find(known.begin(), known.end(), id) == known.end()) {
      result.additional_gids.push_back(id);
    }
  }
  return result;
}

StatusOr<ProcessUser> LookUpUser(const ContainerRoot& root, std::string_view user) {
  const size_t colon = user.find(':');
  if (colon != std::string_view::npos && Number(user.substr(0, colon)).has_value() &&
      Number(user.substr(colon + 1)).has_value()) {
    return ResolveUser(user, "", "");
  }
  STRATA_ASSIGN_OR_RETURN(const auto passwd, root.ReadFile("/etc/passwd", kMaxFileBytes));
  STRATA_ASSIGN_OR_RETURN(const auto group, root.ReadFile("/etc/group", kMaxFileBytes));
  return ResolveUser(user, passwd.value_or(""), group.value_or(""));
}

}  // namespace strata
