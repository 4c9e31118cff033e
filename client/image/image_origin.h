// SPDX-License-Identifier: Apache-2.0
//
// ImageOrigin: where the manifests and blobs of an image are fetched from. Safe from any thread; a
// call blocks its thread until the deadline at most.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/image/content_store.h"
#include "client/image/image_source.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

class ImageOrigin {
 public:
  // Of bytes in their order; a failure ends the fetch with it.
  using Receiver = std::function<Status(std::string_view bytes)>;

  virtual ~ImageOrigin() = default;

  // The manifest or the index that the source itself names. The bytes are not verified.
  virtual StatusOr<std::string> FetchTop(const CallContext& call, Deadline deadline) = 0;
  // The manifest of that digest; not verified either.
  virtual StatusOr<std::string> FetchManifest(const CallContext& call, const Descriptor& manifest,
                                              Deadline deadline) = 0;
  // All bytes from `offset` on. Unimplemented: only from 0.
  virtual Status FetchBlob(const CallContext& call, const Descriptor& blob,
                           const std::vector<std::string>& urls, uint64_t offset, Deadline deadline,
                           const Receiver& receiver) = 0;
};

// `client` must outlive it.
std::unique_ptr<ImageOrigin> NewRegistryOrigin(BlobClient& client, const Reference& reference);

// A directory or an uncompressed tar with an OCI image layout; nothing in it is taken for a path.
// NotFound, InvalidArgument (tags), DataLoss.
StatusOr<std::unique_ptr<ImageOrigin>> OpenLayoutOrigin(const ImageSource& source);

}  // namespace strata
