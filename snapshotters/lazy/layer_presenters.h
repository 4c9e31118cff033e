// SPDX-License-Identifier: Apache-2.0
//
// What a LayerStore shows its layers by. Plain data.
#pragma once

#include "snapshotters/lazy/image_files.h"
#include "snapshotters/lazy/presenter.h"

namespace strata {

struct LayerPresenters {
  // Shows every layer that the other does not.
  Presenter* fuse = nullptr;
  // Shows layers by the kernel's EROFS while they are filled, and is asked first. Null: there is
  // none here.
  Presenter* filled = nullptr;
  // Otherwise that one only goes on with what a predecessor has shown.
  bool show_filled = true;
  // How images are opened. Null: as any file is.
  ImageFiles* files = nullptr;
};

}  // namespace strata
