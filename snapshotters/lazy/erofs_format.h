// SPDX-License-Identifier: Apache-2.0
//
// The part of the EROFS on-disk format that our images use: what Linux 5.16 reads (the kernel's
// Documentation/filesystems/erofs.rst), 4 KiB blocks, extended inodes. Plain data, no threads.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace strata {

static_assert(std::endian::native == std::endian::little, "the structures are the disk's bytes");

inline constexpr uint32_t kErofsMagic = 0xe0f5e1e2;
inline constexpr uint64_t kErofsSuperOffset = 1024;
inline constexpr uint8_t kErofsBlockBits = 12;
inline constexpr uint64_t kErofsBlockBytes = uint64_t{1} << kErofsBlockBits;
inline constexpr uint64_t kErofsNidBytes = 32;
inline constexpr uint32_t kErofsCompatChecksum = 0x1;
inline constexpr uint32_t kErofsCompatMtime = 0x2;
inline constexpr size_t kErofsNameMax = 255;
inline constexpr size_t kErofsSymlinkMax = 4095;  // PATH_MAX less the terminating NUL

struct ErofsSuperBlock {
  uint32_t magic;
  uint32_t checksum;  // of the block's bytes from this structure on, with this field zero
  uint32_t feature_compat;
  uint8_t block_bits;
  uint8_t extension_slots;
  uint16_t root_nid;
  uint64_t inodes;
  uint64_t build_time;
  uint32_t build_time_ns;
  uint32_t blocks;
  uint32_t meta_block;
  uint32_t xattr_block;
  std::array<uint8_t, 16> uuid;
  std::array<uint8_t, 16> volume_name;
  uint32_t feature_incompat;
  uint16_t compression;
  uint16_t extra_devices;
  uint16_t device_table;
  std::array<uint8_t, 38> reserved;
};
static_assert(sizeof(ErofsSuperBlock) == 128);

// i_format: bit 0 is the inode's size (1: 64 bytes), bits 1 to 3 where its data lies.
inline constexpr uint16_t kErofsFormatPlain = 0x1 | (0 << 1);
inline constexpr uint16_t kErofsFormatInline = 0x1 | (2 << 1);

struct ErofsDiskInode {
  uint16_t format;
  uint16_t xattr_count;  // 0, or 1 + words of 4 bytes behind the 12 bytes of ErofsXattrHeader
  uint16_t mode;
  uint16_t reserved;
  uint64_t size;
  uint32_t block_or_rdev;
  uint32_t ino;
  uint32_t uid;
  uint32_t gid;
  int64_t mtime_s;
  uint32_t mtime_ns;
  uint32_t nlink;
  std::array<uint8_t, 16> reserved2;
};
static_assert(sizeof(ErofsDiskInode) == 64);

struct ErofsXattrHeader {
  uint32_t name_filter;
  uint8_t shared_count;
  std::array<uint8_t, 7> reserved;
};
static_assert(sizeof(ErofsXattrHeader) == 12);

// Name without its prefix and value follow; the next entry is 4-byte aligned.
struct ErofsXattrEntry {
  uint8_t name_bytes;
  uint8_t name_index;
  uint16_t value_bytes;
};
static_assert(sizeof(ErofsXattrEntry) == 4);

inline constexpr uint64_t kErofsXattrAreaMax = 12 + 4 * uint64_t{65534};

struct __attribute__((packed)) ErofsDirent {
  uint64_t nid;
  uint16_t name_offset;  // in the block; the first one's tells how many entries the block has
  uint8_t type;          // ErofsFileType
  uint8_t reserved;
};
static_assert(sizeof(ErofsDirent) == 12);

struct ErofsXattrPrefix {
  uint8_t index;
  bool whole_name;  // the prefix is all of the name
  std::string_view text;
};

inline constexpr std::array<ErofsXattrPrefix, 5> kErofsXattrPrefixes = {{
    {1, false, "user."},
    {2, true, "system.posix_acl_access"},
    {3, true, "system.posix_acl_default"},
    {4, false, "trusted."},
    {6, false, "security."},
}};

// FT_* of the kernel for st_mode's type bits; 0 for none of them.
constexpr uint8_t ErofsFileType(uint32_t mode) {
  switch (mode & 0170000U) {
    case 0100000:
      return 1;
    case 0040000:
      return 2;
    case 0020000:
      return 3;
    case 0060000:
      return 4;
    case 0010000:
      return 5;
    case 0140000:
      return 6;
    case 0120000:
      return 7;
    default:
      return 0;
  }
}

// A device number as EROFS keeps it: the kernel's new_encode_dev (12 bits and 20 bits).
constexpr uint32_t ErofsEncodeDevice(uint32_t major, uint32_t minor) {
  return (minor & 0xffU) | (major << 8) | ((minor & ~0xffU) << 12);
}

constexpr uint64_t ErofsAlign(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// The bytes of one of the above, as they lie on disk.
template <typename T>
std::string_view ErofsBytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

}  // namespace strata
