// SPDX-License-Identifier: Apache-2.0
//
// The error type of the whole tree: absl::Status, with the errno that caused it kept as a payload.
// Everything here is stateless and safe from any thread.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace strata {

using Status = absl::Status;
using StatusCode = absl::StatusCode;
template <typename T>
using StatusOr = absl::StatusOr<T>;

inline Status OkStatus() {
  return {};
}

// Debian's absl::string_view is not std::string_view, so absl's own factories reject ours.
Status MakeStatus(StatusCode code, std::string_view message);

// The failure `error` (an errno) of what `action` names ("open 'PATH'"). The code says what the
// caller can do about it; errno itself travels as a payload, because absl's mapping is lossy and a
// FUSE reply must give the number back. ENOSPC and EDQUOT become ResourceExhausted.
Status ErrnoStatus(int error, std::string_view action);

// The errno that ErrnoStatus put in, if any.
std::optional<int> StatusErrno(const Status& status);

// `status` with "context: " in front of its message; code and payloads stay. OK stays OK.
Status Annotate(const Status& status, std::string_view context);

// Message of `status` as our own string type.
inline std::string_view StatusMessage(const Status& status) {
  return {status.message().data(), status.message().size()};
}

inline const Status& ToStatus(const Status& status) {
  return status;
}
template <typename T>
const Status& ToStatus(const StatusOr<T>& result) {
  return result.status();
}

}  // namespace strata

#define STRATA_CONCAT_INNER(a, b) a##b
#define STRATA_CONCAT(a, b) STRATA_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (a Status) is not OK.
#define STRATA_RETURN_IF_ERROR(expr)          \
  do {                                        \
    ::strata::Status strata_status_ = (expr); \
    if (!strata_status_.ok()) {               \
      return strata_status_;                  \
    }                                         \
  } while (false)

// STRATA_ASSIGN_OR_RETURN(auto x, F()): x is F()'s value, or the function returns its error.
#define STRATA_ASSIGN_OR_RETURN(lhs, expr) \
  STRATA_ASSIGN_OR_RETURN_INNER(STRATA_CONCAT(strata_result_, __LINE__), lhs, expr)
#define STRATA_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) {                                    \
    return ::strata::Status(result.status());            \
  }                                                      \
  lhs = *std::move(result)
