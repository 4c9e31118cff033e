// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_shelf.h"

#include <algorithm>
#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/base/log.h"
#include "snapshotters/lazy/layer_budget.h"
#include "snapshotters/lazy/layer_opener.h"
#include "snapshotters/os/mount_stack.h"

namespace strata {
namespace {

using std::chrono::steady_clock;

constexpr int kOpeningThreads = 2;
constexpr TimeNs kUseNoted = 60'000'000'000;  // a use that is no older than this on disk will do
// Mounting takes some milliseconds; whoever waits for it longer than that goes on without.
constexpr std::chrono::seconds kMounting{60};
// So many mounts of predecessors are left under ours: a process that is killed again and again
// without anybody who keeps its descriptors adds one each time.
constexpr size_t kMostCovered = 8;

void NoteStaying(const Status& status) {
  if (!status.ok()) {
    LogWarn("mounts of a layer stay, ignoring", {{"error", std::string(StatusMessage(status))}});
  }
}

// What a failure on our own disk means, whatever its code says to others.
Status DiskFailure(const Status& status) {
  const FallbackReason reason = ReasonOf(status);
  const bool is_layers_fault =
      reason == FallbackReason::kBadLayer || reason == FallbackReason::kLimits;
  return is_layers_fault ? status : WithReason(status, FallbackReason::kDisk);
}

}  // namespace

LayerShelf::LayerShelf(const LayerStoreOptions& options, BlobClient& blobs, Filler& filler,
                       std::unique_ptr<LayerDirectory> directory,
                       std::unique_ptr<LayerDisplay> display)
    : options_(options),
      blobs_(blobs),
      filler_(filler),
      directory_(std::move(directory)),
      display_(std::move(display)),
      eviction_(*display_, *directory_, filler, *background_, options.linger_interval) {}

LayerShelf::~LayerShelf() {
  background_->Stop();
  std::vector<LayerPtr> layers;
  std::vector<std::pair<uint64_t, TimeNs>> uses;
  {
    const MutexLock lock(mutex_);
    layers = table_.all();
    for (const LayerPtr& layer : layers) {
      uses.emplace_back(layer->number(), layer->last_used);
    }
    std::erase_if(layers, [this](const LayerPtr& one) {
      return one->shown == ShownBy::kNobody || display_->Stays(one->shown);
    });
  }
  for (const auto& [number, last_used] : uses) {
    NoteLastUse(number, last_used);
  }
  for (const LayerPtr& layer : layers) {
    NoteStaying(display_->Remove(layer->number()));
  }
}

// A use that is not on disk: the queue has dropped its note, or it followed another one too soon.
void LayerShelf::NoteLastUse(uint64_t number, TimeNs last_used) const {
  const StatusOr<TimeNs> noted = directory_->LastUse(number);
  if (noted.ok() && *noted < last_used) {
    (void)directory_->NoteUse(number, last_used);  // lost, it looks older than it is
  }
}

StatusOr<std::unique_ptr<LayerShelf>> LayerShelf::Open(const LayerStoreOptions& options,
                                                       BlobClient& blobs, Filler& filler,
                                                       const LayerPresenters& presenters) {
  const std::string layers = options.root + "/layers";
  STRATA_ASSIGN_OR_RETURN(auto directory, LayerDirectory::Open(layers));
  STRATA_ASSIGN_OR_RETURN(
      auto display,
      LayerDisplay::Open(options.root + "/l", layers, options.erofs_when_complete, presenters));
  std::unique_ptr<LayerShelf> shelf(
      new LayerShelf(options, blobs, filler, std::move(directory), std::move(display)));
  STRATA_RETURN_IF_ERROR(shelf->Start(presenters.files));
  return shelf;
}

// Start-up

LayerTable LayerShelf::OpenFound(ImageFiles& files) {
  LayerTable table;
  for (std::shared_ptr<LayerImage>& image : OpenLayers(*directory_, files, kOpeningThreads)) {
    const LayerPtr layer = AddToFiller(std::move(image));
    layer->last_used = directory_->LastUse(layer->number()).value_or(0);
    layer->noted_use = layer->last_used;
    table.Add(layer);
  }
  return table;
}

// Readers that have been waiting since the predecessor ended go on when this returns.
void LayerShelf::TakeOver(const LayerTable& table, const LayerMounts& mounts) {
  for (const LayerPtr& layer : table.all()) {
    const auto found = mounts.find(layer->number());
    layer->shown = display_->Resume(
        *layer, found == mounts.end() ? std::span<const FoundMount>() : found->second);
  }
  display_->Settled();
}

StatusOr<std::set<uint64_t>> LayerShelf::Referenced() const {
  return options_.referenced ? options_.referenced()
                             : MakeStatus(StatusCode::kFailedPrecondition, "nobody to ask");
}

// `stacked`: mounts that a predecessor left of the layer.
void LayerShelf::ShowFound(const LayerPtr& layer, bool is_wanted, size_t stacked) {
  bool is_served = false;
  {
    const MutexLock lock(mutex_);
    is_served = layer->shown != ShownBy::kNobody;
    // Nobody hears of it when it became complete before the table was there.
    if (is_served && layer->shown != ShownBy::kErofs && layer->image().extents().complete()) {
      background_->Post([this, number = layer->number()] { NoteComplete(number); });
    }
  }
  if (is_wanted) {
    // What is there is covered rather than removed first: a client that mounts meanwhile, by an
    // answer of the predecessor, must not find an empty tree.
    const Status status = Show(layer, steady_clock::now() + kMounting);
    if (!status.ok()) {
      LogError("layer is not shown", {{"error", std::string(StatusMessage(status))}});
    }
    is_served = status.ok();
    if (is_served && stacked >= kMostCovered) {
      NoteStaying(KeepTopmost(PathOf(layer->number())));
    }
    FetchRest(layer);
  }
  if (!is_served && stacked > 0) {
    NoteStaying(display_->Remove(layer->number()));
  }
}

Status LayerShelf::Start(ImageFiles* files) {
  ImageFiles ordinary;
  const LayerTable table = OpenFound(files == nullptr ? ordinary : *files);
  StatusOr<LayerMounts> found = display_->Found();
  if (!found.ok()) {
    LogWarn("mounts that a predecessor left are not known, ignoring",
            {{"error", std::string(StatusMessage(found.status()))}});
    found = LayerMounts();
  }
  TakeOver(table, *found);
  STRATA_RETURN_IF_ERROR(display_->RemoveFoldersBut(table));
  const StatusOr<std::set<uint64_t>> referenced = Referenced();
  if (!referenced.ok()) {
    LogWarn("which layers are referred to is not known, all are shown",
            {{"error", std::string(StatusMessage(referenced.status()))}});
  }
  {
    const MutexLock lock(mutex_);
    table_ = table;
  }
  for (const LayerPtr& layer : table.all()) {
    const uint64_t number = layer->number();
    const auto mounts = found->find(number);
    ShowFound(layer, !referenced.ok() || referenced->contains(number),
              mounts == found->end() ? 0 : mounts->second.size());
  }
  background_->Post([this] {
    if (const Status status = directory_->EmptyTrash(); !status.ok()) {
      LogWarn("trash of layers stays, ignoring", {{"error", std::string(StatusMessage(status))}});
    }
  });
  return OkStatus();
}

LayerShelf::LayerPtr LayerShelf::AddToFiller(std::shared_ptr<LayerImage> image) {
  auto source = BlobSourceOf(image->source());
  STRATA_CHECK(source.ok());  // was looked at when the layer was made or opened
  std::shared_ptr<Blob> blob = blobs_.Open(*std::move(source));
  return std::make_shared<StoredLayer>(
      filler_.Add(std::move(image), std::move(blob),
                  [this, background = std::weak_ptr(background_)](FillLayer& layer) {
                    if (const auto queue = background.lock()) {
                      queue->Post([this, number = layer.image().number()] {
                        NoteComplete(number);
                        if (options_.budget_bytes != 0) {
                          Reclaim(/*all=*/false);  // it has grown
                        }
                      });
                    }
                  }));
}

// Using

ShelfUsePtr LayerShelf::BeginUse(const LayerPtr& layer) {
  layer->uses.fetch_add(1, std::memory_order_acq_rel);
  ++layer->touches;
  layer->last_used = options_.clock->Now();
  if (layer->last_used - layer->noted_use > kUseNoted) {
    layer->noted_use = layer->last_used;
    background_->Post([this, number = layer->number(), time = layer->last_used] {
      // The layer may be gone; a lost note lets it look older than it is.
      (void)directory_->NoteUse(number, time);
    });
  }
  return std::make_shared<ShelfUse>(layer);
}

ShelfUsePtr LayerShelf::Match(const LayerQuestion& question) {
  const MutexLock lock(mutex_);
  const LayerPtr layer = table_.Match(question, options_.user_xattr);
  return layer == nullptr ? nullptr : BeginUse(layer);
}

bool LayerShelf::Has(const LayerQuestion& question) {
  const MutexLock lock(mutex_);
  return table_.Match(question, options_.user_xattr) != nullptr;
}

ShelfUsePtr LayerShelf::FindSame(const LayerSource& source) {
  const MutexLock lock(mutex_);
  const LayerPtr layer = table_.Same(source);
  return layer == nullptr ? nullptr : BeginUse(layer);
}

StatusOr<ShelfUsePtr> LayerShelf::Find(uint64_t number) {
  {
    const MutexLock lock(mutex_);
    if (const LayerPtr layer = table_.Find(number)) {
      return BeginUse(layer);
    }
  }
  const std::string name = "layer " + std::to_string(number);
  return directory_->IsSetAside(number)
             ? MakeStatus(StatusCode::kDataLoss, name + ": it did not hold and is set aside")
             : MakeStatus(StatusCode::kNotFound, name + ": not there");
}

// Making

StatusOr<ShelfUsePtr> LayerShelf::Put(ResolvedLayer resolved) {
  const LayerSource source = resolved.plan.source;
  if (ShelfUsePtr use = FindSame(source)) {
    return use;
  }
  auto built = Build(std::move(resolved));
  if (!built.ok()) {
    return DiskFailure(built.status());
  }
  ShelfUsePtr use;
  bool is_surplus = false;
  {
    const MutexLock lock(mutex_);
    const LayerPtr same = table_.Same(source);
    is_surplus = same != nullptr;  // somebody else made it meanwhile
    if (!is_surplus) {
      table_.Add(*built);
    }
    use = BeginUse(is_surplus ? same : *built);
  }
  if (is_surplus) {
    eviction_.Evict(*built);
  }
  return use;
}

StatusOr<LayerShelf::LayerPtr> LayerShelf::Build(ResolvedLayer resolved) {
  STRATA_ASSIGN_OR_RETURN(const uint64_t number, directory_->TakeNumber());
  STRATA_RETURN_IF_ERROR(LayerImage::Build(directory_->fd(), number, std::move(resolved.plan),
                                           std::move(resolved.toc_json)));
  auto image = LayerImage::Open(directory_->fd(), number);
  if (!image.ok()) {
    (void)directory_->Discard(number);  // the error that counts is the first one
    return image.status();
  }
  return AddToFiller(*std::move(image));
}

// Showing and fetching

Status LayerShelf::Show(const LayerPtr& layer, Deadline deadline) {
  {
    const MutexLock lock(mutex_);
    while (layer->changing && layer->shown == ShownBy::kNobody) {
      if (changed_.WaitUntil(mutex_, deadline)) {
        return WithReason(
            MakeStatus(StatusCode::kDeadlineExceeded,
                       "layer " + std::to_string(layer->number()) + ": not mounted in time"),
            FallbackReason::kTimeout);
      }
    }
    if (layer->shown != ShownBy::kNobody) {
      return OkStatus();
    }
    layer->changing = true;
  }
  const StatusOr<LayerDisplay::Shown> shown = display_->Show(*layer);
  const MutexLock lock(mutex_);
  layer->changing = false;
  if (shown.ok()) {
    layer->shown = shown->by;
    layer->why_fuse = shown->why_fuse;
  }
  changed_.SignalAll();
  return shown.status();
}

void LayerShelf::NoteComplete(uint64_t number) {
  LayerPtr layer;
  ShownBy shown = ShownBy::kNobody;
  {
    const MutexLock lock(mutex_);
    layer = table_.Find(number);
    const Deadline deadline = steady_clock::now() + kMounting;
    while (layer != nullptr && layer->changing && !changed_.WaitUntil(mutex_, deadline)) {
    }
    if (layer != nullptr && layer->changing) {
      return;
    }
    if (layer != nullptr) {
      layer->changing = true;
      shown = layer->shown;
    }
  }
  if (layer == nullptr) {
    if (const LayerPtr lingering = eviction_.Find(number)) {
      (void)display_->Complete(*lingering, ShownBy::kNobody);  // it is shown no more
    }
    return;
  }
  shown = display_->Complete(*layer, shown);
  const MutexLock lock(mutex_);
  layer->changing = false;
  layer->shown = shown;
  changed_.SignalAll();
}

void LayerShelf::Prefetch(const LayerPtr& layer, const LayerRequest& request) {
  const LayerSource& source = layer->source();
  if (!options_.prefetch || source.no_prefetch) {
    return;
  }
  const uint64_t end = source.prefetch_end != 0
                           ? source.prefetch_end
                           : request.prefetch_bytes.value_or(options_.prefetch_bytes);
  if (end == 0 || layer->image().extents().complete()) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    if (std::exchange(layer->prefetching, true)) {
      return;
    }
  }
  filler_.Prefetch(layer->fill, end);
}

// Of layers that are used; one that was only announced may never be.
void LayerShelf::FetchRest(const LayerPtr& layer) {
  if (!options_.background_fetch || layer->image().extents().complete()) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    if (std::exchange(layer->fetching, true)) {
      return;
    }
  }
  filler_.FetchAll(layer->fill);
}

void LayerShelf::FetchAll() {
  std::vector<LayerPtr> layers = eviction_.lingering();
  {
    const MutexLock lock(mutex_);
    const std::vector<LayerPtr> all = table_.all();
    layers.insert(layers.end(), all.begin(), all.end());
  }
  for (const LayerPtr& layer : layers) {
    if (!layer->image().extents().complete()) {
      filler_.Prefetch(layer->fill, layer->source().blob_bytes);
    }
  }
}

// Evicting

void LayerShelf::Reclaim(bool all) {
  const MutexLock lock(mutex_);
  reclaim_all_ = reclaim_all_ || all;
  if (!std::exchange(reclaiming_, true)) {
    background_->Post([this] { ReclaimNow(); });
  }
}

void LayerShelf::ReclaimNow() {
  bool evicted = eviction_.Retry();
  struct Candidate {
    LayerPtr layer;
    uint64_t touches;
    BudgetEntry entry;
  };
  std::vector<Candidate> candidates;
  bool all = false;
  {
    const MutexLock lock(mutex_);
    reclaiming_ = false;
    all = std::exchange(reclaim_all_, false);
    for (const LayerPtr& layer : table_.all()) {
      candidates.push_back({layer,
                            layer->touches,
                            {.number = layer->number(),
                             .last_used = layer->last_used,
                             .evictable = layer->uses.load(std::memory_order_acquire) == 0}});
    }
  }
  // Asked after the uses were looked at: a snapshot is written down while its layer is in use, so
  // one that nobody had in use then, or since, has all its references in the answer.
  const StatusOr<std::set<uint64_t>> referenced = Referenced();
  if (!referenced.ok()) {
    LogWarn("which layers are referred to is not known, none is evicted",
            {{"error", std::string(StatusMessage(referenced.status()))}});
    return;
  }
  std::vector<BudgetEntry> entries;
  for (const LayerPtr& layer : eviction_.lingering()) {
    entries.push_back(
        {.number = layer->number(), .bytes = layer->image().AllocatedBytes().value_or(0)});
  }
  for (Candidate& candidate : candidates) {
    candidate.entry.evictable =
        candidate.entry.evictable && !referenced->contains(candidate.entry.number);
    candidate.entry.bytes = candidate.layer->image().AllocatedBytes().value_or(0);
    entries.push_back(candidate.entry);
  }
  for (const uint64_t number : ChooseEvictions(std::move(entries), options_.budget_bytes, all)) {
    const auto chosen = std::find_if(candidates.begin(), candidates.end(),
                                     [&](const Candidate& c) { return c.entry.number == number; });
    if (const LayerPtr layer = TakeIfIdle(number, chosen->touches)) {
      eviction_.Evict(layer);
      evicted = true;
    }
  }
  if (evicted) {
    filler_.Nudge();  // what a full disk has stopped goes on
  }
}

// Out of the table, so that nobody gets it any more; nullptr: it came into use meanwhile.
LayerShelf::LayerPtr LayerShelf::TakeIfIdle(uint64_t number, uint64_t touches) {
  const MutexLock lock(mutex_);
  LayerPtr layer = table_.Find(number);
  if (layer == nullptr || layer->changing || layer->touches != touches ||
      layer->uses.load(std::memory_order_acquire) != 0) {
    return nullptr;
  }
  table_.Remove(number);
  return layer;
}

// Looking

StatusOr<LayerStore::Size> LayerShelf::SizeOf(uint64_t number) {
  LayerPtr layer;
  {
    const MutexLock lock(mutex_);
    layer = table_.Find(number);
  }
  if (layer == nullptr) {
    return MakeStatus(StatusCode::kNotFound, "layer " + std::to_string(number) + ": not there");
  }
  STRATA_ASSIGN_OR_RETURN(const uint64_t bytes, layer->image().AllocatedBytes());
  return LayerStore::Size{.bytes = bytes, .inodes = layer->source().inodes};
}

std::vector<LayerStore::Row> LayerShelf::Rows() {
  struct Item {
    LayerPtr layer;
    ShownBy shown;
    std::string why;
  };
  std::vector<Item> items;
  {
    const MutexLock lock(mutex_);
    for (const LayerPtr& layer : table_.all()) {
      items.push_back({layer, layer->shown, layer->shown == ShownBy::kFuse ? layer->why_fuse : ""});
    }
  }
  for (const LayerPtr& layer : eviction_.lingering()) {
    items.push_back({layer, ShownBy::kNobody, "evicted, but still read"});
  }
  std::vector<LayerStore::Row> rows;
  for (const auto& [layer, shown, why] : items) {
    rows.push_back(RowOf(*layer));
    rows.back().presenter = display_->NameOf(shown);
    if (rows.back().detail.empty()) {
      rows.back().detail = why;
    }
  }
  return rows;
}

LayerStore::Shown LayerShelf::CountShown() {
  LayerStore::Shown count{.refused = display_->refused(),
                          .lingering = eviction_.lingering().size()};
  const MutexLock lock(mutex_);
  for (const LayerPtr& layer : table_.all()) {
    count.fuse += layer->shown == ShownBy::kFuse ? 1 : 0;
    count.erofs += layer->shown == ShownBy::kFilling || layer->shown == ShownBy::kErofs ? 1 : 0;
  }
  return count;
}

}  // namespace strata
