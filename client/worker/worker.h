// SPDX-License-Identifier: Apache-2.0
//
// Worker: the parts of a worker, put together by a configuration. A part is opened when it is first
// asked for, so that looking at what runs needs no snapshotter. The parts are safe from any thread;
// asking for them is for one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/image/content_store.h"
#include "client/image/pull.h"
#include "client/run/executor.h"
#include "client/worker/config.h"
#include "client/worker/prune.h"
#include "client/worker/snapshotter_factory.h"
#include "client/worker/worker_state.h"
#include "client/worker_snapshots.h"
#include "snapshotters/base/status.h"

namespace strata {

// What a worker says of itself.
struct WorkerInfo {
  std::string id;
  std::map<std::string, std::string> labels;
  std::vector<Platform> platforms;
  // Those that are configured, but that this machine cannot run.
  std::vector<Platform> not_runnable;
  std::vector<GcRule> gc_rules;
};

class Worker {
 public:
  // `config` is finished (FinishConfig). Chooses the snapshotter and opens the state directory.
  static StatusOr<std::unique_ptr<Worker>> Open(const WorkerConfig& config,
                                                const WorkerEnvironment& environment);
  ~Worker();

  [[nodiscard]] const WorkerConfig& config() const { return config_; }
  [[nodiscard]] WorkerState& state() { return *state_; }
  [[nodiscard]] WorkerInfo Info() const;

  // Unavailable: the snapshotter is not there, and has not come in time. Nothing is lost by that.
  StatusOr<WorkerSnapshots*> Snapshots();
  StatusOr<ContentStore*> Content();
  StatusOr<Puller*> Images();
  // With what a run needs (the network is set up), or only for what runs already.
  StatusOr<Executor*> OpenExecutor(bool for_runs);

  // For images of the first platform of this worker.
  [[nodiscard]] StatusOr<PullOptions> OptionsForPull() const;

  // Removes blobs that no image has any more; the bytes that gives back. 0 while a pull is at work:
  // the next one finds them.
  StatusOr<uint64_t> RemoveBlobs();

  // What the rules do not keep, if it is time for that; ends at the latest after `limit`.
  Status Collect(std::chrono::milliseconds limit);

 private:
  explicit Worker(WorkerConfig config) : config_(std::move(config)) {}

  // In the order in which they use one another.
  const WorkerConfig config_;
  SnapshotterPlan plan_;
  HostsConfig hosts_;
  std::vector<IdRange> uid_map_;
  std::vector<IdRange> gid_map_;
  std::unique_ptr<WorkerState> state_;
  std::unique_ptr<OpenedSnapshotter> snapshotter_;
  std::unique_ptr<WorkerSnapshots> snapshots_;
  std::unique_ptr<ContentStore> content_;
  std::unique_ptr<CredentialSource> credentials_;
  std::unique_ptr<Puller> images_;
  std::unique_ptr<NetworkProvider> network_;
  std::unique_ptr<Executor> executor_;
};

// What a label says of the network: BuildKit calls a bridge cni, too.
std::string NetworkLabel(const WorkerConfig& config);

}  // namespace strata
