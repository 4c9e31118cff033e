// SPDX-License-Identifier: Apache-2.0
//
// layer_readers TREE REFERENCE FILES [--tools FILE] [--readers N] [--seed S] [--once]: processes
// that read TREE in all the ways that containers do (read, mmap, exec) and compare it with
// REFERENCE, until stdin ends; with --once each reads every file once. FILES has a path on each
// line, relative to both; FILE has folders with a program each that prints sums (ld.so, lib/,
// sha256sum). For each line on stdin, and at the end, one line of JSON says how it goes. It exits
// with 0; what it found is in the JSON. For tests only.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "snapshotters/base/digest.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/base/status.h"
#include "snapshotters/base/unique_fd.h"

namespace strata::testing {
namespace {

constexpr size_t kMostReadBytes = 256 << 10;
constexpr size_t kMapStepBytes = 64 << 10;
constexpr int kMostReaders = 64;
// After the end: a reader that is still in a call by then is stuck.
constexpr std::chrono::seconds kEndLimit{120};

struct Arguments {
  std::string tree;
  std::string reference;
  std::string files;
  std::string tools;
  int readers = 8;
  uint64_t seed = 1;
  bool once = false;
};

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Of one reader, in memory that all share.
struct Progress {
  std::atomic<int64_t> since_ms;  // when it began to wait for the kernel; 0: it does not
  std::atomic<int64_t> longest_ms;
  std::atomic<uint64_t> reads;
  std::atomic<uint64_t> maps;
  std::atomic<uint64_t> execs;
  std::atomic<uint64_t> bytes;
  std::atomic<uint64_t> errors;
  std::atomic<uint64_t> wrong;  // other bytes
  std::atomic<uint64_t> zeros;  // of them, zeros
  std::atomic<bool> told;       // problem is set
  std::array<char, 512> problem = {};
};

struct Shared {
  std::atomic<bool> stop;
  std::array<Progress, kMostReaders> readers;
};

// While it lives, the reader waits for the kernel.
class Waiting {
 public:
  explicit Waiting(Progress& progress) : progress_(progress), since_(NowMs()) {
    progress_.since_ms = since_;
  }
  ~Waiting() {
    progress_.since_ms = 0;
    progress_.longest_ms = std::max(progress_.longest_ms.load(), NowMs() - since_);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Progress& progress_;
  const int64_t since_;
};

// What a page that cannot be had does to a process that has mapped it. One thread, one place.
sigjmp_buf g_bus_error;  // NOLINT: a signal handler has nothing else

void OnBusError(int /*number*/) {
  siglongjmp(g_bus_error, 1);  // NOLINT: out of a memcmp, which has nothing to release
}

// Compares memory one of whose sides may be a mapping; 0: equal, 1: not, -1: a page cannot be had.
int CompareMapped(const uint8_t* mapped, const uint8_t* wanted, size_t bytes) {
  if (sigsetjmp(g_bus_error, /*savemask=*/1) != 0) {
    return -1;
  }
  return std::memcmp(mapped, wanted, bytes) == 0 ? 0 : 1;
}

// Of a pipe.
std::string ReadToEnd(int fd) {
  std::string text;
  std::array<char, 4096> piece{};
  ssize_t got = 0;
  while ((got = ::read(fd, piece.data(), piece.size())) > 0 || (got < 0 && errno == EINTR)) {
    text.append(piece.data(), got > 0 ? static_cast<size_t>(got) : 0);
  }
  return text;
}

class Reader {
 public:
  Reader(const Arguments& arguments, const std::vector<std::string>& files,
         const std::vector<std::string>& tools, Shared& shared, int number)
      : arguments_(arguments),
        files_(files),
        tools_(tools),
        shared_(shared),
        progress_(shared.readers[static_cast<size_t>(number)]),
        random_(arguments.seed * 1000 + static_cast<uint64_t>(number)) {}

  void Run() {
    struct sigaction action {};
    action.sa_handler = OnBusError;
    (void)::sigaction(SIGBUS, &action, nullptr);  // cannot fail with these arguments
    if (arguments_.once) {
      RunOnce();
      return;
    }
    while (!shared_.stop) {
      Use(files_[Below(files_.size())], Below(10));
    }
  }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }

  void RunOnce() {
    std::vector<size_t> order(files_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), random_);
    for (const size_t index : order) {
      if (shared_.stop) {
        return;
      }
      Use(files_[index], Below(2) == 0 ? 0 : 6);
    }
  }

  void Use(const std::string& name, uint64_t way) {
    if (way == 9 && !tools_.empty()) {
      Execute(tools_[Below(tools_.size())], name);
      return;
    }
    const StatusOr<UniqueFd> wanted = OpenFile(arguments_.reference + "/" + name, O_RDONLY);
    if (!wanted.ok()) {
      Fail(name, "the reference", wanted.status().ToString());
      return;
    }
    StatusOr<UniqueFd> found = UniqueFd();
    {
      const Waiting waiting(progress_);
      found = OpenFile(arguments_.tree + "/" + name, O_RDONLY);
    }
    struct stat status {};
    struct stat ours {};
    if (!found.ok() || ::fstat(found->get(), &status) != 0 || ::fstat(wanted->get(), &ours) != 0) {
      Fail(name, "open", found.status().ToString());
      return;
    }
    if (status.st_size != ours.st_size) {
      ++progress_.wrong;
      Tell(name + ": another size");
      return;
    }
    if (Below(2) == 0) {
      // So that the file system is asked again; what it says of it does not matter.
      (void)::posix_fadvise(found->get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    const auto bytes = static_cast<uint64_t>(status.st_size);
    if (way < 4) {
      ReadWhole(name, found->get(), wanted->get(), bytes);
    } else if (way < 6) {
      ReadHereAndThere(name, found->get(), wanted->get(), bytes);
    } else {
      Map(name, found->get(), wanted->get(), bytes);
    }
  }

  void ReadWhole(const std::string& name, int found, int wanted, uint64_t bytes) {
    const uint64_t step = 4096 + Below(kMostReadBytes - 4096);
    for (uint64_t offset = 0; offset < bytes && !shared_.stop; offset += step) {
      if (!ReadAndCompare(name, found, wanted, offset, std::min(step, bytes - offset))) {
        return;
      }
    }
  }

  void ReadHereAndThere(const std::string& name, int found, int wanted, uint64_t bytes) {
    (void)::posix_fadvise(found, 0, 0, POSIX_FADV_RANDOM);  // only asks for less
    for (int i = 0; i < 8 && bytes > 0 && !shared_.stop; ++i) {
      const uint64_t offset = Below(bytes);
      const uint64_t length = std::min(1 + Below(64 << 10), bytes - offset);
      if (!ReadAndCompare(name, found, wanted, offset, length)) {
        return;
      }
    }
  }

  bool ReadAndCompare(const std::string& name, int found, int wanted, uint64_t offset,
                      uint64_t bytes) {
    const auto at = static_cast<off_t>(offset);
    if (::pread(wanted, ours_.data(), bytes, at) != static_cast<ssize_t>(bytes)) {
      Fail(name, "the reference", "short");
      return false;
    }
    ssize_t got = 0;
    int error = 0;
    {
      const Waiting waiting(progress_);
      got = ::pread(found, theirs_.data(), bytes, at);
      error = errno;
    }
    ++progress_.reads;
    if (got < 0) {
      Fail(name, "read at " + std::to_string(offset), std::strerror(error));
      return false;
    }
    // A read may be short where a page behind the first cannot be had.
    if (got == 0) {
      Fail(name, "read at " + std::to_string(offset), "it ends");
      return false;
    }
    const auto length = static_cast<size_t>(got);
    progress_.bytes += length;
    if (std::memcmp(theirs_.data(), ours_.data(), length) != 0) {
      Wrong(name, offset, {theirs_.data(), length}, {ours_.data(), length});
      return false;
    }
    return length == bytes || ReadAndCompare(name, found, wanted, offset + length, bytes - length);
  }

  void Map(const std::string& name, int found, int wanted, uint64_t bytes) {
    if (bytes == 0) {
      return;
    }
    void* mapped = nullptr;
    {
      const Waiting waiting(progress_);
      mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, found, 0);
    }
    if (mapped == MAP_FAILED) {  // NOLINT: the system's macro
      Fail(name, "mmap", std::strerror(errno));
      return;
    }
    ++progress_.maps;
    CompareMapping(name, static_cast<const uint8_t*>(mapped), wanted, bytes);
    (void)::munmap(mapped, bytes);
  }

  void CompareMapping(const std::string& name, const uint8_t* mapped, int wanted, uint64_t bytes) {
    for (uint64_t offset = 0; offset < bytes && !shared_.stop; offset += kMapStepBytes) {
      const size_t length = std::min<uint64_t>(kMapStepBytes, bytes - offset);
      if (::pread(wanted, ours_.data(), length, static_cast<off_t>(offset)) !=
          static_cast<ssize_t>(length)) {
        Fail(name, "the reference", "short");
        return;
      }
      int result = 0;
      {
        const Waiting waiting(progress_);
        result = CompareMapped(mapped + offset, ours_.data(), length);
      }
      progress_.bytes += length;
      if (result < 0) {
        Fail(name, "a page of the mapping at " + std::to_string(offset), "SIGBUS");
        return;
      }
      if (result > 0) {
        Wrong(name, offset, {mapped + offset, length}, {ours_.data(), length});
        return;
      }
    }
  }

  // The program, its interpreter and its libraries come from the tree, too.
  void Execute(const std::string& tool, const std::string& name) {
    const std::string wanted = SumOf(name);
    const Waiting waiting(progress_);
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      Fail(name, "pipe", std::strerror(errno));
      return;
    }
    const UniqueFd from(ends[0]);
    UniqueFd to(ends[1]);
    const pid_t child = ::fork();
    if (child == 0) {
      Become(tool, name, to.get());
    }
    to.Reset();
    const std::string said = ReadToEnd(from.get());
    int state = 0;
    while (::waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    ++progress_.execs;
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) {
      Fail(tool, "exec for " + name, "state " + std::to_string(state) + ": " + said);
    } else if (!said.starts_with(wanted)) {
      ++progress_.wrong;
      Tell(name + ": another sum by " + tool + ": " + said);
    }
  }

  [[noreturn]] void Become(const std::string& tool, const std::string& name, int output) const {
    const std::string loader = "/" + tool + "/ld.so";
    const std::string libraries = "/" + tool + "/lib";
    const std::string program = "/" + tool + "/sha256sum";
    const std::string file = "/" + name;
    const std::array<const char*, 6> words = {loader.c_str(),  "--library-path", libraries.c_str(),
                                              program.c_str(), file.c_str(),     nullptr};
    const std::array<char*, 1> environment = {nullptr};
    (void)::signal(SIGBUS, SIG_DFL);
    if (::dup2(output, STDOUT_FILENO) >= 0 && ::dup2(output, STDERR_FILENO) >= 0 &&
        ::chroot(arguments_.tree.c_str()) == 0 && ::chdir("/") == 0) {
      (void)::execve(loader.c_str(), const_cast<char**>(words.data()),  // NOLINT: exec's own type
                     environment.data());
    }
    (void)::dprintf(output, "%s", std::strerror(errno));
    ::_exit(125);
  }

  std::string SumOf(const std::string& name) {
    std::ifstream file(arguments_.reference + "/" + name, std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(file)), {});
    std::string text;
    for (const uint8_t byte : Sha256(content)) {
      std::array<char, 3> digits{};
      (void)std::snprintf(digits.data(), digits.size(), "%02x", byte);
      text += digits.data();
    }
    return text;
  }

  void Wrong(const std::string& name, uint64_t offset, std::span<const uint8_t> found,
             std::span<const uint8_t> wanted) {
    const auto differ = std::mismatch(found.begin(), found.end(), wanted.begin());
    const auto place = static_cast<size_t>(differ.first - found.begin());
    const auto rest = found.subspan(place, std::min<size_t>(512, found.size() - place));
    const bool zero = std::all_of(rest.begin(), rest.end(), [](uint8_t byte) { return byte == 0; });
    ++progress_.wrong;
    if (zero) {
      ++progress_.zeros;
    }
    Tell(name + ": other bytes at " + std::to_string(offset + place) + (zero ? ", zeros" : ""));
  }

  void Fail(const std::string& name, const std::string& what, const std::string& why) {
    ++progress_.errors;
    Tell(name + ": " + what + ": " + why);
  }

  // The first one is kept.
  void Tell(const std::string& problem) {
    if (!progress_.told) {
      const size_t length = std::min(problem.size(), progress_.problem.size() - 1);
      std::copy_n(problem.begin(), length, progress_.problem.begin());
      progress_.told = true;
    }
  }

  const Arguments& arguments_;
  const std::vector<std::string>& files_;
  const std::vector<std::string>& tools_;
  Shared& shared_;
  Progress& progress_;
  std::mt19937_64 random_;
  std::vector<uint8_t> ours_ = std::vector<uint8_t>(kMostReadBytes);
  std::vector<uint8_t> theirs_ = std::vector<uint8_t>(kMostReadBytes);
};

std::vector<std::string> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(line);
  }
  return lines;
}

// The readers as their parent sees them.
class Crowd {
 public:
  static StatusOr<Crowd> Start(const Arguments& arguments) {
    const std::vector<std::string> files = ReadLines(arguments.files);
    const std::vector<std::string> tools =
        arguments.tools.empty() ? std::vector<std::string>() : ReadLines(arguments.tools);
    if (files.empty()) {
      return MakeStatus(StatusCode::kInvalidArgument, "'" + arguments.files + "' has no lines");
    }
    void* memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {  // NOLINT: the system's macro
      return ErrnoStatus(errno, "map memory");
    }
    Crowd crowd(new (memory) Shared());
    for (int number = 0; number < arguments.readers; ++number) {
      const pid_t child = ::fork();
      if (child == 0) {
        (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);  // cannot fail with these arguments
        Reader(arguments, files, tools, *crowd.shared_, number).Run();
        ::_exit(0);
      }
      crowd.children_.push_back(child);
    }
    return crowd;
  }

  // How many there still are.
  size_t Reap() {
    std::erase_if(children_,
                  [](pid_t child) { return ::waitpid(child, nullptr, WNOHANG) == child; });
    return children_.size();
  }

  void Stop() {
    shared_->stop = true;
    const auto deadline = std::chrono::steady_clock::now() + kEndLimit;
    while (Reap() > 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    for (const pid_t child : children_) {
      ++stuck_;
      (void)std::fprintf(stderr, "layer_readers: %d is stuck\n", child);
      std::ifstream stack("/proc/" + std::to_string(child) + "/stack");
      for (std::string line; std::getline(stack, line);) {
        (void)std::fprintf(stderr, "  %s\n", line.c_str());
      }
      (void)::kill(child, SIGKILL);
      (void)::waitpid(child, nullptr, 0);
    }
  }

  [[nodiscard]] std::string Describe() const {
    nlohmann::json said = {{"reads", 0},  {"maps", 0},   {"execs", 0}, {"bytes", 0},
                           {"errors", 0}, {"wrong", 0},  {"zeros", 0}, {"longest_ms", 0},
                           {"now_ms", 0}, {"waiting", 0}};
    const auto add = [&said](const char* name, uint64_t value) {
      said[name] = said[name].get<uint64_t>() + value;
    };
    const int64_t now = NowMs();
    nlohmann::json problems = nlohmann::json::array();
    for (const Progress& reader : shared_->readers) {
      add("reads", reader.reads);
      add("maps", reader.maps);
      add("execs", reader.execs);
      add("bytes", reader.bytes);
      add("errors", reader.errors);
      add("wrong", reader.wrong);
      add("zeros", reader.zeros);
      const int64_t since = reader.since_ms;
      const int64_t waits = since == 0 ? 0 : now - since;
      add("waiting", since == 0 ? 0 : 1);
      said["now_ms"] = std::max(said["now_ms"].get<int64_t>(), waits);
      said["longest_ms"] =
          std::max({said["longest_ms"].get<int64_t>(), reader.longest_ms.load(), waits});
      if (reader.told) {
        problems.push_back(reader.problem.data());
      }
    }
    said["running"] = children_.size();
    said["stuck"] = stuck_;
    said["problems"] = problems;
    return said.dump();
  }

 private:
  explicit Crowd(Shared* shared) : shared_(shared) {}

  Shared* shared_;  // for as long as the process lives
  std::vector<pid_t> children_;
  int stuck_ = 0;
};

int Run(const Arguments& arguments) {
  StatusOr<Crowd> crowd = Crowd::Start(arguments);
  if (!crowd.ok()) {
    (void)std::fprintf(stderr, "layer_readers: %s\n", crowd.status().ToString().c_str());
    return 1;
  }
  while (crowd->Reap() > 0) {
    pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (::poll(&input, 1, /*timeout=*/20) <= 0) {
      continue;
    }
    std::array<char, 256> asked{};
    const ssize_t got = ::read(STDIN_FILENO, asked.data(), asked.size());
    if (got <= 0) {
      break;
    }
    const auto lines = std::count(asked.begin(), asked.begin() + got, '\n');
    for (auto line = lines; line > 0; --line) {
      (void)std::printf("%s\n", crowd->Describe().c_str());
    }
    (void)std::fflush(stdout);
  }
  crowd->Stop();
  (void)std::printf("%s\n", crowd->Describe().c_str());
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace strata::testing

int main(int argc, char** argv) try {
  strata::testing::Arguments arguments;
  CLI::App app("processes that read a tree and compare it with another one");
  app.add_option("tree", arguments.tree)->required();
  app.add_option("reference", arguments.reference)->required();
  app.add_option("files", arguments.files)->required();
  app.add_option("--tools", arguments.tools);
  app.add_option("--readers", arguments.readers)
      ->check(CLI::Range(1, strata::testing::kMostReaders));
  app.add_option("--seed", arguments.seed);
  app.add_flag("--once", arguments.once);
  CLI11_PARSE(app, argc, argv);
  return strata::testing::Run(arguments);
} catch (const std::exception& error) {  // of CLI11 and the JSON library
  (void)std::fprintf(stderr, "layer_readers: %s\n", error.what());
  return 1;
}
