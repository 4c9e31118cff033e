// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/stargz_config.h"

#include <chrono>
#include <cstdint>
#include <limits>
#include <utility>

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

ConfigKey Flag(std::string path, bool* field, bool inverted = false) {
  return {.path = std::move(path), .set = [field, inverted](const ConfigValue& value) {
            STRATA_ASSIGN_OR_RETURN(const bool given, value.Boolean());
            *field = given != inverted;
            return OkStatus();
          }};
}

template <typename T>
ConfigKey Number(const std::string& path, T* field, int64_t least,
                 int64_t most = std::numeric_limits<int64_t>::max()) {
  return {.path = path, .set = [field, least, most](const ConfigValue& value) {
            STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(least, most));
            *field = static_cast<T>(number);
            return OkStatus();
          }};
}

// `Unit`: what the file counts in.
template <typename Unit>
ConfigKey Duration(const std::string& path, milliseconds* field, int64_t least, int64_t most) {
  return {.path = path, .set = [field, least, most](const ConfigValue& value) {
            STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(least, most));
            *field = Unit(number);
            return OkStatus();
          }};
}

// As stargz-snapshotter has it: 0 stands for the default, which `field` holds.
template <typename Unit>
ConfigKey DurationOrDefault(const std::string& path, milliseconds* field, int64_t most) {
  return {.path = path, .set = [field, most](const ConfigValue& value) {
            STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(0, most));
            *field = number == 0 ? *field : milliseconds(Unit(number));
            return OkStatus();
          }};
}

Status SetPresenter(const std::string& name, PresenterChoice* choice) {
  constexpr std::pair<std::string_view, PresenterChoice> kChoices[] = {
      {"auto", PresenterChoice::kAuto},
      {"erofs", PresenterChoice::kErofs},
      {"fuse", PresenterChoice::kFuse}};
  for (const auto& [known, meant] : kChoices) {
    if (name == known) {
      *choice = meant;
      return OkStatus();
    }
  }
  return MakeStatus(StatusCode::kInvalidArgument,
                    "presenter '" + name + "', expected auto, erofs or fuse");
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

std::vector<ConfigKey> ResolverKeys(HostsConfig* hosts) {
  return {
      {.path = "resolver.request_timeout_sec",
       .set = [hosts](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(-kDay, kDay));
         hosts->request_timeout = number == 0 ? hosts->request_timeout : seconds(number);
         return OkStatus();
       }},
      {.path = "resolver.host",
       .set =
           [hosts](const ConfigValue& value) {
             return ForEachKey(
                 value, [hosts](const std::string& name, const ConfigValue& entry) -> Status {
                   STRATA_ASSIGN_OR_RETURN(hosts->origins[name], ReadOrigin(entry));
                   return OkStatus();
                 });
           }},
  };
}

// --- the others ---------------------------------------------------------------------------------

std::vector<ConfigKey> OwnKeys(StargzConfig* config) {
  LayerStoreOptions& layers = config->layers;
  Filler::Options& filler = config->filler;
  TocLimits& limits = layers.limits;
  return {
      {.path = "presenter",
       .set = [config](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const std::string name, value.Text());
         const Status status = SetPresenter(name, &config->presenter);
         return status.ok() ? status : value.Bad(StatusMessage(status));
       }},
      Duration<seconds>("resolve_timeout_sec", &layers.resolve_timeout, 1, kDay),
      Flag("reserve_space", &config->reserve_space),
      Flag("erofs_when_complete", &layers.erofs_when_complete),
      Number("budget_bytes", &layers.budget_bytes, 0),
      Duration<seconds>("read_patience_sec", &filler.patience, 0, kDay),
      Number("in_flight_bytes", &filler.in_flight_bytes, kMebibyte),
      Number("request_bytes", &filler.request_bytes, int64_t{64} << 10),
      Number("requests", &filler.requests, 1, kMostRequests),
      Number("read_ahead_bytes", &filler.read_ahead_bytes, 0),
      Number("decode_threads", &filler.decode_threads, 0, kMostThreads),
      Number("limits.toc_bytes", &limits.toc_bytes, 1),
      Number("limits.entries", &limits.entries, 1),
      Number("limits.chunk_bytes", &limits.chunk_bytes, 1),
      {.path = "limits.span_bytes",
       .set = [&limits](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const int64_t number, value.Number(1));
         limits.span_blob_bytes = static_cast<uint64_t>(number);
         limits.span_decoded_bytes = static_cast<uint64_t>(number);
         return OkStatus();
       }},
  };
}

// Settings of stargz-snapshotter that mean here what they mean there.
std::vector<ConfigKey> PeerKeys(StargzConfig* config) {
  LayerStoreOptions& layers = config->layers;
  RetryOptions& retry = config->blobs.retry;
  return {
      Number("prefetch_size", &layers.prefetch_bytes, 0),
      Flag("noprefetch", &layers.prefetch, /*inverted=*/true),
      {.path = "no_background_fetch",
       .set = [config](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const bool off, value.Boolean());
         config->layers.background_fetch = !off;
         config->filler.background = !off;
         return OkStatus();
       }},
      Flag("allow_no_verification", &layers.allow_skip_verify),
      Flag("disable_verification", &layers.verify.disabled),
      // There is nothing yet that it would turn off.
      {.path = "no_prometheus",
       .set = [](const ConfigValue& value) { return value.Boolean().status(); }},
      DurationOrDefault<seconds>("blob.fetching_timeout_sec", &config->filler.patience, kDay),
      {.path = "blob.max_retries",
       .set = [&retry](const ConfigValue& value) -> Status {
         STRATA_ASSIGN_OR_RETURN(const int64_t retries, value.Number(0, kMostTries));
         // We count the first try too.
         retry.attempts = retries == 0 ? retry.attempts : static_cast<int>(retries) + 1;
         return OkStatus();
       }},
      DurationOrDefault<milliseconds>("blob.min_wait_msec", &retry.first_delay, kDay),
      DurationOrDefault<milliseconds>("blob.max_wait_msec", &retry.ceiling, kDay * 1000),
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
       .set = [config](const std::string& name) {
         return SetPresenter(name, &config->presenter);
       }});
  return settings;
}

}  // namespace strata
