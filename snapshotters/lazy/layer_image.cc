// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_image.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "snapshotters/base/fault.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/lazy/file_checksum.h"
#include "snapshotters/lazy/layer_writer.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

constexpr mode_t kFolderMode = 0700;
constexpr size_t kMostSourceBytes = size_t{1} << 20;
constexpr uint64_t kStatBlockBytes = 512;   // st_blocks, stat(2)
constexpr uint64_t kFileBlockBytes = 4096;  // of the file systems that images are on

std::string TemporaryName(uint64_t number) {
  return "new-" + std::to_string(number);
}

Status Broken(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, why);
}

// A whole folder, under its temporary name.
Status WriteFolder(int layers_fd, const std::string& name, LayerWriter& writer) {
  STRATA_RETURN_IF_ERROR(RemoveTree(layers_fd, name));  // what a crash has left
  STRATA_FAULT_POINT("layer.build.mkdir");
  STRATA_RETURN_IF_ERROR(MakeDirAt(layers_fd, name, kFolderMode));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd folder, OpenAt(layers_fd, name, O_RDONLY | O_DIRECTORY));
  return writer.Write(folder.get());
}

Status Publish(int layers_fd, const std::string& temporary, const std::string& name) {
  STRATA_FAULT_POINT("layer.build.rename");
  if (::renameat2(layers_fd, temporary.c_str(), layers_fd, name.c_str(), RENAME_NOREPLACE) != 0) {
    return ErrnoStatus(errno, "rename '" + temporary + "' to '" + name + "'");
  }
  const auto sync = [layers_fd]() -> Status {
    STRATA_FAULT_POINT("layer.build.renamed");
    return ::fsync(layers_fd) == 0 ? OkStatus() : ErrnoStatus(errno, "fsync the folder of layers");
  };
  if (Status status = sync(); !status.ok()) {
    (void)RemoveTree(layers_fd, name);  // the first error is the one to report
    return status;
  }
  return OkStatus();
}

// What opening the part `name` of a folder has given, if it is a file; that it is missing is
// DataLoss.
StatusOr<UniqueFd> CheckPart(StatusOr<UniqueFd> fd, std::string_view name) {
  if (!fd.ok()) {
    return fd.status().code() == StatusCode::kNotFound ? Broken(StatusMessage(fd.status()))
                                                       : fd.status();
  }
  struct stat found {};
  if (::fstat(fd->get(), &found) != 0) {
    return ErrnoStatus(errno, "stat '" + std::string(name) + "'");
  }
  if (!S_ISREG(found.st_mode)) {
    return Broken("open '" + std::string(name) + "': it is no file");
  }
  return fd;
}

StatusOr<UniqueFd> OpenPart(int directory_fd, std::string_view name) {
  // O_NONBLOCK: a fifo in the place of the file must not hold us up.
  return CheckPart(OpenAt(directory_fd, std::string(name), O_RDONLY | O_NONBLOCK), name);
}

// The image is as long as the table says, and its metadata are what was written.
Status CheckImage(int image_fd, const ChunkTable& table) {
  struct stat found {};
  if (::fstat(image_fd, &found) != 0) {
    return ErrnoStatus(errno, "stat image");
  }
  if (static_cast<uint64_t>(found.st_size) != table.image_bytes()) {
    return Broken("image: " + std::to_string(found.st_size) + " bytes long, expected " +
                  std::to_string(table.image_bytes()));
  }
  const ImageFacts& facts = table.facts();
  // Read rather than mapped: what the disk cannot give is then an error and no SIGBUS.
  STRATA_ASSIGN_OR_RETURN(const uint32_t sum, ChecksumOf(image_fd, 0, facts.metadata_bytes));
  return sum == facts.metadata_checksum
             ? OkStatus()
             : Broken("image: the checksum of its metadata does not hold");
}

}  // namespace

Status LayerImage::Build(int layers_fd, uint64_t number, LayerPlan plan, std::string toc_json) {
  const std::string name = std::to_string(number);
  const auto build = [&]() -> Status {
    LayerWriter writer(std::move(plan));
    STRATA_RETURN_IF_ERROR(writer.Read(std::move(toc_json)));
    Status status = WriteFolder(layers_fd, TemporaryName(number), writer);
    if (status.ok()) {
      status = Publish(layers_fd, TemporaryName(number), name);
    }
    if (!status.ok()) {
      (void)RemoveTree(layers_fd, TemporaryName(number));  // as above
    }
    return status;
  };
  Status status = build();
  // The tree of a large layer came in many small steps; without this the heap keeps its size.
  (void)::malloc_trim(0);
  return Annotate(status, "build layer " + name);
}

StatusOr<std::shared_ptr<LayerImage>> LayerImage::Open(int layers_fd, uint64_t number) {
  ImageFiles files;
  return Open(layers_fd, number, files);
}

StatusOr<std::shared_ptr<LayerImage>> LayerImage::Open(int layers_fd, uint64_t number,
                                                       ImageFiles& files) {
  std::shared_ptr<LayerImage> layer(new LayerImage());
  layer->number_ = number;
  const std::string name = std::to_string(number);
  if (const Status status = layer->OpenParts(layers_fd, name, files); !status.ok()) {
    return Annotate(status, "open layer " + name);
  }
  return layer;
}

Status LayerImage::OpenParts(int layers_fd, const std::string& name, ImageFiles& files) {
  STRATA_ASSIGN_OR_RETURN(directory_fd_, OpenAt(layers_fd, name, O_RDONLY | O_DIRECTORY));
  const int directory = directory_fd_.get();
  STRATA_ASSIGN_OR_RETURN(const UniqueFd source, OpenPart(directory, kSourceName));
  STRATA_ASSIGN_OR_RETURN(const std::string json,
                          ReadAll(source.get(), std::string(kSourceName), kMostSourceBytes));
  STRATA_ASSIGN_OR_RETURN(source_, ParseLayerSource(json));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd table, OpenPart(directory, kChunksName));
  STRATA_ASSIGN_OR_RETURN(chunks_, ChunkTable::Open(table.get()));
  STRATA_ASSIGN_OR_RETURN(image_fd_,
                          CheckPart(files.Open(directory, std::string(kImageName)), kImageName));
  STRATA_RETURN_IF_ERROR(CheckImage(image_fd_.get(), *chunks_));
  STRATA_RETURN_IF_ERROR(MapTree());
  OpenExtents(name);
  return OkStatus();
}

Status LayerImage::MapTree() {
  const ImageFacts& facts = chunks_->facts();
  if (facts.metadata_bytes == 0) {
    return Broken("image: it has no metadata");
  }
  void* mapping = ::mmap(nullptr, facts.metadata_bytes, PROT_READ, MAP_SHARED, image_fd_.get(), 0);
  if (mapping == MAP_FAILED) {
    return ErrnoStatus(errno, "map image");
  }
  mapping_ = static_cast<const uint8_t*>(mapping);
  metadata_bytes_ = facts.metadata_bytes;
  has_xattrs_ = facts.has_xattrs;
  STRATA_ASSIGN_OR_RETURN(tree_, ErofsReader::Open({mapping_, metadata_bytes_}));
  return tree_->image_bytes() == chunks_->image_bytes() ? OkStatus()
                                                        : Broken("image: of another length");
}

void LayerImage::OpenExtents(const std::string& name) {
  extents_ = std::make_unique<Extents>(Extents::Identity{.chunks = chunks_->chunks(),
                                                         .image_bytes = chunks_->image_bytes(),
                                                         .table_checksum = chunks_->checksum()});
  const Status status = extents_->Load(directory_fd_.get(), std::string(kExtentsName));
  // There is none before the first Persist.
  if (!status.ok() && status.code() != StatusCode::kNotFound) {
    LogWarn("layer's data is fetched again, ignoring its extents",
            {{"layer", name}, {"error", status.ToString()}});
  }
  if (chunks_->fetched_chunks() == chunks_->chunks()) {
    return;
  }
  for (uint32_t chunk = 0; chunk < chunks_->chunks(); ++chunk) {
    if (chunks_->chunk(chunk).span == kZerosSpan) {
      extents_->SetHole(chunk);
    }
  }
}

LayerImage::~LayerImage() {
  if (mapping_ != nullptr) {
    // Fails for bad arguments only.
    (void)::munmap(const_cast<uint8_t*>(mapping_), metadata_bytes_);
  }
}

uint64_t LayerImage::AbsentBytes() const {
  uint64_t bytes = 0;
  uint64_t end = 0;  // of the blocks that are counted
  const uint32_t chunks = chunks_->chunks();
  for (uint32_t i = extents_->FirstAbsent(0, chunks); i < chunks;
       i = extents_->FirstAbsent(i + 1, chunks)) {
    const ImageRange place = chunks_->place(i);
    const uint64_t first = std::max(end, place.begin / kFileBlockBytes * kFileBlockBytes);
    end = (place.end + kFileBlockBytes - 1) / kFileBlockBytes * kFileBlockBytes;
    bytes += end - std::min(first, end);
  }
  return bytes;
}

StatusOr<uint64_t> LayerImage::AllocatedBytes() const {
  struct stat found {};
  if (::fstat(directory_fd_.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat layer " + std::to_string(number_));
  }
  auto blocks = static_cast<uint64_t>(found.st_blocks);
  for (const std::string_view part : {kImageName, kChunksName, kExtentsName, kSourceName}) {
    const std::string name(part);
    if (::fstatat(directory_fd_.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0) {
      blocks += static_cast<uint64_t>(found.st_blocks);
    } else if (errno != ENOENT) {
      return ErrnoStatus(errno, "stat '" + name + "'");
    }
  }
  return blocks * kStatBlockBytes;
}

}  // namespace strata
