// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_state_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

namespace strata {
namespace {

uint64_t FetchedBytes(const LayerImage& image) {
  if (image.extents().complete()) {
    return image.source().blob_bytes;
  }
  uint64_t bytes = 0;
  for (uint32_t span = 0; span < image.chunks().spans(); ++span) {
    const std::span<const uint32_t> chunks = image.chunks().ChunksOf(span);
    if (std::any_of(chunks.begin(), chunks.end(),
                    [&image](uint32_t chunk) { return image.extents().Has(chunk); })) {
      bytes += image.chunks().span(span).blob_bytes;
    }
  }
  return bytes;
}

}  // namespace

std::string StateFileName(const LayerSource& source) {
  return source.digest + ".json";
}

std::string StateFileText(FillLayer& layer) {
  const LayerImage& image = layer.image();
  const Status error = layer.state().last_error;
  const uint64_t size = image.source().blob_bytes;
  const uint64_t fetched = FetchedBytes(image);
  nlohmann::ordered_json text;
  if (!error.ok()) {
    text["error"] = std::string(StatusMessage(error));
  }
  text["digest"] = image.source().digest;
  text["size"] = size;
  text["fetchedSize"] = fetched;
  text["fetchedPercent"] =
      size == 0 ? 100.0 : 100.0 * static_cast<double>(fetched) / static_cast<double>(size);
  // An error may quote what a registry has sent.
  return text.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace strata
