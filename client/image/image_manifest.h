// SPDX-License-Identifier: Apache-2.0
//
// Manifests and indexes of images, OCI's and Docker's (schema 2), and which manifest of an index is
// for a platform. Plain data and pure functions; safe from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "client/image/content_store.h"
#include "client/image/image_config.h"
#include "snapshotters/base/status.h"

namespace strata {

inline constexpr uint64_t kMostManifestBytes = uint64_t{4}
                                               << 20;  // distribution-spec asks for so much
inline constexpr uint64_t kMostConfigBytes = uint64_t{8} << 20;

inline constexpr std::string_view kOciManifestType = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kOciConfigType = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kOciGzipLayerType = "application/vnd.oci.image.layer.v1.tar+gzip";

struct ImageLayer {
  Descriptor blob;
  std::map<std::string, std::string> annotations;
  std::vector<std::string> urls;
};

struct ImageManifest {
  std::string media_type;
  Descriptor config;
  std::vector<ImageLayer> layers;  // the lowest first
};

struct IndexEntry {
  Descriptor manifest;
  Platform platform;  // empty fields: not said
  bool has_platform = false;
  std::string name;  // org.opencontainers.image.ref.name
};

// Whether the text is an index, by what is in it: media types are often not said.
bool IsImageIndex(std::string_view json);

// DataLoss: it is none, or a digest or size in it is not valid. Unimplemented: Docker's schema 1,
// or an artifact that is no image.
StatusOr<ImageManifest> ParseImageManifest(std::string_view json);
StatusOr<std::vector<IndexEntry>> ParseImageIndex(std::string_view json);

// The architecture as images have it (x86_64 is amd64), variants where there is only one left out.
Platform NormalizePlatform(Platform platform);
std::string ShowPlatform(const Platform& platform);

// The one that fits best: the variant itself, else the next lower one that such a machine runs too
// (arm v7: v6, v5), else one that names no platform. NotFound says which platforms there are.
StatusOr<IndexEntry> ChoosePlatform(const std::vector<IndexEntry>& entries,
                                    const Platform& platform);

}  // namespace strata
