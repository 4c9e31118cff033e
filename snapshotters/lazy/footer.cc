// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/footer.h"

#include <algorithm>
#include <optional>
#include <string>

namespace strata {
namespace {

constexpr size_t kEstargzFooterBytes = 51;
constexpr size_t kLegacyFooterBytes = 47;
constexpr size_t kExternalFooterBytes = 46;
constexpr size_t kZstdFooterBytes = 48;
constexpr size_t kZstdContainersFooterBytes = 72;

// RFC 1952: ID1 ID2 CM FLG MTIME(4) XFL OS XLEN(2), then the extra field.
constexpr size_t kGzipExtraAt = 12;
constexpr uint8_t kGzipFlagExtra = 4;
constexpr size_t kOffsetDigits = 16;
constexpr std::string_view kStargzMagic = "STARGZ";
constexpr std::string_view kExternalMagic = "STARGZEXTERNALTOC";
constexpr size_t kSubfieldHeaderBytes = 4;

// RFC 8878 3.1.2: a skippable frame is a magic number, the length of its content, the content.
constexpr uint32_t kSkippableMagic = 0x184D2A50;
constexpr size_t kSkippableHeaderBytes = 8;
constexpr std::string_view kZstdMagic = "GnUlInUx";
constexpr std::string_view kZstdContainersMagic = "GNUlInUx";
// The kind of table of contents; the only one that was ever written.
constexpr uint64_t kManifestTypeCrfs = 1;

uint64_t LoadLittleEndian(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | bytes[i];
  }
  return value;
}

std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Status Broken(LayerFormat format, std::string_view why) {
  const std::string_view name = LayerFormatName(format);
  return MakeStatus(StatusCode::kDataLoss, "footer of a layer in the form '" + std::string(name) +
                                               "': " + std::string(why));
}

// The extra field of the gzip header that `footer` begins with when it has exactly `bytes` bytes;
// none when this is no such header. Time, XFL and OS are the writer's own business.
std::optional<std::span<const uint8_t>> GzipExtra(std::span<const uint8_t> footer, size_t bytes) {
  if (footer[0] != 0x1f || footer[1] != 0x8b || footer[2] != 8 || footer[3] != kGzipFlagExtra ||
      LoadLittleEndian(footer.subspan(10, 2)) != bytes) {
    return std::nullopt;
  }
  return footer.subspan(kGzipExtraAt, bytes);
}

// What is in the subfield "SG" when the extra field is just that.
std::optional<std::string_view> StargzSubfield(std::span<const uint8_t> extra) {
  if (extra[0] != 'S' || extra[1] != 'G' ||
      LoadLittleEndian(extra.subspan(2, 2)) != extra.size() - kSubfieldHeaderBytes) {
    return std::nullopt;
  }
  return AsText(extra.subspan(kSubfieldHeaderBytes));
}

std::optional<uint64_t> ParseHex(std::string_view digits) {
  uint64_t value = 0;
  for (const char digit : digits) {
    uint64_t part = 0;
    if (digit >= '0' && digit <= '9') {
      part = static_cast<uint64_t>(digit - '0');
    } else if (digit >= 'a' && digit <= 'f') {
      part = static_cast<uint64_t>(digit - 'a') + 10;
    } else if (digit >= 'A' && digit <= 'F') {
      part = static_cast<uint64_t>(digit - 'A') + 10;
    } else {
      return std::nullopt;
    }
    value = value << 4 | part;
  }
  return value;
}

// `field`: the offset in hexadecimal, then the magic.
StatusOr<Footer> GzipFooter(LayerFormat format, std::string_view field, uint64_t blob_size,
                            uint64_t footer_bytes) {
  const std::optional<uint64_t> offset = ParseHex(field.substr(0, kOffsetDigits));
  if (!offset) {
    return Broken(format, "the TOC's offset is not a hexadecimal number");
  }
  const uint64_t toc_end = blob_size - footer_bytes;
  if (*offset >= toc_end) {
    return Broken(format, "the TOC's offset " + std::to_string(*offset) + " is not before " +
                              std::to_string(toc_end));
  }
  return Footer{.format = format,
                .toc = {.offset = *offset, .bytes = toc_end - *offset},
                .payload_end = *offset,
                .footer_bytes = footer_bytes};
}

bool IsOffsetField(std::string_view field) {
  return field.size() == kOffsetDigits + kStargzMagic.size() && field.ends_with(kStargzMagic);
}

// The gzip-based formats; nothing when it is none of them.
std::optional<StatusOr<Footer>> TryGzip(std::span<const uint8_t> tail, uint64_t blob_size) {
  if (tail.size() >= kEstargzFooterBytes) {
    const auto extra = GzipExtra(tail.last(kEstargzFooterBytes), 26);
    const auto field = extra ? StargzSubfield(*extra) : std::nullopt;
    if (field && IsOffsetField(*field)) {
      return GzipFooter(LayerFormat::kEstargz, *field, blob_size, kEstargzFooterBytes);
    }
  }
  if (tail.size() >= kLegacyFooterBytes) {
    const auto extra = GzipExtra(tail.last(kLegacyFooterBytes), 22);
    if (extra && IsOffsetField(AsText(*extra))) {
      return GzipFooter(LayerFormat::kLegacyStargz, AsText(*extra), blob_size, kLegacyFooterBytes);
    }
  }
  if (tail.size() >= kExternalFooterBytes) {
    const auto extra = GzipExtra(tail.last(kExternalFooterBytes), 21);
    const auto field = extra ? StargzSubfield(*extra) : std::nullopt;
    if (field && *field == kExternalMagic) {
      const uint64_t end = blob_size - kExternalFooterBytes;
      return Footer{.format = LayerFormat::kExternalToc,
                    .toc = {.offset = end, .bytes = 0},
                    .payload_end = end,
                    .footer_bytes = kExternalFooterBytes};
    }
  }
  return std::nullopt;
}

// Whether [range.offset, range.offset + range.bytes) with the header of a skippable frame before it
// lies before `end`.
bool FrameFits(const BlobRange& range, uint64_t end) {
  return range.offset >= kSkippableHeaderBytes && range.offset <= end &&
         range.bytes <= end - range.offset;
}

StatusOr<Footer> ZstdFooter(LayerFormat format, std::span<const uint8_t> frame,
                            uint64_t blob_size) {
  if (LoadLittleEndian(frame.first(4)) != kSkippableMagic ||
      LoadLittleEndian(frame.subspan(4, 4)) != frame.size() - kSkippableHeaderBytes) {
    return Broken(format, "it is not in a skippable frame of its own");
  }
  const auto field = [&](size_t index) {
    return LoadLittleEndian(frame.subspan(kSkippableHeaderBytes + 8 * index, 8));
  };
  const uint64_t end = blob_size - frame.size();
  Footer footer = {.format = format,
                   .toc = {.offset = field(0), .bytes = field(1)},
                   .toc_bytes = field(2),
                   .footer_bytes = frame.size()};
  if (field(3) != kManifestTypeCrfs) {
    return Broken(format, "unknown kind of TOC " + std::to_string(field(3)));
  }
  if (!FrameFits(footer.toc, end) || footer.toc.bytes == 0 || footer.toc_bytes == 0) {
    return Broken(format, "the TOC's range " + std::to_string(footer.toc.offset) + "+" +
                              std::to_string(footer.toc.bytes) + " is not within the blob");
  }
  footer.payload_end = footer.toc.offset - kSkippableHeaderBytes;
  if (format == LayerFormat::kZstdChunkedContainers) {
    footer.tar_split = {.offset = field(4), .bytes = field(5)};
    if (footer.tar_split.bytes > 0 && !FrameFits(footer.tar_split, end)) {
      return Broken(format, "the range of tar-split data is not within the blob");
    }
  }
  return footer;
}

std::optional<StatusOr<Footer>> TryZstd(std::span<const uint8_t> tail, uint64_t blob_size) {
  const std::string_view text = AsText(tail);
  if (tail.size() >= kZstdFooterBytes && text.ends_with(kZstdMagic)) {
    return ZstdFooter(LayerFormat::kZstdChunked, tail.last(kZstdFooterBytes), blob_size);
  }
  if (tail.size() >= kZstdContainersFooterBytes && text.ends_with(kZstdContainersMagic)) {
    return ZstdFooter(LayerFormat::kZstdChunkedContainers, tail.last(kZstdContainersFooterBytes),
                      blob_size);
  }
  return std::nullopt;
}

}  // namespace

std::string_view LayerFormatName(LayerFormat format) {
  switch (format) {
    case LayerFormat::kEstargz:
      return "estargz";
    case LayerFormat::kLegacyStargz:
      return "stargz";
    case LayerFormat::kExternalToc:
      return "estargz with external TOC";
    case LayerFormat::kZstdChunked:
      return "zstd:chunked";
    case LayerFormat::kZstdChunkedContainers:
      return "zstd:chunked of containers/storage";
  }
  return "?";
}

StatusOr<Footer> ParseFooter(std::span<const uint8_t> tail, uint64_t blob_size) {
  if (tail.size() > blob_size || tail.size() < std::min<uint64_t>(kFooterTailBytes, blob_size)) {
    return MakeStatus(StatusCode::kInvalidArgument, "footer: " + std::to_string(tail.size()) +
                                                        " bytes of the end of a blob of " +
                                                        std::to_string(blob_size));
  }
  if (auto footer = TryGzip(tail, blob_size)) {
    return *std::move(footer);
  }
  if (auto footer = TryZstd(tail, blob_size)) {
    return *std::move(footer);
  }
  return MakeStatus(StatusCode::kFailedPrecondition,
                    "the blob has no footer of a format that can be read lazily");
}

}  // namespace strata
