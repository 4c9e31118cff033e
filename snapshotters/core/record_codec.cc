// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/record_codec.h"

#include <zlib.h>

#include <limits>

#include "snapshotters/core/byte_codec.h"

namespace strata {
namespace {

constexpr uint8_t kRecordVersion = 1;
constexpr size_t kChecksumBytes = 4;

uint32_t Checksum(std::string_view bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

Status Corrupt(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "snapshot record is damaged: " + std::string(why));
}

}  // namespace

std::string EncodeRecord(const SnapshotRecord& record) {
  std::string out;
  out.reserve(96 + record.info.name.size() + record.info.parent.size());
  PutFixed<uint8_t>(kRecordVersion, &out);
  PutFixed<uint8_t>(static_cast<uint8_t>(record.info.kind), &out);
  PutFixed<uint64_t>(record.id, &out);
  PutFixed<int64_t>(record.info.created, &out);
  PutFixed<int64_t>(record.info.updated, &out);
  PutVarint(static_cast<uint64_t>(record.usage.size), &out);
  PutVarint(static_cast<uint64_t>(record.usage.inodes), &out);
  PutText(record.info.name, &out);
  PutText(record.info.parent, &out);
  PutVarint(record.chain.size(), &out);
  for (const SnapshotId id : record.chain) {
    PutVarint(id, &out);
  }
  PutVarint(record.info.labels.size(), &out);
  for (const auto& [key, value] : record.info.labels) {
    PutText(key, &out);
    PutText(value, &out);
  }
  PutFixed<uint32_t>(Checksum(out), &out);
  return out;
}

StatusOr<SnapshotRecord> DecodeRecord(std::string_view bytes) {
  if (bytes.size() < kChecksumBytes) {
    return Corrupt("too short");
  }
  const std::string_view body = bytes.substr(0, bytes.size() - kChecksumBytes);
  ByteReader trailer(bytes.substr(body.size()));
  if (trailer.Fixed<uint32_t>() != Checksum(body)) {
    return Corrupt("checksum");
  }
  ByteReader reader(body);
  if (reader.Fixed<uint8_t>() != kRecordVersion) {
    return Corrupt("unknown version");
  }
  SnapshotRecord record;
  const auto kind = reader.Fixed<uint8_t>();
  if (kind < static_cast<uint8_t>(Kind::kView) || kind > static_cast<uint8_t>(Kind::kCommitted)) {
    return Corrupt("unknown kind");
  }
  record.info.kind = static_cast<Kind>(kind);
  record.id = reader.Fixed<uint64_t>();
  record.info.created = reader.Fixed<int64_t>();
  record.info.updated = reader.Fixed<int64_t>();
  const uint64_t size = reader.Varint();
  const uint64_t inodes = reader.Varint();
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (size > kMax || inodes > kMax) {
    return Corrupt("usage");
  }
  record.usage = {.size = static_cast<int64_t>(size), .inodes = static_cast<int64_t>(inodes)};
  record.info.name = reader.Text();
  record.info.parent = reader.Text();
  const uint64_t parents = reader.Count();
  record.chain.reserve(parents);
  for (uint64_t i = 0; i < parents && reader.ok(); ++i) {
    record.chain.push_back(reader.Varint());
  }
  const uint64_t labels = reader.Count();
  for (uint64_t i = 0; i < labels && reader.ok(); ++i) {
    const std::string_view key = reader.Text();
    const std::string_view value = reader.Text();
    record.info.labels.insert_or_assign(std::string(key), std::string(value));
  }
  if (!reader.ok() || !reader.at_end() || record.id == 0 || record.info.name.empty() ||
      record.info.labels.size() != labels || record.chain.empty() != record.info.parent.empty()) {
    return Corrupt("content");
  }
  return record;
}

}  // namespace strata
