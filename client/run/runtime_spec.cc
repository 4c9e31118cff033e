// SPDX-License-Identifier: Apache-2.0
#include "client/run/runtime_spec.h"

#include <algorithm>
#include <cctype>
#include <random>
#include <utility>

#include "client/run/container_root.h"
#include "client/run/seccomp_profile.h"
#include "snapshotters/core/snapshot.h"

namespace strata {
namespace {

using Json = nlohmann::json;
using Kind = ContainerNetwork::Kind;

constexpr std::string_view kDefaultPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// What containerd gives a container.
const std::vector<std::string>& DefaultCapabilities() {
  static const auto* const names = new std::vector<std::string>{
      "CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
      "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
      "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
      "CAP_KILL",    "CAP_AUDIT_WRITE"};
  return *names;
}

constexpr const char* kMaskedPaths[] = {"/proc/acpi",          "/proc/asound",
                                        "/proc/kcore",         "/proc/keys",
                                        "/proc/latency_stats", "/proc/timer_list",
                                        "/proc/timer_stats",   "/proc/sched_debug",
                                        "/sys/firmware",       "/sys/devices/virtual/powercap",
                                        "/proc/scsi"};
constexpr const char* kReadonlyPaths[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                          "/proc/sysrq-trigger"};

// What an insecure container finds in /dev besides the usual (Documentation/admin-guide/devices).
struct Device {
  const char* path;
  int major;
  int minor;
};
constexpr Device kInsecureDevices[] = {{"/dev/kmsg", 1, 11},      {"/dev/cuse", 10, 203},
                                       {"/dev/fuse", 10, 229},    {"/dev/kvm", 10, 232},
                                       {"/dev/net/tun", 10, 200}, {"/dev/loop-control", 10, 237}};
constexpr int kLoopMajor = 7;
constexpr int kLoopDevices = 8;

bool IsBelow(std::string_view path, std::string_view directory) {
  return path == directory || (path.starts_with(directory) && path[directory.size()] == '/');
}

// A C string is what all of these end up as.
Status CheckText(std::string_view what, const std::string& text) {
  return text.find('\0') == std::string::npos
             ? OkStatus()
             : MakeStatus(StatusCode::kInvalidArgument,
                          std::string(what) + " " + ShowName(text) + ": expected no NUL byte");
}

Json MountJson(const char* destination, const char* type, const std::string& source,
               std::vector<std::string> options) {
  return {{"destination", destination},
          {"type", type},
          {"source", source},
          {"options", std::move(options)}};
}

// --- mounts

bool MapsIds(const ExecutorOptions& options) {
  return !options.uid_map.empty() || !options.gid_map.empty();
}

Json SysMount(const SpecInput& input, const ExecutorOptions& options, const char* access) {
  // A user namespace gets a new sysfs only with a network namespace of its own,
  // mount_namespaces(7).
  if (MapsIds(options) && input.network != Kind::kNone) {
    return MountJson("/sys", "bind", "/sys", {"rbind", "nosuid", "noexec", "nodev", access});
  }
  return MountJson("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", access});
}

Json DefaultMounts(const SpecInput& input, const ExecutorOptions& options, bool insecure,
                   const HostFacts& facts) {
  Json mounts = Json::array();
  mounts.push_back(MountJson("/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}));
  mounts.push_back(
      MountJson("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}));
  std::vector<std::string> pts = {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"};
  if (facts.terminal_group) {
    pts.emplace_back("gid=5");
  }
  mounts.push_back(MountJson("/dev/pts", "devpts", "devpts", pts));
  mounts.push_back(MountJson("/dev/shm", "tmpfs", "shm",
                             {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}));
  mounts.push_back(MountJson("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}));
  const char* access = insecure ? "rw" : "ro";
  mounts.push_back(SysMount(input, options, access));
  for (const auto& [destination, source] :
       {std::pair("/etc/resolv.conf", &input.resolv_conf), std::pair("/etc/hosts", &input.hosts)}) {
    mounts.push_back(
        MountJson(destination, "bind", *source, {"nosuid", "noexec", "nodev", "rbind", "ro"}));
  }
  if (facts.cgroup_mount) {
    mounts.push_back(
        MountJson("/sys/fs/cgroup", "cgroup", "cgroup", {access, "nosuid", "noexec", "nodev"}));
  }
  return mounts;
}

// Of two at one place the last one counts, where the first one stood.
void AddMount(Json& mounts, Json mount) {
  const auto same = std::find_if(mounts.begin(), mounts.end(), [&](const Json& known) {
    return known["destination"] == mount["destination"];
  });
  if (same != mounts.end()) {
    *same = std::move(mount);
  } else {
    mounts.push_back(std::move(mount));
  }
}

Status AddExtraMounts(Json& mounts, const std::vector<ExtraMount>& extra) {
  for (const ExtraMount& wanted : extra) {
    const std::string destination = CleanPath(wanted.destination);
    if (!wanted.destination.starts_with('/') || destination == "/") {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "mount on " + ShowName(wanted.destination) +
                            ": expected an absolute path below the root");
    }
    if (!wanted.mount.target.empty()) {
      return MakeStatus(StatusCode::kInvalidArgument, "mount on " + ShowName(destination) +
                                                          ": unexpected target " +
                                                          ShowName(wanted.mount.target));
    }
    AddMount(mounts, MountJson(destination.c_str(), wanted.mount.type.c_str(), wanted.mount.source,
                               wanted.mount.options));
  }
  return OkStatus();
}

template <typename Drop>
void EraseIf(Json& list, Drop drop) {
  Json kept = Json::array();
  for (Json& entry : list) {
    if (!drop(entry)) {
      kept.push_back(std::move(entry));
    }
  }
  list = std::move(kept);
}

// --- process

StatusOr<Json> Limits(const RunRequest& request) {
  Json limits = Json::array();
  for (const auto& [name, value] : request.ulimits) {
    const bool is_name = !name.empty() && std::all_of(name.begin(), name.end(),
                                                      [](char c) { return c >= 'a' && c <= 'z'; });
    if (!is_name) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "ulimit " + ShowName(name) + ": expected a name such as 'nofile'");
    }
    std::string type = "RLIMIT_";
    for (const char c : name) {
      type += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    limits.push_back({{"type", type}, {"hard", value}, {"soft", value}});
  }
  return limits;
}

Json UserJson(const ProcessUser& user) {
  return {{"uid", user.uid}, {"gid", user.gid}, {"additionalGids", user.additional_gids}};
}

Json CapabilitiesJson(const RunRequest& request, const HostFacts& facts) {
  Json sets = Json::object();
  const auto& names = request.insecure ? facts.capabilities : DefaultCapabilities();
  for (const char* set : {"bounding", "effective", "permitted"}) {
    sets[set] = names;
  }
  if (request.insecure) {
    sets["inheritable"] = names;
    sets["ambient"] = names;
  }
  return sets;
}

void SetTerminal(Json& process, bool terminal, const ConsoleSize& console) {
  process.erase("terminal");
  process.erase("consoleSize");
  if (terminal) {
    process["terminal"] = true;
    if (console.rows > 0 && console.columns > 0) {
      process["consoleSize"] = {{"height", console.rows}, {"width", console.columns}};
    }
  }
}

Status CheckArguments(const ProcessRequest& process) {
  if (process.args.empty()) {
    return MakeStatus(StatusCode::kInvalidArgument, "run: expected at least one argument");
  }
  for (const std::string& argument : process.args) {
    STRATA_RETURN_IF_ERROR(CheckText("argument", argument));
  }
  return CheckText("working dir", process.cwd);
}

StatusOr<Json> ProcessJson(const RunRequest& request, const SpecInput& input,
                           const HostFacts& facts) {
  STRATA_RETURN_IF_ERROR(CheckArguments(request.process));
  STRATA_ASSIGN_OR_RETURN(
      const std::vector<std::string> environment,
      CompleteEnvironment(request.process.env, request.process.streams.terminal));
  STRATA_ASSIGN_OR_RETURN(Json limits, Limits(request));
  Json process = {{"user", UserJson(input.user)},
                  {"args", request.process.args},
                  {"env", environment},
                  {"cwd", CleanPath(request.process.cwd)},
                  {"capabilities", CapabilitiesJson(request, facts)}};
  SetTerminal(process, request.process.streams.terminal, input.console);
  if (!limits.empty()) {
    process["rlimits"] = std::move(limits);
  }
  return process;
}

// --- namespaces, cgroups, security

Json Namespaces(const SpecInput& input, const ExecutorOptions& options, const HostFacts& facts) {
  Json namespaces = Json::array();
  if (!options.no_process_sandbox) {
    namespaces.push_back({{"type", "pid"}});
  }
  for (const char* type : {"ipc", "uts", "mount"}) {
    namespaces.push_back({{"type", type}});
  }
  if (input.network == Kind::kNone) {
    namespaces.push_back({{"type", "network"}});
  } else if (input.network == Kind::kPath) {
    namespaces.push_back({{"type", "network"}, {"path", input.network_path}});
  }
  if (facts.cgroup_namespace) {
    namespaces.push_back({{"type", "cgroup"}});
  }
  if (MapsIds(options)) {
    namespaces.push_back({{"type", "user"}});
  }
  return namespaces;
}

Json MapJson(const std::vector<IdRange>& map) {
  Json ranges = Json::array();
  for (const IdRange& range : map) {
    ranges.push_back(
        {{"containerID", range.container}, {"hostID", range.host}, {"size", range.size}});
  }
  return ranges;
}

// Nobody else's files and processes: two categories of 1,024 are half a million pairs.
std::string RandomCategories() {
  std::random_device random;
  std::uniform_int_distribution<int> pick(0, 1023);
  int low = pick(random);
  int high = pick(random);
  while (high == low) {
    high = pick(random);
  }
  if (low > high) {
    std::swap(low, high);
  }
  return ":c" + std::to_string(low) + ",c" + std::to_string(high);
}

void Confine(Json& spec, const ExecutorOptions& options, const HostFacts& facts) {
  Json& process = spec["process"];
  Json& linux_part = spec["linux"];
  if (facts.seccomp) {
    linux_part["seccomp"] = SeccompProfile(
        HostArchitecture(), process["capabilities"]["bounding"].get<std::vector<std::string>>());
  }
  if (!options.apparmor_profile.empty()) {
    process["apparmorProfile"] = options.apparmor_profile;
  }
  if (options.selinux) {
    const std::string level = RandomCategories();
    process["selinuxLabel"] = facts.selinux->process + level;
    linux_part["mountLabel"] = facts.selinux->file + level;
  }
  linux_part["maskedPaths"] = kMaskedPaths;
  linux_part["readonlyPaths"] = kReadonlyPaths;
  linux_part["resources"]["devices"] = Json::array({Json{{"allow", false}, {"access", "rwm"}}});
}

void Open(Json& spec, const HostFacts& facts) {
  Json& linux_part = spec["linux"];
  Json allowed = Json::array();
  for (const char* type : {"c", "b"}) {
    allowed.push_back({{"allow", true}, {"type", type}, {"access", "rwm"}});
  }
  linux_part["resources"]["devices"] = std::move(allowed);
  if (facts.user_namespace) {
    return;  // mknod(2) of devices is not for us there
  }
  Json devices = Json::array();
  for (const Device& device : kInsecureDevices) {
    devices.push_back(
        {{"path", device.path}, {"type", "c"}, {"major", device.major}, {"minor", device.minor}});
  }
  for (int i = 0; i < kLoopDevices; ++i) {
    devices.push_back({{"path", "/dev/loop" + std::to_string(i)},
                       {"type", "b"},
                       {"major", kLoopMajor},
                       {"minor", i}});
  }
  linux_part["devices"] = std::move(devices);
}

// The host's processes are in view, so /proc is theirs, and what is hidden in it is theirs to hide.
void LeaveProcesses(Json& spec) {
  for (Json& mount : spec["mounts"]) {
    if (mount["destination"] == "/proc") {
      mount = MountJson("/proc", "bind", "/proc", {"rbind"});
    }
  }
  for (const char* list : {"maskedPaths", "readonlyPaths"}) {
    if (spec["linux"].contains(list)) {
      EraseIf(spec["linux"][list],
              [](const Json& path) { return IsBelow(path.get<std::string>(), "/proc"); });
    }
  }
}

// Neither cgroups nor a new sysfs are to be had without root.
void MakeRootless(Json& spec) {
  EraseIf(spec["mounts"], [](const Json& mount) {
    return IsBelow(mount["destination"].get<std::string>(), "/sys");
  });
  spec["linux"].erase("resources");
  spec["linux"]["cgroupsPath"] = "";
}

}  // namespace

StatusOr<std::vector<std::string>> CompleteEnvironment(const std::vector<std::string>& environment,
                                                       bool terminal) {
  std::vector<std::string> complete;
  const auto set = [&](std::string_view entry, bool replace) {
    const std::string_view key = entry.substr(0, entry.find('=') + 1);
    const auto known = std::find_if(complete.begin(), complete.end(),
                                    [&](const std::string& had) { return had.starts_with(key); });
    if (known == complete.end()) {
      complete.emplace_back(entry);
    } else if (replace) {
      *known = entry;
    }
  };
  const bool has_path = std::any_of(environment.begin(), environment.end(),
                                    [](const auto& entry) { return entry.starts_with("PATH="); });
  if (!has_path) {
    complete.emplace_back(kDefaultPath);
  }
  for (const std::string& entry : environment) {
    STRATA_RETURN_IF_ERROR(CheckText("environment", entry));
    if (entry.find('=') == std::string::npos || entry.starts_with('=')) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        "environment " + ShowName(entry) + ": expected NAME=VALUE");
    }
    set(entry, /*replace=*/true);
  }
  if (terminal) {
    set("TERM=xterm", /*replace=*/false);
  }
  return complete;
}

std::string CgroupsPath(std::string_view parent, std::string_view id) {
  if (parent.find(".slice") != std::string_view::npos && parent.ends_with(':')) {
    return std::string(parent) + std::string(id);
  }
  return CleanPath(std::string(parent) + "/buildkit/" + std::string(id));
}

StatusOr<Json> RuntimeSpec(const RunRequest& request, const SpecInput& input,
                           const ExecutorOptions& options, const HostFacts& facts) {
  if (options.selinux && !facts.selinux.has_value()) {
    return MakeStatus(StatusCode::kFailedPrecondition, "selinux is not available");
  }
  STRATA_ASSIGN_OR_RETURN(Json process, ProcessJson(request, input, facts));
  const std::string& parent =
      request.cgroup_parent.empty() ? options.default_cgroup_parent : request.cgroup_parent;
  STRATA_RETURN_IF_ERROR(CheckText("hostname", request.hostname));
  Json spec = {
      {"ociVersion", "1.1.0-rc.2"},
      {"process", std::move(process)},
      {"root", {{"path", input.rootfs}}},
      {"hostname", request.hostname.empty() ? std::string(kDefaultHostname) : request.hostname},
      {"mounts", DefaultMounts(input, options, request.insecure, facts)},
      {"linux",
       {{"namespaces", Namespaces(input, options, facts)},
        {"cgroupsPath", CgroupsPath(parent, input.id)}}}};
  if (request.read_only_root) {
    spec["root"]["readonly"] = true;
  }
  if (request.insecure) {
    Open(spec, facts);
  } else {
    Confine(spec, options, facts);
  }
  if (MapsIds(options)) {
    spec["linux"]["uidMappings"] = MapJson(options.uid_map);
    spec["linux"]["gidMappings"] = MapJson(options.gid_map);
  }
  if (options.no_process_sandbox) {
    LeaveProcesses(spec);
  }
  STRATA_RETURN_IF_ERROR(AddExtraMounts(spec["mounts"], input.mounts));
  if (options.rootless) {
    MakeRootless(spec);
  }
  return spec;
}

StatusOr<Json> ExecProcess(const Json& spec, const ProcessRequest& request, const ProcessUser* user,
                           const ConsoleSize& console) {
  STRATA_RETURN_IF_ERROR(CheckArguments(request));
  if (!spec.is_object() || !spec.contains("process") || !spec["process"].is_object() ||
      !spec["process"].contains("env") || !spec["process"]["env"].is_array()) {
    return MakeStatus(StatusCode::kDataLoss, "expected a config.json with a process");
  }
  Json process = spec["process"];
  std::vector<std::string> environment;
  for (const Json& entry : process["env"]) {
    environment.push_back(entry.is_string() ? entry.get<std::string>() : "");
  }
  environment.insert(environment.end(), request.env.begin(), request.env.end());
  STRATA_ASSIGN_OR_RETURN(process["env"],
                          CompleteEnvironment(environment, request.streams.terminal));
  process["args"] = request.args;
  SetTerminal(process, request.streams.terminal, console);
  if (!request.cwd.empty()) {
    process["cwd"] = CleanPath(request.cwd);
  }
  if (user != nullptr) {
    process["user"] = UserJson(*user);
  }
  return process;
}

}  // namespace strata
