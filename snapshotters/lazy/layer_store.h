// SPDX-License-Identifier: Apache-2.0
//
// LayerStore: all lazy layers of one root: found or resolved once each, shared by whoever has the
// same layer, shown at <root>/l/<n>, kept across restarts, and evicted when nobody refers to them
// and space is wanted. Safe from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/base/status.h"
#include "snapshotters/lazy/fallback_reason.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_presenters.h"
#include "snapshotters/lazy/layer_resolver.h"
#include "snapshotters/lazy/toc_decoder.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

struct LayerStoreOptions {
  std::string root;  // absolute; layers/ and l/ are made in it
  VerifyPolicy verify;
  bool allow_skip_verify = false;
  bool user_xattr = false;
  TocLimits limits;
  std::chrono::milliseconds resolve_timeout{30'000};
  bool prefetch = true;
  uint64_t prefetch_bytes = 0;  // of layers without landmark and label
  bool background_fetch = true;
  uint64_t budget_bytes = 0;  // of layers/; 0: no limit but the disk
  // Complete layers are shown by EROFS, also where incomplete ones are not.
  bool erofs_when_complete = true;
  // How often it is tried to remove evicted layers that are still read.
  std::chrono::milliseconds linger_interval{60'000};
  Clock* clock = &Clock::System();  // for the order of uses
  // The numbers of the layers that snapshots refer to; asked before anything is evicted. May read
  // directories. Without it, or when it fails, nothing is evicted.
  std::function<StatusOr<std::set<uint64_t>>()> referenced;
};

class LayerStore {
 public:
  // A layer in use: it is not evicted while one of these lives.
  class Use {
   public:
    virtual ~Use() = default;
    [[nodiscard]] virtual uint64_t number() const = 0;
    [[nodiscard]] virtual FillLayer& layer() = 0;
  };

  // All must outlive the store. Opens every layer on disk and shows those that are referenced (all
  // of them when that cannot be found out); a layer that does not hold is set aside with a log line
  // and nothing else fails. Of the mounts that a predecessor left, those that a presenter goes on
  // with and EROFS mounts of complete layers stay as they are; the others, dead ones too, are
  // covered, or removed where nobody refers to the layer. No network.
  static StatusOr<std::unique_ptr<LayerStore>> Open(const LayerStoreOptions& options,
                                                    BlobClient& blobs, Filler& filler,
                                                    const LayerPresenters& presenters);
  // No call may be under way. Ends what is being resolved and joins the threads. Mounts of a
  // presenter that end with it are removed from l/; those that stay (Presenter::stays) are left for
  // the next process. EROFS mounts of complete layers need nobody and stay.
  virtual ~LayerStore() = default;

  // The layer, from disk or resolved now; waits at most resolve_timeout, and joins whoever is
  // resolving it; a result that comes later is kept. It is shown when this returns. Errors have a
  // FallbackReason. What is not lazy is remembered for some minutes and not asked again.
  virtual StatusOr<std::shared_ptr<Use>> Get(const LayerRequest& request) = 0;
  // Starts to resolve without waiting: the other layers of an image. A few at a time; one that
  // somebody waits for goes first.
  virtual void Announce(std::vector<LayerRequest> requests) = 0;
  // By number, shown; NotFound when it is not there, DataLoss when it was set aside.
  virtual StatusOr<std::shared_ptr<Use>> Find(uint64_t number) = 0;

  // "<root>/l/<n>".
  [[nodiscard]] virtual std::string PathOf(uint64_t number) const = 0;
  // Bytes on disk now and inodes of the tree.
  struct Size {
    uint64_t bytes = 0;
    uint64_t inodes = 0;
  };
  virtual StatusOr<Size> SizeOf(uint64_t number) = 0;
  // Evicts unreferenced layers, least recently used first, until the budget holds (and, with
  // `all`, every one of them: the disk is full). Runs in the background and returns. The budget is
  // looked at after every resolve, too, and when a layer has become complete.
  virtual void Reclaim(bool all) = 0;
  void Reclaim() { Reclaim(/*all=*/false); }

  struct Row {
    uint64_t number = 0;  // 0: not lazy
    std::string reference;
    std::string digest;
    FallbackReason reason = FallbackReason::kNone;
    std::string detail;  // of the failure, of the last read error, or why EROFS does not show it
    bool has_error = false;  // the last fetch failed, as `detail` says
    uint64_t blob_bytes = 0;
    uint64_t chunks = 0;
    uint64_t present_chunks = 0;
    uint64_t allocated_bytes = 0;
    std::string presenter;
    bool disk_full = false;
  };
  // What there is, and the latest layers that fell back (at most 256 of them).
  virtual std::vector<Row> List() = 0;

  struct Shown {
    uint64_t erofs = 0;  // layers that the kernel's EROFS shows
    uint64_t fuse = 0;
    uint64_t refused = 0;    // how often FUSE had to show a layer that was to be EROFS's
    uint64_t lingering = 0;  // evicted, and not gone, because they are still read
  };
  virtual Shown CountShown() = 0;

  // Fetches all of every layer that there is, whatever background_fetch says, and before background
  // work. Returns at once; what failed is tried again by the next call.
  virtual void FetchAll() = 0;
};

}  // namespace strata
