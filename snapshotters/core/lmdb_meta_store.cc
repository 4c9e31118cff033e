// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/lmdb_meta_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/core/lmdb_check.h"
#include "snapshotters/core/lmdb_txn.h"
#include "snapshotters/core/record_codec.h"
#include "snapshotters/core/redo_area.h"

namespace strata {
namespace {

// Address space, not disk: the file grows with what is in it. About ten million snapshots.
constexpr size_t kMapBytes = sizeof(void*) >= 8 ? size_t{16} << 30 : size_t{1} << 30;
constexpr unsigned kMaxReaders = 512;
// Waiting mutations that share one commit: more would only lengthen each one's wait.
constexpr size_t kMaxGroup = 256;
// Numbers that one durable write sets aside for NextId. A crash loses what is left of them.
constexpr SnapshotId kReservedIds = 256;

// Without a redo area.
constexpr uint32_t kFirstFormat = 1;

constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kKindKey = "kind";
constexpr std::string_view kUuidKey = "uuid";
constexpr std::string_view kNextIdKey = "next_id";

class LmdbMetaStore final : public MetaStore {
 public:
  LmdbMetaStore(MDB_env* env, LmdbUse use) : env_(env), use_(use) {}
  ~LmdbMetaStore() override;

  Status OpenTable();
  // Makes or checks what the "m" table says; does again what a power cut has undone; loads the id
  // counter.
  Status Load(const LmdbOptions& options);

  Status Mutate(const Mutation& mutation) override;
  StatusOr<std::optional<SnapshotRecord>> Find(std::string_view name) override;
  StatusOr<std::vector<SnapshotRecord>> Page(SnapshotId after, size_t limit) override;
  StatusOr<std::vector<SnapshotId>> Ids() override;
  StatusOr<SnapshotId> NextId() override;
  [[nodiscard]] SnapshotId FirstNewId() const override { return first_new_id_; }

 private:
  using Change = std::function<Status(lmdb::MetaTxn&)>;

  // One caller that waits for its change to be durable.
  struct Waiter {
    const Change* change = nullptr;
    bool done = false;
    Status result;
    CondVar wake;
  };

  // A read transaction of the pool, reset (holding no snapshot of the data) between uses.
  class Reader {
   public:
    static StatusOr<Reader> Acquire(LmdbMetaStore& store);
    ~Reader();
    Reader(Reader&& other) noexcept
        : store_(other.store_), txn_(std::exchange(other.txn_, nullptr)) {}
    Reader& operator=(Reader&&) = delete;
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    [[nodiscard]] MDB_txn* get() const { return txn_; }

   private:
    Reader(LmdbMetaStore& store, MDB_txn* txn) : store_(&store), txn_(txn) {}
    LmdbMetaStore* store_;
    MDB_txn* txn_;
  };

  Status Check(MDB_txn* txn, std::string_view format, const LmdbOptions& options) const;
  Status Redo();
  Status LoadNextId();
  Status Apply(const Change& change);
  [[nodiscard]] Status ExplainFull(const Status& status) const;
  void KeepReserve();
  void Commit(const std::vector<Waiter*>& group);
  StatusOr<bool> CommitGroup(const std::vector<Waiter*>& group, bool apart);
  // `changed`: it has begun to change something.
  Status Run(MDB_txn* txn, Waiter& waiter, lmdb::RedoRecord& redo, bool& changed) const;
  Status CommitDurably(lmdb::Txn txn, const lmdb::RedoRecord& redo);
  Status CommitAtOnce(lmdb::Txn txn);
  Status SetRelaxed(bool relaxed);
  [[nodiscard]] bool UpgradeIsDue() const;
  Status Upgrade(lmdb::Txn txn);
  Status SetNextId(SnapshotId next);

  MDB_env* const env_;
  const LmdbUse use_;
  MDB_dbi dbi_ = 0;
  SnapshotId first_new_id_ = 1;  // set by Load, before anybody else sees this

  // Of whoever commits.
  off_t reserved_end_bytes_ = 0;
  std::optional<lmdb::RedoArea> redo_;
  bool relaxed_ = false;         // the page that makes a transaction current is not synced
  bool upgrade_failed_ = false;  // not tried again: this run does without
  Status broken_;                // why nothing is taken any more

  Mutex queue_mutex_;
  std::deque<Waiter*> queue_ ABSL_GUARDED_BY(queue_mutex_);
  bool committing_ ABSL_GUARDED_BY(queue_mutex_) = false;

  Mutex readers_mutex_;
  std::vector<MDB_txn*> idle_readers_ ABSL_GUARDED_BY(readers_mutex_);

  Mutex id_mutex_;
  CondVar id_reserved_;
  bool reserving_ ABSL_GUARDED_BY(id_mutex_) = false;
  SnapshotId next_id_ ABSL_GUARDED_BY(id_mutex_) = 1;
  SnapshotId reserved_end_ ABSL_GUARDED_BY(id_mutex_) = 1;
};

StatusOr<LmdbMetaStore::Reader> LmdbMetaStore::Reader::Acquire(LmdbMetaStore& store) {
  MDB_txn* txn = nullptr;
  {
    const MutexLock lock(store.readers_mutex_);
    if (!store.idle_readers_.empty()) {
      txn = store.idle_readers_.back();
      store.idle_readers_.pop_back();
    }
  }
  const int code = txn != nullptr ? ::mdb_txn_renew(txn)
                                  : ::mdb_txn_begin(store.env_, nullptr, MDB_RDONLY, &txn);
  if (code != 0) {
    if (txn != nullptr) {
      ::mdb_txn_abort(txn);
    }
    return lmdb::Error(code, "begin a read of the metadata store");
  }
  return Reader(store, txn);
}

LmdbMetaStore::Reader::~Reader() {
  if (txn_ != nullptr) {
    ::mdb_txn_reset(txn_);
    const MutexLock lock(store_->readers_mutex_);
    store_->idle_readers_.push_back(txn_);
  }
}

LmdbMetaStore::~LmdbMetaStore() {
  SnapshotId next = 0;
  {
    const MutexLock lock(id_mutex_);
    next = next_id_ < reserved_end_ ? next_id_ : 0;
  }
  if (next != 0) {
    // Only keeps numbers short: without it those that were set aside are never used.
    (void)SetNextId(next);
  }
  if (redo_.has_value()) {
    // Only saves the next start from doing the last transaction again.
    (void)::mdb_env_sync(env_, 1);
  }
  {
    const MutexLock lock(readers_mutex_);
    for (MDB_txn* txn : idle_readers_) {
      ::mdb_txn_abort(txn);
    }
  }
  ::mdb_env_close(env_);
}

Status LmdbMetaStore::OpenTable() {
  const unsigned flags = use_ == LmdbUse::kRead ? MDB_RDONLY : 0;
  STRATA_ASSIGN_OR_RETURN(lmdb::Txn txn, lmdb::Txn::Begin(env_, nullptr, flags));
  if (const int code = ::mdb_dbi_open(txn.get(), nullptr, 0, &dbi_); code != 0) {
    return lmdb::Error(code, "open its table");
  }
  return txn.Commit();
}

// An existing database is only read: a start that is refused later on must not have changed it.
Status LmdbMetaStore::Load(const LmdbOptions& options) {
  bool exists = false;
  {
    STRATA_ASSIGN_OR_RETURN(const Reader reader, Reader::Acquire(*this));
    STRATA_ASSIGN_OR_RETURN(const auto format,
                            lmdb::Get(reader.get(), dbi_, lmdb::MetaKey(kFormatKey)));
    if (format.has_value()) {
      STRATA_RETURN_IF_ERROR(Check(reader.get(), *format, options));
      STRATA_ASSIGN_OR_RETURN(redo_, lmdb::RedoArea::Find(reader.get(), dbi_));
      if (*format == std::to_string(kMetaStoreFormat) && !redo_.has_value()) {
        return MakeStatus(StatusCode::kDataLoss, "its redo area is missing");
      }
      exists = true;
    }
  }
  if (exists) {
    STRATA_RETURN_IF_ERROR(Redo());
    return LoadNextId();
  }
  if (!options.create) {
    return MakeStatus(StatusCode::kDataLoss, "it is empty, but its root has been in use");
  }
  return Apply([&](lmdb::MetaTxn& txn) -> Status {
    const auto put = [&](std::string_view key, std::string_view value) {
      return txn.PutEntry(lmdb::MetaKey(key), value);
    };
    STRATA_RETURN_IF_ERROR(put(kFormatKey, std::to_string(kFirstFormat)));
    STRATA_RETURN_IF_ERROR(put(kKindKey, options.kind));
    STRATA_RETURN_IF_ERROR(put(kUuidKey, options.uuid));
    return put(kNextIdKey, lmdb::EncodeId(1));
  });
}

Status LmdbMetaStore::Check(MDB_txn* txn, std::string_view format,
                            const LmdbOptions& options) const {
  const auto get = [&](std::string_view key) { return lmdb::Get(txn, dbi_, lmdb::MetaKey(key)); };
  const auto mismatch = [](std::string_view what, std::string_view found,
                           std::string_view expected) {
    return MakeStatus(StatusCode::kFailedPrecondition, "it belongs to " + std::string(what) + " '" +
                                                           std::string(found) + "', expected '" +
                                                           std::string(expected) + "'");
  };
  if (format != std::to_string(kFirstFormat) && format != std::to_string(kMetaStoreFormat)) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "it has format '" + std::string(format) + "', this version knows " +
                          std::to_string(kFirstFormat) + " and " +
                          std::to_string(kMetaStoreFormat) + ": start the version that wrote it");
  }
  STRATA_ASSIGN_OR_RETURN(const auto kind, get(kKindKey));
  if (kind.value_or("") != options.kind) {
    return mismatch("kind", kind.value_or(""), options.kind);
  }
  STRATA_ASSIGN_OR_RETURN(const auto uuid, get(kUuidKey));
  if (uuid.value_or("") != options.uuid) {
    return mismatch("root", uuid.value_or(""), options.uuid);
  }
  return OkStatus();
}

// The last transaction was durable and not current, or two were, the newer of them not answered.
Status LmdbMetaStore::Redo() {
  for (size_t i = 0; redo_.has_value() && i < lmdb::RedoArea::kSlots; ++i) {
    MDB_envinfo info{};
    if (const int code = ::mdb_env_info(env_, &info); code != 0) {
      return lmdb::Error(code, "ask for its last transaction");
    }
    STRATA_ASSIGN_OR_RETURN(const auto record, redo_->Read(info.me_last_txnid + 1));
    if (!record.has_value()) {
      return OkStatus();
    }
    if (use_ == LmdbUse::kRead) {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        "its last change is still to be redone, as after a power cut: start its "
                        "daemon, or repair it");
    }
    STRATA_ASSIGN_OR_RETURN(lmdb::Txn txn, lmdb::Txn::Begin(env_, nullptr, 0));
    STRATA_RETURN_IF_ERROR(record->Apply(txn.get(), dbi_));
    STRATA_RETURN_IF_ERROR(ExplainFull(CommitAtOnce(std::move(txn))));
  }
  return OkStatus();
}

Status LmdbMetaStore::LoadNextId() {
  STRATA_ASSIGN_OR_RETURN(const Reader reader, Reader::Acquire(*this));
  STRATA_ASSIGN_OR_RETURN(const auto next_id,
                          lmdb::Get(reader.get(), dbi_, lmdb::MetaKey(kNextIdKey)));
  STRATA_ASSIGN_OR_RETURN(const SnapshotId next, lmdb::DecodeId(next_id.value_or("")));
  first_new_id_ = next;
  const MutexLock lock(id_mutex_);
  next_id_ = next;
  reserved_end_ = next;
  return OkStatus();
}

Status LmdbMetaStore::Mutate(const Mutation& mutation) {
  return Apply([&mutation](lmdb::MetaTxn& txn) { return mutation(txn); });
}

// A caller that finds nobody committing does it for all that wait; there is no thread for it, so a
// lone caller pays no hand-over.
Status LmdbMetaStore::Apply(const Change& change) {
  if (use_ == LmdbUse::kRead) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "change the metadata store: it was opened for reading");
  }
  Waiter self;
  self.change = &change;
  const MutexLock lock(queue_mutex_);
  queue_.push_back(&self);
  while (!self.done) {
    if (committing_) {
      self.wake.Wait(queue_mutex_);
      continue;
    }
    committing_ = true;
    const auto end = queue_.begin() + static_cast<ptrdiff_t>(std::min(queue_.size(), kMaxGroup));
    const std::vector<Waiter*> group(queue_.begin(), end);
    queue_.erase(queue_.begin(), end);
    queue_mutex_.Unlock();
    Commit(group);
    queue_mutex_.Lock();
    committing_ = false;
    if (!queue_.empty()) {
      queue_.front()->wake.Signal();
    }
    for (Waiter* waiter : group) {
      waiter->done = true;
      waiter->wake.Signal();
    }
  }
  return self.result;
}

void LmdbMetaStore::Commit(const std::vector<Waiter*>& group) {
  StatusOr<bool> whole = CommitGroup(group, /*apart=*/false);
  while (whole.ok() && !*whole) {
    whole = CommitGroup(group, /*apart=*/true);
  }
  if (whole.ok()) {
    return;
  }
  for (Waiter* waiter : group) {
    if (waiter->result.ok()) {
      waiter->result = whole.status();
    }
  }
}

Status LmdbMetaStore::Run(MDB_txn* txn, Waiter& waiter, lmdb::RedoRecord& redo,
                          bool& changed) const {
  lmdb::MetaTxn view(txn, dbi_, redo);
  const Status status = (*waiter.change)(view);
  changed = view.changed();
  STRATA_RETURN_IF_ERROR(status);
  STRATA_FAULT_POINT("store.changed");
  return OkStatus();
}

// With `apart` each change has a nested transaction, which keeps a failure from its neighbours.
// False: nothing was committed, and it is to be called again, apart. Without `apart` one has failed
// half-way, so there is no telling its part from theirs; or the upgrade that came with it has
// failed, which happens once. Most failures are seen before anything is written, and a nested
// transaction costs as much as what is done in it.
StatusOr<bool> LmdbMetaStore::CommitGroup(const std::vector<Waiter*>& group, bool apart) {
  STRATA_FAULT_POINT("store.begin");
  STRATA_RETURN_IF_ERROR(broken_);
  STRATA_ASSIGN_OR_RETURN(lmdb::Txn txn, lmdb::Txn::Begin(env_, nullptr, 0));
  lmdb::RedoRecord redo;
  bool any = false;
  for (Waiter* waiter : group) {
    bool changed = false;
    const size_t before = redo.size();
    if (apart) {
      waiter->result = [&]() -> Status {
        STRATA_ASSIGN_OR_RETURN(lmdb::Txn nested, lmdb::Txn::Begin(env_, txn.get(), 0));
        STRATA_RETURN_IF_ERROR(Run(nested.get(), *waiter, redo, changed));
        return nested.Commit();
      }();
    } else {
      waiter->result = Run(txn.get(), *waiter, redo, changed);
      if (!waiter->result.ok() && changed && group.size() > 1) {
        return false;
      }
    }
    if (!waiter->result.ok()) {
      redo.Truncate(before);
    }
    any = any || waiter->result.ok();
  }
  if (!any) {
    return true;
  }
  if (UpgradeIsDue()) {
    if (const Status status = Upgrade(std::move(txn)); !status.ok()) {
      upgrade_failed_ = true;
      return false;
    }
  } else {
    STRATA_RETURN_IF_ERROR(CommitDurably(std::move(txn), redo));
  }
  KeepReserve();
  STRATA_KILL_POINT("store.committed");
  return true;
}

// The first change in a store of the first format makes the redo area, too. Not where LMDB's pages
// have another layout than PageOfLongValue knows.
bool LmdbMetaStore::UpgradeIsDue() const {
  return use_ == LmdbUse::kServe && !redo_.has_value() && !upgrade_failed_ && sizeof(void*) >= 8;
}

Status LmdbMetaStore::Upgrade(lmdb::Txn txn) {
  STRATA_RETURN_IF_ERROR(
      lmdb::Put(txn.get(), dbi_, lmdb::MetaKey(kFormatKey), std::to_string(kMetaStoreFormat)));
  STRATA_RETURN_IF_ERROR(lmdb::RedoArea::Make(txn.get(), dbi_));
  STRATA_FAULT_POINT("store.commit");
  STRATA_RETURN_IF_ERROR(CommitAtOnce(std::move(txn)));
  // Committed it is. Without the area the next commits flush twice, as before.
  const StatusOr<Reader> reader = Reader::Acquire(*this);
  if (reader.ok()) {
    StatusOr<std::optional<lmdb::RedoArea>> found = lmdb::RedoArea::Find(reader->get(), dbi_);
    redo_ = found.ok() ? *found : std::nullopt;
  }
  upgrade_failed_ = !redo_.has_value();
  return OkStatus();
}

// Two flushes: data pages, fdatasync, then the page that makes them current, through O_DSYNC.
Status LmdbMetaStore::CommitAtOnce(lmdb::Txn txn) {
  STRATA_RETURN_IF_ERROR(SetRelaxed(false));
  return txn.Commit();
}

// The flag is LMDB's, for the commits that follow.
Status LmdbMetaStore::SetRelaxed(bool relaxed) {
  if (relaxed == relaxed_) {
    return OkStatus();
  }
  if (const int code = ::mdb_env_set_flags(env_, MDB_NOMETASYNC, relaxed ? 1 : 0); code != 0) {
    return lmdb::Error(code, "set how the metadata store is written");
  }
  relaxed_ = relaxed;
  return OkStatus();
}

// One flush: what the transaction does is written first, so the fdatasync for its data pages makes
// that durable with them, and the page that makes them current may follow when it likes. LMDB has
// written that page of one transaction before it syncs the data of the next (MDB_NOMETASYNC), so a
// power cut undoes at most the last one, and its record says how to do it again.
Status LmdbMetaStore::CommitDurably(lmdb::Txn txn, const lmdb::RedoRecord& redo) {
  const uint64_t number = ::mdb_txn_id(txn.get());
  bool recorded = false;
  if (redo_.has_value() && !redo.empty()) {
    STRATA_ASSIGN_OR_RETURN(recorded, redo_->Write(number, redo));
  }
  const auto commit = [&]() -> Status {
    STRATA_FAULT_POINT("store.commit");
    if (!recorded) {
      return CommitAtOnce(std::move(txn));
    }
    STRATA_RETURN_IF_ERROR(SetRelaxed(true));
    return txn.Commit();
  };
  Status status = ExplainFull(commit());
  if (status.ok() || !recorded) {
    return status;
  }
  // Its callers are told that it failed: it must not come back after a power cut.
  if (const Status withdrawn = redo_->Withdraw(number); !withdrawn.ok()) {
    broken_ = MakeStatus(StatusCode::kUnavailable,
                         "the disk did not take back a change that failed (" +
                             std::string(StatusMessage(withdrawn)) + "), the daemon must restart");
  }
  return status;
}

// Keeps blocks allocated behind the last page in use, so that a removal can be recorded when the
// disk is full. Called by whoever commits, one at a time.
void LmdbMetaStore::KeepReserve() {
  constexpr off_t kReserve = 1 << 20;
  MDB_envinfo info{};
  MDB_stat page{};
  mdb_filehandle_t fd = -1;
  if (::mdb_env_info(env_, &info) != 0 || ::mdb_env_stat(env_, &page) != 0 ||
      ::mdb_env_get_fd(env_, &fd) != 0) {
    return;
  }
  const auto used = static_cast<off_t>((info.me_last_pgno + 1) * page.ms_psize);
  if (used + kReserve / 2 > reserved_end_bytes_) {
    // Without it, a full disk refuses removals too; the next commit tries again.
    const bool kept = ::fallocate(fd, 0, used, kReserve) == 0;
    reserved_end_bytes_ = kept ? used + kReserve : reserved_end_bytes_;
  }
}

// LMDB makes EIO of a write that came out short, which is how a full disk shows. A try to make room
// says which of the two it was; the room stays reserved for the next commit.
Status LmdbMetaStore::ExplainFull(const Status& status) const {
  constexpr off_t kRoom = off_t{64} * 1024;
  mdb_filehandle_t fd = -1;
  struct stat data {};
  if (StatusErrno(status) != EIO || ::mdb_env_get_fd(env_, &fd) != 0 || ::fstat(fd, &data) != 0 ||
      ::fallocate(fd, FALLOC_FL_KEEP_SIZE, data.st_size, kRoom) == 0) {
    return status;
  }
  const int error = errno;
  return error == ENOSPC || error == EDQUOT ? ErrnoStatus(error, "write the metadata store")
                                            : status;
}

StatusOr<std::optional<SnapshotRecord>> LmdbMetaStore::Find(std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const Reader reader, Reader::Acquire(*this));
  return lmdb::FindByName(reader.get(), dbi_, name);
}

StatusOr<std::vector<SnapshotRecord>> LmdbMetaStore::Page(SnapshotId after, size_t limit) {
  STRATA_ASSIGN_OR_RETURN(const Reader reader, Reader::Acquire(*this));
  STRATA_ASSIGN_OR_RETURN(lmdb::Cursor cursor, lmdb::Cursor::Open(reader.get(), dbi_));
  std::vector<SnapshotRecord> page;
  STRATA_ASSIGN_OR_RETURN(bool more, cursor.Seek(lmdb::RecordKey(after + 1)));
  while (more && page.size() < limit && cursor.key().front() == lmdb::kRecordTable) {
    STRATA_ASSIGN_OR_RETURN(SnapshotRecord record, DecodeRecord(cursor.value()));
    page.push_back(std::move(record));
    STRATA_ASSIGN_OR_RETURN(more, cursor.Next());
  }
  return page;
}

StatusOr<std::vector<SnapshotId>> LmdbMetaStore::Ids() {
  STRATA_ASSIGN_OR_RETURN(const Reader reader, Reader::Acquire(*this));
  STRATA_ASSIGN_OR_RETURN(lmdb::Cursor cursor, lmdb::Cursor::Open(reader.get(), dbi_));
  std::vector<SnapshotId> ids;
  STRATA_ASSIGN_OR_RETURN(bool more, cursor.Seek(lmdb::RecordKey(0)));
  while (more && cursor.key().front() == lmdb::kRecordTable) {
    STRATA_ASSIGN_OR_RETURN(const SnapshotId id, lmdb::DecodeId(cursor.key().substr(1)));
    ids.push_back(id);
    STRATA_ASSIGN_OR_RETURN(more, cursor.Next());
  }
  return ids;
}

Status LmdbMetaStore::SetNextId(SnapshotId next) {
  return Apply([&](lmdb::MetaTxn& txn) {
    return txn.PutEntry(lmdb::MetaKey(kNextIdKey), lmdb::EncodeId(next));
  });
}

StatusOr<SnapshotId> LmdbMetaStore::NextId() {
  SnapshotId end = 0;
  {
    const MutexLock lock(id_mutex_);
    while (next_id_ == reserved_end_ && reserving_) {
      id_reserved_.Wait(id_mutex_);
    }
    if (next_id_ < reserved_end_) {
      return next_id_++;
    }
    reserving_ = true;
    end = reserved_end_ + kReservedIds;
  }
  const Status status = SetNextId(end);
  const MutexLock lock(id_mutex_);
  reserving_ = false;
  id_reserved_.SignalAll();
  if (!status.ok()) {
    return Annotate(status, "set snapshot numbers aside");
  }
  reserved_end_ = end;
  return next_id_++;
}

Status InDatabase(const Status& status, const std::string& directory) {
  if (status.ok()) {
    return status;
  }
  Status named = Annotate(status, "metadata store '" + directory + "/data.mdb'");
  if (status.code() != StatusCode::kDataLoss) {
    return named;
  }
  return MakeStatus(StatusCode::kDataLoss,
                    std::string(StatusMessage(named)) +
                        "; restore it from a backup, or move the root away to start afresh");
}

// LMDB wants data.mdb and lock.mdb in one folder: with a folder for the lock, the data is a link in
// it.
StatusOr<std::string> EnvironmentFolder(const LmdbOptions& options) {
  if (options.lock_directory.empty()) {
    return options.directory;
  }
  const std::string data = options.directory + "/data.mdb";
  const std::string link = options.lock_directory + "/data.mdb";
  if (::symlink(data.c_str(), link.c_str()) != 0) {
    return ErrnoStatus(errno, "link '" + link + "'");
  }
  return options.lock_directory;
}

StatusOr<std::unique_ptr<MetaStore>> Open(const LmdbOptions& options) {
  struct stat found {};
  const bool exists = ::stat((options.directory + "/data.mdb").c_str(), &found) == 0;
  if (!exists && !options.create) {
    return MakeStatus(StatusCode::kDataLoss, "it is missing, but its root has been in use");
  }
  if (exists && found.st_size == 0 && !options.create) {
    return MakeStatus(StatusCode::kDataLoss, "it is empty, but its root has been in use");
  }
  if (exists && found.st_size > 0 && options.verify) {
    STRATA_RETURN_IF_ERROR(lmdb::CheckInChild(options.directory));
  }
  MDB_env* env = nullptr;
  if (const int code = ::mdb_env_create(&env); code != 0) {
    return lmdb::Error(code, "create an environment");
  }
  auto store = std::make_unique<LmdbMetaStore>(env, options.use);
  int code = ::mdb_env_set_mapsize(env, kMapBytes);
  if (code == 0) {
    code = ::mdb_env_set_maxreaders(env, kMaxReaders);
  }
  if (code == 0) {
    // Without NOTLS a read transaction would be tied to the thread that began it.
    STRATA_ASSIGN_OR_RETURN(const std::string folder, EnvironmentFolder(options));
    const unsigned read_only = options.use == LmdbUse::kRead ? MDB_RDONLY : 0;
    const unsigned alone = options.use == LmdbUse::kServe ? 0 : MDB_NOLOCK;
    code = ::mdb_env_open(env, folder.c_str(), MDB_NOTLS | MDB_NORDAHEAD | read_only | alone, 0600);
  }
  if (code != 0) {
    return lmdb::Error(code, "open it");
  }
  STRATA_RETURN_IF_ERROR(store->OpenTable());
  STRATA_RETURN_IF_ERROR(store->Load(options));
  return store;
}

}  // namespace

StatusOr<std::unique_ptr<MetaStore>> OpenLmdbMetaStore(const LmdbOptions& options) {
  StatusOr<std::unique_ptr<MetaStore>> store = Open(options);
  if (!store.ok()) {
    return InDatabase(store.status(), options.directory);
  }
  return store;
}

}  // namespace strata
