// SPDX-License-Identifier: Apache-2.0
//
// LayerTree: the directory that a layer is applied to, by the paths of an archive. Every path is
// walked component by component, as a root of its own: symlinks among the parents are followed
// inside it, the last component never is, and nothing outside can be reached whatever is swapped
// meanwhile. On an overlay's upper folder it also knows what is below, and brings parents and link
// targets up as overlayfs would. One thread at a time.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata {

// The path of an entry, taken apart: no "..", no NUL, no empty or "." component.
struct EntryPath {
  std::string parent;  // "" for the top
  std::string name;    // "" for the top itself
};

// "a/b/", "./a//b" and "/a/b" are all a/b. InvalidArgument: a "..", or longer than PATH_MAX.
StatusOr<EntryPath> SplitEntryPath(std::string_view text);

class LayerTree {
 public:
  struct Options {
    bool overlay_upper = false;
    bool user_xattr = false;
    // What is below the upper folder, merged, read-only; called when it is first needed.
    std::function<StatusOr<UniqueFd>()> open_lower;
  };
  struct Directory {
    UniqueFd fd;
    std::string path;          // from the top, without symlinks; "" for the top
    bool shows_lower = false;  // what is below an upper folder is to be seen here
  };
  struct Place {
    std::shared_ptr<const Directory> directory;
    std::string name;
    [[nodiscard]] int fd() const { return directory->fd.get(); }
    [[nodiscard]] std::string Path() const;
  };
  enum class Missing { kMake, kLeave };

  // `top` must outlive this.
  static StatusOr<LayerTree> Create(int top, Options options);

  // Where the entry is to be. Parents that are missing are made (0755), or are NotFound.
  StatusOr<Place> Find(const EntryPath& path, Missing missing);

  // The directory itself, ready for its attributes: the one that is there, or a new one instead of
  // what is there.
  StatusOr<std::shared_ptr<const Directory>> MakeDirectory(const Place& place);
  // Nothing is at that place any more.
  Status Clear(const Place& place);
  // An entry of this layer is there now.
  void Made(const Place& place);

  // Where the target of a hardlink is: brought up when it was below. NotFound.
  StatusOr<Place> FindLinkTarget(const EntryPath& path);

  // What lower layers have at that place goes; what this one has made there stays.
  Status WhiteOut(const Place& place);
  // The same for all that is in that directory.
  Status MakeOpaque(const std::string& path);

  // Times that the directory has in the end.
  Status SetTimes(const Directory& directory, const timespec& modified);
  // Gives directories those times, or, where only their contents changed, the ones they had.
  Status Finish();

 private:
  struct Walk;
  struct DirectoryTimes {
    dev_t device = 0;
    ino_t inode = 0;
    timespec accessed{};
    timespec modified{};
  };

  LayerTree(int top, Options options) : top_(top), options_(std::move(options)) {}

  StatusOr<std::shared_ptr<const Directory>> FindDirectory(const std::string& path,
                                                           Missing missing);
  Status Step(Walk& walk, const std::string& name, Missing missing);
  Status StepOver(Walk& walk, const std::string& name, const struct stat& found);
  Status StepMissing(Walk& walk, const std::string& name, Missing missing, bool whited_out);
  Status Enter(Walk& walk, const std::string& name, UniqueFd fd);
  Status Follow(Walk& walk, const std::string& target);
  Status GoTo(Walk& walk, const std::string& path);
  StatusOr<Walk> BeginWalk(const std::string& path);

  // Nothing: it is not there, or the upper folder hides it.
  StatusOr<std::optional<struct stat>> StatLower(const std::string& path);
  StatusOr<int> Lower();
  StatusOr<UniqueFd> CopyUpDirectory(int parent, const std::string& path);
  Status CopyUp(const Place& place, const struct stat& found);
  Status SetOpaque(int fd);
  StatusOr<bool> IsOpaque(int fd);
  Status RemoveForeign(const std::string& path);
  Status RemoveForeignIn(const std::string& path);
  Status NoteTimes(const Directory& directory);
  [[nodiscard]] bool IsWhiteout(const struct stat& found) const;

  int top_;
  Options options_;
  bool tracks_made_ = false;  // there is something foreign in the tree
  std::optional<UniqueFd> lower_;
  std::unordered_map<std::string, std::shared_ptr<const Directory>> directories_;
  std::unordered_set<std::string> made_;  // and all directories above
  std::map<std::string, DirectoryTimes> times_;
};

}  // namespace strata
