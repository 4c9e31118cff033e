// SPDX-License-Identifier: Apache-2.0
//
// The verbs pull, images and rmi.
#include <signal.h>
#include <unistd.h>

#include <utility>

#include "client/image/image_source.h"
#include "client/stratactl/output.h"
#include "client/stratactl/table.h"
#include "client/worker/commands.h"
#include "client/worker/platforms.h"
#include "client/worker/progress.h"
#include "client/worker/signal_relay.h"
#include "client/worker/verb_arguments.h"
#include "client/worker/worker.h"
#include "snapshotters/base/log.h"

namespace strata {
namespace {

constexpr std::chrono::milliseconds kCollectLimit{10'000};

}  // namespace

StatusOr<int> PullVerb(const VerbCall& call) {
  std::string image;
  std::string platform;
  bool quiet = false;
  VerbArguments verb("pull", "Fetches an image and unpacks it");
  verb.app()
      .add_option("IMAGE", image, "NAME[:TAG][@DIGEST], oci:DIR[:TAG] or oci-archive:FILE[:TAG]")
      ->required();
  verb.app().add_option("--platform", platform, "of several, this one (default: the worker's)");
  verb.app().add_flag("-q,--quiet", quiet, "show no progress");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const ImageSource source, ParseImageSource(image));
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  STRATA_ASSIGN_OR_RETURN(PullOptions options, worker->OptionsForPull());
  if (!platform.empty()) {
    STRATA_ASSIGN_OR_RETURN(options.platform, ParsePlatform(platform));
  }
  CallContext context;
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<SignalRelay> signals,
                          SignalRelay::Start([&context](int number) {
                            if (number != SIGWINCH) {
                              context.Cancel();
                            }
                          }));
  STRATA_ASSIGN_OR_RETURN(Puller * images, worker->Images());
  TerminalProgress progress(STDERR_FILENO, ::isatty(STDERR_FILENO) == 1);
  options.progress = quiet ? nullptr : &progress;
  const StatusOr<PulledImage> pulled = images->Pull(context, source, options);
  progress.Finish();
  STRATA_RETURN_IF_ERROR(pulled.status());
  call.out << Printable(pulled->name) << "@" << pulled->manifest.digest << "\n";
  if (const Status collected = worker->Collect(kCollectLimit); !collected.ok()) {
    LogWarn("garbage collection failed, ignoring",
            {{"error", std::string(StatusMessage(collected))}});
  }
  return kWorkerOk;
}

StatusOr<int> ImagesVerb(const VerbCall& call) {
  bool json = false;
  VerbArguments verb("images", "Lists the images that are here");
  verb.app().add_flag("--json", json, "for programs");
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  STRATA_ASSIGN_OR_RETURN(ContentStore * content, worker->Content());
  STRATA_ASSIGN_OR_RETURN(const std::vector<ImageRecord> images, content->ListImages());
  if (!json) {
    std::vector<std::vector<std::string>> rows;
    rows.reserve(images.size());
    for (const ImageRecord& image : images) {
      rows.push_back({image.name, image.manifest.digest});
    }
    PrintTable(call.out, {"NAME", "MANIFEST"}, rows);
    return kWorkerOk;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const ImageRecord& image : images) {
    list.push_back({{"name", image.name},
                    {"manifest", image.manifest.digest},
                    {"media_type", image.manifest.media_type}});
  }
  PrintJson(call.out, list);
  return kWorkerOk;
}

StatusOr<int> RmiVerb(const VerbCall& call) {
  std::vector<std::string> names;
  VerbArguments verb("rmi", "Forgets images; their snapshots go with the next prune");
  verb.app().add_option("IMAGE", names, "as they were pulled")->required();
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(call.arguments));
  if (usage.has_value()) {
    call.out << usage->text;
    return kWorkerOk;
  }
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<Worker> worker,
                          Worker::Open(call.config, call.environment));
  STRATA_ASSIGN_OR_RETURN(ContentStore * content, worker->Content());
  for (const std::string& name : names) {
    STRATA_ASSIGN_OR_RETURN(const ImageSource source, ParseImageSource(name));
    STRATA_RETURN_IF_ERROR(content->RemoveImage(source.name));
    call.out << Printable(source.name) << "\n";
  }
  STRATA_RETURN_IF_ERROR(worker->RemoveBlobs().status());
  return kWorkerOk;
}

}  // namespace strata
