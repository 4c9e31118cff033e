// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/id_mapping.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace strata {
namespace {

StatusOr<uint32_t> HostIdOfZero(std::string_view label, const std::string& value) {
  const std::string subject = "label '" + std::string(label) + "' = " + ShowName(value);
  std::optional<uint32_t> host;
  for (const std::string& entry : std::vector<std::string>(absl::StrSplit(value, ','))) {
    const std::vector<std::string> fields = absl::StrSplit(entry, ':');
    uint32_t container = 0;
    uint32_t first = 0;
    uint32_t size = 0;
    if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &container) ||
        !absl::SimpleAtoi(fields[1], &first) || !absl::SimpleAtoi(fields[2], &size)) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        subject + ": expected CONTAINER:HOST:SIZE[,...] in decimal");
    }
    if (container == 0 && size > 0 && !host.has_value()) {
      host = first;
    }
  }
  if (!host.has_value()) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      subject + ": container ID 0 cannot be mapped to a host ID");
  }
  return *host;
}

// The labels that are there, verbatim, behind the names of their options.
StatusOr<std::vector<std::string>> OptionsOf(const Labels& labels, const char* uid_option,
                                             const char* gid_option) {
  std::vector<std::string> options;
  for (const auto& [label, option] :
       {std::pair(kUidMappingLabel, uid_option), std::pair(kGidMappingLabel, gid_option)}) {
    if (const auto found = labels.find(label); found != labels.end()) {
      STRATA_RETURN_IF_ERROR(HostIdOfZero(label, found->second).status());
      options.push_back(option + found->second);
    }
  }
  return options;
}

}  // namespace

StatusOr<std::optional<HostOwner>> MappedRoot(const Labels& labels) {
  const auto uids = labels.find(kUidMappingLabel);
  const auto gids = labels.find(kGidMappingLabel);
  if (uids == labels.end() && gids == labels.end()) {
    return std::optional<HostOwner>();
  }
  HostOwner owner;
  if (uids != labels.end()) {
    STRATA_ASSIGN_OR_RETURN(owner.uid, HostIdOfZero(kUidMappingLabel, uids->second));
  }
  if (gids != labels.end()) {
    STRATA_ASSIGN_OR_RETURN(owner.gid, HostIdOfZero(kGidMappingLabel, gids->second));
  }
  return std::optional<HostOwner>(owner);
}

StatusOr<std::vector<std::string>> MappingOptions(const Labels& labels) {
  return OptionsOf(labels, "uidmap=", "gidmap=");
}

StatusOr<std::vector<std::string>> FuseMappingOptions(const Labels& labels) {
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> options,
                          OptionsOf(labels, "uidmapping=", "gidmapping="));
  for (std::string& option : options) {
    std::replace(option.begin(), option.end(), ',', ':');
  }
  return options;
}

}  // namespace strata
