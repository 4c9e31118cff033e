// SPDX-License-Identifier: Apache-2.0
//
// AttributeCopy: owner, xattrs, mode and times of one entry after the other. One thread at a time.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>

#include "snapshotters/base/status.h"

namespace strata {

// An xattr that the target's file system refuses with EOPNOTSUPP is left out, any other failure
// ends the copy. Errors name the call, not the entry.
class AttributeCopy {
 public:
  AttributeCopy();

  // Gives the open file or directory `target` what `stat` says, and the xattrs of `source`.
  Status Copy(int source, int target, const struct statx& stat);

  // The same for entry `name`, of any type but a directory, in directory `target`, which is not
  // opened: xattrs from the one in directory `source`; a symlink is not followed.
  Status CopyAt(int source, int target, const std::string& name, const struct statx& stat);

 private:
  // `list`, `get` and `set` are flistxattr and so on, or the l forms on a path.
  template <typename List, typename Get, typename Set>
  Status CopyXattrs(List list, Get get, Set set);

  const std::unique_ptr<char[]> names_;
  const std::unique_ptr<char[]> value_;
};

}  // namespace strata
