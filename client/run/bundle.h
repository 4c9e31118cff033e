// SPDX-License-Identifier: Apache-2.0
//
// The executor's directory: a bundle <id> for each container, made by one worker and seen by all
// that share the directory. A lock on the bundle tells whether that worker lives.
// Safe from any thread; a Bundle is one thread's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// Names of files in a bundle.
inline constexpr char kSpecFile[] = "config.json";
inline constexpr char kRootfsName[] = "rootfs";
inline constexpr char kMountsName[] = "mounts";
inline constexpr char kPidFile[] = "pid";
inline constexpr char kNoteFile[] = "container.json";

// What a worker notes of its container for the others.
struct ContainerNote {
  std::string image;
  std::string command;
};

class BundleDirectory;

// Owns one bundle: the destructor removes it, mounts in it first, and logs a failure.
class Bundle {
 public:
  ~Bundle();
  Bundle(Bundle&& other) noexcept = default;
  Bundle& operator=(Bundle&&) = delete;
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string Join(std::string_view name) const;
  [[nodiscard]] int fd() const { return fd_.get(); }

  [[nodiscard]] Status WriteNote(const ContainerNote& note) const;
  // A file that goes with the bundle; no sync: none of it outlives a reboot.
  [[nodiscard]] Status WriteFile(const std::string& name, std::string_view content,
                                 uint32_t mode) const;

  // Unmounts all that is mounted in the bundle, and removes it.
  Status Remove();
  // Leaves it for whoever looks for stale ones next.
  void Leave() { fd_.Reset(); }

 private:
  friend class BundleDirectory;
  Bundle(std::string id, std::string path, UniqueFd parent, UniqueFd fd)
      : id_(std::move(id)),
        path_(std::move(path)),
        parent_(std::move(parent)),
        fd_(std::move(fd)) {}

  std::string id_;
  std::string path_;
  UniqueFd parent_;
  UniqueFd fd_;  // holds the lock
};

// A bundle, whosever it is, as far as one may look.
struct BundleView {
  std::string id;
  std::string path;
  ContainerNote note;
  int pid = 0;               // 0: does not run yet
  int64_t started_unix = 0;  // of the process
};

class BundleDirectory {
 public:
  // Made when missing, mode 0711: the root of a user namespace has to get through to its rootfs.
  static StatusOr<std::unique_ptr<BundleDirectory>> Open(const std::string& path);

  // "" : a random id. InvalidArgument for one that no runtime would take; AlreadyExists.
  StatusOr<Bundle> Create(const std::string& id);

  // NotFound "container X not found".
  [[nodiscard]] StatusOr<BundleView> Find(std::string_view id) const;
  [[nodiscard]] StatusOr<std::vector<BundleView>> List() const;

  // Bundles whose worker has ended; they are the caller's now.
  StatusOr<std::vector<Bundle>> TakeStale();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  BundleDirectory(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  // Held by who makes or takes a bundle, so that none is seen before it is locked.
  [[nodiscard]] StatusOr<UniqueFd> Lock() const;
  [[nodiscard]] StatusOr<Bundle> Claim(const std::string& id) const;

  const std::string path_;
  const UniqueFd fd_;
};

// Letters, digits and "_+.-", not a dot in front, 1 to 128 of them.
bool IsContainerId(std::string_view id);

}  // namespace strata
