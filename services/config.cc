// SPDX-License-Identifier: Apache-2.0
#include "services/config.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <fcntl.h>
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
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

// One setting: its key in the file, and what takes its value.
struct Setting {
  std::string_view key;
  std::string_view expected;
  std::function<Status(const toml::node&, DaemonConfig*)> set;
};

std::function<Status(const toml::node&, DaemonConfig*)> Text(
    std::function<Status(const std::string&, DaemonConfig*)> set) {
  return [set = std::move(set)](const toml::node& node, DaemonConfig* config) -> Status {
    const std::optional<std::string> text = node.value_exact<std::string>();
    return text.has_value() ? set(*text, config) : Bad("expected a string");
  };
}

Status SetLogLevel(const std::string& text, DaemonConfig* config) {
  STRATA_ASSIGN_OR_RETURN(config->log_level, ParseLogLevel(text));
  return OkStatus();
}

Status SetLogFormat(const std::string& text, DaemonConfig* config) {
  STRATA_ASSIGN_OR_RETURN(config->log_format, ParseLogFormat(text));
  return OkStatus();
}

std::vector<Setting> Settings() {
  const auto member = [](std::string DaemonConfig::*field) {
    return Text([field](const std::string& text, DaemonConfig* config) {
      config->*field = text;
      return OkStatus();
    });
  };
  return {
      {.key = "root", .expected = "a string", .set = member(&DaemonConfig::root)},
      {.key = "socket", .expected = "a string", .set = member(&DaemonConfig::socket)},
      {.key = "log_level", .expected = "a string", .set = Text(SetLogLevel)},
      {.key = "log_format", .expected = "a string", .set = Text(SetLogFormat)},
      {.key = "anchor_dir", .expected = "a string", .set = member(&DaemonConfig::anchor_dir)},
      {.key = "allow_volatile_root",
       .expected = "true or false",
       .set =
           [](const toml::node& node, DaemonConfig* config) {
             const std::optional<bool> value = node.value_exact<bool>();
             config->allow_volatile_root = value.value_or(false);
             return value.has_value() ? OkStatus() : Bad("expected true or false");
           }},
  };
}

Status ApplyFile(const std::string& path, const std::string& content, DaemonConfig* config) {
  const auto at = [&path](const toml::source_region& region) {
    return "config '" + path + "' line " + std::to_string(region.begin.line) + ": ";
  };
  const toml::parse_result parsed = toml::parse(content, path);
  if (!parsed) {
    return Bad(at(parsed.error().source()) + std::string(parsed.error().description()));
  }
  const std::vector<Setting> settings = Settings();
  for (const auto& [key, node] : parsed.table()) {
    const auto setting =
        std::find_if(settings.begin(), settings.end(),
                     [&key = key](const Setting& known) { return known.key == key.str(); });
    if (setting == settings.end()) {
      std::string known;
      for (const Setting& one : settings) {
        known += (known.empty() ? "" : ", ") + std::string(one.key);
      }
      return Bad(at(key.source()) + "unknown key '" + std::string(key.str()) + "', expected " +
                 known);
    }
    if (const Status status = setting->set(node, config); !status.ok()) {
      return Bad(at(key.source()) + "key '" + std::string(key.str()) +
                 "': " + std::string(StatusMessage(status)));
    }
  }
  return OkStatus();
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
};

Status ApplyFlags(const Flags& flags, DaemonConfig* config) {
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
  app->add_option("--anchor-dir", flags->anchor_dir,
                  "where to remember roots on other disks (default " + defaults.anchor_dir +
                      "; '' does not)")
      ->type_name("DIR");
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
    STRATA_RETURN_IF_ERROR(ApplyFile(file, *content, &config));
  } else if (flags.config.has_value() || content.status().code() != StatusCode::kNotFound) {
    return Annotate(content.status(), "config '" + file + "'");
  }
  STRATA_RETURN_IF_ERROR(ApplyFlags(flags, &config));
  return config;
}

StatusOr<std::string> ReadConfigFile(const std::string& path) {
  // A configuration may well be a symlink, so not by OpenAt.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_NONBLOCK));
  return ReadAll(fd.get(), path, kMaxFileBytes);
}

}  // namespace strata
