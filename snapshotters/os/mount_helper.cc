// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/os/mount_helper.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/os/mount_ops.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// execve(2): MAX_ARG_STRLEN. mount.fuse3 makes one argument of all, for the shell, in quotes; what
// else it puts in has room in the rest.
constexpr size_t kMaxOptionBytes = (size_t{128} << 10) - 4096;
constexpr size_t kErrorBytes = 4096;
constexpr milliseconds kPoll{2};
constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct HelperType {
  std::string helper;   // "mount.fuse3"
  std::string program;  // "fuse-overlayfs"
};

std::optional<HelperType> Parse(std::string_view type) {
  for (const std::string_view prefix : {"fuse3", "fuse"}) {
    if (type.starts_with(prefix) && type.size() > prefix.size() + 1 && type[prefix.size()] == '.') {
      return HelperType{"mount." + std::string(prefix),
                        std::string(type.substr(prefix.size() + 1))};
    }
  }
  return std::nullopt;
}

bool Has(const std::vector<std::string>& options, std::string_view option) {
  return std::find(options.begin(), options.end(), option) != options.end();
}

StatusOr<std::vector<std::string>> CommandFor(const HelperType& type, const Mount& mount,
                                              const std::string& target) {
  if (const auto helper = FindProgram(type.helper)) {
    std::vector<std::string> command = {*helper, mount.source, target};
    for (const std::string& option : mount.options) {
      command.insert(command.end(), {"-o", option});
    }
    command.insert(command.end(), {"-t", type.program});
    return command;
  }
  const auto program =
      type.program.find('/') == std::string::npos ? FindProgram(type.program) : std::nullopt;
  if (!program.has_value()) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "neither " + type.helper + " nor " + type.program + " is installed");
  }
  std::vector<std::string> command = {*program};
  for (const std::string& option : mount.options) {
    command.insert(command.end(), {"-o", option});
  }
  // What mount.fuse3 adds for root: libfuse's own defaults are those for users, nodev and nosuid.
  for (const auto& [option, opposite] : {std::pair("dev", "nodev"), std::pair("suid", "nosuid")}) {
    if (::geteuid() == 0 && !Has(mount.options, opposite)) {
      command.insert(command.end(), {"-o", option});
    }
  }
  command.push_back(target);
  return command;
}

// A number for what is mounted on `target`: another one after a mount. Asks no file system, so a
// FUSE server that has ended does not matter.
StatusOr<std::string> MountIdOf(const std::string& target) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(target, O_PATH | O_DIRECTORY));
  const std::string path = "/proc/self/fdinfo/" + std::to_string(fd.get());
  STRATA_ASSIGN_OR_RETURN(const std::string info, ReadFileAt(AT_FDCWD, path, 4096));
  const size_t start = info.find("mnt_id:");  // proc(5), Linux 3.15
  if (start == std::string::npos) {
    return MakeStatus(StatusCode::kFailedPrecondition, "no mnt_id in '" + path + "'");
  }
  return info.substr(start, info.find('\n', start) - start);
}

// One run of a program in a process group of its own.
class Run {
 public:
  Status Start(std::vector<std::string> command);
  // The exit code; nothing when the limit has passed and the group was killed.
  std::optional<int> Wait(milliseconds limit);
  // What it said last.
  [[nodiscard]] std::string LastLine() const;

 private:
  UniqueFd errors_;
  pid_t pid_ = -1;
};

Status Run::Start(std::vector<std::string> command) {
  // Not a pipe: the server that the helper leaves behind may keep it open.
  errors_ = UniqueFd(::memfd_create("strata-mount-helper", MFD_CLOEXEC));
  if (!errors_.valid()) {
    return ErrnoStatus(errno, "memfd_create");
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t all;
  sigset_t none;
  (void)::sigfillset(&all);
  (void)::sigemptyset(&none);
  // These only fail for want of memory, which ends the process anyway.
  (void)::posix_spawn_file_actions_init(&actions);
  (void)::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  (void)::posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
  (void)::posix_spawn_file_actions_adddup2(&actions, errors_.get(), STDERR_FILENO);
  (void)::posix_spawnattr_init(&attributes);
  // The server inherits signal masks, and daemons block what they wait for.
  (void)::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  (void)::posix_spawnattr_setpgroup(&attributes, 0);
  (void)::posix_spawnattr_setsigdefault(&attributes, &all);
  (void)::posix_spawnattr_setsigmask(&attributes, &none);
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (std::string& argument : command) {
    arguments.push_back(argument.data());
  }
  arguments.push_back(nullptr);
  const int error =
      ::posix_spawn(&pid_, arguments[0], &actions, &attributes, arguments.data(), environ);
  (void)::posix_spawnattr_destroy(&attributes);
  (void)::posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? OkStatus() : ErrnoStatus(error, "run " + ShowName(command[0]));
}

std::optional<int> Run::Wait(milliseconds limit) {
  const auto end = steady_clock::now() + limit;
  while (true) {
    int state = 0;
    const pid_t waited = ::waitpid(pid_, &state, WNOHANG);
    if (waited == pid_) {
      return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    }
    if (waited < 0 && errno != EINTR) {
      // ECHILD: somebody else in this process waits for every child. Whether it has mounted is
      // seen by looking.
      return 0;
    }
    if (steady_clock::now() > end) {
      (void)::kill(-pid_, SIGKILL);
      while (::waitpid(pid_, &state, 0) < 0 && errno == EINTR) {
      }
      return std::nullopt;
    }
    const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kPoll).count()};
    (void)::nanosleep(&pause, nullptr);
  }
}

std::string Run::LastLine() const {
  std::string text(kErrorBytes, '\0');
  struct stat found {};
  const bool known = ::fstat(errors_.get(), &found) == 0;
  const off_t start = known ? std::max<off_t>(0, found.st_size - off_t{kErrorBytes}) : 0;
  const ssize_t size = ::pread(errors_.get(), text.data(), text.size(), start);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  return text.substr(text.rfind('\n') + 1);
}

Status RunHelper(const HelperType& type, const Mount& mount, const std::string& target,
                 milliseconds limit) {
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> command, CommandFor(type, mount, target));
  const std::string shown = command.front();
  Run run;
  STRATA_RETURN_IF_ERROR(run.Start(std::move(command)));
  const std::optional<int> code = run.Wait(limit);
  if (!code.has_value()) {
    return MakeStatus(StatusCode::kDeadlineExceeded, "'" + shown + "' was not done after " +
                                                         std::to_string(limit.count()) + " ms");
  }
  if (*code != 0) {
    const std::string said = run.LastLine();
    return MakeStatus(
        StatusCode::kFailedPrecondition,
        "'" + shown + "' ended with " + std::to_string(*code) + (said.empty() ? "" : ": " + said));
  }
  return OkStatus();
}

}  // namespace

bool NeedsMountHelper(std::string_view type) {
  return Parse(type).has_value();
}

std::optional<std::string> FindProgram(std::string_view name) {
  const char* variable = std::getenv("PATH");
  std::string_view rest = variable == nullptr ? kDefaultPath : variable;
  while (!rest.empty()) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    const std::string path = std::string(rest.substr(0, colon)) + "/" + std::string(name);
    struct stat found {};
    // A relative folder would depend on where the process happens to be.
    if (path.starts_with('/') && ::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) &&
        ::access(path.c_str(), X_OK) == 0) {
      return path;
    }
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return std::nullopt;
}

Status MountByHelper(const Mount& mount, const std::string& target, milliseconds limit) {
  const std::string action = "mount " + mount.type + " on " + ShowName(target);
  const std::optional<HelperType> type = Parse(mount.type);
  if (!type.has_value()) {
    return MakeStatus(StatusCode::kInvalidArgument, action + ": not a type with a helper");
  }
  size_t bytes = 0;
  for (const std::string& option : mount.options) {
    bytes += option.size() + 1;
  }
  if (bytes > kMaxOptionBytes) {
    return MakeStatus(StatusCode::kResourceExhausted,
                      action + ": options of " + std::to_string(bytes) + " bytes, at most " +
                          std::to_string(kMaxOptionBytes) + " fit");
  }
  STRATA_ASSIGN_OR_RETURN(const std::string before, MountIdOf(target));
  Status status = RunHelper(*type, mount, target, limit);
  const StatusOr<std::string> after = MountIdOf(target);
  if (status.ok() && (!after.ok() || *after == before)) {
    status =
        MakeStatus(StatusCode::kFailedPrecondition, "the helper is done, but nothing is mounted");
  } else if (!status.ok() && after.ok() && *after != before) {
    // It was killed behind mount(2): what is there has no server any more.
    (void)Unmount(target, /*lazy=*/true);  // the first error is the one to report
  }
  return Annotate(status, action);
}

}  // namespace strata
