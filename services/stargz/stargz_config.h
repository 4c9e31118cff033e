// SPDX-License-Identifier: Apache-2.0
//
// What strata-stargz can be told besides what every daemon can: our own settings, and those of
// stargz-snapshotter's config.toml, so that its file can be used as it is. Plain data and pure
// functions; safe from any thread.
#pragma once

#include <string>
#include <vector>

#include "services/config.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_store.h"
#include "snapshotters/os/overlay_settings.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

// How layers that are not complete are shown to the kernel.
enum class PresenterChoice {
  kAuto,   // by EROFS where that is safe, else by FUSE
  kErofs,  // the same, and a warning where it is not
  kFuse,
};

struct StargzConfig {
  PresenterChoice presenter = PresenterChoice::kAuto;
  // Whether room is set aside on the disk for what is still to come of layers that EROFS shows.
  bool reserve_space = true;
  bool state_files = false;  // FuseOptions
  OverlaySettings overlay;
  LayerStoreOptions layers;  // but for what the root decides
  Filler::Options filler;
  BlobClient::Options blobs;
  // Settings of stargz-snapshotter that have no meaning here: each with the reason, or with what to
  // use instead.
  std::vector<std::string> notes;
};

// The keys and flags that fill `config`, which must outlive them.
KindSettings StargzSettings(StargzConfig* config);

}  // namespace strata
