// SPDX-License-Identifier: Apache-2.0
//
// The Snapshotter interface: the ten operations of containerd's snapshots API in core types. Every
// kind implements it in process, and client/proxy_snapshotter implements it over a socket, so one
// conformance suite (tests/suite) runs on all of them. Implementations are safe from any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

struct CommitOptions {
  Labels labels;
  // Set: the committed snapshot gets this parent (the rebase of containerd 2.2). Allowed where the
  // active had none; its present parent is fine too; any other one is InvalidArgument.
  std::string parent;
};

// One pass over the snapshots, in pages. Used by one thread at a time; holds no lock and no
// transaction between calls, so any other call may be made meanwhile. A snapshot that is there from
// List to the end is seen exactly once.
class SnapshotCursor {
 public:
  virtual ~SnapshotCursor() = default;
  // The next at most kListPageSize rows; an empty page is the end, and stays the end.
  virtual StatusOr<std::vector<SnapshotInfo>> Next() = 0;
};

inline constexpr size_t kListPageSize = 100;  // rows a message, as containerd's own server sends

// Names are opaque: one space for keys of actives and views and names of committed snapshots. They
// never become part of a path. Errors common to all calls: NotFound when the key, the name or the
// parent does not exist; InvalidArgument for a name that is empty, too long or not UTF-8;
// ResourceExhausted when the disk is full; Cancelled, DeadlineExceeded and Unavailable for
// calls that did not run to the end. A mutation that failed left nothing behind, and one that was
// answered OK survives a crash of the process and of the machine.
class Snapshotter {
 public:
  virtual ~Snapshotter() = default;

  virtual StatusOr<SnapshotInfo> Stat(CallContext& call, std::string_view name) = 0;

  // Changes the labels of info.name and returns the new state. `mask` holds field paths: none
  // replaces all labels, "labels" too, "labels.KEY" sets that one key (everything behind the first
  // "labels." is the key) or deletes it when info has it not. A label with an empty value is a
  // deletion. Any other path is InvalidArgument and changes nothing.
  virtual StatusOr<SnapshotInfo> Update(CallContext& call, const SnapshotInfo& info,
                                        const std::vector<std::string>& mask) = 0;

  // Space of the snapshot itself, without its parents. Active: walked now; committed: stored at
  // Commit; view: zero.
  virtual StatusOr<Usage> GetUsage(CallContext& call, std::string_view key) = 0;

  // The mounts that Prepare or View returned, again. FailedPrecondition for a committed snapshot.
  // Never waits for a writer or the network.
  virtual StatusOr<std::vector<Mount>> Mounts(CallContext& call, std::string_view key) = 0;

  // A writable snapshot `key` on `parent` ("" for none). The parent must be committed
  // (InvalidArgument otherwise); an existing key is AlreadyExists. Checked in this order: parent
  // exists, parent is committed, key is free.
  virtual StatusOr<std::vector<Mount>> Prepare(CallContext& call, std::string_view key,
                                               std::string_view parent, const Labels& labels) = 0;

  // The same, read-only; a view cannot be committed.
  virtual StatusOr<std::vector<Mount>> View(CallContext& call, std::string_view key,
                                            std::string_view parent, const Labels& labels) = 0;

  // Turns active `key` into committed `name`: the key is gone, labels are replaced, not inherited.
  // NotFound (key), AlreadyExists (name), FailedPrecondition (not an active), in this order.
  virtual Status Commit(CallContext& call, std::string_view name, std::string_view key,
                        const CommitOptions& options) = 0;

  // Forgets `key`; the name is free at once, the bytes follow in the background. With children of
  // any kind: FailedPrecondition, and the message contains "remove".
  virtual Status Remove(CallContext& call, std::string_view key) = 0;

  // Rows that match any of `filters` (core/filter.h); no filter matches everything. A bad filter is
  // InvalidArgument, before any row. `call` must outlive the use of the cursor.
  virtual StatusOr<std::unique_ptr<SnapshotCursor>> List(
      CallContext& call, const std::vector<std::string>& filters) = 0;

  // Starts to give back the space of what was removed, and returns.
  virtual Status Cleanup(CallContext& call) = 0;
};

}  // namespace strata
