// SPDX-License-Identifier: Apache-2.0
//
// Filter texts, divided by NUL, against some snapshots: nothing crashes, every match ends, and what
// is refused is refused as the caller's fault.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/check.h"
#include "snapshotters/core/filter.h"
#include "snapshotters/core/snapshot.h"

namespace {

using strata::Filter;
using strata::Kind;
using strata::SnapshotInfo;
using strata::StatusCode;
using strata::StatusOr;

// No good text has a NUL, while a newline is a space of the language.
std::vector<std::string> Split(std::string_view input) {
  std::vector<std::string> texts;
  while (!input.empty()) {
    const size_t end = input.find('\0');
    texts.emplace_back(input.substr(0, end));
    input.remove_prefix(end == std::string_view::npos ? input.size() : end + 1);
  }
  return texts;
}

std::vector<SnapshotInfo> Snapshots() {
  return {
      {.name = "a"},
      {.name = "foo",
       .parent = "a",
       .kind = Kind::kCommitted,
       .labels = {{"l", "2"}, {"a.b", "x,y"}, {"containerd.io/snapshot.ref", "sha256:aa"}}},
      {.name = std::string(1000, 'x'),
       .parent = "/a/b c",
       .kind = Kind::kView,
       .labels = {{"l", ""}, {"ü", "\n\"q\""}}},
  };
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<SnapshotInfo>& snapshots = *new std::vector(Snapshots());
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> texts = Split(input);
  const StatusOr<Filter> filter = Filter::Parse(texts);
  if (!filter.ok()) {
    STRATA_CHECK(filter.status().code() == StatusCode::kInvalidArgument);
    STRATA_CHECK(!filter.status().message().empty());
    return 0;
  }
  for (const SnapshotInfo& info : snapshots) {
    const bool matches = filter->Matches(info);
    STRATA_CHECK(matches || !filter->matches_all());
    // Several texts are the OR of each alone.
    bool any = texts.empty();
    for (const std::string& text : texts) {
      const StatusOr<Filter> alone = Filter::Parse({text});
      STRATA_CHECK(alone.ok());
      any = any || alone->Matches(info);
    }
    STRATA_CHECK(any == matches);
  }
  return 0;
}
