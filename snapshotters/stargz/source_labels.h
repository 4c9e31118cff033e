// SPDX-License-Identifier: Apache-2.0
//
// What the labels of a Prepare say about the layer that is to be prepared: under which name it
// would be committed, and from where it can be had. Pure, safe from any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/core/snapshot.h"
#include "snapshotters/lazy/layer_store.h"

namespace strata {

// The chain ID that the layer will have; with it a Prepare may be answered "it is there already".
inline constexpr std::string_view kTargetLabel = "containerd.io/snapshot.ref";
// On every snapshot whose layer is lazy. BuildKit decides by it.
inline constexpr std::string_view kRemoteLabel = "containerd.io/snapshot/remote";
inline constexpr std::string_view kRemoteValue = "remote snapshot";

struct SourceLabels {
  std::string target;
  // Where the layer may be, in the order to be asked: what containerd's CRI and transfer services
  // say, what other clients say, then what BuildKit says for each of its sources. Empty: the labels
  // tell no place.
  std::vector<LayerRequest> places;
  // The other layers of the image that the first place names. They are known by digest only.
  std::vector<LayerRequest> neighbours;
  // Why labels that should have told a place did not.
  std::string problem;
};

// Nothing without a target: then nobody asked for a remote snapshot.
std::optional<SourceLabels> ParseSourceLabels(const Labels& labels);

}  // namespace strata
