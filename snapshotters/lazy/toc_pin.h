// SPDX-License-Identifier: Apache-2.0
//
// What the image's manifest says about a layer's TOC: the digest that makes the layer's contents
// trusted, and where the TOC lies. Stateless, safe from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/footer.h"

namespace strata {

// "sha256:" and 64 hexadecimal digits; anything else: nothing.
std::optional<Sha256Digest> ParseSha256(std::string_view text);
// The text that parses to `digest`.
std::string ShowSha256(const Sha256Digest& digest);

// OFFSET:COMPRESSED:UNCOMPRESSED:KIND of a zstd:chunked manifest-position.
struct ManifestPosition {
  BlobRange range;
  uint64_t bytes = 0;
  friend bool operator==(const ManifestPosition&, const ManifestPosition&) = default;
};

struct TocPin {
  // sha256 of the TOC's JSON (containerd.io/snapshot/stargz/toc.digest).
  std::optional<Sha256Digest> toc_digest;
  // sha256 of the compressed TOC, and its place (io.containers.zstd-chunked.* and
  // io.github.containers.zstd-chunked.*).
  std::optional<Sha256Digest> manifest_checksum;
  std::optional<ManifestPosition> manifest_position;

  [[nodiscard]] bool pinned() const { return toc_digest || manifest_checksum; }
};

// From the labels of a snapshot or the annotations of a descriptor; others are ignored. One of ours
// that cannot be read is InvalidArgument: taken for absent, it would be a layer without a pin.
StatusOr<TocPin> ParseTocPin(const std::map<std::string, std::string>& labels);

}  // namespace strata
