// SPDX-License-Identifier: Apache-2.0
//
// LayerDisplay: layers as mounts on <root>/l/<n>: by the presenter, or, of complete ones, by the
// kernel's EROFS alone. Safe from any thread; each number is the business of one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_mounts.h"
#include "snapshotters/lazy/layer_table.h"
#include "snapshotters/lazy/presenter.h"

namespace strata {

class LayerDisplay {
 public:
  // `directory` ("<root>/l") is made if it is missing; `presenter` must outlive this.
  static StatusOr<std::unique_ptr<LayerDisplay>> Open(std::string directory,
                                                      std::string layers_directory,
                                                      bool erofs_when_complete,
                                                      Presenter& presenter);

  [[nodiscard]] std::string PathOf(uint64_t number) const;

  // What a predecessor left: the EROFS mounts of complete layers are good for ever and stay.
  [[nodiscard]] StatusOr<LayerMounts> Found() const { return FindLayerMounts(directory_); }
  [[nodiscard]] bool MayKeep(const StoredLayer& layer, const LayerMounts& mounts) const;
  // Removes the folders of layers that are not there.
  [[nodiscard]] Status RemoveFoldersBut(const LayerTable& layers) const;

  // Mounts the layer, over what is there. On error nothing new is mounted; reason kPresenter.
  StatusOr<ShownBy> Show(const StoredLayer& layer);
  // By the kernel's EROFS alone. Unimplemented: not here, which is remembered.
  Status ShowByErofs(const StoredLayer& layer);
  // Detaches all mounts of the layer and removes the folder.
  [[nodiscard]] Status Remove(uint64_t number) const;
  // Nobody opens it through the presenter any more. False: its image is still read.
  [[nodiscard]] bool Withdraw(uint64_t number) { return presenter_.Withdraw(number); }
  // Only detaches.
  [[nodiscard]] Status Detach(uint64_t number) const { return DetachAll(PathOf(number)); }

 private:
  LayerDisplay(std::string directory, std::string layers_directory, bool erofs_when_complete,
               Presenter& presenter);

  const std::string directory_;
  const std::string layers_directory_;
  std::atomic<bool> try_erofs_;
  Presenter& presenter_;
};

}  // namespace strata
