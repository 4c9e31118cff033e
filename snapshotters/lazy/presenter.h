// SPDX-License-Identifier: Apache-2.0
//
// Presenter: how the kernel is shown a layer: as a read-only tree at a path. Safe from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/filler.h"

namespace strata {

class Presenter {
 public:
  virtual ~Presenter() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;  // "fuse", "erofs"

  // Mounts the layer on `target`, an existing absolute directory. A mount that is there already is
  // covered, in one step: whoever looks meanwhile sees the old tree or the new one. On error
  // nothing is mounted.
  virtual Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) = 0;

  // The layer goes away: nobody opens it any more. The mounts on the target are the caller's to
  // detach; files still open are served until they are closed.
  virtual void Withdraw(uint64_t layer_number) = 0;
};

}  // namespace strata
