// SPDX-License-Identifier: Apache-2.0
//
// What an image says of itself: its platform, what it runs, and which layers it is made of. Plain
// data and pure functions; safe from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

// In the words of the OCI image specification; "" for a variant that is not said.
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;

  bool operator==(const Platform&) const = default;
};

struct ImageConfig {
  Platform platform;
  std::vector<std::string> env;  // NAME=VALUE
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::string user;
  std::string working_dir;
  std::string stop_signal;
  std::map<std::string, std::string> labels;
  std::vector<std::string> diff_ids;  // digests of the uncompressed layers, the lowest first
};

// DataLoss: it is no configuration of an OCI or Docker image, or a digest in it is not valid.
StatusOr<ImageConfig> ParseImageConfig(std::string_view json);

// The name that all who unpack images give to a stack of layers (OCI image-spec, "ChainID"). At
// least one layer.
std::string ChainIdOf(const std::vector<std::string>& diff_ids);

}  // namespace strata
