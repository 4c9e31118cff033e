// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_persister.h"

#include <algorithm>
#include <string>
#include <utility>

#include "snapshotters/base/log.h"
#include "snapshotters/lazy/span_store.h"

namespace strata {
namespace {

constexpr std::chrono::seconds kBetweenCallsForSpace{1};
constexpr std::chrono::seconds kBetweenRestores{10};
// The extents of a layer are a bit for each chunk; the name in the folder takes some, too.
constexpr uint64_t kExtentsBytes = uint64_t{64} << 10;

}  // namespace

LayerPersister::LayerPersister(std::chrono::milliseconds interval, std::function<void()> need_space,
                               SpaceReserve* reserve)
    : interval_(interval),
      need_space_(std::move(need_space)),
      reserve_(reserve),
      restore_due_(reserve == nullptr ? Time::max()
                                      : std::chrono::steady_clock::now() + kBetweenRestores),
      thread_([this] { Run(); }) {}

void LayerPersister::MarkDirty(const std::shared_ptr<LayerImage>& image) {
  const MutexLock lock(mutex_);
  if (stopping_) {
    return;
  }
  Work& work = works_[image.get()];
  if (work.image == nullptr) {
    work = {.image = image, .persisted = {}, .due = std::chrono::steady_clock::now() + interval_};
    changed_.Signal();
  }
}

void LayerPersister::MarkComplete(const std::shared_ptr<LayerImage>& image,
                                  std::function<void()> persisted) {
  const MutexLock lock(mutex_);
  if (stopping_) {
    return;
  }
  works_[image.get()] = {.image = image, .persisted = std::move(persisted), .due = Time()};
  changed_.Signal();
}

void LayerPersister::NeedSpace() {
  const MutexLock lock(mutex_);
  space_needed_ = true;
  changed_.Signal();
}

void LayerPersister::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.Signal();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

LayerPersister::Time LayerPersister::NextTime() const {
  Time next = std::min(restore_due_, space_needed_ ? space_due_ : Time::max());
  for (const auto& [key, work] : works_) {
    next = std::min(next, work.due);
  }
  return next;
}

LayerPersister::Works LayerPersister::TakeDue(Time now) {
  Works due;
  for (auto place = works_.begin(); place != works_.end();) {
    const auto next = std::next(place);
    if (place->second.due <= now) {
      due.insert(works_.extract(place));
    }
    place = next;
  }
  return due;
}

Status LayerPersister::PersistOne(LayerImage& image) {
  const Status status = image.Persist();
  const bool yielded = IsDiskFull(status) && reserve_ != nullptr &&
                       reserve_->reserved(image.number()) > 0 && reserve_->Yield(kExtentsBytes);
  return yielded ? image.Persist() : status;
}

void LayerPersister::Persist(const Works& works, bool last) {
  for (const auto& [key, work] : works) {
    const Status status = PersistOne(*work.image);
    if (status.ok()) {
      if (work.persisted && !last) {
        work.persisted();
      }
      continue;
    }
    if (status.code() == StatusCode::kNotFound) {
      continue;  // its folder is gone: evicted. Held on to, it would keep the space.
    }
    LogWarn("what was fetched of a layer could not be made durable, trying again later",
            {{"layer", std::to_string(work.image->number())},
             {"error", std::string(StatusMessage(status))}});
    const MutexLock lock(mutex_);
    Work& again = works_[key];
    again.image = work.image;
    again.due = std::chrono::steady_clock::now() + interval_;
    if (!again.persisted) {
      again.persisted = work.persisted;
    }
  }
}

void LayerPersister::Run() {
  while (true) {
    Works due;
    bool call_for_space = false;
    bool restore = false;
    bool last = false;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && std::chrono::steady_clock::now() < NextTime()) {
        if (NextTime() == Time::max()) {
          changed_.Wait(mutex_);
        } else {
          (void)changed_.WaitUntil(mutex_, NextTime());  // looked at again either way
        }
      }
      last = stopping_;
      const Time now = std::chrono::steady_clock::now();
      due = last ? std::exchange(works_, {}) : TakeDue(now);
      if (space_needed_ && space_due_ <= now && !last) {
        space_needed_ = false;
        space_due_ = now + kBetweenCallsForSpace;
        call_for_space = true;
      }
      restore = restore_due_ <= now && !last;
      if (restore) {
        restore_due_ = now + kBetweenRestores;
      }
    }
    if (call_for_space && need_space_) {
      need_space_();
    }
    Persist(due, last);
    if (restore) {
      reserve_->Restore();
    }
    if (last) {
      return;
    }
  }
}

}  // namespace strata
