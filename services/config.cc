// SPDX-License-Identifier: Apache-2.0
#include "services/config.h"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

#include "snapshotters/base/file_at.h"

namespace strata {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

Status SetLogLevel(const std::string& text, DaemonConfig* config) {
  STRATA_ASSIGN_OR_RETURN(config->log_level, ParseLogLevel(text));
  return OkStatus();
}

Status SetLogFormat(const std::string& text, DaemonConfig* config) {
  STRATA_ASSIGN_OR_RETURN(config->log_format, ParseLogFormat(text));
  return OkStatus();
}

// A key whose value is a text.
ConfigKey TextKey(std::string path, std::function<Status(const std::string&)> set) {
  return {.path = std::move(path), .set = [set = std::move(set)](const ConfigValue& value) {
            STRATA_ASSIGN_OR_RETURN(const std::string text, value.Text());
            const Status status = set(text);
            return status.ok() ? status : value.Bad(StatusMessage(status));
          }};
}

// The keys that every kind has.
std::vector<ConfigKey> CommonKeys(DaemonConfig* config) {
  const auto member = [config](std::string path, std::string DaemonConfig::*field) {
    return TextKey(std::move(path), [config, field](const std::string& text) {
      config->*field = text;
      return OkStatus();
    });
  };
  return {
      member("root", &DaemonConfig::root),
      member("socket", &DaemonConfig::socket),
      TextKey("log_level", [config](const std::string& text) { return SetLogLevel(text, config); }),
      TextKey("log_format",
              [config](const std::string& text) { return SetLogFormat(text, config); }),
      member("anchor_dir", &DaemonConfig::anchor_dir),
      {.path = "allow_volatile_root",
       .set =
           [config](const ConfigValue& value) {
             STRATA_ASSIGN_OR_RETURN(config->allow_volatile_root, value.Boolean());
             return OkStatus();
           }},
  };
}

// The keys, without their tables' names, that stand in the same table as `path`.
std::string Siblings(const std::vector<ConfigKey>& keys, const std::string& path) {
  const size_t dot = path.rfind('.');
  const std::string table = dot == std::string::npos ? "" : path.substr(0, dot + 1);
  std::vector<std::string> names;
  for (const ConfigKey& key : keys) {
    if (key.path.starts_with(table)) {
      const std::string rest = key.path.substr(table.size());
      names.push_back(rest.substr(0, rest.find('.')));
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string list;
  for (const std::string& name : names) {
    list += (list.empty() ? "" : ", ") + name;
  }
  return list;
}

Status ApplyTable(const std::vector<ConfigKey>& keys, const ConfigValue::Table& table) {
  for (const auto& [name, value] : table) {
    const std::string& path = value.path();
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&path](const ConfigKey& known) { return known.path == path; });
    if (key != keys.end()) {
      STRATA_RETURN_IF_ERROR(key->set(value));
      continue;
    }
    const bool is_table = std::any_of(keys.begin(), keys.end(), [&path](const ConfigKey& known) {
      return known.path.starts_with(path + ".");
    });
    if (!is_table) {
      return value.Unknown(Siblings(keys, path));
    }
    if (value.table() == nullptr) {
      return value.Bad("expected a table");
    }
    STRATA_RETURN_IF_ERROR(ApplyTable(keys, *value.table()));
  }
  return OkStatus();
}

Status ApplyFile(const std::string& path, const std::string& content,
                 const std::vector<ConfigKey>& keys) {
  const auto apply = [&]() -> Status {
    STRATA_ASSIGN_OR_RETURN(const ConfigValue file, ConfigValue::Parse(content));
    return ApplyTable(keys, *file.table());
  };
  const Status status = apply();
  return status.ok() ? status : Bad("config '" + path + "' " + std::string(StatusMessage(status)));
}

// Flags as they were given; what was not given does not touch the file's values.
struct Flags {
  std::optional<std::string> root;
  std::optional<std::string> socket;
  std::optional<std::string> log_level;
  std::optional<std::string> log_format;
  std::optional<std::string> config;
  std::optional<std::string> anchor_dir;
  bool allow_volatile_root = false;
  bool check = false;
  std::vector<std::optional<std::string>> of_the_kind;  // one for each of its flags
};

Status ApplyFlags(const Flags& flags, const KindSettings& settings, DaemonConfig* config) {
  if (flags.root.has_value()) {
    config->root = *flags.root;
  }
  if (flags.socket.has_value()) {
    config->socket = *flags.socket;
  }
  if (flags.anchor_dir.has_value()) {
    config->anchor_dir = *flags.anchor_dir;
  }
  if (flags.log_level.has_value()) {
    STRATA_RETURN_IF_ERROR(Annotate(SetLogLevel(*flags.log_level, config), "--log-level"));
  }
  if (flags.log_format.has_value()) {
    STRATA_RETURN_IF_ERROR(Annotate(SetLogFormat(*flags.log_format, config), "--log-format"));
  }
  config->allow_volatile_root = config->allow_volatile_root || flags.allow_volatile_root;
  config->check = flags.check;
  for (size_t i = 0; i < settings.flags.size(); ++i) {
    if (const std::optional<std::string>& text = flags.of_the_kind[i]; text.has_value()) {
      STRATA_RETURN_IF_ERROR(Annotate(settings.flags[i].set(*text), settings.flags[i].name));
    }
  }
  return OkStatus();
}

void Describe(const ConfigSources& sources, const DaemonConfig& defaults, Flags* flags,
              CLI::App* app) {
  app->add_option("--root", flags->root, "folder of all state (default " + defaults.root + ")")
      ->type_name("DIR");
  app->add_option(
         "--socket", flags->socket,
         "unix socket to serve on, unless systemd passes one (default " + defaults.socket + ")")
      ->type_name("PATH");
  app->add_option("--log-level", flags->log_level, "debug, info, warn or error (default info)")
      ->type_name("LEVEL");
  app->add_option("--log-format", flags->log_format, "text or json (default text)")
      ->type_name("FORMAT");
  app->add_option("--config", flags->config,
                  "TOML file with the same names, '_' for '-' (default /etc/strata/" +
                      sources.kind + ".toml when it is there); flags go first")
      ->type_name("FILE");
  app->add_flag("--allow-volatile-root", flags->allow_volatile_root, "accept a root on tmpfs");
  app->add_flag("--check", flags->check,
                "do not serve, but exit with 0 when this program could take over the root and the "
                "state that a daemon of it has left; disturbs none that is running");
  app->add_option("--anchor-dir", flags->anchor_dir,
                  "where to remember roots on other disks (default " + defaults.anchor_dir +
                      "; '' does not)")
      ->type_name("DIR");
  flags->of_the_kind.resize(sources.settings.flags.size());
  for (size_t i = 0; i < sources.settings.flags.size(); ++i) {
    const ConfigFlag& flag = sources.settings.flags[i];
    app->add_option(flag.name, flags->of_the_kind[i], flag.help)->type_name(flag.type);
  }
}

}  // namespace

StatusOr<std::variant<DaemonConfig, PrintAndExit>> ReadConfig(
    const ConfigSources& sources, const std::vector<std::string>& arguments) {
  DaemonConfig config;
  config.root = "/var/lib/strata/" + sources.kind;
  config.socket = "/run/strata/" + sources.kind + ".sock";
  const std::string program = "strata-" + sources.kind;

  Flags flags;
  CLI::App app("The " + sources.kind + " snapshotter of strata: a containerd proxy snapshotter",
               program);
  Describe(sources, config, &flags, &app);
  app.set_version_flag("--version", program + " " + sources.version);
  // CLI11 throws; this is the only place that sees it.
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream message;
    if (app.exit(error, out, message) == 0) {
      return PrintAndExit{out.str()};
    }
    return Bad(std::string(error.what()) + "; see " + program + " --help");
  }

  const std::string file = flags.config.value_or("/etc/strata/" + sources.kind + ".toml");
  const StatusOr<std::string> content = sources.read_file(file);
  if (content.ok()) {
    std::vector<ConfigKey> keys = CommonKeys(&config);
    keys.insert(keys.end(), sources.settings.keys.begin(), sources.settings.keys.end());
    STRATA_RETURN_IF_ERROR(ApplyFile(file, *content, keys));
  } else if (flags.config.has_value() || content.status().code() != StatusCode::kNotFound) {
    return Annotate(content.status(), "config '" + file + "'");
  }
  STRATA_RETURN_IF_ERROR(ApplyFlags(flags, sources.settings, &config));
  return config;
}

StatusOr<std::string> ReadConfigFile(const std::string& path) {
  // A configuration may well be a symlink, so not by OpenAt.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_NONBLOCK));
  return ReadAll(fd.get(), path, kMaxFileBytes);
}

}  // namespace strata
