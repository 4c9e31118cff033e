// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/range_receiver.h"

#include <algorithm>
#include <cstring>

namespace strata {

bool RangeReceiver::OnData(uint64_t offset, std::string_view bytes) {
  owner_->CountReceived(*request_.layer, bytes.size());
  if (!owner_->IsWanted(request_, current_)) {
    return false;
  }
  misplaced_ = misplaced_ || offset != position_;
  if (misplaced_) {
    return false;
  }
  position_ += bytes.size();
  while (!bytes.empty() && current_ < request_.fills.size()) {
    const std::shared_ptr<SpanFill>& fill = request_.fills[current_];
    const TableSpan& span = fill->span;
    const uint64_t at = position_ - bytes.size();
    if (at < span.blob_offset) {
      // A gap.
      bytes.remove_prefix(
          static_cast<size_t>(std::min<uint64_t>(span.blob_offset - at, bytes.size())));
      continue;
    }
    if (fill->bytes == nullptr) {
      fill->bytes = std::make_unique_for_overwrite<uint8_t[]>(span.blob_bytes);
    }
    const auto taken =
        static_cast<size_t>(std::min<uint64_t>(span.blob_bytes - current_bytes_, bytes.size()));
    std::memcpy(fill->bytes.get() + current_bytes_, bytes.data(), taken);
    bytes.remove_prefix(taken);
    current_bytes_ += taken;
    if (current_bytes_ == span.blob_bytes) {
      ++current_;
      current_bytes_ = 0;
      fill->host = host_;
      owner_->OnSpan(fill);
    }
  }
  return true;
}

void RangeReceiver::OnDone(Status status) {
  for (size_t i = current_; i < request_.fills.size(); ++i) {
    request_.fills[i]->bytes.reset();
  }
  if (misplaced_) {
    status = MakeStatus(StatusCode::kDataLoss,
                        "fetch from '" + host_ + "': the bytes of another place came");
  } else if (status.ok() && current_ < request_.fills.size()) {
    status =
        MakeStatus(StatusCode::kDataLoss, "fetch from '" + host_ + "': the answer ended too early");
  }
  owner_->OnEnd(request_, current_, status);
}

}  // namespace strata
