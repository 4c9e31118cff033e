// SPDX-License-Identifier: Apache-2.0
//
// File systems of our choice for tests: an image file, made, attached to a loop device and mounted;
// all of it goes away with its owner. For tests only; needs root.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata::testing {

struct LoopMountOptions {
  std::string type;                                 // "xfs": made by mkfs.xfs, mounted as xfs
  std::vector<std::string> mkfs_options;            // in front of the image's name
  int64_t size_bytes = int64_t{512} * 1024 * 1024;  // sparse
  std::string mount_data;                           // last argument of mount(2)
};

class LoopMount {
 public:
  // NotFound where the tool or the file system is missing.
  static StatusOr<std::unique_ptr<LoopMount>> Create(const LoopMountOptions& options);
  ~LoopMount();
  LoopMount(const LoopMount&) = delete;
  LoopMount& operator=(const LoopMount&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string Join(const std::string& name) const { return path_ + "/" + name; }

 private:
  explicit LoopMount(std::string path) : path_(std::move(path)) {}

  std::string path_;
  bool mounted_ = false;
};

// Gives this process a mount namespace of its own, once, from which nothing spreads: what a test
// leaves mounted ends with the process, however it ends. Call it before threads start.
Status EnterPrivateMountNamespace();

}  // namespace strata::testing
