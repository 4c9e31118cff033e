// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an image: nothing crashes, every walk ends, and what is refused is DataLoss.
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/erofs_reader.h"

namespace {

using strata::ErofsDirectoryEntry;
using strata::ErofsReader;
using strata::Status;
using strata::StatusCode;

constexpr size_t kMostInodes = 500;
constexpr size_t kMostLookups = 20'000;

// No fuzzer guesses a checksum, so the superblock gets one that fits.
void Seal(std::vector<uint8_t>& image) {
  if (image.size() < strata::kErofsBlockBytes) {
    return;
  }
  const std::span<uint8_t> super =
      std::span(image).first(strata::kErofsBlockBytes).subspan(strata::kErofsSuperOffset);
  constexpr size_t kAt = offsetof(strata::ErofsSuperBlock, checksum);
  std::memset(super.data() + kAt, 0, sizeof(uint32_t));
  const uint32_t sum = ~strata::Crc32c(super);
  std::memcpy(super.data() + kAt, &sum, sizeof(sum));
}

void CheckRefusal(const Status& status) {
  STRATA_CHECK(status.ok() || status.code() == StatusCode::kDataLoss ||
               status.code() == StatusCode::kFailedPrecondition);
}

class Walker {
 public:
  explicit Walker(const ErofsReader& reader) : reader_(reader) {}

  void Walk() {
    Visit(reader_.root());
    for (size_t next = 0; next < queue_.size(); ++next) {
      Inspect(queue_[next]);
    }
  }

 private:
  void Visit(uint64_t nid) {
    if (queue_.size() < kMostInodes && seen_.insert(nid).second) {
      queue_.push_back(nid);
    }
  }

  void Inspect(uint64_t nid) {
    CheckRefusal(reader_.ReadLink(nid).status());
    CheckRefusal(reader_.GetXattr(nid, "user.a").status());
    CheckRefusal(reader_.ListXattr(nid, [](std::string_view prefix, std::string_view rest) {
      STRATA_CHECK(prefix.size() + rest.size() < 1024);
    }));
    const auto offset = reader_.DataOffset(nid);
    CheckRefusal(offset.status());
    const auto stat = reader_.Stat(nid);
    CheckRefusal(stat.status());
    if (offset.ok()) {
      STRATA_CHECK(stat.ok() && *offset <= reader_.image_bytes() &&
                   stat->size <= reader_.image_bytes() - *offset);
    }
    uint64_t last = 0;
    CheckRefusal(reader_.ReadDir(nid, 0, [&](const ErofsDirectoryEntry& entry, uint64_t next) {
      STRATA_CHECK(!entry.name.empty() && entry.name.size() <= 255 && next > last);
      last = next;
      Visit(entry.nid);
      if (lookups_ < kMostLookups) {
        ++lookups_;
        CheckRefusal(reader_.Lookup(nid, entry.name).status());
      }
      return true;
    }));
    CheckRefusal(reader_.Lookup(nid, "no such name").status());
    // A cursor that a client made up.
    CheckRefusal(reader_.ReadDir(nid, last * 7919, [](const auto&, uint64_t) { return true; }));
  }

  const ErofsReader& reader_;
  std::set<uint64_t> seen_;
  std::vector<uint64_t> queue_;
  size_t lookups_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> image(data, data + size);
  Seal(image);
  const auto reader = ErofsReader::Open(image);
  if (!reader.ok()) {
    STRATA_CHECK(reader.status().code() == StatusCode::kDataLoss);
    return 0;
  }
  Walker(*reader).Walk();
  return 0;
}
