// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_pin.h"

#include <array>
#include <charconv>
#include <cstddef>

namespace strata {
namespace {

constexpr std::string_view kTocDigestLabel = "containerd.io/snapshot/stargz/toc.digest";
constexpr std::array<std::string_view, 2> kZstdFamilies = {"io.github.containers.zstd-chunked.",
                                                           "io.containers.zstd-chunked."};

std::optional<uint8_t> HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') {
    return static_cast<uint8_t>(digit - '0');
  }
  if (digit >= 'a' && digit <= 'f') {
    return static_cast<uint8_t>(digit - 'a' + 10);
  }
  return std::nullopt;
}

Status Unreadable(const std::string& label, const std::string& value) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    "label '" + label + "': cannot read '" + value.substr(0, 100) + "'");
}

Status ReadDigest(const std::map<std::string, std::string>& labels, const std::string& label,
                  std::optional<Sha256Digest>& digest) {
  const auto found = labels.find(label);
  if (found == labels.end() || digest) {
    return OkStatus();
  }
  digest = ParseSha256(found->second);
  return digest ? OkStatus() : Unreadable(label, found->second);
}

// OFFSET:COMPRESSED:UNCOMPRESSED:1
std::optional<ManifestPosition> ParsePosition(std::string_view text) {
  std::array<uint64_t, 4> fields = {};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (size_t i = 0; i < fields.size(); ++i) {
    if (i > 0 && (at == end || *at++ != ':')) {
      return std::nullopt;
    }
    const auto [next, error] = std::from_chars(at, end, fields[i]);
    if (error != std::errc()) {
      return std::nullopt;
    }
    at = next;
  }
  if (at != end || fields[3] != 1) {
    return std::nullopt;
  }
  return ManifestPosition{.range = {.offset = fields[0], .bytes = fields[1]}, .bytes = fields[2]};
}

}  // namespace

std::string ShowSha256(const Sha256Digest& digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "sha256:";
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::optional<Sha256Digest> ParseSha256(std::string_view text) {
  constexpr std::string_view kAlgorithm = "sha256:";
  Sha256Digest digest = {};
  if (!text.starts_with(kAlgorithm) || text.size() != kAlgorithm.size() + 2 * digest.size()) {
    return std::nullopt;
  }
  text.remove_prefix(kAlgorithm.size());
  for (size_t i = 0; i < digest.size(); ++i) {
    const std::optional<uint8_t> high = HexDigit(text[2 * i]);
    const std::optional<uint8_t> low = HexDigit(text[2 * i + 1]);
    if (!high || !low) {
      return std::nullopt;
    }
    digest[i] = static_cast<uint8_t>(*high << 4 | *low);
  }
  return digest;
}

StatusOr<TocPin> ParseTocPin(const std::map<std::string, std::string>& labels) {
  TocPin pin;
  STRATA_RETURN_IF_ERROR(ReadDigest(labels, std::string(kTocDigestLabel), pin.toc_digest));
  for (const std::string_view family : kZstdFamilies) {
    STRATA_RETURN_IF_ERROR(
        ReadDigest(labels, std::string(family) + "manifest-checksum", pin.manifest_checksum));
    const std::string label = std::string(family) + "manifest-position";
    const auto found = labels.find(label);
    if (found != labels.end() && !pin.manifest_position) {
      pin.manifest_position = ParsePosition(found->second);
      if (!pin.manifest_position) {
        return Unreadable(label, found->second);
      }
    }
  }
  return pin;
}

}  // namespace strata
