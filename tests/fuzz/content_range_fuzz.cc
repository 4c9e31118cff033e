// SPDX-License-Identifier: Apache-2.0
//
// The Content-Range of a registry's answer: nothing crashes, and what is read is a range that can
// be, whose canonical form means the same.
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "snapshotters/base/check.h"
#include "snapshotters/registry/blob_request.h"

namespace {

std::string Canonical(const strata::ContentRange& range) {
  const std::string total = range.total.has_value() ? std::to_string(*range.total) : "*";
  return range.unsatisfied ? "bytes */" + total
                           : "bytes " + std::to_string(range.first) + "-" +
                                 std::to_string(range.last) + "/" + total;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto range =
      strata::ParseContentRange(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!range.has_value()) {
    return 0;
  }
  if (!range->unsatisfied) {
    STRATA_CHECK(range->first <= range->last);
    STRATA_CHECK(range->last < std::numeric_limits<uint64_t>::max());
    STRATA_CHECK(!range->total.has_value() || range->last < *range->total);
  }
  const auto again = strata::ParseContentRange(Canonical(*range));
  STRATA_CHECK(again.has_value() && again->unsatisfied == range->unsatisfied);
  STRATA_CHECK(again->first == range->first && again->last == range->last);
  STRATA_CHECK(again->total == range->total);
  return 0;
}
