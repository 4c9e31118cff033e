// SPDX-License-Identifier: Apache-2.0
//
// A walk through the raw pages of an LMDB file. LMDB's own reads trust that page 7 is where page 7
// should be; a misdirected write makes that untrue. Internal to the check at the start.
#pragma once

#include <lmdb.h>

#include "snapshotters/base/status.h"

namespace strata::lmdb {

// DataLoss unless every page in use carries its own number and is in use once, and the list of free
// pages names none of them. `env` is open, and nobody writes to it meanwhile.
Status CheckPages(MDB_env* env);

}  // namespace strata::lmdb
