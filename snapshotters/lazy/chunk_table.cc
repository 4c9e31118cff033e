// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/chunk_table.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/file_checksum.h"
#include "snapshotters/lazy/image_output.h"
#include "snapshotters/lazy/layer_versions.h"

namespace strata {
namespace {

static_assert(std::endian::native == std::endian::little, "the structures are the disk's bytes");

constexpr std::array<char, 8> kMagic = {'S', 'T', 'R', 'A', 'C', 'H', 'N', 'K'};
constexpr uint32_t kVersion = kChunkTableVersion;
constexpr uint32_t kFlagXattrs = 0x1;
constexpr uint32_t kFlagDigest = 0x1;

struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t checksum;  // of the whole file, with this field zero
  uint32_t spans;
  uint32_t chunks;
  uint32_t fetched_chunks;
  uint32_t flags;
  uint64_t image_bytes;
  uint64_t data_bytes;
  uint64_t fetched_bytes;
  uint64_t metadata_bytes;
  uint32_t metadata_checksum;
  std::array<uint8_t, 60> reserved;
};
static_assert(sizeof(Header) == 128);

struct DiskSpan {
  uint64_t blob_offset;
  uint64_t blob_bytes;
  uint64_t decoded_bytes;
  uint32_t first;  // of its chunks in the groups; they end where the next span's begin
  uint8_t codec;
  std::array<uint8_t, 3> reserved;
};
static_assert(sizeof(DiskSpan) == 32);

struct DiskChunk {
  uint64_t image_offset;
  uint64_t bytes;
  uint64_t inner_offset;
  uint32_t span;
  uint32_t flags;
  Sha256Digest digest;
};
static_assert(sizeof(DiskChunk) == 64);

constexpr uint64_t kChunksPerSign = 8;  // or more
constexpr unsigned kLeastStretchBits = 12;

constexpr uint64_t kSpansAt = sizeof(Header);

uint64_t ChunksAt(uint32_t spans) {
  return kSpansAt + uint64_t{spans} * sizeof(DiskSpan);
}
uint64_t GroupsAt(uint32_t spans, uint32_t chunks) {
  return ChunksAt(spans) + uint64_t{chunks} * sizeof(DiskChunk);
}
uint64_t TableBytes(const Header& header) {
  return GroupsAt(header.spans, header.chunks) + uint64_t{header.fetched_chunks} * sizeof(uint32_t);
}

template <typename T>
T Load(const uint8_t* mapping, uint64_t offset) {
  T value{};
  std::memcpy(&value, mapping + offset, sizeof(value));
  return value;
}

template <typename T>
std::string_view AsBytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

std::span<const uint8_t> ToSpan(std::string_view bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

Status Broken(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, "read chunk table: " + std::string(why));
}

Status Refused(std::string_view why) {
  return MakeStatus(StatusCode::kInvalidArgument, "write chunk table: " + std::string(why));
}

// [offset, offset + bytes) lies before `end`.
bool Fits(uint64_t offset, uint64_t bytes, uint64_t end) {
  return offset <= end && bytes <= end - offset;
}

// Gathers what goes into a table, then writes it.
class TableWriter {
 public:
  TableWriter(const ChunkMap& map, std::span<const uint64_t> data_offset, uint64_t image_bytes,
              const ImageFacts& facts)
      : map_(map), data_offset_(data_offset), image_bytes_(image_bytes), facts_(facts) {}

  Status Write(int fd) {
    STRATA_RETURN_IF_ERROR(SelectChunks());
    STRATA_RETURN_IF_ERROR(CheckChunks());
    STRATA_RETURN_IF_ERROR(GroupBySpan());
    return WriteAll(fd);
  }

 private:
  [[nodiscard]] const ChunkRecord& Record(uint32_t index) const {
    return map_.chunks[chosen_[index]];
  }
  [[nodiscard]] uint64_t ImageOffset(uint32_t record) const {
    const ChunkRecord& chunk = map_.chunks[record];
    return data_offset_[chunk.file_index] + chunk.file_offset;
  }

  // Those of files that have data in the image, in its order.
  Status SelectChunks() {
    if (map_.chunks.size() >= kZerosSpan || map_.spans.size() >= kZerosSpan) {
      return MakeStatus(StatusCode::kResourceExhausted, "write chunk table: too many chunks");
    }
    for (uint32_t record = 0; record < map_.chunks.size(); ++record) {
      const ChunkRecord& chunk = map_.chunks[record];
      if (chunk.file_index >= data_offset_.size()) {
        return Refused("a chunk of a file that is not known");
      }
      const uint64_t begin = data_offset_[chunk.file_index];
      if (begin == std::numeric_limits<uint64_t>::max()) {
        continue;
      }
      if (chunk.file_offset > std::numeric_limits<uint64_t>::max() - begin) {
        return Refused("a chunk leaves the image");
      }
      chosen_.push_back(record);
    }
    const auto before = [this](uint32_t a, uint32_t b) { return ImageOffset(a) < ImageOffset(b); };
    if (!std::is_sorted(chosen_.begin(), chosen_.end(), before)) {
      std::sort(chosen_.begin(), chosen_.end(), before);
    }
    return OkStatus();
  }

  Status CheckChunks() {
    uint64_t end = facts_.metadata_bytes;
    for (const uint32_t record : chosen_) {
      const ChunkRecord& chunk = map_.chunks[record];
      const uint64_t begin = ImageOffset(record);
      if (chunk.bytes == 0 || begin < end || !Fits(begin, chunk.bytes, image_bytes_)) {
        return Refused("a chunk at " + std::to_string(begin) + " overlaps or leaves the data");
      }
      end = begin + chunk.bytes;
      data_bytes_ += chunk.bytes;
      if (chunk.span == kZerosSpan) {
        continue;
      }
      if (chunk.span >= map_.spans.size() ||
          !Fits(chunk.inner_offset, chunk.bytes, map_.spans[chunk.span].decoded_bytes)) {
        return Refused("a chunk at " + std::to_string(begin) + " leaves its span");
      }
      fetched_bytes_ += chunk.bytes;
    }
    return OkStatus();
  }

  Status GroupBySpan() {
    for (uint32_t index = 0; index < chosen_.size(); ++index) {
      if (Record(index).span != kZerosSpan) {
        groups_.push_back(index);
      }
    }
    const auto key = [this](uint32_t index) {
      const ChunkRecord& chunk = Record(index);
      return std::make_tuple(chunk.span, chunk.inner_offset, index);
    };
    const auto before = [&key](uint32_t a, uint32_t b) { return key(a) < key(b); };
    if (!std::is_sorted(groups_.begin(), groups_.end(), before)) {
      std::sort(groups_.begin(), groups_.end(), before);
    }
    uint64_t blob_end = 0;
    for (uint32_t at = 0; at < groups_.size(); ++at) {
      const uint32_t old = Record(groups_[at]).span;
      if (at > 0 && old == Record(groups_[at - 1]).span) {
        continue;
      }
      const SpanRecord& span = map_.spans[old];
      if (span.blob_bytes == 0 || span.blob_offset < blob_end ||
          span.blob_bytes > std::numeric_limits<uint64_t>::max() - span.blob_offset) {
        return Refused("a span at " + std::to_string(span.blob_offset) + " overlaps or is empty");
      }
      blob_end = span.blob_offset + span.blob_bytes;
      span_numbers_.push_back(old);
      spans_.push_back({.blob_offset = span.blob_offset,
                        .blob_bytes = span.blob_bytes,
                        .decoded_bytes = span.decoded_bytes,
                        .first = at,
                        .codec = static_cast<uint8_t>(span.codec),
                        .reserved = {}});
    }
    return OkStatus();
  }

  // The number that span `old` of the map has in the table.
  [[nodiscard]] uint32_t NumberOf(uint32_t old) const {
    return static_cast<uint32_t>(std::lower_bound(span_numbers_.begin(), span_numbers_.end(), old) -
                                 span_numbers_.begin());
  }

  [[nodiscard]] DiskChunk ToDisk(uint32_t record) const {
    const ChunkRecord& chunk = map_.chunks[record];
    DiskChunk disk{};
    disk.image_offset = ImageOffset(record);
    disk.bytes = chunk.bytes;
    disk.span = kZerosSpan;
    if (chunk.span != kZerosSpan) {
      disk.span = NumberOf(chunk.span);
      disk.inner_offset = chunk.inner_offset;
      if (chunk.has_digest) {
        disk.flags = kFlagDigest;
        disk.digest = chunk.digest;
      }
    }
    return disk;
  }

  [[nodiscard]] Status WriteAll(int fd) const {
    Header header{};
    header.magic = kMagic;
    header.version = kVersion;
    header.spans = static_cast<uint32_t>(spans_.size());
    header.chunks = static_cast<uint32_t>(chosen_.size());
    header.fetched_chunks = static_cast<uint32_t>(groups_.size());
    header.flags = facts_.has_xattrs ? kFlagXattrs : 0;
    header.image_bytes = image_bytes_;
    header.data_bytes = data_bytes_;
    header.fetched_bytes = fetched_bytes_;
    header.metadata_bytes = facts_.metadata_bytes;
    header.metadata_checksum = facts_.metadata_checksum;
    ImageOutput output(fd);
    uint32_t sum = 0;
    const auto append = [&output, &sum](std::string_view bytes) {
      sum = Crc32c(ToSpan(bytes), sum);
      return output.Append(bytes);
    };
    STRATA_RETURN_IF_ERROR(append(AsBytes(header)));
    for (const DiskSpan& span : spans_) {
      STRATA_RETURN_IF_ERROR(append(AsBytes(span)));
    }
    for (const uint32_t record : chosen_) {
      STRATA_RETURN_IF_ERROR(append(AsBytes(ToDisk(record))));
    }
    for (const uint32_t index : groups_) {
      STRATA_RETURN_IF_ERROR(append(AsBytes(index)));
    }
    STRATA_RETURN_IF_ERROR(output.Flush());
    header.checksum = sum;
    return output.WriteAt(AsBytes(header), 0);
  }

  const ChunkMap& map_;
  const std::span<const uint64_t> data_offset_;
  const uint64_t image_bytes_;
  const ImageFacts& facts_;
  std::vector<uint32_t> chosen_;  // index in the table -> in the map
  std::vector<uint32_t> groups_;
  std::vector<uint32_t> span_numbers_;  // the same for spans
  std::vector<DiskSpan> spans_;
  uint64_t data_bytes_ = 0;
  uint64_t fetched_bytes_ = 0;
};

// Header and length hold, and so does the checksum. Read rather than mapped: what the disk cannot
// give is then an error and no SIGBUS.
StatusOr<Header> CheckFile(int fd, uint64_t file_bytes) {
  if (file_bytes < sizeof(Header)) {
    return Broken("it ends too early");
  }
  std::array<uint8_t, sizeof(Header)> bytes{};
  STRATA_RETURN_IF_ERROR(ReadExactlyAt(fd, 0, bytes));
  auto header = Load<Header>(bytes.data(), 0);
  if (header.magic != kMagic) {
    return Broken("this is none");
  }
  if (header.version != kVersion) {
    return Broken("version " + std::to_string(header.version) + " is not known, expected " +
                  std::to_string(kVersion));
  }
  if (file_bytes != TableBytes(header)) {
    return Broken(std::to_string(file_bytes) + " bytes long, expected " +
                  std::to_string(TableBytes(header)));
  }
  const uint32_t expected = std::exchange(header.checksum, 0);
  STRATA_ASSIGN_OR_RETURN(
      const uint32_t sum,
      ChecksumOf(fd, sizeof(Header), file_bytes - sizeof(Header), Crc32c(ToSpan(AsBytes(header)))));
  if (sum != expected) {
    return Broken("its checksum does not hold");
  }
  header.checksum = expected;
  return header;
}

}  // namespace

Status ChunkTable::Write(int fd, const ChunkMap& map, std::span<const uint64_t> data_offset,
                         uint64_t image_bytes, const ImageFacts& facts) {
  return TableWriter(map, data_offset, image_bytes, facts).Write(fd);
}

StatusOr<ChunkTable> ChunkTable::Open(int fd) {
  struct stat found {};
  if (::fstat(fd, &found) != 0) {
    return ErrnoStatus(errno, "stat chunk table");
  }
  const auto file_bytes = static_cast<uint64_t>(found.st_size);
  STRATA_ASSIGN_OR_RETURN(const Header header, CheckFile(fd, file_bytes));
  void* mapping = ::mmap(nullptr, file_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) {
    return ErrnoStatus(errno, "map chunk table");
  }
  ChunkTable table;
  table.mapping_ = static_cast<const uint8_t*>(mapping);
  table.mapped_bytes_ = file_bytes;
  table.spans_ = header.spans;
  table.chunks_ = header.chunks;
  table.fetched_chunks_ = header.fetched_chunks;
  table.checksum_ = header.checksum;
  table.image_bytes_ = header.image_bytes;
  table.data_bytes_ = header.data_bytes;
  table.fetched_bytes_ = header.fetched_bytes;
  table.facts_ = {.metadata_bytes = header.metadata_bytes,
                  .metadata_checksum = header.metadata_checksum,
                  .has_xattrs = (header.flags & kFlagXattrs) != 0};
  STRATA_RETURN_IF_ERROR(table.Validate());
  table.MakeSigns();
  // The pages stay in the page cache; that this process has looked at all of them does not make
  // them its own.
  (void)::madvise(mapping, file_bytes, MADV_DONTNEED);
  return table;
}

Status ChunkTable::Validate() {
  const auto header = Load<Header>(mapping_, 0);
  if ((header.flags & ~kFlagXattrs) != 0 || header.reserved != decltype(header.reserved){} ||
      header.metadata_bytes > header.image_bytes) {
    return Broken("a field of its header makes no sense");
  }
  STRATA_RETURN_IF_ERROR(ValidateSpans());
  STRATA_RETURN_IF_ERROR(ValidateChunks());
  return ValidateGroups();
}

Status ChunkTable::ValidateSpans() const {
  uint64_t end = 0;
  uint64_t next_first = 0;
  for (uint32_t index = 0; index < spans_; ++index) {
    const auto span = Load<DiskSpan>(mapping_, kSpansAt + uint64_t{index} * sizeof(DiskSpan));
    // Each has at least one chunk.
    const bool first_holds =
        span.first >= next_first && span.first < fetched_chunks_ && (index > 0 || span.first == 0);
    if (span.blob_bytes == 0 || span.blob_offset < end ||
        span.blob_bytes > std::numeric_limits<uint64_t>::max() - span.blob_offset ||
        span.codec > static_cast<uint8_t>(SpanCodec::kZstd) || !first_holds ||
        span.reserved != decltype(span.reserved){}) {
      return Broken("span " + std::to_string(index) + " makes no sense");
    }
    end = span.blob_offset + span.blob_bytes;
    next_first = uint64_t{span.first} + 1;
  }
  return OkStatus();
}

Status ChunkTable::ValidateChunks() {
  uint64_t end = facts_.metadata_bytes;
  uint64_t data_bytes = 0;
  uint64_t fetched_bytes = 0;
  uint32_t fetched_chunks = 0;
  for (uint32_t index = 0; index < chunks_; ++index) {
    const auto chunk =
        Load<DiskChunk>(mapping_, ChunksAt(spans_) + uint64_t{index} * sizeof(DiskChunk));
    const bool zeros = chunk.span == kZerosSpan;
    bool holds = chunk.bytes > 0 && chunk.image_offset >= end &&
                 Fits(chunk.image_offset, chunk.bytes, image_bytes_) &&
                 (chunk.flags & ~kFlagDigest) == 0 &&
                 (chunk.flags != 0 || chunk.digest == Sha256Digest{});
    if (zeros) {
      holds = holds && chunk.flags == 0 && chunk.inner_offset == 0;
    } else {
      holds = holds && chunk.span < spans_ &&
              Fits(chunk.inner_offset, chunk.bytes, span(chunk.span).decoded_bytes);
    }
    if (!holds) {
      return Broken("chunk " + std::to_string(index) + " makes no sense");
    }
    end = chunk.image_offset + chunk.bytes;
    data_bytes += chunk.bytes;
    fetched_bytes += zeros ? 0 : chunk.bytes;
    fetched_chunks += zeros ? 0 : 1;
  }
  if (data_bytes != data_bytes_ || fetched_bytes != fetched_bytes_ ||
      fetched_chunks != fetched_chunks_) {
    return Broken("its sums do not hold");
  }
  return OkStatus();
}

// With the order, each chunk that is fetched is in exactly one place: there are as many places.
Status ChunkTable::ValidateGroups() const {
  uint64_t grouped = 0;
  for (uint32_t number = 0; number < spans_; ++number) {
    const std::span<const uint32_t> group = ChunksOf(number);
    std::pair<uint64_t, uint32_t> before;
    for (size_t at = 0; at < group.size(); ++at) {
      if (group[at] >= chunks_) {
        return Broken("span " + std::to_string(number) + " has a chunk that is not there");
      }
      const TableChunk one = chunk(group[at]);
      const std::pair<uint64_t, uint32_t> key = {one.inner_offset, group[at]};
      if (one.span != number || (at > 0 && key <= before)) {
        return Broken("the chunks of span " + std::to_string(number) + " are not its own");
      }
      before = key;
    }
    grouped += group.size();
  }
  return grouped == fetched_chunks_ ? OkStatus() : Broken("chunks belong to no span");
}

ChunkTable::~ChunkTable() {
  if (mapping_ != nullptr) {
    (void)::munmap(const_cast<uint8_t*>(mapping_), mapped_bytes_);  // fails for bad arguments only
  }
}

ChunkTable::ChunkTable(ChunkTable&& other) noexcept {
  *this = std::move(other);
}

ChunkTable& ChunkTable::operator=(ChunkTable&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  spans_ = other.spans_;
  chunks_ = other.chunks_;
  fetched_chunks_ = other.fetched_chunks_;
  checksum_ = other.checksum_;
  image_bytes_ = other.image_bytes_;
  data_bytes_ = other.data_bytes_;
  fetched_bytes_ = other.fetched_bytes_;
  facts_ = other.facts_;
  signs_ = std::move(other.signs_);
  stretch_bits_ = other.stretch_bits_;
  return *this;
}

TableSpan ChunkTable::span(uint32_t index) const {
  const auto disk = Load<DiskSpan>(mapping_, kSpansAt + uint64_t{index} * sizeof(DiskSpan));
  return {.blob_offset = disk.blob_offset,
          .blob_bytes = disk.blob_bytes,
          .decoded_bytes = disk.decoded_bytes,
          .codec = static_cast<SpanCodec>(disk.codec)};
}

TableChunk ChunkTable::chunk(uint32_t index) const {
  const auto disk =
      Load<DiskChunk>(mapping_, ChunksAt(spans_) + uint64_t{index} * sizeof(DiskChunk));
  return {.image_offset = disk.image_offset,
          .bytes = disk.bytes,
          .span = disk.span,
          .inner_offset = disk.inner_offset,
          .digest = disk.digest,
          .has_digest = disk.flags != 0};
}

ImageRange ChunkTable::place(uint32_t index) const {
  const uint64_t at = ChunksAt(spans_) + uint64_t{index} * sizeof(DiskChunk);
  const auto begin = Load<uint64_t>(mapping_, at + offsetof(DiskChunk, image_offset));
  return {.begin = begin, .end = begin + Load<uint64_t>(mapping_, at + offsetof(DiskChunk, bytes))};
}

void ChunkTable::MakeSigns() {
  stretch_bits_ = kLeastStretchBits;
  while (image_bytes_ >> stretch_bits_ > chunks_ / kChunksPerSign) {
    ++stretch_bits_;
  }
  const uint64_t stretches = (image_bytes_ >> stretch_bits_) + 1;
  signs_.reserve(stretches + 1);
  uint32_t chunk = 0;
  for (uint64_t stretch = 0; stretch < stretches; ++stretch) {
    while (chunk < chunks_ && place(chunk).end <= stretch << stretch_bits_) {
      ++chunk;
    }
    signs_.push_back(chunk);
  }
  signs_.push_back(chunks_);
}

uint32_t ChunkTable::FirstChunkAt(uint64_t image_offset) const {
  if (image_offset >= image_bytes_) {
    return chunks_;
  }
  const uint64_t stretch = image_offset >> stretch_bits_;
  uint32_t low = signs_[stretch];
  uint32_t high = signs_[stretch + 1];
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (place(middle).end > image_offset) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

std::span<const uint32_t> ChunkTable::ChunksOf(uint32_t span) const {
  const uint64_t at = kSpansAt + uint64_t{span} * sizeof(DiskSpan) + offsetof(DiskSpan, first);
  const auto first = Load<uint32_t>(mapping_, at);
  const uint32_t end =
      span + 1 < spans_ ? Load<uint32_t>(mapping_, at + sizeof(DiskSpan)) : fetched_chunks_;
  // All parts of the file are aligned, and the mapping is to a page.
  const auto* groups = reinterpret_cast<const uint32_t*>(mapping_ + GroupsAt(spans_, chunks_));
  return {groups + first, end - first};
}

uint32_t ChunkTable::SpansBefore(uint64_t blob_offset) const {
  uint32_t low = 0;
  uint32_t high = spans_;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const auto begin = Load<uint64_t>(mapping_, kSpansAt + uint64_t{middle} * sizeof(DiskSpan));
    if (begin < blob_offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace strata
