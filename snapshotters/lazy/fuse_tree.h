// SPDX-License-Identifier: Apache-2.0
//
// FuseTree: what a FUSE mount of layers answers: a top directory that finds layers by their
// numbers and lists none, and below the trees of their images. A node is layer number << 40 | nid.
// Safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/fuse_layers.h"
#include "snapshotters/lazy/fuse_reads.h"
#include "snapshotters/lazy/fuse_session.h"

namespace strata {

class FuseTree {
 public:
  // Numbers of layers that a node id has room for: 1 to this.
  static constexpr uint64_t kMaxLayer = (uint64_t{1} << 24) - 1;

  struct Options {
    // Without, every question about them gets ENOSYS, after which the kernel asks no more.
    bool has_xattrs = false;
    // Each layer has one (layer_state_file.h), whatever its image has by that name.
    bool has_state_files = false;
  };

  // `filler` must outlive this.
  FuseTree(Filler& filler, std::shared_ptr<FuseCounts> counts, const Options& options)
      : filler_(filler),
        counts_(std::move(counts)),
        has_xattrs_(options.has_xattrs),
        has_state_files_(options.has_state_files),
        reads_(std::make_shared<FuseReads>(counts_)) {}

  // For a session whose user is a FuseTree.
  static fuse_lowlevel_ops Operations();
  // Whether there is a layer for a node, or for a name in the top directory (where other names are
  // known not to be).
  static bool Knows(void* self, fuse_ino_t node, std::string_view name);
  [[nodiscard]] static fuse_ino_t TopOf(const FuseLayers::Layer& layer) {
    return IdOf(layer, layer.image().tree().root());
  }

  [[nodiscard]] FuseLayers& layers() { return layers_; }
  // Reads fail from now on, or wait for the successor. To be called before the session ends.
  void Close(bool has_successor) { reads_->Close(has_successor); }

 private:
  struct Node {
    std::shared_ptr<FuseLayers::Layer> layer;  // null: unknown, or the top directory
    uint64_t nid = 0;
    [[nodiscard]] const ErofsReader& tree() const { return layer->image().tree(); }
  };
  class Listing;

  [[nodiscard]] static FuseTree& Of(fuse_req_t request) {
    return *static_cast<FuseTree*>(FuseSession::UserOf(request));
  }
  [[nodiscard]] Node Find(fuse_ino_t node) const;
  [[nodiscard]] static fuse_ino_t IdOf(const FuseLayers::Layer& layer, uint64_t nid);
  [[nodiscard]] static fuse_ino_t IdOf(const Node& node) { return IdOf(*node.layer, node.nid); }
  void Fail(fuse_req_t request);
  static Status FillStat(const Node& node, struct stat& attributes);
  static Status FillEntry(const Node& node, fuse_entry_param& entry);
  void ReplyEntry(fuse_req_t request, const Node& node);
  // As ErofsReader::ReadDir.
  static Status ListStateFolder(const Node& folder, uint64_t cursor,
                                const ErofsReader::DirectoryVisitor& visit);
  // What `name` in the directory is, of what is not in the image.
  [[nodiscard]] std::optional<uint64_t> FindState(const Node& directory,
                                                  std::string_view name) const;

  void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name);
  void LookupLayer(fuse_req_t request, std::string_view name);
  void Forget(fuse_ino_t node, uint64_t lookups);
  void GetAttr(fuse_req_t request, fuse_ino_t id);
  void ReadLink(fuse_req_t request, fuse_ino_t id);
  void Open(fuse_req_t request, fuse_ino_t id, fuse_file_info* file);
  void ReadDirPlus(fuse_req_t request, fuse_ino_t id, size_t size, off_t offset);
  void Read(fuse_req_t request, fuse_ino_t id, size_t size, off_t offset);
  void GetXattr(fuse_req_t request, fuse_ino_t id, std::string_view name, size_t size);
  void ListXattr(fuse_req_t request, fuse_ino_t id, size_t size);
  void StatFs(fuse_req_t request, fuse_ino_t id);

  Filler& filler_;
  const std::shared_ptr<FuseCounts> counts_;
  const bool has_xattrs_;
  const bool has_state_files_;
  FuseLayers layers_;
  const std::shared_ptr<FuseReads> reads_;
};

}  // namespace strata
