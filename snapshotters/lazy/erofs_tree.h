// SPDX-License-Identifier: Apache-2.0
//
// The tree that ErofsBuilder gathers, and lays out at its end. Only for erofs_tree.cc, which takes
// entries in, and erofs_writer.cc, which writes them. One thread at a time.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/erofs_format.h"
#include "snapshotters/lazy/erofs_writer.h"
#include "snapshotters/lazy/image_output.h"

namespace strata {

class ErofsBuilder::Tree {
 public:
  explicit Tree(const ErofsBuilderOptions& options) : options_(options) {
    slots_.resize(1024, kNone);
    (void)NewEntry(kNone, "");  // an empty tree has room for its root
    SetNode(0, {.mode = S_IFDIR | 0755});
  }

  StatusOr<uint32_t> Add(std::string_view path, const ErofsNode& node, std::string_view link_target,
                         std::span<const XattrView> xattrs);
  StatusOr<uint32_t> AddHardlink(std::string_view path, std::string_view target);
  StatusOr<ErofsLayout> Finish(int fd);

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Entry {
    uint64_t size = 0;  // in Finish, of a directory: its dirents' bytes
    int64_t mtime_s = 0;
    uint64_t offset = 0;  // in Finish: where the inode lies
    uint32_t name = 0;    // these four: places in strings_
    uint32_t link = 0;
    uint32_t xattrs = 0;
    uint32_t xattr_bytes = 0;
    uint32_t parent = kNone;
    uint32_t mtime_ns = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint32_t rdev = 0;  // in Finish, of all but devices: the first block of the data
    uint32_t nlink = 0;
    uint32_t children = 0;  // in Finish: place in sorted_
    uint32_t children_count = 0;
    uint16_t mode = 0;  // 0: a hardlink
    uint16_t link_bytes = 0;
    uint8_t name_bytes = 0;
    bool whiteout = false;
    bool opaque = false;
    bool is_inline = false;
    bool in_image = false;
  };

  // The last component of a cleaned path and its directory.
  struct Place {
    uint32_t parent = kNone;
    std::string_view name;
    bool whiteout = false;
    bool left_out = false;
  };

  [[nodiscard]] std::string_view Text(uint32_t at, size_t bytes) const {
    return std::string_view(strings_).substr(at, bytes);
  }
  [[nodiscard]] std::string_view Name(const Entry& entry) const {
    return Text(entry.name, entry.name_bytes);
  }
  [[nodiscard]] std::string_view Link(const Entry& entry) const {
    return Text(entry.link, entry.link_bytes);
  }
  [[nodiscard]] static bool IsDir(const Entry& entry) { return S_ISDIR(entry.mode); }

  StatusOr<uint32_t> Intern(std::string_view bytes);
  StatusOr<uint32_t> NewEntry(uint32_t parent, std::string_view name);
  void SetNode(uint32_t index, const ErofsNode& node);
  [[nodiscard]] size_t SlotOf(uint32_t parent, std::string_view name) const;
  void GrowSlots();
  [[nodiscard]] uint32_t Find(uint32_t parent, std::string_view name) const {
    return slots_[SlotOf(parent, name)];
  }
  [[nodiscard]] StatusOr<uint32_t> FindPath(std::string_view path) const;
  StatusOr<uint32_t> MakeDirectory(uint32_t parent, std::string_view name, std::string_view path);
  StatusOr<Place> PlaceOf(std::string_view path);
  [[nodiscard]] StatusOr<std::string> EncodeXattrs(std::string_view path,
                                                   std::span<const XattrView> xattrs,
                                                   bool opaque) const;
  Status AddOpaqueXattr(Entry& entry);

  Status ResolveHardlinks();
  [[nodiscard]] StatusOr<uint32_t> Resolve(uint32_t hardlink) const;
  void SortChildren();
  void VisitTree();
  Status PlaceInodes(ErofsLayout& layout);
  Status PlaceData(ErofsLayout& layout);
  [[nodiscard]] uint64_t DirectoryBytes(uint32_t directory) const;
  [[nodiscard]] uint64_t InlineBytes(const Entry& entry) const;
  [[nodiscard]] std::string DirectoryData(uint32_t directory) const;
  [[nodiscard]] Status WriteInode(const Entry& entry, uint32_t index, ImageOutput& output) const;
  [[nodiscard]] Status WriteSuperBlock(int fd, const ErofsLayout& layout,
                                       const ImageOutput& output) const;
  [[nodiscard]] std::string Tail(uint32_t index) const;

  ErofsBuilderOptions options_;
  std::vector<Entry> entries_;
  std::string strings_;
  std::vector<uint32_t> slots_;     // (parent, name) -> entry, open addressing
  std::vector<uint32_t> resolved_;  // in Finish: entry -> the entry whose inode it is
  std::vector<uint32_t> sorted_;    // in Finish: entries by parent, then name
  std::vector<uint32_t> order_;     // in Finish: the inodes in the order of the image
  uint64_t used_ = 0;
};

}  // namespace strata
