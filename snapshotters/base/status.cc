// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/base/status.h"

#include <absl/strings/cord.h>
#include <absl/strings/numbers.h>
#include <absl/strings/string_view.h>

#include <cerrno>
#include <cstring>

namespace strata {
namespace {

constexpr absl::string_view kErrnoPayload = "strata/errno";

StatusCode CodeOfErrno(int error) {
  switch (error) {
    case ENOENT:
      return StatusCode::kNotFound;
    case EEXIST:
      return StatusCode::kAlreadyExists;
    case EINVAL:
    case ENAMETOOLONG:
      return StatusCode::kInvalidArgument;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return StatusCode::kResourceExhausted;
    case EAGAIN:
    case ECONNREFUSED:
    case ECONNRESET:
      return StatusCode::kUnavailable;
    case ETIMEDOUT:
      return StatusCode::kDeadlineExceeded;
    case ECANCELED:
      return StatusCode::kCancelled;
    case ENOSYS:
    case EOPNOTSUPP:
      return StatusCode::kUnimplemented;
    case EACCES:
    case EPERM:
      return StatusCode::kPermissionDenied;
    default:
      // A state of this machine that the caller must change first (EROFS, EBUSY, EIO, ...).
      return StatusCode::kFailedPrecondition;
  }
}

absl::string_view ToAbsl(std::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

Status MakeStatus(StatusCode code, std::string_view message) {
  return {code, ToAbsl(message)};
}

Status ErrnoStatus(int error, std::string_view action) {
  char buffer[128];
  // The GNU form of strerror_r: thread-safe, and the text may lie outside `buffer`.
  std::string message(action);
  message += ": ";
  message += strerror_r(error, buffer, sizeof(buffer));
  Status status(CodeOfErrno(error), ToAbsl(message));
  status.SetPayload(kErrnoPayload, absl::Cord(ToAbsl(std::to_string(error))));
  return status;
}

std::optional<int> StatusErrno(const Status& status) {
  const auto payload = status.GetPayload(kErrnoPayload);
  int error = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &error)) {
    return std::nullopt;
  }
  return error;
}

Status Annotate(const Status& status, std::string_view context) {
  if (status.ok()) {
    return status;
  }
  std::string message(context);
  message += ": ";
  message += StatusMessage(status);
  Status annotated(status.code(), ToAbsl(message));
  status.ForEachPayload([&annotated](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace strata
