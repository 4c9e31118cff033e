// SPDX-License-Identifier: Apache-2.0
//
// StoreIndex: the index.json of a content store: images by their names (OCI image-layout). Entries
// of others are kept as they are. A value: no thread rule.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "client/image/content_store.h"
#include "snapshotters/base/status.h"

namespace strata {

inline constexpr size_t kMostIndexBytes = size_t{64} << 20;

class StoreIndex {
 public:
  StoreIndex();
  // DataLoss: it is no index.
  static StatusOr<StoreIndex> Parse(std::string_view text);

  void Put(const ImageRecord& image);
  // False: it is not in it.
  bool Remove(std::string_view name);
  [[nodiscard]] std::vector<ImageRecord> Images() const;
  // Of all manifests, named or not.
  [[nodiscard]] std::vector<std::string> Digests() const;
  [[nodiscard]] std::string Text() const;

 private:
  nlohmann::json root_;
};

}  // namespace strata
