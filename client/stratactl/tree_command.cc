// SPDX-License-Identifier: Apache-2.0
//
// stratactl tree: see snapshot_commands.h.
#include <absl/strings/numbers.h>
#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string_view>
#include <utility>

#include "client/stratactl/snapshot_commands.h"
#include "client/stratactl/table.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/lazy_layer_link.h"

namespace strata {
namespace {

using Json = nlohmann::json;

constexpr TimeNs kSecond = 1'000'000'000;
// Of a snapshot in the table; JSON has all.
constexpr size_t kMostUsers = 4;

std::string ShowUser(const MountUser& user) {
  std::string text = user.mount_point;
  if (user.pids.empty() || (user.is_here && user.mount_point != "/")) {
    return text;  // everybody sees it
  }
  for (size_t i = 0; i < user.pids.size(); ++i) {
    text += (i == 0 ? " (pid " : " ") + std::to_string(user.pids[i]);
  }
  return text + ")";
}

std::string ShowUsers(const std::vector<MountUser>& users) {
  std::string text;
  for (size_t i = 0; i < std::min(users.size(), kMostUsers); ++i) {
    text += (i == 0 ? "" : ", ") + ShowUser(users[i]);
  }
  if (users.size() > kMostUsers) {
    text += " and " + std::to_string(users.size() - kMostUsers) + " more";
  }
  return text;
}

Json ToJson(const std::vector<MountUser>& users) {
  Json list = Json::array();
  for (const MountUser& user : users) {
    list.push_back({{"mount_point", user.mount_point},
                    {"mount_namespace", user.mount_namespace},
                    {"here", user.is_here},
                    {"pids", user.pids}});
  }
  return list;
}

// The snapshots by number in the list, with the edges between them.
class Forest {
 public:
  explicit Forest(const std::vector<UsedSnapshot>& snapshots)
      : snapshots_(snapshots), children_(snapshots.size()), is_shown_(snapshots.size()) {
    std::map<std::pair<std::string_view, std::string_view>, size_t> by_name;
    for (size_t i = 0; i < snapshots.size(); ++i) {
      by_name[{snapshots[i].snapshot.tenant, snapshots[i].snapshot.info.name}] = i;
    }
    for (size_t i = 0; i < snapshots.size(); ++i) {
      const NodeSnapshot& snapshot = snapshots[i].snapshot;
      const auto parent = by_name.find({snapshot.tenant, snapshot.info.parent});
      if (!snapshot.info.parent.empty() && parent != by_name.end()) {
        children_[parent->second].push_back(i);
      } else {
        roots_.push_back(i);
      }
    }
  }

  // Every snapshot once, parents before children.
  struct Place {
    size_t index = 0;
    size_t depth = 0;     // of indentation: an only child of an only child stands below it
    bool is_last = true;  // of its siblings
    bool is_only = false;
    bool is_root = true;
  };
  std::vector<Place> Order() {
    std::vector<Place> order;
    for (const size_t root : roots_) {
      Visit(root, order);
    }
    // A damaged root may have parents in a circle.
    for (size_t i = 0; i < snapshots_.size(); ++i) {
      Visit(i, order);
    }
    return order;
  }

  [[nodiscard]] const std::vector<size_t>& roots() const { return roots_; }
  [[nodiscard]] const std::vector<size_t>& ChildrenOf(size_t index) const {
    return children_[index];
  }

 private:
  void Visit(size_t root, std::vector<Place>& order) {
    std::vector<Place> waiting = {{.index = root}};
    while (!waiting.empty()) {
      const Place place = waiting.back();
      waiting.pop_back();
      if (is_shown_[place.index]) {
        continue;
      }
      is_shown_[place.index] = true;
      order.push_back(place);
      const std::vector<size_t>& children = children_[place.index];
      const bool is_only = children.size() == 1;
      for (auto child = children.rbegin(); child != children.rend(); ++child) {
        waiting.push_back({.index = *child,
                           .depth = place.depth + (is_only && place.is_only ? 0 : 1),
                           .is_last = child == children.rbegin(),
                           .is_only = is_only,
                           .is_root = false});
      }
    }
  }

  const std::vector<UsedSnapshot>& snapshots_;
  std::vector<std::vector<size_t>> children_;
  std::vector<size_t> roots_;
  std::vector<bool> is_shown_;
};

// Lines lead down from a snapshot that has further siblings.
std::string Branches(const Forest::Place& place, std::vector<bool>& open) {
  open.resize(place.depth + 1);
  open[place.depth] = !place.is_last;
  std::string text;
  for (size_t depth = 1; depth < place.depth; ++depth) {
    text += open[depth] ? "|  " : "   ";
  }
  if (!place.is_root) {
    text += place.is_last ? "`- " : "|- ";
  }
  return text;
}

Json NodeToJson(const UsedSnapshot& used) {
  const NodeSnapshot& snapshot = used.snapshot;
  return {{"id", snapshot.id},
          {"name", snapshot.info.name},
          {"tenant", snapshot.tenant},
          {"kind", std::string(KindName(snapshot.info.kind))},
          {"parent", snapshot.info.parent},
          {"size", snapshot.unmeasured.empty() ? Json(snapshot.usage.size) : Json()},
          {"created_ns", snapshot.info.created},
          {"used_by", ToJson(used.users)}};
}

// Snapshots whose mounts show on top: an active is its own upper directory, a view is known by the
// parent that it shows.
class UserIndex {
 public:
  UserIndex(const Node::Description& node, const std::vector<NodeSnapshot>& snapshots) {
    if (node.kind != "stargz") {
      return;
    }
    const StatusOr<UniqueFd> folder = OpenFile(node.root + "/snapshots", O_RDONLY | O_DIRECTORY);
    for (const NodeSnapshot& snapshot : snapshots) {
      if (folder.ok() && snapshot.info.kind == Kind::kCommitted) {
        if (const auto link = LazyLayerLink(folder->get(), snapshot.id); link.has_value()) {
          layers_[LayerIn(*link)] = snapshot.id;
        }
      }
    }
  }

  [[nodiscard]] SnapshotId TopOf(const MountUser& user) const {
    const std::string_view path = user.paths.front();
    if (const uint64_t id = NumberBehind("snapshots/", path); id != 0) {
      return id;
    }
    const auto layer = layers_.find(NumberBehind("l/", path));
    return layer == layers_.end() ? 0 : layer->second;
  }

 private:
  static uint64_t NumberBehind(std::string_view top, std::string_view path) {
    uint64_t number = 0;
    if (!path.starts_with(top)) {
      return 0;
    }
    const std::string text(path.substr(top.size(), path.find('/', top.size()) - top.size()));
    return absl::SimpleAtoi(text, &number) ? number : 0;
  }

  std::map<uint64_t, SnapshotId> layers_;
};

}  // namespace

void PrintTree(const std::vector<UsedSnapshot>& snapshots, TimeNs now, const Output& output) {
  Forest forest(snapshots);
  const std::vector<Forest::Place> order = forest.Order();
  if (output.json) {
    Json list = Json::array();
    for (const Forest::Place& place : order) {
      list.push_back(NodeToJson(snapshots[place.index]));
    }
    PrintJson(output.out, list);
    return;
  }
  std::vector<bool> open;
  std::vector<std::vector<std::string>> rows;
  for (const Forest::Place& place : order) {
    const UsedSnapshot& used = snapshots[place.index];
    const NodeSnapshot& snapshot = used.snapshot;
    const bool is_lost = place.is_root && !snapshot.info.parent.empty();
    const TimeNs age = std::max<TimeNs>(0, now - snapshot.info.created) / kSecond;
    rows.push_back(
        {Branches(place, open) + snapshot.info.name + (is_lost ? " (its parent is missing)" : ""),
         std::string(KindName(snapshot.info.kind)),
         snapshot.unmeasured.empty() ? ShowBytes(static_cast<uint64_t>(snapshot.usage.size)) : "?",
         ShowSeconds(static_cast<uint64_t>(age)), ShowUsers(used.users)});
  }
  PrintTable(output.out, {"SNAPSHOT", "KIND", "SIZE", "AGE", "USED BY"}, rows,
             output.terminal.columns);
}

Status ShowTree(Node& node, const Output& output) {
  Progress progress(output);
  STRATA_ASSIGN_OR_RETURN(const Node::Description description, node.Describe());
  STRATA_ASSIGN_OR_RETURN(std::vector<NodeSnapshot> snapshots,
                          node.Snapshots(/*labels=*/false, progress));
  const UserIndex index(description, snapshots);
  std::map<SnapshotId, std::vector<MountUser>> users;
  // Without it there is still the tree: the root may be another host's by now.
  StatusOr<MountUsers> found = FindMountUsers(description.root);
  if (!found.ok() || found->incomplete) {
    output.err << "stratactl: not everybody who mounts them could be looked for"
               << (found.ok() ? "" : ": " + Printable(StatusMessage(found.status()))) << std::endl;
  }
  if (found.ok()) {
    for (MountUser& user : found->users) {
      users[index.TopOf(user)].push_back(std::move(user));
    }
  }
  std::vector<UsedSnapshot> used;
  used.reserve(snapshots.size());
  for (NodeSnapshot& snapshot : snapshots) {
    const SnapshotId id = snapshot.id;
    used.push_back({.snapshot = std::move(snapshot), .users = std::move(users[id])});
  }
  PrintTree(used, Clock::System().Now(), output);
  return OkStatus();
}

}  // namespace strata
