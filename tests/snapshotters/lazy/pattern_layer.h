// SPDX-License-Identifier: Apache-2.0
//
// Layers for the presenters' tests: real images whose file contents are a pattern of the place in
// the image, and a Filler that writes it without a registry. Safe from any thread where Filler is.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/fill_plan.h"
#include "snapshotters/lazy/filler.h"
#include "snapshotters/lazy/layer_image.h"

namespace strata::testing {

struct PatternEntry {
  std::string name;
  std::string type = "reg";  // as in a TOC
  uint64_t size = 0;
  uint32_t mode = 0644;
  std::string link = {};
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t major = 0;
  uint32_t minor = 0;
  std::map<std::string, std::string> xattrs = {};
  std::string mtime = "2020-09-13T12:26:40Z";
};

// Makes layer `number` in `layers` and opens it. Ends the test program on an error.
std::shared_ptr<LayerImage> MakePatternImage(const std::string& layers, uint64_t number,
                                             const std::vector<PatternEntry>& entries);

// The content of [offset, offset + bytes) of an image; hardly ever zero.
std::string Pattern(uint64_t offset, uint64_t bytes);
// The content of a file of the image, by its path.
std::string PatternFile(const LayerImage& image, const std::string& path);
uint64_t NidOf(const LayerImage& image, const std::string& path);
// Fills and marks every chunk.
void Complete(LayerImage& image);

class PatternFiller final : public Filler {
 public:
  enum class Mode {
    kAtOnce,  // writes what is wanted and calls back on the same thread
    kLater,   // the same on a thread of its own, last come, first served
    kHeld,    // writes nothing and hands out the bytes
    kFail,    // Unavailable
    kNever,   // keeps the callbacks until CallBack()
  };

  PatternFiller() = default;
  ~PatternFiller() override;

  void SetMode(Mode mode) { mode_ = mode; }
  // Ends what kNever kept.
  void CallBack(const Status& status);
  [[nodiscard]] size_t kept() const;

  std::shared_ptr<FillLayer> Add(std::shared_ptr<LayerImage> image, std::shared_ptr<Blob> blob,
                                 CompleteCallback on_complete) override;
  void Want(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
            Callback callback) override;
  void WantOnDisk(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
                  Callback callback) override {
    Want(layer, offset, bytes, std::move(callback));
  }
  bool IsPresent(FillLayer& layer, uint64_t offset, uint64_t bytes) override {
    const LayerImage& image = layer.image();
    const ChunkRange range = ChunksIn(image.chunks(), offset, bytes);
    return image.extents().FirstAbsent(range.first, range.end) == range.end;
  }
  void Prefetch(const std::shared_ptr<FillLayer>&, uint64_t) override {}
  void FetchAll(const std::shared_ptr<FillLayer>&) override {}
  void Nudge() override {}
  void Forget(const std::shared_ptr<FillLayer>&) override {}
  [[nodiscard]] Counters counters() const override { return {}; }

 private:
  void Enqueue(std::function<void()> work);
  void Work();

  std::atomic<Mode> mode_{Mode::kAtOnce};
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<Callback> kept_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread worker_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata::testing
