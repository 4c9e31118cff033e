// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/stargz_config.h"

#include <chrono>
#include <cstdint>
#include <utility>

#include "services/overlay_config.h"
#include "services/stargz/peer_settings.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kDay = int64_t{24} * 60 * 60;
constexpr int64_t kMebibyte = int64_t{1} << 20;
constexpr int64_t kMostRequests = 256;
constexpr int64_t kMostThreads = 256;
constexpr int64_t kMostTries = 100;

const Choices<PresenterChoice>& Presenters() {
  static const Choices<PresenterChoice> presenters = {{"auto", PresenterChoice::kAuto},
                                                      {"erofs", PresenterChoice::kErofs},
                                                      {"fuse", PresenterChoice::kFuse}};
  return presenters;
}

// As stargz-snapshotter has it: 0 stands for the default, which `field` holds.
template <typename Unit>
ConfigKey DurationOrDefaultKey(const std::string& path, milliseconds* field, int64_t most) {
  return {.path = path,
          .set =
              [field, most](const ConfigValue& value) {
                STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(0, most));
                *field = number == 0 ? *field : milliseconds(Unit(number));
                return OkStatus();
              },
          .show = ShowDuration<Unit>(field)};
}

// --- [resolver]: where images may be had --------------------------------------------------------

// A table all of whose keys are known.
template <typename Set>
Status ForEachKey(const ConfigValue& value, const Set& set) {
  if (value.table() == nullptr) {
    return value.Bad("expected a table");
  }
  for (const auto& [name, entry] : *value.table()) {
    STRATA_RETURN_IF_ERROR(set(name, entry));
  }
  return OkStatus();
}

Status SetHeaders(const ConfigValue& value, HttpHeaders* headers) {
  return ForEachKey(value, [headers](const std::string& name, const ConfigValue& entry) -> Status {
    STRATA_ASSIGN_OR_RETURN(const std::vector<std::string> texts, entry.Texts());
    for (const std::string& text : texts) {
      headers->emplace_back(name, text);
    }
    return OkStatus();
  });
}

// Whether `name` is one of the keys of TLS, which are ours.
StatusOr<bool> SetTls(const std::string& name, const ConfigValue& value, TlsOptions* tls) {
  if (name == "ca_file") {
    STRATA_ASSIGN_OR_RETURN(tls->ca_files, value.Texts());
  } else if (name == "client_cert") {
    STRATA_ASSIGN_OR_RETURN(tls->client_cert, value.Text());
  } else if (name == "client_key") {
    STRATA_ASSIGN_OR_RETURN(tls->client_key, value.Text());
  } else if (name == "skip_verify") {
    STRATA_ASSIGN_OR_RETURN(tls->insecure, value.Boolean());
  } else {
    return false;
  }
  return true;
}

Status CheckTls(const ConfigValue& value, const TlsOptions& tls) {
  return tls.client_cert.empty() == tls.client_key.empty()
             ? OkStatus()
             : value.Bad("expected both of client_cert and client_key, or none");
}

constexpr std::string_view kMirrorKeys =
    "host, insecure, request_timeout_sec, header, ca_file, client_cert, client_key, skip_verify";
constexpr std::string_view kOriginKeys =
    "mirrors, insecure, header, ca_file, client_cert, client_key, skip_verify";

StatusOr<MirrorConfig> ReadMirror(const ConfigValue& value) {
  MirrorConfig mirror;
  const auto set = [&mirror](const std::string& name, const ConfigValue& entry) -> Status {
    if (name == "host") {
      STRATA_ASSIGN_OR_RETURN(mirror.host, entry.Text());
    } else if (name == "insecure") {
      STRATA_ASSIGN_OR_RETURN(mirror.insecure, entry.Boolean());
    } else if (name == "request_timeout_sec") {
      STRATA_ASSIGN_OR_RETURN(const int64_t number, entry.Number(-kDay, kDay));
      mirror.request_timeout = seconds(number);
    } else if (name == "header") {
      return SetHeaders(entry, &mirror.headers);
    } else {
      STRATA_ASSIGN_OR_RETURN(const bool known, SetTls(name, entry, &mirror.tls));
      return known ? OkStatus() : entry.Unknown(kMirrorKeys);
    }
    return OkStatus();
  };
  STRATA_RETURN_IF_ERROR(ForEachKey(value, set));
  STRATA_RETURN_IF_ERROR(CheckTls(value, mirror.tls));
  if (mirror.host.empty()) {
    return value.Bad("expected a 'host' in each mirror");
  }
  return mirror;
}

StatusOr<OriginConfig> ReadOrigin(const ConfigValue& value) {
  OriginConfig origin;
  const auto set = [&origin](const std::string& name, const ConfigValue& entry) -> Status {
    if (name == "mirrors") {
      if (entry.list() == nullptr) {
        return entry.Bad("expected a list of tables");
      }
      for (const ConfigValue& item : *entry.list()) {
        STRATA_ASSIGN_OR_RETURN(MirrorConfig mirror, ReadMirror(item));
        origin.mirrors.push_back(std::move(mirror));
      }
    } else if (name == "insecure") {
      STRATA_ASSIGN_OR_RETURN(origin.insecure, entry.Boolean());
    } else if (name == "header") {
      return SetHeaders(entry, &origin.headers);
    } else {
      STRATA_ASSIGN_OR_RETURN(const bool known, SetTls(name, entry, &origin.tls));
      return known ? OkStatus() : entry.Unknown(kOriginKeys);
    }
    return OkStatus();
  };
  STRATA_RETURN_IF_ERROR(ForEachKey(value, set));
  STRATA_RETURN_IF_ERROR(CheckTls(value, origin.tls));
  return origin;
}

// Values of headers may be secrets.
std::string ShowHeaders(const HttpHeaders& headers) {
  std::string table;
  for (const auto& [name, value] : headers) {
    table += (table.empty() ? "" : ", ") + TomlText(name) + " = \"(not shown)\"";
  }
  return "{ " + table + " }";
}

// What differs from the defaults, as entries of a table.
class ShownTable {
 public:
  void Add(std::string_view name, const std::string& value) {
    entries_ += (entries_.empty() ? "" : ", ") + std::string(name) + " = " + value;
  }
  void AddTls(const TlsOptions& tls) {
    if (!tls.ca_files.empty()) {
      Add("ca_file", TomlTexts(tls.ca_files));
    }
    if (!tls.client_cert.empty()) {
      Add("client_cert", TomlText(tls.client_cert));
      Add("client_key", TomlText(tls.client_key));
    }
    if (tls.insecure) {
      Add("skip_verify", "true");
    }
  }
  void AddHeaders(const HttpHeaders& headers) {
    if (!headers.empty()) {
      Add("header", ShowHeaders(headers));
    }
  }
  [[nodiscard]] std::string text() const { return "{ " + entries_ + " }"; }

 private:
  std::string entries_;
};

std::string Show(const MirrorConfig& mirror) {
  ShownTable table;
  table.Add("host", TomlText(mirror.host));
  if (mirror.insecure) {
    table.Add("insecure", "true");
  }
  if (mirror.request_timeout.count() != 0) {
    table.Add("request_timeout_sec", ShowDuration<seconds>(&mirror.request_timeout)());
  }
  table.AddHeaders(mirror.headers);
  table.AddTls(mirror.tls);
  return table.text();
}

std::string Show(const OriginConfig& origin) {
  ShownTable table;
  if (!origin.mirrors.empty()) {
    std::string mirrors;
    for (const MirrorConfig& mirror : origin.mirrors) {
      mirrors += (mirrors.empty() ? "" : ", ") + Show(mirror);
    }
    table.Add("mirrors", "[" + mirrors + "]");
  }
  if (origin.insecure) {
    table.Add("insecure", "true");
  }
  table.AddHeaders(origin.headers);
  table.AddTls(origin.tls);
  return table.text();
}

std::string Show(const HostsConfig& hosts) {
  ShownTable table;
  for (const auto& [host, origin] : hosts.origins) {
    table.Add(TomlText(host), Show(origin));
  }
  return table.text();
}

std::vector<ConfigKey> ResolverKeys(HostsConfig* hosts) {
  return {
      {.path = "resolver.request_timeout_sec",
       .set = [hosts](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(-kDay, kDay));
         hosts->request_timeout = number == 0 ? hosts->request_timeout : seconds(number);
         return OkStatus();
       },
       .show = ShowDuration<seconds>(&hosts->request_timeout)},
      {.path = "resolver.host",
       .set =
           [hosts](const ConfigValue& value) {
             return ForEachKey(
                 value, [hosts](const std::string& name, const ConfigValue& entry) -> Status {
                   STRATA_ASSIGN_OR_RETURN(hosts->origins[name], ReadOrigin(entry));
                   return OkStatus();
                 });
           },
       .show = [hosts] { return Show(*hosts); }},
  };
}

// --- the others ---------------------------------------------------------------------------------

std::vector<ConfigKey> OwnKeys(StargzConfig* config) {
  LayerStoreOptions& layers = config->layers;
  Filler::Options& filler = config->filler;
  TocLimits& limits = layers.limits;
  return {
      ChoiceKey("presenter", &config->presenter, Presenters()),
      DurationKey<seconds>("resolve_timeout_sec", &layers.resolve_timeout, 1, kDay),
      BooleanKey("reserve_space", &config->reserve_space),
      BooleanKey("erofs_when_complete", &layers.erofs_when_complete),
      BooleanKey("state_files", &config->state_files),
      NumberKey("budget_bytes", &layers.budget_bytes, 0),
      DurationKey<seconds>("read_patience_sec", &filler.patience, 0, kDay),
      NumberKey("in_flight_bytes", &filler.in_flight_bytes, kMebibyte),
      NumberKey("request_bytes", &filler.request_bytes, int64_t{64} << 10),
      NumberKey("requests", &filler.requests, 1, kMostRequests),
      NumberKey("read_ahead_bytes", &filler.read_ahead_bytes, 0),
      NumberKey("decode_threads", &filler.decode_threads, 0, kMostThreads),
      NumberKey("limits.toc_bytes", &limits.toc_bytes, 1),
      NumberKey("limits.entries", &limits.entries, 1),
      NumberKey("limits.chunk_bytes", &limits.chunk_bytes, 1),
      {.path = "limits.span_bytes",
       .set = [&limits](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(1));
         limits.span_blob_bytes = static_cast<uint64_t>(number);
         limits.span_decoded_bytes = static_cast<uint64_t>(number);
         return OkStatus();
       },
       .show = [&limits] { return std::to_string(limits.span_blob_bytes); }},
  };
}

// Settings of stargz-snapshotter that mean here what they mean there.
std::vector<ConfigKey> PeerKeys(StargzConfig* config) {
  LayerStoreOptions& layers = config->layers;
  RetryOptions& retry = config->blobs.retry;
  ConfigKey patience =
      DurationOrDefaultKey<seconds>("blob.fetching_timeout_sec", &config->filler.patience, kDay);
  patience.same_as = "read_patience_sec";
  return {
      NumberKey("prefetch_size", &layers.prefetch_bytes, 0),
      BooleanKey("noprefetch", &layers.prefetch, /*inverted=*/true),
      {.path = "no_background_fetch",
       .set = [config](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const bool off, value.Boolean());
         config->layers.background_fetch = !off;
         config->filler.background = !off;
         return OkStatus();
       },
       .show = [config] { return TomlBoolean(!config->filler.background); }},
      BooleanKey("allow_no_verification", &layers.allow_skip_verify),
      BooleanKey("disable_verification", &layers.verify.disabled),
      // There is nothing yet that it would turn off.
      {.path = "no_prometheus",
       .set = [](const ConfigValue& value) { return value.Boolean().status(); }},
      std::move(patience),
      {.path = "blob.max_retries",
       .set = [&retry](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const int64_t retries, value.Number(0, kMostTries));
         // We count the first try too.
         retry.attempts = retries == 0 ? retry.attempts : static_cast<int>(retries) + 1;
         return OkStatus();
       },
       .show = [&retry] { return std::to_string(retry.attempts - 1); }},
      DurationOrDefaultKey<milliseconds>("blob.min_wait_msec", &retry.first_delay, kDay),
      DurationOrDefaultKey<milliseconds>("blob.max_wait_msec", &retry.ceiling, kDay * 1000),
  };
}

}  // namespace

KindSettings StargzSettings(StargzConfig* config) {
  KindSettings settings;
  for (std::vector<ConfigKey>& keys : std::vector<std::vector<ConfigKey>>{
           OwnKeys(config), PeerKeys(config), ResolverKeys(&config->blobs.hosts)}) {
    settings.keys.insert(settings.keys.end(), keys.begin(), keys.end());
  }
  for (const PeerSetting& setting : PeerSettingsWithoutEffect()) {
    settings.keys.push_back(
        {.path = std::string(setting.path), .set = [config, setting](const ConfigValue& value) {
           config->notes.push_back("line " + std::to_string(value.line()) + ": " +
                                   std::string(setting.path) + ": " + std::string(setting.answer));
           return OkStatus();
         }});
  }
  settings.flags.push_back(
      {.name = "--presenter",
       .type = "NAME",
       .help = "how layers are shown to the kernel: auto, erofs or fuse (default auto)",
       .key = "presenter",
       .set = SetChoice(&config->presenter, Presenters())});
  // The clients' mounter would hide lazy layers where it maps ids: see StargzOptions::overlay.
  settings.Append(OverlayConfig(&config->overlay, /*remap_ids=*/false));
  return settings;
}

}  // namespace strata
