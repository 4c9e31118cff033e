// SPDX-License-Identifier: Apache-2.0
//
// What overlay mounts of one root are made with: options that an operator may add, options that
// this kernel needs, and whether the root can hold overlay layers at all. Stateless, safe from any
// thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/os/state_root.h"

namespace strata {

// Whether `options` has NAME or NAME=...; the last one wins in the kernel, so ours must not follow.
bool HasMountOption(const std::vector<std::string>& options, std::string_view name);

// InvalidArgument for an option that snapshotters set themselves, or that is not one option.
Status CheckOverlayOptions(const std::vector<std::string>& options);

// What is appended to every overlay mount: the configured options, then what this kernel needs.
StatusOr<std::vector<std::string>> EffectiveOverlayOptions(const StateRoot& root,
                                                           std::vector<std::string> options);

// Tries whether the kernel and the file system can do overlay in the folder: FailedPrecondition
// with the reason and the remedy if not, ResourceExhausted when there is no room to try.
Status ProbeOverlayRoot(const std::string& root);

// The same for a root that is to serve (ForgiveFullDisk).
Status CheckOverlayRoot(const StateRoot& root);

}  // namespace strata
