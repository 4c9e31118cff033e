// SPDX-License-Identifier: Apache-2.0
//
// A MetaStore that lives in memory: for tests of everything above it. Safe from any thread.
#pragma once

#include <memory>

#include "snapshotters/core/meta_store.h"

namespace strata {

std::unique_ptr<MetaStore> NewMemoryMetaStore();

}  // namespace strata
