// SPDX-License-Identifier: Apache-2.0
#include "client/image/layer_apply.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "client/image/entry_attributes.h"
#include "client/image/layer_tree.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
// OCI image-spec, layer.md, "Whiteouts"; the longer prefix is what AUFS kept for itself.
constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kAufs = ".wh..wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
// Of a header, its PAX records and padding, more or less: bounds what is no file's data.
constexpr uint64_t kBytesPerEntry = 4096;

// The names in a layer are bytes. libarchive would convert those of PAX headers from UTF-8 into the
// charset of the locale; in "C" it cannot, says so with a warning, and leaves them as they are.
class PlainLocale {
 public:
  PlainLocale() : plain_(::newlocale(LC_ALL_MASK, "C", locale_t{})), before_(::uselocale(plain_)) {}
  ~PlainLocale() {
    (void)::uselocale(before_);
    ::freelocale(plain_);
  }
  PlainLocale(const PlainLocale&) = delete;
  PlainLocale& operator=(const PlainLocale&) = delete;

 private:
  const locale_t plain_;
  const locale_t before_;
};

Status Broken(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, why);
}

// What the archive asked for and the file system cannot be asked for is the archive's fault.
Status Blame(const Status& status) {
  switch (StatusErrno(status).value_or(0)) {
    case E2BIG:
    case EINVAL:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOENT:
    case ENOTDIR:
    case EFBIG:
    case ERANGE:
      return Broken(StatusMessage(status));
    default:
      return status.code() == StatusCode::kInvalidArgument ? Broken(StatusMessage(status)) : status;
  }
}

class LayerApplier {
 public:
  LayerApplier(const CallContext& call, const TarSource& source, LayerTree tree,
               const ApplyOptions& options)
      : call_(call),
        source_(source),
        tree_(std::move(tree)),
        options_(options),
        archive_(::archive_read_new(), ::archive_read_free),
        buffer_(new char[kReadBytes]) {}

  StatusOr<Applied> Run();

 private:
  static la_ssize_t Read(archive* handle, void* self, const void** bytes);

  // As Read, for ourselves.
  StatusOr<size_t> Take();
  [[nodiscard]] Status Failure() const;
  [[nodiscard]] bool IsAboutCharset() const;
  Status Open();
  Status ApplyEntry(archive_entry* entry);
  Status ApplyWhiteout(const EntryPath& path);
  Status Make(archive_entry* entry, const LayerTree::Place& place);
  Status MakeDirectory(const LayerTree::Place& place, const EntryAttributes& attributes);
  Status MakeFile(archive_entry* entry, const LayerTree::Place& place,
                  const EntryAttributes& attributes);
  Status WriteData(int fd, uint64_t size);
  Status WriteBlock(int fd, const char* bytes, size_t count, uint64_t offset);
  Status MakeSymlink(archive_entry* entry, const LayerTree::Place& place,
                     const EntryAttributes& attributes);
  Status MakeNode(archive_entry* entry, const LayerTree::Place& place,
                  const EntryAttributes& attributes);
  Status MakeHardlink(const char* target, const LayerTree::Place& place);
  Status Drain();

  const CallContext& call_;
  const TarSource& source_;
  LayerTree tree_;
  const ApplyOptions& options_;
  const std::unique_ptr<archive, int (*)(archive*)> archive_;
  const std::unique_ptr<char[]> buffer_;
  Status source_status_;
  uint64_t read_ = 0;
  Applied applied_;
};

la_ssize_t LayerApplier::Read(archive* handle, void* self, const void** bytes) {
  auto* applier = static_cast<LayerApplier*>(self);
  *bytes = applier->buffer_.get();
  const StatusOr<size_t> count = applier->Take();
  if (!count.ok()) {
    applier->source_status_ = count.status();
    ::archive_set_error(handle, EIO, "the source failed");
    return -1;
  }
  return static_cast<la_ssize_t>(*count);
}

StatusOr<size_t> LayerApplier::Take() {
  STRATA_ASSIGN_OR_RETURN(const size_t count, source_(buffer_.get(), kReadBytes));
  read_ += count;
  const uint64_t most = options_.max_bytes + options_.max_entries * kBytesPerEntry;
  if (read_ > most) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "a layer's tar of more than " + std::to_string(most) + " bytes");
  }
  return count;
}

Status LayerApplier::Failure() const {
  if (!source_status_.ok()) {
    return source_status_;
  }
  const char* why = ::archive_error_string(archive_.get());
  return Broken(why == nullptr ? "the archive is damaged" : why);
}

// There is no number for it.
bool LayerApplier::IsAboutCharset() const {
  const char* why = ::archive_error_string(archive_.get());
  return why != nullptr &&
         std::string_view(why).find("can't be converted from UTF-8") != std::string_view::npos;
}

Status LayerApplier::Open() {
  // A layer of no bytes is an archive of nothing (so Go's reader has it, and with it all builders).
  if (::archive_read_support_format_tar(archive_.get()) != ARCHIVE_OK ||
      ::archive_read_support_format_empty(archive_.get()) != ARCHIVE_OK ||
      ::archive_read_open(archive_.get(), this, nullptr, &LayerApplier::Read, nullptr) !=
          ARCHIVE_OK) {
    return Annotate(Failure(), "read the layer's tar");
  }
  return OkStatus();
}

StatusOr<Applied> LayerApplier::Run() {
  STRATA_RETURN_IF_ERROR(Open());
  while (true) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    archive_entry* entry = nullptr;
    const int result = ::archive_read_next_header(archive_.get(), &entry);
    if (result == ARCHIVE_EOF) {
      break;
    }
    // ARCHIVE_RETRY stands for a header that was skipped, ARCHIVE_WARN for a part of one.
    if (result != ARCHIVE_OK && (result != ARCHIVE_WARN || !IsAboutCharset())) {
      return Annotate(Failure(),
                      "read the layer's tar behind entry " + std::to_string(applied_.entries));
    }
    if (++applied_.entries > options_.max_entries) {
      return MakeStatus(
          StatusCode::kResourceExhausted,
          "a layer of more than " + std::to_string(options_.max_entries) + " entries");
    }
    const char* name = ::archive_entry_pathname(entry);
    if (name == nullptr) {
      return Broken("layer entry " + std::to_string(applied_.entries) + " has no name");
    }
    const std::string shown = "layer entry " + ShowName(name);
    STRATA_RETURN_IF_ERROR(Annotate(Blame(ApplyEntry(entry)), shown));
  }
  STRATA_RETURN_IF_ERROR(Drain());
  STRATA_RETURN_IF_ERROR(Annotate(tree_.Finish(), "finish the directories"));
  return applied_;
}

Status LayerApplier::Drain() {
  while (true) {
    STRATA_RETURN_IF_ERROR(call_.Check());
    STRATA_ASSIGN_OR_RETURN(const size_t count, Take());
    if (count == 0) {
      return OkStatus();
    }
  }
}

Status LayerApplier::ApplyEntry(archive_entry* entry) {
  STRATA_ASSIGN_OR_RETURN(const EntryPath path, SplitEntryPath(::archive_entry_pathname(entry)));
  const std::string in_front = "/" + path.parent;
  if (in_front.find("/.wh.") != std::string::npos) {
    return Broken("a whiteout is no directory");
  }
  if (path.name.starts_with(kWhiteout)) {
    return ApplyWhiteout(path);
  }
  STRATA_ASSIGN_OR_RETURN(const LayerTree::Place place,
                          tree_.Find(path, LayerTree::Missing::kMake));
  return Make(entry, place);
}

Status LayerApplier::ApplyWhiteout(const EntryPath& path) {
  Status status;
  if (path.name == kOpaque) {
    status = tree_.MakeOpaque(path.parent);
  } else if (path.name.starts_with(kAufs)) {
    if (options_.note) {
      options_.note(ShowName(path.name) + " is left out: it is AUFS' own");
    }
    return OkStatus();
  } else {
    const std::string hidden = path.name.substr(kWhiteout.size());
    if (hidden.empty() || hidden == "." || hidden == "..") {
      return Broken("a whiteout of no name");
    }
    const StatusOr<LayerTree::Place> place =
        tree_.Find({path.parent, hidden}, LayerTree::Missing::kLeave);
    status = place.ok() ? tree_.WhiteOut(*place) : place.status();
  }
  // Where the directory is not there, there is nothing to be hidden.
  return StatusErrno(status) == ENOENT ? OkStatus() : status;
}

Status LayerApplier::Make(archive_entry* entry, const LayerTree::Place& place) {
  const char* hardlink = ::archive_entry_hardlink(entry);
  const auto type = ::archive_entry_filetype(entry);
  if (place.name.empty() && (hardlink != nullptr || type != AE_IFDIR)) {
    return Broken("the top is a directory");
  }
  if (hardlink != nullptr) {
    return MakeHardlink(hardlink, place);
  }
  STRATA_ASSIGN_OR_RETURN(const EntryAttributes attributes, ReadAttributes(entry, options_.note));
  switch (type) {
    case AE_IFDIR:
      return MakeDirectory(place, attributes);
    case AE_IFREG:
      return MakeFile(entry, place, attributes);
    case AE_IFLNK:
      return MakeSymlink(entry, place, attributes);
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
      return MakeNode(entry, place, attributes);
    default:
      return Broken("it is of no known type");
  }
}

Status LayerApplier::MakeDirectory(const LayerTree::Place& place,
                                   const EntryAttributes& attributes) {
  STRATA_ASSIGN_OR_RETURN(const auto directory, tree_.MakeDirectory(place));
  STRATA_RETURN_IF_ERROR(SetAttributes({.fd = directory->fd.get(), .directory = true}, attributes,
                                       options_.user_namespace, options_.note));
  return tree_.SetTimes(*directory, attributes.modified);
}

Status LayerApplier::MakeFile(archive_entry* entry, const LayerTree::Place& place,
                              const EntryAttributes& attributes) {
  const int64_t size = ::archive_entry_size(entry);
  if (size < 0) {
    return Broken("its size is " + std::to_string(size));
  }
  if (static_cast<uint64_t>(size) > options_.max_bytes) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      "a file of " + std::to_string(size) + " bytes, at most " +
                          std::to_string(options_.max_bytes) + " are allowed");
  }
  STRATA_RETURN_IF_ERROR(tree_.Clear(place));
  STRATA_ASSIGN_OR_RETURN(
      const UniqueFd fd,
      OpenAt(place.fd(), place.name, O_WRONLY | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR));
  tree_.Made(place);
  STRATA_RETURN_IF_ERROR(WriteData(fd.get(), static_cast<uint64_t>(size)));
  return SetAttributes({.fd = fd.get()}, attributes, options_.user_namespace, options_.note);
}

Status LayerApplier::WriteData(int fd, uint64_t size) {
  uint64_t end = 0;
  while (true) {
    const void* bytes = nullptr;
    size_t count = 0;
    la_int64_t offset = 0;
    const int result = ::archive_read_data_block(archive_.get(), &bytes, &count, &offset);
    if (result == ARCHIVE_EOF) {
      break;
    }
    if (result != ARCHIVE_OK) {
      return Failure();
    }
    const auto at = static_cast<uint64_t>(offset);
    if (offset < 0 || at > size || count > size - at) {
      return Broken("data beyond its size of " + std::to_string(size) + " bytes");
    }
    if (at < end) {
      return Broken("its sparse map goes back");
    }
    applied_.bytes += count;
    if (applied_.bytes > options_.max_bytes) {
      return MakeStatus(
          StatusCode::kResourceExhausted,
          "a layer of more than " + std::to_string(options_.max_bytes) + " bytes of files");
    }
    STRATA_RETURN_IF_ERROR(call_.Check());
    STRATA_RETURN_IF_ERROR(WriteBlock(fd, static_cast<const char*>(bytes), count, at));
    end = at + count;
  }
  // What a sparse file ends with may be a hole.
  if (end < size && ::ftruncate(fd, static_cast<off_t>(size)) != 0) {
    return ErrnoStatus(errno, "give it its size of " + std::to_string(size) + " bytes");
  }
  return OkStatus();
}

Status LayerApplier::WriteBlock(int fd, const char* bytes, size_t count, uint64_t offset) {
  while (count > 0) {
    const ssize_t written = ::pwrite(fd, bytes, count, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, "write it");
    }
    bytes += written;
    count -= static_cast<size_t>(written);
    offset += static_cast<uint64_t>(written);
  }
  return OkStatus();
}

Status LayerApplier::MakeSymlink(archive_entry* entry, const LayerTree::Place& place,
                                 const EntryAttributes& attributes) {
  const char* target = ::archive_entry_symlink(entry);
  if (target == nullptr || *target == '\0') {
    return Broken("a symlink without a target");
  }
  STRATA_RETURN_IF_ERROR(tree_.Clear(place));
  if (::symlinkat(target, place.fd(), place.name.c_str()) != 0) {
    return ErrnoStatus(errno, "make the symlink");
  }
  tree_.Made(place);
  return SetAttributes({.dirfd = place.fd(), .name = place.name, .symlink = true}, attributes,
                       options_.user_namespace, options_.note);
}

Status LayerApplier::MakeNode(archive_entry* entry, const LayerTree::Place& place,
                              const EntryAttributes& attributes) {
  const auto type = static_cast<mode_t>(::archive_entry_filetype(entry));
  if (type != AE_IFIFO && options_.user_namespace) {
    if (options_.note) {
      options_.note("device " + ShowName(place.Path()) +
                    " is left out: a user namespace cannot make it");
    }
    return OkStatus();
  }
  const auto major = static_cast<unsigned>(::archive_entry_rdevmajor(entry));
  const auto minor = static_cast<unsigned>(::archive_entry_rdevminor(entry));
  const dev_t device = type == AE_IFIFO ? 0 : makedev(major, minor);
  STRATA_RETURN_IF_ERROR(tree_.Clear(place));
  if (::mknodat(place.fd(), place.name.c_str(), type | S_IRUSR | S_IWUSR, device) != 0) {
    return ErrnoStatus(errno, "make the node");
  }
  tree_.Made(place);
  return SetAttributes({.dirfd = place.fd(), .name = place.name}, attributes,
                       options_.user_namespace, options_.note);
}

// Owner, mode and the like are those of the file itself, which has them already.
Status LayerApplier::MakeHardlink(const char* target, const LayerTree::Place& place) {
  const std::string shown = "link it to " + ShowName(target);
  const StatusOr<EntryPath> path = SplitEntryPath(target);
  STRATA_RETURN_IF_ERROR(Annotate(path.status(), shown));
  if (path->name.empty()) {
    return Broken(shown + ": the top is a directory");
  }
  const StatusOr<LayerTree::Place> there = tree_.FindLinkTarget(*path);
  STRATA_RETURN_IF_ERROR(Annotate(there.status(), shown));
  struct stat from {};
  struct stat to {};
  if (::fstatat(there->fd(), there->name.c_str(), &from, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, shown);
  }
  if (S_ISDIR(from.st_mode)) {
    return Broken(shown + ": it is a directory");
  }
  if (::fstatat(place.fd(), place.name.c_str(), &to, AT_SYMLINK_NOFOLLOW) == 0 &&
      from.st_dev == to.st_dev && from.st_ino == to.st_ino) {
    tree_.Made(place);
    return OkStatus();  // it is that file
  }
  STRATA_RETURN_IF_ERROR(tree_.Clear(place));
  if (::linkat(there->fd(), there->name.c_str(), place.fd(), place.name.c_str(), 0) != 0) {
    return ErrnoStatus(errno, shown);
  }
  tree_.Made(place);
  return OkStatus();
}

}  // namespace

StatusOr<Applied> ApplyLayer(const CallContext& call, const TarSource& source, int directory,
                             const ApplyOptions& options) {
  const PlainLocale plain;
  STRATA_ASSIGN_OR_RETURN(LayerTree tree,
                          LayerTree::Create(directory, {.overlay_upper = options.overlay_upper,
                                                        .user_xattr = options.user_xattr,
                                                        .open_lower = options.open_lower}));
  return LayerApplier(call, source, std::move(tree), options).Run();
}

}  // namespace strata
