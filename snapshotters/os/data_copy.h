// SPDX-License-Identifier: Apache-2.0
//
// DataCopy: the content of regular files, one after the other. Remembers what the two file systems
// cannot do, so one object is for copies between the same two. One thread at a time.
#pragma once

#include <sys/types.h>

#include <memory>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

class DataCopy {
 public:
  // `call`, which cancels, must outlive this.
  explicit DataCopy(const CallContext& call);

  // Gives `target`, a new and empty file open for writing, the first `size` bytes of `source`.
  // Blocks are shared (FICLONE, ioctl_ficlone(2)) where the file system can, else data segments go
  // through copy_file_range(2), else read and write; holes stay holes. Errors name the call, not
  // the file; FailedPrecondition when `source` became shorter meanwhile.
  Status Copy(int source, int target, off_t size);

 private:
  bool Clone(int source, int target);
  Status CopySegment(int source, int target, off_t offset, off_t end);
  StatusOr<off_t> CopyRange(int source, int target, off_t offset, off_t end);
  StatusOr<off_t> CopyBytes(int source, int target, off_t offset, off_t end);

  const CallContext& call_;
  const std::unique_ptr<char[]> buffer_;
  bool has_cloned_ = false;
  bool try_clone_ = true;
  bool try_copy_range_ = true;
};

}  // namespace strata
