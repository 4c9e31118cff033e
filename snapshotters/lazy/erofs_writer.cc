// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_writer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/erofs_format.h"
#include "snapshotters/lazy/erofs_tree.h"

namespace strata {
namespace {

constexpr uint64_t kRootOffset = kErofsSuperOffset + sizeof(ErofsSuperBlock);
// A tail in the inode's block saves a block; a long one would leave a long gap before it.
constexpr uint64_t kInlineDirectoryMax = 2048;

}  // namespace

// Only what is still in the table of names: what was replaced is not.
void ErofsBuilder::Tree::SortChildren() {
  for (const uint32_t index : slots_) {
    if (index != kNone) {
      sorted_.push_back(index);
    }
  }
  slots_.shrink_to_fit();
  std::sort(sorted_.begin(), sorted_.end(), [this](uint32_t a, uint32_t b) {
    const Entry& left = entries_[a];
    const Entry& right = entries_[b];
    return left.parent != right.parent ? left.parent < right.parent : Name(left) < Name(right);
  });
  for (uint32_t at = 0; at < sorted_.size(); ++at) {
    Entry& parent = entries_[entries_[sorted_[at]].parent];
    if (parent.children_count++ == 0) {
      parent.children = at;
    }
  }
}

// Directories level by level, each one's entries together, as a listing wants their inodes.
void ErofsBuilder::Tree::VisitTree() {
  order_.push_back(0);
  entries_[0].in_image = true;
  entries_[0].nlink = 2;
  for (size_t next = 0; next < order_.size(); ++next) {
    const uint32_t directory = order_[next];
    if (!IsDir(entries_[directory])) {
      continue;
    }
    for (uint32_t at = 0; at < entries_[directory].children_count; ++at) {
      const uint32_t inode = resolved_[sorted_[entries_[directory].children + at]];
      Entry& entry = entries_[inode];
      entry.nlink += IsDir(entry) ? 2 : 1;
      entries_[directory].nlink += IsDir(entry) ? 1 : 0;
      if (!entry.in_image) {
        entry.in_image = true;
        order_.push_back(inode);
      }
    }
  }
}

uint64_t ErofsBuilder::Tree::DirectoryBytes(uint32_t directory) const {
  return DirectoryData(directory).size();
}

std::string ErofsBuilder::Tree::DirectoryData(uint32_t directory) const {
  const Entry& self = entries_[directory];
  std::vector<std::pair<std::string_view, uint32_t>> names;
  names.reserve(self.children_count + 2U);
  names.emplace_back(".", directory);
  names.emplace_back("..", self.parent == kNone ? directory : self.parent);
  for (uint32_t at = 0; at < self.children_count; ++at) {
    const uint32_t child = sorted_[self.children + at];
    names.emplace_back(Name(entries_[child]), resolved_[child]);
  }
  std::sort(names.begin(), names.end());  // some names sort before "."
  std::string data;
  for (size_t first = 0; first < names.size();) {
    size_t end = first;
    uint64_t bytes = 0;
    while (end < names.size() &&
           bytes + sizeof(ErofsDirent) + names[end].first.size() <= kErofsBlockBytes) {
      bytes += sizeof(ErofsDirent) + names[end].first.size();
      ++end;
    }
    data.resize(ErofsAlign(data.size(), kErofsBlockBytes));
    auto name_offset = static_cast<uint16_t>((end - first) * sizeof(ErofsDirent));
    for (size_t at = first; at < end; ++at) {
      const Entry& entry = entries_[names[at].second];
      const ErofsDirent dirent = {entry.offset / kErofsNidBytes, name_offset,
                                  ErofsFileType(entry.mode), 0};
      data += ErofsBytes(dirent);
      name_offset = static_cast<uint16_t>(name_offset + names[at].first.size());
    }
    for (size_t at = first; at < end; ++at) {
      data += names[at].first;
    }
    first = end;
  }
  return data;
}

uint64_t ErofsBuilder::Tree::InlineBytes(const Entry& entry) const {
  const uint64_t head = sizeof(ErofsDiskInode) +
                        (entry.xattr_bytes == 0 ? 0 : sizeof(ErofsXattrHeader) + entry.xattr_bytes);
  const bool may = S_ISLNK(entry.mode) || (IsDir(entry) && entry.size <= kInlineDirectoryMax);
  const uint64_t room =
      &entry == entries_.data() ? kErofsBlockBytes - kRootOffset : kErofsBlockBytes;
  return may && head + entry.size <= room ? head + entry.size : 0;
}

Status ErofsBuilder::Tree::AddOpaqueXattr(Entry& entry) {
  const std::string area(Text(entry.xattrs, entry.xattr_bytes));
  STRATA_ASSIGN_OR_RETURN(const std::string mark, EncodeXattrs("", {}, true));
  STRATA_ASSIGN_OR_RETURN(entry.xattrs, Intern(area + mark));
  entry.xattr_bytes = static_cast<uint32_t>(area.size() + mark.size());
  return OkStatus();
}

Status ErofsBuilder::Tree::PlaceInodes(ErofsLayout& layout) {
  uint64_t at = kRootOffset;
  for (const uint32_t index : order_) {
    Entry& entry = entries_[index];
    if (entry.opaque && IsDir(entry)) {
      STRATA_RETURN_IF_ERROR(AddOpaqueXattr(entry));
    }
    if (IsDir(entry)) {
      entry.size = DirectoryBytes(index);
    }
    layout.has_xattrs = layout.has_xattrs || entry.xattr_bytes != 0;
    const uint64_t inline_bytes = InlineBytes(entry);
    entry.is_inline = inline_bytes != 0;
    const uint64_t head =
        sizeof(ErofsDiskInode) +
        (entry.xattr_bytes == 0 ? 0 : sizeof(ErofsXattrHeader) + entry.xattr_bytes);
    // Neither an inode nor one with its tail crosses a block.
    const uint64_t together = entry.is_inline ? inline_bytes : sizeof(ErofsDiskInode);
    at = ErofsAlign(at, kErofsNidBytes);
    if (at / kErofsBlockBytes != (at + together - 1) / kErofsBlockBytes) {
      at = ErofsAlign(at, kErofsBlockBytes);
    }
    entry.offset = at;
    layout.nid[index] = at / kErofsNidBytes;
    at += entry.is_inline ? inline_bytes : head;
  }
  layout.metadata_bytes = ErofsAlign(at, kErofsBlockBytes);
  return OkStatus();
}

Status ErofsBuilder::Tree::PlaceData(ErofsLayout& layout) {
  uint64_t at = layout.metadata_bytes;
  const auto place = [&at](Entry& entry) {
    entry.rdev = static_cast<uint32_t>(at / kErofsBlockBytes);
    at += ErofsAlign(entry.size, kErofsBlockBytes);
    return at / kErofsBlockBytes <= std::numeric_limits<uint32_t>::max();
  };
  bool fits = true;
  for (const uint32_t index : order_) {
    Entry& entry = entries_[index];
    if (!entry.is_inline && (IsDir(entry) || S_ISLNK(entry.mode))) {
      fits = fits && place(entry);
    }
  }
  layout.metadata_bytes = at;
  for (uint32_t index = 0; index < entries_.size(); ++index) {
    Entry& entry = entries_[index];
    if (fits && entry.in_image && S_ISREG(entry.mode) && entry.size != 0) {
      layout.data_offset[index] = at;
      fits = place(entry);
    }
  }
  layout.image_bytes = at;
  return fits ? OkStatus()
              : MakeStatus(StatusCode::kResourceExhausted, "write image: more than 16 TiB");
}

std::string ErofsBuilder::Tree::Tail(uint32_t index) const {
  const Entry& entry = entries_[index];
  return IsDir(entry) ? DirectoryData(index) : std::string(Link(entry));
}

Status ErofsBuilder::Tree::WriteInode(const Entry& entry, uint32_t index,
                                      ImageOutput& output) const {
  ErofsDiskInode inode{};
  inode.format = entry.is_inline ? kErofsFormatInline : kErofsFormatPlain;
  inode.mode = entry.mode;
  inode.size = entry.size;
  inode.block_or_rdev = entry.rdev;
  inode.ino = index + 1;
  inode.uid = entry.uid;
  inode.gid = entry.gid;
  inode.mtime_s = entry.mtime_s;
  inode.mtime_ns = entry.mtime_ns;
  inode.nlink = entry.nlink;
  if (entry.xattr_bytes != 0) {
    inode.xattr_count = static_cast<uint16_t>(1 + entry.xattr_bytes / 4);
  }
  STRATA_RETURN_IF_ERROR(output.PadTo(entry.offset));
  STRATA_RETURN_IF_ERROR(output.Append(ErofsBytes(inode)));
  if (entry.xattr_bytes != 0) {
    STRATA_RETURN_IF_ERROR(output.Append(ErofsBytes(ErofsXattrHeader{})));
    STRATA_RETURN_IF_ERROR(output.Append(Text(entry.xattrs, entry.xattr_bytes)));
  }
  return entry.is_inline ? output.Append(Tail(index)) : OkStatus();
}

Status ErofsBuilder::Tree::WriteSuperBlock(int fd, const ErofsLayout& layout,
                                           const ImageOutput& output) const {
  std::array<uint8_t, kErofsBlockBytes> block{};
  if (::pread(fd, block.data(), block.size(), 0) != static_cast<ssize_t>(block.size())) {
    return ErrnoStatus(errno != 0 ? errno : EIO, "read image");
  }
  ErofsSuperBlock super{};
  super.magic = kErofsMagic;
  super.feature_compat = kErofsCompatChecksum | kErofsCompatMtime;
  super.block_bits = kErofsBlockBits;
  super.root_nid = static_cast<uint16_t>(kRootOffset / kErofsNidBytes);
  super.inodes = order_.size();
  super.blocks = static_cast<uint32_t>(layout.image_bytes / kErofsBlockBytes);
  super.uuid = options_.uuid;
  const auto sum = [&] {
    std::memcpy(block.data() + kErofsSuperOffset, &super, sizeof(super));
    return ~Crc32c(std::span(block).subspan(kErofsSuperOffset));
  };
  super.checksum = sum();
  return output.WriteAt(ErofsBytes(super), kErofsSuperOffset);
}

StatusOr<ErofsLayout> ErofsBuilder::Tree::Finish(int fd) {
  SortChildren();
  STRATA_RETURN_IF_ERROR(ResolveHardlinks());
  VisitTree();
  ErofsLayout layout;
  layout.data_offset.assign(entries_.size(), ErofsLayout::kNoData);
  layout.nid.assign(entries_.size(), 0);
  layout.inodes = order_.size();
  STRATA_RETURN_IF_ERROR(PlaceInodes(layout));
  STRATA_RETURN_IF_ERROR(PlaceData(layout));
  ImageOutput output(fd);
  for (const uint32_t index : order_) {
    STRATA_RETURN_IF_ERROR(WriteInode(entries_[index], index, output));
  }
  for (const uint32_t index : order_) {
    const Entry& entry = entries_[index];
    if (!entry.is_inline && (IsDir(entry) || S_ISLNK(entry.mode))) {
      STRATA_RETURN_IF_ERROR(output.PadTo(uint64_t{entry.rdev} * kErofsBlockBytes));
      STRATA_RETURN_IF_ERROR(output.Append(Tail(index)));
    }
  }
  STRATA_RETURN_IF_ERROR(output.PadTo(layout.metadata_bytes));
  STRATA_RETURN_IF_ERROR(output.Flush());
  STRATA_RETURN_IF_ERROR(WriteSuperBlock(fd, layout, output));
  if (::ftruncate(fd, static_cast<off_t>(layout.image_bytes)) != 0) {
    return ErrnoStatus(errno, "truncate image");
  }
  for (uint32_t index = 0; index < entries_.size(); ++index) {
    layout.nid[index] = layout.nid[resolved_[index]];
  }
  return layout;
}

ErofsBuilder::ErofsBuilder(std::unique_ptr<Tree> tree) : tree_(std::move(tree)) {}
ErofsBuilder::~ErofsBuilder() = default;

StatusOr<std::unique_ptr<ErofsBuilder>> ErofsBuilder::Create(const ErofsBuilderOptions& options) {
  if (options.max_entries == 0 || options.max_string_bytes >= uint64_t{1} << 32) {
    return MakeStatus(StatusCode::kInvalidArgument, "create image builder: bad limits");
  }
  return std::unique_ptr<ErofsBuilder>(new ErofsBuilder(std::make_unique<Tree>(options)));
}

StatusOr<uint32_t> ErofsBuilder::Add(std::string_view path, const ErofsNode& node,
                                     std::string_view link_target,
                                     std::span<const XattrView> xattrs) {
  return tree_->Add(path, node, link_target, xattrs);
}

StatusOr<uint32_t> ErofsBuilder::AddHardlink(std::string_view path, std::string_view target) {
  return tree_->AddHardlink(path, target);
}

StatusOr<ErofsLayout> ErofsBuilder::Finish(int fd) {
  if (tree_ == nullptr) {
    return MakeStatus(StatusCode::kFailedPrecondition, "write image: already written");
  }
  StatusOr<ErofsLayout> layout = tree_->Finish(fd);
  tree_.reset();
  return layout;
}

}  // namespace strata
