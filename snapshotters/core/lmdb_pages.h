// SPDX-License-Identifier: Apache-2.0
//
// The raw pages of an LMDB file. LMDB's own reads trust that page 7 is where page 7 should be; a
// misdirected write makes that untrue, so the check at the start walks through them. Internal to
// the store.
#pragma once

#include <lmdb.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata::lmdb {

// DataLoss unless every page in use carries its own number and is in use once, and the list of free
// pages names none of them. `env` is open, and nobody writes to it meanwhile.
Status CheckPages(MDB_env* env);

// A value too long for a page of the tree lies in pages of its own, one behind the other, from this
// byte of the first one on. On 64-bit machines.
inline constexpr size_t kLongValueOffset = 16;

// The number of the first page of such a `value`, which LMDB has just returned: it is in the map.
uint64_t PageOfLongValue(std::string_view value);

}  // namespace strata::lmdb
