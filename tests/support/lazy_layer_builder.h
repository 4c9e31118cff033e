// SPDX-License-Identifier: Apache-2.0
//
// Whole layers in every lazy format, from a list of entries: blob, TOC and what the manifest says
// of them, laid out as the converters do it. For tests only; stateless.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "snapshotters/lazy/footer.h"

namespace strata::testing {

struct LayerEntry {
  std::string name;          // relative; directories with or without a '/' behind
  std::string type = "reg";  // dir reg symlink hardlink char block fifo
  std::string content;       // of a regular file
  std::string link_name;     // of a symlink or a hardlink
  uint32_t mode = 0644;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string modtime = "2024-05-06T07:08:09Z";
  uint32_t dev_major = 0;
  uint32_t dev_minor = 0;
  std::map<std::string, std::string> xattrs;
};

struct LayerBuildOptions {
  LayerFormat format = LayerFormat::kEstargz;
  size_t chunk_bytes = size_t{4} << 20;
  bool chunk_digests = true;  // kLegacyStargz has none anyway
  // Of eStargz: neighbouring contents share a gzip member up to so many bytes (innerOffset).
  size_t member_bytes = 0;
};

struct BuiltLayer {
  std::string blob;
  std::string digest;  // of the blob
  std::string toc_json;
  std::string toc_digest;
  // What a manifest says of the layer: the pin, and the place of the TOC in zstd:chunked.
  std::map<std::string, std::string> annotations;
  uint64_t toc_offset = 0;  // of the compressed TOC in the blob
  uint64_t toc_bytes = 0;
  uint64_t payload_end = 0;
  // kExternalToc: the blob of the TOC image's layer, its digest, and the manifest of that image
  // with just this layer.
  std::string toc_blob;
  std::string toc_blob_digest;
  std::string toc_manifest;
};

// "sha256:..." of the bytes.
std::string DigestOf(const std::string& bytes);

// Entries in the order given. Landmarks are entries like others (content "\x0f").
BuiltLayer BuildLayer(const std::vector<LayerEntry>& entries,
                      const LayerBuildOptions& options = {});

}  // namespace strata::testing
