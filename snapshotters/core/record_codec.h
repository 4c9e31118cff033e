// SPDX-License-Identifier: Apache-2.0
//
// A snapshot record as bytes on disk (FORMAT.md, "Record"). Stateless, safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"

namespace strata {

std::string EncodeRecord(const SnapshotRecord& record);

// DataLoss when the bytes are not what EncodeRecord made: wrong version, checksum, length or value.
StatusOr<SnapshotRecord> DecodeRecord(std::string_view bytes);

}  // namespace strata
