// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_table.h"

#include <optional>

namespace strata {
namespace {

bool Holds(const std::optional<Sha256Digest>& pin, const std::string& digest) {
  return !pin || digest == ShowSha256(*pin);
}

// "host/repository" of a reference.
std::string_view RepositoryOf(std::string_view reference) {
  reference = reference.substr(0, reference.find('@'));
  const size_t slash = reference.rfind('/');
  const size_t colon = reference.find(':', slash == std::string_view::npos ? 0 : slash);
  return reference.substr(0, colon);
}

}  // namespace

LayerStore::Row RowOf(const StoredLayer& layer) {
  const FillLayer::State state = layer.fill->state();
  const LayerSource& source = layer.source();
  return {.number = layer.number(),
          .reference = source.reference,
          .digest = source.digest,
          .detail = std::string(StatusMessage(state.last_error)),
          .has_error = !state.last_error.ok(),
          .blob_bytes = source.blob_bytes,
          .chunks = layer.image().chunks().chunks(),
          .present_chunks = state.present_chunks,
          .allocated_bytes = layer.image().AllocatedBytes().value_or(0),
          .disk_full = state.disk_full};
}

bool Answers(const LayerSource& source, const LayerQuestion& question, bool user_xattr) {
  if (source.digest != question.request.digest || source.user_xattr != user_xattr) {
    return false;
  }
  if (question.ahead) {
    return source.verified;
  }
  if (question.pinned(source.format)) {
    const bool by_checksum = source.format == LayerFormat::kZstdChunked ||
                             source.format == LayerFormat::kZstdChunkedContainers;
    return source.verified && Holds(question.pin.toc_digest, source.toc_digest) &&
           (!by_checksum || Holds(question.pin.manifest_checksum, source.toc_compressed_digest));
  }
  // What another image's manifest vouches for is not to be believed by those that ask for no proof
  // but the word of their own registry.
  return (question.policy.disabled || question.policy.allow_unpinned) &&
         RepositoryOf(source.reference) == RepositoryOf(question.request.reference);
}

bool IsSameLayer(const LayerSource& a, const LayerSource& b) {
  return a.digest == b.digest && a.toc_digest == b.toc_digest && a.user_xattr == b.user_xattr &&
         a.verified == b.verified &&
         (a.verified || RepositoryOf(a.reference) == RepositoryOf(b.reference));
}

void LayerTable::Add(const Layer& layer) {
  by_number_.emplace(layer->number(), layer);
  by_digest_.emplace(layer->source().digest, layer);
}

void LayerTable::Remove(uint64_t number) {
  by_number_.erase(number);
  std::erase_if(by_digest_, [number](const auto& item) { return item.second->number() == number; });
}

LayerTable::Layer LayerTable::Find(uint64_t number) const {
  const auto found = by_number_.find(number);
  return found == by_number_.end() ? nullptr : found->second;
}

LayerTable::Layer LayerTable::Match(const LayerQuestion& question, bool user_xattr) const {
  const auto [begin, end] = by_digest_.equal_range(question.request.digest);
  for (auto it = begin; it != end; ++it) {
    if (Answers(it->second->source(), question, user_xattr)) {
      return it->second;
    }
  }
  return nullptr;
}

LayerTable::Layer LayerTable::Same(const LayerSource& source) const {
  const auto [begin, end] = by_digest_.equal_range(source.digest);
  for (auto it = begin; it != end; ++it) {
    if (IsSameLayer(it->second->source(), source)) {
      return it->second;
    }
  }
  return nullptr;
}

std::vector<LayerTable::Layer> LayerTable::all() const {
  std::vector<Layer> layers;
  for (const auto& [number, layer] : by_number_) {
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace strata
