// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_presenter.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/complete_on_disk.h"
#include "snapshotters/lazy/erofs_events.h"
#include "snapshotters/lazy/erofs_mount.h"
#include "snapshotters/lazy/erofs_probe.h"
#include "snapshotters/lazy/event_journal.h"
#include "snapshotters/lazy/event_threads.h"
#include "snapshotters/os/fanotify_group.h"
#include "snapshotters/os/open_elsewhere.h"

namespace strata {
namespace {

constexpr std::string_view kErofs = "erofs";
// fs.nr_open, which bounds RLIMIT_NOFILE, unless somebody has raised it.
constexpr rlim_t kMostDescriptors = rlim_t{1} << 20;

// What Start found or made, and the FdStore keeps.
struct Source {
  FanotifyGroup group;
  std::unique_ptr<EventJournal> journal;
  bool inherited = false;
};

Status Cannot(std::string_view why) {
  return MakeStatus(StatusCode::kUnimplemented, "start EROFS presenter: " + std::string(why));
}

rlim_t DescriptorLimit(bool hard) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return kMostDescriptors;
  }
  return std::min(hard ? limit.rlim_max : limit.rlim_cur, kMostDescriptors);
}

// Each event that is taken has a descriptor, and the kernel fails the reader when there is none
// left: so many events as leave half of them for all else.
uint32_t SlotsFor(uint32_t wanted) {
  return std::clamp(wanted, 1U, std::max(1U, static_cast<uint32_t>(DescriptorLimit(false) / 2)));
}

StatusOr<std::unique_ptr<EventJournal>> NewJournal(uint32_t slots, FdStore& fds) {
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<EventJournal> journal, EventJournal::Create(slots));
  STRATA_RETURN_IF_ERROR(fds.Keep(ErofsPresenter::kJournalName, journal->fd()));
  return journal;
}

StatusOr<Source> NewSource(const ErofsOptions& options, FdStore& fds) {
  STRATA_RETURN_IF_ERROR(ProbeErofs(options.probe_directory));
  Source source;
  STRATA_ASSIGN_OR_RETURN(source.group, FanotifyGroup::Create());
  STRATA_ASSIGN_OR_RETURN(source.journal, NewJournal(SlotsFor(options.most_waiting), fds));
  STRATA_RETURN_IF_ERROR(fds.Keep(ErofsPresenter::kGroupName, source.group.fd()));
  return source;
}

StatusOr<std::unique_ptr<EventJournal>> OldJournal(UniqueFd fd, FdStore& fds) {
  if (!fd.valid()) {
    return MakeStatus(StatusCode::kNotFound, "there is no journal");
  }
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<EventJournal> journal,
                          EventJournal::Adopt(std::move(fd)));
  // What is left stays until all layers are open, and opening them takes events, too.
  if (uint64_t{journal->free()} * 2 >= journal->slots()) {
    return journal;
  }
  STRATA_ASSIGN_OR_RETURN(journal, EventJournal::CreateFrom(*journal, journal->slots() * 2));
  STRATA_RETURN_IF_ERROR(fds.Keep(ErofsPresenter::kJournalName, journal->fd()));
  return journal;
}

StatusOr<Source> OldSource(FanotifyGroup group, const ErofsOptions& options, FdStore& fds) {
  Source source{std::move(group), nullptr, /*inherited=*/true};
  StatusOr<std::unique_ptr<EventJournal>> journal =
      OldJournal(fds.Take(ErofsPresenter::kJournalName), fds);
  if (journal.ok()) {
    source.journal = *std::move(journal);
    return source;
  }
  // What waits is answered by its number alone; readahead that is denied is read once more.
  const int denied = source.group.DenyAllBelow(static_cast<int>(DescriptorLimit(true)));
  LogError(
      "journal of a predecessor is lost: reads that waited fail",
      {{"error", std::string(StatusMessage(journal.status()))}, {"reads", std::to_string(denied)}});
  STRATA_ASSIGN_OR_RETURN(source.journal, NewJournal(SlotsFor(options.most_waiting), fds));
  return source;
}

StatusOr<Source> FindSource(const ErofsOptions& options, FdStore& fds) {
  UniqueFd fd = fds.Take(ErofsPresenter::kGroupName);
  if (!fd.valid()) {
    return NewSource(options, fds);
  }
  StatusOr<FanotifyGroup> group = FanotifyGroup::Adopt(std::move(fd));
  if (!group.ok()) {
    LogError("what was kept as fanotify group is none, ignoring",
             {{"error", std::string(StatusMessage(group.status()))}});
    return NewSource(options, fds);
  }
  return OldSource(*std::move(group), options, fds);
}

void LogLayerError(std::string_view what, uint64_t number, const Status& status) {
  LogError(what,
           {{"layer", std::to_string(number)}, {"error", std::string(StatusMessage(status))}});
}

class EventPresenter final : public ErofsPresenter {
 public:
  EventPresenter(const ErofsOptions& options, Source source, Filler& filler, SpaceReserve& reserve)
      : options_(options),
        reserve_(reserve),
        inherited_(source.inherited),
        events_(std::make_shared<ErofsEvents>(std::move(source.group), std::move(source.journal),
                                              filler)) {}

  ~EventPresenter() override {
    events_->Stop();
    threads_.Stop();
    events_->Close();
  }
  EventPresenter(const EventPresenter&) = delete;
  EventPresenter& operator=(const EventPresenter&) = delete;

  Status Start() {
    events_->TakeLeft();
    return threads_.Start(options_.threads, [this] { events_->TakeEvents(); });
  }

  [[nodiscard]] std::string_view name() const override { return kErofs; }
  [[nodiscard]] bool stays() const override { return true; }
  [[nodiscard]] ImageFiles& files() override { return events_->files(); }
  [[nodiscard]] bool inherited() const override { return inherited_; }
  [[nodiscard]] ErofsCounters counters() const override { return events_->counters(); }

  Status Show(const std::shared_ptr<FillLayer>& layer, const std::string& target) override {
    if (!options_.show_new) {
      return Cannot("no new layers are shown by it");
    }
    const LayerImage& image = layer->image();
    STRATA_ASSIGN_OR_RETURN(const bool is_new, events_->Add(layer));
    Status status = is_new ? Guard(image) : MakeRoom(image);
    if (status.ok()) {
      status = MountErofsImage(options_.layers_directory + "/" + std::to_string(image.number()) +
                                   "/" + std::string(LayerImage::kImageName),
                               target);
    }
    if (!status.ok()) {
      if (is_new) {
        Release(image);
      }
      return status;
    }
    // It may have become complete before it was added.
    if (image.extents().complete() && !image.extents().dirty()) {
      Complete(*layer);
    }
    return OkStatus();
  }

  bool Resume(const std::shared_ptr<FillLayer>& layer, const FoundMount* top) override {
    const LayerImage& image = layer->image();
    const StatusOr<InodeKey> inode = InodeOf(image.image_fd());
    if (!inode.ok()) {
      LogLayerError("layer is not resumed", image.number(), inode.status());
      return false;
    }
    const bool is_erofs = top != nullptr && top->type == kErofs;
    const bool is_marked = events_->files().WasMarked(*inode);
    if (!is_marked && !is_erofs && !IsInUse(image)) {
      return false;
    }
    if (!is_marked) {
      LogError("layer was mounted and nobody was asked: what was read of it may have been zeros",
               {{"layer", std::to_string(image.number())}});
      if (const Status status = events_->group().Mark(image.image_fd()); !status.ok()) {
        LogLayerError("layer that is mounted is not marked", image.number(), status);
        return false;
      }
    }
    if (const StatusOr<bool> added = events_->Add(layer); !added.ok()) {
      LogLayerError("layer is not resumed", image.number(), added.status());
      return false;
    }
    if (const Status status = reserve_.Reserve(image.number(), image.AbsentBytes()); !status.ok()) {
      LogLayerError("layer that is mounted has no room reserved, ignoring", image.number(), status);
    }
    return is_marked && is_erofs;
  }

  void Settled() override {
    ErofsEvents::Settlement settlement;
    for (const ErofsFiles::Marked& marked : events_->files().TakeMarked()) {
      if (!events_->Knows(marked.inode) && !LetGo(marked)) {
        settlement.has_unknown = true;
      }
    }
    settlement.is_complete = [this](uint64_t number) { return IsComplete(number); };
    events_->Settle(settlement);
  }

  void Complete(FillLayer& layer) override {
    const LayerImage& image = layer.image();
    if (events_->Find(image.number()) == nullptr) {
      return;
    }
    if (const Status status = events_->group().Unmark(image.image_fd()); !status.ok()) {
      LogLayerError("complete layer stays marked, ignoring", image.number(), status);
      return;
    }
    reserve_.Release(image.number());
    events_->SetComplete(image.number());
  }

  bool Withdraw(uint64_t layer_number) override {
    const std::shared_ptr<FillLayer> layer = events_->Find(layer_number);
    if (layer == nullptr) {
      events_->Remove(layer_number);  // complete, or never here
      return true;
    }
    if (IsInUse(layer->image())) {
      return false;
    }
    return Release(layer->image());
  }

 private:
  // What has to be before the kernel may read the image.
  Status Guard(const LayerImage& image) {
    STRATA_RETURN_IF_ERROR(events_->group().Mark(image.image_fd()));
    return MakeRoom(image);
  }

  // Unless there is room already.
  Status MakeRoom(const LayerImage& image) {
    return reserve_.reserved(image.number()) > 0
               ? OkStatus()
               : reserve_.Reserve(image.number(), image.AbsentBytes());
  }

  bool Release(const LayerImage& image) {
    if (const Status status = events_->group().Unmark(image.image_fd()); !status.ok()) {
      LogLayerError("layer stays marked", image.number(), status);
      return false;
    }
    reserve_.Release(image.number());
    events_->Remove(image.number());
    return true;
  }

  // When there is no telling, it is.
  static bool IsInUse(const LayerImage& image) {
    const StatusOr<bool> in_use = IsOpenElsewhere(image.image_fd());
    if (!in_use.ok()) {
      LogLayerError("whether a layer is in use is not known", image.number(), in_use.status());
    }
    return !in_use.ok() || *in_use;
  }

  // An image that is marked and was not resumed. True: it is complete, a predecessor was killed
  // before it had removed the mark.
  bool LetGo(const ErofsFiles::Marked& marked) {
    const StatusOr<bool> is_complete = IsCompleteOnDisk(marked.directory.get());
    if (!is_complete.ok() || !*is_complete) {
      LogError("an image that the kernel may read is of no layer: reads of it fail",
               {{"inode", std::to_string(marked.inode.second)}});
      return false;
    }
    if (const Status status = events_->group().Unmark(marked.image.get()); !status.ok()) {
      LogError("complete layer stays marked, ignoring",
               {{"error", std::string(StatusMessage(status))}});
    }
    events_->AddComplete(marked.inode);
    return true;
  }

  [[nodiscard]] bool IsComplete(uint64_t number) const {
    const StatusOr<UniqueFd> directory =
        OpenFile(options_.layers_directory + "/" + std::to_string(number), O_RDONLY | O_DIRECTORY);
    return directory.ok() && IsCompleteOnDisk(directory->get()).value_or(false);
  }

  const ErofsOptions options_;
  SpaceReserve& reserve_;
  const bool inherited_;
  const std::shared_ptr<ErofsEvents> events_;
  EventThreads threads_;
};

}  // namespace

StatusOr<std::unique_ptr<ErofsPresenter>> ErofsPresenter::Start(const ErofsOptions& options,
                                                                FdStore& fds, Filler& filler,
                                                                SpaceReserve& reserve) {
  if (!options.layers_directory.starts_with('/') || !options.probe_directory.starts_with('/')) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "start EROFS presenter: expected absolute directories");
  }
  if (!fds.available()) {
    return Cannot("nobody would keep its descriptors when this process is killed");
  }
  StatusOr<Source> source = FindSource(options, fds);
  if (!source.ok()) {
    return Cannot(StatusMessage(source.status()));
  }
  auto presenter = std::make_unique<EventPresenter>(options, *std::move(source), filler, reserve);
  STRATA_RETURN_IF_ERROR(presenter->Start());
  return std::unique_ptr<ErofsPresenter>(std::move(presenter));
}

}  // namespace strata
