// SPDX-License-Identifier: Apache-2.0
#include "client/worker/run_flags.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>

#include "client/worker/flags.h"

namespace strata {
namespace {

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

// "NAME=VALUE", or nothing where NAME alone names what is not set.
std::optional<std::string> Environment(const std::string& text, const Variable& variable) {
  if (text.find('=') != std::string::npos) {
    return text;
  }
  const std::optional<std::string> value = variable(text.c_str());
  return value.has_value() ? std::optional<std::string>(text + "=" + *value) : std::nullopt;
}

std::vector<std::string> Environments(const std::vector<std::string>& texts,
                                      const Variable& variable) {
  std::vector<std::string> found;
  for (const std::string& text : texts) {
    if (std::optional<std::string> entry = Environment(FromCli(text), variable)) {
      found.push_back(*std::move(entry));
    }
  }
  return found;
}

StatusOr<RunNetwork> ParseNetwork(const std::string& text) {
  if (text.empty() || text == "default") {
    return RunNetwork::kDefault;
  }
  if (text == "none") {
    return RunNetwork::kNone;
  }
  if (text == "host") {
    return RunNetwork::kHost;
  }
  return Bad("--net " + text + ", expected default, none or host");
}

StatusOr<PullWhen> ParsePull(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, PullWhen>, 3> kWords = {
      {{"missing", PullWhen::kMissing},
       {"always", PullWhen::kAlways},
       {"never", PullWhen::kNever}}};
  for (const auto& [word, meant] : kWords) {
    if (text == word) {
      return meant;
    }
  }
  return Bad("--pull " + text + ", expected missing, always or never");
}

StatusOr<bool> ParseSecurity(const std::string& text) {
  if (text != "sandbox" && text != "insecure") {
    return Bad("--security " + text + ", expected sandbox or insecure");
  }
  return text == "insecure";
}

// "HOST:IP"; the address may have colons itself.
StatusOr<ExtraHost> ParseHost(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size() ||
      text.find_first_of(" \t\n") != std::string::npos) {
    return Bad("--add-host " + text + ", expected NAME:ADDRESS");
  }
  return ExtraHost{text.substr(colon + 1), text.substr(0, colon)};
}

StatusOr<uint64_t> ParseLimit(std::string_view text) {
  uint64_t limit = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Bad("expected a whole number, not '" + std::string(text) + "'");
  }
  return limit;
}

StatusOr<std::pair<std::string, uint64_t>> ParseUlimit(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return Bad("--ulimit " + text + ", expected NAME=LIMIT");
  }
  const auto limit = ParseLimit(std::string_view(text).substr(equals + 1));
  if (!limit.ok()) {
    return Annotate(limit.status(), "--ulimit " + text);
  }
  return std::pair(text.substr(0, equals), *limit);
}

// Each of `texts` by `parse`, into `field`.
template <typename Value, typename Parse>
Status ReadEach(const std::vector<std::string>& texts, const Parse& parse,
                std::vector<Value>* field) {
  for (const std::string& text : texts) {
    STRATA_ASSIGN_OR_RETURN(Value value, parse(FromCli(text)));
    field->push_back(std::move(value));
  }
  return OkStatus();
}

// What run and exec share.
struct ProcessFlags {
  std::vector<std::string> env;
  std::string user;
  std::string cwd;
  bool tty = false;
  bool interactive = false;

  void AddTo(VerbArguments* verb) {
    verb->AddTexts("-e,--env", &env, "a variable; NAME alone takes this environment's",
                   "NAME=VALUE");
    verb->app().add_option("-u,--user", user, "who runs it: UID[:GID] or NAME[:GROUP]");
    verb->app().add_option("-w,--cwd", cwd, "its working directory")->type_name("DIR");
    verb->app().add_flag("-t,--tty", tty, "give it a terminal");
    verb->app().add_flag("-i,--interactive", interactive, "give it standard input");
  }
};

std::vector<std::string> Arguments(const RunFlags& flags, const ImageConfig& image) {
  std::vector<std::string> arguments;
  if (flags.entrypoint.has_value()) {
    if (!flags.entrypoint->empty()) {
      arguments.push_back(*flags.entrypoint);
    }
  } else {
    arguments = image.entrypoint;
  }
  // The image's own command is for its own entrypoint.
  const std::vector<std::string>& command =
      flags.command.empty() && !flags.entrypoint.has_value() ? image.cmd : flags.command;
  arguments.insert(arguments.end(), command.begin(), command.end());
  return arguments;
}

// What --mount says, word by word.
struct MountWords {
  std::string type = "bind";
  std::string source;
  std::string target;
  std::string size;
  bool read_only = false;
};

Status ReadMountWord(const std::string& text, std::string_view word, MountWords* words) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  const std::string value(equals == std::string_view::npos ? "" : word.substr(equals + 1));
  if (name == "type") {
    words->type = value;
  } else if (name == "source" || name == "src") {
    words->source = value;
  } else if (name == "target" || name == "dst" || name == "destination") {
    words->target = value;
  } else if (name == "size") {
    words->size = value;
  } else if (name == "readonly" || name == "ro") {
    words->read_only = value.empty() || value == "true";
  } else {
    return Bad("--mount " + text + ": unknown '" + std::string(name) +
               "', expected type, source, target, readonly or size");
  }
  return OkStatus();
}

}  // namespace

StatusOr<ExtraMount> ParseMount(const std::string& text) {
  MountWords words;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    STRATA_RETURN_IF_ERROR(ReadMountWord(text, word, &words));
  }
  if (!words.target.starts_with('/')) {
    return Bad("--mount " + text + ": expected target= with an absolute path");
  }
  const std::string access = words.read_only ? "ro" : "rw";
  if (words.type == "bind") {
    if (!words.source.starts_with('/')) {
      return Bad("--mount " + text + ": expected source= with an absolute path");
    }
    return ExtraMount{
        .destination = words.target,
        .mount = {.type = "bind", .source = words.source, .options = {"rbind", access}}};
  }
  if (words.type != "tmpfs" || !words.source.empty()) {
    return Bad("--mount " + text + ": expected type=bind, or type=tmpfs without a source");
  }
  std::vector<std::string> options = {"nosuid", "nodev", access};
  if (!words.size.empty()) {
    STRATA_RETURN_IF_ERROR(Annotate(ParseLimit(words.size).status(), "--mount " + text + ": size"));
    options.push_back("size=" + words.size);
  }
  return ExtraMount{.destination = words.target,
                    .mount = {.type = "tmpfs", .source = "tmpfs", .options = std::move(options)}};
}

StatusOr<std::variant<RunFlags, VerbUsage>> ReadRunFlags(const std::vector<std::string>& arguments,
                                                         const Variable& variable) {
  RunFlags flags;
  ProcessFlags process;
  std::string net;
  std::string security = "sandbox";
  std::string pull = "missing";
  std::string entrypoint;
  std::vector<std::string> mounts;
  std::vector<std::string> hosts;
  std::vector<std::string> ulimits;
  std::vector<std::string> words;
  VerbArguments verb("run", "Runs a process on an image: run [FLAGS] IMAGE [COMMAND...]");
  CLI::App& app = verb.app();
  process.AddTo(&verb);
  app.add_flag("--rm", flags.remove, "remove its snapshot afterwards");
  app.add_option("--commit", flags.commit, "make an image of the result")->type_name("NAME");
  verb.AddTexts("--mount", &mounts,
                "type=bind,source=DIR,target=DIR[,readonly] or type=tmpfs,target=DIR[,size=BYTES]",
                "SPEC");
  app.add_flag("--read-only", flags.read_only, "its root file system cannot be written");
  app.add_option("--net", net, "default (the worker's), none or host");
  app.add_option("--hostname", flags.hostname, "its host name");
  verb.AddTexts("--add-host", &hosts, "an entry of /etc/hosts", "NAME:ADDRESS");
  verb.AddTexts("--ulimit", &ulimits, "a limit, as nofile=1024", "NAME=LIMIT");
  app.add_option("--security", security, "sandbox, or insecure: all that this process may do");
  app.add_option("--cgroup-parent", flags.cgroup_parent, "the control group above its own");
  app.add_option("--name,--id", flags.id, "what exec, ps and kill call it")->type_name("ID");
  CLI::Option* replaced =
      app.add_option("--entrypoint", entrypoint, "instead of the image's; '' for none");
  app.add_option("--pull", pull, "missing, always or never (default missing)");
  app.add_flag("-q,--quiet", flags.quiet, "show no progress of a pull");
  verb.StopAtFirstWord(&words);
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(arguments));
  if (usage.has_value()) {
    return *usage;
  }
  if (words.empty()) {
    return Bad("strata-worker run: expected an image (see --help)");
  }
  if (replaced->count() > 0) {
    flags.entrypoint = FromCli(entrypoint);
  }
  flags.image = words.front();
  flags.command.assign(words.begin() + 1, words.end());
  flags.env = Environments(process.env, variable);
  flags.user = process.user;
  flags.cwd = process.cwd;
  flags.tty = process.tty;
  flags.interactive = process.interactive;
  STRATA_ASSIGN_OR_RETURN(flags.network, ParseNetwork(net));
  STRATA_ASSIGN_OR_RETURN(flags.insecure, ParseSecurity(security));
  STRATA_ASSIGN_OR_RETURN(flags.pull, ParsePull(pull));
  STRATA_RETURN_IF_ERROR(ReadEach(mounts, ParseMount, &flags.mounts));
  STRATA_RETURN_IF_ERROR(ReadEach(hosts, ParseHost, &flags.extra_hosts));
  STRATA_RETURN_IF_ERROR(ReadEach(ulimits, ParseUlimit, &flags.ulimits));
  return flags;
}

StatusOr<std::variant<ExecFlags, VerbUsage>> ReadExecFlags(
    const std::vector<std::string>& arguments, const Variable& variable) {
  ProcessFlags process;
  std::vector<std::string> words;
  VerbArguments verb("exec", "Runs one more process in a container: exec [FLAGS] ID COMMAND...");
  process.AddTo(&verb);
  verb.StopAtFirstWord(&words);
  STRATA_ASSIGN_OR_RETURN(const std::optional<VerbUsage> usage, verb.Read(arguments));
  if (usage.has_value()) {
    return *usage;
  }
  if (words.size() < 2) {
    return Bad("strata-worker exec: expected an id and a command (see --help)");
  }
  ExecFlags flags{.id = words.front(), .tty = process.tty, .interactive = process.interactive};
  flags.process = {.args = {words.begin() + 1, words.end()},
                   .env = Environments(process.env, variable),
                   .user = process.user,
                   .cwd = process.cwd};
  return flags;
}

StatusOr<RunRequest> RequestFor(const RunFlags& flags, const ImageConfig& image) {
  RunRequest request;
  request.id = flags.id;
  request.process.args = Arguments(flags, image);
  if (request.process.args.empty()) {
    return Bad("image '" + flags.image + "' does not say what to run, expected a command");
  }
  request.process.env = image.env;
  request.process.env.insert(request.process.env.end(), flags.env.begin(), flags.env.end());
  request.process.user = flags.user.empty() ? image.user : flags.user;
  request.process.cwd = flags.cwd.empty() ? image.working_dir : flags.cwd;
  request.read_only_root = flags.read_only;
  request.mounts = flags.mounts;
  request.network = flags.network;
  request.insecure = flags.insecure;
  request.hostname = flags.hostname;
  request.extra_hosts = flags.extra_hosts;
  request.cgroup_parent = flags.cgroup_parent;
  request.ulimits = flags.ulimits;
  request.stop_signal = image.stop_signal;
  return request;
}

}  // namespace strata
