// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/redirect.h"

#include <absl/strings/numbers.h>
#include <absl/strings/string_view.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <string>

namespace strata {
namespace {

using std::chrono::seconds;

constexpr seconds kUnsignedLifetime{600};
constexpr int64_t kLongestLifetime = int64_t{7} * 24 * 60 * 60;  // S3's longest signature

std::optional<int64_t> Number(std::string_view text) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &number) || number < 0) {
    return std::nullopt;
  }
  return number;
}

std::optional<int64_t> Date(const std::string& text, const char* format) {
  std::tm date{};
  if (strptime(text.c_str(), format, &date) == nullptr) {
    return std::nullopt;
  }
  return timegm(&date);
}

// Seconds since 1970 at which the signature ends.
std::optional<int64_t> SignatureEnd(const Url& target, int64_t now) {
  for (const std::string prefix : {"X-Amz-", "X-Goog-"}) {
    const auto expires = QueryParameter(target, prefix + "Expires");
    const auto length = expires.has_value() ? Number(*expires) : std::nullopt;
    if (length.has_value()) {
      const auto signed_at = QueryParameter(target, prefix + "Date");
      const auto begin = signed_at.has_value() ? Date(*signed_at, "%Y%m%dT%H%M%SZ") : std::nullopt;
      return begin.value_or(now) + std::min(*length, kLongestLifetime);
    }
  }
  if (const auto expires = QueryParameter(target, "Expires"); expires.has_value()) {
    return Number(*expires);  // CloudFront and S3's older signatures
  }
  if (const auto end = QueryParameter(target, "se"); end.has_value()) {
    return Date(*end, "%Y-%m-%dT%H:%M:%SZ");  // Azure
  }
  return std::nullopt;
}

// max-age, or 0 for no-store and no-cache.
std::optional<int64_t> MaxAge(std::string_view cache_control) {
  std::optional<int64_t> age;
  while (!cache_control.empty()) {
    const std::string_view part = cache_control.substr(0, cache_control.find(','));
    cache_control.remove_prefix(std::min(part.size() + 1, cache_control.size()));
    const std::string directive = LowerCase(TrimBlanks(part));
    if (directive == "no-store" || directive == "no-cache") {
      return 0;
    }
    if (directive.starts_with("max-age=")) {
      age = Number(std::string_view(directive).substr(8));
    }
  }
  return age;
}

}  // namespace

bool IsRedirect(int http_status) {
  return http_status == 301 || http_status == 302 || http_status == 303 || http_status == 307 ||
         http_status == 308;
}

StatusOr<Url> FollowRedirect(const Url& from, std::string_view location) {
  auto target = ResolveLocation(from, location);
  if (!target.ok()) {
    return Annotate(target.status(), "follow the redirect of '" + from.authority + "'");
  }
  if (from.scheme == "https" && target->scheme == "http" && !IsLoopback(target->authority)) {
    return MakeStatus(StatusCode::kFailedPrecondition, "follow the redirect of '" + from.authority +
                                                           "' to '" + target->authority +
                                                           "': it leads from https to http");
  }
  return target;
}

seconds RedirectLifetime(const Url& target, std::optional<std::string_view> cache_control,
                         TimeNs now) {
  const int64_t now_seconds = now / 1'000'000'000;
  const auto end = SignatureEnd(target, now_seconds);
  seconds lifetime = kUnsignedLifetime;
  if (end.has_value()) {
    const int64_t left = std::clamp(*end - now_seconds, int64_t{0}, kLongestLifetime);
    // A request that begins with the last valid second may be answered after it.
    lifetime = seconds(left - std::min(left, std::max(int64_t{5}, left / 10)));
  }
  if (cache_control.has_value()) {
    const auto age = MaxAge(*cache_control);
    if (age.has_value()) {
      lifetime = std::min(lifetime, seconds(std::min(*age, kLongestLifetime)));
    }
  }
  return lifetime;
}

}  // namespace strata
