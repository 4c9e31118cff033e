// SPDX-License-Identifier: Apache-2.0
//
// What a worker may keep: the policy language of BuildKit (worker-parity 1.3, 2.5). Plain data and
// pure functions but for AsBytes; safe from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// Bytes, or a share of the disk that holds the worker's root.
struct DiskSpace {
  int64_t bytes = 0;
  int64_t percentage = 0;

  bool operator==(const DiskSpace&) const = default;
  // Of the disk of `root`; 2 GB, with a warning, when that cannot be told. 0: not set.
  [[nodiscard]] int64_t AsBytes(const std::string& root) const;
};

// "512MB" (binary units, as BuildKit has it), "9000" (bytes), "10%", "" (not set).
StatusOr<DiskSpace> ParseDiskSpace(std::string_view text);

// "48h", "90m30s", "3600" (seconds), "" (0).
StatusOr<std::chrono::seconds> ParseKeepDuration(std::string_view text);

struct GcRule {
  bool all = false;
  int64_t keep_bytes = 0;  // 0: no bound
  std::chrono::seconds keep_duration{0};
  std::vector<std::string> filters;  // any of them; containerd's filter language

  bool operator==(const GcRule&) const = default;
};

// The four rules of BuildKit, the first one as its documentation means it: three filters, not one
// that nothing can match (mended in 0.31).
std::vector<GcRule> DefaultGcPolicy(int64_t keep_bytes);

}  // namespace strata
