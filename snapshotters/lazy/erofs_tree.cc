// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_tree.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

namespace strata {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kWhiteoutMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";
constexpr size_t kHardlinkChainMax = 255;

Status Invalid(std::string_view what, std::string_view path, std::string_view cause) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    std::string(what) + " '" + std::string(path) + "': " + std::string(cause));
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
  area += ErofsBytes(entry);
  area += name;
  area += xattr.value;
  area.resize(ErofsAlign(area.size(), sizeof(ErofsXattrEntry)));
  return OkStatus();
}

}  // namespace

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

}  // namespace strata
