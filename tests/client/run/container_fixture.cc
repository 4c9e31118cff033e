// SPDX-License-Identifier: Apache-2.0
#include "tests/client/run/container_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/os/mount_helper.h"

namespace strata::testing {
namespace {

class NoNetwork final : public ContainerNetwork {
 public:
  explicit NoNetwork(CountingNetwork& from) : from_(from) {}
  ~NoNetwork() override { ++from_.returned; }
  [[nodiscard]] Kind kind() const override { return Kind::kNone; }
  [[nodiscard]] const std::string& path() const override { return path_; }

 private:
  CountingNetwork& from_;
  const std::string path_;
};

}  // namespace

bool WaitUntil(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kWaitLimitMs);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    (void)::poll(nullptr, 0, 5);
  }
  return true;
}

StatusOr<std::unique_ptr<ContainerNetwork>> CountingNetwork::Take(
    std::string_view /*hostname*/, std::chrono::milliseconds /*timeout*/) {
  ++taken;
  return std::make_unique<NoNetwork>(*this);
}

Output::Output() : fd_(::memfd_create("output", MFD_CLOEXEC)) {
  STRATA_CHECK(fd_.valid());
  STRATA_CHECK(::fcntl(fd_.get(), F_SETFL, O_APPEND) == 0);
}

std::string Output::Text() const {
  std::string text;
  char buffer[4096];
  for (ssize_t size = 0;
       (size = ::pread(fd_.get(), buffer, sizeof(buffer), static_cast<off_t>(text.size()))) > 0;) {
    text.append(buffer, static_cast<size_t>(size));
  }
  return text;
}

Containers::Containers(const ExecutorOptions& options) {
  std::filesystem::create_directories(RootPath("/tmp"));
  const char* build = std::getenv("STRATA_BUILD_ROOT");
  STRATA_CHECK(build != nullptr);
  std::filesystem::copy_file(std::string(build) + "/tests/client/run/run_probe",
                             RootPath("/probe"));
  options_ = options;
  options_.directory = scratch.Join("executor");
  if (options.binary == "crun" && FindProgram("crun").has_value()) {
    options_.binary = scratch.Join("crun");
    std::ofstream(options_.binary)
        << "#!/bin/sh\nexec unshare --mount sh -c 'test ! -d /sys/fs/cgroup/unified || "
           "umount /sys/fs/cgroup/unified; exec crun \"$@\"' crun \"$@\"\n";
    std::filesystem::permissions(options_.binary, std::filesystem::perms::owner_all);
  }
  StatusOr<std::unique_ptr<Executor>> made = Executor::Create(options_, network);
  error_ = made.status();
  if (made.ok()) {
    executor = *std::move(made);
  }
}

RunRequest Containers::Probe(std::vector<std::string> arguments) {
  RunRequest request;
  request.process.args = {"/probe"};
  request.process.args.insert(request.process.args.end(), arguments.begin(), arguments.end());
  request.process.streams.out = out.fd();
  request.process.streams.err = err.fd();
  request.rootfs = {{"bind", RootPath(""), "", {"rbind", "rw"}}};
  return request;
}

int Containers::Run(const RunRequest& request) {
  const StatusOr<RunResult> result = executor->Run(call, request);
  error_ = result.status();
  return result.ok() ? result->code : -1;
}

std::string Containers::RootPath(const std::string& path) const {
  return scratch.Join("root") + path;
}

void Containers::WriteFile(const std::string& path, const std::string& text) const {
  std::filesystem::create_directories(std::filesystem::path(RootPath(path)).parent_path());
  std::ofstream(RootPath(path)) << text;
}

std::string Containers::Leftovers() const {
  std::string found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.Join("executor"), error)) {
    found += entry.path().string() + "\n";
  }
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    found += line.find(scratch.path()) != std::string::npos ? line + "\n" : "";
  }
  if (network.taken != network.returned) {
    found += "a network\n";
  }
  return found;
}

}  // namespace strata::testing
