// SPDX-License-Identifier: Apache-2.0
//
// ControlSource: what the control service shows of a kind of snapshotter. Safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace strata {

// See strata/control/v1/control.proto.
struct ControlLayer {
  uint64_t number = 0;
  std::string reference;
  std::string digest;
  std::string reason;
  std::string detail;
  uint64_t blob_bytes = 0;
  uint64_t chunks = 0;
  uint64_t present_chunks = 0;
  uint64_t allocated_bytes = 0;
  std::string presenter;
  bool disk_full = false;
};

struct ControlCounter {
  std::string name;
  uint64_t value = 0;
};

struct ControlDrain {
  struct Failed {
    uint64_t number = 0;
    std::string reference;
    std::string detail;
  };
  uint64_t layers = 0;
  uint64_t layers_left = 0;
  uint64_t bytes_left = 0;
  std::vector<Failed> failed;
};

class ControlSource {
 public:
  virtual ~ControlSource() = default;
  // May look at files, but asks no network.
  virtual std::vector<ControlLayer> ListLayers() = 0;
  virtual std::vector<ControlCounter> Counters() = 0;
  // Has all fetched that is missing of any layer; what has failed is tried again. Returns at once.
  virtual void FetchAll() = 0;
  // How far that is.
  virtual ControlDrain DrainState() = 0;
};

}  // namespace strata
