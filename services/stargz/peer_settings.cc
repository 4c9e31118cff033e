// SPDX-License-Identifier: Apache-2.0
#include "services/stargz/peer_settings.h"

namespace strata {
namespace {

constexpr std::string_view kOneCopy =
    "each layer is one file on disk, in which fetched bytes are kept once";
constexpr std::string_view kNoWait = "no mount waits for a prefetch";
constexpr std::string_view kUntilEvicted =
    "layers are kept until the space is wanted: budget_bytes";
constexpr std::string_view kNoCheck = "a mount asks no registry";
constexpr std::string_view kImmutable =
    "the kernel keeps what it was told of a layer, because a layer never changes";
constexpr std::string_view kKernelReads =
    "a complete layer is read by the kernel itself: erofs_when_complete";
constexpr std::string_view kOneProcess = "there is no process besides the daemon";
constexpr std::string_view kOnlyDocker =
    "credentials are taken from docker's config.json (DOCKER_CONFIG)";
constexpr std::string_view kNoMetrics =
    "counters are asked for on the daemon's socket: strata.control.v1.Control";

constexpr PeerSetting kSettings[] = {
    {"http_cache_type", kOneCopy},
    {"filesystem_cache_type", kOneCopy},
    {"resolve_result_entry_ttl_sec", kUntilEvicted},
    {"resolve_result_entry", kUntilEvicted},
    {"prefetch_timeout_sec", kNoWait},
    {"prefetch_async_size", kNoWait},
    {"debug", "use log_level = \"debug\""},
    {"max_concurrency", "use requests and in_flight_bytes"},
    {"log_file_access", "opening a file does not reach the daemon"},
    {"metrics_address", kNoMetrics},
    {"debug_address", kNoMetrics},
    {"ipfs", "layers come from registries and from https URLs"},
    {"metadata_store", "a layer's table of contents is in its file, and not in memory"},
    {"blob.valid_interval", kNoCheck},
    {"blob.check_always", kNoCheck},
    {"blob.chunk_size", "what is fetched are the chunks that are wanted: request_bytes bounds it"},
    {"blob.force_single_range_mode", "every request is for one range"},
    {"blob.prefetch_chunk_size", "use request_bytes"},
    {"directory_cache.max_lru_cache_entry", kOneCopy},
    {"directory_cache.max_cache_fds", kOneCopy},
    {"directory_cache.sync_add", kOneCopy},
    {"directory_cache.direct", kOneCopy},
    {"directory_cache.fadv_dontneed", kOneCopy},
    {"fuse.attr_timeout", kImmutable},
    {"fuse.entry_timeout", kImmutable},
    {"fuse.passthrough", kKernelReads},
    {"fuse.merge_buffer_size", kKernelReads},
    {"fuse.merge_worker_count", kKernelReads},
    {"fuse_manager.enable", kOneProcess},
    {"fuse_manager.address", kOneProcess},
    {"fuse_manager.path", kOneProcess},
    {"fuse_manager.metrics_address", kOneProcess},
    {"snapshotter.allow_invalid_mounts_on_restart",
     "a layer that does not open at the start fails by itself, and nothing else does"},
    {"kubeconfig_keychain.enable_keychain", kOnlyDocker},
    {"kubeconfig_keychain.kubeconfig_path", kOnlyDocker},
    {"cri_keychain.enable_keychain", kOnlyDocker},
    {"cri_keychain.image_service_path", kOnlyDocker},
    {"cri_keychain.listen_path", kOnlyDocker},
};

}  // namespace

std::span<const PeerSetting> PeerSettingsWithoutEffect() {
  return kSettings;
}

}  // namespace strata
