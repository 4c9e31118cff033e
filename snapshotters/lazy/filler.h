// SPDX-License-Identifier: Apache-2.0
//
// Filler: from a wanted range of an image to bytes that are present: fetched, decoded, verified,
// written, marked, in that order. One for the process. Safe from any thread; no call blocks on I/O
// but the file system's, and callbacks must not block.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "snapshotters/base/status.h"
#include "snapshotters/lazy/layer_image.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

class SpaceReserve;

// Bytes that were fetched and verified and could not be written (the disk is full): readers get
// them from memory.
class HeldBytes {
 public:
  virtual ~HeldBytes() = default;
  // Copies the image's bytes [offset, offset + out.size()), which lie in the range that was asked
  // for, from memory and from `image_fd`.
  [[nodiscard]] virtual Status Read(int image_fd, uint64_t offset,
                                    std::span<uint8_t> out) const = 0;
};

// A layer as the filler knows it. Lives as long as anybody needs it.
class FillLayer {
 public:
  virtual ~FillLayer() = default;
  [[nodiscard]] virtual LayerImage& image() = 0;

  struct State {
    uint64_t fetched_bytes = 0;  // of the blob, since the start of the process
    uint64_t present_chunks = 0;
    uint64_t failures = 0;   // spans that were given up
    Status last_error;       // names layer, chunk and host
    bool disk_full = false;  // writing failed for want of space; tried again with the next span
  };
  [[nodiscard]] virtual State state() const = 0;
};

class Filler {
 public:
  struct Options {
    // How long a demand read is tried again before it fails; 0: one attempt of the BlobClient.
    std::chrono::milliseconds patience{300'000};
    int decode_threads = 0;  // 0: one for each CPU, at most 8
    // Bytes of the blob that are asked for or wait to be decoded, over all layers; one span may
    // exceed it. Demand may use all of it, each lower class a smaller share.
    uint64_t in_flight_bytes = uint64_t{32} << 20;
    uint64_t request_bytes = uint64_t{4}
                             << 20;  // neighbouring spans are asked for together up to this
    int requests = 16;               // at most so many ranges in flight
    uint64_t read_ahead_bytes = uint64_t{64} << 20;  // most of the image that is asked for ahead
    bool background = true;                          // FetchAll does something
    std::chrono::milliseconds persist_interval{5'000};
    // Gives room to layers that have some reserved there, when the disk is full, and is told what
    // was written. Null: none. Must outlive the filler.
    SpaceReserve* reserve = nullptr;
  };
  // Called on a thread of the filler, once, when the layer has become complete and is persisted;
  // never for a layer that was complete when it was added.
  using CompleteCallback = std::function<void(FillLayer&)>;
  // Asked for space when the disk is full, at most once a second; called on a thread of the filler
  // that may wait for the disk.
  using SpaceCallback = std::function<void()>;

  static StatusOr<std::unique_ptr<Filler>> Create(const Options& options, SpaceCallback need_space);
  // Ends what is under way with Cancelled, persists what is present. No callback comes afterwards.
  virtual ~Filler() = default;

  virtual std::shared_ptr<FillLayer> Add(std::shared_ptr<LayerImage> image,
                                         std::shared_ptr<Blob> blob,
                                         CompleteCallback on_complete) = 0;

  // OK: [offset, offset + bytes) of the image can be read from image_fd, or, where `held` is set,
  // through it. Errors: DataLoss (bytes that do not match, after one more try elsewhere),
  // Unavailable, DeadlineExceeded, Unauthenticated, PermissionDenied, NotFound, Cancelled; they
  // name layer, chunk and host.
  using Callback = std::function<void(Status, std::shared_ptr<const HeldBytes> held)>;
  // A reader waits. Calls back at once, on this thread, when all is present; else later on a thread
  // of the filler. Sequential wants of a layer start read-ahead, whose size follows the reader.
  virtual void Want(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
                    Callback callback) = 0;
  // The same for a reader that can only read the image itself: `held` is always null. Bytes that
  // cannot be written for want of space are tried again like those that cannot be fetched, until
  // the patience ends (ResourceExhausted then).
  virtual void WantOnDisk(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
                          Callback callback) = 0;
  // Whether a Want would find everything present and has nothing else to do: the cheap question of
  // those who are asked often.
  [[nodiscard]] virtual bool IsPresent(FillLayer& layer, uint64_t offset, uint64_t bytes) = 0;

  // Nobody waits: the spans of the blob that begin before `blob_end`, in the order of the blob.
  virtual void Prefetch(const std::shared_ptr<FillLayer>& layer, uint64_t blob_end) = 0;
  // Everything else, after everything else, and always moving.
  virtual void FetchAll(const std::shared_ptr<FillLayer>& layer) = 0;
  // The registry may have come back, or credentials: wait no longer between tries.
  virtual void Nudge() = 0;
  // Stops background work on the layer (it is going away); wants still work.
  virtual void Forget(const std::shared_ptr<FillLayer>& layer) = 0;

  struct Counters {
    uint64_t wants = 0;         // calls of Want and WantOnDisk
    uint64_t wants_absent = 0;  // of them, those that had to wait
    uint64_t spans = 0;         // filled
    uint64_t requests = 0;      // ranges asked for
    uint64_t blob_bytes = 0;
    uint64_t image_bytes = 0;  // written
    uint64_t mismatches = 0;   // chunks whose digest did not hold
  };
  [[nodiscard]] virtual Counters counters() const = 0;
};

}  // namespace strata
