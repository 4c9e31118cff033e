// SPDX-License-Identifier: Apache-2.0
//
// Where an image is to come from, as a person types it. Pure, safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/registry/reference.h"

namespace strata {

struct ImageSource {
  enum class Kind { kRegistry, kOciLayout, kOciArchive };

  Kind kind = Kind::kRegistry;
  Reference reference;  // of a registry; with a tag or a digest
  std::string path;     // of a layout's directory or an archive's file; absolute
  std::string tag;      // in it (org.opencontainers.image.ref.name); "": the only one there is
  // By which the image is recorded and can be run later: "docker.io/library/debian:latest",
  // "oci:/srv/image:tag".
  std::string name;
};

// "debian", "debian:12", "host:5000/a/b@sha256:...": as docker completes them (docker.io, library/,
// :latest). "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]"; relative paths are of the working directory.
// InvalidArgument says what is wrong.
StatusOr<ImageSource> ParseImageSource(std::string_view text);

}  // namespace strata
