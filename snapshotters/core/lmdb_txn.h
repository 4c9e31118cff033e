// SPDX-License-Identifier: Apache-2.0
//
// RAII over LMDB's C interface and the layout of our keys (FORMAT.md). A transaction belongs to one
// thread at a time. Internal to the store.
#pragma once

#include <lmdb.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "snapshotters/base/status.h"
#include "snapshotters/core/meta_store.h"

namespace strata::lmdb {

class RedoRecord;

// The failure `code` of LMDB or the system as a Status.
Status Error(int code, std::string_view action);

// Keys: one byte for the table, then the key within it.
inline constexpr char kMetaTable = 'm';    // "m" NAME -> text or number
inline constexpr char kRecordTable = 'r';  // "r" id (8 bytes, big-endian) -> record
inline constexpr char kNameTable = 'n';    // "n" name, or "h" SHA-256 of a long name -> id
inline constexpr char kLongNameTable = 'h';
inline constexpr char kChildTable = 'c';  // "c" parent id, child id -> nothing

std::string MetaKey(std::string_view name);
std::string RecordKey(SnapshotId id);
std::string NameKey(std::string_view name);
std::string ChildKey(SnapshotId parent, SnapshotId child);
std::string EncodeId(SnapshotId id);
StatusOr<SnapshotId> DecodeId(std::string_view bytes);

// Rolls back unless Commit() was called.
class Txn {
 public:
  static StatusOr<Txn> Begin(MDB_env* env, MDB_txn* parent, unsigned flags);
  ~Txn() { Abort(); }
  Txn(Txn&& other) noexcept : txn_(std::exchange(other.txn_, nullptr)) {}
  Txn& operator=(Txn&&) = delete;
  Txn(const Txn&) = delete;
  Txn& operator=(const Txn&) = delete;

  Status Commit();
  void Abort();
  [[nodiscard]] MDB_txn* get() const { return txn_; }

 private:
  explicit Txn(MDB_txn* txn) : txn_(txn) {}
  MDB_txn* txn_;
};

// Owns a cursor; closed before its transaction ends.
class Cursor {
 public:
  static StatusOr<Cursor> Open(MDB_txn* txn, MDB_dbi dbi);
  ~Cursor();
  Cursor(Cursor&& other) noexcept : cursor_(std::exchange(other.cursor_, nullptr)) {}
  Cursor& operator=(Cursor&&) = delete;
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  // Positions at the first key >= `key`; false at the end. Views are valid until the transaction's
  // next change.
  StatusOr<bool> Seek(std::string_view key);
  StatusOr<bool> Next();
  [[nodiscard]] std::string_view key() const { return key_; }
  [[nodiscard]] std::string_view value() const { return value_; }

 private:
  explicit Cursor(MDB_cursor* cursor) : cursor_(cursor) {}
  StatusOr<bool> Get(MDB_val key, MDB_cursor_op op);
  MDB_cursor* cursor_;
  std::string_view key_;
  std::string_view value_;
};

// One key's value; the view is valid until the transaction's next change.
StatusOr<std::optional<std::string_view>> Get(MDB_txn* txn, MDB_dbi dbi, std::string_view key);
Status Put(MDB_txn* txn, MDB_dbi dbi, std::string_view key, std::string_view value);
Status Delete(MDB_txn* txn, MDB_dbi dbi, std::string_view key);

// The record named `name`, through the name table.
StatusOr<std::optional<SnapshotRecord>> FindByName(MDB_txn* txn, MDB_dbi dbi,
                                                   std::string_view name);

// MetaTransaction over an LMDB write transaction. `redo` gets whatever is changed.
class MetaTxn final : public MetaTransaction {
 public:
  MetaTxn(MDB_txn* txn, MDB_dbi dbi, RedoRecord& redo) : txn_(txn), dbi_(dbi), redo_(redo) {}
  StatusOr<std::optional<SnapshotRecord>> Find(std::string_view name) override;
  StatusOr<bool> HasChildren(SnapshotId id) override;
  Status Put(const SnapshotRecord& record) override;
  Status Erase(const SnapshotRecord& record) override;

  Status PutEntry(std::string_view key, std::string_view value);
  // Whether any entry was written or deleted, or that was tried.
  [[nodiscard]] bool changed() const { return changed_; }

 private:
  Status DeleteEntry(std::string_view key);

  MDB_txn* txn_;
  MDB_dbi dbi_;
  RedoRecord& redo_;
  bool changed_ = false;
};

}  // namespace strata::lmdb
