// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_decoder.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string_view>

#include "snapshotters/base/digest.h"
#include "snapshotters/lazy/span_decoder.h"

namespace strata {
namespace {

constexpr std::string_view kTocName = "stargz.index.json";

// POSIX ustar: blocks of 512 bytes; the fields of a header, as offset and length.
constexpr size_t kTarBlock = 512;
constexpr size_t kTarNameBytes = 100;
constexpr size_t kTarSizeAt = 124;
constexpr size_t kTarSizeBytes = 12;
constexpr size_t kTarChecksumAt = 148;
constexpr size_t kTarChecksumBytes = 8;
constexpr size_t kTarTypeAt = 156;
// Headers before the file, and the end of the archive after it.
constexpr uint64_t kTarOverhead = 1 << 20;

Status Damaged(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "TOC: " + std::string(why));
}

std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Octal digits, with spaces before and spaces or NULs after them.
std::optional<uint64_t> ParseOctal(std::string_view field) {
  while (!field.empty() && field.front() == ' ') {
    field.remove_prefix(1);
  }
  uint64_t value = 0;
  size_t digits = 0;
  while (digits < field.size() && field[digits] >= '0' && field[digits] <= '7') {
    value = value << 3 | static_cast<uint64_t>(field[digits] - '0');
    ++digits;
  }
  const bool ended = field.find_first_not_of(std::string_view(" \0", 2), digits) == field.npos;
  return digits > 0 && ended ? std::optional(value) : std::nullopt;
}

bool ChecksumHolds(std::string_view header) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) {
    const bool own = i >= kTarChecksumAt && i < kTarChecksumAt + kTarChecksumBytes;
    sum += own ? uint64_t{' '} : static_cast<uint8_t>(header[i]);
  }
  return ParseOctal(header.substr(kTarChecksumAt, kTarChecksumBytes)) == sum;
}

// The content of stargz.index.json, which is the only file of the archive. Extended headers (pax)
// before it are passed over: neither its name nor its size, at most 8 GiB in ustar, needs one.
StatusOr<std::string_view> FindInTar(std::string_view tar) {
  while (tar.size() >= kTarBlock) {
    const std::string_view header = tar.substr(0, kTarBlock);
    if (!ChecksumHolds(header)) {
      return Damaged("a tar header has a wrong checksum");
    }
    const std::optional<uint64_t> size = ParseOctal(header.substr(kTarSizeAt, kTarSizeBytes));
    tar.remove_prefix(kTarBlock);
    if (!size || *size > tar.size()) {
      return Damaged("a tar header has a wrong size");
    }
    const char type = header[kTarTypeAt];
    if (type == '0' || type == '\0') {
      const std::string_view name = header.substr(0, std::min(header.find('\0'), kTarNameBytes));
      if (name != kTocName) {
        return Damaged("the archive holds another file than stargz.index.json");
      }
      return tar.substr(0, *size);
    }
    if (type != 'x' && type != 'g') {
      return Damaged("the archive holds something else than a file");
    }
    const uint64_t padded = (*size + kTarBlock - 1) / kTarBlock * kTarBlock;
    tar.remove_prefix(std::min<uint64_t>(padded, tar.size()));
  }
  return Damaged("the archive holds no stargz.index.json");
}

bool IsZstd(LayerFormat format) {
  return format == LayerFormat::kZstdChunked || format == LayerFormat::kZstdChunkedContainers;
}

Status CheckPosition(const Footer& footer, const TocPin& pin) {
  if (IsZstd(footer.format) && pin.manifest_position &&
      (pin.manifest_position->range != footer.toc ||
       pin.manifest_position->bytes != footer.toc_bytes)) {
    return Damaged("the footer and the annotation manifest-position contradict each other");
  }
  return OkStatus();
}

// What can be checked before anything is decoded.
Status CheckCompressed(const Footer& footer, std::span<const uint8_t> compressed,
                       const TocPin& pin) {
  STRATA_RETURN_IF_ERROR(CheckPosition(footer, pin));
  if (IsZstd(footer.format) && pin.manifest_checksum &&
      Sha256(AsText(compressed)) != *pin.manifest_checksum) {
    return Damaged("the compressed bytes do not have the digest that the manifest pins");
  }
  return OkStatus();
}

// The pins that mean something for this format: a checksum of the compressed TOC is zstd:chunked's.
bool Pinned(const Footer& footer, const TocPin& pin) {
  return pin.toc_digest || (IsZstd(footer.format) && pin.manifest_checksum);
}

}  // namespace

StatusOr<std::string> DecodeToc(const Footer& footer, std::span<const uint8_t> compressed,
                                const TocPin& pin, const VerifyPolicy& policy,
                                const TocLimits& limits) {
  if (!policy.disabled) {
    if (!Pinned(footer, pin) && !policy.allow_unpinned) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        "TOC: the manifest pins no digest of it, and verification is wanted");
    }
    STRATA_RETURN_IF_ERROR(CheckCompressed(footer, compressed, pin));
  }
  SpanDecoder decoder;
  DecodedBuffer decoded;
  std::string_view json;
  if (IsZstd(footer.format)) {
    if (footer.toc_bytes > limits.toc_bytes) {
      return Damaged(std::to_string(footer.toc_bytes) + " bytes are more than the limit");
    }
    STRATA_RETURN_IF_ERROR(Annotate(
        decoder.Decode(SpanCodec::kZstd, compressed, footer.toc_bytes, limits.toc_bytes, decoded),
        "TOC"));
    json = AsText(decoded.bytes());
  } else {
    // The archive is one member, which is decoded whole.
    STRATA_RETURN_IF_ERROR(Annotate(decoder.Decode(SpanCodec::kGzip, compressed, kTarBlock,
                                                   limits.toc_bytes + kTarOverhead, decoded),
                                    "TOC"));
    STRATA_ASSIGN_OR_RETURN(json, FindInTar(AsText(decoded.bytes())));
  }
  if (json.size() > limits.toc_bytes) {
    return Damaged(std::to_string(json.size()) + " bytes are more than the limit");
  }
  if (!policy.disabled && pin.toc_digest && Sha256(json) != *pin.toc_digest) {
    return Damaged("it does not have the digest that the manifest pins");
  }
  std::string text;
  text.reserve(json.size() + kTocPadding);
  text.append(json);
  return text;
}

}  // namespace strata
