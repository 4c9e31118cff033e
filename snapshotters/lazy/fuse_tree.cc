// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fuse_tree.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "snapshotters/lazy/layer_number.h"
#include "snapshotters/lazy/layer_state_file.h"

namespace strata {
namespace {

constexpr unsigned kLayerShift = 40;
constexpr uint64_t kNidMask = (uint64_t{1} << kLayerShift) - 1;
// Nothing ever changes. libfuse and the kernel take this to be the largest that they can keep.
constexpr double kForever = 1e12;
// What is not in the image, of a layer with a state file; numbers that no image has.
constexpr uint64_t kStateFolder = kNidMask;
constexpr uint64_t kStateFile = kStateFolder - 1;
constexpr mode_t kStateFolderMode = S_IFDIR | 0500;
constexpr mode_t kStateFileMode = S_IFREG | 0400;

bool IsOfState(uint64_t nid) {
  return nid >= kStateFile;
}

double AttributesHold(uint64_t nid) {
  return nid == kStateFile ? 0 : kForever;
}

void Count(std::atomic<uint64_t>& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

struct stat TopAttributes() {
  struct stat attributes {};
  attributes.st_ino = FUSE_ROOT_ID;
  attributes.st_mode = S_IFDIR | 0755;
  attributes.st_nlink = 2;
  return attributes;
}

// Answers a question for an xattr's value or list: its length, or itself. `bytes` are in memory of
// our own: a reply from the mapped image may have to wait for its page, and fails with EIO when we
// are killed then.
void ReplyXattr(fuse_req_t request, const std::string& bytes, size_t size) {
  if (size == 0) {
    (void)::fuse_reply_xattr(request, bytes.size());
  } else if (bytes.size() > size) {
    (void)::fuse_reply_err(request, ERANGE);
  } else {
    (void)::fuse_reply_buf(request, bytes.data(), bytes.size());
  }
}

}  // namespace

// The answer to one READDIRPLUS.
class FuseTree::Listing {
 public:
  Listing(fuse_req_t request, const Node& directory, size_t size)
      : request_(request), directory_(directory), buffer_(size) {}

  // False: no room.
  bool Add(const ErofsDirectoryEntry& item, uint64_t next) {
    std::memcpy(name_.data(), item.name.data(), item.name.size());
    name_[item.name.size()] = '\0';
    const Node child{directory_.layer, item.nid};
    fuse_entry_param entry{};
    const bool is_dots = item.name == "." || item.name == "..";
    // Without a node the kernel takes the name alone, and asks when somebody wants more of it: so
    // an inode that makes no sense fails by itself.
    if (!FillEntry(child, entry).ok() || is_dots) {
      entry.ino = 0;
      entry.attr.st_ino = IdOf(child);  // C libraries pass over a name whose number is 0
    }
    const std::span<char> room = std::span(buffer_).subspan(used_);
    const size_t bytes = ::fuse_add_direntry_plus(request_, room.data(), room.size(), name_.data(),
                                                  &entry, static_cast<off_t>(next));
    if (bytes > room.size()) {
      return false;
    }
    if (entry.ino != 0) {
      directory_.layer->CountLookup();
      ++lookups_;
    }
    used_ += bytes;
    return true;
  }

  [[nodiscard]] std::string_view bytes() const { return {buffer_.data(), used_}; }
  [[nodiscard]] uint64_t lookups() const { return lookups_; }

 private:
  fuse_req_t request_;
  const Node& directory_;
  std::vector<char> buffer_;
  size_t used_ = 0;
  uint64_t lookups_ = 0;
  std::array<char, kErofsNameMax + 1> name_{};
};

FuseTree::Node FuseTree::Find(fuse_ino_t node) const {
  return {layers_.Find(node >> kLayerShift), node & kNidMask};
}

void FuseTree::Fail(fuse_req_t request) {
  Count(counts_->errors);
  (void)::fuse_reply_err(request, EIO);  // fails when nobody waits any more
}

fuse_ino_t FuseTree::IdOf(const FuseLayers::Layer& layer, uint64_t nid) {
  return (layer.image().number() << kLayerShift) | (nid & kNidMask);
}

bool FuseTree::Knows(void* self, fuse_ino_t node, std::string_view name) {
  uint64_t number = node >> kLayerShift;
  if (node == FUSE_ROOT_ID) {
    const std::optional<uint64_t> parsed = ParseLayerNumber(name);
    if (!parsed.has_value()) {
      return true;
    }
    number = *parsed;
  }
  return static_cast<FuseTree*>(self)->layers_.Find(number) != nullptr;
}

std::optional<uint64_t> FuseTree::FindState(const Node& directory, std::string_view name) const {
  if (!has_state_files_) {
    return std::nullopt;
  }
  if (directory.nid == directory.tree().root() && name == kStateFolderName) {
    return kStateFolder;
  }
  if (directory.nid == kStateFolder && name == StateFileName(directory.layer->image().source())) {
    return kStateFile;
  }
  return std::nullopt;
}

Status FuseTree::FillStat(const Node& node, struct stat& attributes) {
  if (IsOfState(node.nid)) {
    const bool is_folder = node.nid == kStateFolder;
    attributes.st_ino = IdOf(node);
    attributes.st_mode = is_folder ? kStateFolderMode : kStateFileMode;
    attributes.st_nlink = is_folder ? 2 : 1;
    attributes.st_blksize = kErofsBlockBytes;
    if (!is_folder) {
      attributes.st_size = static_cast<off_t>(StateFileText(*node.layer->filled()).size());
    }
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const ErofsStat stat, node.tree().Stat(node.nid));
  attributes.st_ino = IdOf(node);
  attributes.st_mode = stat.mode;
  attributes.st_nlink = stat.nlink;
  attributes.st_uid = stat.uid;
  attributes.st_gid = stat.gid;
  // The reverse of ErofsEncodeDevice().
  attributes.st_rdev =
      ::makedev((stat.rdev >> 8) & 0xfffU, (stat.rdev & 0xffU) | ((stat.rdev >> 12) & ~0xffU));
  attributes.st_size = static_cast<off_t>(stat.size);
  attributes.st_blksize = kErofsBlockBytes;
  // As the kernel's EROFS shows it.
  attributes.st_blocks = static_cast<blkcnt_t>(ErofsAlign(stat.size, kErofsBlockBytes) / 512);
  attributes.st_mtim = {.tv_sec = stat.mtime_s, .tv_nsec = stat.mtime_ns};
  attributes.st_atim = attributes.st_mtim;
  attributes.st_ctim = attributes.st_mtim;
  return OkStatus();
}

Status FuseTree::FillEntry(const Node& node, fuse_entry_param& entry) {
  STRATA_RETURN_IF_ERROR(FillStat(node, entry.attr));
  entry.ino = entry.attr.st_ino;
  entry.attr_timeout = AttributesHold(node.nid);
  entry.entry_timeout = kForever;
  return OkStatus();
}

// The look-up is counted already.
void FuseTree::ReplyEntry(fuse_req_t request, const Node& node) {
  fuse_entry_param entry{};
  const bool known = FillEntry(node, entry).ok();
  // ENOENT: the kernel did not take the answer, and will not forget it.
  if (!known || ::fuse_reply_entry(request, &entry) == -ENOENT) {
    layers_.Uncount(node.layer->image().number(), 1);
  }
  if (!known) {
    Fail(request);
  }
}

void FuseTree::LookupLayer(fuse_req_t request, std::string_view name) {
  const std::shared_ptr<FuseLayers::Layer> layer =
      layers_.Enter(ParseLayerNumber(name).value_or(0));
  if (layer == nullptr) {
    (void)::fuse_reply_err(request, ENOENT);  // not to be remembered: the layer may come
    return;
  }
  ReplyEntry(request, {layer, layer->image().tree().root()});
}

void FuseTree::Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Count(counts_->lookups);
  if (parent == FUSE_ROOT_ID) {
    LookupLayer(request, name);
    return;
  }
  const Node directory = Find(parent);
  if (directory.layer == nullptr) {
    Fail(request);
    return;
  }
  if (std::strlen(name) > kErofsNameMax) {
    (void)::fuse_reply_err(request, ENAMETOOLONG);
    return;
  }
  if (const std::optional<uint64_t> state = FindState(directory, name)) {
    directory.layer->CountLookup();
    ReplyEntry(request, {directory.layer, *state});
    return;
  }
  const auto found = directory.nid == kStateFolder
                         ? StatusOr<std::optional<ErofsDirectoryEntry>>(std::nullopt)
                         : directory.tree().Lookup(directory.nid, name);
  if (!found.ok()) {
    Fail(request);
  } else if (!found->has_value()) {
    fuse_entry_param nothing{};
    nothing.entry_timeout = kForever;
    (void)::fuse_reply_entry(request, &nothing);
  } else {
    directory.layer->CountLookup();
    ReplyEntry(request, {directory.layer, (*found)->nid});
  }
}

void FuseTree::Forget(fuse_ino_t node, uint64_t lookups) {
  if (node != FUSE_ROOT_ID) {
    layers_.Forget(node >> kLayerShift, node & kNidMask, lookups);
  }
}

void FuseTree::GetAttr(fuse_req_t request, fuse_ino_t id) {
  Count(counts_->getattrs);
  struct stat attributes = TopAttributes();
  double timeout = kForever;
  if (id != FUSE_ROOT_ID) {
    const Node node = Find(id);
    timeout = AttributesHold(node.nid);
    if (node.layer == nullptr || !FillStat(node, attributes).ok()) {
      Fail(request);
      return;
    }
  }
  (void)::fuse_reply_attr(request, &attributes, timeout);
}

void FuseTree::ReadLink(fuse_req_t request, fuse_ino_t id) {
  Count(counts_->readlinks);
  const Node node = Find(id);
  if (node.layer == nullptr) {
    Fail(request);
    return;
  }
  const StatusOr<std::string_view> target = node.tree().ReadLink(node.nid);
  if (!target.ok()) {
    Fail(request);
    return;
  }
  // Copied: see ReplyXattr.
  const std::string copy(*target);
  (void)::fuse_reply_buf(request, copy.data(), copy.size());
}

void FuseTree::Open(fuse_req_t request, fuse_ino_t id, fuse_file_info* file) {
  // Nothing of a file that changes is kept.
  const bool changes = Find(id).nid == kStateFile;
  file->direct_io = changes ? 1 : 0;
  file->keep_cache = changes ? 0 : 1;
  (void)(FuseSession::NeedsNoOpen(request) ? ::fuse_reply_err(request, ENOSYS)
                                           : ::fuse_reply_open(request, file));
}

Status FuseTree::ListStateFolder(const Node& folder, uint64_t cursor,
                                 const ErofsReader::DirectoryVisitor& visit) {
  const std::string file = StateFileName(folder.layer->image().source());
  const std::array<ErofsDirectoryEntry, 3> entries = {{{.name = ".", .nid = kStateFolder},
                                                       {.name = "..", .nid = folder.tree().root()},
                                                       {.name = file, .nid = kStateFile}}};
  for (uint64_t i = cursor; i < entries.size() && visit(entries[i], i + 1); ++i) {
  }
  return OkStatus();
}

void FuseTree::ReadDirPlus(fuse_req_t request, fuse_ino_t id, size_t size, off_t offset) {
  Count(counts_->readdirs);
  if (id == FUSE_ROOT_ID) {
    (void)::fuse_reply_buf(request, nullptr, 0);
    return;
  }
  const Node node = Find(id);
  if (node.layer == nullptr) {
    Fail(request);
    return;
  }
  Listing listing(request, node, size);
  const auto begin = static_cast<uint64_t>(offset);
  const auto add = [&](const ErofsDirectoryEntry& entry, uint64_t next) {
    return listing.Add(entry, next);
  };
  const Status status = node.nid == kStateFolder ? ListStateFolder(node, begin, add)
                                                 : node.tree().ReadDir(node.nid, begin, add);
  // What comes before a part that makes no sense is shown; the next call finds it at once.
  const bool failed = !status.ok() && listing.bytes().empty();
  if (failed) {
    Fail(request);
  } else if (::fuse_reply_buf(request, listing.bytes().data(), listing.bytes().size()) == -ENOENT) {
    layers_.Uncount(node.layer->image().number(), listing.lookups());
  }
}

void FuseTree::Read(fuse_req_t request, fuse_ino_t id, size_t size, off_t offset) {
  Count(counts_->reads);
  const Node node = Find(id);
  if (node.layer == nullptr || offset < 0) {
    Fail(request);
    return;
  }
  if (node.nid == kStateFile) {
    const std::string text = StateFileText(*node.layer->filled());
    const std::string_view rest =
        std::string_view(text).substr(std::min<size_t>(text.size(), static_cast<size_t>(offset)));
    (void)::fuse_reply_buf(request, rest.data(), std::min(rest.size(), size));
    return;
  }
  const StatusOr<ErofsStat> stat = node.tree().Stat(node.nid);
  const StatusOr<uint64_t> data = node.tree().DataOffset(node.nid);
  if (!stat.ok() || !data.ok()) {
    Fail(request);
    return;
  }
  const auto begin = static_cast<uint64_t>(offset);
  if (begin >= stat->size || size == 0) {
    (void)::fuse_reply_buf(request, nullptr, 0);
    return;
  }
  const size_t bytes = std::min<uint64_t>(size, stat->size - begin);
  reads_->Read(filler_, node.layer->filled(), *data + begin, bytes, request);
}

void FuseTree::GetXattr(fuse_req_t request, fuse_ino_t id, std::string_view name, size_t size) {
  Count(counts_->getxattrs);
  if (!has_xattrs_) {
    (void)::fuse_reply_err(request, ENOSYS);
    return;
  }
  const Node node = Find(id);
  if (id == FUSE_ROOT_ID || (node.layer != nullptr && IsOfState(node.nid))) {
    (void)::fuse_reply_err(request, ENODATA);
    return;
  }
  if (node.layer == nullptr) {
    Fail(request);
    return;
  }
  const auto value = node.tree().GetXattr(node.nid, name);
  if (!value.ok()) {
    Fail(request);
  } else if (!value->has_value()) {
    (void)::fuse_reply_err(request, ENODATA);
  } else {
    ReplyXattr(request, std::string(**value), size);
  }
}

void FuseTree::ListXattr(fuse_req_t request, fuse_ino_t id, size_t size) {
  Count(counts_->getxattrs);
  if (!has_xattrs_) {
    (void)::fuse_reply_err(request, ENOSYS);
    return;
  }
  std::string names;
  if (id != FUSE_ROOT_ID) {
    // As file systems do: those of the administrator are for him (xattr(7), "Trusted").
    const bool shows_trusted = ::fuse_req_ctx(request)->uid == 0;
    const Node node = Find(id);
    const auto add = [&](std::string_view prefix, std::string_view rest) {
      if (shows_trusted || prefix != "trusted.") {
        names.append(prefix).append(rest).push_back('\0');
      }
    };
    const bool listed =
        node.layer != nullptr && (IsOfState(node.nid) || node.tree().ListXattr(node.nid, add).ok());
    if (!listed) {
      Fail(request);
      return;
    }
  }
  ReplyXattr(request, names, size);
}

void FuseTree::StatFs(fuse_req_t request, fuse_ino_t id) {
  struct statvfs space {};
  space.f_bsize = kErofsBlockBytes;
  space.f_frsize = kErofsBlockBytes;
  space.f_namemax = kErofsNameMax;
  std::vector<std::shared_ptr<FuseLayers::Layer>> layers;
  if (id == FUSE_ROOT_ID) {
    layers = layers_.List();
  } else if (Node node = Find(id); node.layer != nullptr) {
    layers.push_back(std::move(node.layer));
  }
  for (const auto& layer : layers) {
    space.f_blocks += layer->image().tree().image_bytes() / kErofsBlockBytes;
    space.f_files += layer->image().tree().inodes();
  }
  (void)::fuse_reply_statfs(request, &space);
}

fuse_lowlevel_ops FuseTree::Operations() {
  fuse_lowlevel_ops operations{};
  operations.lookup = [](fuse_req_t request, fuse_ino_t parent, const char* name) {
    Of(request).Lookup(request, parent, name);
  };
  operations.forget = [](fuse_req_t request, fuse_ino_t node, uint64_t lookups) {
    Of(request).Forget(node, lookups);
    ::fuse_reply_none(request);
  };
  operations.forget_multi = [](fuse_req_t request, size_t count, fuse_forget_data* forgets) {
    for (const fuse_forget_data& forget : std::span(forgets, count)) {
      Of(request).Forget(forget.ino, forget.nlookup);
    }
    ::fuse_reply_none(request);
  };
  operations.getattr = [](fuse_req_t request, fuse_ino_t node, fuse_file_info* /*file*/) {
    Of(request).GetAttr(request, node);
  };
  operations.readlink = [](fuse_req_t request, fuse_ino_t node) {
    Of(request).ReadLink(request, node);
  };
  operations.open = [](fuse_req_t request, fuse_ino_t node, fuse_file_info* file) {
    Of(request).Open(request, node, file);
  };
  operations.opendir = [](fuse_req_t request, fuse_ino_t /*node*/, fuse_file_info* file) {
    file->keep_cache = 1;
    file->cache_readdir = 1;
    (void)(FuseSession::NeedsNoOpenDir(request) ? ::fuse_reply_err(request, ENOSYS)
                                                : ::fuse_reply_open(request, file));
  };
  operations.read = [](fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                       fuse_file_info* /*file*/) { Of(request).Read(request, node, size, offset); };
  operations.readdirplus = [](fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                              fuse_file_info* /*file*/) {
    Of(request).ReadDirPlus(request, node, size, offset);
  };
  operations.getxattr = [](fuse_req_t request, fuse_ino_t node, const char* name, size_t size) {
    Of(request).GetXattr(request, node, name, size);
  };
  operations.listxattr = [](fuse_req_t request, fuse_ino_t node, size_t size) {
    Of(request).ListXattr(request, node, size);
  };
  operations.statfs = [](fuse_req_t request, fuse_ino_t node) {
    Of(request).StatFs(request, node);
  };
  return operations;
}

}  // namespace strata
