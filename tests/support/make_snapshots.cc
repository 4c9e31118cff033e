// SPDX-License-Identifier: Apache-2.0
//
// make_snapshots SOCKET make COUNT | show | count | use: a client of a daemon, for tests in Python.
// `make` adds COUNT snapshots in chains of nine committed ones with an active on top; `show` prints
// all there is, a line each, as List, Stat and Mounts tell it, and fails when these disagree;
// `count` only counts; `use` tries all mutations on snapshots of its own and removes them again.
// For tests only.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/core/snapshotter.h"

namespace strata::testing {
namespace {

constexpr int kThreads = 64;
constexpr int kChainLength = 10;
constexpr int kUses = 20;
constexpr std::chrono::seconds kLimit{60};

StatusOr<std::unique_ptr<Snapshotter>> Connect(const std::string& socket) {
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                          Dial(socket, {.wait_for_ready = kLimit}));
  return NewProxySnapshotter(std::move(channel),
                             {.snapshotter_name = "test", .call_timeout = kLimit});
}

// A chain of `length` snapshots, of which the last one is active.
Status MakeChain(Snapshotter& snapshotter, const std::string& name, int length) {
  CallContext call;
  std::string parent;
  for (int level = 1; level < length; ++level) {
    const std::string committed = name + "-" + std::to_string(level);
    const Labels labels = {{"chain", name}, {"level", std::to_string(level)}};
    STRATA_RETURN_IF_ERROR(snapshotter.Prepare(call, committed + "-key", parent, {}).status());
    STRATA_RETURN_IF_ERROR(
        snapshotter.Commit(call, committed, committed + "-key", {.labels = labels}));
    parent = committed;
  }
  return snapshotter.Prepare(call, name + "-active", parent, {{"chain", name}}).status();
}

Status Make(Snapshotter& snapshotter, int count) {
  std::atomic<int> next = 0;
  std::vector<Status> results(kThreads);
  std::vector<std::thread> threads;
  for (Status& result : results) {
    threads.emplace_back([&] {
      while (result.ok()) {
        const int first = kChainLength * next++;
        if (first >= count) {
          return;
        }
        result = MakeChain(snapshotter, "chain-" + std::to_string(first),
                           std::min(kChainLength, count - first));
      }
    });
  }
  Status first;
  for (size_t i = 0; i < threads.size(); ++i) {
    threads[i].join();
    first.Update(results[i]);
  }
  return first;
}

std::string Described(const SnapshotInfo& info) {
  std::string line = ShowName(info.name) + " " + std::string(KindName(info.kind)) + " on " +
                     ShowName(info.parent) + " " + std::to_string(info.created) + " " +
                     std::to_string(info.updated);
  for (const auto& [key, value] : info.labels) {
    line += " " + ShowName(key) + "=" + ShowName(value);
  }
  return line;
}

Status Show(Snapshotter& snapshotter) {
  CallContext call;
  std::set<std::string> lines;
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotCursor> cursor, snapshotter.List(call, {}));
  while (true) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotInfo> rows, cursor->Next());
    if (rows.empty()) {
      break;
    }
    for (const SnapshotInfo& row : rows) {
      STRATA_ASSIGN_OR_RETURN(const SnapshotInfo info, snapshotter.Stat(call, row.name));
      if (!(info == row)) {
        return MakeStatus(StatusCode::kDataLoss,
                          "List has " + Described(row) + ", Stat has " + Described(info));
      }
      std::string line = Described(row);
      STRATA_ASSIGN_OR_RETURN(const Usage usage, snapshotter.GetUsage(call, row.name));
      line += " " + std::to_string(usage.size) + " " + std::to_string(usage.inodes);
      if (row.kind != Kind::kCommitted) {
        STRATA_ASSIGN_OR_RETURN(const std::vector<Mount> mounts,
                                snapshotter.Mounts(call, row.name));
        for (const Mount& mount : mounts) {
          line += " " + mount.type + " " + mount.source;
          for (const std::string& option : mount.options) {
            line += "," + option;
          }
        }
      }
      lines.insert(line);
    }
  }
  for (const std::string& line : lines) {
    (void)std::puts(line.c_str());
  }
  return OkStatus();
}

Status Count(Snapshotter& snapshotter) {
  CallContext call;
  size_t count = 0;
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotCursor> cursor, snapshotter.List(call, {}));
  while (true) {
    STRATA_ASSIGN_OR_RETURN(const std::vector<SnapshotInfo> rows, cursor->Next());
    if (rows.empty()) {
      (void)std::printf("%zu\n", count);
      return OkStatus();
    }
    count += rows.size();
  }
}

Status Use(Snapshotter& snapshotter) {
  CallContext call;
  for (int i = 0; i < kUses; ++i) {
    const std::string name = "use-" + std::to_string(i);
    STRATA_RETURN_IF_ERROR(snapshotter.Prepare(call, name + "-key", "", {}).status());
    STRATA_RETURN_IF_ERROR(snapshotter.Commit(call, name, name + "-key", {}));
    STRATA_RETURN_IF_ERROR(snapshotter.View(call, name + "-view", name, {}).status());
    STRATA_RETURN_IF_ERROR(
        snapshotter.Update(call, {.name = name, .labels = {{"key", std::string(2000, 'v')}}}, {})
            .status());
  }
  for (int i = 0; i < kUses; ++i) {
    const std::string name = "use-" + std::to_string(i);
    STRATA_RETURN_IF_ERROR(snapshotter.Remove(call, name + "-view"));
    STRATA_RETURN_IF_ERROR(snapshotter.Remove(call, name));
  }
  return OkStatus();
}

Status Run(const std::vector<std::string>& words) {
  if (words.size() < 2) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "expected SOCKET make COUNT | show | count | use");
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Snapshotter> snapshotter, Connect(words[0]));
  if (words[1] == "make" && words.size() == 3) {
    return Make(*snapshotter, std::atoi(words[2].c_str()));
  }
  if (words[1] == "show") {
    return Show(*snapshotter);
  }
  if (words[1] == "count") {
    return Count(*snapshotter);
  }
  if (words[1] == "use") {
    return Use(*snapshotter);
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "expected SOCKET make COUNT | show | count | use");
}

}  // namespace
}  // namespace strata::testing

int main(int argc, char** argv) {
  const strata::Status status =
      strata::testing::Run(std::vector<std::string>(argv + 1, argv + argc));
  if (!status.ok()) {
    (void)std::fprintf(stderr, "make_snapshots: %s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
