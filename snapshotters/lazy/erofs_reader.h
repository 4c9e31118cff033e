// SPDX-License-Identifier: Apache-2.0
//
// ErofsReader: an image of ErofsBuilder, read from its mapped metadata. Trusts nothing in it: what
// points outside or makes no sense is DataLoss. Immutable, safe from any thread; the mapping must
// outlive it and everything it returns. Success allocates nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/erofs_format.h"

namespace strata {

struct ErofsStat {
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t nlink = 0;
  uint32_t rdev = 0;  // ErofsEncodeDevice()
  uint32_t mtime_ns = 0;
  int64_t mtime_s = 0;
  uint64_t size = 0;
};

struct ErofsDirectoryEntry {
  std::string_view name;
  uint64_t nid = 0;
  uint8_t type = 0;  // ErofsFileType()
};

class ErofsReader {
 public:
  // `metadata`: the image's first bytes, at least all of its metadata. Checks the superblock.
  static StatusOr<ErofsReader> Open(std::span<const uint8_t> metadata);

  [[nodiscard]] uint64_t root() const { return root_; }
  [[nodiscard]] uint64_t inodes() const { return inodes_; }
  [[nodiscard]] uint64_t image_bytes() const { return image_bytes_; }

  [[nodiscard]] StatusOr<ErofsStat> Stat(uint64_t nid) const;

  // No value: there is no such name. FailedPrecondition: `directory` is none.
  [[nodiscard]] StatusOr<std::optional<ErofsDirectoryEntry>> Lookup(uint64_t directory,
                                                                    std::string_view name) const;

  // Calls `visit(entry, next)` for each entry from `cursor` on (0: the first, "." and ".."
  // included) until it returns false; `next` is the cursor behind that entry.
  using DirectoryVisitor = std::function<bool(const ErofsDirectoryEntry&, uint64_t next)>;
  [[nodiscard]] Status ReadDir(uint64_t directory, uint64_t cursor,
                               const DirectoryVisitor& visit) const;

  [[nodiscard]] StatusOr<std::string_view> ReadLink(uint64_t nid) const;

  // `name` with its prefix.
  [[nodiscard]] StatusOr<std::optional<std::string_view>> GetXattr(uint64_t nid,
                                                                   std::string_view name) const;
  // The name is `prefix` and `rest` together.
  using XattrVisitor = std::function<void(std::string_view prefix, std::string_view rest)>;
  [[nodiscard]] Status ListXattr(uint64_t nid, const XattrVisitor& visit) const;

  // Where a regular file's bytes begin in the image; they end within image_bytes(). 0 for an empty
  // file.
  [[nodiscard]] StatusOr<uint64_t> DataOffset(uint64_t nid) const;

 private:
  using Bytes = std::span<const uint8_t>;
  struct Inode {
    ErofsDiskInode disk{};
    uint64_t offset = 0;
  };
  struct XattrItem {
    const ErofsXattrPrefix* prefix = nullptr;
    std::string_view rest;
    std::string_view value;
  };
  class Block;

  explicit ErofsReader(Bytes metadata) : metadata_(metadata) {}
  [[nodiscard]] StatusOr<Inode> ReadInode(uint64_t nid) const;
  [[nodiscard]] StatusOr<Bytes> DataOf(const Inode& inode) const;
  [[nodiscard]] StatusOr<Bytes> DirectoryData(uint64_t nid) const;
  [[nodiscard]] StatusOr<Bytes> XattrArea(uint64_t nid) const;
  static StatusOr<XattrItem> NextXattr(Bytes& area);

  Bytes metadata_;
  uint64_t root_ = 0;
  uint64_t inodes_ = 0;
  uint64_t image_bytes_ = 0;
};

}  // namespace strata
