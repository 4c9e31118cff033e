// SPDX-License-Identifier: Apache-2.0
//
// LayerImage: one layer on disk: a folder <n>/ with image, chunks, extents and source (FORMAT.md).
// The image's metadata and the chunk table are mapped, so nothing per inode or per chunk is on the
// heap. Safe from any thread; shared by all who use the layer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/chunk_table.h"
#include "snapshotters/lazy/erofs_reader.h"
#include "snapshotters/lazy/extents.h"
#include "snapshotters/lazy/image_files.h"
#include "snapshotters/lazy/layer_source.h"
#include "snapshotters/lazy/toc.h"

namespace strata {

// What a layer is made from.
struct LayerPlan {
  // What is known before the TOC is read; prefetch_end, no_prefetch and inodes are filled in.
  LayerSource source;
  Footer footer;
  TocLimits limits;
  // Chunks without a digest are accepted (legacy stargz); else such a layer is DataLoss.
  bool allow_unverified_chunks = false;
};

class LayerImage {
 public:
  static constexpr std::string_view kImageName = "image";
  static constexpr std::string_view kChunksName = "chunks";
  static constexpr std::string_view kExtentsName = "extents";
  static constexpr std::string_view kSourceName = "source";

  // Makes the folder `number` in `layers_fd` from a TOC, in one pass over it: written in a
  // temporary folder "new-<number>", synced, renamed, the rename synced. On error nothing stays; a
  // crash leaves the temporary folder, which the next Build of that number or whoever starts next
  // removes. The JSON is consumed. DataLoss (TOC), ResourceExhausted (disk, limits), AlreadyExists
  // (the folder). One call for a number at a time.
  static Status Build(int layers_fd, uint64_t number, LayerPlan plan, std::string toc_json);

  // Opens what Build made, its image file by way of `files`. NotFound: there is no such folder.
  // DataLoss: a part is missing or does not hold (a bad `extents` only means that nothing is
  // present; it is logged). Chunks that are holes of the image (kZerosSpan) are present from the
  // start.
  static StatusOr<std::shared_ptr<LayerImage>> Open(int layers_fd, uint64_t number,
                                                    ImageFiles& files);
  // The same where nobody but us is told of reads.
  static StatusOr<std::shared_ptr<LayerImage>> Open(int layers_fd, uint64_t number);

  ~LayerImage();
  LayerImage(const LayerImage&) = delete;
  LayerImage& operator=(const LayerImage&) = delete;

  [[nodiscard]] uint64_t number() const { return number_; }
  // Open for reading and writing.
  [[nodiscard]] int image_fd() const { return image_fd_.get(); }
  [[nodiscard]] const ErofsReader& tree() const { return *tree_; }
  [[nodiscard]] const ChunkTable& chunks() const { return *chunks_; }
  [[nodiscard]] Extents& extents() { return *extents_; }
  [[nodiscard]] const Extents& extents() const { return *extents_; }
  [[nodiscard]] const LayerSource& source() const { return source_; }
  // Data begins here.
  [[nodiscard]] uint64_t metadata_bytes() const { return metadata_bytes_; }
  // Whether any inode has any xattr.
  [[nodiscard]] bool has_xattrs() const { return has_xattrs_; }

  Status Persist() { return extents_->Persist(image_fd(), directory_fd_.get(), "extents"); }
  // The room on disk that what is absent will take: blocks of each run of absent chunks. Walks the
  // chunk table once.
  [[nodiscard]] uint64_t AbsentBytes() const;
  // Bytes that the folder takes on disk.
  [[nodiscard]] StatusOr<uint64_t> AllocatedBytes() const;

 private:
  LayerImage() = default;
  Status OpenParts(int layers_fd, const std::string& name, ImageFiles& files);
  Status MapTree();
  void OpenExtents(const std::string& name);

  uint64_t number_ = 0;
  UniqueFd directory_fd_;
  UniqueFd image_fd_;
  const uint8_t* mapping_ = nullptr;  // of the image's metadata
  uint64_t metadata_bytes_ = 0;
  bool has_xattrs_ = false;
  std::optional<ErofsReader> tree_;
  std::optional<ChunkTable> chunks_;
  std::unique_ptr<Extents> extents_;
  LayerSource source_;
};

}  // namespace strata
