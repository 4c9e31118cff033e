// SPDX-License-Identifier: Apache-2.0
//
// What a layer says of itself in a file of its own tree, as stargz-snapshotter's layers do:
// `/.stargz-snapshotter/<digest>.json`. Safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "snapshotters/lazy/filler.h"

namespace strata {

// In the top directory of a layer; found by its name and listed nowhere.
inline constexpr std::string_view kStateFolderName = ".stargz-snapshotter";

// Of the only file in it: digests are checked, so this is a name.
std::string StateFileName(const LayerSource& source);

// A JSON object and a line's end: "error" (the last one, where there was any), "digest", and of
// the blob "size", "fetchedSize" (bytes) and "fetchedPercent". Of a blob that is fetched in part,
// it is the pieces of which anything is here; a complete one is all here.
std::string StateFileText(FillLayer& layer);

}  // namespace strata
