// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/complete_on_disk.h"

#include <fcntl.h>

#include <string>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/chunk_table.h"
#include "snapshotters/lazy/extents.h"
#include "snapshotters/lazy/layer_image.h"

namespace strata {

StatusOr<bool> IsCompleteOnDisk(int directory_fd) {
  STRATA_ASSIGN_OR_RETURN(
      const UniqueFd file,
      OpenAt(directory_fd, std::string(LayerImage::kChunksName), O_RDONLY | O_NONBLOCK));
  STRATA_ASSIGN_OR_RETURN(const ChunkTable table, ChunkTable::Open(file.get()));
  Extents extents({.chunks = table.chunks(),
                   .image_bytes = table.image_bytes(),
                   .table_checksum = table.checksum()});
  const Status loaded = extents.Load(directory_fd, std::string(LayerImage::kExtentsName));
  if (!loaded.ok() && loaded.code() != StatusCode::kNotFound) {
    return loaded;
  }
  for (uint32_t chunk = 0; chunk < table.chunks(); ++chunk) {
    if (!extents.Has(chunk) && table.chunk(chunk).span != kZerosSpan) {
      return false;
    }
  }
  return true;
}

}  // namespace strata
