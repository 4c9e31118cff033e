// SPDX-License-Identifier: Apache-2.0
//
// ErofsBuilder: a layer's tree, taken in entry by entry, written as one EROFS image whose metadata
// is dense and whose file data are holes. One thread at a time; nothing is borrowed after a call.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"

namespace strata {

struct ErofsNode {
  uint32_t mode = 0;  // type and permissions, as st_mode
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_s = 0;    // may be negative
  uint32_t mtime_ns = 0;  // below 1,000,000,000
  uint64_t size = 0;      // of regular files; ignored for all else
  uint32_t rdev = 0;      // of devices: ErofsEncodeDevice()
};

struct XattrView {
  std::string_view name;  // with its prefix: "user.a"
  std::string_view value;
};

// Where a layer's whiteouts go.
enum class ErofsWhiteouts {
  kKeep,              // names beginning with ".wh." are ordinary ones
  kOverlay,           // character devices 0/0 and trusted.overlay.opaque=y
  kOverlayUserXattr,  // the same with user.overlay.opaque, for overlays mounted with userxattr
};

struct ErofsBuilderOptions {
  std::array<uint8_t, 16> uuid = {};
  ErofsWhiteouts whiteouts = ErofsWhiteouts::kOverlay;
  uint32_t max_entries = 8'000'000;
  uint64_t max_string_bytes = uint64_t{1} << 31;  // names, link targets and xattrs; below 4 GiB
};

struct ErofsLayout {
  static constexpr uint64_t kNoData = ~uint64_t{0};
  uint64_t image_bytes = 0;
  uint64_t metadata_bytes = 0;  // block aligned; what the reader needs, and where data begins
  uint64_t inodes = 0;
  bool has_xattrs = false;  // any inode has any, the mark of an opaque directory too
  // By index. nid is 0 for what is not in the image; data_offset is kNoData for all but regular
  // files with bytes. Data runs are block aligned and lie in the order of their Add.
  std::vector<uint64_t> data_offset;
  std::vector<uint64_t> nid;
};

class ErofsBuilder {
 public:
  static constexpr uint32_t kLeftOut = ~uint32_t{0};

  static StatusOr<std::unique_ptr<ErofsBuilder>> Create(const ErofsBuilderOptions& options);
  ~ErofsBuilder();
  ErofsBuilder(const ErofsBuilder&) = delete;
  ErofsBuilder& operator=(const ErofsBuilder&) = delete;

  // `path` is relative and clean ("a/b"; "" is the root), else InvalidArgument. Missing parents are
  // made 0755 root:root, mtime 0; a parent that is no directory is InvalidArgument. A second entry
  // of a path replaces the first (a directory over a directory keeps its children and its index).
  // Unless whiteouts are kept: ".wh.NAME" becomes a whiteout unless NAME is in the layer,
  // ".wh..wh..opq" marks its directory, other ".wh..wh." names and the root's prefetch landmarks
  // are left out, and so are the layer's own trusted.overlay.* (or user.overlay.*) xattrs, which
  // overlayfs would obey. A TOC is the caller's to leave out.
  // Xattrs that EROFS has no prefix for, values above 65,535 bytes, and more than 262,148 bytes of
  // xattrs on one entry are InvalidArgument; ResourceExhausted: the limits of the options.
  // Returns the entry's index, kLeftOut for what has none. After an error nothing was added,
  // except parents.
  StatusOr<uint32_t> Add(std::string_view path, const ErofsNode& node, std::string_view link_target,
                         std::span<const XattrView> xattrs);

  // Another name of `target`, which may come later, be replaced later, or be a hardlink itself.
  StatusOr<uint32_t> AddHardlink(std::string_view path, std::string_view target);

  // Writes the image to `fd` (an empty regular file, open for reading and writing); does not sync.
  // InvalidArgument: a hardlink to nothing, to a directory, to itself, or
  // through more than 255 others; ResourceExhausted: the
  // image would exceed 16 TiB. To be called once; frees the tree.
  StatusOr<ErofsLayout> Finish(int fd);

 private:
  class Tree;
  explicit ErofsBuilder(std::unique_ptr<Tree> tree);
  std::unique_ptr<Tree> tree_;
};

}  // namespace strata
