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

void NoteCovering(const std::string& number, const Status& status) {
  if (status.code() != StatusCode::kUnimplemented) {
    LogWarn("complete layer is not mounted as EROFS, ignoring",
            {{"layer", number}, {"error", std::string(StatusMessage(status))}});
  }
}

}  // namespace

LayerDisplay::LayerDisplay(std::string directory, std::string layers_directory,
                           bool erofs_when_complete, const LayerPresenters& presenters)
    : directory_(std::move(directory)),
      layers_directory_(std::move(layers_directory)),
      try_erofs_(erofs_when_complete || (presenters.filled != nullptr && presenters.show_filled)),
      presenters_(presenters) {}

StatusOr<std::unique_ptr<LayerDisplay>> LayerDisplay::Open(std::string directory,
                                                           std::string layers_directory,
                                                           bool erofs_when_complete,
                                                           const LayerPresenters& presenters) {
  STRATA_RETURN_IF_ERROR(MakePath(directory, kFolderMode));
  return std::unique_ptr<LayerDisplay>(new LayerDisplay(
      std::move(directory), std::move(layers_directory), erofs_when_complete, presenters));
}

std::string LayerDisplay::PathOf(uint64_t number) const {
  return directory_ + "/" + std::to_string(number);
}

ShownBy LayerDisplay::Resume(const StoredLayer& layer, std::span<const FoundMount> mounts) {
  const FoundMount* top = mounts.empty() ? nullptr : &mounts.back();
  // Of a complete layer, too: files of it may still be open by way of FUSE.
  if (!layer.image().extents().complete()) {
    const bool by_filled =
        presenters_.filled != nullptr && presenters_.filled->Resume(layer.fill, top);
    const bool by_fuse = presenters_.fuse->Resume(layer.fill, top);
    const ShownBy otherwise = by_fuse ? ShownBy::kFuse : ShownBy::kNobody;
    return by_filled ? ShownBy::kFilling : otherwise;
  }
  if (presenters_.filled != nullptr) {
    presenters_.filled->Complete(*layer.fill);  // nobody may have come to that
  }
  const bool by_fuse = presenters_.fuse->Resume(layer.fill, top);
  // Numbers are never used again, so an EROFS there is this layer's image.
  const bool by_erofs = top != nullptr && top->type == kErofs && try_erofs_;
  const ShownBy otherwise = by_fuse ? ShownBy::kFuse : ShownBy::kNobody;
  return by_erofs ? ShownBy::kErofs : otherwise;
}

void LayerDisplay::Settled() {
  if (presenters_.filled != nullptr) {
    presenters_.filled->Settled();
  }
  presenters_.fuse->Settled();
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

StatusOr<LayerDisplay::Shown> LayerDisplay::Show(const StoredLayer& layer) {
  const std::string number = std::to_string(layer.number());
  const std::string target = PathOf(layer.number());
  if (::mkdir(target.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return WithReason(ErrnoStatus(errno, "make '" + target + "'"), FallbackReason::kDisk);
  }
  Shown shown;
  if (layer.image().extents().complete()) {
    const Status status = ShowByErofs(layer);
    if (status.ok()) {
      shown.by = ShownBy::kErofs;
      return shown;
    }
    NoteCovering(number, status);
  } else if (presenters_.filled != nullptr && presenters_.show_filled) {
    const Status status = presenters_.filled->Show(layer.fill, target);
    if (status.ok()) {
      shown.by = ShownBy::kFilling;
      return shown;
    }
    ++refused_;
    shown.why_fuse = "not shown by EROFS: " + std::string(StatusMessage(status));
    LogWarn("layer is shown by FUSE", {{"layer", number}, {"reason", shown.why_fuse}});
  }
  if (const Status status = presenters_.fuse->Show(layer.fill, target); !status.ok()) {
    return WithReason(Annotate(status, "show layer " + number), FallbackReason::kPresenter);
  }
  shown.by = ShownBy::kFuse;
  return shown;
}

ShownBy LayerDisplay::Complete(const StoredLayer& layer, ShownBy now) {
  if (presenters_.filled != nullptr) {
    presenters_.filled->Complete(*layer.fill);
  }
  switch (now) {
    case ShownBy::kFilling:  // needs nobody any more
      return ShownBy::kErofs;
    case ShownBy::kFuse:
      break;
    case ShownBy::kNobody:
    case ShownBy::kErofs:
      return now;
  }
  // Those who have the layer open keep the presenter's tree; the next to look gets the kernel's.
  const Status status = ShowByErofs(layer);
  if (!status.ok()) {
    NoteCovering(std::to_string(layer.number()), status);
    return now;
  }
  return ShownBy::kErofs;
}

bool LayerDisplay::Withdraw(uint64_t number) {
  const bool by_filled = presenters_.filled == nullptr || presenters_.filled->Withdraw(number);
  const bool by_fuse = presenters_.fuse->Withdraw(number);
  return by_filled && by_fuse;
}

bool LayerDisplay::Stays(ShownBy by) const {
  switch (by) {
    case ShownBy::kFuse:
      return presenters_.fuse->stays();
    case ShownBy::kFilling:
      return presenters_.filled->stays();
    case ShownBy::kErofs:
      return true;
    case ShownBy::kNobody:
      break;
  }
  return false;
}

std::string_view LayerDisplay::NameOf(ShownBy by) const {
  switch (by) {
    case ShownBy::kFuse:
      return presenters_.fuse->name();
    case ShownBy::kFilling:
    case ShownBy::kErofs:
      return kErofs;
    case ShownBy::kNobody:
      break;
  }
  return "";
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
