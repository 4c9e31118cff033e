// SPDX-License-Identifier: Apache-2.0
//
// ServiceFdStore: the descriptors of a daemon that outlive it, with the service manager and with
// the second holder (services/keeper/PROTOCOL.md). Safe from any thread.
#pragma once

#include <absl/base/thread_annotations.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/fd_store_channel.h"
#include "snapshotters/base/fd_store.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

class ServiceFdStore final : public FdStore {
 public:
  // What a service manager tells its service.
  struct Given {
    std::string notify_socket;  // empty: there is no manager
    size_t limit = 0;           // how many it keeps
    std::vector<std::pair<std::string, UniqueFd>> fds;
  };

  // Takes what is meant for this process out of the environment (sd_listen_fds(3)); to be called
  // once, while there is one thread. NOTIFY_SOCKET stays, for sd_notify(3).
  static StatusOr<Given> FromEnvironment();

  // `keeper`: the program of the second holder; empty: look for it.
  explicit ServiceFdStore(Given&& given, std::string keeper = "");

  // Where the second holder has its socket; to be called before the first Take and Keep. Touches
  // nothing yet: the folder has to be there when the first descriptor is kept.
  void Attach(const std::string& root) { root_ = root; }

  // The sockets among what was given, and whatever else has not one of our names: those that the
  // manager listens on for us, and those that KeepSocket kept; with their names, "unknown" for one
  // that came without. To be called once.
  std::vector<std::pair<std::string, UniqueFd>> TakeSockets() { return std::move(sockets_); }
  // The name under which a tenant's socket is kept. None that a tenant can have, but for the
  // default tenant's, which is the one that our socket unit gives its own.
  static std::string SocketName(const std::string& tenant);
  // Keeps a socket that this process listens on, with the manager only: nobody is to wait in the
  // queue of a service that was stopped. OK: it outlives this process.
  Status KeepSocket(const std::string& name, int fd);
  // Of a predecessor, which nobody wants any more.
  void DropSocket(const std::string& name);

  [[nodiscard]] bool available() const override { return available_; }
  // Ends within a few seconds, whatever the others do; so do Keep and Drop. What only one of the
  // two has, the other has, too, when this returns.
  UniqueFd Take(const std::string& name) override;
  // OK when the manager has it. Without the second holder it is lost when the unit is stopped: a
  // warning in the log, once.
  Status Keep(const std::string& name, int fd) override;
  void Drop(const std::string& name) override;
  // Starts the second holder again if it was killed, with all that it had. Whoever serves calls it
  // now and then; ends as Keep does.
  void Mend();

 private:
  using Descriptors = std::map<std::string, UniqueFd>;

  // One of the two who keep, and what it has, as far as it is known.
  struct Holder {
    FdStoreChannel channel;
    // It can be asked what it has. A barrier is passed, too, when who was to answer has died.
    bool tells = false;
    Descriptors has;
  };

  // One operation goes on at a time. Not a lock: it may wait for another process, with a deadline,
  // and nothing but the next operation waits for it.
  class Turn;

  static Status KeepWith(Holder& holder, const std::string& name, int fd);
  static void DropWith(Holder& holder, const std::string& name);
  // Whether the second holder answers; what it has is then known.
  bool FindSecond();
  bool StartSecond();
  [[nodiscard]] Status CheckRoom(const std::string& name) const;
  Status KeepWithSecond(const std::string& name, int fd);
  void TryToKeepWithSecond(const std::string& name, int fd);

  const bool available_;
  const size_t limit_;
  std::string keeper_;
  std::string root_;
  std::vector<std::pair<std::string, UniqueFd>> sockets_;

  Mutex mutex_;
  CondVar turn_ended_;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;

  // Of whoever has the turn.
  Holder manager_;
  std::unique_ptr<Holder> second_;  // none: not looked for yet, or not there
  bool looked_for_second_ = false;
  bool warned_ = false;
};

}  // namespace strata
