// SPDX-License-Identifier: Apache-2.0
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include "client/image/image_manifest.h"
#include "client/image/image_origin.h"
#include "client/image/store_index.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr size_t kMostEntries = 100'000;

// A part of a file.
struct Span {
  UniqueFd fd;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// The files of a layout: by names that the layout itself defines, "index.json" and
// "blobs/ALGORITHM/HEX".
class LayoutFiles {
 public:
  virtual ~LayoutFiles() = default;
  virtual StatusOr<Span> Find(const std::string& name) = 0;
};

class DirectoryFiles : public LayoutFiles {
 public:
  explicit DirectoryFiles(UniqueFd directory) : directory_(std::move(directory)) {}

  StatusOr<Span> Find(const std::string& name) override {
    Span span;
    STRATA_ASSIGN_OR_RETURN(span.fd, OpenBeneath(directory_.get(), name, O_RDONLY | O_NONBLOCK));
    struct stat found {};
    if (::fstat(span.fd.get(), &found) != 0) {
      return ErrnoStatus(errno, "stat '" + name + "'");
    }
    if (!S_ISREG(found.st_mode)) {
      return MakeStatus(StatusCode::kDataLoss, "'" + name + "' is not a file");
    }
    span.size = static_cast<uint64_t>(found.st_size);
    return span;
  }

 private:
  const UniqueFd directory_;
};

class ArchiveFiles : public LayoutFiles {
 public:
  explicit ArchiveFiles(UniqueFd file) : file_(std::move(file)) {}

  // Where each entry's bytes are.
  Status ReadEntries();

  StatusOr<Span> Find(const std::string& name) override {
    const auto found = spans_.find(name);
    if (found == spans_.end()) {
      return MakeStatus(StatusCode::kNotFound, "'" + name + "' is not in the archive");
    }
    UniqueFd fd(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
    if (!fd.valid()) {
      return ErrnoStatus(errno, "open '" + name + "'");
    }
    return Span{std::move(fd), found->second.first, found->second.second};
  }

 private:
  Status Note(archive* handle, archive_entry* entry);

  const UniqueFd file_;
  std::map<std::string, std::pair<uint64_t, uint64_t>> spans_;  // offset, size
};

Status ArchiveFiles::Note(archive* handle, archive_entry* entry) {
  const char* text = ::archive_entry_pathname(entry);
  if (text == nullptr) {
    return MakeStatus(StatusCode::kDataLoss, "an entry has no name");
  }
  std::string_view name = text;
  while (name.starts_with("./")) {
    name.remove_prefix(2);
  }
  const std::string slashed = "/" + std::string(name) + "/";
  if (name.starts_with('/') || slashed.find("/../") != std::string::npos) {
    return MakeStatus(StatusCode::kDataLoss,
                      "entry " + ShowName(name) + " leads out of the archive");
  }
  const bool is_file = ::archive_entry_filetype(entry) == AE_IFREG &&
                       ::archive_entry_hardlink(entry) == nullptr &&
                       ::archive_entry_sparse_count(entry) == 0;
  const bool is_wanted = name == "index.json" || name.starts_with("blobs/");
  if (!is_wanted || ::archive_entry_filetype(entry) == AE_IFDIR) {
    return OkStatus();
  }
  const int64_t size = ::archive_entry_size(entry);
  if (!is_file || size < 0) {
    return MakeStatus(StatusCode::kDataLoss, "entry " + ShowName(name) + " is not a plain file");
  }
  // What has been read of the file is up to the entry's data.
  spans_[std::string(name)] = {static_cast<uint64_t>(::archive_filter_bytes(handle, 0)),
                               static_cast<uint64_t>(size)};
  return OkStatus();
}

Status ArchiveFiles::ReadEntries() {
  const std::unique_ptr<archive, int (*)(archive*)> handle(::archive_read_new(),
                                                           ::archive_read_free);
  const auto failure = [&handle] {
    const char* why = ::archive_error_string(handle.get());
    return MakeStatus(StatusCode::kDataLoss, std::string("not an uncompressed tar: ") +
                                                 (why == nullptr ? "damaged" : why));
  };
  if (::archive_read_support_format_tar(handle.get()) != ARCHIVE_OK ||
      ::archive_read_open_fd(handle.get(), file_.get(), kPieceBytes) != ARCHIVE_OK) {
    return failure();
  }
  for (size_t count = 0; count < kMostEntries; ++count) {
    archive_entry* entry = nullptr;
    const int result = ::archive_read_next_header(handle.get(), &entry);
    if (result == ARCHIVE_EOF) {
      return OkStatus();
    }
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
      return failure();
    }
    STRATA_RETURN_IF_ERROR(Note(handle.get(), entry));
  }
  return MakeStatus(StatusCode::kResourceExhausted,
                    "more than " + std::to_string(kMostEntries) + " entries");
}

Status ReadSpan(const Span& span, uint64_t offset, const CallContext& call,
                const ImageOrigin::Receiver& receiver) {
  const std::unique_ptr<char[]> buffer(new char[kPieceBytes]);
  while (offset < span.size) {
    STRATA_RETURN_IF_ERROR(call.Check());
    const auto want = static_cast<size_t>(std::min<uint64_t>(kPieceBytes, span.size - offset));
    const ssize_t count =
        ::pread(span.fd.get(), buffer.get(), want, static_cast<off_t>(span.offset + offset));
    if (count < 0) {
      return ErrnoStatus(errno, "read the layout");
    }
    if (count == 0) {
      return MakeStatus(StatusCode::kDataLoss, "the layout is cut off");
    }
    STRATA_RETURN_IF_ERROR(receiver({buffer.get(), static_cast<size_t>(count)}));
    offset += static_cast<uint64_t>(count);
  }
  return OkStatus();
}

class LayoutOrigin : public ImageOrigin {
 public:
  LayoutOrigin(std::unique_ptr<LayoutFiles> files, ImageSource source)
      : files_(std::move(files)), source_(std::move(source)) {}

  StatusOr<std::string> FetchTop(const CallContext& call, Deadline deadline) override;
  StatusOr<std::string> FetchManifest(const CallContext& call, const Descriptor& manifest,
                                      Deadline /*deadline*/) override {
    return Whole(call, NameOf(manifest.digest), kMostManifestBytes);
  }
  Status FetchBlob(const CallContext& call, const Descriptor& blob,
                   const std::vector<std::string>& /*urls*/, uint64_t offset, Deadline /*deadline*/,
                   const Receiver& receiver) override {
    STRATA_ASSIGN_OR_RETURN(const Span span, files_->Find(NameOf(blob.digest)));
    return ReadSpan(span, offset, call, receiver);
  }

 private:
  static std::string NameOf(std::string digest) {
    digest[digest.find(':')] = '/';  // a valid digest
    return "blobs/" + digest;
  }
  StatusOr<std::string> Whole(const CallContext& call, const std::string& name, uint64_t most);

  const std::unique_ptr<LayoutFiles> files_;
  const ImageSource source_;
};

StatusOr<std::string> LayoutOrigin::Whole(const CallContext& call, const std::string& name,
                                          uint64_t most) {
  STRATA_ASSIGN_OR_RETURN(const Span span, files_->Find(name));
  if (span.size > most) {
    return MakeStatus(StatusCode::kDataLoss, "'" + name + "' has " + std::to_string(span.size) +
                                                 " bytes, at most " + std::to_string(most) +
                                                 " are read");
  }
  std::string text;
  STRATA_RETURN_IF_ERROR(ReadSpan(span, 0, call, [&text](std::string_view bytes) {
    text += bytes;
    return OkStatus();
  }));
  return text;
}

StatusOr<std::string> LayoutOrigin::FetchTop(const CallContext& call, Deadline deadline) {
  STRATA_ASSIGN_OR_RETURN(const std::string text, Whole(call, "index.json", kMostIndexBytes));
  STRATA_ASSIGN_OR_RETURN(const std::vector<IndexEntry> entries, ParseImageIndex(text));
  std::string names;
  const IndexEntry* found = nullptr;
  size_t count = 0;
  for (const IndexEntry& entry : entries) {
    names += (names.empty() ? "" : ", ") + ShowName(entry.name);
    if (source_.tag.empty() || entry.name == source_.tag) {
      found = &entry;
      ++count;
    }
  }
  if (found == nullptr) {
    return MakeStatus(StatusCode::kNotFound,
                      "no image " + ShowName(source_.tag) + " in '" + source_.path +
                          "'; there are: " + (names.empty() ? std::string("none") : names));
  }
  if (count > 1 && source_.tag.empty()) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "'" + source_.path + "' has several images, name one of: " + names);
  }
  STRATA_ASSIGN_OR_RETURN(std::string manifest, FetchManifest(call, found->manifest, deadline));
  // Nobody above knows what it was to be: a tag names no digest.
  DigestStream hash(found->manifest.digest);
  hash.Update(manifest);
  if (const std::string digest = hash.Finish(); digest != found->manifest.digest) {
    return MakeStatus(StatusCode::kDataLoss, "manifest '" + found->manifest.digest + "' in '" +
                                                 source_.path + "' has digest '" + digest + "'");
  }
  return manifest;
}

}  // namespace

StatusOr<std::unique_ptr<ImageOrigin>> OpenLayoutOrigin(const ImageSource& source) {
  std::unique_ptr<LayoutFiles> files;
  if (source.kind == ImageSource::Kind::kOciArchive) {
    STRATA_ASSIGN_OR_RETURN(UniqueFd file, OpenFile(source.path, O_RDONLY | O_NONBLOCK));
    auto archive = std::make_unique<ArchiveFiles>(std::move(file));
    STRATA_RETURN_IF_ERROR(Annotate(archive->ReadEntries(), "archive '" + source.path + "'"));
    files = std::move(archive);
  } else {
    STRATA_ASSIGN_OR_RETURN(UniqueFd directory, OpenFile(source.path, O_RDONLY | O_DIRECTORY));
    files = std::make_unique<DirectoryFiles>(std::move(directory));
  }
  return std::unique_ptr<ImageOrigin>(std::make_unique<LayoutOrigin>(std::move(files), source));
}

}  // namespace strata
