// SPDX-License-Identifier: Apache-2.0
#include "client/run/oci_runtime.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"
#include "snapshotters/os/mount_helper.h"

namespace strata {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;

constexpr milliseconds kCallLimit{30'000};
constexpr size_t kMaxOutputBytes = size_t{1} << 20;

// What a program writes, kept in memory. Not a pipe: it could fill up while we wait for the end.
StatusOr<UniqueFd> MakeCapture() {
  UniqueFd fd(::memfd_create("strata-runtime", MFD_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "memfd_create");
  }
  return fd;
}

std::string Captured(const UniqueFd& fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t size = 0;
       text.size() < kMaxOutputBytes &&
       (size = ::pread(fd.get(), buffer, sizeof(buffer), static_cast<off_t>(text.size()))) > 0;) {
    text.append(buffer, static_cast<size_t>(size));
  }
  return text;
}

std::string LastLine(std::string_view text) {
  while (!text.empty() && text.back() == '\n') {
    text.remove_suffix(1);
  }
  return std::string(text.substr(text.rfind('\n') + 1));
}

std::optional<std::string> FindBinary(const std::string& name) {
  if (name.find('/') == std::string::npos) {
    return FindProgram(name);
  }
  struct stat found {};
  const bool is_program = ::stat(name.c_str(), &found) == 0 && S_ISREG(found.st_mode) &&
                          ::access(name.c_str(), X_OK) == 0;
  return is_program ? std::optional(name) : std::nullopt;
}

// A file for one call, gone with it.
class ScratchFile {
 public:
  static StatusOr<ScratchFile> Create(const std::string& directory) {
    std::string path = directory + "/.log-XXXXXX";
    const UniqueFd fd(::mkostemp(path.data(), O_CLOEXEC));
    if (!fd.valid()) {
      return ErrnoStatus(errno, "create a file in " + ShowName(directory));
    }
    return ScratchFile(std::move(path));
  }
  ~ScratchFile() {
    if (!path_.empty()) {
      (void)::unlink(path_.c_str());  // the directory may be gone with it
    }
  }
  ScratchFile(ScratchFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchFile& operator=(ScratchFile&&) = delete;
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit ScratchFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// In the words of runc and crun.
StatusCode CodeFor(std::string_view error) {
  const auto says = [&](std::string_view words) { return error.find(words) != std::string::npos; };
  if (says("does not exist") || says("No such file or directory")) {
    return StatusCode::kNotFound;
  }
  return StatusCode::kFailedPrecondition;
}

}  // namespace

std::string RuntimeError(std::string_view log) {
  std::string error;
  while (!log.empty()) {
    const size_t end = std::min(log.find('\n'), log.size());
    const Json line = Json::parse(log.substr(0, end), nullptr, /*allow_exceptions=*/false);
    log.remove_prefix(std::min(end + 1, log.size()));
    if (!line.is_object() || !line.contains("level") || !line.contains("msg")) {
      continue;
    }
    const bool is_error = line["level"] == "error" || line["level"] == "fatal";
    if (is_error && line["msg"].is_string()) {
      error = line["msg"].get<std::string>();
    }
  }
  return error;
}

StatusOr<std::unique_ptr<OciRuntime>> OciRuntime::Find(const std::string& binary) {
  const std::vector<std::string> candidates =
      binary.empty() ? std::vector<std::string>{"buildkit-runc", "runc"}
                     : std::vector<std::string>{binary};
  std::optional<std::string> program;
  for (size_t i = 0; i < candidates.size() && !program.has_value(); ++i) {
    program = FindBinary(candidates[i]);
  }
  if (!program.has_value()) {
    return MakeStatus(StatusCode::kNotFound, "failed to find " + candidates.back() + " binary");
  }
  STRATA_ASSIGN_OR_RETURN(const UniqueFd help, MakeCapture());
  STRATA_ASSIGN_OR_RETURN(
      ChildProcess child,
      ChildProcess::Start(
          {.arguments = {*program, "run", "--help"}, .out = help.get(), .err = help.get()}));
  if (!child.Wait(kCallLimit).has_value()) {
    return MakeStatus(StatusCode::kDeadlineExceeded, "'" + *program + " run --help' hangs");
  }
  const bool keeps = Captured(help).find("--keep") != std::string::npos;
  return std::unique_ptr<OciRuntime>(new OciRuntime(*program, keeps));
}

StatusOr<ChildProcess> OciRuntime::Run(const std::string& bundle, const std::string& id,
                                       const std::string& pid_file, const std::string& log,
                                       const RuntimeStreams& streams) const {
  Command command{.arguments = {program_, "--log", log, "--log-format", "json", "run", "--bundle",
                                bundle, "--pid-file", pid_file},
                  .in = streams.in,
                  .out = streams.out,
                  .err = streams.err};
  if (keeps_containers_) {
    command.arguments.emplace_back("--keep");
  }
  command.arguments.push_back(id);
  return ChildProcess::Start(command);
}

StatusOr<ChildProcess> OciRuntime::Exec(const std::string& id, const std::string& process,
                                        const std::string& pid_file, const std::string& log,
                                        const RuntimeStreams& streams) const {
  return ChildProcess::Start({.arguments = {program_, "--log", log, "--log-format", "json", "exec",
                                            "--process", process, "--pid-file", pid_file, id},
                              .in = streams.in,
                              .out = streams.out,
                              .err = streams.err});
}

StatusOr<std::string> OciRuntime::Call(const std::string& scratch,
                                       std::vector<std::string> arguments,
                                       milliseconds limit) const {
  STRATA_ASSIGN_OR_RETURN(const ScratchFile log, ScratchFile::Create(scratch));
  STRATA_ASSIGN_OR_RETURN(const UniqueFd out, MakeCapture());
  STRATA_ASSIGN_OR_RETURN(const UniqueFd errors, MakeCapture());
  const std::string action = "'" + program_ + " " + arguments.front() + "'";
  Command command{.arguments = {program_, "--log", log.path(), "--log-format", "json"},
                  .out = out.get(),
                  .err = errors.get()};
  command.arguments.insert(command.arguments.end(), arguments.begin(), arguments.end());
  STRATA_ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Start(command));
  const std::optional<int> code = child.Wait(limit);
  if (!code.has_value()) {
    return MakeStatus(StatusCode::kDeadlineExceeded,
                      action + " was not done after " + std::to_string(limit.count()) + " ms");
  }
  if (*code == 0) {
    return Captured(out);
  }
  const StatusOr<std::string> lines = ReadFileAt(AT_FDCWD, log.path(), kMaxOutputBytes);
  std::string error = lines.ok() ? RuntimeError(*lines) : "";
  if (error.empty()) {
    error = LastLine(Captured(errors));
  }
  return MakeStatus(
      CodeFor(error),
      action + ": " + (error.empty() ? "ended with " + std::to_string(*code) : error));
}

StatusOr<ContainerState> OciRuntime::State(const std::string& scratch,
                                           const std::string& id) const {
  STRATA_ASSIGN_OR_RETURN(const std::string text, Call(scratch, {"state", id}, kCallLimit));
  const Json state = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool valid = state.is_object() && state.contains("status") && state["status"].is_string() &&
                     state.contains("pid") && state["pid"].is_number_integer();
  if (!valid) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "'" + program_ + " state': expected JSON with status and pid");
  }
  return ContainerState{state["status"].get<std::string>(), state["pid"].get<int>()};
}

Status OciRuntime::Kill(const std::string& scratch, const std::string& id, int signal,
                        milliseconds limit) const {
  return Call(scratch, {"kill", id, std::to_string(signal)}, limit).status();
}

Status OciRuntime::Delete(const std::string& scratch, const std::string& id) const {
  const Status status = Call(scratch, {"delete", "--force", id}, kCallLimit).status();
  return status.code() == StatusCode::kNotFound ? OkStatus() : status;
}

}  // namespace strata
