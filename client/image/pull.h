// SPDX-License-Identifier: Apache-2.0
//
// Pull: an image from where it is into a content store and onto a snapshotter. Layers are fetched
// beside each other and applied in their order; what a snapshotter can have lazily (Prepare answers
// AlreadyExists) is not fetched. Safe from any thread; a pull blocks its thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/image/content_store.h"
#include "client/image/image_config.h"
#include "client/image/image_source.h"
#include "client/worker_snapshots.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/registry/credentials.h"
#include "snapshotters/registry/hosts.h"

namespace strata {

// Told from several threads, one call at a time.
class PullProgress {
 public:
  virtual ~PullProgress() = default;
  enum class Step { kResolving, kWaiting, kFetching, kApplying, kDone, kPresent, kLazy };
  // `blob`: the digest, "" for the image as a whole; `done` of `total` bytes (0: not known).
  virtual void OnStep(std::string_view blob, Step step, uint64_t done, uint64_t total) = 0;
};

struct PullOptions {
  HostsConfig hosts;
  Platform platform;
  // Give the snapshotter what it needs to have layers lazily (remote/stargz.* labels).
  bool lazy = false;
  int parallel_layers = 3;
  // How snapshots of overlay are written: see ApplyOptions. The user namespace is found out.
  std::chrono::milliseconds timeout{std::chrono::minutes(30)};
  PullProgress* progress = nullptr;  // none
};

struct PulledImage {
  std::string name;
  Descriptor manifest;
  ImageConfig config;
  // In WorkerSnapshots: the committed snapshot of the top layer (a chain id); "" for an image
  // without layers.
  std::string snapshot;
};

class Puller {
 public:
  // All must outlive this.
  static StatusOr<std::unique_ptr<Puller>> Create(ContentStore& content, WorkerSnapshots& snapshots,
                                                  CredentialSource& credentials);
  virtual ~Puller() = default;

  // Resolves, fetches what is missing (going on where an earlier pull stopped), verifies digests
  // and diff ids, applies, and records the image last. Errors: NotFound (reference, platform:
  // the ones that there are), Unauthenticated, DataLoss (what disagreed), Unavailable (registry, or
  // the snapshotter), DeadlineExceeded, Cancelled. Nothing half done is left on the snapshotter.
  virtual StatusOr<PulledImage> Pull(CallContext& call, const ImageSource& source,
                                     const PullOptions& options) = 0;

  // An image that is here, unpacked again where snapshots of it have been pruned. NotFound.
  virtual StatusOr<PulledImage> Open(CallContext& call, std::string_view name,
                                     const PullOptions& options) = 0;

  // The difference that `active` (a prepared snapshot of WorkerSnapshots) makes to its parent, as
  // a new layer of `base` under the name `name`; `active` is committed.
  virtual StatusOr<PulledImage> CommitImage(CallContext& call, const PulledImage& base,
                                            std::string_view active, const std::string& name,
                                            const ImageConfig& config) = 0;
};

}  // namespace strata
