// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/lmdb_check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/lmdb_pages.h"
#include "snapshotters/core/lmdb_txn.h"
#include "snapshotters/core/record_codec.h"

namespace strata::lmdb {
namespace {

constexpr std::string_view kSound = "sound";
// A damaged tree can be a circle; no sound one takes this long to walk.
constexpr unsigned kWalkSeconds = 60;

Status Damaged(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, why);
}

struct Counts {
  size_t records = 0;
  size_t names = 0;
  size_t with_parent = 0;
  size_t children = 0;
};

// A record and its index entries. Every record has entries of its own, so equal counts at the end
// mean that there are no others: none has to be looked up from its own side.
Status CheckRecord(MDB_txn* txn, MDB_dbi dbi, SnapshotId id, std::string_view value,
                   Counts* counts) {
  STRATA_ASSIGN_OR_RETURN(const SnapshotRecord record, DecodeRecord(value));
  const std::string number = std::to_string(id);
  if (record.id != id) {
    return Damaged("record " + number + " carries number " + std::to_string(record.id));
  }
  STRATA_ASSIGN_OR_RETURN(const auto named, Get(txn, dbi, NameKey(record.info.name)));
  if (named != EncodeId(id)) {
    return Damaged("the name of record " + number + " does not lead to it");
  }
  ++counts->records;
  if (record.chain.empty()) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const auto linked, Get(txn, dbi, ChildKey(record.chain.front(), id)));
  if (!linked.has_value()) {
    return Damaged("the parent of record " + number + " does not know it");
  }
  ++counts->with_parent;
  return OkStatus();
}

Status CheckEntry(MDB_txn* txn, MDB_dbi dbi, const Cursor& at, SnapshotId next_id, Counts* counts) {
  switch (at.key().empty() ? '\0' : at.key().front()) {
    case kMetaTable:
      return OkStatus();
    case kRecordTable: {
      STRATA_ASSIGN_OR_RETURN(const SnapshotId id, DecodeId(at.key().substr(1)));
      if (id >= next_id) {
        return Damaged("a record has a number that was never handed out");
      }
      return CheckRecord(txn, dbi, id, at.value(), counts);
    }
    case kNameTable:
    case kLongNameTable:
      ++counts->names;
      return OkStatus();
    case kChildTable:
      ++counts->children;
      return OkStatus();
    default:
      return Damaged("unknown table in the metadata store");
  }
}

Status Walk(const std::string& directory) {
  MDB_env* env = nullptr;
  if (const int code = ::mdb_env_create(&env); code != 0) {
    return Error(code, "create an environment");
  }
  const std::unique_ptr<MDB_env, decltype(&::mdb_env_close)> owner(env, &::mdb_env_close);
  // No lock file: nobody writes, the root is locked.
  if (const int code = ::mdb_env_open(env, directory.c_str(), MDB_RDONLY | MDB_NOLOCK, 0600);
      code != 0) {
    return Error(code, "open the database");
  }
  STRATA_ASSIGN_OR_RETURN(const Txn txn, Txn::Begin(env, nullptr, MDB_RDONLY));
  MDB_dbi dbi = 0;
  if (const int code = ::mdb_dbi_open(txn.get(), nullptr, 0, &dbi); code != 0) {
    return Error(code, "open the database");
  }
  STRATA_RETURN_IF_ERROR(CheckPages(env));
  Counts counts;
  STRATA_ASSIGN_OR_RETURN(Cursor cursor, Cursor::Open(txn.get(), dbi));
  STRATA_ASSIGN_OR_RETURN(bool more, cursor.Next());
  std::string last;
  STRATA_ASSIGN_OR_RETURN(const auto next_id_bytes, Get(txn.get(), dbi, MetaKey("next_id")));
  STRATA_ASSIGN_OR_RETURN(const SnapshotId next_id,
                          next_id_bytes.has_value() ? DecodeId(*next_id_bytes) : SnapshotId{0});
  while (more) {
    if (!last.empty() && cursor.key() <= std::string_view(last)) {
      return Damaged("its keys are out of order");
    }
    last = cursor.key();
    STRATA_RETURN_IF_ERROR(CheckEntry(txn.get(), dbi, cursor, next_id, &counts));
    STRATA_ASSIGN_OR_RETURN(more, cursor.Next());
  }
  if (counts.records != counts.names || counts.with_parent != counts.children) {
    return Damaged(std::to_string(counts.records) + " records have " +
                   std::to_string(counts.names) + " names, and " +
                   std::to_string(counts.with_parent) + " of them with a parent have " +
                   std::to_string(counts.children) + " links to it");
  }
  return OkStatus();
}

[[noreturn]] void RunChild(const std::string& directory, int out) {
  const rlimit no_core{};
  (void)::setrlimit(RLIMIT_CORE, &no_core);  // a core file would only be litter
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGALRM}) {
    (void)::signal(number, SIG_DFL);  // cannot fail for these numbers
  }
  (void)::alarm(kWalkSeconds);
  const Status status = Walk(directory);
  // The parent takes a missing answer for damage, so a failed write needs no handling here.
  (void)WriteAll(out, status.ok() ? kSound : StatusMessage(status), "the answer");
  ::_exit(0);
}

StatusOr<std::string> ReadAnswer(int in) {
  std::string answer;
  char buffer[512];
  while (true) {
    const ssize_t count = ::read(in, buffer, sizeof(buffer));
    if (count == 0) {
      return answer;
    }
    if (count < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "read the answer of the database check");
    }
    answer.append(buffer, count > 0 ? static_cast<size_t>(count) : 0);
  }
}

}  // namespace

Status CheckInChild(const std::string& directory) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "make a pipe");
  }
  const UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) {
    return ErrnoStatus(errno, "fork for the database check");
  }
  if (child == 0) {
    RunChild(directory, out.get());
  }
  out.Reset();
  const StatusOr<std::string> answer = ReadAnswer(in.get());
  int state = 0;
  while (::waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  STRATA_RETURN_IF_ERROR(answer.status());
  if (*answer == kSound) {
    return OkStatus();
  }
  if (!answer->empty()) {
    return Damaged(*answer);
  }
  return Damaged(WIFSIGNALED(state)
                     ? "reading it ended with signal " + std::to_string(WTERMSIG(state))
                     : "reading it ended early");
}

}  // namespace strata::lmdb
