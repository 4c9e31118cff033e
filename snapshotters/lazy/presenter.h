// SPDX-License-Identifier: Apache-2.0
//
// Presenter: how the kernel is shown a layer: as a read-only tree at a path. Safe from any thread.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/filler.h"

namespace strata {

// A mount that is there already, from /proc/self/mountinfo.
struct FoundMount {
  std::string type;  // "erofs", "fuse.strata"
  dev_t device = 0;
};

class Presenter {
 public:
  virtual ~Presenter() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;  // "fuse", "erofs"

  // Mounts the layer on `target`, an existing absolute directory. A mount that is there already is
  // covered, in one step: whoever looks meanwhile sees the old tree or the new one. On error
  // nothing is mounted; Unimplemented and ResourceExhausted: another presenter may do.
  virtual Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) = 0;

  // The rest of a start: a layer of the disk, whether shown or not. (Of complete ones EROFS is told
  // by Complete instead; files of them may still be open by way of FUSE.) `top` is
  // what is mounted on its target (null: nothing). True: that mount is one of this presenter's and
  // is served from now on, as good as one made by Show. False: it is not, and nothing has changed;
  // but files of the layer that are still open somewhere are served where that can be.
  virtual bool Resume(const std::shared_ptr<FillLayer>& /*layer*/, const FoundMount* /*top*/) {
    return false;
  }
  // Resume has been called for every layer that there is.
  virtual void Settled() {}

  // Every byte of the layer is in its image, and on disk.
  virtual void Complete(FillLayer& /*layer*/) {}

  // The layer goes away, its mounts are detached: nobody opens it any more. True: nothing of it is
  // in use, or it need not be on disk for that. False: the kernel still reads its image: it must
  // stay where it is, and this be called again later.
  virtual bool Withdraw(uint64_t layer_number) = 0;

  // Whether mounts stay when this process ends, for a successor to serve: it must not detach them.
  [[nodiscard]] virtual bool stays() const { return false; }
};

}  // namespace strata
