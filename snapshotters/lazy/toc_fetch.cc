// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc_fetch.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "snapshotters/lazy/fallback_reason.h"

namespace strata {
namespace {

// Holds the TOC of a layer of some thousand files, and is worth about as much as the round trip of
// a second request.
constexpr uint64_t kTailBytes = uint64_t{256} << 10;

class RangeCollector : public RangeSink {
 public:
  explicit RangeCollector(std::function<void(StatusOr<std::string>)> callback)
      : callback_(std::move(callback)) {}

  bool OnData(uint64_t /*offset*/, std::string_view bytes) override {
    bytes_ += bytes;
    return true;
  }
  void OnDone(Status status) override {
    if (status.ok()) {
      callback_(std::move(bytes_));
    } else {
      callback_(std::move(status));
    }
  }

 private:
  const std::function<void(StatusOr<std::string>)> callback_;
  std::string bytes_;
};

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

Status CheckFooter(const Footer& footer, const TocQuestion& question) {
  if (question.need_pin && !IsPinned(footer.format, question.pin)) {
    return WithReason(
        MakeStatus(StatusCode::kFailedPrecondition,
                   "TOC: the manifest pins no digest of it, and verification is wanted"),
        FallbackReason::kNoPin);
  }
  const uint64_t bytes = std::max(footer.toc.bytes, footer.toc_bytes);
  return bytes > question.longest_toc ? TocTooLong(bytes, question.longest_toc) : OkStatus();
}

StatusOr<Footer> FooterOf(const BlobTail& tail, const TocQuestion& question) {
  auto footer = ParseFooter(AsBytes(tail.bytes), tail.blob_size);
  const bool claimed = question.pin.pinned() || question.zstd_format.has_value();
  if (footer.status().code() == StatusCode::kFailedPrecondition && claimed) {
    return MakeStatus(
        StatusCode::kDataLoss,
        "the manifest names a TOC, and the blob has no footer of a format that can be read lazily");
  }
  return footer;
}

// The blob's size and first answer are here.
void OnTail(const TocQuestion& question, StatusOr<BlobTail> tail, const TocCallback& callback) {
  if (!tail.ok()) {
    callback(tail.status());
    return;
  }
  auto footer = FooterOf(*tail, question);
  if (const Status status = footer.ok() ? CheckFooter(*footer, question) : footer.status();
      !status.ok()) {
    callback(status);
    return;
  }
  const BlobRange toc = footer->toc;
  const uint64_t tail_begins = tail->blob_size - tail->bytes.size();
  FetchedToc fetched{.blob_bytes = tail->blob_size, .footer = *footer};
  if (toc.bytes == 0 || toc.offset >= tail_begins) {
    fetched.compressed = tail->bytes.substr(toc.bytes == 0 ? 0 : toc.offset - tail_begins,
                                            static_cast<size_t>(toc.bytes));
    callback(std::move(fetched));
    return;
  }
  const uint64_t missing = std::min(tail_begins - toc.offset, toc.bytes);
  std::string have = tail->bytes.substr(0, static_cast<size_t>(toc.bytes - missing));
  question.blob->FetchRange(
      toc.offset, missing, FetchClass::kResolve, question.deadline,
      std::make_shared<RangeCollector>([callback, fetched = std::move(fetched),
                                        have = std::move(have)](StatusOr<std::string> first) {
        if (!first.ok()) {
          callback(first.status());
          return;
        }
        FetchedToc whole = fetched;
        whole.compressed = *std::move(first) + have;
        callback(std::move(whole));
      }));
}

// What the annotations say about a zstd:chunked layer; nothing when they do not say enough, or
// contradict the size of the blob or the limits: its footer is asked then.
std::optional<Footer> FooterByAnnotations(const TocQuestion& question) {
  const auto& position = question.pin.manifest_position;
  constexpr uint64_t kFrameHeader = 8;  // of the skippable frame that the TOC is in
  if (!position || !question.zstd_format || !question.pin.pinned() || question.blob_bytes == 0) {
    return std::nullopt;
  }
  const BlobRange& toc = position->range;
  if (toc.bytes == 0 || position->bytes == 0 || toc.offset < kFrameHeader ||
      toc.offset > question.blob_bytes || toc.bytes > question.blob_bytes - toc.offset ||
      std::max(toc.bytes, position->bytes) > question.longest_toc) {
    return std::nullopt;
  }
  return Footer{.format = *question.zstd_format,
                .toc = toc,
                .toc_bytes = position->bytes,
                .payload_end = toc.offset - kFrameHeader};
}

uint64_t TailBytes(const TocQuestion& question) {
  if (question.need_pin && !question.pin.pinned()) {
    return kFooterTailBytes;  // it can only be refused
  }
  return question.blob_bytes == 0 ? kTailBytes : std::min(kTailBytes, question.blob_bytes);
}

}  // namespace

bool IsPinned(LayerFormat format, const TocPin& pin) {
  const bool is_zstd =
      format == LayerFormat::kZstdChunked || format == LayerFormat::kZstdChunkedContainers;
  return pin.toc_digest.has_value() || (is_zstd && pin.manifest_checksum.has_value());
}

Status TocTooLong(uint64_t bytes, uint64_t longest) {
  return WithReason(MakeStatus(StatusCode::kResourceExhausted,
                               "TOC: " + std::to_string(bytes) + " bytes are more than the " +
                                   std::to_string(longest) + " that are allowed"),
                    FallbackReason::kLimits);
}

void FetchToc(const TocQuestion& question, TocCallback callback) {
  const std::optional<Footer> footer = FooterByAnnotations(question);
  if (!footer) {
    question.blob->FetchTail(TailBytes(question), question.deadline,
                             [question, callback = std::move(callback)](StatusOr<BlobTail> tail) {
                               OnTail(question, std::move(tail), callback);
                             });
    return;
  }
  question.blob->FetchRange(
      footer->toc.offset, footer->toc.bytes, FetchClass::kResolve, question.deadline,
      std::make_shared<RangeCollector>([footer = *footer, bytes = question.blob_bytes,
                                        callback = std::move(callback)](StatusOr<std::string> toc) {
        if (!toc.ok()) {
          callback(toc.status());
          return;
        }
        callback(FetchedToc{.blob_bytes = bytes, .footer = footer, .compressed = *std::move(toc)});
      }));
}

void FetchWhole(const std::shared_ptr<Blob>& blob, uint64_t bytes, Deadline deadline,
                std::function<void(StatusOr<std::string>)> callback) {
  blob->FetchRange(0, bytes, FetchClass::kResolve, deadline,
                   std::make_shared<RangeCollector>(std::move(callback)));
}

}  // namespace strata
