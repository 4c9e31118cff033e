// SPDX-License-Identifier: Apache-2.0
#include "client/image/content_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <optional>
#include <set>
#include <utility>

#include "client/file_lock.h"
#include "client/image/image_manifest.h"
#include "client/image/store_index.h"
#include "client/random_name.h"
#include "snapshotters/base/clock.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/directory_entries.h"
#include "snapshotters/registry/reference.h"

namespace strata {
namespace {

constexpr mode_t kFolderMode = 0700;
constexpr mode_t kFileMode = 0600;
constexpr size_t kReadBytes = size_t{1} << 20;
constexpr std::chrono::hours kOldIngest{24};
constexpr std::chrono::milliseconds kLockPatience{10'000};
constexpr const char* kLayout = "{\"imageLayoutVersion\":\"1.0.0\"}";
constexpr const char* kKeepLock = "keep.lock";
constexpr const char* kIndexLock = "index.lock";

std::string HexOf(std::string_view digest) {
  return std::string(digest.substr(digest.find(':') + 1));
}

std::string AlgorithmOf(std::string_view digest) {
  return std::string(digest.substr(0, digest.find(':')));
}

std::string BlobPath(std::string_view digest) {
  return AlgorithmOf(digest) + "/" + HexOf(digest);
}

std::string IngestName(std::string_view digest) {
  return AlgorithmOf(digest) + "-" + HexOf(digest);
}

struct Folders {
  UniqueFd top;
  UniqueFd blobs;
  UniqueFd ingest;
  UniqueFd locks;
};

Status Sync(int fd, std::string_view what) {
  return ::fsync(fd) == 0 ? OkStatus() : ErrnoStatus(errno, "sync " + std::string(what));
}

// The finished file `name` of ingest/ is the blob now, durably.
Status Publish(const Folders& folders, int fd, const std::string& name, std::string_view digest) {
  STRATA_RETURN_IF_ERROR(Sync(fd, "blob '" + std::string(digest) + "'"));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd target,
                          OpenAt(folders.blobs.get(), AlgorithmOf(digest), O_RDONLY | O_DIRECTORY));
  if (::renameat(folders.ingest.get(), name.c_str(), target.get(), HexOf(digest).c_str()) != 0) {
    return ErrnoStatus(errno, "publish blob '" + std::string(digest) + "'");
  }
  return Sync(target.get(), "the folder of blobs");
}

class FileBlobWriter : public BlobWriter {
 public:
  FileBlobWriter(const Folders& folders, const Descriptor& blob, FileLock lock, UniqueFd file)
      : folders_(folders),
        blob_(blob),
        lock_(std::move(lock)),
        file_(std::move(file)),
        digest_(blob.digest) {}
  ~FileBlobWriter() override { lock_.Remove(folders_.locks.get(), LockName(blob_.digest)); }
  FileBlobWriter(const FileBlobWriter&) = delete;
  FileBlobWriter& operator=(const FileBlobWriter&) = delete;

  static std::string LockName(std::string_view digest) { return "blob-" + IngestName(digest); }

  // What an earlier writer has left counts, once it is in the digest.
  Status Resume();

  [[nodiscard]] uint64_t offset() const override { return offset_; }
  Status Write(std::string_view bytes) override;
  Status Reset() override;
  Status Commit() override;
  StatusOr<UniqueFd> OpenForReading() override {
    return OpenAt(folders_.ingest.get(), IngestName(blob_.digest), O_RDONLY);
  }

 private:
  const Folders& folders_;
  const Descriptor blob_;
  FileLock lock_;
  const UniqueFd file_;
  DigestStream digest_;
  uint64_t offset_ = 0;
};

Status FileBlobWriter::Resume() {
  const std::unique_ptr<char[]> buffer(new char[kReadBytes]);
  while (true) {
    const ssize_t count =
        ::pread(file_.get(), buffer.get(), kReadBytes, static_cast<off_t>(offset_));
    if (count < 0) {
      return ErrnoStatus(errno, "read what there is of blob '" + blob_.digest + "'");
    }
    if (count == 0) {
      break;
    }
    digest_.Update({buffer.get(), static_cast<size_t>(count)});
    offset_ += static_cast<uint64_t>(count);
  }
  return blob_.size != 0 && offset_ > blob_.size ? Reset() : OkStatus();
}

Status FileBlobWriter::Write(std::string_view bytes) {
  if (blob_.size != 0 && bytes.size() > blob_.size - offset_) {
    return MakeStatus(StatusCode::kDataLoss, "blob '" + blob_.digest + "' has more than its " +
                                                 std::to_string(blob_.size) + " bytes");
  }
  digest_.Update(bytes);
  while (!bytes.empty()) {
    const ssize_t written =
        ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset_));
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, "write blob '" + blob_.digest + "'");
    }
    offset_ += static_cast<uint64_t>(written);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return OkStatus();
}

Status FileBlobWriter::Reset() {
  if (::ftruncate(file_.get(), 0) != 0) {
    return ErrnoStatus(errno, "begin blob '" + blob_.digest + "' again");
  }
  offset_ = 0;
  (void)digest_.Finish();  // begins anew
  return OkStatus();
}

Status FileBlobWriter::Commit() {
  const std::string found = digest_.Finish();
  const bool is_size = blob_.size == 0 || offset_ == blob_.size;
  if (found != blob_.digest || !is_size) {
    (void)::unlinkat(folders_.ingest.get(), IngestName(blob_.digest).c_str(), 0);  // kept by none
    return MakeStatus(StatusCode::kDataLoss,
                      is_size ? "blob '" + blob_.digest + "' has digest '" + found + "'"
                              : "blob '" + blob_.digest + "' has " + std::to_string(offset_) +
                                    " bytes, expected " + std::to_string(blob_.size));
  }
  return Publish(folders_, file_.get(), IngestName(blob_.digest), blob_.digest);
}

class FileNewBlob : public NewBlob {
 public:
  FileNewBlob(const Folders& folders, std::string name, UniqueFd file)
      : folders_(folders), name_(std::move(name)), file_(std::move(file)) {}
  ~FileNewBlob() override {
    if (!name_.empty()) {
      (void)::unlinkat(folders_.ingest.get(), name_.c_str(), 0);  // swept after a day otherwise
    }
  }
  FileNewBlob(const FileNewBlob&) = delete;
  FileNewBlob& operator=(const FileNewBlob&) = delete;

  Status Write(std::string_view bytes) override {
    digest_.Update(bytes);
    size_ += bytes.size();
    return WriteAll(file_.get(), bytes, "a new blob");
  }
  StatusOr<Descriptor> Commit(const std::string& media_type) override {
    const std::string digest = digest_.Finish();
    STRATA_RETURN_IF_ERROR(Publish(folders_, file_.get(), name_, digest));
    name_.clear();
    return Descriptor{.media_type = media_type, .digest = digest, .size = size_};
  }

 private:
  const Folders& folders_;
  std::string name_;
  const UniqueFd file_;
  DigestStream digest_;
  uint64_t size_ = 0;
};

class FileStoreLock : public StoreLock {
 public:
  FileStoreLock(int folder, std::string name, FileLock lock)
      : folder_(folder), name_(std::move(name)), lock_(std::move(lock)) {}
  ~FileStoreLock() override { lock_.Remove(folder_, name_); }
  FileStoreLock(const FileStoreLock&) = delete;
  FileStoreLock& operator=(const FileStoreLock&) = delete;

 private:
  const int folder_;
  const std::string name_;
  FileLock lock_;
};

class DirectoryContentStore : public ContentStore {
 public:
  explicit DirectoryContentStore(Folders folders) : folders_(std::move(folders)) {}

  [[nodiscard]] bool Has(std::string_view digest) const override;
  StatusOr<UniqueFd> OpenBlob(std::string_view digest) override;
  StatusOr<std::string> ReadBlob(std::string_view digest, uint64_t most) override;
  StatusOr<std::unique_ptr<BlobWriter>> Write(const Descriptor& blob) override;
  StatusOr<std::unique_ptr<NewBlob>> WriteNew() override;
  StatusOr<std::unique_ptr<StoreLock>> KeepBlobs() override;
  Status PutImage(const ImageRecord& image) override;
  StatusOr<ImageRecord> FindImage(std::string_view name) override;
  StatusOr<std::vector<ImageRecord>> ListImages() override;
  Status RemoveImage(std::string_view name) override;
  StatusOr<uint64_t> RemoveUnreferenced() override;

 private:
  StatusOr<StoreIndex> ReadIndex();
  Status ChangeIndex(const std::function<Status(StoreIndex&)>& change);
  StatusOr<std::unique_ptr<StoreLock>> TakeLock(const std::string& name, FileLock::Mode mode,
                                                std::string_view what);
  StatusOr<std::set<std::string>> Referenced();
  StatusOr<uint64_t> RemoveFiles(int folder,
                                 const std::function<bool(const std::string&, TimeNs)>& keep);

  const Folders folders_;
};

bool DirectoryContentStore::Has(std::string_view digest) const {
  struct stat found {};
  return ValidateDigest(digest).ok() &&
         ::fstatat(folders_.blobs.get(), BlobPath(digest).c_str(), &found, AT_SYMLINK_NOFOLLOW) ==
             0 &&
         S_ISREG(found.st_mode);
}

StatusOr<UniqueFd> DirectoryContentStore::OpenBlob(std::string_view digest) {
  STRATA_RETURN_IF_ERROR(ValidateDigest(digest));
  StatusOr<UniqueFd> fd =
      OpenBeneath(folders_.blobs.get(), BlobPath(digest), O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) {
    return Annotate(fd.status(), "blob '" + std::string(digest) + "'");
  }
  return fd;
}

StatusOr<std::string> DirectoryContentStore::ReadBlob(std::string_view digest, uint64_t most) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenBlob(digest));
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) {
    return ErrnoStatus(errno, "stat blob '" + std::string(digest) + "'");
  }
  if (static_cast<uint64_t>(found.st_size) > most) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "blob '" + std::string(digest) + "' has " + std::to_string(found.st_size) +
                          " bytes, at most " + std::to_string(most) + " are read");
  }
  return ReadAll(fd.get(), std::string(digest), most);
}

StatusOr<std::unique_ptr<BlobWriter>> DirectoryContentStore::Write(const Descriptor& blob) {
  STRATA_RETURN_IF_ERROR(ValidateDigest(blob.digest));
  StatusOr<std::optional<FileLock>> lock = FileLock::Try(
      folders_.locks.get(), FileBlobWriter::LockName(blob.digest), FileLock::Mode::kExclusive);
  STRATA_RETURN_IF_ERROR(lock.status());
  if (Has(blob.digest)) {
    return MakeStatus(StatusCode::kAlreadyExists, "blob '" + blob.digest + "' is here");
  }
  if (!lock->has_value()) {
    return MakeStatus(StatusCode::kUnavailable, "blob '" + blob.digest + "' is being written");
  }
  STRATA_ASSIGN_OR_RETURN(UniqueFd file, OpenAt(folders_.ingest.get(), IngestName(blob.digest),
                                                O_RDWR | O_CREAT | O_NONBLOCK, kFileMode));
  auto writer =
      std::make_unique<FileBlobWriter>(folders_, blob, *std::move(*lock), std::move(file));
  STRATA_RETURN_IF_ERROR(writer->Resume());
  return std::unique_ptr<BlobWriter>(std::move(writer));
}

StatusOr<std::unique_ptr<NewBlob>> DirectoryContentStore::WriteNew() {
  while (true) {
    STRATA_ASSIGN_OR_RETURN(std::string name, RandomName());
    name.insert(0, "new-");
    StatusOr<UniqueFd> file =
        OpenAt(folders_.ingest.get(), name, O_RDWR | O_CREAT | O_EXCL, kFileMode);
    if (file.ok()) {
      return std::unique_ptr<NewBlob>(
          std::make_unique<FileNewBlob>(folders_, name, *std::move(file)));
    }
    if (StatusErrno(file.status()) != EEXIST) {
      return file.status();
    }
  }
}

StatusOr<std::unique_ptr<StoreLock>> DirectoryContentStore::TakeLock(const std::string& name,
                                                                     FileLock::Mode mode,
                                                                     std::string_view what) {
  StatusOr<std::optional<FileLock>> lock = FileLock::Try(folders_.locks.get(), name, mode);
  STRATA_RETURN_IF_ERROR(lock.status());
  if (!lock->has_value()) {
    return MakeStatus(StatusCode::kUnavailable, what);
  }
  return std::unique_ptr<StoreLock>(
      std::make_unique<FileStoreLock>(folders_.locks.get(), name, *std::move(*lock)));
}

StatusOr<std::unique_ptr<StoreLock>> DirectoryContentStore::KeepBlobs() {
  return TakeLock(kKeepLock, FileLock::Mode::kShared, "unreferenced blobs are being removed");
}

StatusOr<StoreIndex> DirectoryContentStore::ReadIndex() {
  const StatusOr<std::string> text = ReadFileAt(folders_.top.get(), "index.json", kMostIndexBytes);
  if (!text.ok()) {
    return Annotate(text.status(), "read the index of images");
  }
  return StoreIndex::Parse(*text);
}

Status DirectoryContentStore::ChangeIndex(const std::function<Status(StoreIndex&)>& change) {
  const auto deadline = std::chrono::steady_clock::now() + kLockPatience;
  StatusOr<std::unique_ptr<StoreLock>> lock = MakeStatus(StatusCode::kUnavailable, "");
  while (true) {
    lock = TakeLock(kIndexLock, FileLock::Mode::kExclusive, "the index of images is in use");
    if (lock.ok() || lock.status().code() != StatusCode::kUnavailable ||
        std::chrono::steady_clock::now() >= deadline) {
      break;
    }
    (void)::usleep(1000);  // a change takes no longer than a small file does
  }
  STRATA_RETURN_IF_ERROR(lock.status());
  STRATA_ASSIGN_OR_RETURN(StoreIndex index, ReadIndex());
  STRATA_RETURN_IF_ERROR(change(index));
  return WriteFileAtomicAt(folders_.top.get(), "index.json", index.Text(), kFileMode);
}

Status DirectoryContentStore::PutImage(const ImageRecord& image) {
  return ChangeIndex([&](StoreIndex& index) {
    index.Put(image);
    return OkStatus();
  });
}

StatusOr<ImageRecord> DirectoryContentStore::FindImage(std::string_view name) {
  STRATA_ASSIGN_OR_RETURN(const StoreIndex index, ReadIndex());
  for (const ImageRecord& image : index.Images()) {
    if (image.name == name) {
      return image;
    }
  }
  return MakeStatus(StatusCode::kNotFound, "image " + ShowName(name) + " is not here");
}

StatusOr<std::vector<ImageRecord>> DirectoryContentStore::ListImages() {
  STRATA_ASSIGN_OR_RETURN(const StoreIndex index, ReadIndex());
  return index.Images();
}

Status DirectoryContentStore::RemoveImage(std::string_view name) {
  return ChangeIndex([&](StoreIndex& index) {
    return index.Remove(name)
               ? OkStatus()
               : MakeStatus(StatusCode::kNotFound, "image " + ShowName(name) + " is not here");
  });
}

// Digests that the images lead to.
StatusOr<std::set<std::string>> DirectoryContentStore::Referenced() {
  STRATA_ASSIGN_OR_RETURN(const StoreIndex index, ReadIndex());
  std::set<std::string> digests;
  for (const std::string& top : index.Digests()) {
    digests.insert(top);
    const StatusOr<std::string> text = ReadBlob(top, kMostManifestBytes);
    if (text.status().code() == StatusCode::kNotFound) {
      continue;
    }
    STRATA_RETURN_IF_ERROR(text.status());
    STRATA_ASSIGN_OR_RETURN(const ImageManifest manifest, ParseImageManifest(*text));
    digests.insert(manifest.config.digest);
    for (const ImageLayer& layer : manifest.layers) {
      digests.insert(layer.blob.digest);
    }
  }
  return digests;
}

StatusOr<uint64_t> DirectoryContentStore::RemoveFiles(
    int folder, const std::function<bool(const std::string&, TimeNs)>& keep) {
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> names, DirectoryEntries(folder));
  uint64_t bytes = 0;
  for (const std::string& name : names) {
    struct stat found {};
    if (::fstatat(folder, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(found.st_mode) ||
        keep(name, int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec)) {
      continue;
    }
    if (::unlinkat(folder, name.c_str(), 0) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, "remove blob " + ShowName(name));
    }
    bytes += static_cast<uint64_t>(found.st_blocks) * 512;
  }
  return bytes;
}

StatusOr<uint64_t> DirectoryContentStore::RemoveUnreferenced() {
  STRATA_ASSIGN_OR_RETURN(
      const std::unique_ptr<StoreLock> lock,
      TakeLock(kKeepLock, FileLock::Mode::kExclusive, "blobs are in use by a pull"));
  STRATA_ASSIGN_OR_RETURN(const std::set<std::string> referenced, Referenced());
  uint64_t bytes = 0;
  for (const char* algorithm : {"sha256", "sha512"}) {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd folder,
                            OpenAt(folders_.blobs.get(), algorithm, O_RDONLY | O_DIRECTORY));
    std::string digest;
    STRATA_ASSIGN_OR_RETURN(
        const uint64_t freed,
        RemoveFiles(folder.get(), [&](const std::string& name, TimeNs /*modified*/) {
          digest.assign(algorithm).append(":").append(name);
          return referenced.contains(digest);
        }));
    bytes += freed;
  }
  const TimeNs old = Clock::System().Now() - std::chrono::nanoseconds(kOldIngest).count();
  STRATA_ASSIGN_OR_RETURN(
      const uint64_t freed,
      RemoveFiles(folders_.ingest.get(),
                  [&](const std::string& /*name*/, TimeNs modified) { return modified > old; }));
  return bytes + freed;
}

StatusOr<UniqueFd> MakeFolder(int parent, const std::string& name) {
  if (::mkdirat(parent, name.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "make " + ShowName(name));
  }
  return OpenAt(parent, name, O_RDONLY | O_DIRECTORY);
}

Status CheckLayout(int top) {
  const StatusOr<std::string> layout = ReadFileAt(top, "oci-layout", 4096);
  if (layout.ok()) {
    return OkStatus();
  }
  if (StatusErrno(layout.status()) != ENOENT) {
    return layout.status();
  }
  STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> there, DirectoryEntries(top));
  for (const std::string& name : there) {
    if (name != "blobs" && name != "ingest" && name != "locks" && name != "index.json") {
      return MakeStatus(StatusCode::kFailedPrecondition,
                        ShowName(name) + " is there, expected an OCI image layout or nothing");
    }
  }
  return OkStatus();
}

Status Populate(Folders& folders) {
  STRATA_RETURN_IF_ERROR(CheckLayout(folders.top.get()));
  STRATA_ASSIGN_OR_RETURN(folders.blobs, MakeFolder(folders.top.get(), "blobs"));
  STRATA_ASSIGN_OR_RETURN(folders.ingest, MakeFolder(folders.top.get(), "ingest"));
  STRATA_ASSIGN_OR_RETURN(folders.locks, MakeFolder(folders.top.get(), "locks"));
  for (const char* algorithm : {"sha256", "sha512"}) {
    STRATA_RETURN_IF_ERROR(MakeFolder(folders.blobs.get(), algorithm).status());
  }
  struct stat found {};
  if (::fstatat(folders.top.get(), "index.json", &found, AT_SYMLINK_NOFOLLOW) != 0) {
    STRATA_RETURN_IF_ERROR(
        WriteFileAtomicAt(folders.top.get(), "index.json", StoreIndex().Text(), kFileMode));
  }
  // Last: what has it is complete.
  if (::fstatat(folders.top.get(), "oci-layout", &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return WriteFileAtomicAt(folders.top.get(), "oci-layout", kLayout, kFileMode);
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<ContentStore>> ContentStore::Open(const std::string& directory) {
  Folders folders;
  if (::mkdir(directory.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "make '" + directory + "'");
  }
  StatusOr<UniqueFd> top = OpenFile(directory, O_RDONLY | O_DIRECTORY);
  if (!top.ok()) {
    return StatusErrno(top.status()) == ENOTDIR
               ? MakeStatus(StatusCode::kFailedPrecondition,
                            "content store '" + directory + "' is not a directory")
               : top.status();
  }
  folders.top = *std::move(top);
  STRATA_RETURN_IF_ERROR(Annotate(Populate(folders), "content store '" + directory + "'"));
  return std::unique_ptr<ContentStore>(std::make_unique<DirectoryContentStore>(std::move(folders)));
}

}  // namespace strata
