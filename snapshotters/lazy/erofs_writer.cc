// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_writer.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "snapshotters/lazy/crc32c.h"
#include "snapshotters/lazy/erofs_format.h"

namespace strata {
namespace {

constexpr uint32_t kNone = ~uint32_t{0};
constexpr uint64_t kRootOffset = kErofsSuperOffset + sizeof(ErofsSuperBlock);
constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kWhiteoutMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";
constexpr size_t kHardlinkChainMax = 255;
// A tail in the inode's block saves a block; a long one would leave a long gap before it.
constexpr uint64_t kInlineDirectoryMax = 2048;

Status Invalid(std::string_view what, std::string_view path, std::string_view cause) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    std::string(what) + " '" + std::string(path) + "': " + std::string(cause));
}

template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

const ErofsXattrPrefix* FindPrefix(std::string_view name) {
  for (const ErofsXattrPrefix& prefix : kErofsXattrPrefixes) {
    if (prefix.whole_name ? name == prefix.text
                          : name.starts_with(prefix.text) && name.size() > prefix.text.size()) {
      return &prefix;
    }
  }
  return nullptr;
}

Status AppendXattr(const XattrView& xattr, std::string& area) {
  const ErofsXattrPrefix* prefix = FindPrefix(xattr.name);
  if (prefix == nullptr) {
    return Invalid("add xattr", xattr.name, "EROFS has no such prefix");
  }
  const std::string_view name = xattr.name.substr(prefix->text.size());
  if (name.size() > kErofsNameMax || name.find('\0') != std::string_view::npos ||
      xattr.value.size() > std::numeric_limits<uint16_t>::max()) {
    return Invalid("add xattr", xattr.name, "name or value too long for EROFS");
  }
  const ErofsXattrEntry entry = {static_cast<uint8_t>(name.size()), prefix->index,
                                 static_cast<uint16_t>(xattr.value.size())};
  area += BytesOf(entry);
  area += name;
  area += xattr.value;
  area.resize(ErofsAlign(area.size(), sizeof(ErofsXattrEntry)));
  return OkStatus();
}

// Bytes in order, to the file in large pieces.
class ImageOutput {
 public:
  explicit ImageOutput(int fd) : fd_(fd) { buffer_.reserve(kBufferBytes); }

  Status Append(std::string_view bytes) {
    buffer_ += bytes;
    return buffer_.size() < kBufferBytes ? OkStatus() : Flush();
  }
  // Zeros up to `offset`, which is not behind what was written.
  Status PadTo(uint64_t offset) {
    buffer_.resize(buffer_.size() + (offset - (flushed_ + buffer_.size())));
    return OkStatus();
  }
  Status Flush() {
    STRATA_RETURN_IF_ERROR(WriteAt(buffer_, flushed_));
    flushed_ += buffer_.size();
    buffer_.clear();
    return OkStatus();
  }
  Status WriteAt(std::string_view bytes, uint64_t offset) const {
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count <= 0) {
        return ErrnoStatus(count < 0 ? errno : EIO, "write image");
      }
      bytes.remove_prefix(static_cast<size_t>(count));
      offset += static_cast<uint64_t>(count);
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kBufferBytes = size_t{1} << 20;
  int fd_;
  uint64_t flushed_ = 0;
  std::string buffer_;
};

}  // namespace

class ErofsBuilder::Tree {
 public:
  explicit Tree(const ErofsBuilderOptions& options) : options_(options) {
    slots_.resize(1024, kNone);
    (void)NewEntry(kNone, "");  // an empty tree has room for its root
    SetNode(0, {.mode = S_IFDIR | 0755});
  }

  StatusOr<uint32_t> Add(std::string_view path, const ErofsNode& node, std::string_view link_target,
                         std::span<const XattrView> xattrs);
  StatusOr<uint32_t> AddHardlink(std::string_view path, std::string_view target);
  StatusOr<ErofsLayout> Finish(int fd);

 private:
  struct Entry {
    uint64_t size = 0;  // in Finish, of a directory: its dirents' bytes
    int64_t mtime_s = 0;
    uint64_t offset = 0;  // in Finish: where the inode lies
    uint32_t name = 0;    // these four: places in strings_
    uint32_t link = 0;
    uint32_t xattrs = 0;
    uint32_t xattr_bytes = 0;
    uint32_t parent = kNone;
    uint32_t mtime_ns = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint32_t rdev = 0;  // in Finish, of all but devices: the first block of the data
    uint32_t nlink = 0;
    uint32_t children = 0;  // in Finish: place in sorted_
    uint32_t children_count = 0;
    uint16_t mode = 0;  // 0: a hardlink
    uint16_t link_bytes = 0;
    uint8_t name_bytes = 0;
    bool whiteout = false;
    bool opaque = false;
    bool is_inline = false;
    bool in_image = false;
  };

  // The last component of a cleaned path and its directory.
  struct Place {
    uint32_t parent = kNone;
    std::string_view name;
    bool whiteout = false;
    bool left_out = false;
  };

  [[nodiscard]] std::string_view Text(uint32_t at, size_t bytes) const {
    return std::string_view(strings_).substr(at, bytes);
  }
  [[nodiscard]] std::string_view Name(const Entry& entry) const {
    return Text(entry.name, entry.name_bytes);
  }
  [[nodiscard]] std::string_view Link(const Entry& entry) const {
    return Text(entry.link, entry.link_bytes);
  }
  [[nodiscard]] static bool IsDir(const Entry& entry) { return S_ISDIR(entry.mode); }

  StatusOr<uint32_t> Intern(std::string_view bytes);
  StatusOr<uint32_t> NewEntry(uint32_t parent, std::string_view name);
  void SetNode(uint32_t index, const ErofsNode& node);
  [[nodiscard]] size_t SlotOf(uint32_t parent, std::string_view name) const;
  void GrowSlots();
  [[nodiscard]] uint32_t Find(uint32_t parent, std::string_view name) const {
    return slots_[SlotOf(parent, name)];
  }
  [[nodiscard]] StatusOr<uint32_t> FindPath(std::string_view path) const;
  StatusOr<uint32_t> MakeDirectory(uint32_t parent, std::string_view name, std::string_view path);
  StatusOr<Place> PlaceOf(std::string_view path);
  StatusOr<std::string> EncodeXattrs(std::string_view path, std::span<const XattrView> xattrs,
                                     bool opaque) const;
  Status AddOpaqueXattr(Entry& entry);

  Status ResolveHardlinks();
  StatusOr<uint32_t> Resolve(uint32_t hardlink) const;
  void SortChildren();
  void VisitTree();
  Status PlaceInodes(ErofsLayout& layout);
  Status PlaceData(ErofsLayout& layout);
  [[nodiscard]] uint64_t DirectoryBytes(uint32_t directory) const;
  [[nodiscard]] uint64_t InlineBytes(const Entry& entry) const;
  [[nodiscard]] std::string DirectoryData(uint32_t directory) const;
  Status WriteInode(const Entry& entry, uint32_t index, ImageOutput& output) const;
  Status WriteSuperBlock(int fd, const ErofsLayout& layout, const ImageOutput& output) const;
  [[nodiscard]] std::string Tail(uint32_t index) const;

  ErofsBuilderOptions options_;
  std::vector<Entry> entries_;
  std::string strings_;
  std::vector<uint32_t> slots_;     // (parent, name) -> entry, open addressing
  std::vector<uint32_t> resolved_;  // in Finish: entry -> the entry whose inode it is
  std::vector<uint32_t> sorted_;    // in Finish: entries by parent, then name
  std::vector<uint32_t> order_;     // in Finish: the inodes in the order of the image
  uint64_t used_ = 0;
};

StatusOr<uint32_t> ErofsBuilder::Tree::Intern(std::string_view bytes) {
  if (bytes.size() > options_.max_string_bytes - strings_.size()) {
    return MakeStatus(StatusCode::kResourceExhausted, "add entry: too many bytes of names");
  }
  const auto at = static_cast<uint32_t>(strings_.size());
  strings_ += bytes;
  return at;
}

size_t ErofsBuilder::Tree::SlotOf(uint32_t parent, std::string_view name) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = (std::hash<std::string_view>{}(name) ^ (parent * 0x9e3779b97f4a7c15U)) & mask;
  while (slots_[slot] != kNone) {
    const Entry& entry = entries_[slots_[slot]];
    if (entry.parent == parent && Name(entry) == name) {
      break;
    }
    slot = (slot + 1) & mask;
  }
  return slot;
}

void ErofsBuilder::Tree::GrowSlots() {
  const std::vector<uint32_t> old = std::exchange(slots_, {});
  slots_.resize(old.size() * 2, kNone);
  for (const uint32_t index : old) {
    if (index != kNone) {
      slots_[SlotOf(entries_[index].parent, Name(entries_[index]))] = index;
    }
  }
}

StatusOr<uint32_t> ErofsBuilder::Tree::NewEntry(uint32_t parent, std::string_view name) {
  if (entries_.size() >= options_.max_entries) {
    return MakeStatus(StatusCode::kResourceExhausted, "add entry: too many entries");
  }
  if ((used_ + 1) * 2 > slots_.size()) {
    GrowSlots();
  }
  Entry entry;
  STRATA_ASSIGN_OR_RETURN(entry.name, Intern(name));
  entry.name_bytes = static_cast<uint8_t>(name.size());
  entry.parent = parent;
  const auto index = static_cast<uint32_t>(entries_.size());
  if (parent != kNone) {
    const size_t slot = SlotOf(parent, name);
    used_ += slots_[slot] == kNone ? 1 : 0;
    slots_[slot] = index;
  }
  entries_.push_back(entry);
  return index;
}

void ErofsBuilder::Tree::SetNode(uint32_t index, const ErofsNode& node) {
  Entry& entry = entries_[index];
  const bool device = S_ISCHR(node.mode) || S_ISBLK(node.mode);
  entry.mode = static_cast<uint16_t>(node.mode);
  entry.uid = node.uid;
  entry.gid = node.gid;
  entry.mtime_s = node.mtime_s;
  entry.mtime_ns = node.mtime_ns;
  entry.size = S_ISREG(node.mode) ? node.size : 0;
  entry.rdev = device ? node.rdev : 0;
}

StatusOr<uint32_t> ErofsBuilder::Tree::FindPath(std::string_view path) const {
  uint32_t at = 0;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    at = Find(at, path.substr(0, slash));
    if (at == kNone || entries_[at].whiteout) {
      return MakeStatus(StatusCode::kNotFound, "no such entry");
    }
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return at;
}

StatusOr<uint32_t> ErofsBuilder::Tree::MakeDirectory(uint32_t parent, std::string_view name,
                                                     std::string_view path) {
  const uint32_t found = Find(parent, name);
  if (found != kNone && !entries_[found].whiteout) {
    return IsDir(entries_[found]) ? StatusOr<uint32_t>(found)
                                  : Invalid("add", path, "its parent is not a directory");
  }
  STRATA_ASSIGN_OR_RETURN(const uint32_t made, NewEntry(parent, name));
  SetNode(made, {.mode = S_IFDIR | 0755});
  return made;
}

StatusOr<ErofsBuilder::Tree::Place> ErofsBuilder::Tree::PlaceOf(std::string_view path) {
  Place place{.parent = 0, .name = path};
  std::string_view rest = path;
  while (true) {
    const size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    if (name.empty() || name == "." || name == ".." || name.size() > kErofsNameMax ||
        name.find('\0') != std::string_view::npos) {
      return Invalid("add", path, "not a clean relative path, or a name above 255 bytes");
    }
    place.name = name;
    if (slash == std::string_view::npos) {
      break;
    }
    STRATA_ASSIGN_OR_RETURN(place.parent, MakeDirectory(place.parent, name, path));
    rest.remove_prefix(slash + 1);
  }
  if (options_.whiteouts == ErofsWhiteouts::kKeep) {
    return place;
  }
  if (place.name.starts_with(kWhiteoutMetaPrefix)) {
    if (place.name == kOpaqueName) {
      entries_[place.parent].opaque = true;
    }
    place.left_out = true;
    return place;
  }
  if (place.name.starts_with(kWhiteoutPrefix)) {
    place.name.remove_prefix(kWhiteoutPrefix.size());
    if (place.name.empty() || place.name == "." || place.name == "..") {
      return Invalid("add", path, "a whiteout of no name");
    }
    place.whiteout = true;
    place.left_out = Find(place.parent, place.name) != kNone;
    return place;
  }
  place.left_out = place.parent == 0 &&
                   (place.name == ".prefetch.landmark" || place.name == ".no.prefetch.landmark");
  return place;
}

StatusOr<std::string> ErofsBuilder::Tree::EncodeXattrs(std::string_view path,
                                                       std::span<const XattrView> xattrs,
                                                       bool opaque) const {
  const std::string_view own = options_.whiteouts == ErofsWhiteouts::kKeep      ? ""
                               : options_.whiteouts == ErofsWhiteouts::kOverlay ? "trusted.overlay."
                                                                                : "user.overlay.";
  std::string area;
  for (const XattrView& xattr : xattrs) {
    if (own.empty() || !xattr.name.starts_with(own)) {
      STRATA_RETURN_IF_ERROR(AppendXattr(xattr, area));
    }
  }
  if (opaque) {
    const std::string name = std::string(own) + "opaque";
    STRATA_RETURN_IF_ERROR(AppendXattr({.name = name, .value = "y"}, area));
  }
  // Room for the opaque xattr, which a later entry may ask for.
  if (sizeof(ErofsXattrHeader) + area.size() + (opaque ? 0 : 32) > kErofsXattrAreaMax) {
    return Invalid("add", path, "more xattrs than EROFS can keep on one inode");
  }
  return area;
}

StatusOr<uint32_t> ErofsBuilder::Tree::Add(std::string_view path, const ErofsNode& node,
                                           std::string_view link_target,
                                           std::span<const XattrView> xattrs) {
  if (ErofsFileType(node.mode) == 0 || node.mode > 0177777 || node.mtime_ns >= 1'000'000'000 ||
      (S_ISREG(node.mode) && node.size > uint64_t{1} << 44)) {
    return Invalid("add", path, "bad mode, time or size");
  }
  if (S_ISLNK(node.mode) && (link_target.empty() || link_target.size() > kErofsSymlinkMax ||
                             link_target.find('\0') != std::string_view::npos)) {
    return Invalid("add", path, "bad symlink target");
  }
  if (path.empty() && !S_ISDIR(node.mode)) {
    return Invalid("add", path, "the root is a directory");
  }
  STRATA_ASSIGN_OR_RETURN(const std::string area, EncodeXattrs(path, xattrs, false));
  uint32_t index = 0;
  ErofsNode kept = node;
  Place place;
  if (!path.empty()) {
    STRATA_ASSIGN_OR_RETURN(place, PlaceOf(path));
    if (place.left_out) {
      return kLeftOut;
    }
    index = Find(place.parent, place.name);
    const bool same_directory = index != kNone && IsDir(entries_[index]) && S_ISDIR(node.mode);
    if (!same_directory) {
      STRATA_ASSIGN_OR_RETURN(index, NewEntry(place.parent, place.name));
    }
  }
  if (place.whiteout) {
    kept.mode = S_IFCHR;
    kept.rdev = 0;
    entries_[index].whiteout = true;
  } else {
    STRATA_ASSIGN_OR_RETURN(entries_[index].xattrs, Intern(area));
    entries_[index].xattr_bytes = static_cast<uint32_t>(area.size());
  }
  SetNode(index, kept);
  if (S_ISLNK(kept.mode)) {
    STRATA_ASSIGN_OR_RETURN(entries_[index].link, Intern(link_target));
    entries_[index].link_bytes = static_cast<uint16_t>(link_target.size());
    entries_[index].size = link_target.size();
  }
  return index;
}

StatusOr<uint32_t> ErofsBuilder::Tree::AddHardlink(std::string_view path, std::string_view target) {
  if (target.size() > std::numeric_limits<uint16_t>::max()) {
    return Invalid("add hardlink", path, "target too long");
  }
  STRATA_ASSIGN_OR_RETURN(const Place place, PlaceOf(path));
  if (place.left_out) {
    return kLeftOut;
  }
  STRATA_ASSIGN_OR_RETURN(const uint32_t link, Intern(target));
  STRATA_ASSIGN_OR_RETURN(const uint32_t index, NewEntry(place.parent, place.name));
  Entry& entry = entries_[index];
  if (place.whiteout) {
    entry.mode = S_IFCHR;
    entry.whiteout = true;
    return index;
  }
  entry.link = link;
  entry.link_bytes = static_cast<uint16_t>(target.size());
  return index;
}

StatusOr<uint32_t> ErofsBuilder::Tree::Resolve(uint32_t hardlink) const {
  uint32_t at = hardlink;
  for (size_t step = 0; entries_[at].mode == 0; ++step) {
    // A loop, or a chain so long that a tree of them would take quadratic time.
    if (step == kHardlinkChainMax) {
      return Invalid("resolve hardlink", Name(entries_[hardlink]), "too many hardlinks in a row");
    }
    if (resolved_[at] != at) {
      return resolved_[at];
    }
    const StatusOr<uint32_t> next = FindPath(Link(entries_[at]));
    if (!next.ok()) {
      return Invalid("resolve hardlink", Name(entries_[hardlink]), "no such target");
    }
    at = *next;
  }
  if (IsDir(entries_[at])) {
    return Invalid("resolve hardlink", Name(entries_[hardlink]), "it leads to a directory");
  }
  return at;
}

Status ErofsBuilder::Tree::ResolveHardlinks() {
  resolved_.resize(entries_.size());
  for (uint32_t index = 0; index < entries_.size(); ++index) {
    resolved_[index] = index;
  }
  for (const uint32_t index : sorted_) {
    if (entries_[index].mode == 0) {
      STRATA_ASSIGN_OR_RETURN(const uint32_t target, Resolve(index));
      resolved_[index] = target;
    }
  }
  return OkStatus();
}

// Only what is still in the table of names: what was replaced is not.
void ErofsBuilder::Tree::SortChildren() {
  for (const uint32_t index : slots_) {
    if (index != kNone) {
      sorted_.push_back(index);
    }
  }
  slots_.shrink_to_fit();
  std::sort(sorted_.begin(), sorted_.end(), [this](uint32_t a, uint32_t b) {
    const Entry& left = entries_[a];
    const Entry& right = entries_[b];
    return left.parent != right.parent ? left.parent < right.parent : Name(left) < Name(right);
  });
  for (uint32_t at = 0; at < sorted_.size(); ++at) {
    Entry& parent = entries_[entries_[sorted_[at]].parent];
    if (parent.children_count++ == 0) {
      parent.children = at;
    }
  }
}

// Directories level by level, each one's entries together, as a listing wants their inodes.
void ErofsBuilder::Tree::VisitTree() {
  order_.push_back(0);
  entries_[0].in_image = true;
  entries_[0].nlink = 2;
  for (size_t next = 0; next < order_.size(); ++next) {
    const uint32_t directory = order_[next];
    if (!IsDir(entries_[directory])) {
      continue;
    }
    for (uint32_t at = 0; at < entries_[directory].children_count; ++at) {
      const uint32_t inode = resolved_[sorted_[entries_[directory].children + at]];
      Entry& entry = entries_[inode];
      entry.nlink += IsDir(entry) ? 2 : 1;
      entries_[directory].nlink += IsDir(entry) ? 1 : 0;
      if (!entry.in_image) {
        entry.in_image = true;
        order_.push_back(inode);
      }
    }
  }
}

uint64_t ErofsBuilder::Tree::DirectoryBytes(uint32_t directory) const {
  return DirectoryData(directory).size();
}

std::string ErofsBuilder::Tree::DirectoryData(uint32_t directory) const {
  const Entry& self = entries_[directory];
  std::vector<std::pair<std::string_view, uint32_t>> names;
  names.reserve(self.children_count + 2U);
  names.emplace_back(".", directory);
  names.emplace_back("..", self.parent == kNone ? directory : self.parent);
  for (uint32_t at = 0; at < self.children_count; ++at) {
    const uint32_t child = sorted_[self.children + at];
    names.emplace_back(Name(entries_[child]), resolved_[child]);
  }
  std::sort(names.begin(), names.end());  // some names sort before "."
  std::string data;
  for (size_t first = 0; first < names.size();) {
    size_t end = first;
    uint64_t bytes = 0;
    while (end < names.size() &&
           bytes + sizeof(ErofsDirent) + names[end].first.size() <= kErofsBlockBytes) {
      bytes += sizeof(ErofsDirent) + names[end].first.size();
      ++end;
    }
    data.resize(ErofsAlign(data.size(), kErofsBlockBytes));
    auto name_offset = static_cast<uint16_t>((end - first) * sizeof(ErofsDirent));
    for (size_t at = first; at < end; ++at) {
      const Entry& entry = entries_[names[at].second];
      const ErofsDirent dirent = {entry.offset / kErofsNidBytes, name_offset,
                                  ErofsFileType(entry.mode), 0};
      data += BytesOf(dirent);
      name_offset = static_cast<uint16_t>(name_offset + names[at].first.size());
    }
    for (size_t at = first; at < end; ++at) {
      data += names[at].first;
    }
    first = end;
  }
  return data;
}

uint64_t ErofsBuilder::Tree::InlineBytes(const Entry& entry) const {
  const uint64_t head = sizeof(ErofsDiskInode) +
                        (entry.xattr_bytes == 0 ? 0 : sizeof(ErofsXattrHeader) + entry.xattr_bytes);
  const bool may = S_ISLNK(entry.mode) || (IsDir(entry) && entry.size <= kInlineDirectoryMax);
  const uint64_t room =
      &entry == entries_.data() ? kErofsBlockBytes - kRootOffset : kErofsBlockBytes;
  return may && head + entry.size <= room ? head + entry.size : 0;
}

Status ErofsBuilder::Tree::AddOpaqueXattr(Entry& entry) {
  const std::string area(Text(entry.xattrs, entry.xattr_bytes));
  STRATA_ASSIGN_OR_RETURN(const std::string mark, EncodeXattrs("", {}, true));
  STRATA_ASSIGN_OR_RETURN(entry.xattrs, Intern(area + mark));
  entry.xattr_bytes = static_cast<uint32_t>(area.size() + mark.size());
  return OkStatus();
}

Status ErofsBuilder::Tree::PlaceInodes(ErofsLayout& layout) {
  uint64_t at = kRootOffset;
  for (const uint32_t index : order_) {
    Entry& entry = entries_[index];
    if (entry.opaque && IsDir(entry)) {
      STRATA_RETURN_IF_ERROR(AddOpaqueXattr(entry));
    }
    if (IsDir(entry)) {
      entry.size = DirectoryBytes(index);
    }
    const uint64_t inline_bytes = InlineBytes(entry);
    entry.is_inline = inline_bytes != 0;
    const uint64_t head =
        sizeof(ErofsDiskInode) +
        (entry.xattr_bytes == 0 ? 0 : sizeof(ErofsXattrHeader) + entry.xattr_bytes);
    // Neither an inode nor one with its tail crosses a block.
    const uint64_t together = entry.is_inline ? inline_bytes : sizeof(ErofsDiskInode);
    at = ErofsAlign(at, kErofsNidBytes);
    if (at / kErofsBlockBytes != (at + together - 1) / kErofsBlockBytes) {
      at = ErofsAlign(at, kErofsBlockBytes);
    }
    entry.offset = at;
    layout.nid[index] = at / kErofsNidBytes;
    at += entry.is_inline ? inline_bytes : head;
  }
  layout.metadata_bytes = ErofsAlign(at, kErofsBlockBytes);
  return OkStatus();
}

Status ErofsBuilder::Tree::PlaceData(ErofsLayout& layout) {
  uint64_t at = layout.metadata_bytes;
  const auto place = [&at](Entry& entry) {
    entry.rdev = static_cast<uint32_t>(at / kErofsBlockBytes);
    at += ErofsAlign(entry.size, kErofsBlockBytes);
    return at / kErofsBlockBytes <= std::numeric_limits<uint32_t>::max();
  };
  bool fits = true;
  for (const uint32_t index : order_) {
    Entry& entry = entries_[index];
    if (!entry.is_inline && (IsDir(entry) || S_ISLNK(entry.mode))) {
      fits = fits && place(entry);
    }
  }
  layout.metadata_bytes = at;
  for (uint32_t index = 0; index < entries_.size(); ++index) {
    Entry& entry = entries_[index];
    if (fits && entry.in_image && S_ISREG(entry.mode) && entry.size != 0) {
      layout.data_offset[index] = at;
      fits = place(entry);
    }
  }
  layout.image_bytes = at;
  return fits ? OkStatus()
              : MakeStatus(StatusCode::kResourceExhausted, "write image: more than 16 TiB");
}

std::string ErofsBuilder::Tree::Tail(uint32_t index) const {
  const Entry& entry = entries_[index];
  return IsDir(entry) ? DirectoryData(index) : std::string(Link(entry));
}

Status ErofsBuilder::Tree::WriteInode(const Entry& entry, uint32_t index,
                                      ImageOutput& output) const {
  ErofsDiskInode inode{};
  inode.format = entry.is_inline ? kErofsFormatInline : kErofsFormatPlain;
  inode.mode = entry.mode;
  inode.size = entry.size;
  inode.block_or_rdev = entry.rdev;
  inode.ino = index + 1;
  inode.uid = entry.uid;
  inode.gid = entry.gid;
  inode.mtime_s = entry.mtime_s;
  inode.mtime_ns = entry.mtime_ns;
  inode.nlink = entry.nlink;
  if (entry.xattr_bytes != 0) {
    inode.xattr_count = static_cast<uint16_t>(1 + entry.xattr_bytes / 4);
  }
  STRATA_RETURN_IF_ERROR(output.PadTo(entry.offset));
  STRATA_RETURN_IF_ERROR(output.Append(BytesOf(inode)));
  if (entry.xattr_bytes != 0) {
    STRATA_RETURN_IF_ERROR(output.Append(BytesOf(ErofsXattrHeader{})));
    STRATA_RETURN_IF_ERROR(output.Append(Text(entry.xattrs, entry.xattr_bytes)));
  }
  return entry.is_inline ? output.Append(Tail(index)) : OkStatus();
}

Status ErofsBuilder::Tree::WriteSuperBlock(int fd, const ErofsLayout& layout,
                                           const ImageOutput& output) const {
  std::array<uint8_t, kErofsBlockBytes> block{};
  if (::pread(fd, block.data(), block.size(), 0) != static_cast<ssize_t>(block.size())) {
    return ErrnoStatus(errno != 0 ? errno : EIO, "read image");
  }
  ErofsSuperBlock super{};
  super.magic = kErofsMagic;
  super.feature_compat = kErofsCompatChecksum | kErofsCompatMtime;
  super.block_bits = kErofsBlockBits;
  super.root_nid = static_cast<uint16_t>(kRootOffset / kErofsNidBytes);
  super.inodes = order_.size();
  super.blocks = static_cast<uint32_t>(layout.image_bytes / kErofsBlockBytes);
  super.uuid = options_.uuid;
  const auto sum = [&] {
    std::memcpy(block.data() + kErofsSuperOffset, &super, sizeof(super));
    return ~Crc32c(std::span(block).subspan(kErofsSuperOffset));
  };
  super.checksum = sum();
  return output.WriteAt(BytesOf(super), kErofsSuperOffset);
}

StatusOr<ErofsLayout> ErofsBuilder::Tree::Finish(int fd) {
  SortChildren();
  STRATA_RETURN_IF_ERROR(ResolveHardlinks());
  VisitTree();
  ErofsLayout layout;
  layout.data_offset.assign(entries_.size(), ErofsLayout::kNoData);
  layout.nid.assign(entries_.size(), 0);
  STRATA_RETURN_IF_ERROR(PlaceInodes(layout));
  STRATA_RETURN_IF_ERROR(PlaceData(layout));
  ImageOutput output(fd);
  for (const uint32_t index : order_) {
    STRATA_RETURN_IF_ERROR(WriteInode(entries_[index], index, output));
  }
  for (const uint32_t index : order_) {
    const Entry& entry = entries_[index];
    if (!entry.is_inline && (IsDir(entry) || S_ISLNK(entry.mode))) {
      STRATA_RETURN_IF_ERROR(output.PadTo(uint64_t{entry.rdev} * kErofsBlockBytes));
      STRATA_RETURN_IF_ERROR(output.Append(Tail(index)));
    }
  }
  STRATA_RETURN_IF_ERROR(output.PadTo(layout.metadata_bytes));
  STRATA_RETURN_IF_ERROR(output.Flush());
  STRATA_RETURN_IF_ERROR(WriteSuperBlock(fd, layout, output));
  if (::ftruncate(fd, static_cast<off_t>(layout.image_bytes)) != 0) {
    return ErrnoStatus(errno, "truncate image");
  }
  for (uint32_t index = 0; index < entries_.size(); ++index) {
    layout.nid[index] = layout.nid[resolved_[index]];
  }
  return layout;
}

ErofsBuilder::ErofsBuilder(std::unique_ptr<Tree> tree) : tree_(std::move(tree)) {}
ErofsBuilder::~ErofsBuilder() = default;

StatusOr<std::unique_ptr<ErofsBuilder>> ErofsBuilder::Create(const ErofsBuilderOptions& options) {
  if (options.max_entries == 0 || options.max_string_bytes >= uint64_t{1} << 32) {
    return MakeStatus(StatusCode::kInvalidArgument, "create image builder: bad limits");
  }
  return std::unique_ptr<ErofsBuilder>(new ErofsBuilder(std::make_unique<Tree>(options)));
}

StatusOr<uint32_t> ErofsBuilder::Add(std::string_view path, const ErofsNode& node,
                                     std::string_view link_target,
                                     std::span<const XattrView> xattrs) {
  return tree_->Add(path, node, link_target, xattrs);
}

StatusOr<uint32_t> ErofsBuilder::AddHardlink(std::string_view path, std::string_view target) {
  return tree_->AddHardlink(path, target);
}

StatusOr<ErofsLayout> ErofsBuilder::Finish(int fd) {
  if (tree_ == nullptr) {
    return MakeStatus(StatusCode::kFailedPrecondition, "write image: already written");
  }
  StatusOr<ErofsLayout> layout = tree_->Finish(fd);
  tree_.reset();
  return layout;
}

}  // namespace strata
