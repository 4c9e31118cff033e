// SPDX-License-Identifier: Apache-2.0
#include "client/network/cni_namespaces.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/network/namespace_thread.h"
#include "client/random_name.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

using nlohmann::json;
using std::chrono::system_clock;

constexpr mode_t kDirectoryMode = 0700;
constexpr mode_t kFileMode = 0600;
constexpr std::string_view kLockSuffix = ".lock";
constexpr std::string_view kRecordSuffix = ".json";
constexpr size_t kMaxRecordBytes = size_t{4} << 20;
constexpr std::chrono::seconds kUndoLimit{10};

std::string LockFile(const std::string& id) {
  return id + std::string(kLockSuffix);
}

std::string RecordFile(const std::string& id) {
  return id + std::string(kRecordSuffix);
}

// What DEL needs to know of an ADD, perhaps of another process.
struct Record {
  std::string network;  // a conflist
  std::string plugin_path;
  std::string args;
  std::string result;  // "": ADD did not end well
};

std::string Format(const Record& record) {
  const json all = {{"network", record.network},
                    {"pluginPath", record.plugin_path},
                    {"args", record.args},
                    {"result", record.result}};
  return all.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
}

StatusOr<Record> ParseRecord(std::string_view text) {
  const json all = json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  Record record;
  for (const auto& [key, out] : {std::pair<const char*, std::string*>{"network", &record.network},
                                 {"pluginPath", &record.plugin_path},
                                 {"args", &record.args},
                                 {"result", &record.result}}) {
    const auto found = all.is_object() ? all.find(key) : all.end();
    if (found == all.end() || !found->is_string()) {
      return MakeStatus(StatusCode::kDataLoss,
                        std::string("expected a JSON object with the string \"") + key + "\"");
    }
    *out = found->get<std::string>();
  }
  return record;
}

timespec RealTime() {
  timespec now{};
  (void)::clock_gettime(CLOCK_REALTIME, &now);  // cannot fail for this clock
  return now;
}

Status SetupError(const Status& status) {
  return Annotate(status, "CNI setup error");
}

}  // namespace

StatusOr<std::unique_ptr<CniNamespaces>> CniNamespaces::Open(const Options& options) {
  const std::string pool_path = options.directory + "/pool";
  STRATA_RETURN_IF_ERROR(MakePath(pool_path, kDirectoryMode));
  STRATA_ASSIGN_OR_RETURN(UniqueFd directory, OpenFile(options.directory, O_RDONLY | O_DIRECTORY));
  STRATA_ASSIGN_OR_RETURN(UniqueFd pool, OpenFile(pool_path, O_RDONLY | O_DIRECTORY));
  return std::unique_ptr<CniNamespaces>(
      new CniNamespaces(options, std::move(directory), std::move(pool)));
}

CniAttachment CniNamespaces::AttachmentOf(const std::string& id, const std::string& args) const {
  return {
      .container_id = id,
      .netns = options_.directory + "/" + id,
      .args = args,
      .plugin_path = options_.plugin_path,
      .outer_netns = options_.outer_netns,
  };
}

StatusOr<std::vector<std::string>> CniNamespaces::Ids() const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(directory_.get()));
  std::vector<std::string> ids;
  for (const std::string& name : names) {
    if (name.ends_with(kLockSuffix) && name.find('-') != std::string::npos) {
      ids.push_back(name.substr(0, name.size() - kLockSuffix.size()));
    }
  }
  return ids;
}

StatusOr<size_t> CniNamespaces::Count(std::string_view digest) const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> ids, Ids());
  return static_cast<size_t>(
      std::ranges::count_if(ids, [&](const std::string& id) { return id.starts_with(digest); }));
}

StatusOr<std::vector<CniNamespaces::Waiting>> CniNamespaces::ListWaiting() const {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(pool_.get()));
  std::vector<Waiting> waiting;
  for (const std::string& name : names) {
    struct stat found {};
    if (::fstatat(pool_.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
      continue;  // taken since
    }
    const auto since = std::chrono::seconds(found.st_mtim.tv_sec) +
                       std::chrono::nanoseconds(found.st_mtim.tv_nsec);
    waiting.push_back({name, system_clock::time_point(
                                 std::chrono::duration_cast<system_clock::duration>(since))});
  }
  std::ranges::sort(waiting, std::ranges::greater(), &Waiting::since);
  return waiting;
}

StatusOr<std::optional<CniNamespace>> CniNamespaces::Lock(const std::string& id) {
  STRATA_ASSIGN_OR_RETURN(
      std::optional<FileLock> lock,
      FileLock::TryExisting(directory_.get(), LockFile(id), FileLock::Mode::kExclusive));
  if (!lock.has_value()) {
    return std::optional<CniNamespace>();
  }
  return std::optional<CniNamespace>(
      CniNamespace(id, options_.directory + "/" + id, *std::move(lock)));
}

StatusOr<std::optional<CniNamespace>> CniNamespaces::TakeOut(const std::string& id) {
  STRATA_ASSIGN_OR_RETURN(std::optional<CniNamespace> taken, Lock(id));
  if (!taken.has_value()) {
    return taken;
  }
  if (::unlinkat(pool_.get(), id.c_str(), 0) != 0) {
    if (errno != ENOENT) {
      return ErrnoStatus(errno, "take " + ShowName(id) + " out of the pool");
    }
    return std::optional<CniNamespace>();  // taken and given back, or released, since
  }
  return taken;
}

StatusOr<CniNamespace> CniNamespaces::NewLocked(const std::string& digest) {
  while (true) {
    STRATA_ASSIGN_OR_RETURN(const std::string word, RandomName());
    std::string id = digest;
    id += '-';
    id += word;
    // Taken only if another process has just taken our new file for a leftover.
    STRATA_ASSIGN_OR_RETURN(
        std::optional<FileLock> lock,
        FileLock::Try(directory_.get(), LockFile(id), FileLock::Mode::kExclusive));
    if (lock.has_value()) {
      return CniNamespace(id, options_.directory + "/" + id, *std::move(lock));
    }
  }
}

Status CniNamespaces::SetUp(const CniNamespace& made, const CniConfig& config,
                            const std::string& args, const CniLimits& limits) {
  Record record = {
      .network = config.text, .plugin_path = options_.plugin_path, .args = args, .result = ""};
  STRATA_RETURN_IF_ERROR(
      WriteFileAtomicAt(directory_.get(), RecordFile(made.id()), Format(record), kFileMode));
  STRATA_RETURN_IF_ERROR(MakeNetworkNamespace(options_.directory, made.id()));
  STRATA_ASSIGN_OR_RETURN(record.result, CniAdd(config, AttachmentOf(made.id(), args), limits));
  return WriteFileAtomicAt(directory_.get(), RecordFile(made.id()), Format(record), kFileMode);
}

StatusOr<CniNamespace> CniNamespaces::Create(const CniConfig& config, const std::string& args,
                                             const CniLimits& limits) {
  StatusOr<CniNamespace> made = NewLocked(config.digest);
  if (!made.ok()) {
    return SetupError(made.status());
  }
  const Status status = SetUp(*made, config, args, limits);
  if (!status.ok()) {
    // A runtime deletes what it failed to add (CNI specification, section 2, "DEL").
    Release(*std::move(made),
            {.deadline = std::chrono::steady_clock::now() + kUndoLimit, .stop = limits.stop});
    return SetupError(status);
  }
  return made;
}

StatusOr<std::optional<CniNamespace>> CniNamespaces::TakeWaiting(const std::string& digest) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Waiting> waiting, ListWaiting());
  for (const Waiting& candidate : waiting) {
    if (!candidate.id.starts_with(digest + "-")) {
      continue;
    }
    STRATA_ASSIGN_OR_RETURN(std::optional<CniNamespace> taken, TakeOut(candidate.id));
    // The machine was started anew: only files are left, for ReleaseLeftovers.
    if (taken.has_value() && IsNamespaceFile(taken->path())) {
      return taken;
    }
  }
  return std::optional<CniNamespace>();
}

Status CniNamespaces::PutBack(CniNamespace given) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd,
                          OpenAt(pool_.get(), given.id(), O_WRONLY | O_CREAT | O_EXCL, kFileMode));
  // The kernel's own stamp has the resolution of its tick: the order would be lost.
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, RealTime()};
  if (::futimens(fd.get(), times) != 0) {
    return ErrnoStatus(errno, "note the time of " + ShowName(given.id()));
  }
  return OkStatus();
}

Status CniNamespaces::TearDown(const CniNamespace& given, const CniLimits& limits) {
  StatusOr<std::string> text =
      ReadFileAt(directory_.get(), RecordFile(given.id()), kMaxRecordBytes);
  if (!text.ok() && StatusErrno(text.status()) == ENOENT) {
    return OkStatus();  // no plugin was asked for it
  }
  STRATA_RETURN_IF_ERROR(text.status());
  STRATA_ASSIGN_OR_RETURN(const Record record, ParseRecord(*text));
  STRATA_ASSIGN_OR_RETURN(const CniConfig config, ParseCniConfig(record.network, /*list=*/true));
  CniAttachment attachment = AttachmentOf(given.id(), record.args);
  attachment.plugin_path = record.plugin_path;
  if (!IsNamespaceFile(given.path())) {
    attachment.netns.clear();
  }
  return CniDel(config, attachment, record.result, limits);
}

void CniNamespaces::Release(CniNamespace given, const CniLimits& limits) {
  Status status = TearDown(given, limits);
  const Status removed = RemoveNamespaceFile(given.path());
  if (status.ok()) {
    status = removed;
  }
  if (!status.ok()) {
    LogWarn("release of a network namespace failed, ignoring",
            {{"namespace", given.id()}, {"error", std::string(StatusMessage(status))}});
  }
  if (!removed.ok()) {
    return;  // a leftover, for the next process
  }
  (void)::unlinkat(directory_.get(), RecordFile(given.id()).c_str(), 0);  // without the lock file
  (void)::unlinkat(pool_.get(), given.id().c_str(), 0);                   // nobody looks at them
  given.lock_.Remove(directory_.get(), LockFile(given.id()));
}

StatusOr<size_t> CniNamespaces::ReleaseLeftovers(const CniLimits& limits) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> ids, Ids());
  size_t released = 0;
  for (const std::string& id : ids) {
    STRATA_ASSIGN_OR_RETURN(std::optional<CniNamespace> found, Lock(id));
    // Nobody puts one into the pool who has not locked it.
    if (!found.has_value() ||
        ::faccessat(pool_.get(), id.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
      continue;
    }
    Release(*std::move(found), limits);
    ++released;
  }
  return released;
}

StatusOr<size_t> CniNamespaces::ReleaseIdle(std::string_view digest, size_t keep,
                                            const CniLimits& limits) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Waiting> waiting, ListWaiting());
  const auto idle_since = system_clock::now() - kIdleLimit;
  size_t kept = 0;
  size_t released = 0;
  for (const Waiting& candidate : waiting) {
    const bool ours = candidate.id.starts_with(digest) && kept < keep;
    kept += ours ? 1 : 0;
    if (ours || candidate.since > idle_since) {
      continue;
    }
    STRATA_ASSIGN_OR_RETURN(std::optional<CniNamespace> taken, TakeOut(candidate.id));
    if (taken.has_value()) {
      Release(*std::move(taken), limits);
      ++released;
    }
  }
  return released;
}

StatusOr<size_t> CniNamespaces::ReleaseWaiting(const CniLimits& limits) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<Waiting> waiting, ListWaiting());
  size_t released = 0;
  for (const Waiting& candidate : waiting) {
    STRATA_ASSIGN_OR_RETURN(std::optional<CniNamespace> taken, TakeOut(candidate.id));
    if (taken.has_value()) {
      Release(*std::move(taken), limits);
      ++released;
    }
  }
  return released;
}

}  // namespace strata
