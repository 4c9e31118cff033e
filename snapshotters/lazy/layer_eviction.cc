// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_eviction.h"

#include <algorithm>
#include <string>
#include <utility>

#include "snapshotters/base/log.h"

namespace strata {

using std::chrono::steady_clock;

// Whether the layer is gone.
bool LayerEviction::Try(const Layer& layer) {
  const uint64_t number = layer->number();
  const auto note = [number](const Status& status) {
    if (!status.ok()) {
      LogWarn("evicting a layer: a part of it stays, ignoring",
              {{"layer", std::to_string(number)}, {"error", std::string(StatusMessage(status))}});
    }
  };
  note(display_.Remove(number));
  if (!display_.Withdraw(number)) {
    return false;
  }
  filler_.Forget(layer->fill);
  note(directory_.Discard(number));
  note(directory_.EmptyTrash());
  return true;
}

void LayerEviction::Evict(const Layer& layer) {
  if (Try(layer)) {
    return;
  }
  LogInfo("evicted layer stays on disk for now: it is still read",
          {{"layer", std::to_string(layer->number())}});
  {
    const MutexLock lock(mutex_);
    lingering_.push_back(layer);
  }
  RetryLater();
}

bool LayerEviction::Retry() {
  bool any = false;
  for (const Layer& layer : lingering()) {
    if (Try(layer)) {
      any = true;
      const MutexLock lock(mutex_);
      std::erase(lingering_, layer);
    }
  }
  RetryLater();
  return any;
}

void LayerEviction::RetryLater() {
  {
    const MutexLock lock(mutex_);
    if (lingering_.empty() || std::exchange(retry_waits_, true)) {
      return;
    }
  }
  background_.PostAt(steady_clock::now() + interval_, [this] {
    {
      const MutexLock lock(mutex_);
      retry_waits_ = false;
    }
    if (Retry()) {
      filler_.Nudge();  // what a full disk has stopped goes on
    }
  });
}

std::vector<LayerEviction::Layer> LayerEviction::lingering() const {
  const MutexLock lock(mutex_);
  return lingering_;
}

LayerEviction::Layer LayerEviction::Find(uint64_t number) const {
  const MutexLock lock(mutex_);
  const auto found =
      std::find_if(lingering_.begin(), lingering_.end(),
                   [number](const Layer& layer) { return layer->number() == number; });
  return found == lingering_.end() ? nullptr : *found;
}

}  // namespace strata
