// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_mounts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <memory>
#include <optional>
#include <system_error>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/layer_number.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

constexpr size_t kLargestMountinfo = size_t{256} << 20;
// More mounts than that on one another are none of ours.
constexpr int kMostStacked = 1024;

std::string_view TakeField(std::string_view& line) {
  const size_t end = line.find(' ');
  const std::string_view field = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return field;
}

// Blanks, line ends and backslashes are written as \ooo.
std::string Unescape(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    uint8_t code = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(digits, digits + 3, code, 8).ptr == digits + 3) {
      plain += static_cast<char>(code);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// "98:0"; 0 for what is no device.
dev_t ParseDevice(std::string_view text) {
  unsigned major = 0;
  unsigned minor = 0;
  const char* end = text.data() + text.size();
  const auto [colon, error] = std::from_chars(text.data(), end, major);
  if (error != std::errc() || colon == end || *colon != ':' ||
      std::from_chars(colon + 1, end, minor).ptr != end) {
    return 0;
  }
  return makedev(major, minor);
}

void ParseLine(std::string_view line, std::string_view directory, LayerMounts& mounts) {
  // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
  TakeField(line);
  TakeField(line);
  const dev_t device = ParseDevice(TakeField(line));
  TakeField(line);
  const std::string target = Unescape(TakeField(line));
  const size_t separator = line.find(" - ");
  if (separator == std::string_view::npos || target.size() <= directory.size() ||
      !target.starts_with(directory) || target[directory.size()] != '/') {
    return;
  }
  const auto number = ParseLayerNumber(std::string_view(target).substr(directory.size() + 1));
  if (number) {
    line.remove_prefix(separator + 3);
    mounts[*number].push_back({.type = std::string(TakeField(line)), .device = device});
  }
}

}  // namespace

LayerMounts ParseLayerMounts(std::string_view mountinfo, std::string_view directory) {
  LayerMounts mounts;
  while (!mountinfo.empty()) {
    const size_t end = mountinfo.find('\n');
    ParseLine(mountinfo.substr(0, end), directory, mounts);
    mountinfo.remove_prefix(end == std::string_view::npos ? mountinfo.size() : end + 1);
  }
  return mounts;
}

StatusOr<LayerMounts> FindLayerMounts(const std::string& directory) {
  const std::unique_ptr<char, decltype(&::free)> real(::realpath(directory.c_str(), nullptr),
                                                      ::free);
  if (real == nullptr) {
    return ErrnoStatus(errno, "resolve '" + directory + "'");
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile("/proc/self/mountinfo", O_RDONLY));
  STRATA_ASSIGN_OR_RETURN(const std::string text,
                          ReadAll(file.get(), "/proc/self/mountinfo", kLargestMountinfo));
  return ParseLayerMounts(text, real.get());
}

Status DetachAll(const std::string& target) {
  for (int i = 0; i < kMostStacked; ++i) {
    const Status status = Unmount(target, /*lazy=*/true);
    if (!status.ok()) {
      return status.code() == StatusCode::kNotFound ? OkStatus() : status;
    }
  }
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "unmount '" + target + "': there is always one more mount");
}

}  // namespace strata
