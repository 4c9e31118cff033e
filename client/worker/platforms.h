// SPDX-License-Identifier: Apache-2.0
//
// Platforms as people write them, and those that this machine can run. Pure but for HostPlatforms;
// safe from any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "client/image/image_config.h"
#include "snapshotters/base/status.h"

namespace strata {

// "linux/arm64", "arm", "linux/arm/v7": completed and in the words that images use (worker-parity
// 1.3). InvalidArgument with containerd's texts.
StatusOr<Platform> ParsePlatform(std::string_view text);
StatusOr<std::vector<Platform>> ParsePlatforms(const std::vector<std::string>& texts);

Platform HostPlatform();
// What an entry of binfmt_misc (the text of its file) lets this machine run besides: nothing for
// one that is switched off, or is no emulator of Linux programs.
std::vector<Platform> EmulatedBy(std::string_view binfmt_entry);
// The machine's own first, then those with emulators.
std::vector<Platform> HostPlatforms(
    const std::string& binfmt_directory = "/proc/sys/fs/binfmt_misc");

}  // namespace strata
