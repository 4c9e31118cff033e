// SPDX-License-Identifier: Apache-2.0
//
// strata-bench-prepare SOCKET: asks a remote snapshotter for the layers of an image as an unpacker
// does, one after the other, and prints how many seconds all of it took. A line of standard input
// is a layer, bottom up: the name of its snapshot and its labels (KEY=VALUE), separated by tabs.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "client/dial.h"
#include "client/proxy_snapshotter.h"
#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/core/snapshotter.h"

namespace strata {
namespace {

constexpr std::chrono::seconds kLimit{60};

struct Layer {
  std::string name;
  Labels labels;
};

std::vector<Layer> ReadLayers(std::istream& input) {
  std::vector<Layer> layers;
  for (std::string line; std::getline(input, line);) {
    std::istringstream fields(line);
    Layer layer;
    std::getline(fields, layer.name, '\t');
    for (std::string label; std::getline(fields, label, '\t');) {
      const size_t split = label.find('=');
      layer.labels[label.substr(0, split)] = label.substr(split + 1);
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

// Fails unless each layer is there without having been unpacked.
Status PrepareAll(Snapshotter& snapshotter, const std::vector<Layer>& layers) {
  CallContext call;
  std::string parent;
  for (const Layer& layer : layers) {
    const Status prepared =
        snapshotter.Prepare(call, "extract " + layer.name, parent, layer.labels).status();
    if (prepared.code() != StatusCode::kAlreadyExists) {
      return prepared.ok() ? MakeStatus(StatusCode::kFailedPrecondition,
                                        "the layer '" + layer.name + "' was not made remotely")
                           : prepared;
    }
    STRATA_RETURN_IF_ERROR(snapshotter.Stat(call, layer.name).status());
    parent = layer.name;
  }
  return OkStatus();
}

StatusOr<double> Measure(const std::string& socket, const std::vector<Layer>& layers) {
  STRATA_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                          Dial(socket, {.wait_for_ready = kLimit}));
  const std::unique_ptr<Snapshotter> snapshotter = NewProxySnapshotter(
      std::move(channel), {.snapshotter_name = "bench", .call_timeout = kLimit});
  const auto begin = std::chrono::steady_clock::now();
  STRATA_RETURN_IF_ERROR(PrepareAll(*snapshotter, layers));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: strata-bench-prepare SOCKET <LAYERS\n";
    return 2;
  }
  const strata::StatusOr<double> seconds = strata::Measure(argv[1], strata::ReadLayers(std::cin));
  if (!seconds.ok()) {
    std::cerr << "strata-bench-prepare: " << seconds.status() << '\n';
    return 1;
  }
  std::printf("%.6f\n", *seconds);
  return 0;
}
