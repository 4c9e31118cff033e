// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/extents.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/layer_versions.h"

namespace strata {
namespace {

static_assert(std::endian::native == std::endian::little, "the structures are the disk's bytes");

constexpr std::array<char, 8> kMagic = {'S', 'T', 'R', 'A', 'E', 'X', 'T', 'S'};
constexpr uint32_t kVersion = kExtentsVersion;
constexpr uint32_t kWordBits = 64;
constexpr mode_t kFileMode = 0600;

struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t checksum;  // of the whole file, with this field zero
  uint64_t generation;
  uint64_t image_bytes;
  uint32_t table_checksum;
  uint32_t chunks;
  uint32_t present;
  std::array<uint8_t, 20> reserved;
};
static_assert(sizeof(Header) == 64);

size_t WordsFor(uint32_t chunks) {
  return (uint64_t{chunks} + kWordBits - 1) / kWordBits;
}

uint64_t BitOf(uint32_t chunk) {
  return uint64_t{1} << (chunk % kWordBits);
}

Status Broken(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "read extents: " + std::string(why));
}

uint32_t Sum(std::string_view bytes) {
  return Crc32c({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

// The header of `file`, when everything that it says of the file itself holds.
StatusOr<Header> CheckFile(std::string file) {
  Header header{};
  if (file.size() < sizeof(header)) {
    return Broken("it ends too early");
  }
  std::memcpy(&header, file.data(), sizeof(header));
  if (header.magic != kMagic) {
    return Broken("these are none");
  }
  if (header.version != kVersion) {
    return Broken("version " + std::to_string(header.version) + " is not known, expected " +
                  std::to_string(kVersion));
  }
  std::memset(file.data() + offsetof(Header, checksum), 0, sizeof(header.checksum));
  if (Sum(file) != header.checksum) {
    return Broken("their checksum does not hold");
  }
  if (file.size() != sizeof(header) + WordsFor(header.chunks) * sizeof(uint64_t) ||
      header.reserved != decltype(header.reserved){}) {
    return Broken("a field of their header makes no sense");
  }
  return header;
}

}  // namespace

Extents::Extents(const Identity& identity)
    : identity_(identity),
      words_(std::make_unique<std::atomic<uint64_t>[]>(WordsFor(identity.chunks))) {}

Status Extents::Load(int directory_fd, const std::string& name) {
  const size_t words = WordsFor(chunks());
  const size_t limit = sizeof(Header) + words * sizeof(uint64_t);
  StatusOr<std::string> file = ReadFileAt(directory_fd, name, limit);
  if (!file.ok()) {
    const StatusCode code = file.status().code();
    return code == StatusCode::kNotFound ? file.status() : Broken(StatusMessage(file.status()));
  }
  STRATA_ASSIGN_OR_RETURN(const Header header, CheckFile(*file));
  if (header.chunks != chunks() || header.image_bytes != identity_.image_bytes ||
      header.table_checksum != identity_.table_checksum) {
    return Broken("they speak of another image");
  }
  std::vector<uint64_t> bits(words);
  if (words > 0) {
    std::memcpy(bits.data(), file->data() + sizeof(header), words * sizeof(uint64_t));
  }
  uint32_t count = 0;
  for (const uint64_t word : bits) {
    count += static_cast<uint32_t>(std::popcount(word));
  }
  const uint64_t beyond = chunks() % kWordBits == 0 ? 0 : ~(BitOf(chunks()) - 1);
  if (count != header.present || (words > 0 && (bits.back() & beyond) != 0)) {
    return Broken("their bits do not add up");
  }
  for (size_t word = 0; word < words; ++word) {
    words_[word].store(bits[word], std::memory_order_relaxed);
  }
  generation_ = header.generation;
  persisted_.store(count, std::memory_order_release);
  present_.store(count, std::memory_order_release);
  return OkStatus();
}

void Extents::SetHole(uint32_t chunk) {
  if (Set(chunk)) {
    persisted_.fetch_add(1, std::memory_order_acq_rel);
  }
}

bool Extents::Has(uint32_t chunk) const {
  return chunk < chunks() &&
         (words_[chunk / kWordBits].load(std::memory_order_acquire) & BitOf(chunk)) != 0;
}

bool Extents::Set(uint32_t chunk) {
  if (chunk >= chunks()) {
    return false;
  }
  const uint64_t before =
      words_[chunk / kWordBits].fetch_or(BitOf(chunk), std::memory_order_acq_rel);
  if ((before & BitOf(chunk)) != 0) {
    return false;
  }
  present_.fetch_add(1, std::memory_order_acq_rel);
  return true;
}

uint32_t Extents::FirstAbsent(uint32_t first, uint32_t end) const {
  end = std::min(end, chunks());
  while (first < end) {
    const uint64_t absent =
        ~words_[first / kWordBits].load(std::memory_order_acquire) & ~(BitOf(first) - 1);
    const uint32_t word_begin = first - first % kWordBits;
    if (absent != 0) {
      return std::min(end, word_begin + static_cast<uint32_t>(std::countr_zero(absent)));
    }
    if (end - word_begin <= kWordBits) {
      break;
    }
    first = word_begin + kWordBits;
  }
  return end;
}

bool Extents::dirty() const {
  return present() != persisted_.load(std::memory_order_acquire);
}

Status Extents::Persist(int image_fd, int directory_fd, const std::string& name) {
  STRATA_RETURN_IF_ERROR(sync_failure_);
  // What is set from here on may miss the sync, so it is not in the file.
  const size_t words = WordsFor(chunks());
  std::vector<uint64_t> bits(words);
  uint32_t count = 0;
  for (size_t word = 0; word < words; ++word) {
    bits[word] = words_[word].load(std::memory_order_acquire);
    count += static_cast<uint32_t>(std::popcount(bits[word]));
  }
  STRATA_FAULT_POINT("layer.persist.snapshot");
  if (::fdatasync(image_fd) != 0) {
    // fsync(2): the kernel may have dropped the pages that it could not write, and will call the
    // next sync a success.
    sync_failure_ = ErrnoStatus(errno, "sync image");
    return sync_failure_;
  }
  STRATA_FAULT_POINT("layer.persist.synced");
  Header header{};
  header.magic = kMagic;
  header.version = kVersion;
  header.generation = generation_ + 1;
  header.image_bytes = identity_.image_bytes;
  header.table_checksum = identity_.table_checksum;
  header.chunks = chunks();
  header.present = count;
  std::string file(sizeof(header) + words * sizeof(uint64_t), '\0');
  std::memcpy(file.data(), &header, sizeof(header));
  if (words > 0) {
    std::memcpy(file.data() + sizeof(header), bits.data(), words * sizeof(uint64_t));
  }
  header.checksum = Sum(file);
  std::memcpy(file.data(), &header, sizeof(header));
  STRATA_RETURN_IF_ERROR(WriteFileAtomicAt(directory_fd, name, file, kFileMode));
  generation_ = header.generation;
  persisted_.store(count, std::memory_order_release);
  STRATA_FAULT_POINT("layer.persist.written");
  return OkStatus();
}

}  // namespace strata
