// SPDX-License-Identifier: Apache-2.0
//
// A network of the Container Network Interface as a file describes it: one plugin (conf) or a list
// of them (conflist). Plain data and pure functions; safe from any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

struct CniPlugin {
  std::string type;    // the name of its program
  std::string config;  // JSON, with the network's name and version in it
};

struct CniConfig {
  std::string name;
  std::string version;                // cniVersion, "0.1.0" where the file has none
  std::vector<CniPlugin> plugins;     // at least one
  std::string text;                   // all of it as a conflist, for ParseCniConfig
  std::string digest;                 // of `text`: 12 hexadecimal digits
  bool keeps_result_for_del = false;  // from version 0.4.0 on
};

// `list`: a conflist. InvalidArgument that says what was expected; names of networks and plugins
// become parts of paths, those that could lead elsewhere are refused.
StatusOr<CniConfig> ParseCniConfig(std::string_view text, bool list);

// From a file, a conflist if it ends so. NotFound `failed to read cni config "PATH": ...`.
StatusOr<CniConfig> ReadCniConfig(const std::string& path);

// `config` with `result`, a JSON object, as its prevResult; "" for none.
std::string WithPreviousResult(const std::string& config, std::string_view result);

}  // namespace strata
