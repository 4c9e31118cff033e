// SPDX-License-Identifier: Apache-2.0
//
// The settings of stargz-snapshotter's config.toml that mean nothing here. Stateless, safe from any
// thread.
#pragma once

#include <span>
#include <string_view>

namespace strata {

struct PeerSetting {
  std::string_view path;
  std::string_view answer;  // why it has no effect, and what to use instead
};

std::span<const PeerSetting> PeerSettingsWithoutEffect();

}  // namespace strata
