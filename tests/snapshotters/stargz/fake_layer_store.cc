// SPDX-License-Identifier: Apache-2.0
#include "tests/snapshotters/stargz/fake_layer_store.h"

#include <fcntl.h>

#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/lazy/fallback_reason.h"

namespace strata::testing {
namespace {

// A layer with nothing but its root directory.
std::shared_ptr<LayerImage> BuildEmptyImage(const std::string& directory,
                                            const FakeLayers::Layer& layer) {
  STRATA_CHECK(MakePath(directory, 0700).ok());
  const StatusOr<UniqueFd> fd = OpenFile(directory, O_RDONLY | O_DIRECTORY);
  STRATA_CHECK(fd.ok());
  StatusOr<std::shared_ptr<LayerImage>> image = LayerImage::Open(fd->get(), layer.number);
  if (!image.ok()) {
    LayerPlan plan;
    plan.source = {.reference = "registry.test/image:1",
                   .digest = "sha256:" + std::string(64, '1'),
                   .blob_bytes = 1000,
                   .toc_digest = "sha256:" + std::string(64, '2')};
    plan.footer = {.format = LayerFormat::kEstargz, .payload_end = 900};
    const std::string toc =
        R"({"version":1,"entries":[{"name":"./","type":"dir","mode":493,"uid":)" +
        std::to_string(layer.uid) + R"(,"gid":)" + std::to_string(layer.gid) + "}]}";
    STRATA_CHECK(LayerImage::Build(fd->get(), layer.number, plan, toc).ok());
    image = LayerImage::Open(fd->get(), layer.number);
  }
  STRATA_CHECK(image.ok());
  return *std::move(image);
}

class FakeUse final : public LayerStore::Use, public FillLayer {
 public:
  FakeUse(std::string directory, const FakeLayers::Layer& layer)
      : directory_(std::move(directory)), layer_(layer) {}

  [[nodiscard]] uint64_t number() const override { return layer_.number; }
  [[nodiscard]] FillLayer& layer() override { return *this; }
  [[nodiscard]] LayerImage& image() override {
    if (image_ == nullptr) {
      image_ = BuildEmptyImage(directory_, layer_);
    }
    return *image_;
  }
  [[nodiscard]] State state() const override { return {}; }

 private:
  const std::string directory_;
  const FakeLayers::Layer layer_;
  std::shared_ptr<LayerImage> image_;
};

class FakeLayerStore final : public LayerStore {
 public:
  explicit FakeLayerStore(FakeLayers* layers) : layers_(*layers) {}

  StatusOr<std::shared_ptr<Use>> Get(const LayerRequest& request) override {
    layers_.asked.push_back(request);
    if (layers_.on_get) {
      layers_.on_get();
    }
    const auto answer = layers_.answers.find(request.digest);
    if (answer == layers_.answers.end()) {
      return MakeStatus(StatusCode::kFailedPrecondition, "an ordinary layer");
    }
    STRATA_RETURN_IF_ERROR(answer->second.status());
    const FakeLayers::Layer& layer = *answer->second;
    layers_.on_disk[layer.number] = layer;
    STRATA_RETURN_IF_ERROR(MakePath(PathOf(layer.number), 0755));
    return Find(layer.number);
  }

  void Announce(std::vector<LayerRequest> requests) override {
    layers_.announced.push_back(std::move(requests));
  }

  StatusOr<std::shared_ptr<Use>> Find(uint64_t number) override {
    const auto layer = layers_.on_disk.find(number);
    if (layer == layers_.on_disk.end()) {
      return MakeStatus(StatusCode::kNotFound, "layer " + std::to_string(number) + ": not there");
    }
    const auto use = std::make_shared<FakeUse>(layers_.root.path + "/layers", layer->second);
    layers_.last_use = use;
    return std::shared_ptr<Use>(use);
  }

  [[nodiscard]] std::string PathOf(uint64_t number) const override {
    return layers_.root.path + "/l/" + std::to_string(number);
  }

  StatusOr<Size> SizeOf(uint64_t number) override {
    const auto layer = layers_.on_disk.find(number);
    if (layer == layers_.on_disk.end()) {
      return MakeStatus(StatusCode::kNotFound, "layer " + std::to_string(number) + ": not there");
    }
    return layer->second.size;
  }

  void Reclaim(bool all) override {
    ++layers_.reclaims;
    layers_.reclaims_of_all += all ? 1 : 0;
  }
  std::vector<Row> List() override { return {}; }
  Shown CountShown() override { return {}; }
  void FetchAll() override {}

 private:
  FakeLayers& layers_;
};

class FakeStack final : public LayerStack {
 public:
  explicit FakeStack(FakeLayers* layers) : store_(layers) {}
  LayerStore& layers() override { return store_; }

 private:
  FakeLayerStore store_;
};

}  // namespace

std::function<StatusOr<std::unique_ptr<LayerStack>>(const LayerRoot&)> OpenFake(
    FakeLayers* layers) {
  return [layers](const LayerRoot& root) -> StatusOr<std::unique_ptr<LayerStack>> {
    layers->root = root;
    return std::make_unique<FakeStack>(layers);
  };
}

}  // namespace strata::testing
