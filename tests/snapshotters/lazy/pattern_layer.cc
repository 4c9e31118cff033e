// SPDX-License-Identifier: Apache-2.0
#include "tests/snapshotters/lazy/pattern_layer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata::testing {
namespace {

template <typename T>
T Must(StatusOr<T> result) {
  if (!result.ok()) {
    (void)std::fprintf(stderr, "pattern layer: %s\n", result.status().ToString().c_str());
    std::abort();
  }
  return *std::move(result);
}

void Must(const Status& status) {
  (void)Must(status.ok() ? StatusOr<bool>(true) : StatusOr<bool>(status));
}

std::string Base64(const std::string& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = i; j < i + 3; ++j) {
      group = group << 8 | (j < bytes.size() ? static_cast<uint8_t>(bytes[j]) : 0U);
    }
    for (size_t j = 0; j < 4; ++j) {
      text += i + j <= bytes.size() ? kDigits[group >> (18 - 6 * j) & 63U] : '=';
    }
  }
  return text;
}

void WritePattern(const LayerImage& image, uint64_t offset, uint64_t bytes) {
  const std::string pattern = Pattern(offset, bytes);
  if (::pwrite(image.image_fd(), pattern.data(), pattern.size(), static_cast<off_t>(offset)) !=
      static_cast<ssize_t>(pattern.size())) {
    Must(ErrnoStatus(errno, "write pattern"));
  }
}

class PatternFillLayer final : public FillLayer {
 public:
  explicit PatternFillLayer(std::shared_ptr<LayerImage> image) : image_(std::move(image)) {}
  LayerImage& image() override { return *image_; }
  [[nodiscard]] State state() const override { return {}; }

 private:
  const std::shared_ptr<LayerImage> image_;
};

class PatternBytes final : public HeldBytes {
 public:
  [[nodiscard]] Status Read(int /*image_fd*/, uint64_t offset,
                            std::span<uint8_t> out) const override {
    const std::string pattern = Pattern(offset, out.size());
    std::copy(pattern.begin(), pattern.end(), out.begin());
    return OkStatus();
  }
};

}  // namespace

std::string Pattern(uint64_t offset, uint64_t bytes) {
  std::string pattern(bytes, '\0');
  for (uint64_t i = 0; i < bytes; ++i) {
    const uint64_t at = offset + i;
    pattern[i] = static_cast<char>((at * 7 + (at >> 8) * 13 + (at >> 16) * 29) % 255 + 1);
  }
  return pattern;
}

uint64_t NidOf(const LayerImage& image, const std::string& path) {
  uint64_t nid = image.tree().root();
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    nid = Must(image.tree().Lookup(nid, path.substr(at, end - at))).value().nid;
    at = end + 1;
  }
  return nid;
}

std::string PatternFile(const LayerImage& image, const std::string& path) {
  const uint64_t nid = NidOf(image, path);
  return Pattern(Must(image.tree().DataOffset(nid)), Must(image.tree().Stat(nid)).size);
}

void Complete(LayerImage& image) {
  for (uint32_t i = 0; i < image.chunks().chunks(); ++i) {
    const TableChunk chunk = image.chunks().chunk(i);
    WritePattern(image, chunk.image_offset, chunk.bytes);
    (void)image.extents().Set(i);
  }
}

std::shared_ptr<LayerImage> MakePatternImage(const std::string& layers, uint64_t number,
                                             const std::vector<PatternEntry>& entries) {
  nlohmann::json toc = {{"version", 1}, {"entries", nlohmann::json::array()}};
  uint64_t blob = 100;
  for (const PatternEntry& entry : entries) {
    nlohmann::json item = {{"name", entry.name},      {"type", entry.type},
                           {"mode", entry.mode},      {"uid", entry.uid},
                           {"gid", entry.gid},        {"modtime", entry.mtime},
                           {"linkName", entry.link},  {"devMajor", entry.major},
                           {"devMinor", entry.minor}, {"size", entry.size}};
    for (const auto& [name, value] : entry.xattrs) {
      item["xattrs"][name] = Base64(value);
    }
    if (entry.type == "reg" && entry.size != 0) {
      item["offset"] = blob;
      item["chunkDigest"] = "sha256:" + std::string(64, 'a');
      blob += entry.size + 100;
    }
    toc["entries"].push_back(std::move(item));
  }
  LayerPlan plan;
  plan.source.reference = "registry.example/image:tag";
  plan.source.digest = "sha256:" + std::string(64, 'b');
  plan.source.toc_digest = "sha256:" + std::string(64, 'c');
  plan.source.blob_bytes = blob + 200;
  plan.footer.payload_end = blob;
  plan.footer.toc = {blob, 100};
  const UniqueFd folder = Must(OpenFile(layers, O_RDONLY | O_DIRECTORY));
  Must(LayerImage::Build(folder.get(), number, std::move(plan), toc.dump()));
  return Must(LayerImage::Open(folder.get(), number));
}

PatternFiller::~PatternFiller() {
  std::thread worker;
  {
    const MutexLock lock(mutex_);
    ending_ = true;
    worker.swap(worker_);
    changed_.SignalAll();
  }
  if (worker.joinable()) {
    worker.join();
  }
}

std::shared_ptr<FillLayer> PatternFiller::Add(std::shared_ptr<LayerImage> image,
                                              std::shared_ptr<Blob> /*blob*/,
                                              CompleteCallback /*on_complete*/) {
  return std::make_shared<PatternFillLayer>(std::move(image));
}

void PatternFiller::Want(const std::shared_ptr<FillLayer>& layer, uint64_t offset, uint64_t bytes,
                         Callback callback) {
  switch (mode_.load()) {
    case Mode::kAtOnce:
      WritePattern(layer->image(), offset, bytes);
      callback(OkStatus(), nullptr);
      return;
    case Mode::kLater:
      Enqueue([layer, offset, bytes, callback = std::move(callback)] {
        WritePattern(layer->image(), offset, bytes);
        callback(OkStatus(), nullptr);
      });
      return;
    case Mode::kHeld:
      callback(OkStatus(), std::make_shared<PatternBytes>());
      return;
    case Mode::kFail:
      callback(MakeStatus(StatusCode::kUnavailable, "no registry"), nullptr);
      return;
    case Mode::kNever: {
      const MutexLock lock(mutex_);
      kept_.push_back(std::move(callback));
      return;
    }
  }
}

void PatternFiller::CallBack(const Status& status) {
  std::vector<Callback> kept;
  {
    const MutexLock lock(mutex_);
    kept.swap(kept_);
  }
  for (const Callback& callback : kept) {
    callback(status, nullptr);
  }
}

size_t PatternFiller::kept() const {
  const MutexLock lock(mutex_);
  return kept_.size();
}

void PatternFiller::Enqueue(std::function<void()> work) {
  const MutexLock lock(mutex_);
  queue_.push_front(std::move(work));
  if (!worker_.joinable()) {
    worker_ = std::thread([this] { Work(); });
  }
  changed_.SignalAll();
}

void PatternFiller::Work() {
  while (true) {
    std::function<void()> work;
    {
      const MutexLock lock(mutex_);
      while (queue_.empty() && !ending_) {
        changed_.Wait(mutex_);
      }
      if (queue_.empty()) {
        return;
      }
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace strata::testing
