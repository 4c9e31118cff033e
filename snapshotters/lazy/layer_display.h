// SPDX-License-Identifier: Apache-2.0
//
// LayerDisplay: layers as mounts on <root>/l/<n>: by a presenter, or, of complete ones, by the
// kernel's EROFS alone. Safe from any thread; each number is the business of one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_mounts.h"
#include "snapshotters/lazy/layer_presenters.h"
#include "snapshotters/lazy/layer_table.h"

namespace strata {

class LayerDisplay {
 public:
  struct Shown {
    ShownBy by = ShownBy::kNobody;
    std::string why_fuse;  // see StoredLayer
  };

  // `directory` ("<root>/l") is made if it is missing; the presenters must outlive this.
  static StatusOr<std::unique_ptr<LayerDisplay>> Open(std::string directory,
                                                      std::string layers_directory,
                                                      bool erofs_when_complete,
                                                      const LayerPresenters& presenters);

  [[nodiscard]] std::string PathOf(uint64_t number) const;

  // What a predecessor left.
  [[nodiscard]] StatusOr<LayerMounts> Found() const { return FindLayerMounts(directory_); }
  // For every layer that there is, once, with what is mounted on it: by whom it is shown from now
  // on, without a new mount. EROFS mounts of complete layers are good for ever. kNobody: what is
  // mounted there is served by nobody, and is to be covered or removed.
  ShownBy Resume(const StoredLayer& layer, std::span<const FoundMount> mounts);
  void Settled();
  // Removes the folders of layers that are not there.
  [[nodiscard]] Status RemoveFoldersBut(const LayerTable& layers) const;

  // Mounts the layer, over what is there. On error nothing new is mounted; reason kPresenter.
  StatusOr<Shown> Show(const StoredLayer& layer);
  // The layer is complete: by whom it is shown from now on, after `now`.
  ShownBy Complete(const StoredLayer& layer, ShownBy now);
  // Detaches all mounts of the layer and removes the folder: who still looks for it finds nothing,
  // rather than an empty tree.
  [[nodiscard]] Status Remove(uint64_t number) const;
  // Nobody opens it through a presenter any more. False: its image is still read.
  [[nodiscard]] bool Withdraw(uint64_t number);

  // Whether the mount outlives this process.
  [[nodiscard]] bool Stays(ShownBy by) const;
  // "fuse", "erofs"; "" for nobody.
  [[nodiscard]] std::string_view NameOf(ShownBy by) const;
  // How often a layer had to be shown by FUSE that was to be shown by EROFS.
  [[nodiscard]] uint64_t refused() const { return refused_; }

 private:
  LayerDisplay(std::string directory, std::string layers_directory, bool erofs_when_complete,
               const LayerPresenters& presenters);
  Status ShowByErofs(const StoredLayer& layer);

  const std::string directory_;
  const std::string layers_directory_;
  std::atomic<bool> try_erofs_;
  std::atomic<uint64_t> refused_{0};
  const LayerPresenters presenters_;
};

}  // namespace strata
