// SPDX-License-Identifier: Apache-2.0
#include "client/worker/stargz_process.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/os/mount_helper.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/mount_users.h"

extern char** environ;

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr milliseconds kPoll{20};
constexpr milliseconds kGuardPoll{250};
constexpr milliseconds kEndPatience{15'000};
constexpr seconds kMountPoll{2};
constexpr int kMostRestarts = 5;
constexpr int kExitUsage = 2;  // of strata-stargz: it does not take its configuration

// Files of the state directory.
constexpr const char* kUsers = "stargz.users";
constexpr const char* kGuard = "stargz.guard";
constexpr const char* kStart = "stargz.start";
constexpr const char* kConfig = "stargz.toml";
constexpr const char* kNamespace = "stargz.namespace";  // the guard's mount namespace
constexpr const char* kLog = "stargz.log";
constexpr const char* kSocket = "/stargz.sock";

std::string OwnProgram() {
  std::array<char, PATH_MAX> path{};
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size());
  return size > 0 ? std::string(path.data(), static_cast<size_t>(size)) : "";
}

// "mnt:[4026531841]", namespaces(7).
StatusOr<std::string> MountNamespace() {
  std::array<char, 64> name{};
  const ssize_t size = ::readlink("/proc/self/ns/mnt", name.data(), name.size());
  return size > 0 ? StatusOr<std::string>(std::string(name.data(), static_cast<size_t>(size)))
                  : ErrnoStatus(errno, "read '/proc/self/ns/mnt'");
}

// A program beside this one (or beside its folder's neighbour `services`, as in a build), else the
// one in PATH; "" when there is none.
std::string ProgramOf(const std::string& name) {
  const std::string own = OwnProgram();
  const std::string folder = own.substr(0, own.rfind('/'));
  for (const std::string& place : {folder, folder + "/../../services"}) {
    std::string path = place;
    path += "/";
    path += name;
    if (!place.empty() && ::access(path.c_str(), X_OK) == 0) {
      return path;
    }
  }
  return FindProgram(name).value_or("");
}

// Whether somebody serves on the socket.
bool Serves(const std::string& path) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return fd.valid() &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

std::string LastLine(int state_fd) {
  constexpr size_t kMostBytes = 1 << 20;
  const auto log = ReadFileAt(state_fd, kLog, kMostBytes);
  if (!log.ok()) {
    return "it said nothing";
  }
  std::string_view text = *log;
  while (text.ends_with('\n')) {
    text.remove_suffix(1);
  }
  const size_t start = text.rfind('\n');
  return std::string(start == std::string_view::npos ? text : text.substr(start + 1));
}

// A file that is read by strata-stargz alone.
Status WriteConfig(int state_fd, const std::map<std::string, std::string>& settings) {
  std::string text;
  for (const auto& [key, value] : settings) {
    text += key;
    text += " = ";
    text += value;
    text += "\n";
  }
  return WriteFileAtomicAt(state_fd, kConfig, text, 0600);
}

// As exec(3) wants them; they point into `words`.
std::vector<char*> ArgumentsOf(std::vector<std::string>& words) {
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) {
    arguments.push_back(word.data());
  }
  arguments.push_back(nullptr);
  return arguments;
}

// The guard, in a session of its own, so that no signal for this process' group reaches it.
StatusOr<pid_t> SpawnGuard(const StargzProcess::Options& options, int state_fd) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd log,
                          OpenAt(state_fd, kLog, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600));
  std::string program = OwnProgram();
  if (!program.ends_with("/strata-worker")) {
    program = ProgramOf("strata-worker");
  }
  if (program.empty() || ProgramOf("strata-stargz").empty()) {
    return MakeStatus(StatusCode::kNotFound,
                      "failed to find strata-stargz, nor strata-worker, beside this program and in "
                      "PATH");
  }
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  (void)::posix_spawn_file_actions_init(&files);
  (void)::posix_spawnattr_init(&attributes);
  (void)::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  (void)::posix_spawn_file_actions_adddup2(&files, log.get(), STDOUT_FILENO);
  (void)::posix_spawn_file_actions_adddup2(&files, log.get(), STDERR_FILENO);
  sigset_t none;
  sigset_t all;
  (void)::sigemptyset(&none);
  (void)::sigfillset(&all);
  (void)::posix_spawnattr_setsigmask(&attributes, &none);
  (void)::posix_spawnattr_setsigdefault(&attributes, &all);
  (void)::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> words = {program, kStargzGuardVerb, options.state, options.root};
  const std::vector<char*> arguments = ArgumentsOf(words);
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, program.c_str(), &files, &attributes, arguments.data(), environ);
  (void)::posix_spawnattr_destroy(&attributes);
  (void)::posix_spawn_file_actions_destroy(&files);
  return error == 0 ? StatusOr<pid_t>(pid) : ErrnoStatus(error, "start '" + program + "'");
}

Status EndedEarly(int code, int state_fd) {
  const std::string why = LastLine(state_fd);
  return code == kExitUsage
             ? MakeStatus(StatusCode::kInvalidArgument, "failed to parse stargz config: " + why)
             : MakeStatus(StatusCode::kUnavailable, "strata-stargz did not start: " + why);
}

// Waits until the socket is there, and starts a guard for it when there is none.
Status StartAndWait(const StargzProcess::Options& options, const std::string& socket, int state_fd,
                    steady_clock::time_point deadline) {
  pid_t guard = 0;
  while (!Serves(socket)) {
    int code = 0;
    if (guard != 0 && ::waitpid(guard, &code, WNOHANG) == guard) {
      return EndedEarly(WIFEXITED(code) ? WEXITSTATUS(code) : 1, state_fd);
    }
    if (steady_clock::now() >= deadline) {
      return MakeStatus(StatusCode::kUnavailable,
                        "strata-stargz does not serve on '" + socket +
                            "' (--snapshotter-wait): " + LastLine(state_fd));
    }
    STRATA_ASSIGN_OR_RETURN(const bool guarded, FileLock::IsLocked(state_fd, kGuard));
    if (!guarded && guard == 0) {
      STRATA_RETURN_IF_ERROR(WriteConfig(state_fd, options.settings));
      STRATA_ASSIGN_OR_RETURN(guard, SpawnGuard(options, state_fd));
    }
    std::this_thread::sleep_for(kPoll);
  }
  return OkStatus();
}

// Whether a guard runs whose server mounts layers where this process does not see them.
StatusOr<bool> IsElsewhere(int state_fd) {
  STRATA_ASSIGN_OR_RETURN(const bool guarded, FileLock::IsLocked(state_fd, kGuard));
  if (!guarded) {
    return false;
  }
  constexpr size_t kMostBytes = 64;
  STRATA_ASSIGN_OR_RETURN(const std::string own, MountNamespace());
  const StatusOr<std::string> its = ReadFileAt(state_fd, kNamespace, kMostBytes);
  if (its.status().code() == StatusCode::kNotFound) {
    return true;  // it has just begun
  }
  STRATA_RETURN_IF_ERROR(its.status());
  return *its != own;
}

// Takes the lock, or waits for it.
StatusOr<FileLock> LockUntil(int state_fd, const char* name, FileLock::Mode mode,
                             steady_clock::time_point deadline) {
  while (true) {
    STRATA_ASSIGN_OR_RETURN(std::optional<FileLock> lock, FileLock::Try(state_fd, name, mode));
    if (lock.has_value()) {
      return *std::move(lock);
    }
    if (steady_clock::now() >= deadline) {
      return MakeStatus(StatusCode::kUnavailable,
                        "strata-stargz is being ended, or started by another process, for too "
                        "long (--snapshotter-wait)");
    }
    std::this_thread::sleep_for(kPoll);
  }
}

// What a guard runs.
struct Programs {
  std::string server;
  std::string keeper;  // "": there is none, and readers of lazy layers see it when the server dies
};

// The lock of a user, with the server there; nothing when there is one elsewhere.
StatusOr<std::optional<FileLock>> TryToUse(const StargzProcess::Options& options,
                                           const std::string& socket, int state_fd,
                                           steady_clock::time_point deadline) {
  STRATA_ASSIGN_OR_RETURN(FileLock users,
                          LockUntil(state_fd, kUsers, FileLock::Mode::kShared, deadline));
  STRATA_ASSIGN_OR_RETURN(const FileLock start,
                          LockUntil(state_fd, kStart, FileLock::Mode::kExclusive, deadline));
  STRATA_ASSIGN_OR_RETURN(const bool elsewhere, IsElsewhere(state_fd));
  if (elsewhere) {
    return std::optional<FileLock>();
  }
  STRATA_RETURN_IF_ERROR(StartAndWait(options, socket, state_fd, deadline));
  return std::optional<FileLock>(std::move(users));
}

// strata-stargz under a guard, and its keeper; it ends with the guard, however that ends.
pid_t StartServer(const Programs& programs, const std::string& state, const std::string& root) {
  const pid_t guard = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) {
    return pid;
  }
  (void)::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != guard) {
    ::_exit(1);
  }
  const std::string socket = state + kSocket;
  const std::string config = state + "/" + kConfig;
  std::vector<std::string> words;
  if (!programs.keeper.empty()) {
    words = {programs.keeper, "--must-start", "--"};
  }
  words.insert(words.end(), {programs.server, "--root", root, "--socket", socket, "--config",
                             config, "--allow-volatile-root", "--anchor-dir", ""});
  const std::vector<char*> arguments = ArgumentsOf(words);
  (void)::execv(arguments.front(), arguments.data());
  ::_exit(127);
}

void EndServer(pid_t pid) {
  (void)::kill(pid, SIGTERM);
  const auto deadline = steady_clock::now() + kEndPatience;
  while (::waitpid(pid, nullptr, WNOHANG) == 0) {
    if (steady_clock::now() >= deadline) {
      (void)::kill(pid, SIGKILL);
      (void)::waitpid(pid, nullptr, 0);
      return;
    }
    std::this_thread::sleep_for(kPoll);
  }
}

// Whether a container has layers of the root: one whose worker was killed goes on, and reads what
// nobody would fetch for it any more. `root` has no symlinks.
bool IsMounted(const std::string& root) {
  const StatusOr<MountUsers> found = FindMountUsers(root);
  if (!found.ok()) {
    LogWarn("strata-stargz goes on, as nobody knows who needs it",
            {{"error", std::string(StatusMessage(found.status()))}});
    return true;
  }
  if (!found->users.empty()) {
    LogInfo("strata-stargz goes on for those who have layers mounted",
            {{"mount", found->users.front().mount_point}});
  }
  return !found->users.empty();
}

Status UnmountBelow(const std::string& root) {
  STRATA_ASSIGN_OR_RETURN(std::vector<std::string> mounts, MountPointsBelow(root));
  Status result;
  for (; !mounts.empty(); mounts.pop_back()) {
    if (const Status status = Unmount(mounts.back(), /*lazy=*/true);
        !status.ok() && status.code() != StatusCode::kNotFound) {
      result = status;
    }
  }
  return result;
}

Status EndHolder(int root_fd) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // A root's path may be longer than an address.
  const std::string path = "/proc/self/fd/" + std::to_string(root_fd) + "/holder.sock";
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  constexpr std::string_view kEnd = "FDEND=1";
  const bool sent = ::sendto(sender.get(), kEnd.data(), kEnd.size(), MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&address), sizeof(address)) >= 0;
  return sent || errno == ENOENT || errno == ECONNREFUSED
             ? OkStatus()
             : ErrnoStatus(errno, "end the second holder of descriptors");
}

// The path without symlinks, as the kernel names mounts.
StatusOr<std::string> PathOf(int fd) {
  std::array<char, PATH_MAX> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), path.data(), path.size());
  return size > 0 ? StatusOr<std::string>(std::string(path.data(), static_cast<size_t>(size)))
                  : ErrnoStatus(errno, "read '" + link + "'");
}

// Ends the server if no container needs it, and takes away what it leaves mounted, and with the
// second holder (services/keeper/PROTOCOL.md). False: somebody does.
StatusOr<bool> EndUnlessMounted(pid_t server, const std::string& root) {
  const StatusOr<UniqueFd> early = OpenFile(root, O_PATH | O_DIRECTORY);
  if (early.ok()) {
    STRATA_ASSIGN_OR_RETURN(const std::string path, PathOf(early->get()));
    if (IsMounted(path)) {
      return false;
    }
  }
  EndServer(server);
  // It may have been made in between; one that never was has nothing mounted.
  const StatusOr<UniqueFd> folder = OpenFile(root, O_PATH | O_DIRECTORY);
  if (folder.status().code() == StatusCode::kNotFound) {
    return true;
  }
  STRATA_RETURN_IF_ERROR(folder.status());
  STRATA_ASSIGN_OR_RETURN(const std::string path, PathOf(folder->get()));
  STRATA_RETURN_IF_ERROR(UnmountBelow(path));
  STRATA_RETURN_IF_ERROR(EndHolder(folder->get()));
  return true;
}

// Until nobody uses it: 0. Or until it cannot be kept alive.
StatusOr<int> Guard(int state_fd, const Programs& programs, const std::string& state,
                    const std::string& root) {
  int starts = 0;
  bool served = false;
  steady_clock::time_point look_again;
  pid_t server = 0;
  while (true) {
    if (server == 0) {
      server = StartServer(programs, state, root);
      ++starts;
      if (server < 0) {
        return ErrnoStatus(errno, "start '" + programs.server + "'");
      }
    }
    std::this_thread::sleep_for(served ? kGuardPoll : kPoll);
    served = served || Serves(state + kSocket);
    int code = 0;
    if (::waitpid(server, &code, WNOHANG) == server) {
      const int exited = WIFEXITED(code) ? WEXITSTATUS(code) : 1;
      if (!served || starts > kMostRestarts) {
        return exited;
      }
      server = 0;
      continue;
    }
    STRATA_ASSIGN_OR_RETURN(const std::optional<FileLock> unused,
                            FileLock::Try(state_fd, kUsers, FileLock::Mode::kExclusive));
    if (unused.has_value() && steady_clock::now() >= look_again) {
      STRATA_ASSIGN_OR_RETURN(const bool ended, EndUnlessMounted(server, root));
      if (ended) {
        return 0;
      }
      look_again = steady_clock::now() + kMountPoll;
    }
  }
}

}  // namespace

StatusOr<std::unique_ptr<StargzProcess>> StargzProcess::Use(const Options& options) {
  constexpr size_t kLongestSocket = sizeof(sockaddr_un::sun_path) - 1;
  const std::string socket = options.state + kSocket;
  if (socket.size() > kLongestSocket) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "socket '" + socket + "' has " + std::to_string(socket.size()) +
                          " bytes, expected at most " + std::to_string(kLongestSocket) +
                          ": choose a shorter --root");
  }
  const auto deadline = steady_clock::now() + options.wait;
  STRATA_ASSIGN_OR_RETURN(const UniqueFd state, OpenFile(options.state, O_RDONLY | O_DIRECTORY));
  while (true) {
    STRATA_ASSIGN_OR_RETURN(std::optional<FileLock> users,
                            TryToUse(options, socket, state.get(), deadline));
    if (users.has_value()) {
      return std::unique_ptr<StargzProcess>(new StargzProcess(socket, *std::move(users)));
    }
    if (steady_clock::now() >= deadline) {
      return MakeStatus(StatusCode::kUnavailable,
                        "strata-stargz of '" + options.root +
                            "' is used in another mount namespace, where its layers are mounted: "
                            "run this there, or when that has ended (--snapshotter-wait)");
    }
    // Without a lock: it ends when nobody uses it.
    std::this_thread::sleep_for(kPoll);
  }
}

int GuardStargz(const std::vector<std::string>& arguments) {
  const auto guard = [&]() -> StatusOr<int> {
    if (arguments.size() != 2) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        std::string(kStargzGuardVerb) + ": expected STATE ROOT");
    }
    STRATA_ASSIGN_OR_RETURN(const UniqueFd state, OpenFile(arguments[0], O_RDONLY | O_DIRECTORY));
    STRATA_ASSIGN_OR_RETURN(const std::optional<FileLock> only,
                            FileLock::Try(state.get(), kGuard, FileLock::Mode::kExclusive));
    STRATA_ASSIGN_OR_RETURN(const std::string own, MountNamespace());
    if (only.has_value()) {
      STRATA_RETURN_IF_ERROR(WriteFileAtomicAt(state.get(), kNamespace, own, 0600));
    }
    const Programs programs{.server = ProgramOf("strata-stargz"),
                            .keeper = ProgramOf("strata-keeper")};
    return only.has_value() ? Guard(state.get(), programs, arguments[0], arguments[1])
                            : StatusOr<int>(0);
  };
  const StatusOr<int> code = guard();
  if (!code.ok()) {
    LogError("the guard of strata-stargz gives up",
             {{"error", std::string(StatusMessage(code.status()))}});
    return 1;
  }
  return *code;
}

}  // namespace strata
