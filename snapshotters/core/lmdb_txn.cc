// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/lmdb_txn.h"

#include <cerrno>
#include <utility>

#include "snapshotters/base/digest.h"
#include "snapshotters/core/record_codec.h"
#include "snapshotters/core/redo_area.h"

namespace strata::lmdb {
namespace {

// LMDB keys have at most 511 bytes (mdb_env_get_maxkeysize); one is the table's.
constexpr size_t kLongestPlainName = 500;

MDB_val ToVal(std::string_view bytes) {
  // LMDB takes keys and values by non-const pointer and does not write to them.
  return {.mv_size = bytes.size(), .mv_data = const_cast<char*>(bytes.data())};
}

std::string_view FromVal(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}

}  // namespace

Status Error(int code, std::string_view action) {
  const std::string text(action);
  if (code > 0) {
    return ErrnoStatus(code, text);
  }
  const std::string message = text + ": " + ::mdb_strerror(code);
  switch (code) {
    case MDB_MAP_FULL:
    case MDB_READERS_FULL:
    case MDB_TXN_FULL:
      return MakeStatus(StatusCode::kResourceExhausted, message);
    case MDB_PANIC:
      return MakeStatus(StatusCode::kUnavailable,
                        text + ": an earlier write to the disk failed, the daemon must restart");
    case MDB_VERSION_MISMATCH:
      return MakeStatus(StatusCode::kFailedPrecondition, message);
    default:
      return MakeStatus(StatusCode::kDataLoss, message);
  }
}

std::string EncodeId(SnapshotId id) {
  std::string bytes(sizeof(id), '\0');
  for (size_t i = 0; i < sizeof(id); ++i) {
    bytes[i] = static_cast<char>(id >> (8 * (sizeof(id) - 1 - i)));
  }
  return bytes;
}

StatusOr<SnapshotId> DecodeId(std::string_view bytes) {
  if (bytes.size() != sizeof(SnapshotId)) {
    return MakeStatus(StatusCode::kDataLoss,
                      "snapshot id: expected 8 bytes, found " + std::to_string(bytes.size()));
  }
  SnapshotId id = 0;
  for (const char byte : bytes) {
    id = (id << 8) | static_cast<unsigned char>(byte);
  }
  return id;
}

std::string MetaKey(std::string_view name) {
  return kMetaTable + std::string(name);
}

std::string RecordKey(SnapshotId id) {
  return kRecordTable + EncodeId(id);
}

std::string NameKey(std::string_view name) {
  if (name.size() <= kLongestPlainName) {
    return kNameTable + std::string(name);
  }
  const Sha256Digest digest = Sha256(name);
  return kLongNameTable + std::string(digest.begin(), digest.end());
}

std::string ChildKey(SnapshotId parent, SnapshotId child) {
  return kChildTable + EncodeId(parent) + EncodeId(child);
}

StatusOr<Txn> Txn::Begin(MDB_env* env, MDB_txn* parent, unsigned flags) {
  MDB_txn* txn = nullptr;
  if (const int code = ::mdb_txn_begin(env, parent, flags, &txn); code != 0) {
    return Error(code, "begin a transaction");
  }
  return Txn(txn);
}

Status Txn::Commit() {
  // The handle is gone whatever the result (mdb_txn_commit).
  if (const int code = ::mdb_txn_commit(std::exchange(txn_, nullptr)); code != 0) {
    return Error(code, "write the metadata store");
  }
  return OkStatus();
}

void Txn::Abort() {
  if (txn_ != nullptr) {
    ::mdb_txn_abort(std::exchange(txn_, nullptr));
  }
}

StatusOr<Cursor> Cursor::Open(MDB_txn* txn, MDB_dbi dbi) {
  MDB_cursor* cursor = nullptr;
  if (const int code = ::mdb_cursor_open(txn, dbi, &cursor); code != 0) {
    return Error(code, "open a cursor");
  }
  return Cursor(cursor);
}

Cursor::~Cursor() {
  if (cursor_ != nullptr) {
    ::mdb_cursor_close(cursor_);
  }
}

StatusOr<bool> Cursor::Get(MDB_val key, MDB_cursor_op op) {
  MDB_val value{};
  const int code = ::mdb_cursor_get(cursor_, &key, &value, op);
  if (code == MDB_NOTFOUND) {
    return false;
  }
  if (code != 0) {
    return Error(code, "read the metadata store");
  }
  key_ = FromVal(key);
  value_ = FromVal(value);
  return true;
}

StatusOr<bool> Cursor::Seek(std::string_view key) {
  return Get(ToVal(key), MDB_SET_RANGE);
}

StatusOr<bool> Cursor::Next() {
  return Get({}, MDB_NEXT);
}

StatusOr<std::optional<std::string_view>> Get(MDB_txn* txn, MDB_dbi dbi, std::string_view key) {
  MDB_val wanted = ToVal(key);
  MDB_val value{};
  const int code = ::mdb_get(txn, dbi, &wanted, &value);
  if (code == MDB_NOTFOUND) {
    return std::optional<std::string_view>();
  }
  if (code != 0) {
    return Error(code, "read the metadata store");
  }
  return std::optional<std::string_view>(FromVal(value));
}

Status Put(MDB_txn* txn, MDB_dbi dbi, std::string_view key, std::string_view value) {
  MDB_val wanted = ToVal(key);
  MDB_val content = ToVal(value);
  if (const int code = ::mdb_put(txn, dbi, &wanted, &content, 0); code != 0) {
    return Error(code, "change the metadata store");
  }
  return OkStatus();
}

Status Delete(MDB_txn* txn, MDB_dbi dbi, std::string_view key) {
  MDB_val wanted = ToVal(key);
  const int code = ::mdb_del(txn, dbi, &wanted, nullptr);
  if (code != 0 && code != MDB_NOTFOUND) {
    return Error(code, "change the metadata store");
  }
  return OkStatus();
}

StatusOr<std::optional<SnapshotRecord>> FindByName(MDB_txn* txn, MDB_dbi dbi,
                                                   std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const auto id_bytes, Get(txn, dbi, NameKey(name)));
  if (!id_bytes.has_value()) {
    return std::optional<SnapshotRecord>();
  }
  STRATA_ASSIGN_OR_RETURN(const SnapshotId id, DecodeId(*id_bytes));
  STRATA_ASSIGN_OR_RETURN(const auto bytes, Get(txn, dbi, RecordKey(id)));
  if (!bytes.has_value()) {
    return MakeStatus(StatusCode::kDataLoss, "snapshot " + ShowName(name) + " has number " +
                                                 std::to_string(id) + " and no record");
  }
  STRATA_ASSIGN_OR_RETURN(SnapshotRecord record, DecodeRecord(*bytes));
  if (record.info.name != name) {
    return MakeStatus(StatusCode::kDataLoss, "record " + std::to_string(id) + " is of snapshot " +
                                                 ShowName(record.info.name) + ", expected " +
                                                 ShowName(name));
  }
  return std::optional<SnapshotRecord>(std::move(record));
}

StatusOr<std::optional<SnapshotRecord>> MetaTxn::Find(std::string_view name) {
  return FindByName(txn_, dbi_, name);
}

StatusOr<bool> MetaTxn::HasChildren(SnapshotId id) {
  STRATA_ASSIGN_OR_RETURN(Cursor cursor, Cursor::Open(txn_, dbi_));
  const std::string prefix = kChildTable + EncodeId(id);
  STRATA_ASSIGN_OR_RETURN(const bool found, cursor.Seek(prefix));
  return found && cursor.key().starts_with(prefix);
}

Status MetaTxn::PutEntry(std::string_view key, std::string_view value) {
  changed_ = true;
  redo_.Put(key, value);
  return lmdb::Put(txn_, dbi_, key, value);
}

Status MetaTxn::DeleteEntry(std::string_view key) {
  changed_ = true;
  redo_.Delete(key);
  return Delete(txn_, dbi_, key);
}

// Writes only the entries that change: each one more is another page to write and to sync.
Status MetaTxn::Put(const SnapshotRecord& record) {
  bool named = false;
  bool linked = record.chain.empty();
  STRATA_ASSIGN_OR_RETURN(const auto old_bytes, Get(txn_, dbi_, RecordKey(record.id)));
  if (old_bytes.has_value()) {
    STRATA_ASSIGN_OR_RETURN(const SnapshotRecord old, DecodeRecord(*old_bytes));
    named = old.info.name == record.info.name;
    if (!named) {
      STRATA_RETURN_IF_ERROR(DeleteEntry(NameKey(old.info.name)));
    }
    if (!old.chain.empty() && !linked && old.chain.front() == record.chain.front()) {
      linked = true;
    } else if (!old.chain.empty()) {
      STRATA_RETURN_IF_ERROR(DeleteEntry(ChildKey(old.chain.front(), old.id)));
    }
  }
  STRATA_RETURN_IF_ERROR(PutEntry(RecordKey(record.id), EncodeRecord(record)));
  if (!named) {
    STRATA_RETURN_IF_ERROR(PutEntry(NameKey(record.info.name), EncodeId(record.id)));
  }
  if (!linked) {
    STRATA_RETURN_IF_ERROR(PutEntry(ChildKey(record.chain.front(), record.id), ""));
  }
  return OkStatus();
}

Status MetaTxn::Erase(const SnapshotRecord& record) {
  STRATA_RETURN_IF_ERROR(DeleteEntry(RecordKey(record.id)));
  STRATA_RETURN_IF_ERROR(DeleteEntry(NameKey(record.info.name)));
  if (!record.chain.empty()) {
    STRATA_RETURN_IF_ERROR(DeleteEntry(ChildKey(record.chain.front(), record.id)));
  }
  return OkStatus();
}

}  // namespace strata::lmdb
