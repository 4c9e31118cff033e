// SPDX-License-Identifier: Apache-2.0
//
// ProbeDirectory: a temporary directory in which something is tried, removed with all in it at the
// end. Used by one thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// How the names begin; a killed process may leave one.
inline constexpr std::string_view kProbePrefix = "strata-probe-";
// Where probes mount in their directory. What a killed process left is unmounted there by the
// next start.
inline constexpr char kProbeMountPoint[] = "merged";

class ProbeDirectory {
 public:
  static StatusOr<ProbeDirectory> Create(const std::string& parent);
  ~ProbeDirectory();

  ProbeDirectory(ProbeDirectory&& other) noexcept
      : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}
  ProbeDirectory& operator=(ProbeDirectory&&) = delete;
  ProbeDirectory(const ProbeDirectory&) = delete;
  ProbeDirectory& operator=(const ProbeDirectory&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::string Join(const char* name) const { return path_ + "/" + name; }

 private:
  explicit ProbeDirectory(std::string path) : path_(std::move(path)) {}

  std::string path_;
  UniqueFd fd_;
};

// The result of a probe that needs room. A root that has served before (not `fresh`) may be full,
// and must start to be emptied: for it ResourceExhausted is OK, with a log line.
Status ForgiveFullDisk(const Status& probed, bool fresh);

}  // namespace strata
