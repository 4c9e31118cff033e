// SPDX-License-Identifier: Apache-2.0
// strata-bench-metadata: loads one snapshots server over its socket, as containerd does (one
// connection, a number of callers that each wait for their answer), and reports operations per
// second and latencies of prepare, mounts, stat, commit, remove and list.
//
// The keys, names and the label have the form that containerd's unpacker gives them. What is
// present beforehand are chains of nine committed snapshots with an active one on top; "--present
// 0" leaves one such chain, since a parent is needed.

#include <getopt.h>
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/bench/metadata/grpc_channel.h"

namespace strata::bench {
namespace {

constexpr uint32_t kChainLength = 10;
constexpr uint32_t kFillCallers = 64;
constexpr uint32_t kWarmUpMutations = 100;
constexpr uint32_t kWarmUpReads = 1000;
// Several callers get so many more reads: --reads of them would be over in a quarter of a second.
constexpr uint64_t kReadsTogether = 5;
// Without --lists: as many lists as make this many rows, within limits.
constexpr uint64_t kListedRows = 1'000'000;
constexpr uint64_t kMinLists = 200;
constexpr uint64_t kMaxLists = 5'000;
// A server that answers nothing for this long ends the run.
constexpr int kStallLimitMs = 60'000;
constexpr uint64_t kErrorsShown = 5;

struct Options {
  std::string socket;
  std::string snapshotter = "overlayfs";
  std::vector<uint32_t> callers = {1, 16, 64};
  uint32_t connections = 1;
  uint32_t present = 0;
  uint32_t mutations = 2'000;
  uint32_t reads = 20'000;
  uint64_t lists = 0;
  bool json = false;
};

uint64_t NowNs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::nanoseconds(now).count());
}

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// SplitMix64: one step of a generator, and good enough a hash of a counter.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Below(uint64_t limit) { return Mix(++state_) % limit; }

 private:
  uint64_t state_;
};

// The names of the snapshots of one run; the salt keeps two runs on one server apart.
class Names {
 public:
  explicit Names(uint64_t salt) : salt_(salt) {}

  // <namespace>/<sequence>/extract-<time> <chain id>
  void AppendActive(uint64_t id, std::string* out) const {
    AppendPlace(id, out);
    out->append("extract-");
    AppendNumber(100'000'000 + Mix(salt_ ^ id) % 900'000'000, out);
    out->append("-aB3x ");
    AppendChainId(id, out);
  }

  // <namespace>/<sequence>/<chain id>
  void AppendCommitted(uint64_t id, std::string* out) const {
    AppendPlace(id, out);
    AppendChainId(id, out);
  }

  void AppendChainId(uint64_t id, std::string* out) const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out->append("sha256:");
    for (uint64_t word = 0; word < 4; ++word) {
      uint64_t bits = Mix(salt_ + 4 * id + word);
      for (int digit = 0; digit < 16; ++digit, bits >>= 4) {
        out->push_back(kDigits[bits & 0xf]);
      }
    }
  }

 private:
  static void AppendNumber(uint64_t number, std::string* out) {
    std::array<char, 20> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number);
    out->append(digits.data(), end.ptr);
  }

  static void AppendPlace(uint64_t id, std::string* out) {
    out->append("bench/");
    AppendNumber(id, out);
    out->push_back('/');
  }

  uint64_t salt_;
};

void AppendField(uint32_t number, std::string_view value, std::string* out) {
  out->push_back(static_cast<char>(number << 3 | 2));  // length-delimited
  size_t size = value.size();
  for (; size > 0x7f; size >>= 7) {
    out->push_back(static_cast<char>((size & 0x7f) | 0x80));
  }
  out->push_back(static_cast<char>(size));
  out->append(value);
}

// Makes the requests, each into the string of its call, without allocations once that has grown.
class RequestWriter {
 public:
  RequestWriter(std::string_view snapshotter, const Names& names)
      : snapshotter_(snapshotter), names_(names) {}

  static constexpr uint64_t kNoParent = UINT64_MAX;

  void Prepare(uint64_t id, uint64_t parent, std::string* out) {
    Begin(out);
    ActiveField(2, id, out);
    if (parent != kNoParent) {
      CommittedField(3, parent, out);
    }
    LabelField(id, out);
    FrameRequest(out);
  }

  void Commit(uint64_t id, std::string* out) {
    Begin(out);
    CommittedField(2, id, out);
    ActiveField(3, id, out);
    LabelField(id, out);
    FrameRequest(out);
  }

  // Mounts, stat and remove all have the key as field 2.
  void ForActive(uint64_t id, std::string* out) {
    Begin(out);
    ActiveField(2, id, out);
    FrameRequest(out);
  }

  void ForCommitted(uint64_t id, std::string* out) {
    Begin(out);
    CommittedField(2, id, out);
    FrameRequest(out);
  }

  void List(std::string* out) {
    Begin(out);
    FrameRequest(out);
  }

 private:
  void Begin(std::string* out) {
    constexpr size_t kFramePrefixBytes = 5;
    out->assign(kFramePrefixBytes, '\0');
    AppendField(1, snapshotter_, out);
  }

  void ActiveField(uint32_t number, uint64_t id, std::string* out) {
    name_.clear();
    names_.AppendActive(id, &name_);
    AppendField(number, name_, out);
  }

  void CommittedField(uint32_t number, uint64_t id, std::string* out) {
    name_.clear();
    names_.AppendCommitted(id, &name_);
    AppendField(number, name_, out);
  }

  void LabelField(uint64_t id, std::string* out) {
    name_.clear();
    names_.AppendChainId(id, &name_);
    label_.clear();
    AppendField(1, "containerd.io/snapshot.ref", &label_);
    AppendField(2, name_, &label_);
    AppendField(4, label_, out);
  }

  std::string snapshotter_;
  Names names_;
  std::string name_;
  std::string label_;
};

// What to ask, how often, and what a right answer holds.
struct Work {
  const char* method;
  uint64_t count;
  std::function<void(uint64_t index, std::string* request)> write;
  uint64_t min_entries = 0;
  uint64_t max_entries = 0;
  bool one_message = true;
};

// A number of callers that each wait for their answer before they ask again, on one thread.
class ClosedLoop {
 public:
  [[nodiscard]] bool Connect(const std::string& socket, uint32_t connections) {
    for (uint32_t i = 0; i < connections; ++i) {
      std::string error;
      auto channel = GrpcChannel::Connect(socket, &error);
      if (channel == nullptr) {
        std::fprintf(stderr, "%s\n", error.c_str());
        return false;
      }
      polled_.push_back({.fd = channel->fd(), .events = POLLIN, .revents = 0});
      channels_.push_back(std::move(channel));
    }
    return true;
  }

  // Returns false if the connection broke or the server stalled; wrong answers are only counted.
  // The latencies are those of this run, in the order of the answers.
  [[nodiscard]] bool Run(const Work& work, uint32_t callers) {
    latencies_ns_.clear();
    latencies_ns_.reserve(work.count);
    started_ = 0;
    if (slots_.size() < callers) {
      slots_.resize(callers);  // none is in use between runs
    }
    for (uint32_t i = 0; i < callers && started_ < work.count; ++i) {
      slots_[i].channel = channels_[i % channels_.size()].get();
      if (!StartNext(work, &slots_[i])) {
        return false;
      }
    }
    while (latencies_ns_.size() < work.count) {
      if (!Wait() || !Harvest(work)) {
        return false;
      }
    }
    return true;
  }

  std::vector<uint64_t>& latencies_ns() { return latencies_ns_; }
  [[nodiscard]] uint64_t errors() const { return errors_; }

 private:
  struct Slot : Call {
    GrpcChannel* channel = nullptr;
    uint64_t started_ns = 0;
  };

  static bool Report(const GrpcChannel& channel) {
    std::fprintf(stderr, "connection: %s\n", channel.failure().c_str());
    return false;
  }

  bool StartNext(const Work& work, Slot* slot) {
    slot->method = work.method;
    work.write(started_++, &slot->request);
    slot->started_ns = NowNs();
    return slot->channel->Start(slot) || Report(*slot->channel);
  }

  bool Wait() {
    for (size_t i = 0; i < channels_.size(); ++i) {
      if (!channels_[i]->Flush()) {
        return Report(*channels_[i]);
      }
      polled_[i].events = channels_[i]->wants_write() ? POLLIN | POLLOUT : POLLIN;
    }
    const int ready = poll(polled_.data(), polled_.size(), kStallLimitMs);
    if (ready == 0) {
      std::fprintf(stderr, "no answer for %d ms\n", kStallLimitMs);
    }
    return ready > 0 || (ready < 0 && errno == EINTR);
  }

  bool Harvest(const Work& work) {
    for (size_t i = 0; i < channels_.size(); ++i) {
      GrpcChannel& channel = *channels_[i];
      if ((polled_[i].revents & ~POLLOUT) != 0 && !channel.Receive()) {
        return Report(channel);
      }
      const uint64_t now = channel.ended().empty() ? 0 : NowNs();
      for (Call* call : channel.ended()) {
        auto* slot = static_cast<Slot*>(call);
        latencies_ns_.push_back(now - slot->started_ns);
        Check(work, *slot);
        if (started_ < work.count && !StartNext(work, slot)) {
          return false;
        }
      }
      channel.ended().clear();
    }
    return true;
  }

  void Check(const Work& work, const Call& call) {
    const ReplyCounter& reply = call.reply;
    const bool right = call.grpc_status == 0 && reply.well_formed() &&
                       (reply.messages() == 1 || !work.one_message) &&
                       reply.entries() >= work.min_entries && reply.entries() <= work.max_entries;
    if (right || ++errors_ > kErrorsShown) {
      return;
    }
    std::fprintf(stderr,
                 "%s: status %d, %" PRIu64 " messages, %" PRIu64 " entries (wanted %" PRIu64
                 "..%" PRIu64 ")%s %s\n",
                 work.method, call.grpc_status, reply.messages(), reply.entries(), work.min_entries,
                 work.max_entries, reply.well_formed() ? "" : ", malformed", call.error.c_str());
  }

  std::vector<std::unique_ptr<GrpcChannel>> channels_;
  std::vector<pollfd> polled_;  // one per channel, in the same order
  std::vector<Slot> slots_;
  std::vector<uint64_t> latencies_ns_;
  uint64_t started_ = 0;
  uint64_t errors_ = 0;
};

class MetadataLoad {
 public:
  MetadataLoad(const Options& options, uint64_t salt)
      : options_(options), writer_(options.snapshotter, Names(salt)), random_(salt) {}

  // True if everything was measured and every answer was right.
  [[nodiscard]] bool Run() {
    if (!loop_.Connect(options_.socket, options_.connections) || !Fill()) {
      return false;
    }
    for (const uint32_t callers : options_.callers) {
      if (!WarmUp(callers) || !MeasureAll(callers)) {
        return false;
      }
    }
    if (loop_.errors() != 0) {
      std::fprintf(stderr, "%" PRIu64 " wrong answers\n", loop_.errors());
    }
    return loop_.errors() == 0;
  }

 private:
  static constexpr const char* kPrepare = "/containerd.services.snapshots.v1.Snapshots/Prepare";
  static constexpr const char* kMounts = "/containerd.services.snapshots.v1.Snapshots/Mounts";
  static constexpr const char* kStat = "/containerd.services.snapshots.v1.Snapshots/Stat";
  static constexpr const char* kCommit = "/containerd.services.snapshots.v1.Snapshots/Commit";
  static constexpr const char* kRemove = "/containerd.services.snapshots.v1.Snapshots/Remove";
  static constexpr const char* kList = "/containerd.services.snapshots.v1.Snapshots/List";

  // Snapshot `id` of what is present: level id % kChainLength of its chain.
  static bool IsActive(uint64_t id) { return id % kChainLength == kChainLength - 1; }

  bool Fill() {
    const uint64_t chains = std::max<uint64_t>(1, options_.present / kChainLength);
    present_ = chains * kChainLength;
    next_id_ = present_;
    // Level by level, since a parent must be committed before its child is prepared.
    for (uint64_t level = 0; level < kChainLength; ++level) {
      const auto prepare = [&](uint64_t chain, std::string* out) {
        const uint64_t id = chain * kChainLength + level;
        writer_.Prepare(id, level == 0 ? RequestWriter::kNoParent : id - 1, out);
      };
      const auto commit = [&](uint64_t chain, std::string* out) {
        writer_.Commit(chain * kChainLength + level, out);
      };
      if (!loop_.Run(PrepareWork(chains, prepare), kFillCallers) ||
          (!IsActive(level) && !loop_.Run(EmptyWork(kCommit, chains, commit), kFillCallers))) {
        return false;
      }
    }
    return loop_.errors() == 0;
  }

  // Threads, caches and pools of the server grow here, not in the measurement.
  bool WarmUp(uint32_t callers) {
    const uint64_t first = TakeIds(kWarmUpMutations);
    return loop_.Run(Prepares(first, kWarmUpMutations), callers) &&
           loop_.Run(Stats(first, kWarmUpMutations, kWarmUpReads), callers) &&
           loop_.Run(Commits(first, kWarmUpMutations), callers) &&
           loop_.Run(Removes(first, kWarmUpMutations), callers);
  }

  bool MeasureAll(uint32_t callers) {
    const uint64_t lists = options_.lists != 0
                               ? options_.lists
                               : std::clamp(kListedRows / present_, kMinLists, kMaxLists);
    const uint64_t count = options_.mutations;
    const uint64_t reads = options_.reads * (callers > 1 ? kReadsTogether : 1);
    const uint64_t first = TakeIds(count);
    return Measure("list", Lists(lists), callers) &&
           Measure("prepare", Prepares(first, count), callers) &&
           Measure("stat", Stats(first, count, reads), callers) &&
           Measure("mounts", MountReads(first, count, reads), callers) &&
           Measure("commit", Commits(first, count), callers) &&
           Measure("remove", Removes(first, count), callers);
  }

  bool Measure(const char* op, const Work& work, uint32_t callers) {
    const uint64_t errors_before = loop_.errors();
    const double cpu_before = OwnCpuSeconds();
    const uint64_t start = NowNs();
    if (!loop_.Run(work, callers)) {
      return false;
    }
    const double seconds = static_cast<double>(NowNs() - start) / 1e9;
    const double cpu = OwnCpuSeconds() - cpu_before;
    std::vector<uint64_t>& latencies = loop_.latencies_ns();
    std::sort(latencies.begin(), latencies.end());
    const auto percentile_us = [&](size_t percent) {
      const size_t rank = (latencies.size() * percent + 99) / 100;  // the nearest rank, from 1
      return static_cast<double>(latencies[rank - 1]) / 1e3;
    };
    const char* format =
        options_.json ? "{\"op\":\"%s\",\"callers\":%u,\"present\":%u,\"count\":%" PRIu64
                        ",\"errors\":%" PRIu64
                        ",\"seconds\":%.6f,\"ops_per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
                        "\"generator_cpu_seconds\":%.4f}\n"
                      : "%-8s callers %3u  present %5u  count %6" PRIu64 "  errors %" PRIu64
                        "  %8.3f s  %9.0f ops/s  p50 %9.1f us  p99 %9.1f us  own cpu %.3f s\n";
    std::printf(format, op, callers, options_.present, work.count, loop_.errors() - errors_before,
                seconds, static_cast<double>(work.count) / seconds, percentile_us(50),
                percentile_us(99), cpu);
    std::fflush(stdout);
    return true;
  }

  uint64_t TakeIds(uint64_t count) {
    const uint64_t first = next_id_;
    next_id_ += count;
    return first;
  }

  // Overlay and bind mounts come as one, other kinds may need more.
  static Work PrepareWork(uint64_t count, std::function<void(uint64_t, std::string*)> write) {
    return {kPrepare, count, std::move(write), 1, UINT64_MAX, true};
  }
  static Work EmptyWork(const char* method, uint64_t count,
                        std::function<void(uint64_t, std::string*)> write) {
    return {method, count, std::move(write), 0, 0, true};
  }

  Work Prepares(uint64_t first, uint64_t count) {
    return PrepareWork(count, [this, first](uint64_t index, std::string* out) {
      const uint64_t parent = random_.Below(present_);
      // The top of a chain is active, the one below it is not.
      writer_.Prepare(first + index, IsActive(parent) ? parent - 1 : parent, out);
    });
  }

  Work Commits(uint64_t first, uint64_t count) {
    return EmptyWork(kCommit, count, [this, first](uint64_t index, std::string* out) {
      writer_.Commit(first + index, out);
    });
  }

  Work Removes(uint64_t first, uint64_t count) {
    return EmptyWork(kRemove, count, [this, first](uint64_t index, std::string* out) {
      writer_.ForCommitted(first + index, out);
    });
  }

  // Of everything: what is present and the `active` ones from `first` on.
  Work Stats(uint64_t first, uint64_t active, uint64_t count) {
    const auto write = [this, first, active](uint64_t /*index*/, std::string* out) {
      const uint64_t pick = random_.Below(present_ + active);
      if (pick < present_ && !IsActive(pick)) {
        writer_.ForCommitted(pick, out);
      } else {
        writer_.ForActive(pick < present_ ? pick : first + pick - present_, out);
      }
    };
    return {kStat, count, write, 1, 1, true};
  }

  // Only active ones have mounts.
  Work MountReads(uint64_t first, uint64_t active, uint64_t count) {
    const auto write = [this, first, active](uint64_t /*index*/, std::string* out) {
      const uint64_t chains = present_ / kChainLength;
      const uint64_t pick = random_.Below(chains + active);
      writer_.ForActive(
          pick < chains ? pick * kChainLength + kChainLength - 1 : first + pick - chains, out);
    };
    return {kMounts, count, write, 1, UINT64_MAX, true};
  }

  Work Lists(uint64_t count) {
    const auto write = [this](uint64_t /*index*/, std::string* out) { writer_.List(out); };
    return {kList, count, write, present_, present_, /*one_message=*/false};
  }

  Options options_;
  RequestWriter writer_;
  Random random_;
  ClosedLoop loop_;
  uint64_t present_ = 0;
  uint64_t next_id_ = 0;
};

constexpr const char* kUsage =
    "usage: strata-bench-metadata --socket PATH [--callers 1,16,64] [--connections 1]\n"
    "           [--present 0|5000|...] [--mutations 2000] [--reads 20000] [--lists N]\n"
    "           [--snapshotter NAME] [--json]\n"
    "The server must be empty. --present is rounded down to tens; --lists default to what makes\n"
    "a million rows, but 200 to 5000. Exits 1 if any answer was wrong.\n";

bool ParseNumber(std::string_view text, uint32_t min, uint32_t* number) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && *number >= min;
}

bool ParseNumbers(std::string_view text, std::vector<uint32_t>* numbers) {
  numbers->clear();
  for (;;) {
    const size_t comma = text.find(',');
    uint32_t number = 0;
    if (!ParseNumber(text.substr(0, comma), /*min=*/1, &number)) {
      return false;
    }
    numbers->push_back(number);
    if (comma == std::string_view::npos) {
      return true;
    }
    text.remove_prefix(comma + 1);
  }
}

bool ParseOption(int option, std::string_view value, Options* options) {
  uint32_t lists = 0;
  switch (option) {
    case 's':
      options->socket = value;
      return true;
    case 'n':
      options->snapshotter = value;
      return true;
    case 'c':
      return ParseNumbers(value, &options->callers);
    case 'C':
      return ParseNumber(value, 1, &options->connections);
    case 'p':
      return ParseNumber(value, 0, &options->present);
    case 'm':
      return ParseNumber(value, 1, &options->mutations);
    case 'r':
      return ParseNumber(value, 1, &options->reads);
    case 'l':
      if (!ParseNumber(value, 1, &lists)) {
        return false;
      }
      options->lists = lists;
      return true;
    case 'j':
      options->json = true;
      return true;
    default:
      return false;
  }
}

bool ParseArguments(int argc, char** argv, Options* options) {
  const std::array<option, 10> known{{
      {"socket", required_argument, nullptr, 's'},
      {"snapshotter", required_argument, nullptr, 'n'},
      {"callers", required_argument, nullptr, 'c'},
      {"connections", required_argument, nullptr, 'C'},
      {"present", required_argument, nullptr, 'p'},
      {"mutations", required_argument, nullptr, 'm'},
      {"reads", required_argument, nullptr, 'r'},
      {"lists", required_argument, nullptr, 'l'},
      {"json", no_argument, nullptr, 'j'},
      {nullptr, 0, nullptr, 0},
  }};
  for (;;) {
    const int option = getopt_long(argc, argv, "", known.data(), nullptr);
    if (option == -1) {
      return optind == argc && !options->socket.empty();
    }
    if (!ParseOption(option, optarg == nullptr ? "" : optarg, options)) {
      return false;
    }
  }
}

int Main(int argc, char** argv) {
  Options options;
  if (!ParseArguments(argc, argv, &options)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  MetadataLoad load(options, Mix(NowNs()));
  return load.Run() ? 0 : 1;
}

}  // namespace
}  // namespace strata::bench

int main(int argc, char** argv) {
  return strata::bench::Main(argc, argv);
}
