// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/fallback_reason.h"

#include <absl/strings/cord.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cerrno>
#include <string>

namespace strata {
namespace {

constexpr absl::string_view kReasonPayload = "strata/fallback-reason";

constexpr std::array kReasons = {FallbackReason::kNone,     FallbackReason::kNotLazy,
                                 FallbackReason::kNoPin,    FallbackReason::kBadLayer,
                                 FallbackReason::kRegistry, FallbackReason::kCredentials,
                                 FallbackReason::kTimeout,  FallbackReason::kDisk,
                                 FallbackReason::kLimits,   FallbackReason::kPresenter};

struct CodeReason {
  StatusCode code;
  FallbackReason reason;
};
constexpr std::array kByCode = {
    CodeReason{StatusCode::kOk, FallbackReason::kNone},
    CodeReason{StatusCode::kFailedPrecondition, FallbackReason::kNotLazy},
    CodeReason{StatusCode::kDataLoss, FallbackReason::kBadLayer},
    CodeReason{StatusCode::kInvalidArgument, FallbackReason::kBadLayer},
    CodeReason{StatusCode::kUnauthenticated, FallbackReason::kCredentials},
    CodeReason{StatusCode::kPermissionDenied, FallbackReason::kCredentials},
    CodeReason{StatusCode::kDeadlineExceeded, FallbackReason::kTimeout},
    CodeReason{StatusCode::kCancelled, FallbackReason::kTimeout},
    CodeReason{StatusCode::kResourceExhausted, FallbackReason::kLimits}};

FallbackReason ReasonOfCode(const Status& status) {
  if (status.code() == StatusCode::kResourceExhausted && StatusErrno(status).has_value()) {
    return FallbackReason::kDisk;
  }
  for (const auto& [code, reason] : kByCode) {
    if (status.code() == code) {
      return reason;
    }
  }
  return FallbackReason::kRegistry;  // unreachable, not there, without ranges
}

}  // namespace

std::string_view FallbackReasonName(FallbackReason reason) {
  switch (reason) {
    case FallbackReason::kNone:
      return "none";
    case FallbackReason::kNotLazy:
      return "not-lazy";
    case FallbackReason::kNoPin:
      return "no-pin";
    case FallbackReason::kBadLayer:
      return "bad-layer";
    case FallbackReason::kRegistry:
      return "registry";
    case FallbackReason::kCredentials:
      return "credentials";
    case FallbackReason::kTimeout:
      return "timeout";
    case FallbackReason::kDisk:
      return "disk";
    case FallbackReason::kLimits:
      return "limits";
    case FallbackReason::kPresenter:
      return "presenter";
  }
  return "?";
}

Status WithReason(Status status, FallbackReason reason) {
  if (!status.ok()) {
    const std::string_view name = FallbackReasonName(reason);
    status.SetPayload(kReasonPayload, absl::Cord(absl::string_view(name.data(), name.size())));
  }
  return status;
}

FallbackReason ReasonOf(const Status& status) {
  if (const auto payload = status.GetPayload(kReasonPayload); payload.has_value()) {
    const std::string name(*payload);
    for (const FallbackReason reason : kReasons) {
      if (FallbackReasonName(reason) == name) {
        return reason;
      }
    }
  }
  return ReasonOfCode(status);
}

}  // namespace strata
