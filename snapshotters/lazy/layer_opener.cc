// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_opener.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>

#include "snapshotters/base/log.h"
#include "snapshotters/lazy/layer_resolver.h"

namespace strata {
namespace {

StatusOr<std::shared_ptr<LayerImage>> OpenOne(int layers_fd, uint64_t number, ImageFiles& files) {
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<LayerImage> image,
                          LayerImage::Open(layers_fd, number, files));
  // What cannot be asked for bytes is of no use.
  const Status source = BlobSourceOf(image->source()).status();
  if (!source.ok()) {
    return MakeStatus(StatusCode::kDataLoss, StatusMessage(source));
  }
  return image;
}

void GiveUp(LayerDirectory& directory, uint64_t number, const Status& why) {
  const bool is_bad = why.code() == StatusCode::kDataLoss;
  LogError(is_bad ? "layer does not hold and is set aside" : "layer cannot be opened",
           {{"layer", std::to_string(number)}, {"error", std::string(StatusMessage(why))}});
  if (!is_bad) {
    return;
  }
  if (const Status status = directory.SetAside(number); !status.ok()) {
    LogWarn("layer is not set aside, ignoring", {{"error", std::string(StatusMessage(status))}});
  }
}

}  // namespace

std::vector<std::shared_ptr<LayerImage>> OpenLayers(LayerDirectory& directory, ImageFiles& files,
                                                    int threads) {
  const std::vector<uint64_t>& numbers = directory.found();
  std::vector<StatusOr<std::shared_ptr<LayerImage>>> opened(numbers.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < numbers.size(); i = next++) {
      opened[i] = OpenOne(directory.fd(), numbers[i], files);
    }
  };
  std::vector<std::thread> others;
  const size_t most = std::min<size_t>(static_cast<size_t>(threads), numbers.size());
  for (size_t i = 1; i < most; ++i) {
    others.emplace_back(work);
  }
  work();
  for (std::thread& other : others) {
    other.join();
  }
  std::vector<std::shared_ptr<LayerImage>> images;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (opened[i].ok()) {
      images.push_back(*std::move(opened[i]));
    } else {
      GiveUp(directory, numbers[i], opened[i].status());
    }
  }
  return images;
}

}  // namespace strata
