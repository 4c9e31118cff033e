// SPDX-License-Identifier: Apache-2.0
//
// containerd's filter language for List. Filters are immutable and safe from any thread once
// parsed.
//
//   filter    := "" | selector { "," selector }   "" matches all; selectors AND, several filters OR
//   selector  := fieldpath [ operator value ]     without an operator: the field is present
//   fieldpath := field { "." field }              name, parent, kind, labels.KEY; others are absent
//   field     := quoted | run of A-Z a-z 0-9 _
//   operator  := "==" | "!=" | "~="               "~=": RE2, found anywhere in the value
//   value     := quoted | run without ',', spaces, control, format and private-use characters
//                (Unicode's Z and C) that begins with none of . , = ! ~ / | "
//   quoted    := "..." with Go's escapes; as the value of "~=" also /.../ and |...|
//
// Spaces may stand before a field, an operator or a value, and nowhere else. The parts of a label's
// path are joined by dots: labels.a.b is labels."a.b". A field that is absent fails "=="; "!=" and
// "~=" take it for "". A broken regular expression is no error and matches nothing, as in
// containerd.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata {

// What one call may ask for; more is InvalidArgument.
inline constexpr size_t kMaxFilterBytes = size_t{512} * 1024;  // of one text
inline constexpr size_t kMaxFilters = 1000;
inline constexpr size_t kMaxFilterSelectors = 1000;  // of all texts together
// Compiled form of all regular expressions together; one may take an equal share, 1 MiB at most.
// One that does not fit into its share is InvalidArgument.
inline constexpr size_t kMaxFilterRegexBytes = size_t{64} * 1024 * 1024;

class Filter {
 public:
  // Parses all of `texts`; one bad text is InvalidArgument that shows the text, the byte offset and
  // what was expected there. No text at all matches everything.
  static StatusOr<Filter> Parse(const std::vector<std::string>& texts);

  // Whether any of the texts matches.
  [[nodiscard]] bool Matches(const SnapshotInfo& info) const;

  // The same for what is no snapshot: `values` gives the value of a field by its name, that is the
  // part of the path before the first dot; nullopt for one that is absent.
  using FieldValues = std::function<std::optional<std::string_view>(std::string_view field)>;
  [[nodiscard]] bool MatchesFields(const FieldValues& values) const;

  // True when everything matches without looking.
  [[nodiscard]] bool matches_all() const;

  Filter();  // matches everything
  ~Filter();
  Filter(Filter&&) noexcept;
  Filter& operator=(Filter&&) noexcept;

 private:
  struct Selector;
  using Conjunction = std::vector<Selector>;
  class Parser;

  template <typename ValueOf>
  [[nodiscard]] bool AnyMatches(const ValueOf& value_of) const;

  // Empty: matches everything.
  std::vector<Conjunction> alternatives_;
};

}  // namespace strata
