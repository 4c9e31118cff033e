// SPDX-License-Identifier: Apache-2.0
//
// The record codec from both sides. Bytes as they could lie on a broken disk: decoding never
// crashes, and what decodes survives another round. A record made of the same bytes: decoding what
// was encoded gives it back.
#include <fuzzer/FuzzedDataProvider.h>
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "snapshotters/base/check.h"
#include "snapshotters/core/meta_store.h"
#include "snapshotters/core/record_codec.h"
#include "snapshotters/core/snapshot.h"

namespace {

using strata::DecodeRecord;
using strata::EncodeRecord;
using strata::Kind;
using strata::SnapshotRecord;
using strata::StatusCode;
using strata::StatusOr;

void CheckDecode(std::string_view bytes) {
  const StatusOr<SnapshotRecord> record = DecodeRecord(bytes);
  if (!record.ok()) {
    STRATA_CHECK(record.status().code() == StatusCode::kDataLoss);
    STRATA_CHECK(!record.status().message().empty());
    return;
  }
  const std::string encoded = EncodeRecord(*record);
  const StatusOr<SnapshotRecord> again = DecodeRecord(encoded);
  STRATA_CHECK(again.ok());
  STRATA_CHECK(*again == *record);
  STRATA_CHECK(EncodeRecord(*again) == encoded);
}

// No fuzzer guesses a checksum, so one that fits is put behind the bytes.
std::string WithChecksum(std::string_view bytes) {
  constexpr int kChecksumBytes = 4;
  const uLong checksum = ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  std::string sealed(bytes);
  for (int i = 0; i < kChecksumBytes; ++i) {
    sealed += static_cast<char>(checksum >> (8 * i));
  }
  return sealed;
}

// Any record that a store may hold.
SnapshotRecord MakeRecord(FuzzedDataProvider& data) {
  constexpr size_t kLongestText = 300;
  constexpr size_t kMostParents = 200;
  constexpr size_t kMostLabels = 20;
  constexpr auto kLargest = std::numeric_limits<int64_t>::max();
  SnapshotRecord record;
  record.id = data.ConsumeIntegralInRange<uint64_t>(1, std::numeric_limits<uint64_t>::max());
  record.info.name = "n" + data.ConsumeRandomLengthString(kLongestText);
  record.info.kind = data.PickValueInArray({Kind::kView, Kind::kActive, Kind::kCommitted});
  record.info.created = data.ConsumeIntegral<int64_t>();
  record.info.updated = data.ConsumeIntegral<int64_t>();
  record.usage.size = data.ConsumeIntegralInRange<int64_t>(0, kLargest);
  record.usage.inodes = data.ConsumeIntegralInRange<int64_t>(0, kLargest);
  const auto parents = data.ConsumeIntegralInRange<size_t>(0, kMostParents);
  for (size_t i = 0; i < parents; ++i) {
    record.chain.push_back(data.ConsumeIntegral<uint64_t>());
  }
  if (parents > 0) {
    record.info.parent = "p" + data.ConsumeRandomLengthString(kLongestText);
  }
  const auto labels = data.ConsumeIntegralInRange<size_t>(0, kMostLabels);
  for (size_t i = 0; i < labels; ++i) {
    record.info.labels[data.ConsumeRandomLengthString(kLongestText)] =
        data.ConsumeRandomLengthString(kLongestText);
  }
  return record;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(bytes), size);
  CheckDecode(input);
  CheckDecode(WithChecksum(input));
  FuzzedDataProvider data(bytes, size);
  const SnapshotRecord record = MakeRecord(data);
  const StatusOr<SnapshotRecord> decoded = DecodeRecord(EncodeRecord(record));
  STRATA_CHECK(decoded.ok());
  STRATA_CHECK(*decoded == record);
  return 0;
}
