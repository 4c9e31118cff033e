// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_versions.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/layer_number.h"
#include "snapshotters/lazy/layer_source.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

// Of `chunks` and `extents`: eight bytes that name the file, then the version.
struct FileStart {
  std::array<char, 8> magic;
  uint32_t version;
};
constexpr size_t kStartBytes = sizeof(FileStart::magic) + sizeof(FileStart::version);
constexpr size_t kMaxSourceBytes = 1 << 20;

std::optional<uint64_t> VersionOfTable(int layer, const std::string& name) {
  FileStart start{};
  const StatusOr<UniqueFd> file = OpenAt(layer, name, O_RDONLY | O_NONBLOCK);
  const bool read =
      file.ok() && ::pread(file->get(), &start, kStartBytes, 0) == ssize_t{kStartBytes};
  return read ? std::optional<uint64_t>(start.version) : std::nullopt;
}

std::optional<uint64_t> VersionOfSource(int layer) {
  const StatusOr<std::string> text = ReadFileAt(layer, "source", kMaxSourceBytes);
  return text.ok() ? LayerSourceVersionOf(*text) : std::nullopt;
}

Status Expect(std::optional<uint64_t> version, uint32_t known, const std::string& file) {
  if (!version.has_value() || *version == known) {
    return OkStatus();
  }
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "'" + file + "' has version " + std::to_string(*version) +
                        ", this program knows " + std::to_string(known));
}

}  // namespace

Status CheckLayerVersions(const std::string& root) {
  const std::string path = root + "/layers";
  const StatusOr<UniqueFd> layers = OpenFile(path, O_RDONLY | O_DIRECTORY);
  if (!layers.ok()) {
    return StatusErrno(layers.status()) == ENOENT ? OkStatus() : layers.status();
  }
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(layers->get()));
  for (const std::string& name : names) {
    if (!ParseLayerNumber(name).has_value()) {
      continue;
    }
    const StatusOr<UniqueFd> layer = OpenAt(layers->get(), name, O_RDONLY | O_DIRECTORY);
    if (!layer.ok()) {
      continue;  // evicted just now
    }
    std::string folder = path + "/";
    folder += name + "/";
    STRATA_RETURN_IF_ERROR(
        Expect(VersionOfTable(layer->get(), "chunks"), kChunkTableVersion, folder + "chunks"));
    STRATA_RETURN_IF_ERROR(
        Expect(VersionOfTable(layer->get(), "extents"), kExtentsVersion, folder + "extents"));
    STRATA_RETURN_IF_ERROR(
        Expect(VersionOfSource(layer->get()), kLayerSourceVersion, folder + "source"));
  }
  return OkStatus();
}

}  // namespace strata
