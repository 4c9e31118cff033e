// SPDX-License-Identifier: Apache-2.0
//
// RangeReceiver: takes the answer to one request apart into its spans, each of which is handed on
// as soon as it is whole. Lives as long as the request does, also beyond the filler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "snapshotters/lazy/fill_schedule.h"
#include "snapshotters/registry/blob_client.h"

namespace strata {

// Who made the request. Called on the thread that delivers, one call at a time for a request.
class FetchOwner {
 public:
  virtual ~FetchOwner() = default;
  virtual void CountReceived(LayerFill& layer, uint64_t bytes) = 0;
  // Whether anybody wants the spans from number `first` on.
  virtual bool IsWanted(const FillRequest& request, size_t first) = 0;
  // The span's bytes are there.
  virtual void OnSpan(const std::shared_ptr<SpanFill>& fill) = 0;
  // The last call; spans from number `first` on did not come whole. OK never comes with such.
  virtual void OnEnd(const FillRequest& request, size_t first, const Status& status) = 0;
};

class RangeReceiver : public RangeSink {
 public:
  RangeReceiver(std::shared_ptr<FetchOwner> owner, FillRequest request)
      : owner_(std::move(owner)), request_(std::move(request)), position_(request_.offset) {}

  void OnHost(std::string_view host) override { host_ = host; }
  bool OnData(uint64_t offset, std::string_view bytes) override;
  void OnDone(Status status) override;

 private:
  const std::shared_ptr<FetchOwner> owner_;
  const FillRequest request_;
  uint64_t position_;   // of the blob: what comes next
  size_t current_ = 0;  // the span that is coming
  uint64_t current_bytes_ = 0;
  std::string host_;        // that the bytes come from
  bool misplaced_ = false;  // what came was not what comes next
};

}  // namespace strata
