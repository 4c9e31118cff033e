// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/lazy_layer_link.h"

#include <absl/strings/numbers.h>
#include <unistd.h>

#include <array>

namespace strata {

std::optional<std::string> LazyLayerLink(int snapshots_fd, SnapshotId id) {
  const std::string link = std::to_string(id) + "/layer";
  std::array<char, 64> target{};
  const ssize_t length = ::readlinkat(snapshots_fd, link.c_str(), target.data(), target.size());
  if (length < 0) {
    return std::nullopt;
  }
  return std::string(target.data(), static_cast<size_t>(length));
}

uint64_t LayerIn(std::string_view target) {
  constexpr std::string_view kTarget = "../../l/";
  uint64_t number = 0;
  if (!target.starts_with(kTarget)) {
    return 0;
  }
  target.remove_prefix(kTarget.size());
  return absl::SimpleAtoi(absl::string_view(target.data(), target.size()), &number) ? number : 0;
}

}  // namespace strata
