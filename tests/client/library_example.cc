// SPDX-License-Identifier: Apache-2.0
//
// The example of docs/library.md: an image from a registry onto a snapshotter behind a socket, and
// a process on it. library_example SOCKET DIRECTORY IMAGE COMMAND...
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "client/dial.h"
#include "client/image/content_store.h"
#include "client/image/image_source.h"
#include "client/image/pull.h"
#include "client/network/provider.h"
#include "client/proxy_snapshotter.h"
#include "client/run/executor.h"
#include "client/worker_snapshots.h"

namespace {

using strata::Status;
using strata::StatusOr;

struct Parts {
  std::unique_ptr<strata::Snapshotter> snapshotter;
  std::unique_ptr<strata::WorkerSnapshots> snapshots;
  std::unique_ptr<strata::ContentStore> content;
  std::unique_ptr<strata::CredentialSource> credentials;
  std::unique_ptr<strata::Puller> images;
};

StatusOr<Parts> Open(const std::string& socket, const std::string& directory) {
  Parts parts;
  // Waits until the server answers, and gives up any call after a minute.
  STRATA_ASSIGN_OR_RETURN(auto channel,
                          strata::Dial(socket, {.wait_for_ready = std::chrono::seconds(10)}));
  parts.snapshotter = strata::NewProxySnapshotter(
      channel, {.snapshotter_name = "overlayfs", .call_timeout = std::chrono::minutes(1)});
  // Names of our own on it: others may use it, too.
  STRATA_ASSIGN_OR_RETURN(
      parts.snapshots,
      strata::WorkerSnapshots::Create(
          *parts.snapshotter, {.worker_id = "example", .holds_directory = directory + "/holds"}));
  STRATA_ASSIGN_OR_RETURN(parts.content, strata::ContentStore::Open(directory + "/content"));
  parts.credentials = std::make_unique<strata::DockerConfigCredentials>(
      strata::DockerConfigCredentials::DefaultPath());
  STRATA_ASSIGN_OR_RETURN(
      parts.images, strata::Puller::Create(*parts.content, *parts.snapshots, *parts.credentials));
  return parts;
}

StatusOr<int> Run(const std::string& directory, Parts& parts, const strata::PulledImage& image,
                  std::vector<std::string> command) {
  strata::CallContext call;
  const std::unique_ptr<strata::NetworkProvider> network = strata::NewHostNetwork();
  STRATA_ASSIGN_OR_RETURN(
      const auto executor,
      strata::Executor::Create({.directory = directory + "/executor"}, *network));
  strata::RunRequest request;
  request.process.args = std::move(command);
  request.process.env = image.config.env;
  request.process.streams = {.out = STDOUT_FILENO, .err = STDERR_FILENO};
  STRATA_ASSIGN_OR_RETURN(request.rootfs,
                          parts.snapshots->Prepare(call, "example-run", image.snapshot,
                                                   strata::RecordType::kRegular, "an example", {}));
  const StatusOr<strata::RunResult> result = executor->Run(call, request);
  STRATA_RETURN_IF_ERROR(parts.snapshots->Remove(call, "example-run"));
  STRATA_RETURN_IF_ERROR(result.status());
  return result->code;
}

StatusOr<int> Example(const std::vector<std::string>& arguments) {
  if (arguments.size() < 4) {
    return strata::MakeStatus(strata::StatusCode::kInvalidArgument,
                              "expected SOCKET DIRECTORY IMAGE COMMAND...");
  }
  STRATA_ASSIGN_OR_RETURN(Parts parts, Open(arguments[0], arguments[1]));
  STRATA_ASSIGN_OR_RETURN(const strata::ImageSource source, strata::ParseImageSource(arguments[2]));
  strata::PullOptions options;
  options.platform = {.os = "linux", .architecture = "amd64"};
  strata::CallContext call;
  STRATA_ASSIGN_OR_RETURN(const strata::PulledImage image,
                          parts.images->Pull(call, source, options));
  return Run(arguments[1], parts, image, {arguments.begin() + 3, arguments.end()});
}

}  // namespace

int main(int argc, char** argv) {
  const StatusOr<int> code = Example({argv + 1, argv + argc});
  if (!code.ok()) {
    std::cerr << strata::StatusMessage(code.status()) << std::endl;
    return 125;
  }
  return *code;
}
