// SPDX-License-Identifier: Apache-2.0
//
// CniNamespaces: the network namespaces of one state folder, each set up by CNI plugins, that
// several processes use beside and after one another. Safe from any thread and any number of
// processes.
//
//   <folder>/<id>           the namespace, bound to this file
//   <folder>/<id>.lock      locked by the process that uses it (FileLock); the first file to come
//   and
//                           the last one to go
//   <folder>/<id>.json      the network that it was set up for, its plugins and their result: for
//   DEL <folder>/pool/<id>      it waits for its next user, since the time of this file
//
// An id begins with the digest of its network, so that nobody gets one of another configuration.
// What is neither locked nor waiting was left by a process that was killed.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/file_lock.h"
#include "client/network/cni_config.h"
#include "client/network/cni_plugin.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// One that this process uses. Dropped without PutBack or Release it is a leftover.
class CniNamespace {
 public:
  CniNamespace(std::string id, std::string path, FileLock lock)
      : id_(std::move(id)), path_(std::move(path)), lock_(std::move(lock)) {}

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  friend class CniNamespaces;
  std::string id_;
  std::string path_;
  FileLock lock_;
};

class CniNamespaces {
 public:
  struct Options {
    std::string directory;    // absolute; made when missing
    std::string plugin_path;  // of what is made; what is released has its own
    std::string outer_netns;
  };
  // How long a spare one waits.
  static constexpr std::chrono::minutes kIdleLimit{5};

  static StatusOr<std::unique_ptr<CniNamespaces>> Open(const Options& options);

  // A new one. "CNI setup error: ..." (Unavailable, DeadlineExceeded); nothing of it is left then.
  StatusOr<CniNamespace> Create(const CniConfig& config, const std::string& args,
                                const CniLimits& limits);
  // The one of the network `digest` that began to wait last; nothing when none waits.
  StatusOr<std::optional<CniNamespace>> TakeWaiting(const std::string& digest);
  // Makes it wait.
  Status PutBack(CniNamespace given);
  // DEL, and everything of it goes, also when a plugin fails: that is only logged, because the
  // namespace takes its interfaces with it.
  void Release(CniNamespace given, const CniLimits& limits);

  // All there are of the network: waiting, in use and being made.
  [[nodiscard]] StatusOr<size_t> Count(std::string_view digest) const;

  // Releases what killed processes have left.
  StatusOr<size_t> ReleaseLeftovers(const CniLimits& limits);
  // Releases those that wait longer than kIdleLimit, except the `keep` of network `digest` that
  // began last.
  StatusOr<size_t> ReleaseIdle(std::string_view digest, size_t keep, const CniLimits& limits);
  StatusOr<size_t> ReleaseWaiting(const CniLimits& limits);

  [[nodiscard]] const std::string& directory() const { return options_.directory; }
  [[nodiscard]] int fd() const { return directory_.get(); }
  // Ids by their lock files.
  [[nodiscard]] StatusOr<std::vector<std::string>> Ids() const;

 private:
  struct Waiting {
    std::string id;
    std::chrono::system_clock::time_point since;
  };

  CniNamespaces(Options options, UniqueFd directory, UniqueFd pool)
      : options_(std::move(options)), directory_(std::move(directory)), pool_(std::move(pool)) {}

  [[nodiscard]] CniAttachment AttachmentOf(const std::string& id, const std::string& args) const;
  // Newest first.
  [[nodiscard]] StatusOr<std::vector<Waiting>> ListWaiting() const;
  // Nothing when it is no longer there, or in use.
  StatusOr<std::optional<CniNamespace>> Lock(const std::string& id);
  StatusOr<CniNamespace> NewLocked(const std::string& digest);
  // Takes one that waits out of the pool; nothing when somebody was faster.
  StatusOr<std::optional<CniNamespace>> TakeOut(const std::string& id);
  Status SetUp(const CniNamespace& made, const CniConfig& config, const std::string& args,
               const CniLimits& limits);
  Status TearDown(const CniNamespace& given, const CniLimits& limits);

  const Options options_;
  const UniqueFd directory_;
  const UniqueFd pool_;
};

}  // namespace strata
