// SPDX-License-Identifier: Apache-2.0
#include "client/worker/flags.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "client/worker/platforms.h"

namespace strata {
namespace {

constexpr int64_t kMegabyte = 1'000'000;
constexpr int64_t kMostMegabytes = std::numeric_limits<int64_t>::max() / kMegabyte;
constexpr int64_t kMostSeconds = 86'400;

// What stands for the empty value of "--name=": CLI11 would take the next argument for it.
constexpr char kNothing = '\x01';

constexpr const char* kVerbs =
    "Verbs (strata-worker VERB --help says more):\n"
    "  config    the configuration in effect, and where each value comes from\n"
    "  info      what this worker is: id, labels, platforms\n"
    "  pull      fetch an image and unpack it\n"
    "  images    the images that are here\n"
    "  rmi       forget images\n"
    "  run       run a process on an image\n"
    "  exec      run one more process in a container\n"
    "  ps        what runs\n"
    "  kill      send a signal to what runs\n"
    "  prune     remove what the rules do not keep\n"
    "  du        what takes room\n";

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

// Flags in the words of the seed: all are texts here, so that no text of CLI11 gets in between.
struct Flags {
  std::string oci_worker;
  std::vector<std::string> labels;
  std::string snapshotter;
  std::string proxy_path;
  std::vector<std::string> platforms;
  std::string net;
  std::string cni_config;
  std::string cni_binaries;
  std::string cni_pool;
  std::string binary;
  std::string apparmor;
  std::string selinux;
  std::string worker_rootless;
  std::string no_process_sandbox;
  std::string gc;
  std::string keep_storage;
  std::string root;
  std::string config;
  std::string rootless;
  std::string debug;
  std::string log_level;
  std::string snapshotter_wait;
  std::string snapshotter_timeout;
};

// The default of a flag in MB.
std::string ShownSpace(const DiskSpace& space) {
  if (space.bytes != 0) {
    return std::to_string(space.bytes / kMegabyte);
  }
  return std::to_string(space.percentage != 0 ? space.percentage : 10) + "% of the disk";
}

class Parser {
 public:
  Parser(const WorkerEnvironment& environment, const WorkerConfig& defaults)
      : environment_(environment), app_("", "strata-worker") {
    app_.description("A thin OCI worker: pulls images and runs processes on any snapshotter");
    app_.footer(kVerbs);
    app_.prefix_command();
    app_.set_version_flag("--version", std::string("strata-worker ") + STRATA_VERSION);
    AddSeedFlags(defaults);
    AddMainFlags(defaults);
  }

  StatusOr<std::variant<WorkerCommandLine, WorkerUsage>> Parse(
      const std::vector<std::string>& arguments);

 private:
  CLI::Option* Text(const std::string& name, std::string* field, const std::string& help,
                    const std::string& shown_default, const std::string& type = "TEXT") {
    return app_
        .add_option(name, *field,
                    help + (shown_default.empty() ? "" : " (default " + shown_default + ")"))
        ->type_name(type)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  void Boolean(const std::string& name, std::string* field, const std::string& help,
               bool shown_default) {
    app_.add_flag(name, *field, help + (shown_default ? " (default true)" : ""))
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  void Texts(const std::string& name, std::vector<std::string>* field, const std::string& help) {
    app_.add_option(name, *field, help + " (may be repeated)")
        ->type_name("TEXT")
        ->allow_extra_args(false);
  }

  void AddSeedFlags(const WorkerConfig& defaults);
  void AddMainFlags(const WorkerConfig& defaults);

  // Whether the flag was given; notes it as the origin of `key`.
  bool Given(const std::string& name, const std::string& key) {
    if (app_.count(name) == 0) {
      return false;
    }
    config_.origins[key] = name;
    return true;
  }
  void TakeText(const std::string& name, const std::string& key, const std::string& value,
                std::string* field) {
    if (Given(name, key)) {
      *field = FromCli(value);
    }
  }
  template <typename Field>
  Status TakeBoolean(const std::string& name, const std::string& key, const std::string& value,
                     Field* field);
  Status TakeNumber(const std::string& name, const std::string& key, const std::string& value,
                    int64_t most, const std::function<void(int64_t)>& take);
  Status TakeRootless();
  Status TakeMainFlags();
  Status TakeSeedFlags();
  Status LoadFile();
  StatusOr<WorkerCommandLine> Finish();

  const WorkerEnvironment& environment_;
  CLI::App app_;
  Flags flags_;
  WorkerConfig config_;
};

void Parser::AddSeedFlags(const WorkerConfig& defaults) {
  const std::string enabled =
      defaults.enabled.has_value() ? (*defaults.enabled ? "true" : "false") : "auto";
  Text("--oci-worker", &flags_.oci_worker, "enable oci workers (true/false/auto)", enabled);
  Texts("--oci-worker-labels", &flags_.labels,
        "user-specific annotation labels (com.example.foo=bar)");
  Text("--oci-worker-snapshotter", &flags_.snapshotter,
       "name of snapshotter: auto, native, overlayfs, fuse-overlayfs, stargz, or any name with a "
       "proxy",
       defaults.snapshotter);
  Text("--oci-worker-proxy-snapshotter-path", &flags_.proxy_path,
       "address of proxy snapshotter socket (do not include 'unix://' prefix)",
       defaults.proxy_snapshotter_path, "PATH");
  Texts("--oci-worker-platform", &flags_.platforms, "override supported platforms for worker");
  Text("--oci-worker-net", &flags_.net, "worker network type (auto, bridge, cni or host)",
       defaults.network_mode);
  Text("--oci-cni-config-path", &flags_.cni_config, "path of cni config file",
       defaults.cni_config_path, "PATH");
  Text("--oci-cni-binary-dir", &flags_.cni_binaries, "path of cni binary files",
       defaults.cni_binary_path, "DIR");
  Text("--oci-cni-pool-size", &flags_.cni_pool, "size of cni network namespace pool",
       std::to_string(defaults.cni_pool_size), "INT");
  Text("--oci-worker-binary", &flags_.binary, "name of specified oci worker binary",
       defaults.binary);
  Text("--oci-worker-apparmor-profile", &flags_.apparmor,
       "set the name of the apparmor profile applied to containers", defaults.apparmor_profile);
  Boolean("--oci-worker-selinux", &flags_.selinux, "apply SELinux labels", defaults.selinux);
  Boolean("--oci-worker-rootless", &flags_.worker_rootless, "enable rootless mode",
          environment_.in_user_namespace);
  Boolean("--oci-worker-no-process-sandbox", &flags_.no_process_sandbox,
          "use the host PID namespace and procfs (WARNING: allows containers to kill (and "
          "potentially ptrace) an arbitrary process in the host namespace)",
          defaults.no_process_sandbox);
  Boolean("--oci-worker-gc", &flags_.gc, "enable automatic garbage collection on worker",
          defaults.gc.value_or(true));
  CLI::Option* keep =
      Text("--oci-worker-gc-keepstorage", &flags_.keep_storage,
           "amount of storage GC keeps locally (MB)", ShownSpace(defaults.gc_keep_storage), "INT");
  if (!defaults.gc_policy.empty()) {
    keep->group("");  // hidden: a policy leaves it without effect
  }
}

void Parser::AddMainFlags(const WorkerConfig& defaults) {
  Text("--root", &flags_.root, "path to state directory", defaults.root, "DIR");
  Text("--config", &flags_.config, "path to config file", DefaultConfigPath(environment_), "FILE");
  Boolean("--rootless", &flags_.rootless,
          "set all the default options to be compatible with "
          "rootless containers",
          environment_.in_user_namespace);
  Boolean("--debug", &flags_.debug, "say everything (--log-level debug)",
          defaults.log_level == LogLevel::kDebug);
  Text("--log-level", &flags_.log_level, "debug, info, warn or error", "warn", "LEVEL");
  Text("--snapshotter-wait", &flags_.snapshotter_wait,
       "seconds to wait until the snapshotter is there",
       std::to_string(defaults.snapshotter_wait.count()), "SECONDS");
  Text("--snapshotter-timeout", &flags_.snapshotter_timeout,
       "seconds after which a call of a snapshotter is given up",
       std::to_string(defaults.snapshotter_timeout.count()), "SECONDS");
}

// As Go's package flag says it.
Status Unparsed(const std::string& what, const std::string& name, const std::string& value) {
  return Bad("invalid " + what + " \"" + value + "\" for flag -" + name.substr(2) +
             ": parse error");
}

template <typename Field>
Status Parser::TakeBoolean(const std::string& name, const std::string& key,
                           const std::string& value, Field* field) {
  if (!Given(name, key)) {
    return OkStatus();
  }
  const auto parsed = ParseGoBool(value);
  if (!parsed.ok()) {
    return Unparsed("boolean value", name, value);
  }
  *field = *parsed;
  return OkStatus();
}

Status Parser::TakeNumber(const std::string& name, const std::string& key, const std::string& value,
                          int64_t most, const std::function<void(int64_t)>& take) {
  if (!Given(name, key)) {
    return OkStatus();
  }
  int64_t number = 0;
  const char* end = value.data() + value.size();
  const auto [stopped, error] = std::from_chars(value.data(), end, number);
  if (error == std::errc() && stopped == end && (number < 0 || number > most)) {
    return Bad("invalid value \"" + value + "\" for flag -" + name.substr(2) +
               ": expected a number from 0 to " + std::to_string(most));
  }
  if (error != std::errc() || stopped != end) {
    return Unparsed("value", name, value);
  }
  take(number);
  return OkStatus();
}

Status Parser::TakeRootless() {
  if (app_.count("--rootless") != 0) {
    STRATA_RETURN_IF_ERROR(
        TakeBoolean("--rootless", "worker.oci.rootless", flags_.rootless, &config_.rootless));
  } else if (environment_.in_user_namespace) {
    config_.rootless = true;
    config_.origins["worker.oci.rootless"] = "user namespace";
  }
  if (app_.count("--oci-worker-rootless") == 0) {
    return OkStatus();
  }
  if (!environment_.in_user_namespace || environment_.effective_user > 0) {
    return Bad(
        "rootless mode requires to be executed as the mapped root in a user namespace; you may use "
        "RootlessKit for setting up the namespace");
  }
  return TakeBoolean("--oci-worker-rootless", "worker.oci.rootless", flags_.worker_rootless,
                     &config_.rootless);
}

Status Parser::TakeMainFlags() {
  TakeText("--root", "root", flags_.root, &config_.root);
  if (app_.count("--log-level") != 0) {
    STRATA_ASSIGN_OR_RETURN(config_.log_level, ParseLogLevel(flags_.log_level));
  }
  bool debug = false;
  STRATA_RETURN_IF_ERROR(TakeBoolean("--debug", "debug", flags_.debug, &debug));
  config_.log_level = debug ? LogLevel::kDebug : config_.log_level;
  const auto seconds = [](std::chrono::seconds* field) {
    return [field](int64_t number) { *field = std::chrono::seconds(number); };
  };
  STRATA_RETURN_IF_ERROR(TakeNumber("--snapshotter-wait", "snapshotter-wait",
                                    flags_.snapshotter_wait, kMostSeconds,
                                    seconds(&config_.snapshotter_wait)));
  return TakeNumber("--snapshotter-timeout", "snapshotter-timeout", flags_.snapshotter_timeout,
                    kMostSeconds, seconds(&config_.snapshotter_timeout));
}

// In the order of the seed, so that of several mistakes the same one is named.
Status Parser::TakeSeedFlags() {
  if (Given("--oci-worker", "worker.oci.enabled")) {
    STRATA_ASSIGN_OR_RETURN(config_.enabled, ParseBoolOrAuto(FromCli(flags_.oci_worker)));
  }
  std::map<std::string, std::string> labels;
  STRATA_RETURN_IF_ERROR(AddLabels(flags_.labels, &labels));
  for (const auto& [name, value] : labels) {
    config_.labels[name] = value;
    config_.origins["worker.oci.labels." + name] = "--oci-worker-labels";
  }
  TakeText("--oci-worker-snapshotter", "worker.oci.snapshotter", flags_.snapshotter,
           &config_.snapshotter);
  STRATA_RETURN_IF_ERROR(TakeRootless());
  STRATA_RETURN_IF_ERROR(TakeBoolean("--oci-worker-no-process-sandbox",
                                     "worker.oci.noProcessSandbox", flags_.no_process_sandbox,
                                     &config_.no_process_sandbox));
  if (Given("--oci-worker-platform", "worker.oci.platforms")) {
    config_.platforms = flags_.platforms;
  }
  STRATA_RETURN_IF_ERROR(TakeBoolean("--oci-worker-gc", "worker.oci.gc", flags_.gc, &config_.gc));
  STRATA_RETURN_IF_ERROR(TakeNumber("--oci-worker-gc-keepstorage", "worker.oci.gckeepstorage",
                                    flags_.keep_storage, kMostMegabytes, [this](int64_t megabytes) {
                                      config_.gc_keep_storage = {.bytes = megabytes * kMegabyte};
                                    }));
  TakeText("--oci-worker-net", "worker.oci.networkMode", flags_.net, &config_.network_mode);
  TakeText("--oci-cni-config-path", "worker.oci.cniConfigPath", flags_.cni_config,
           &config_.cni_config_path);
  TakeText("--oci-cni-binary-dir", "worker.oci.cniBinaryPath", flags_.cni_binaries,
           &config_.cni_binary_path);
  STRATA_RETURN_IF_ERROR(
      TakeNumber("--oci-cni-pool-size", "worker.oci.cniPoolSize", flags_.cni_pool,
                 std::numeric_limits<int>::max(),
                 [this](int64_t number) { config_.cni_pool_size = static_cast<int>(number); }));
  TakeText("--oci-worker-binary", "worker.oci.binary", flags_.binary, &config_.binary);
  TakeText("--oci-worker-proxy-snapshotter-path", "worker.oci.proxySnapshotterPath",
           flags_.proxy_path, &config_.proxy_snapshotter_path);
  TakeText("--oci-worker-apparmor-profile", "worker.oci.apparmor-profile", flags_.apparmor,
           &config_.apparmor_profile);
  return TakeBoolean("--oci-worker-selinux", "worker.oci.selinux", flags_.selinux,
                     &config_.selinux);
}

// A file that is not there is an empty one, as to the seed; a name that was given gets a warning.
Status Parser::LoadFile() {
  const bool named = app_.count("--config") != 0;
  const std::string path = named ? flags_.config : DefaultConfigPath(environment_);
  const StatusOr<std::string> content = environment_.read_file(path);
  if (content.ok()) {
    return ApplyConfigFile(path, *content, &config_);
  }
  if (content.status().code() != StatusCode::kNotFound) {
    return Annotate(content.status(), "failed to load config from " + path);
  }
  if (named) {
    config_.warnings.push_back("--config " + path + ": there is no such file, ignoring");
  }
  return OkStatus();
}

StatusOr<WorkerCommandLine> Parser::Finish() {
  config_ = BuiltInConfig(environment_);
  STRATA_RETURN_IF_ERROR(LoadFile());
  STRATA_RETURN_IF_ERROR(TakeMainFlags());
  STRATA_RETURN_IF_ERROR(TakeSeedFlags());
  STRATA_RETURN_IF_ERROR(FinishConfig(&config_));
  STRATA_RETURN_IF_ERROR(Annotate(ParsePlatforms(config_.platforms).status(), "invalid platforms"));
  WorkerCommandLine line{.config = config_};
  std::vector<std::string> rest = app_.remaining();
  if (rest.empty()) {
    return Bad(
        "expected a verb: config, info, pull, images, rmi, run, exec, ps, kill, prune or du "
        "(see --help)");
  }
  if (rest.front().starts_with('-')) {
    return Bad("flag provided but not defined: " + rest.front() + " (see --help)");
  }
  line.verb = rest.front();
  for (size_t i = 1; i < rest.size(); ++i) {
    line.arguments.push_back(FromCli(rest[i]));
  }
  return line;
}

StatusOr<std::variant<WorkerCommandLine, WorkerUsage>> Parser::Parse(
    const std::vector<std::string>& arguments) {
  // CLI11 throws; this is the only place that sees it.
  try {
    app_.parse(ForCli(arguments));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream message;
    if (app_.exit(error, out, message) == 0) {
      return WorkerUsage{out.str()};
    }
    return Bad(std::string(error.what()) + " (see --help)");
  }
  STRATA_ASSIGN_OR_RETURN(WorkerCommandLine line, Finish());
  return line;
}

}  // namespace

std::vector<std::string> ForCli(const std::vector<std::string>& arguments) {
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  for (std::string& argument : reversed) {
    if (argument.starts_with("--") && argument.ends_with('=')) {
      argument += kNothing;
    }
  }
  return reversed;
}

std::string FromCli(std::string text) {
  if (text.ends_with(kNothing)) {
    text.pop_back();
  }
  return text;
}

StatusOr<std::variant<WorkerCommandLine, WorkerUsage>> ReadWorkerCommandLine(
    const WorkerEnvironment& environment, const std::vector<std::string>& arguments) {
  // What --help shows are the values of the file at its default place, where it can be read.
  WorkerConfig shown = BuiltInConfig(environment);
  const std::string path = DefaultConfigPath(environment);
  if (const auto content = environment.read_file(path); content.ok()) {
    WorkerConfig from_file = shown;
    if (ApplyConfigFile(path, *content, &from_file).ok()) {
      shown = std::move(from_file);
    }
  }
  Parser parser(environment, shown);
  return parser.Parse(arguments);
}

}  // namespace strata
