// SPDX-License-Identifier: Apache-2.0
#include "client/image/image_source.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

constexpr std::string_view kLayout = "oci:";
constexpr std::string_view kArchive = "oci-archive:";

Status Bad(std::string_view text, std::string_view why) {
  return MakeStatus(StatusCode::kInvalidArgument,
                    "image " + ShowName(text) + ": " + std::string(why));
}

StatusOr<std::string> Absolute(std::string_view path) {
  if (path.starts_with('/')) {
    return std::string(path);
  }
  char here[PATH_MAX];
  if (::getcwd(here, sizeof(here)) == nullptr) {
    return ErrnoStatus(errno, "find the working directory");
  }
  return std::string(here) + "/" + std::string(path);
}

// PATH[:TAG]; the first colon divides, since names of images have colons, too.
StatusOr<ImageSource> ParseOnDisk(std::string_view text, std::string_view scheme,
                                  ImageSource::Kind kind) {
  const std::string_view rest = text.substr(scheme.size());
  const size_t colon = rest.find(':');
  if (rest.substr(0, colon).empty()) {
    return Bad(text, "expected " + std::string(scheme) + "PATH[:TAG]");
  }
  if (rest.find('\0') != std::string_view::npos || !IsValidUtf8(rest)) {
    return Bad(text, "expected UTF-8 without NUL bytes");
  }
  ImageSource source{.kind = kind};
  STRATA_ASSIGN_OR_RETURN(source.path, Absolute(rest.substr(0, colon)));
  if (colon != std::string_view::npos) {
    source.tag = rest.substr(colon + 1);
    if (source.tag.empty()) {
      return Bad(text, "the tag behind the colon is empty");
    }
  }
  source.name = std::string(scheme) + source.path + (source.tag.empty() ? "" : ":" + source.tag);
  return source;
}

// The first component is a host if it could not be a part of a repository's name.
bool BeginsWithHost(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) {
    return false;
  }
  const std::string_view first = text.substr(0, slash);
  return first == "localhost" || first.find_first_of(".:[") != std::string_view::npos;
}

}  // namespace

StatusOr<ImageSource> ParseImageSource(std::string_view text) {
  if (text.starts_with(kLayout)) {
    return ParseOnDisk(text, kLayout, ImageSource::Kind::kOciLayout);
  }
  if (text.starts_with(kArchive)) {
    return ParseOnDisk(text, kArchive, ImageSource::Kind::kOciArchive);
  }
  if (text.empty()) {
    return Bad(text, "expected a name such as debian:12");
  }
  std::string full(text);
  if (!BeginsWithHost(text)) {
    full.insert(0, "docker.io/");
  } else if (text.starts_with("index.docker.io/")) {
    full.replace(0, std::string_view("index.docker.io").size(), "docker.io");
  }
  constexpr std::string_view kHub = "docker.io/";
  if (full.starts_with(kHub) && full.find('/', kHub.size()) == std::string::npos) {
    full.insert(kHub.size(), "library/");
  }
  auto reference = ParseReference(full);
  if (!reference.ok()) {
    return Bad(text, StatusMessage(reference.status()));
  }
  ImageSource source{.reference = *std::move(reference)};
  if (source.reference.tag.empty() && source.reference.digest.empty()) {
    source.reference.tag = "latest";
  }
  source.name = ShowReference(source.reference);
  return source;
}

}  // namespace strata
