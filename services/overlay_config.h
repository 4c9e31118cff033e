// SPDX-License-Identifier: Apache-2.0
//
// What kinds of overlay layers can be told besides what all can. Pure functions.
#pragma once

#include "services/config_keys.h"
#include "snapshotters/os/overlay_settings.h"

namespace strata {

// The keys and flags that fill `settings`, which must outlive them. `remap_ids`: the kind maps ids.
KindSettings OverlayConfig(OverlaySettings* settings, bool remap_ids);

}  // namespace strata
