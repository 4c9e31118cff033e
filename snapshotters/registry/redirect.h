// SPDX-License-Identifier: Apache-2.0
//
// Redirects of registries to where blobs lie: which are followed, and how long their target may be
// used without asking again. Pure, safe from any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "snapshotters/base/clock.h"
#include "snapshotters/base/status.h"
#include "snapshotters/registry/url.h"

namespace strata {

inline constexpr int kMostRedirects = 5;

// 301, 302, 303, 307, 308.
bool IsRedirect(int http_status);

// Where `location` leads. FailedPrecondition: from https to http, unless to loopback. Errors name
// hosts only.
StatusOr<Url> FollowRedirect(const Url& from, std::string_view location);

// How long the target may be used, by the signature in its query (X-Amz-Expires with X-Amz-Date,
// X-Goog-Expires, Expires, se) and the Cache-Control of the redirect, with some slack; ten minutes
// when neither says. 0: for this request only.
std::chrono::seconds RedirectLifetime(const Url& target,
                                      std::optional<std::string_view> cache_control, TimeNs now);

}  // namespace strata
