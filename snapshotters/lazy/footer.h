// SPDX-License-Identifier: Apache-2.0
//
// The last bytes of a layer's blob, which say that it can be read lazily, how, and where its table
// of contents (TOC) lies. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

enum class LayerFormat : uint8_t {
  kEstargz,                // 51-byte footer
  kLegacyStargz,           // 47-byte footer; its chunks may have no digests
  kExternalToc,            // 46-byte footer; the TOC is a layer of another image
  kZstdChunked,            // 40-byte footer, as stargz-snapshotter writes it
  kZstdChunkedContainers,  // 64-byte footer, as containers/storage (Podman, Skopeo) writes it
};

std::string_view LayerFormatName(LayerFormat format);

// A part of the blob.
struct BlobRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  friend bool operator==(const BlobRange&, const BlobRange&) = default;
};

struct Footer {
  LayerFormat format = LayerFormat::kEstargz;
  // The compressed TOC; empty for kExternalToc.
  BlobRange toc;
  // What the TOC decodes to; 0 where the format does not say.
  uint64_t toc_bytes = 0;
  // Everything that file contents are in lies before it.
  uint64_t payload_end = 0;
  uint64_t footer_bytes = 0;
  // Compressed tar-split data, kZstdChunkedContainers only; empty where there is none.
  BlobRange tar_split;
  friend bool operator==(const Footer&, const Footer&) = default;
};

// So many bytes of the blob's end are enough for every format.
constexpr size_t kFooterTailBytes = 72;

// `tail`: the last bytes of a blob of `blob_size` bytes, at least kFooterTailBytes of them or all
// there are (else InvalidArgument). FailedPrecondition: this is no lazy layer. DataLoss: it claims
// to be one, and its fields contradict the blob. All ranges of the result lie within the blob.
StatusOr<Footer> ParseFooter(std::span<const uint8_t> tail, uint64_t blob_size);

}  // namespace strata
