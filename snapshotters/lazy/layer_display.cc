// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_display.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/lazy/complete_mount.h"
#include "snapshotters/lazy/fallback_reason.h"
#include "snapshotters/lazy/layer_number.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

constexpr mode_t kFolderMode = 0755;
constexpr std::string_view kErofs = "erofs";

}  // namespace

LayerDisplay::LayerDisplay(std::string directory, std::string layers_directory,
                           bool erofs_when_complete, Presenter& presenter)
    : directory_(std::move(directory)),
      layers_directory_(std::move(layers_directory)),
      try_erofs_(erofs_when_complete),
      presenter_(presenter) {}

StatusOr<std::unique_ptr<LayerDisplay>> LayerDisplay::Open(std::string directory,
                                                           std::string layers_directory,
                                                           bool erofs_when_complete,
                                                           Presenter& presenter) {
  STRATA_RETURN_IF_ERROR(MakePath(directory, kFolderMode));
  return std::unique_ptr<LayerDisplay>(new LayerDisplay(
      std::move(directory), std::move(layers_directory), erofs_when_complete, presenter));
}

std::string LayerDisplay::PathOf(uint64_t number) const {
  return directory_ + "/" + std::to_string(number);
}

bool LayerDisplay::MayKeep(const StoredLayer& layer, const LayerMounts& mounts) const {
  const auto found = mounts.find(layer.number());
  // Numbers are never used again, so an EROFS there is this layer's image. One of an incomplete
  // layer has somebody who fills it, and that one is gone.
  return found != mounts.end() && found->second.back() == kErofs &&
         layer.image().extents().complete() && try_erofs_;
}

Status LayerDisplay::RemoveFoldersBut(const LayerTable& layers) const {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(directory_, O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(fd.get()));
  for (const std::string& name : names) {
    const std::optional<uint64_t> number = ParseLayerNumber(name);
    if (number.has_value() && layers.Find(*number) == nullptr) {
      if (const Status status = Remove(*number); !status.ok()) {
        LogWarn("folder of a layer that is gone stays, ignoring",
                {{"error", std::string(StatusMessage(status))}});
      }
    }
  }
  return OkStatus();
}

Status LayerDisplay::ShowByErofs(const StoredLayer& layer) {
  if (!try_erofs_) {
    return MakeStatus(StatusCode::kUnimplemented, "complete layers stay with their presenter");
  }
  const std::string image = layers_directory_ + "/" + std::to_string(layer.number()) + "/" +
                            std::string(LayerImage::kImageName);
  Status status = ShowComplete(layer.image(), image, PathOf(layer.number()));
  if (status.code() == StatusCode::kUnimplemented && try_erofs_.exchange(false)) {
    LogInfo("complete layers stay with their presenter: the kernel does not mount their images",
            {{"error", std::string(StatusMessage(status))}});
  }
  return status;
}

StatusOr<ShownBy> LayerDisplay::Show(const StoredLayer& layer) {
  const std::string target = PathOf(layer.number());
  if (::mkdir(target.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return WithReason(ErrnoStatus(errno, "make '" + target + "'"), FallbackReason::kDisk);
  }
  if (layer.image().extents().complete() && try_erofs_) {
    const Status status = ShowByErofs(layer);
    if (status.ok()) {
      return ShownBy::kErofs;
    }
    if (status.code() != StatusCode::kUnimplemented) {
      LogWarn("complete layer is not mounted as EROFS, ignoring",
              {{"layer", std::to_string(layer.number())},
               {"error", std::string(StatusMessage(status))}});
    }
  }
  const Status status = presenter_.Show(layer.fill, target);
  if (!status.ok()) {
    return WithReason(Annotate(status, "show layer " + std::to_string(layer.number())),
                      FallbackReason::kPresenter);
  }
  return ShownBy::kPresenter;
}

Status LayerDisplay::Remove(uint64_t number) const {
  const std::string target = PathOf(number);
  STRATA_RETURN_IF_ERROR(DetachAll(target));
  if (::rmdir(target.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, "remove '" + target + "'");
  }
  return OkStatus();
}

}  // namespace strata
