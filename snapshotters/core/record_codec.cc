// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/record_codec.h"

#include <zlib.h>

#include <cstring>
#include <limits>
#include <type_traits>

namespace strata {
namespace {

constexpr uint8_t kRecordVersion = 1;
constexpr size_t kChecksumBytes = 4;

uint32_t Checksum(std::string_view bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void PutVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    *out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *out += static_cast<char>(value);
}

template <typename T>
void PutFixed(T value, std::string* out) {
  const auto bits = static_cast<std::make_unsigned_t<T>>(value);
  for (size_t i = 0; i < sizeof(T); ++i) {
    *out += static_cast<char>(bits >> (8 * i));
  }
}

void PutText(std::string_view text, std::string* out) {
  PutVarint(text.size(), out);
  out->append(text);
}

// Reads forward; the first failure sticks and everything after it reads as zero or empty.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }

  uint64_t Varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) {
        return Fail();
      }
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      if (shift == 63 && byte > 1) {
        return Fail();
      }
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        return value;
      }
    }
    return Fail();
  }

  template <typename T>
  T Fixed() {
    if (rest_.size() < sizeof(T)) {
      return static_cast<T>(Fail());
    }
    std::make_unsigned_t<T> value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      const auto byte = static_cast<unsigned char>(rest_[i]);
      value = static_cast<std::make_unsigned_t<T>>(
          value | (static_cast<std::make_unsigned_t<T>>(byte) << (8 * i)));
    }
    rest_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }

  std::string_view Text() {
    const uint64_t length = Varint();
    if (length > rest_.size()) {
      Fail();
      return {};
    }
    const std::string_view text = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return text;
  }

  // A number of things that take at least one byte each.
  uint64_t Count() {
    const uint64_t count = Varint();
    return count > rest_.size() ? Fail() : count;
  }

 private:
  uint64_t Fail() {
    ok_ = false;
    rest_ = {};
    return 0;
  }

  std::string_view rest_;
  bool ok_ = true;
};

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
  Reader trailer(bytes.substr(body.size()));
  if (trailer.Fixed<uint32_t>() != Checksum(body)) {
    return Corrupt("checksum");
  }
  Reader reader(body);
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
