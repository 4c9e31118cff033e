// SPDX-License-Identifier: Apache-2.0
//
// TarWriter: files of a tree as a tar in PAX form, names as the bytes that they are. One thread at
// a time.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "client/image/layer_diff.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

struct archive;
struct archive_entry;

namespace strata {

// Names and values of all xattrs that a layer carries: not those of overlay file systems, and of
// security.* only the capabilities.
using Xattrs = std::map<std::string, std::string>;
StatusOr<Xattrs> ReadXattrs(int dirfd, const std::string& name);
// One xattr of the file system's own; nothing there is "".
StatusOr<std::string> ReadOwnXattr(int dirfd, const std::string& name, const char* key);

class TarWriter {
 public:
  // Both must outlive this.
  TarWriter(const CallContext& call, const TarReceiver& receiver);

  Status Begin();
  // Entry `name` of directory `dirfd` under `path`; a file that was written before under another
  // name as a hardlink.
  Status Add(int dirfd, const std::string& name, const std::string& path, const struct stat& found);
  // An empty file: a whiteout.
  Status AddMark(const std::string& path);
  Status Finish();

 private:
  static ssize_t Write(archive* handle, void* self, const void* bytes, size_t size);
  [[nodiscard]] Status Failure(std::string_view path) const;
  Status AddData(int dirfd, const std::string& name, const std::string& path, uint64_t size);

  const CallContext& call_;
  const TarReceiver& receiver_;
  const std::unique_ptr<archive, int (*)(archive*)> archive_;
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry_;
  Status receiver_status_;
  std::map<std::pair<dev_t, ino_t>, std::string> linked_;
};

}  // namespace strata
