// SPDX-License-Identifier: Apache-2.0
//
// LayerSource: where the bytes of a layer come from, and what its image was made of: the file
// `source` of a layer (FORMAT.md). Never a credential. Plain data, safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/footer.h"

namespace strata {

struct LayerSource {
  std::string reference;  // "host/repository:tag", of the image that brought the layer here
  std::string digest;     // of the blob
  uint64_t blob_bytes = 0;
  std::vector<std::string> urls;  // further places
  LayerFormat format = LayerFormat::kEstargz;
  // "sha256:..." of the TOC's JSON as it was parsed; with the digest and `user_xattr` it is what
  // the layer is known by.
  std::string toc_digest;
  // "sha256:..." of the TOC as the blob has it, which is what zstd:chunked's manifests pin; empty:
  // not known.
  std::string toc_compressed_digest;
  bool user_xattr = false;  // opaque directories as user.overlay.opaque
  // Every chunk is held to the TOC. Whether that is the TOC which a manifest pins is looked at for
  // each request anew.
  bool verified = true;
  uint64_t prefetch_end = 0;  // spans of the blob that begin before are wanted first; 0: none
  bool no_prefetch = false;   // the layer has a landmark that says so
  uint64_t inodes = 0;

  bool operator==(const LayerSource&) const = default;
};

// JSON, and back. DataLoss names the field and what was expected.
std::string ShowLayerSource(const LayerSource& source);
StatusOr<LayerSource> ParseLayerSource(std::string_view json);
// The version that the text has, whatever else is in it; nothing: none.
std::optional<uint64_t> LayerSourceVersionOf(std::string_view json);

}  // namespace strata
