// SPDX-License-Identifier: Apache-2.0
//
// What is mounted on the folders in which layers are shown, <root>/l/<n>. Stateless, safe from any
// thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/presenter.h"

namespace strata {

// What is mounted on <directory>/<number>, by number, the topmost last.
using LayerMounts = std::map<uint64_t, std::vector<FoundMount>>;

// From the text of /proc/self/mountinfo (proc(5)). `directory` is absolute and without symlinks.
LayerMounts ParseLayerMounts(std::string_view mountinfo, std::string_view directory);

// Of this process. `directory` is absolute. Asks no file system: one whose server is dead would not
// answer.
StatusOr<LayerMounts> FindLayerMounts(const std::string& directory);

// Detaches everything that is mounted on `target`; what is open stays so.
Status DetachAll(const std::string& target);

}  // namespace strata
