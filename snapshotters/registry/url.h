// SPDX-License-Identifier: Apache-2.0
//
// Url: the parts of an http(s) URL, and where a Location leads. Pure, safe from any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

struct Url {
  std::string scheme;     // "http" or "https"
  std::string authority;  // host[:port], lower case, without the scheme's own port
  std::string path;       // begins with '/'
  std::string query;      // without '?'

  // Same scheme, host and port: only then may credentials follow.
  [[nodiscard]] bool SameOrigin(const Url& other) const {
    return scheme == other.scheme && authority == other.authority;
  }
  [[nodiscard]] std::string ToString() const;
};

// InvalidArgument: not http(s), no host, user information, blanks or control characters, longer
// than 16 KiB. The error never shows the URL, whose query may be a signature. A fragment is
// dropped.
StatusOr<Url> ParseUrl(std::string_view text);

// `location` (absolute, "//host/path", "/path", "?query" or relative) as seen from `base`.
StatusOr<Url> ResolveLocation(const Url& base, std::string_view location);

// The first value of the parameter, percent-decoded; the name's case does not count.
std::optional<std::string> QueryParameter(const Url& url, std::string_view name);

// %XX for everything but letters, digits and "-._~".
std::string PercentEncode(std::string_view text);

// host[:port] is localhost, *.localhost, 127.0.0.0/8 or [::1].
bool IsLoopback(std::string_view authority);

// ASCII only.
std::string LowerCase(std::string_view text);
bool EqualsIgnoreCase(std::string_view a, std::string_view b);
std::string_view TrimBlanks(std::string_view text);

}  // namespace strata
