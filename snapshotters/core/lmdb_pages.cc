// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/core/lmdb_pages.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "snapshotters/core/lmdb_txn.h"

namespace strata::lmdb {
namespace {

// The layout of LMDB 0.9 on a 64-bit machine (mdb.c: MDB_page, MDB_node, MDB_meta, MDB_db). It is
// stable: files of all 0.9 versions are alike, and mdb_env_open has checked magic and version.
constexpr size_t kHeaderBytes = kLongValueOffset;
constexpr size_t kFlagsOffset = 10;
constexpr size_t kLowerOffset = 12;  // of an overflow page: the number of its pages, 32 bits
constexpr uint16_t kBranch = 0x01;
constexpr uint16_t kLeaf = 0x02;
constexpr uint16_t kOverflow = 0x04;
constexpr size_t kNodeBytes = 8;
constexpr uint16_t kBigData = 0x01;  // the value is in overflow pages
constexpr uint64_t kNoPage = UINT64_MAX;
constexpr size_t kMetaPages = 2;
constexpr size_t kFreeRootOffset = kHeaderBytes + 24 + 40;
constexpr size_t kMainRootOffset = kFreeRootOffset + 48;
constexpr size_t kTxnIdOffset = kHeaderBytes + 128;
// Deeper than any tree that fits the file (mdb.c: CURSOR_STACK).
constexpr int kMaxDepth = 32;

Status Damaged(uint64_t page, const std::string& why) {
  return MakeStatus(StatusCode::kDataLoss, "page " + std::to_string(page) + " " + why);
}

class PageWalk {
 public:
  // `bytes` of the file, which has `in_file` pages of `size` bytes; `count` are in use or free. A
  // free one behind the end of the file is sound: it was never written.
  PageWalk(const unsigned char* bytes, size_t size, uint64_t in_file, uint64_t count)
      : bytes_(bytes), size_(size), in_file_(in_file), used_(count) {}

  Status Run() {
    const size_t newer = Read<uint64_t>(0, kTxnIdOffset) < Read<uint64_t>(1, kTxnIdOffset) ? 1 : 0;
    STRATA_RETURN_IF_ERROR(Tree(Read<uint64_t>(newer, kFreeRootOffset), /*free_list=*/true, 0));
    STRATA_RETURN_IF_ERROR(Tree(Read<uint64_t>(newer, kMainRootOffset), /*free_list=*/false, 0));
    for (const uint64_t page : free_) {
      STRATA_RETURN_IF_ERROR(Take(page));
    }
    return OkStatus();
  }

 private:
  // The caller has checked `page`; an offset is always inside of it.
  template <typename T>
  [[nodiscard]] T Read(uint64_t page, size_t offset) const {
    T value{};
    if (offset + sizeof(T) <= size_) {
      std::memcpy(&value, bytes_ + page * size_ + offset, sizeof(T));
    }
    return value;
  }

  Status Take(uint64_t page) {
    if (page < kMetaPages || page >= used_.size()) {
      return Damaged(page, "is named, and the database has " + std::to_string(used_.size()));
    }
    if (used_[page]) {
      return Damaged(page, "is in use twice");
    }
    used_[page] = true;
    return OkStatus();
  }

  // A page that is read: it has to be there.
  Status TakeAndCheck(uint64_t page) {
    STRATA_RETURN_IF_ERROR(Take(page));
    if (page >= in_file_) {
      return Damaged(page, "is behind the end of the file");
    }
    const auto found = Read<uint64_t>(page, 0);
    return found == page ? OkStatus() : Damaged(page, "carries number " + std::to_string(found));
  }

  // Below `page`, which is in the tree of free pages or in ours.
  Status Tree(uint64_t page, bool free_list, int depth) {  // NOLINT(misc-no-recursion): bounded
    if (page == kNoPage) {
      return OkStatus();  // an empty tree
    }
    STRATA_RETURN_IF_ERROR(TakeAndCheck(page));
    const auto flags = Read<uint16_t>(page, kFlagsOffset) & (kBranch | kLeaf | kOverflow);
    const size_t lower = Read<uint16_t>(page, kLowerOffset);
    if ((flags != kBranch && flags != kLeaf) || lower < kHeaderBytes || lower > size_ ||
        depth > kMaxDepth) {
      return Damaged(page, "is no page of a tree");
    }
    for (size_t at = kHeaderBytes; at < lower; at += sizeof(uint16_t)) {
      const size_t node = Read<uint16_t>(page, at);
      if (node < lower || node + kNodeBytes > size_) {
        return Damaged(page, "has an entry outside of itself");
      }
      STRATA_RETURN_IF_ERROR(flags == kBranch ? Tree(ChildOf(page, node), free_list, depth + 1)
                                              : Value(page, node, free_list));
    }
    return OkStatus();
  }

  [[nodiscard]] uint64_t ChildOf(uint64_t page, size_t node) const {
    return Read<uint32_t>(page, node) | static_cast<uint64_t>(Read<uint16_t>(page, node + 4)) << 32;
  }

  Status Value(uint64_t page, size_t node, bool free_list) {
    const size_t length = Read<uint32_t>(page, node);
    const size_t data = node + kNodeBytes + Read<uint16_t>(page, node + 6);
    const bool big = (Read<uint16_t>(page, node + 4) & kBigData) != 0;
    if (data + (big ? sizeof(uint64_t) : length) > size_) {
      return Damaged(page, "has a value outside of itself");
    }
    if (!big) {
      return free_list ? FreeList(page, bytes_ + page * size_ + data, length) : OkStatus();
    }
    const auto first = Read<uint64_t>(page, data);
    STRATA_RETURN_IF_ERROR(TakeAndCheck(first));
    const uint64_t pages = Read<uint32_t>(first, kLowerOffset);
    if ((Read<uint16_t>(first, kFlagsOffset) & kOverflow) == 0 ||
        pages != (kHeaderBytes + length + size_ - 1) / size_ || first + pages > in_file_) {
      return Damaged(first, "does not hold the long value that it should");
    }
    for (uint64_t next = first + 1; next < first + pages; ++next) {
      STRATA_RETURN_IF_ERROR(Take(next));
    }
    return free_list ? FreeList(first, bytes_ + first * size_ + kHeaderBytes, length) : OkStatus();
  }

  // Its length, then as many numbers of pages.
  Status FreeList(uint64_t page, const unsigned char* data, size_t length) {
    std::vector<uint64_t> words(length / sizeof(uint64_t));
    std::memcpy(words.data(), data, words.size() * sizeof(uint64_t));
    if (words.empty() || words.front() > words.size() - 1) {
      return Damaged(page, "has an inconsistent list of free pages");
    }
    const auto begin = words.begin() + 1;
    free_.insert(free_.end(), begin, begin + static_cast<ptrdiff_t>(words.front()));
    return OkStatus();
  }

  const unsigned char* const bytes_;
  const size_t size_;
  const uint64_t in_file_;
  std::vector<bool> used_;
  std::vector<uint64_t> free_;
};

}  // namespace

Status CheckPages(MDB_env* env) {
  MDB_envinfo info{};
  MDB_stat stat{};
  mdb_filehandle_t fd = -1;
  struct stat file {};
  if (::mdb_env_info(env, &info) != 0 || ::mdb_env_stat(env, &stat) != 0 ||
      ::mdb_env_get_fd(env, &fd) != 0 || ::fstat(fd, &file) != 0) {
    return MakeStatus(StatusCode::kDataLoss, "it does not say what is in it");
  }
  if (sizeof(void*) != sizeof(uint64_t)) {
    return OkStatus();  // another layout
  }
  const auto length = static_cast<size_t>(file.st_size);
  const uint64_t in_file = length / stat.ms_psize;
  // A number of pages that is damaged must not decide how much memory the walk takes: pages of a
  // mutation that failed on a full disk may be missing, whole gigabytes are not.
  constexpr uint64_t kMostMissing = 1 << 20;
  const uint64_t count = info.me_last_pgno + 1;
  if (in_file < kMetaPages || count > in_file + kMostMissing) {
    return MakeStatus(StatusCode::kDataLoss, "it is shorter than its pages");
  }
  void* mapped = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) {
    return ErrnoStatus(errno, "map it");
  }
  Status status =
      PageWalk(static_cast<const unsigned char*>(mapped), stat.ms_psize, in_file, count).Run();
  (void)::munmap(mapped, length);  // nothing is left to lose
  return status;
}

uint64_t PageOfLongValue(std::string_view value) {
  uint64_t page = 0;
  std::memcpy(&page, value.data() - kHeaderBytes, sizeof(page));
  return page;
}

}  // namespace strata::lmdb
