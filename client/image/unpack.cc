// SPDX-License-Identifier: Apache-2.0
#include "client/image/unpack.h"

#include <chrono>
#include <optional>
#include <set>
#include <span>
#include <thread>
#include <utility>

#include "client/image/layer_apply.h"
#include "client/image/layer_stream.h"
#include "client/image/layer_target.h"
#include "client/image/lazy_labels.h"
#include "client/image/sync_behind.h"
#include "client/random_name.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/base/fault.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Of a layer: it may be fetched again once, and somebody else's attempt may have to be waited for.
constexpr int kMostAttempts = 3;
constexpr milliseconds kPoll{100};

using Step = PullProgress::Step;

class Unpacking {
 public:
  Unpacking(CallContext& call, const FetchContext& context, WorkerSnapshots& snapshots,
            const UnpackRequest& request)
      : call_(call),
        context_(context),
        snapshots_(snapshots),
        request_(request),
        chains_(ChainIds(request.config.diff_ids)),
        streams_(chains_.size()),
        fetches_(context) {}
  ~Unpacking() { Stop(); }
  Unpacking(const Unpacking&) = delete;
  Unpacking& operator=(const Unpacking&) = delete;

  StatusOr<std::string> Run();

 private:
  [[nodiscard]] const ImageLayer& Layer(size_t index) const {
    return request_.manifest.layers[index];
  }
  [[nodiscard]] std::string Parent(size_t index) const {
    return index == 0 ? "" : chains_[index - 1];
  }
  [[nodiscard]] std::string Active(size_t index) const { return "unpack/" + chains_[index]; }

  void Stop();
  StatusOr<bool> IsThere(size_t index);
  // What a power cut may have hit, with what stands on it.
  Status RemoveDoubtful(const std::string& chain);
  StatusOr<size_t> FirstMissing();
  // Nothing: the snapshotter has the layer.
  StatusOr<std::optional<std::vector<Mount>>> Prepare(size_t index);
  Status TakeOver(size_t index);
  Status UnpackOne(size_t index);
  Status FillAndCommit(size_t index, const std::vector<Mount>& mounts);
  Status Apply(size_t index, const LayerTarget& target);
  // All layers are durable, and marked so.
  Status Sync();
  LayerStream& Stream(size_t index);
  [[nodiscard]] std::string Description() const { return "pulled from " + request_.name; }

  CallContext& call_;
  const FetchContext& context_;
  WorkerSnapshots& snapshots_;
  const UnpackRequest& request_;
  const std::vector<std::string> chains_;
  std::vector<std::unique_ptr<WorkerSnapshots::Hold>> holds_;
  std::set<size_t> unsynced_;     // layers that are to be marked
  bool others_unsynced_ = false;  // somebody else has written some of these
  bool fetching_ = false;
  std::vector<std::unique_ptr<LayerStream>> streams_;
  LayerFetches fetches_;
  SyncBehind sync_;
};

// Readers end once the fetches have, so these go first.
void Unpacking::Stop() {
  fetches_.Cancel();
  streams_.clear();
}

StatusOr<bool> Unpacking::IsThere(size_t index) {
  const StatusOr<WorkerRecord> record = snapshots_.Find(call_, chains_[index]);
  if (record.status().code() == StatusCode::kNotFound) {
    return false;
  }
  STRATA_RETURN_IF_ERROR(record.status());
  if (record->kind != Kind::kCommitted) {
    return false;
  }
  switch (record->data) {
    case WorkerRecord::Data::kSynced:
      break;
    case WorkerRecord::Data::kUnsynced:
      others_unsynced_ |= unsynced_.insert(index).second;
      break;
    case WorkerRecord::Data::kDoubtful:  // removed before it was held, see FirstMissing
      return MakeStatus(StatusCode::kFailedPrecondition, "a power cut may have hit it");
  }
  return true;
}

// What stands on it is doubtful, too, or an active of a pull that went down with the machine: marks
// are taken away parents first, and nothing runs on what is marked. What somebody holds is not
// doubtful any more: another pull was here before us.
Status Unpacking::RemoveDoubtful(const std::string& chain) {
  const StatusOr<WorkerRecord> record = snapshots_.Find(call_, chain);
  if (record.status().code() == StatusCode::kNotFound) {
    return OkStatus();
  }
  STRATA_RETURN_IF_ERROR(record.status());
  if (record->data != WorkerRecord::Data::kDoubtful) {
    return OkStatus();
  }
  STRATA_ASSIGN_OR_RETURN(const std::vector<WorkerRecord> records,
                          snapshots_.List(call_, /*with_usage=*/false));
  std::vector<std::string> names = {chain};  // parents first
  for (size_t at = 0; at < names.size(); ++at) {
    for (const WorkerRecord& each : records) {
      if (each.parent == names[at]) {
        names.push_back(each.name);
      }
    }
  }
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    Status removed = snapshots_.RemoveUnused(call_, *name);
    if (!removed.ok() && removed.code() != StatusCode::kNotFound &&
        removed.code() != StatusCode::kFailedPrecondition) {
      return removed;
    }
  }
  return OkStatus();
}

StatusOr<size_t> Unpacking::FirstMissing() {
  for (size_t index = chains_.size(); index > 0; --index) {
    STRATA_RETURN_IF_ERROR(
        Annotate(RemoveDoubtful(chains_[index - 1]), "remove what a power cut may have hit"));
    STRATA_ASSIGN_OR_RETURN(auto hold, snapshots_.HoldSnapshot(chains_[index - 1]));
    holds_.push_back(std::move(hold));
    STRATA_ASSIGN_OR_RETURN(const bool there, IsThere(index - 1));
    if (!there) {
      continue;
    }
    // Below what is synced all is.
    for (size_t below = index; below > 0 && unsynced_.contains(below); --below) {
      STRATA_RETURN_IF_ERROR(IsThere(below - 1).status());
    }
    return index;
  }
  return size_t{0};
}

StatusOr<std::string> Unpacking::Run() {
  if (chains_.empty()) {
    return std::string();
  }
  STRATA_ASSIGN_OR_RETURN(const size_t first, FirstMissing());
  for (size_t index = 0; index < first; ++index) {
    context_.progress.Tell(Layer(index).blob.digest, Step::kPresent);
  }
  for (size_t index = first; index < chains_.size(); ++index) {
    STRATA_RETURN_IF_ERROR(Annotate(UnpackOne(index), "layer '" + Layer(index).blob.digest + "'"));
  }
  STRATA_RETURN_IF_ERROR(Annotate(Sync(), "sync the layers"));
  STRATA_RETURN_IF_ERROR(snapshots_.Touch(call_, chains_.back()));
  return chains_.back();
}

LayerStream& Unpacking::Stream(size_t index) {
  if (!fetching_) {
    fetching_ = true;
    const auto& layers = request_.manifest.layers;
    fetches_.Start({layers.begin() + static_cast<ptrdiff_t>(index), layers.end()},
                   request_.parallel_layers);
  }
  // The next one is decoded while this one is written.
  for (size_t each = index; each < std::min(index + 2, chains_.size()); ++each) {
    if (streams_[each] == nullptr) {
      streams_[each] = std::make_unique<LayerStream>(call_, fetches_.Of(Layer(each)),
                                                     request_.config.diff_ids[each]);
    }
  }
  return *streams_[index];
}

// The active of an attempt that did not end is removed; one that is under way is waited for.
Status Unpacking::TakeOver(size_t index) {
  Status removed = snapshots_.RemoveUnused(call_, Active(index));
  if (removed.ok() || removed.code() == StatusCode::kNotFound) {
    return OkStatus();
  }
  if (removed.code() != StatusCode::kFailedPrecondition) {
    return removed;
  }
  if (steady_clock::now() >= context_.deadline) {
    return MakeStatus(StatusCode::kDeadlineExceeded, "somebody else is unpacking it");
  }
  std::this_thread::sleep_for(kPoll);
  return call_.Check();
}

StatusOr<std::optional<std::vector<Mount>>> Unpacking::Prepare(size_t index) {
  Labels labels;
  if (!request_.lazy_reference.empty()) {
    labels = LazyLabels(std::span(request_.manifest.layers).subspan(index), request_.lazy_reference,
                        request_.manifest_digest, chains_[index]);
  }
  while (true) {
    StatusOr<std::vector<Mount>> mounts = snapshots_.Prepare(
        call_, Active(index), Parent(index), RecordType::kRegular, Description(), labels);
    if (mounts.ok()) {
      return std::optional(*std::move(mounts));
    }
    if (mounts.status().code() != StatusCode::kAlreadyExists) {
      return mounts.status();
    }
    // Either the layer is there now, or an active of this name.
    STRATA_ASSIGN_OR_RETURN(const bool there, IsThere(index));
    if (there) {
      return std::optional<std::vector<Mount>>();
    }
    STRATA_RETURN_IF_ERROR(TakeOver(index));
  }
}

Status Unpacking::UnpackOne(size_t index) {
  for (int attempt = 1;; ++attempt) {
    StatusOr<std::optional<std::vector<Mount>>> mounts = Prepare(index);
    STRATA_RETURN_IF_ERROR(Annotate(mounts.status(), "prepare a snapshot"));
    if (!mounts->has_value()) {
      context_.progress.Tell(Layer(index).blob.digest,
                             request_.lazy_reference.empty() ? Step::kPresent : Step::kLazy);
      return OkStatus();
    }
    Status status = FillAndCommit(index, **mounts);
    if (status.ok()) {
      return OkStatus();
    }
    // The caller may have gone; this is done all the same.
    CallContext anyway;
    (void)snapshots_.Remove(anyway, Active(index));  // what stays, the next attempt removes
    if (status.code() == StatusCode::kAlreadyExists) {
      return OkStatus();  // somebody else was faster
    }
    if (status.code() != StatusCode::kAborted || attempt == kMostAttempts) {
      return status;
    }
    streams_[index].reset();  // it has ended with that
  }
}

Status Unpacking::FillAndCommit(size_t index, const std::vector<Mount>& mounts) {
  STRATA_FAULT_POINT("unpack.prepared");
  STRATA_ASSIGN_OR_RETURN(LayerTarget target, OpenLayerTarget(mounts));
  STRATA_RETURN_IF_ERROR(Apply(index, target));
  STRATA_FAULT_POINT("unpack.applied");
  Labels labels;
  if (target.mounted) {
    STRATA_RETURN_IF_ERROR(SyncLayerTarget(target));  // what it holds back, the next one cannot see
  } else {
    labels = {{std::string(kUnsyncedLabel), "yes"}};
    unsynced_.insert(index);
    sync_.Add(std::move(target.directory));
  }
  STRATA_RETURN_IF_ERROR(snapshots_.Commit(call_, chains_[index], Active(index),
                                           RecordType::kRegular, Description(), labels));
  context_.progress.Tell(Layer(index).blob.digest, Step::kDone, Layer(index).blob.size,
                         Layer(index).blob.size);
  return OkStatus();
}

Status Unpacking::Sync() {
  STRATA_FAULT_POINT("unpack.sync");
  STRATA_RETURN_IF_ERROR(sync_.Finish());
  if (others_unsynced_) {
    STRATA_ASSIGN_OR_RETURN(const std::string name, RandomName());
    const std::string view = "sync/" + name;
    STRATA_ASSIGN_OR_RETURN(const std::vector<Mount> mounts,
                            snapshots_.View(call_, view, chains_[*unsynced_.rbegin()]));
    const Status synced = SyncSnapshot(mounts);
    CallContext anyway;
    const Status removed = snapshots_.Remove(anyway, view);
    STRATA_RETURN_IF_ERROR(synced);
    STRATA_RETURN_IF_ERROR(removed);
  }
  for (const size_t index : unsynced_) {
    STRATA_RETURN_IF_ERROR(snapshots_.MarkSynced(call_, chains_[index]));
  }
  return OkStatus();
}

Status Unpacking::Apply(size_t index, const LayerTarget& target) {
  LayerStream& stream = Stream(index);
  context_.progress.Tell(Layer(index).blob.digest, Step::kApplying, 0, Layer(index).blob.size);
  const StatusOr<Applied> applied = ApplyLayer(
      call_, [&stream](char* buffer, size_t size) { return stream.Read(buffer, size); },
      target.directory.get(), target.options);
  STRATA_RETURN_IF_ERROR(applied.status());
  const std::string& wanted = request_.config.diff_ids[index];
  if (stream.digest() != wanted) {
    return MakeStatus(StatusCode::kDataLoss, "its tar has diff id '" + stream.digest() +
                                                 "', the image says '" + wanted + "'");
  }
  streams_[index].reset();
  return OkStatus();
}

}  // namespace

std::vector<std::string> ChainIds(const std::vector<std::string>& diff_ids) {
  std::vector<std::string> chains;
  chains.reserve(diff_ids.size());
  for (const std::string& diff_id : diff_ids) {
    chains.push_back(chains.empty() ? diff_id : Sha256Text(chains.back() + " " + diff_id));
  }
  return chains;
}

StatusOr<std::string> UnpackLayers(CallContext& call, const FetchContext& context,
                                   WorkerSnapshots& snapshots, const UnpackRequest& request) {
  return Unpacking(call, context, snapshots, request).Run();
}

}  // namespace strata
