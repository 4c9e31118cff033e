// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_diff.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/image/tar_writer.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"

namespace strata {
namespace {

constexpr size_t kCompareBytes = size_t{256} << 10;
constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_NONBLOCK;

std::string Below(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}

StatusOr<std::vector<std::string>> SortedNames(int dirfd) {
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> names, DirectoryEntries(dirfd));
  std::sort(names.begin(), names.end());
  return names;
}

StatusOr<struct stat> StatAt(int dirfd, const std::string& name) {
  struct stat found {};
  return ::fstatat(dirfd, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0
             ? StatusOr<struct stat>(found)
             : ErrnoStatus(errno, "stat " + ShowName(name));
}

// Directories are opened by their whole path below the top, each time: trees may be deeper than a
// process has descriptors.
StatusOr<UniqueFd> OpenDirectory(int top, const std::string& path) {
  return OpenBeneath(top, path.empty() ? "." : path, kOpenDirectory);
}

class UpperDiff {
 public:
  UpperDiff(int upper, TarWriter& tar) : upper_(upper), tar_(tar) {}

  Status Walk(const std::string& path);

 private:
  static Status CheckPlain(int dirfd, const std::string& name, const std::string& path);

  const int upper_;
  TarWriter& tar_;
};

// NOLINTNEXTLINE(misc-no-recursion)
Status UpperDiff::Walk(const std::string& path) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd directory, OpenDirectory(upper_, path));
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, SortedNames(directory.get()));
  std::vector<std::string> below;
  for (const std::string& name : names) {
    STRATA_ASSIGN_OR_RETURN(const struct stat found, StatAt(directory.get(), name));
    const std::string entry = Below(path, name);
    if (S_ISCHR(found.st_mode) && found.st_rdev == makedev(0, 0)) {
      STRATA_RETURN_IF_ERROR(tar_.AddMark(Below(path, ".wh." + name)));
      continue;
    }
    STRATA_RETURN_IF_ERROR(CheckPlain(directory.get(), name, entry));
    STRATA_RETURN_IF_ERROR(tar_.Add(directory.get(), name, entry, found));
    if (!S_ISDIR(found.st_mode)) {
      continue;
    }
    for (const char* key : {"trusted.overlay.opaque", "user.overlay.opaque"}) {
      STRATA_ASSIGN_OR_RETURN(const std::string opaque, ReadOwnXattr(directory.get(), name, key));
      if (opaque == "y") {
        STRATA_RETURN_IF_ERROR(tar_.AddMark(entry + "/.wh..wh..opq"));
      }
    }
    below.push_back(entry);
  }
  for (const std::string& each : below) {
    STRATA_RETURN_IF_ERROR(Walk(each));
  }
  return OkStatus();
}

Status UpperDiff::CheckPlain(int dirfd, const std::string& name, const std::string& path) {
  for (const char* key : {"trusted.overlay.redirect", "user.overlay.redirect",
                          "trusted.overlay.metacopy", "user.overlay.metacopy"}) {
    STRATA_ASSIGN_OR_RETURN(const std::string found, ReadOwnXattr(dirfd, name, key));
    if (!found.empty()) {
      return MakeStatus(StatusCode::kUnimplemented,
                        ShowName(path) + " has the xattr '" + std::string(key) + "'");
    }
  }
  return OkStatus();
}

class TreeDiff {
 public:
  TreeDiff(const CallContext& call, int before, int after, TarWriter& tar)
      : call_(call), before_(before), after_(after), tar_(tar) {}

  // `is_new`: nothing of it was there before.
  Status Walk(const std::string& path, bool is_new);

 private:
  Status AddParents(const std::string& path);
  Status AddOnce(int dirfd, const std::string& name, const std::string& path,
                 const struct stat& found);
  StatusOr<bool> Differs(int before, int after, const std::string& name, const struct stat& old,
                         const struct stat& now);
  StatusOr<bool> BytesDiffer(int before, int after, const std::string& name);

  const CallContext& call_;
  const int before_;
  const int after_;
  TarWriter& tar_;
  std::set<std::string> added_;  // directories
};

// A changed entry comes behind its directories, as all builders have it.
Status TreeDiff::AddParents(const std::string& path) {
  for (size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string directory = path.substr(0, slash);
    if (added_.contains(directory)) {
      continue;
    }
    const size_t last = directory.rfind('/');
    const std::string parent = last == std::string::npos ? "" : directory.substr(0, last);
    const std::string name = last == std::string::npos ? directory : directory.substr(last + 1);
    STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenDirectory(after_, parent));
    STRATA_ASSIGN_OR_RETURN(const struct stat found, StatAt(fd.get(), name));
    STRATA_RETURN_IF_ERROR(AddOnce(fd.get(), name, directory, found));
  }
  return OkStatus();
}

Status TreeDiff::AddOnce(int dirfd, const std::string& name, const std::string& path,
                         const struct stat& found) {
  if (S_ISDIR(found.st_mode) && !added_.insert(path).second) {
    return OkStatus();
  }
  return tar_.Add(dirfd, name, path, found);
}

StatusOr<bool> TreeDiff::BytesDiffer(int before, int after, const std::string& name) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd old, OpenAt(before, name, O_RDONLY | O_NONBLOCK));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd now, OpenAt(after, name, O_RDONLY | O_NONBLOCK));
  const std::unique_ptr<char[]> one(new char[kCompareBytes]);
  const std::unique_ptr<char[]> other(new char[kCompareBytes]);
  off_t offset = 0;
  while (true) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    const ssize_t had = ::pread(old.get(), one.get(), kCompareBytes, offset);
    const ssize_t has = ::pread(now.get(), other.get(), kCompareBytes, offset);
    if (had < 0 || has < 0) {
      return ErrnoStatus(errno, "compare " + ShowName(name));
    }
    if (had != has || std::memcmp(one.get(), other.get(), static_cast<size_t>(had)) != 0) {
      return true;
    }
    if (had == 0) {
      return false;
    }
    offset += had;
  }
}

StatusOr<bool> TreeDiff::Differs(int before, int after, const std::string& name,
                                 const struct stat& old, const struct stat& now) {
  const bool directory = S_ISDIR(now.st_mode);
  if (old.st_mode != now.st_mode || old.st_uid != now.st_uid || old.st_gid != now.st_gid ||
      old.st_rdev != now.st_rdev || (!directory && old.st_size != now.st_size) ||
      (!directory &&
       (old.st_mtim.tv_sec != now.st_mtim.tv_sec || old.st_mtim.tv_nsec != now.st_mtim.tv_nsec))) {
    return true;
  }
  STRATA_ASSIGN_OR_RETURN(const Xattrs had, ReadXattrs(before, name));
  STRATA_ASSIGN_OR_RETURN(const Xattrs has, ReadXattrs(after, name));
  if (had != has) {
    return true;
  }
  if (S_ISLNK(now.st_mode)) {
    char one[PATH_MAX];
    char other[PATH_MAX];
    const ssize_t size = ::readlinkat(before, name.c_str(), one, sizeof(one));
    return size != ::readlinkat(after, name.c_str(), other, sizeof(other)) || size < 0 ||
           std::memcmp(one, other, static_cast<size_t>(size)) != 0;
  }
  // The same file, by way of a shared lower layer, needs no look.
  const bool same = old.st_dev == now.st_dev && old.st_ino == now.st_ino;
  return S_ISREG(now.st_mode) && !same ? BytesDiffer(before, after, name) : StatusOr<bool>(false);
}

// NOLINTNEXTLINE(misc-no-recursion)
Status TreeDiff::Walk(const std::string& path, bool is_new) {
  STRATA_RETURN_IF_ERROR(call_.Check());
  std::vector<std::pair<std::string, bool>> below;
  {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd after, OpenDirectory(after_, path));
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, SortedNames(after.get()));
    UniqueFd before;
    std::vector<std::string> old_names;
    if (!is_new) {
      STRATA_ASSIGN_OR_RETURN(before, OpenDirectory(before_, path));
      STRATA_ASSIGN_OR_RETURN(old_names, SortedNames(before.get()));
    }
    for (const std::string& name : old_names) {
      if (!std::binary_search(names.begin(), names.end(), name)) {
        const std::string mark = Below(path, ".wh." + name);
        STRATA_RETURN_IF_ERROR(AddParents(mark));
        STRATA_RETURN_IF_ERROR(tar_.AddMark(mark));
      }
    }
    for (const std::string& name : names) {
      const std::string entry = Below(path, name);
      STRATA_ASSIGN_OR_RETURN(const struct stat now, StatAt(after.get(), name));
      bool differs = true;
      bool was_directory = false;
      if (std::binary_search(old_names.begin(), old_names.end(), name)) {
        STRATA_ASSIGN_OR_RETURN(const struct stat old, StatAt(before.get(), name));
        STRATA_ASSIGN_OR_RETURN(differs, Differs(before.get(), after.get(), name, old, now));
        was_directory = S_ISDIR(old.st_mode);
      }
      if (differs) {
        STRATA_RETURN_IF_ERROR(AddParents(entry));
        STRATA_RETURN_IF_ERROR(AddOnce(after.get(), name, entry, now));
      }
      if (S_ISDIR(now.st_mode)) {
        below.emplace_back(entry, !was_directory);
      }
    }
  }
  for (const auto& [directory, new_one] : below) {
    STRATA_RETURN_IF_ERROR(Walk(directory, new_one));
  }
  return OkStatus();
}

}  // namespace

Status WriteUpperDiff(const CallContext& call, int upper, const TarReceiver& receiver) {
  TarWriter tar(call, receiver);
  STRATA_RETURN_IF_ERROR(tar.Begin());
  STRATA_RETURN_IF_ERROR(UpperDiff(upper, tar).Walk(""));
  return tar.Finish();
}

Status WriteTreeDiff(const CallContext& call, int before, int after, const TarReceiver& receiver) {
  TarWriter tar(call, receiver);
  STRATA_RETURN_IF_ERROR(tar.Begin());
  STRATA_RETURN_IF_ERROR(TreeDiff(call, before, after, tar).Walk("", before < 0));
  return tar.Finish();
}

}  // namespace strata
