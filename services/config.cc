// SPDX-License-Identifier: Apache-2.0
#include "services/config.h"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "services/config_print.h"
#include "snapshotters/base/file_at.h"
#include "snapshotters/core/tenant_snapshotter.h"

namespace strata {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

const Choices<LogLevel>& LogLevels() {
  static const Choices<LogLevel> levels = {{"debug", LogLevel::kDebug},
                                           {"info", LogLevel::kInfo},
                                           {"warn", LogLevel::kWarn},
                                           {"error", LogLevel::kError}};
  return levels;
}

const Choices<LogFormat>& LogFormats() {
  static const Choices<LogFormat> formats = {{"text", LogFormat::kText},
                                             {"json", LogFormat::kJson}};
  return formats;
}

const Choices<SyncAtCommit>& Syncs() {
  static const Choices<SyncAtCommit> syncs = {{"none", SyncAtCommit::kNone},
                                              {"layer", SyncAtCommit::kLayer},
                                              {"filesystem", SyncAtCommit::kFilesystem}};
  return syncs;
}

Status Bad(const std::string& message) {
  return MakeStatus(StatusCode::kInvalidArgument, message);
}

// Names that descriptors have for other reasons: the default tenant's, and what systemd calls those
// that nobody has named (sd_listen_fds(3), FileDescriptorName= in systemd.socket(5)).
bool IsReserved(std::string_view tenant) {
  return tenant.empty() || tenant == "grpc" || tenant == "unknown" || tenant == "stored" ||
         tenant == "connection";
}

StatusOr<TenantConfig> ReadTenant(const ConfigValue& value) {
  if (value.table() == nullptr) {
    return value.Bad("expected a table with 'name', and 'socket' unless systemd passes it");
  }
  TenantConfig tenant;
  for (const auto& [name, entry] : *value.table()) {
    if (name == "name") {
      STRATA_ASSIGN_OR_RETURN(tenant.name, entry.Text());
      if (const Status status = TenantSnapshotter::CheckName(tenant.name); !status.ok()) {
        return entry.Bad(StatusMessage(status));
      }
      if (IsReserved(tenant.name)) {
        return entry.Bad("'" + tenant.name + "' is not for tenants: expected another name");
      }
    } else if (name == "socket") {
      STRATA_ASSIGN_OR_RETURN(tenant.socket, entry.Text());
    } else {
      return entry.Unknown("name, socket");
    }
  }
  return tenant.name.empty() ? StatusOr<TenantConfig>(value.Bad("expected a 'name' in each"))
                             : tenant;
}

ConfigKey TenantKey(std::vector<TenantConfig>* tenants) {
  return {.path = "tenant",
          .set = [tenants](const ConfigValue& value) -> Status {
            if (value.list() == nullptr) {
              return value.Bad("expected a list of tables ([[tenant]])");
            }
            for (const ConfigValue& item : *value.list()) {
              STRATA_ASSIGN_OR_RETURN(TenantConfig tenant, ReadTenant(item));
              const bool twice = std::any_of(
                  tenants->begin(), tenants->end(),
                  [&tenant](const TenantConfig& other) { return other.name == tenant.name; });
              if (twice) {
                return item.Bad("there is a tenant '" + tenant.name + "' already");
              }
              tenants->push_back(std::move(tenant));
            }
            return OkStatus();
          },
          .show =
              [tenants] {
                std::string list;
                for (const TenantConfig& tenant : *tenants) {
                  list += (list.empty() ? "" : ", ") + ("{ name = " + TomlText(tenant.name));
                  list +=
                      tenant.socket.empty() ? " }" : ", socket = " + TomlText(tenant.socket) + " }";
                }
                return "[" + list + "]";
              }};
}

// What every kind can be told; `config`, which it refers to, has the defaults.
KindSettings CommonSettings(DaemonConfig* config) {
  return {
      .keys =
          {
              TextKey("root", &config->root),
              TextKey("socket", &config->socket),
              ChoiceKey("log_level", &config->log_level, LogLevels()),
              ChoiceKey("log_format", &config->log_format, LogFormats()),
              TextKey("anchor_dir", &config->anchor_dir),
              BooleanKey("allow_volatile_root", &config->allow_volatile_root),
              ChoiceKey("sync_at_commit", &config->sync_at_commit, Syncs()),
              BooleanKey("synchronous_removal", &config->synchronous_removal),
              TenantKey(&config->tenants),
          },
      .flags =
          {
              {.name = "--root",
               .type = "DIR",
               .help = "folder of all state (default " + config->root + ")",
               .key = "root",
               .set = SetText(&config->root)},
              {.name = "--socket",
               .type = "PATH",
               .help = "unix socket to serve on, unless systemd passes one (default " +
                       config->socket + ")",
               .key = "socket",
               .set = SetText(&config->socket)},
              {.name = "--log-level",
               .type = "LEVEL",
               .help = "debug, info, warn or error (default info)",
               .key = "log_level",
               .set = SetChoice(&config->log_level, LogLevels())},
              {.name = "--log-format",
               .type = "FORMAT",
               .help = "text or json (default text)",
               .key = "log_format",
               .set = SetChoice(&config->log_format, LogFormats())},
              {.name = "--allow-volatile-root",
               .type = "",
               .help = "accept a root on tmpfs",
               .key = "allow_volatile_root",
               .set = SetTrue(&config->allow_volatile_root)},
              {.name = "--anchor-dir",
               .type = "DIR",
               .help = "where to remember roots on other disks (default " + config->anchor_dir +
                       "; '' does not)",
               .key = "anchor_dir",
               .set = SetText(&config->anchor_dir)},
              {.name = "--sync-at-commit",
               .type = "WHAT",
               .help = "what is made durable before a layer is recorded: none, layer or filesystem "
                       "(default none)",
               .key = "sync_at_commit",
               .set = SetChoice(&config->sync_at_commit, Syncs())},
              {.name = "--synchronous-removal",
               .type = "",
               .help = "a removal is answered when the files are gone",
               .key = "synchronous_removal",
               .set = SetTrue(&config->synchronous_removal)},
          },
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

// A file that is being applied, and what it told.
struct File {
  const std::string& path;
  const std::vector<ConfigKey>& keys;
  ConfigOrigins& origins;
};

Status ApplyTable(const File& file, const ConfigValue::Table& table) {
  const std::vector<ConfigKey>& keys = file.keys;
  for (const auto& [name, value] : table) {
    const std::string& path = value.path();
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&path](const ConfigKey& known) { return known.path == path; });
    if (key != keys.end()) {
      STRATA_RETURN_IF_ERROR(key->set(value));
      file.origins[key->same_as.empty() ? path : key->same_as] =
          file.path + ":" + std::to_string(value.line());
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
    STRATA_RETURN_IF_ERROR(ApplyTable(file, *value.table()));
  }
  return OkStatus();
}

Status ApplyFile(const File& file, const std::string& content) {
  const auto apply = [&]() -> Status {
    STRATA_ASSIGN_OR_RETURN(const ConfigValue all, ConfigValue::Parse(content));
    return ApplyTable(file, *all.table());
  };
  const Status status = apply();
  return status.ok() ? status
                     : Bad("config '" + file.path + "' " + std::string(StatusMessage(status)));
}

// Flags as they were given; what was not given does not touch the file's values.
struct Flags {
  std::vector<std::optional<std::string>> settings;  // one for each ConfigFlag
  std::optional<std::string> config;
  bool check = false;
  bool print_config = false;
};

Status ApplyFlags(const Flags& flags, const std::vector<ConfigFlag>& known,
                  ConfigOrigins* origins) {
  for (size_t i = 0; i < known.size(); ++i) {
    if (const std::optional<std::string>& text = flags.settings[i]; text.has_value()) {
      STRATA_RETURN_IF_ERROR(Annotate(known[i].set(*text), known[i].name));
      (*origins)[known[i].key] = known[i].name;
    }
  }
  return OkStatus();
}

void Describe(const std::string& kind, const std::vector<ConfigFlag>& known, Flags* flags,
              CLI::App* app) {
  flags->settings.resize(known.size());
  for (size_t i = 0; i < known.size(); ++i) {
    std::optional<std::string>& given = flags->settings[i];
    if (known[i].type.empty()) {
      app->add_flag_callback(
          known[i].name, [&given] { given.emplace(); }, known[i].help);
    } else {
      app->add_option(known[i].name, given, known[i].help)->type_name(known[i].type);
    }
  }
  app->add_option("--config", flags->config,
                  "TOML file with the same names, '_' for '-' (default /etc/strata/" + kind +
                      ".toml when it is there); flags go first")
      ->type_name("FILE");
  app->add_flag("--check", flags->check,
                "do not serve, but exit with 0 when this program could take over the root and the "
                "state that a daemon of it has left; disturbs none that is running");
  app->add_flag("--print-config", flags->print_config,
                "do not serve, but print every setting, and where its value comes from");
}

// What only all settings together can tell.
Status CheckTenants(const DaemonConfig& config) {
  std::map<std::string, std::string> owners = {{config.socket, "the daemon itself"}};
  for (const TenantConfig& tenant : config.tenants) {
    if (tenant.socket.empty()) {
      continue;
    }
    const auto [owner, added] = owners.emplace(tenant.socket, "tenant '" + tenant.name + "'");
    if (!added) {
      return Bad("socket '" + tenant.socket + "' of tenant '" + tenant.name + "' is that of " +
                 owner->second + ": expected another path");
    }
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::variant<DaemonConfig, PrintAndExit>> ReadConfig(
    const ConfigSources& sources, const std::vector<std::string>& arguments) {
  DaemonConfig config;
  config.root = "/var/lib/strata/" + sources.kind;
  config.socket = "/run/strata/" + sources.kind + ".sock";
  const std::string program = "strata-" + sources.kind;

  KindSettings settings = CommonSettings(&config);
  settings.Append(sources.settings);
  Flags flags;
  CLI::App app("The " + sources.kind + " snapshotter of strata: a containerd proxy snapshotter",
               program);
  Describe(sources.kind, settings.flags, &flags, &app);
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

  ConfigOrigins origins;
  const std::string file = flags.config.value_or("/etc/strata/" + sources.kind + ".toml");
  const StatusOr<std::string> content = sources.read_file(file);
  if (content.ok()) {
    STRATA_RETURN_IF_ERROR(
        ApplyFile({.path = file, .keys = settings.keys, .origins = origins}, *content));
  } else if (flags.config.has_value() || content.status().code() != StatusCode::kNotFound) {
    return Annotate(content.status(), "config '" + file + "'");
  }
  STRATA_RETURN_IF_ERROR(ApplyFlags(flags, settings.flags, &origins));
  STRATA_RETURN_IF_ERROR(CheckTenants(config));
  if (flags.print_config) {
    return PrintAndExit{"# " + program + " " + sources.version + "\n" +
                        PrintConfig(settings.keys, origins)};
  }
  config.check = flags.check;
  return config;
}

StatusOr<std::string> ReadConfigFile(const std::string& path) {
  // A configuration may well be a symlink, so not by OpenAt.
  STRATA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_NONBLOCK));
  return ReadAll(fd.get(), path, kMaxFileBytes);
}

}  // namespace strata
