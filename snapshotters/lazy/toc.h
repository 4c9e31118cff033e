// SPDX-License-Identifier: Apache-2.0
//
// The table of contents of a lazy layer: one pass over its JSON, an entry at a time. It comes from
// a registry, so everything in it is bounded and checked. Stateless, safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/status.h"

namespace strata {

enum class EntryType : uint8_t {
  kDirectory,
  kRegular,
  kSymlink,
  kHardlink,
  kCharDevice,
  kBlockDevice,
  kFifo,
  kChunk,  // more of the contents of the last entry that is none
};

struct TocXattr {
  std::string_view name;
  std::string_view value;  // any bytes
};

struct TocEntry {
  EntryType type = EntryType::kRegular;
  // Relative to the layer's root, without empty or "." components; "" is the root. Never "..".
  std::string_view name;
  // Symlink: what it holds. Hardlink: the name of its target, in the form of `name`.
  std::string_view link_name;
  uint64_t size = 0;
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  uint32_t mode = 0;  // within 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t dev_major = 0;
  uint32_t dev_minor = 0;
  // Names are not empty and differ.
  std::span<const TocXattr> xattrs;
  std::optional<Sha256Digest> digest;        // of the whole file
  std::optional<Sha256Digest> chunk_digest;  // of this chunk
  // Where the contents are, as the format has it; chunk_map.h makes sense of these.
  uint64_t offset = 0;
  uint64_t chunk_offset = 0;
  uint64_t chunk_size = 0;
  uint64_t inner_offset = 0;
  uint64_t end_offset = 0;
  bool zeros = false;
};

class TocVisitor {
 public:
  virtual ~TocVisitor() = default;
  // In the order of the TOC. All views die when it returns; an error ends the pass and is its
  // result, with the entry's name in front.
  virtual Status OnEntry(const TocEntry& entry) = 0;
};

struct TocLimits {
  uint64_t toc_bytes = uint64_t{512} << 20;
  uint64_t entries = 10'000'000;
  size_t name_bytes = 4096;
  size_t component_bytes = 255;
  size_t xattrs = 256;                   // of an entry
  size_t xattr_value_bytes = 64 << 10;   // Linux has no larger one
  size_t xattr_total_bytes = 256 << 10;  // of an entry
  uint64_t file_bytes = uint64_t{1} << 48;
  uint64_t chunk_bytes = 64 << 20;          // what is verified as one
  uint64_t span_blob_bytes = 256 << 20;     // what is fetched as one
  uint64_t span_decoded_bytes = 256 << 20;  // what is decoded as one
};

struct TocSummary {
  uint64_t entries = 0;
  // The landmarks of the layer's root, which say what to fetch first.
  bool no_prefetch = false;
  bool has_prefetch_landmark = false;
  uint64_t prefetch_end = 0;  // of the blob: everything before is wanted first
};

// simdjson reads, but does not use, so many bytes behind the text.
constexpr size_t kTocPadding = 64;

// Shows every entry of `json` to `visitor`. Capacity is added to `json` when it has less than
// kTocPadding behind its end. DataLoss: not JSON, a version other than 1, a value of a wrong type
// or outside of `limits`, with the entry's number and name; entries before it were shown.
StatusOr<TocSummary> ParseToc(std::string& json, const TocLimits& limits, TocVisitor& visitor);

}  // namespace strata
