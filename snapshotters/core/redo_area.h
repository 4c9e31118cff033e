// SPDX-License-Identifier: Apache-2.0
//
// The redo area of a store (FORMAT.md, "Redo area"): room inside the database's own file for what
// the last two transactions did. It lets a transaction be durable with one flush of the disk
// instead of two. Internal to the store; whoever commits has it alone.
#pragma once

#include <lmdb.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata::lmdb {

// What one transaction does to the table, entry by entry.
class RedoRecord {
 public:
  void Put(std::string_view key, std::string_view value);
  void Delete(std::string_view key);

  [[nodiscard]] bool empty() const { return entries_.empty(); }
  // Takes back what was added since size() was `size`: a nested transaction was rolled back.
  void Truncate(size_t size) { entries_.resize(size); }
  [[nodiscard]] size_t size() const { return entries_.size(); }

  // Does all of it again. DataLoss: it does not parse.
  Status Apply(MDB_txn* txn, MDB_dbi dbi) const;

  // As bytes of a slot, for the transaction with that number.
  [[nodiscard]] std::string Encode(uint64_t transaction) const;
  // Nothing unless `slot` begins with the whole record of that transaction: one that was torn by a
  // power cut, or is of another transaction, is no record.
  static std::optional<RedoRecord> Decode(std::string_view slot, uint64_t transaction);

 private:
  std::string entries_;
};

class RedoArea {
 public:
  static constexpr size_t kSlots = 2;
  // The number of bytes that a slot has; a longer record does not fit.
  static constexpr size_t kSlotBytes = size_t{64} * 1024;

  // Makes it in `txn`, which is then committed. Find finds it from the next transaction on.
  static Status Make(MDB_txn* txn, MDB_dbi dbi);
  // Nothing where there is none. DataLoss: it is not what Make made.
  static StatusOr<std::optional<RedoArea>> Find(MDB_txn* txn, MDB_dbi dbi);

  // Writes the record of a transaction that is about to be committed, over the one of the
  // transaction before the last. It is durable together with all else that is in the file, by the
  // next fdatasync. False: it does not fit, and nothing was written.
  StatusOr<bool> Write(uint64_t transaction, const RedoRecord& record);

  // Takes the record of a transaction back that could not be committed; durable when it returns.
  Status Withdraw(uint64_t transaction);

  // The record of that transaction, if it is there and whole.
  [[nodiscard]] StatusOr<std::optional<RedoRecord>> Read(uint64_t transaction) const;

 private:
  RedoArea(int fd, uint64_t slots) : fd_(fd), slots_(slots) {}
  [[nodiscard]] uint64_t SlotOf(uint64_t transaction) const;

  int fd_;          // the environment's
  uint64_t slots_;  // where the first of the two begins in the file
};

}  // namespace strata::lmdb
