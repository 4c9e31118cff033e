// SPDX-License-Identifier: Apache-2.0
//
// LayerWriter: from a TOC to the files of a layer's folder (FORMAT.md), for LayerImage::Build. One
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/chunk_map.h"
#include "snapshotters/lazy/erofs_writer.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/lazy/toc.h"

namespace strata {

class LayerWriter : private TocVisitor {
 public:
  explicit LayerWriter(LayerPlan plan);

  // Takes the TOC in. DataLoss, ResourceExhausted: the layer cannot be had.
  Status Read(std::string toc_json);
  // Writes image, chunks and source into an empty folder, and syncs them and the folder. On error
  // some of them may be there. To be called once, after Read.
  Status Write(int folder_fd);

 private:
  Status OnEntry(const TocEntry& entry) override;
  StatusOr<uint32_t> AddToTree(const TocEntry& entry);
  StatusOr<ImageFacts> WriteImage(int fd);
  Status WriteSource(int fd) const;

  LayerPlan plan_;
  std::unique_ptr<ErofsBuilder> tree_;
  ChunkMapBuilder map_builder_;
  ChunkMap map_;
  std::vector<uint32_t> tree_index_;  // of the regular files in the order of the TOC
  std::vector<XattrView> xattrs_;     // of one entry; kept for its memory
  // Once the image is written.
  uint64_t image_bytes_ = 0;
  std::vector<uint64_t> data_offset_;  // of the same files
};

}  // namespace strata
