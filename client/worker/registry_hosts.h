// SPDX-License-Identifier: Apache-2.0
//
// [registry."HOST"] as the registry client takes it, and as strata-stargz does. Safe from any
// thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "client/worker/config.h"
#include "snapshotters/base/status.h"
#include "snapshotters/registry/hosts.h"

namespace strata {

// Mirrors with the options of their own entries, then the host itself. Reads the folders of
// tlsconfigdir. InvalidArgument: "failed to read FILE", "failed to load keypair for CERT".
// `warnings`: what is there and cannot be followed.
StatusOr<HostsConfig> RegistryHosts(const std::map<std::string, RegistryConfig>& registries,
                                    std::vector<std::string>* warnings);

// The same as settings of strata-stargz: dotted keys and their values, both as TOML has them.
std::map<std::string, std::string> StargzResolver(const HostsConfig& hosts);

}  // namespace strata
