// SPDX-License-Identifier: Apache-2.0
//
// Value types of the snapshots API, free of gRPC. Plain data: no thread rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/base/status.h"

namespace strata {

// Numbers as on the wire (containerd api/services/snapshots/v1) and on disk (FORMAT.md).
enum class Kind : uint8_t { kView = 1, kActive = 2, kCommitted = 3 };

// "view", "active" or "committed": the words of the filter language and of log lines.
std::string_view KindName(Kind kind);

using Labels = std::map<std::string, std::string, std::less<>>;

struct SnapshotInfo {
  std::string name;    // key of an active or a view, name of a committed snapshot; opaque UTF-8
  std::string parent;  // name of the parent, "" for none
  Kind kind = Kind::kActive;
  TimeNs created = 0;
  TimeNs updated = 0;
  Labels labels;

  bool operator==(const SnapshotInfo&) const = default;
};

struct Usage {
  int64_t size = 0;    // bytes of allocated blocks, without those of the parents
  int64_t inodes = 0;  // hardlinks count once

  bool operator==(const Usage&) const = default;
};

struct Mount {
  std::string type;    // "bind", "overlay", ...
  std::string source;  // absolute path, or what the filesystem takes for one
  std::string target;  // directory below the root file system, "" for its top
  std::vector<std::string> options;

  bool operator==(const Mount&) const = default;
};

// The label of a Prepare that names what the snapshot would be committed as: a name of the same key
// space. containerd's client sets it when it unpacks a layer.
inline constexpr std::string_view kSnapshotRefLabel = "containerd.io/snapshot.ref";

// Around a tenant's name at the beginning of its names (TenantSnapshotter).
inline constexpr char kTenantMark = '\x01';

// The longest name and the largest label set that a call may carry. Names of 40,000 bytes are in
// use with containerd's own back ends (snapshots-contract 1.5); the message itself may have 16 MiB.
inline constexpr size_t kMaxNameBytes = size_t{64} * 1024;
inline constexpr size_t kMaxLabelsBytes = size_t{1024} * 1024;

// InvalidArgument unless `name` is 1 to kMaxNameBytes bytes of valid UTF-8 without a NUL byte.
// `what` is what the message calls it ("key", "name", "parent").
Status ValidateName(std::string_view what, std::string_view name);

// InvalidArgument for an empty label key, invalid UTF-8, or more than kMaxLabelsBytes together.
Status ValidateLabels(const Labels& labels);

bool IsValidUtf8(std::string_view text);

// A name as an error message shows it: in single ticks, cut in the middle when it is long, control
// characters and broken UTF-8 as \xNN, because messages travel in HTTP/2 trailers of 8 kB.
std::string ShowName(std::string_view name);

}  // namespace strata
