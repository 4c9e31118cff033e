// SPDX-License-Identifier: Apache-2.0
//
// What a layer says of an entry besides its contents: owner, mode, xattrs and times, and how they
// are given to a file. Stateless; safe from any thread.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/status.h"

struct archive_entry;

namespace strata {

struct EntryAttributes {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0;  // permissions only
  timespec modified{};
  std::vector<std::pair<std::string, std::string>> xattrs;
};

// DataLoss: an id that no kernel has. Xattrs by which overlay file systems remember things of their
// own are left out and noted: a layer must not speak for them.
StatusOr<EntryAttributes> ReadAttributes(archive_entry* entry,
                                         const std::function<void(std::string_view)>& note);

struct AttributeTarget {
  int dirfd = -1;    // with `name`: an entry that is no directory, itself and not what it points to
  std::string name;  // "": `fd`
  int fd = -1;
  bool symlink = false;
  bool directory = false;  // its times come later
};

// Xattrs that the file system does not have are left out and noted, those that only the initial
// user namespace may set too when `user_namespace`.
Status SetAttributes(const AttributeTarget& target, const EntryAttributes& attributes,
                     bool user_namespace, const std::function<void(std::string_view)>& note);

}  // namespace strata
