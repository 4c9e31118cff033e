// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/erofs_format.h"
#include "snapshotters/lazy/file_checksum.h"
#include "snapshotters/lazy/toc_pin.h"

namespace strata {
namespace {

constexpr mode_t kFileMode = 0600;

// What the builder refuses is the TOC's fault.
Status FromTree(const Status& status) {
  return status.code() == StatusCode::kInvalidArgument
             ? MakeStatus(StatusCode::kDataLoss, StatusMessage(status))
             : status;
}

uint32_t TypeBits(EntryType type) {
  switch (type) {
    case EntryType::kDirectory:
      return S_IFDIR;
    case EntryType::kRegular:
      return S_IFREG;
    case EntryType::kSymlink:
      return S_IFLNK;
    case EntryType::kCharDevice:
      return S_IFCHR;
    case EntryType::kBlockDevice:
      return S_IFBLK;
    case EntryType::kFifo:
      return S_IFIFO;
    case EntryType::kHardlink:
    case EntryType::kChunk:
      break;
  }
  return 0;
}

// Whether EROFS can name it. What it cannot is left out, as by whoever unpacks a layer onto a file
// system that answers EOPNOTSUPP.
bool HasKnownPrefix(std::string_view name) {
  return std::any_of(kErofsXattrPrefixes.begin(), kErofsXattrPrefixes.end(),
                     [name](const ErofsXattrPrefix& prefix) {
                       return prefix.whole_name ? name == prefix.text
                                                : name.starts_with(prefix.text) &&
                                                      name.size() > prefix.text.size();
                     });
}

// The same for the same layer, so that an image is the same bytes wherever it is made.
std::array<uint8_t, 16> UuidOf(const LayerSource& source) {
  const Sha256Digest digest =
      Sha256(source.digest + " " + source.toc_digest + (source.user_xattr ? " user" : " trusted"));
  std::array<uint8_t, 16> uuid{};
  std::copy_n(digest.begin(), uuid.size(), uuid.begin());
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0fU) | 0x80U);  // RFC 9562: version 8, our own bits
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3fU) | 0x80U);
  return uuid;
}

StatusOr<UniqueFd> CreateFile(int folder_fd, std::string_view name) {
  return OpenAt(folder_fd, std::string(name), O_RDWR | O_CREAT | O_EXCL, kFileMode);
}

Status Sync(int fd, std::string_view name) {
  return ::fsync(fd) == 0 ? OkStatus() : ErrnoStatus(errno, "fsync '" + std::string(name) + "'");
}

}  // namespace

LayerWriter::LayerWriter(LayerPlan plan)
    : plan_(std::move(plan)), map_builder_(plan_.footer, plan_.limits) {}

Status LayerWriter::Read(std::string toc_json) {
  LayerSource& source = plan_.source;
  if (source.toc_digest.empty()) {
    source.toc_digest = ShowSha256(Sha256(toc_json));
  }
  ErofsBuilderOptions options;
  options.uuid = UuidOf(source);
  options.whiteouts =
      source.user_xattr ? ErofsWhiteouts::kOverlayUserXattr : ErofsWhiteouts::kOverlay;
  STRATA_ASSIGN_OR_RETURN(tree_, ErofsBuilder::Create(options));
  STRATA_ASSIGN_OR_RETURN(const TocSummary summary, ParseToc(toc_json, plan_.limits, *this));
  toc_json = std::string();
  STRATA_ASSIGN_OR_RETURN(map_, map_builder_.Finish());
  if (map_.unverified_chunks > 0 && !plan_.allow_unverified_chunks) {
    return MakeStatus(StatusCode::kDataLoss, "TOC: " + std::to_string(map_.unverified_chunks) +
                                                 " chunks have no digest to hold them to");
  }
  source.format = plan_.footer.format;
  source.no_prefetch = summary.no_prefetch;
  if (summary.has_prefetch_landmark) {
    source.prefetch_end = summary.prefetch_end;
  }
  return OkStatus();
}

Status LayerWriter::OnEntry(const TocEntry& entry) {
  STRATA_RETURN_IF_ERROR(map_builder_.Add(entry));
  if (entry.type == EntryType::kChunk) {
    return OkStatus();
  }
  const StatusOr<uint32_t> index = AddToTree(entry);
  if (!index.ok()) {
    return FromTree(index.status());
  }
  if (entry.type == EntryType::kRegular) {
    tree_index_.push_back(*index);
  }
  return OkStatus();
}

StatusOr<uint32_t> LayerWriter::AddToTree(const TocEntry& entry) {
  if (entry.type == EntryType::kHardlink) {
    return tree_->AddHardlink(entry.name, entry.link_name);
  }
  ErofsNode node = {.mode = TypeBits(entry.type) | entry.mode,
                    .uid = entry.uid,
                    .gid = entry.gid,
                    .mtime_s = entry.mtime_s,
                    .mtime_ns = entry.mtime_ns,
                    .size = entry.size};
  if (entry.type == EntryType::kCharDevice || entry.type == EntryType::kBlockDevice) {
    if (entry.dev_major >= 1U << 12 || entry.dev_minor >= 1U << 20) {
      return MakeStatus(StatusCode::kDataLoss, "a device number that Linux does not have");
    }
    node.rdev = ErofsEncodeDevice(entry.dev_major, entry.dev_minor);
  }
  xattrs_.clear();
  for (const TocXattr& xattr : entry.xattrs) {
    if (HasKnownPrefix(xattr.name)) {
      xattrs_.push_back({.name = xattr.name, .value = xattr.value});
    }
  }
  return tree_->Add(entry.name, node, entry.link_name, xattrs_);
}

StatusOr<ImageFacts> LayerWriter::WriteImage(int fd) {
  StatusOr<ErofsLayout> layout = tree_->Finish(fd);
  tree_.reset();
  if (!layout.ok()) {
    // What no file of this file system can be as large as, a larger one might.
    const Status& status = layout.status();
    return StatusErrno(status) == EFBIG
               ? MakeStatus(StatusCode::kResourceExhausted, StatusMessage(status))
               : FromTree(status);
  }
  for (const uint32_t index : tree_index_) {
    data_offset_.push_back(index == ErofsBuilder::kLeftOut ? ErofsLayout::kNoData
                                                           : layout->data_offset[index]);
  }
  image_bytes_ = layout->image_bytes;
  plan_.source.inodes = layout->inodes;
  STRATA_ASSIGN_OR_RETURN(const uint32_t checksum, ChecksumOf(fd, 0, layout->metadata_bytes));
  return ImageFacts{.metadata_bytes = layout->metadata_bytes,
                    .metadata_checksum = checksum,
                    .has_xattrs = layout->has_xattrs};
}

Status LayerWriter::Write(int folder_fd) {
  STRATA_FAULT_POINT("layer.build.image");
  STRATA_ASSIGN_OR_RETURN(const UniqueFd image, CreateFile(folder_fd, LayerImage::kImageName));
  STRATA_ASSIGN_OR_RETURN(const ImageFacts facts, WriteImage(image.get()));
  STRATA_FAULT_POINT("layer.build.chunks");
  STRATA_ASSIGN_OR_RETURN(const UniqueFd chunks, CreateFile(folder_fd, LayerImage::kChunksName));
  STRATA_RETURN_IF_ERROR(ChunkTable::Write(chunks.get(), map_, data_offset_, image_bytes_, facts));
  STRATA_FAULT_POINT("layer.build.source");
  STRATA_ASSIGN_OR_RETURN(const UniqueFd source, CreateFile(folder_fd, LayerImage::kSourceName));
  STRATA_RETURN_IF_ERROR(
      WriteAll(source.get(), ShowLayerSource(plan_.source), LayerImage::kSourceName));
  STRATA_FAULT_POINT("layer.build.sync");
  // All are on their way before the first is waited for: one commit of the file system's journal
  // then serves them all. Only a hint, so its answer does not matter.
  for (const int fd : {image.get(), chunks.get(), source.get()}) {
    (void)::sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
  }
  STRATA_RETURN_IF_ERROR(Sync(image.get(), LayerImage::kImageName));
  STRATA_RETURN_IF_ERROR(Sync(chunks.get(), LayerImage::kChunksName));
  STRATA_RETURN_IF_ERROR(Sync(source.get(), LayerImage::kSourceName));
  return Sync(folder_fd, "the layer's folder");
}

}  // namespace strata
