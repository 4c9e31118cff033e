// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/redo_area.h"

#include <unistd.h>

#include <cerrno>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/byte_codec.h"
#include "snapshotters/core/lmdb_pages.h"
#include "snapshotters/core/lmdb_txn.h"

namespace strata::lmdb {
namespace {

constexpr std::string_view kAreaKey = "redo";
constexpr std::string_view kTitle = "strata redo area 1\n";
constexpr std::string_view kWhat = "redo area";

constexpr uint8_t kPut = 1;
constexpr uint8_t kDelete = 2;

constexpr size_t kDigestBytes = sizeof(Sha256Digest);
constexpr size_t kHeadBytes = kDigestBytes + sizeof(uint64_t) + sizeof(uint32_t);

std::string_view AsText(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

StatusOr<size_t> PageBytes(MDB_txn* txn) {
  MDB_stat stat{};
  if (const int code = ::mdb_env_stat(::mdb_txn_env(txn), &stat); code != 0) {
    return Error(code, "ask for the size of its pages");
  }
  return stat.ms_psize;
}

// The value fills its pages, and the slots begin with one: no page is of two slots.
size_t AreaBytes(size_t page) {
  return page - kLongValueOffset + RedoArea::kSlots * RedoArea::kSlotBytes;
}

}  // namespace

void RedoRecord::Put(std::string_view key, std::string_view value) {
  PutFixed<uint8_t>(kPut, &entries_);
  PutText(key, &entries_);
  PutText(value, &entries_);
}

void RedoRecord::Delete(std::string_view key) {
  PutFixed<uint8_t>(kDelete, &entries_);
  PutText(key, &entries_);
}

Status RedoRecord::Apply(MDB_txn* txn, MDB_dbi dbi) const {
  ByteReader reader(entries_);
  while (!reader.at_end()) {
    const auto what = reader.Fixed<uint8_t>();
    const std::string_view key = reader.Text();
    const std::string_view value = what == kPut ? reader.Text() : std::string_view();
    if (!reader.ok() || (what != kPut && what != kDelete)) {
      return MakeStatus(StatusCode::kDataLoss, "its redo record does not parse");
    }
    STRATA_RETURN_IF_ERROR(what == kPut ? lmdb::Put(txn, dbi, key, value)
                                        : lmdb::Delete(txn, dbi, key));
  }
  return OkStatus();
}

std::string RedoRecord::Encode(uint64_t transaction) const {
  std::string slot(kDigestBytes, '\0');
  slot.reserve(kHeadBytes + entries_.size());
  PutFixed<uint64_t>(transaction, &slot);
  PutFixed<uint32_t>(static_cast<uint32_t>(entries_.size()), &slot);
  slot += entries_;
  const Sha256Digest digest = Sha256(std::string_view(slot).substr(kDigestBytes));
  slot.replace(0, kDigestBytes, AsText(digest));
  return slot;
}

std::optional<RedoRecord> RedoRecord::Decode(std::string_view slot, uint64_t transaction) {
  if (slot.size() < kHeadBytes) {
    return std::nullopt;
  }
  ByteReader head(slot.substr(kDigestBytes, kHeadBytes - kDigestBytes));
  const auto of = head.Fixed<uint64_t>();
  const auto length = head.Fixed<uint32_t>();
  if (of != transaction || length > slot.size() - kHeadBytes) {
    return std::nullopt;
  }
  const std::string_view content = slot.substr(kDigestBytes, kHeadBytes - kDigestBytes + length);
  if (AsText(Sha256(content)) != slot.substr(0, kDigestBytes)) {
    return std::nullopt;
  }
  RedoRecord record;
  record.entries_ = slot.substr(kHeadBytes, length);
  return record;
}

Status RedoArea::Make(MDB_txn* txn, MDB_dbi dbi) {
  STRATA_ASSIGN_OR_RETURN(const size_t page, PageBytes(txn));
  std::string value(AreaBytes(page), '\0');
  value.replace(0, kTitle.size(), kTitle);
  return lmdb::Put(txn, dbi, MetaKey(kAreaKey), value);
}

StatusOr<std::optional<RedoArea>> RedoArea::Find(MDB_txn* txn, MDB_dbi dbi) {
  STRATA_ASSIGN_OR_RETURN(const auto value, Get(txn, dbi, MetaKey(kAreaKey)));
  if (!value.has_value()) {
    return std::optional<RedoArea>();
  }
  const auto damaged = [] { return MakeStatus(StatusCode::kDataLoss, "its redo area is damaged"); };
  STRATA_ASSIGN_OR_RETURN(const size_t page, PageBytes(txn));
  if (value->size() != AreaBytes(page) || !value->starts_with(kTitle)) {
    return damaged();
  }
  int fd = -1;
  if (const int code = ::mdb_env_get_fd(::mdb_txn_env(txn), &fd); code != 0) {
    return Error(code, "ask for its file");
  }
  // Writing to a wrong place would be the end of the database: the file has to agree.
  const auto begin = static_cast<off_t>(PageOfLongValue(*value) * page);
  std::string title(kTitle.size(), '\0');
  if (::pread(fd, title.data(), title.size(), begin + static_cast<off_t>(kLongValueOffset)) !=
          static_cast<ssize_t>(title.size()) ||
      title != kTitle) {
    return damaged();
  }
  return std::optional<RedoArea>(RedoArea(fd, static_cast<uint64_t>(begin) + page));
}

uint64_t RedoArea::SlotOf(uint64_t transaction) const {
  return slots_ + transaction % kSlots * kSlotBytes;
}

StatusOr<bool> RedoArea::Write(uint64_t transaction, const RedoRecord& record) {
  if (record.size() > kSlotBytes - kHeadBytes) {
    return false;
  }
  STRATA_RETURN_IF_ERROR(WriteAllAt(fd_, record.Encode(transaction), SlotOf(transaction), kWhat));
  return true;
}

Status RedoArea::Withdraw(uint64_t transaction) {
  STRATA_RETURN_IF_ERROR(
      WriteAllAt(fd_, std::string(kHeadBytes, '\0'), SlotOf(transaction), kWhat));
  if (::fdatasync(fd_) != 0) {
    return ErrnoStatus(errno, "sync the redo area");
  }
  return OkStatus();
}

StatusOr<std::optional<RedoRecord>> RedoArea::Read(uint64_t transaction) const {
  std::string slot(kSlotBytes, '\0');
  const ssize_t count =
      ::pread(fd_, slot.data(), slot.size(), static_cast<off_t>(SlotOf(transaction)));
  if (count < 0) {
    return ErrnoStatus(errno, "read the redo area");
  }
  slot.resize(static_cast<size_t>(count));
  return RedoRecord::Decode(slot, transaction);
}

}  // namespace strata::lmdb
