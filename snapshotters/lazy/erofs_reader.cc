// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "snapshotters/lazy/crc32c.h"

namespace strata {
namespace {

constexpr uint64_t kCursorBits = 12;  // a block has at most 341 entries

Status Corrupt(std::string_view what) {
  return MakeStatus(StatusCode::kDataLoss, "read image: bad " + std::string(what));
}

template <typename T>
T Load(std::span<const uint8_t> bytes, uint64_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

std::string_view Text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

// One block of dirents.
class ErofsReader::Block {
 public:
  static StatusOr<Block> At(Bytes directory, uint64_t number) {
    const uint64_t begin = number * kErofsBlockBytes;
    const Bytes bytes =
        directory.subspan(begin, std::min(kErofsBlockBytes, directory.size() - begin));
    if (bytes.size() < sizeof(ErofsDirent)) {
      return Corrupt("directory block");
    }
    const uint64_t names = Load<ErofsDirent>(bytes, 0).name_offset;
    if (names == 0 || names % sizeof(ErofsDirent) != 0 || names > bytes.size()) {
      return Corrupt("directory block");
    }
    return Block(bytes, names / sizeof(ErofsDirent));
  }

  [[nodiscard]] uint64_t count() const { return count_; }

  [[nodiscard]] StatusOr<ErofsDirectoryEntry> Entry(uint64_t index) const {
    const auto dirent = Load<ErofsDirent>(bytes_, index * sizeof(ErofsDirent));
    const uint64_t begin = dirent.name_offset;
    const bool last = index + 1 == count_;
    const uint64_t end =
        last ? bytes_.size()
             : Load<ErofsDirent>(bytes_, (index + 1) * sizeof(ErofsDirent)).name_offset;
    if (begin < count_ * sizeof(ErofsDirent) || begin >= end || end > bytes_.size()) {
      return Corrupt("directory entry");
    }
    std::string_view name = Text(bytes_.subspan(begin, end - begin));
    if (last) {
      name = name.substr(0, name.find('\0'));
    }
    if (name.empty() || name.size() > kErofsNameMax || name.find('\0') != name.npos ||
        name.find('/') != name.npos) {
      return Corrupt("name");
    }
    return ErofsDirectoryEntry{name, dirent.nid, dirent.type};
  }

 private:
  Block(Bytes bytes, uint64_t count) : bytes_(bytes), count_(count) {}
  Bytes bytes_;
  uint64_t count_;
};

StatusOr<ErofsReader> ErofsReader::Open(std::span<const uint8_t> metadata) {
  if (metadata.size() < kErofsBlockBytes) {
    return Corrupt("length");
  }
  const auto super = Load<ErofsSuperBlock>(metadata, kErofsSuperOffset);
  if (super.magic != kErofsMagic || super.block_bits != kErofsBlockBits ||
      super.feature_incompat != 0 || super.meta_block != 0 || super.extra_devices != 0 ||
      (super.feature_compat & kErofsCompatChecksum) == 0) {
    return Corrupt("superblock");
  }
  constexpr uint64_t kChecksum = kErofsSuperOffset + offsetof(ErofsSuperBlock, checksum);
  constexpr std::array<uint8_t, 4> kZeros{};
  uint32_t sum = Crc32c(metadata.subspan(kErofsSuperOffset, kChecksum - kErofsSuperOffset));
  sum = Crc32c(kZeros, sum);
  sum = Crc32c(metadata.subspan(kChecksum + 4, kErofsBlockBytes - kChecksum - 4), sum);
  if (super.checksum != ~sum) {
    return Corrupt("superblock checksum");
  }
  ErofsReader reader(metadata);
  reader.root_ = super.root_nid;
  reader.inodes_ = super.inodes;
  reader.image_bytes_ = uint64_t{super.blocks} * kErofsBlockBytes;
  STRATA_ASSIGN_OR_RETURN(const Inode root, reader.ReadInode(reader.root_));
  return S_ISDIR(root.disk.mode) ? StatusOr<ErofsReader>(reader) : Corrupt("root");
}

StatusOr<ErofsReader::Inode> ErofsReader::ReadInode(uint64_t nid) const {
  if (nid >= metadata_.size() / kErofsNidBytes) {
    return Corrupt("inode number");
  }
  const uint64_t offset = nid * kErofsNidBytes;
  if (metadata_.size() - offset < sizeof(ErofsDiskInode)) {
    return Corrupt("inode number");
  }
  const Inode inode = {Load<ErofsDiskInode>(metadata_, offset), offset};
  if ((inode.disk.format != kErofsFormatPlain && inode.disk.format != kErofsFormatInline) ||
      ErofsFileType(inode.disk.mode) == 0 || inode.disk.mtime_ns >= 1'000'000'000 ||
      inode.disk.size > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return Corrupt("inode");
  }
  return inode;
}

StatusOr<ErofsReader::Bytes> ErofsReader::DataOf(const Inode& inode) const {
  uint64_t begin = uint64_t{inode.disk.block_or_rdev} * kErofsBlockBytes;
  if (inode.disk.format == kErofsFormatInline) {
    const uint64_t xattrs =
        inode.disk.xattr_count == 0
            ? 0
            : sizeof(ErofsXattrHeader) + 4 * (uint64_t{inode.disk.xattr_count} - 1);
    begin = inode.offset + sizeof(ErofsDiskInode) + xattrs;
    if (inode.disk.size > kErofsBlockBytes) {
      return Corrupt("inline data");
    }
  }
  if (begin > metadata_.size() || inode.disk.size > metadata_.size() - begin) {
    return Corrupt("data position");
  }
  return metadata_.subspan(begin, inode.disk.size);
}

StatusOr<ErofsStat> ErofsReader::Stat(uint64_t nid) const {
  STRATA_ASSIGN_OR_RETURN(const Inode inode, ReadInode(nid));
  const ErofsDiskInode& disk = inode.disk;
  const bool device = S_ISCHR(disk.mode) || S_ISBLK(disk.mode);
  return ErofsStat{.mode = disk.mode,
                   .uid = disk.uid,
                   .gid = disk.gid,
                   .nlink = disk.nlink,
                   .rdev = device ? disk.block_or_rdev : 0,
                   .mtime_ns = disk.mtime_ns,
                   .mtime_s = disk.mtime_s,
                   .size = disk.size};
}

StatusOr<ErofsReader::Bytes> ErofsReader::DirectoryData(uint64_t nid) const {
  STRATA_ASSIGN_OR_RETURN(const Inode inode, ReadInode(nid));
  if (!S_ISDIR(inode.disk.mode)) {
    return MakeStatus(StatusCode::kFailedPrecondition, "read directory: it is none");
  }
  return DataOf(inode);
}

StatusOr<std::optional<ErofsDirectoryEntry>> ErofsReader::Lookup(uint64_t directory,
                                                                 std::string_view name) const {
  STRATA_ASSIGN_OR_RETURN(const Bytes data, DirectoryData(directory));
  // The last block whose first name is not behind `name`.
  uint64_t low = 0;
  uint64_t high = ErofsAlign(data.size(), kErofsBlockBytes) / kErofsBlockBytes;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    STRATA_ASSIGN_OR_RETURN(const Block block, Block::At(data, middle));
    STRATA_ASSIGN_OR_RETURN(const ErofsDirectoryEntry first, block.Entry(0));
    if (first.name <= name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) {
    return std::optional<ErofsDirectoryEntry>();
  }
  STRATA_ASSIGN_OR_RETURN(const Block block, Block::At(data, low - 1));
  low = 0;
  high = block.count();
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    STRATA_ASSIGN_OR_RETURN(const ErofsDirectoryEntry entry, block.Entry(middle));
    if (entry.name == name) {
      return std::optional<ErofsDirectoryEntry>(entry);
    }
    if (entry.name < name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return std::optional<ErofsDirectoryEntry>();
}

Status ErofsReader::ReadDir(uint64_t directory, uint64_t cursor,
                            const DirectoryVisitor& visit) const {
  STRATA_ASSIGN_OR_RETURN(const Bytes data, DirectoryData(directory));
  const uint64_t blocks = ErofsAlign(data.size(), kErofsBlockBytes) / kErofsBlockBytes;
  uint64_t index = cursor & ((uint64_t{1} << kCursorBits) - 1);
  for (uint64_t number = cursor >> kCursorBits; number < blocks; ++number, index = 0) {
    STRATA_ASSIGN_OR_RETURN(const Block block, Block::At(data, number));
    for (; index < block.count(); ++index) {
      STRATA_ASSIGN_OR_RETURN(const ErofsDirectoryEntry entry, block.Entry(index));
      if (!visit(entry, (number << kCursorBits) + index + 1)) {
        return OkStatus();
      }
    }
  }
  return OkStatus();
}

StatusOr<std::string_view> ErofsReader::ReadLink(uint64_t nid) const {
  STRATA_ASSIGN_OR_RETURN(const Inode inode, ReadInode(nid));
  if (!S_ISLNK(inode.disk.mode)) {
    return MakeStatus(StatusCode::kFailedPrecondition, "read link: it is none");
  }
  STRATA_ASSIGN_OR_RETURN(const Bytes data, DataOf(inode));
  const std::string_view target = Text(data);
  if (target.empty() || target.size() > kErofsSymlinkMax || target.find('\0') != target.npos) {
    return Corrupt("link target");
  }
  return target;
}

StatusOr<ErofsReader::Bytes> ErofsReader::XattrArea(uint64_t nid) const {
  STRATA_ASSIGN_OR_RETURN(const Inode inode, ReadInode(nid));
  if (inode.disk.xattr_count == 0) {
    return Bytes();
  }
  const uint64_t bytes = 4 * (uint64_t{inode.disk.xattr_count} - 1);
  const uint64_t begin = inode.offset + sizeof(ErofsDiskInode) + sizeof(ErofsXattrHeader);
  // The builder shares no xattrs: the words behind the header are the inode's own.
  if (begin > metadata_.size() || bytes > metadata_.size() - begin ||
      Load<ErofsXattrHeader>(metadata_, begin - sizeof(ErofsXattrHeader)).shared_count != 0) {
    return Corrupt("xattr area");
  }
  return metadata_.subspan(begin, bytes);
}

StatusOr<ErofsReader::XattrItem> ErofsReader::NextXattr(Bytes& area) {
  const auto entry = Load<ErofsXattrEntry>(area, 0);  // the area is a multiple of 4 bytes
  const uint64_t bytes = sizeof(entry) + entry.name_bytes + uint64_t{entry.value_bytes};
  const auto* prefix =
      std::find_if(kErofsXattrPrefixes.begin(), kErofsXattrPrefixes.end(),
                   [&](const auto& known) { return known.index == entry.name_index; });
  if (ErofsAlign(bytes, sizeof(entry)) > area.size() || prefix == kErofsXattrPrefixes.end()) {
    return Corrupt("xattr");
  }
  const std::string_view text = Text(area.first(bytes)).substr(sizeof(entry));
  area = area.subspan(ErofsAlign(bytes, sizeof(entry)));
  return XattrItem{prefix, text.substr(0, entry.name_bytes), text.substr(entry.name_bytes)};
}

StatusOr<std::optional<std::string_view>> ErofsReader::GetXattr(uint64_t nid,
                                                                std::string_view name) const {
  STRATA_ASSIGN_OR_RETURN(Bytes area, XattrArea(nid));
  while (!area.empty()) {
    STRATA_ASSIGN_OR_RETURN(const XattrItem item, NextXattr(area));
    if (name.starts_with(item.prefix->text) && name.substr(item.prefix->text.size()) == item.rest) {
      return std::optional<std::string_view>(item.value);
    }
  }
  return std::optional<std::string_view>();
}

Status ErofsReader::ListXattr(uint64_t nid, const XattrVisitor& visit) const {
  STRATA_ASSIGN_OR_RETURN(Bytes area, XattrArea(nid));
  while (!area.empty()) {
    STRATA_ASSIGN_OR_RETURN(const XattrItem item, NextXattr(area));
    visit(item.prefix->text, item.rest);
  }
  return OkStatus();
}

StatusOr<uint64_t> ErofsReader::DataOffset(uint64_t nid) const {
  STRATA_ASSIGN_OR_RETURN(const Inode inode, ReadInode(nid));
  if (!S_ISREG(inode.disk.mode)) {
    return MakeStatus(StatusCode::kFailedPrecondition, "read file: it is none");
  }
  if (inode.disk.size == 0) {
    return 0;
  }
  const uint64_t begin = uint64_t{inode.disk.block_or_rdev} * kErofsBlockBytes;
  if (inode.disk.format != kErofsFormatPlain || begin < kErofsBlockBytes || begin > image_bytes_ ||
      inode.disk.size > image_bytes_ - begin) {
    return Corrupt("data position");
  }
  return begin;
}

}  // namespace strata
