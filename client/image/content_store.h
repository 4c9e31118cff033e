// SPDX-License-Identifier: Apache-2.0
//
// ContentStore: blobs by their digest and images by their name, in a directory that is an OCI
// image layout (index.json, oci-layout, blobs/<algorithm>/<hex>), with what is still being fetched
// beside it (ingest/). Nothing is under blobs/ that has not been verified. Safe from any thread,
// and from several processes: index.json is replaced as a whole, under a lock that is not held
// while anything is fetched.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

struct Descriptor {
  std::string media_type;
  std::string digest;
  uint64_t size = 0;
};

struct ImageRecord {
  std::string name;
  Descriptor manifest;  // of one platform, not of an index
};

// A blob on its way in. What was written and not committed stays for the next writer of that
// digest. One thread at a time; one writer of a digest at a time: the second waits or is refused.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // So many bytes are there already, from a writer that did not get to its end.
  [[nodiscard]] virtual uint64_t offset() const = 0;
  virtual Status Write(std::string_view bytes) = 0;
  // Begins from nothing again.
  virtual Status Reset() = 0;
  // DataLoss: digest or size are not those; then nothing is kept. Durable when OK.
  virtual Status Commit() = 0;
  // What was written so far can be read by it, at any offset.
  virtual StatusOr<UniqueFd> OpenForReading() = 0;
};

// A blob that is made here: its digest is known at the end. One thread at a time.
class NewBlob {
 public:
  virtual ~NewBlob() = default;
  virtual Status Write(std::string_view bytes) = 0;
  // Durable when OK. Without it nothing is kept.
  virtual StatusOr<Descriptor> Commit(const std::string& media_type) = 0;
};

// Keeps blobs while it lives; ends with the process, too.
class StoreLock {
 public:
  virtual ~StoreLock() = default;
};

class ContentStore {
 public:
  virtual ~ContentStore() = default;

  // Made when missing (0700). FailedPrecondition: something else is there.
  static StatusOr<std::unique_ptr<ContentStore>> Open(const std::string& directory);

  [[nodiscard]] virtual bool Has(std::string_view digest) const = 0;
  // NotFound. Read-only, at the beginning.
  virtual StatusOr<UniqueFd> OpenBlob(std::string_view digest) = 0;
  // At most `most` bytes: ResourceExhausted beyond.
  virtual StatusOr<std::string> ReadBlob(std::string_view digest, uint64_t most) = 0;
  // AlreadyExists: it is here. `size` 0: not known. Unavailable: another process is at it.
  virtual StatusOr<std::unique_ptr<BlobWriter>> Write(const Descriptor& blob) = 0;
  virtual StatusOr<std::unique_ptr<NewBlob>> WriteNew() = 0;

  // RemoveUnreferenced removes no blob while this lives: for blobs that an image will lead to.
  // Unavailable: it is at work just now.
  virtual StatusOr<std::unique_ptr<StoreLock>> KeepBlobs() = 0;

  virtual Status PutImage(const ImageRecord& image) = 0;  // replaces one of the same name
  virtual StatusOr<ImageRecord> FindImage(std::string_view name) = 0;
  virtual StatusOr<std::vector<ImageRecord>> ListImages() = 0;
  virtual Status RemoveImage(std::string_view name) = 0;
  // Removes blobs that no image leads to, and what has been in ingest/ for a day; bytes that this
  // gives back. Unavailable: KeepBlobs.
  virtual StatusOr<uint64_t> RemoveUnreferenced() = 0;
};

}  // namespace strata
