// SPDX-License-Identifier: Apache-2.0
//
// Reference: the name of an image as containerd writes it. Pure, safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "snapshotters/base/status.h"

namespace strata {

struct Reference {
  std::string host;        // "docker.io", "registry:5000", "[::1]:5000"
  std::string repository;  // "library/debian"
  std::string tag;         // empty: none
  std::string digest;      // empty: none

  bool operator==(const Reference&) const = default;
};

// host[:port]/path[:tag][@algorithm:hex]. The host is required, as in containerd's labels: nothing
// is added to "debian". InvalidArgument says what is wrong; a reference is at most 1024 bytes.
StatusOr<Reference> ParseReference(std::string_view text);

// The text that parses to `reference`.
std::string ShowReference(const Reference& reference);

// sha256:<64 hex digits> or sha512:<128>, lower case.
Status ValidateDigest(std::string_view digest);

}  // namespace strata
