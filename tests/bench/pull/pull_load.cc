// SPDX-License-Identifier: Apache-2.0
//
// pull_load DIRECTORY SNAPSHOTTER REFERENCE: pulls the image once, with an in-process snapshotter
// and a content store in DIRECTORY. The last line on standard output is a read-only mount of what
// came out, as JSON. For tests/bench/pull and tests/integration/test_pull.py.
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "client/image/pull.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"
#include "snapshotters/native/native_snapshotter.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"

namespace strata {
namespace {

class NoCredentials : public CredentialSource {
 public:
  StatusOr<std::optional<Credential>> Find(std::string_view /*host*/,
                                           const Reference& /*reference*/) override {
    return std::optional<Credential>();
  }
};

template <typename Kind, typename Options>
StatusOr<std::unique_ptr<Snapshotter>> OpenAs(const Options& options) {
  STRATA_ASSIGN_OR_RETURN(auto snapshotter, Kind::Create(options));
  return std::unique_ptr<Snapshotter>(std::move(snapshotter));
}

StatusOr<std::unique_ptr<Snapshotter>> Open(const std::string& kind, const std::string& root) {
  if (kind == "native") {
    return OpenAs<NativeSnapshotter>(NativeOptions{.root = root});
  }
  if (kind == "fuse-overlayfs") {
    return OpenAs<FuseOverlayfsSnapshotter>(FuseOverlayfsOptions{.root = root});
  }
  return OpenAs<OverlayfsSnapshotter>(OverlayfsOptions{.root = root});
}

nlohmann::json Show(const Mount& mount) {
  return {{"type", mount.type}, {"source", mount.source}, {"options", mount.options}};
}

Status Run(const std::string& directory, const std::string& kind, const std::string& text) {
  STRATA_ASSIGN_OR_RETURN(const auto snapshotter, Open(kind, directory + "/snapshotter"));
  STRATA_ASSIGN_OR_RETURN(
      const auto snapshots,
      WorkerSnapshots::Create(*snapshotter, {.worker_id = "benchbenchbenchbenchbench",
                                             .holds_directory = directory + "/holds"}));
  STRATA_ASSIGN_OR_RETURN(const auto content, ContentStore::Open(directory + "/content"));
  NoCredentials credentials;
  STRATA_ASSIGN_OR_RETURN(const auto puller, Puller::Create(*content, *snapshots, credentials));
  STRATA_ASSIGN_OR_RETURN(const ImageSource source, ParseImageSource(text));
  CallContext call;
  STRATA_ASSIGN_OR_RETURN(
      const PulledImage image,
      puller->Pull(call, source, {.platform = {.os = "linux", .architecture = "amd64"}}));
  STRATA_ASSIGN_OR_RETURN(const auto mounts, snapshots->View(call, "look", image.snapshot));
  for (const Mount& mount : mounts) {
    (void)std::printf("%s\n", Show(mount).dump().c_str());
  }
  return OkStatus();
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  if (argc != 4) {
    (void)std::fprintf(stderr, "expected DIRECTORY SNAPSHOTTER REFERENCE\n");
    return 2;
  }
  const strata::Status status = strata::Run(argv[1], argv[2], argv[3]);
  if (!status.ok()) {
    (void)std::fprintf(stderr, "pull_load: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
