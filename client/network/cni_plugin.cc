// SPDX-License-Identifier: Apache-2.0
#include "client/network/cni_plugin.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "client/network/namespace_thread.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPoll{1};
constexpr milliseconds kStopLimit{2'000};
constexpr size_t kMaxResultBytes = size_t{1} << 20;
constexpr size_t kMaxErrorBytes = 4096;
// For the programs that plugins call, where this process has none.
constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

StatusOr<UniqueFd> MemoryFile(const char* name) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  return fd.valid() ? StatusOr<UniqueFd>(std::move(fd)) : ErrnoStatus(errno, "memfd_create");
}

// The last `limit` bytes.
std::string ReadEnd(int fd, size_t limit) {
  struct stat found {};
  if (::fstat(fd, &found) != 0) {
    return {};
  }
  const off_t start = std::max<off_t>(0, found.st_size - static_cast<off_t>(limit));
  std::string text(static_cast<size_t>(found.st_size - start), '\0');
  const ssize_t size = ::pread(fd, text.data(), text.size(), start);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return text;
}

std::string LastLine(std::string text) {
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  return text.substr(text.rfind('\n') + 1);
}

StatusOr<std::string> FindPlugin(const std::string& type, std::string_view plugin_path) {
  std::string_view rest = plugin_path;
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    std::string path = std::string(folder) + "/" + type;
    struct stat found {};
    if (folder.starts_with('/') && ::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode)) {
      return path;
    }
    rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
  }
  return MakeStatus(StatusCode::kUnavailable, "failed to find plugin \"" + type + "\" in path [" +
                                                  std::string(plugin_path) + "]");
}

std::vector<std::string> EnvironmentFor(std::string_view command, const CniAttachment& attachment) {
  std::vector<std::string> variables;
  bool has_path = false;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    has_path = has_path || text.starts_with("PATH=");
    // Not ours to hand on: readiness is told by this process.
    if (!text.starts_with("CNI_") && !text.starts_with("NOTIFY_SOCKET=")) {
      variables.emplace_back(text);
    }
  }
  if (!has_path) {
    variables.push_back("PATH=" + std::string(kDefaultPath));
  }
  variables.push_back("CNI_COMMAND=" + std::string(command));
  variables.push_back("CNI_CONTAINERID=" + attachment.container_id);
  variables.push_back("CNI_NETNS=" + attachment.netns);
  variables.push_back("CNI_IFNAME=" + std::string(kCniInterface));
  variables.push_back("CNI_ARGS=" + attachment.args);
  variables.push_back("CNI_PATH=" + attachment.plugin_path);
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

// One run of a program, in a process group of its own. All three streams are files in memory: a
// process that the program leaves behind can neither block nor be waited for by them.
class PluginRun {
 public:
  Status Start(const std::string& program, std::vector<std::string> environment,
               std::string_view input);
  // The exit code, 128 and the number for a signal; nothing when the time is up. Nothing of the
  // group runs any more then.
  std::optional<int> Wait(const CniLimits& limits);

  [[nodiscard]] std::string output() const { return ReadEnd(output_.get(), kMaxResultBytes); }
  [[nodiscard]] std::string errors() const { return ReadEnd(errors_.get(), kMaxErrorBytes); }

 private:
  UniqueFd input_;
  UniqueFd output_;
  UniqueFd errors_;
  pid_t pid_ = -1;
};

Status PluginRun::Start(const std::string& program, std::vector<std::string> environment,
                        std::string_view input) {
  STRATA_ASSIGN_OR_RETURN(input_, MemoryFile("strata-cni-input"));
  STRATA_ASSIGN_OR_RETURN(output_, MemoryFile("strata-cni-output"));
  STRATA_ASSIGN_OR_RETURN(errors_, MemoryFile("strata-cni-errors"));
  STRATA_RETURN_IF_ERROR(WriteAll(input_.get(), input, "the plugin's input"));
  if (::lseek(input_.get(), 0, SEEK_SET) != 0) {
    return ErrnoStatus(errno, "lseek");
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t all;
  sigset_t none;
  (void)::sigfillset(&all);
  (void)::sigemptyset(&none);
  // These only fail for want of memory, which ends the process anyway.
  (void)::posix_spawn_file_actions_init(&actions);
  (void)::posix_spawn_file_actions_adddup2(&actions, input_.get(), STDIN_FILENO);
  (void)::posix_spawn_file_actions_adddup2(&actions, output_.get(), STDOUT_FILENO);
  (void)::posix_spawn_file_actions_adddup2(&actions, errors_.get(), STDERR_FILENO);
  (void)::posix_spawnattr_init(&attributes);
  (void)::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  (void)::posix_spawnattr_setpgroup(&attributes, 0);
  (void)::posix_spawnattr_setsigdefault(&attributes, &all);
  (void)::posix_spawnattr_setsigmask(&attributes, &none);
  std::vector<std::string> arguments = {program};
  const int error = ::posix_spawn(&pid_, program.c_str(), &actions, &attributes,
                                  Pointers(arguments).data(), Pointers(environment).data());
  (void)::posix_spawnattr_destroy(&attributes);
  (void)::posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? OkStatus() : ErrnoStatus(error, "run " + ShowName(program));
}

std::optional<int> PluginRun::Wait(const CniLimits& limits) {
  auto deadline = limits.deadline;
  bool stopping = false;
  bool late = false;
  siginfo_t info{};
  while (true) {
    info.si_pid = 0;
    // Left as a zombie, so that its number, the group's, cannot be somebody else's below.
    const int waited = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
    if ((waited == 0 && info.si_pid == pid_) || (waited < 0 && errno != EINTR)) {
      break;
    }
    if (!stopping && limits.stop != nullptr && limits.stop->load()) {
      stopping = true;
      deadline = std::min(deadline, steady_clock::now() + kStopLimit);
    }
    late = steady_clock::now() > deadline;
    if (late) {
      break;
    }
    const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kPoll).count()};
    (void)::nanosleep(&pause, nullptr);
  }
  (void)::kill(-pid_, SIGKILL);  // ESRCH: nobody is left of it
  int state = 0;
  pid_t reaped = 0;
  while ((reaped = ::waitpid(pid_, &state, 0)) < 0 && errno == EINTR) {
  }
  if (late) {
    return std::nullopt;
  }
  if (reaped != pid_) {
    return -1;  // somebody else in this process waits for every child
  }
  return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

// The plugin's own words (CNI specification, section 5, "Error").
std::string Explain(const PluginRun& run, int code) {
  using nlohmann::json;
  const std::string output = run.output();
  const json error = json::parse(output, /*cb=*/nullptr, /*allow_exceptions=*/false);
  std::string text;
  if (error.is_object()) {
    for (const char* key : {"msg", "details"}) {
      const auto found = error.find(key);
      if (found != error.end() && found->is_string() && !found->get<std::string>().empty()) {
        text += text.empty() ? "" : "; ";
        text += found->get<std::string>();
      }
    }
  }
  if (!text.empty()) {
    return text;
  }
  const std::string line = LastLine(run.errors());
  return "it ended with " + std::to_string(code) + (line.empty() ? "" : ": " + line);
}

StatusOr<std::string> RunHere(const CniPlugin& plugin, std::string_view command,
                              const CniAttachment& attachment, const std::string& config,
                              const CniLimits& limits) {
  STRATA_ASSIGN_OR_RETURN(const std::string program,
                          FindPlugin(plugin.type, attachment.plugin_path));
  PluginRun run;
  STRATA_RETURN_IF_ERROR(run.Start(program, EnvironmentFor(command, attachment), config));
  const auto start = steady_clock::now();
  const std::optional<int> code = run.Wait(limits);
  const std::string what = "plugin \"" + plugin.type + "\": ";
  if (!code.has_value()) {
    const auto taken = std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
    return MakeStatus(StatusCode::kDeadlineExceeded, what + std::string(command) +
                                                         " was not done after " +
                                                         std::to_string(taken.count()) + " ms");
  }
  if (*code != 0) {
    return MakeStatus(StatusCode::kUnavailable, what + Explain(run, *code));
  }
  return run.output();
}

StatusOr<std::string> RunPlugin(const CniPlugin& plugin, std::string_view command,
                                const CniAttachment& attachment, const std::string& config,
                                const CniLimits& limits) {
  if (attachment.outer_netns.empty()) {
    return RunHere(plugin, command, attachment, config, limits);
  }
  StatusOr<std::string> result = std::string();
  STRATA_RETURN_IF_ERROR(RunInNetworkNamespace(attachment.outer_netns, [&] {
    result = RunHere(plugin, command, attachment, config, limits);
    return result.status();
  }));
  return result;
}

}  // namespace

StatusOr<std::string> CniAdd(const CniConfig& config, const CniAttachment& attachment,
                             const CniLimits& limits) {
  std::string result;
  for (const CniPlugin& plugin : config.plugins) {
    const std::string input = WithPreviousResult(plugin.config, result);
    STRATA_ASSIGN_OR_RETURN(result, RunPlugin(plugin, "ADD", attachment, input, limits));
    if (!nlohmann::json::parse(result, nullptr, /*allow_exceptions=*/false).is_object()) {
      return MakeStatus(StatusCode::kUnavailable, "plugin \"" + plugin.type +
                                                      "\": expected its result to be a JSON object "
                                                      "of at most " +
                                                      std::to_string(kMaxResultBytes) + " bytes");
    }
  }
  return result;
}

Status CniDel(const CniConfig& config, const CniAttachment& attachment, std::string_view result,
              const CniLimits& limits) {
  Status first;
  for (auto plugin = config.plugins.rbegin(); plugin != config.plugins.rend(); ++plugin) {
    const std::string input =
        WithPreviousResult(plugin->config, config.keeps_result_for_del ? result : "");
    const Status status = RunPlugin(*plugin, "DEL", attachment, input, limits).status();
    if (first.ok()) {
      first = status;
    }
  }
  return first;
}

}  // namespace strata
