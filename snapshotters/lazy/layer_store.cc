// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_store.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "snapshotters/base/mutex.h"
#include "snapshotters/lazy/fallback_log.h"
#include "snapshotters/lazy/layer_shelf.h"
#include "snapshotters/lazy/task_queue.h"

namespace strata {
namespace {

using std::chrono::steady_clock;

constexpr int kThreads = 2;            // decode TOCs, build images and mount them
constexpr int kMostAnnounced = 8;      // resolved at once without anybody waiting for it
constexpr size_t kMostWaiting = 1024;  // announced and not begun
// How much longer than anybody waits a layer may take: a late result is there the next time.
constexpr int kLate = 2;

// One layer that is being resolved, for all who want it. Guarded by the store's mutex, but for what
// is const.
struct Job {
  enum class State { kWaiting, kRunning, kDone };

  const LayerQuestion question;
  const std::string key;
  State state = State::kWaiting;
  bool counted = false;  // against kMostAnnounced, while it runs
  int waiting = 0;       // who will take the result; the last one takes it out
  StatusOr<ShelfUsePtr> result = MakeStatus(StatusCode::kUnavailable, "not resolved yet");
};
using JobPtr = std::shared_ptr<Job>;

class Store final : public LayerStore {
 public:
  Store(const LayerStoreOptions& options, BlobClient& blobs, std::unique_ptr<LayerShelf> shelf)
      : options_(options),
        shelf_(std::move(shelf)),
        resolver_(blobs, {.user_xattr = options.user_xattr, .limits = options.limits}, tasks_) {}
  ~Store() override { tasks_->Stop(); }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  StatusOr<std::shared_ptr<Use>> Get(const LayerRequest& request) override;
  void Announce(std::vector<LayerRequest> requests) override;
  StatusOr<std::shared_ptr<Use>> Find(uint64_t number) override;
  [[nodiscard]] std::string PathOf(uint64_t number) const override {
    return shelf_->PathOf(number);
  }
  StatusOr<Size> SizeOf(uint64_t number) override { return shelf_->SizeOf(number); }
  void Reclaim(bool all) override { shelf_->Reclaim(all); }
  std::vector<Row> List() override;
  Shown CountShown() override { return shelf_->CountShown(); }
  void FetchAll() override { shelf_->FetchAll(); }

 private:
  // What there is for a question: a layer, a remembered answer, or a job.
  struct Claim {
    ShelfUsePtr use;
    Status answer;
    JobPtr job;
    bool begin = false;  // the job is the caller's to begin
    JobPtr ahead;        // may make the layer, without knowing the pin: to be waited for first
  };

  [[nodiscard]] StatusOr<LayerQuestion> Parse(const LayerRequest& request) const {
    return ParseLayerRequest(request, options_.verify, options_.allow_skip_verify);
  }
  Claim Look(const LayerQuestion& question);
  StatusOr<ShelfUsePtr> Await(const JobPtr& job, Deadline deadline);
  StatusOr<std::shared_ptr<Use>> Hand(const ShelfUsePtr& use);
  // The job that makes this layer ahead of its pin, if one has begun.
  JobPtr FindAhead(const LayerQuestion& question) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteFallback(const LayerRequest& request, const Status& status);

  void Begin(const JobPtr& job);
  void BeginAnnounced();
  void Finish(const JobPtr& job, StatusOr<LayerResolver::Fetched> fetched);
  StatusOr<ShelfUsePtr> Land(const LayerQuestion& question,
                             StatusOr<LayerResolver::Fetched> fetched, Deadline deadline);

  const LayerStoreOptions options_;
  const std::unique_ptr<LayerShelf> shelf_;
  // Callbacks may come when the store is gone: what they post is dropped then.
  const std::shared_ptr<TaskQueue> tasks_ = std::make_shared<TaskQueue>(kThreads);
  LayerResolver resolver_;

  // Never held across I/O. The shelf's own lock is taken inside of it.
  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, JobPtr> jobs_ ABSL_GUARDED_BY(mutex_);
  std::deque<JobPtr> waiting_ ABSL_GUARDED_BY(mutex_);
  int announced_running_ ABSL_GUARDED_BY(mutex_) = 0;
  FallbackLog fallbacks_ ABSL_GUARDED_BY(mutex_);
};

JobPtr Store::FindAhead(const LayerQuestion& question) {
  LayerQuestion ahead = question;
  ahead.pin = {};
  ahead.ahead = true;
  const auto found = jobs_.find(ahead.Key());
  if (found == jobs_.end()) {
    return nullptr;
  }
  if (found->second->state == Job::State::kRunning) {
    return found->second;
  }
  // Not begun: with the pin there is more to go by.
  std::erase(waiting_, found->second);
  jobs_.erase(found);
  return nullptr;
}

Store::Claim Store::Look(const LayerQuestion& question) {
  const std::string key = question.Key();
  Claim claim;
  const MutexLock lock(mutex_);
  // A job puts its layer there before it ends under this lock: what is not there has one, or is to
  // get one.
  claim.use = shelf_->Match(question);
  if (claim.use != nullptr) {
    return claim;
  }
  claim.answer = fallbacks_.Recall(key, steady_clock::now());
  if (!claim.answer.ok()) {
    return claim;
  }
  claim.ahead = FindAhead(question);
  if (claim.ahead != nullptr) {
    return claim;
  }
  JobPtr& job = jobs_[key];
  if (job == nullptr) {
    job = std::make_shared<Job>(Job{.question = question, .key = key});
  } else {
    std::erase(waiting_, job);
  }
  claim.begin = job->state == Job::State::kWaiting;
  if (claim.begin) {
    job->state = Job::State::kRunning;
  }
  ++job->waiting;
  claim.job = job;
  return claim;
}

void Store::NoteFallback(const LayerRequest& request, const Status& status) {
  const MutexLock lock(mutex_);
  fallbacks_.Add(request.reference, request.digest, status);
}

StatusOr<ShelfUsePtr> Store::Await(const JobPtr& job, Deadline deadline) {
  const LayerRequest& request = job->question.request;
  const MutexLock lock(mutex_);
  bool is_late = false;
  while (job->state != Job::State::kDone && !is_late) {
    is_late = changed_.WaitUntil(mutex_, deadline);
  }
  --job->waiting;
  if (job->state != Job::State::kDone) {
    Status late = WithReason(MakeStatus(StatusCode::kDeadlineExceeded,
                                        "layer '" + request.digest + "' of '" + request.reference +
                                            "': not resolved in time"),
                             FallbackReason::kTimeout);
    fallbacks_.Add(request.reference, request.digest, late);
    return late;
  }
  // A use that stayed here would keep the layer from being evicted.
  return job->waiting == 0 ? std::move(job->result) : job->result;
}

StatusOr<std::shared_ptr<LayerStore::Use>> Store::Get(const LayerRequest& request) {
  const Deadline deadline = steady_clock::now() + options_.resolve_timeout;
  const auto question = Parse(request);
  if (!question.ok()) {
    NoteFallback(request, question.status());
    return question.status();
  }
  while (true) {
    const Claim claim = Look(*question);
    if (!claim.answer.ok()) {
      NoteFallback(request, claim.answer);
      return claim.answer;
    }
    if (claim.use != nullptr) {
      if (const Status status = shelf_->Show(claim.use->stored(), deadline); !status.ok()) {
        NoteFallback(request, status);
        return status;
      }
      shelf_->Prefetch(claim.use->stored(), request);
      return Hand(claim.use);
    }
    if (claim.ahead != nullptr) {
      const Status status = Await(claim.ahead, deadline).status();
      if (status.code() == StatusCode::kDeadlineExceeded && steady_clock::now() >= deadline) {
        return status;
      }
      continue;  // the layer is there, or is made the ordinary way
    }
    if (claim.begin) {
      Begin(claim.job);
    }
    const StatusOr<ShelfUsePtr> use = Await(claim.job, deadline);
    if (use.ok()) {
      return Hand(*use);
    }
    // Whoever began it had begun earlier, so that its time was over before ours.
    const bool others_time = !claim.begin && use.status().code() == StatusCode::kDeadlineExceeded &&
                             steady_clock::now() < deadline;
    if (!others_time) {
      return use.status();
    }
  }
}

void Store::Announce(std::vector<LayerRequest> requests) {
  for (const LayerRequest& request : requests) {
    auto question = Parse(request);
    if (!question.ok()) {
      continue;  // said when it is asked for
    }
    question->ahead =
        !question->pin.pinned() && !question->policy.allow_unpinned && !question->policy.disabled;
    const std::string key = question->Key();
    const MutexLock lock(mutex_);
    if (waiting_.size() >= kMostWaiting || jobs_.contains(key) || shelf_->Has(*question) ||
        !fallbacks_.Recall(key, steady_clock::now()).ok()) {
      continue;
    }
    const auto job = std::make_shared<Job>(Job{.question = *question, .key = key});
    jobs_[key] = job;
    waiting_.push_back(job);
  }
  BeginAnnounced();
}

// What is used is to be complete some time; what was only announced may never be used.
StatusOr<std::shared_ptr<LayerStore::Use>> Store::Hand(const ShelfUsePtr& use) {
  shelf_->FetchRest(use->stored());
  return use;
}

StatusOr<std::shared_ptr<LayerStore::Use>> Store::Find(uint64_t number) {
  STRATA_ASSIGN_OR_RETURN(const ShelfUsePtr use, shelf_->Find(number));
  STRATA_RETURN_IF_ERROR(
      shelf_->Show(use->stored(), steady_clock::now() + options_.resolve_timeout));
  return Hand(use);
}

void Store::Begin(const JobPtr& job) {
  resolver_.Fetch(
      job->question, steady_clock::now() + kLate * options_.resolve_timeout,
      [this, job](StatusOr<LayerResolver::Fetched> fetched) { Finish(job, std::move(fetched)); });
}

void Store::BeginAnnounced() {
  std::vector<JobPtr> jobs;
  {
    const MutexLock lock(mutex_);
    while (announced_running_ < kMostAnnounced && !waiting_.empty()) {
      waiting_.front()->state = Job::State::kRunning;
      waiting_.front()->counted = true;
      ++announced_running_;
      jobs.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
  }
  for (const JobPtr& job : jobs) {
    Begin(job);
  }
}

void Store::Finish(const JobPtr& job, StatusOr<LayerResolver::Fetched> fetched) {
  const LayerRequest& request = job->question.request;
  StatusOr<ShelfUsePtr> result =
      Land(job->question, std::move(fetched), steady_clock::now() + options_.resolve_timeout);
  if (!result.ok()) {
    result =
        Annotate(result.status(), "layer '" + request.digest + "' of '" + request.reference + "'");
  }
  bool is_full = false;
  {
    const MutexLock lock(mutex_);
    jobs_.erase(job->key);
    announced_running_ -= job->counted ? 1 : 0;
    if (result.ok()) {
      fallbacks_.Forget(request.reference, request.digest);
    } else if (!job->question.ahead) {
      fallbacks_.Add(request.reference, request.digest, result.status());
      fallbacks_.Remember(job->key, result.status(), steady_clock::now());
    }
    is_full = ReasonOf(result.status()) == FallbackReason::kDisk &&
              result.status().code() == StatusCode::kResourceExhausted;
    if (job->waiting > 0) {
      job->result = std::move(result);
    }
    job->state = Job::State::kDone;
    changed_.SignalAll();
  }
  BeginAnnounced();
  if (is_full || options_.budget_bytes != 0) {
    Reclaim(/*all=*/is_full);
  }
}

StatusOr<ShelfUsePtr> Store::Land(const LayerQuestion& question,
                                  StatusOr<LayerResolver::Fetched> fetched, Deadline deadline) {
  STRATA_RETURN_IF_ERROR(fetched.status());
  auto resolved = resolver_.Decode(*fetched);
  fetched->toc.compressed = std::string();  // as large as the layer has files
  if (resolved.status().code() == StatusCode::kFailedPrecondition) {
    return WithReason(resolved.status(), FallbackReason::kNoPin);
  }
  STRATA_RETURN_IF_ERROR(resolved.status());
  STRATA_ASSIGN_OR_RETURN(ShelfUsePtr use, shelf_->Put(*std::move(resolved)));
  STRATA_RETURN_IF_ERROR(shelf_->Show(use->stored(), deadline));
  if (!question.ahead) {
    shelf_->Prefetch(use->stored(), question.request);
  }
  return use;
}

std::vector<LayerStore::Row> Store::List() {
  std::vector<Row> rows = shelf_->Rows();
  const MutexLock lock(mutex_);
  std::transform(fallbacks_.rows().begin(), fallbacks_.rows().end(), std::back_inserter(rows),
                 [](const Fallback& fallback) {
                   return Row{.reference = fallback.reference,
                              .digest = fallback.digest,
                              .reason = fallback.reason,
                              .detail = fallback.detail};
                 });
  return rows;
}

}  // namespace

StatusOr<std::unique_ptr<LayerStore>> LayerStore::Open(const LayerStoreOptions& options,
                                                       BlobClient& blobs, Filler& filler,
                                                       const LayerPresenters& presenters) {
  if (!options.root.starts_with('/') || options.clock == nullptr || presenters.fuse == nullptr ||
      options.resolve_timeout.count() <= 0) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "layers: expected an absolute root, a clock, a presenter and a time to "
                      "resolve in");
  }
  STRATA_ASSIGN_OR_RETURN(auto shelf, LayerShelf::Open(options, blobs, filler, presenters));
  return std::make_unique<Store>(options, blobs, std::move(shelf));
}

}  // namespace strata
