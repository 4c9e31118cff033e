// SPDX-License-Identifier: Apache-2.0
#include "services/overlay_config.h"

#include <string>
#include <utility>
#include <vector>

#include "snapshotters/os/overlay_options.h"

namespace strata {
namespace {

ConfigKey MountOptionsKey(OverlaySettings* settings) {
  return {.path = "mount_options",
          .set = [settings](const ConfigValue& value) -> Status {
            STRATA_ASSIGN_OR_RETURN(std::vector<std::string> options, value.Texts());
            if (const Status status = CheckOverlayOptions(options); !status.ok()) {
              return value.Bad(StatusMessage(status));
            }
            settings->mount_options = std::move(options);
            return OkStatus();
          },
          .show = [settings] { return TomlTexts(settings->mount_options); }};
}

}  // namespace

KindSettings OverlayConfig(OverlaySettings* settings, bool remap_ids) {
  KindSettings config;
  config.keys = {
      MountOptionsKey(settings),
      BooleanKey("volatile", &settings->volatile_containers),
      BooleanKey("upperdir_label", &settings->upperdir_label),
  };
  config.flags = {
      {.name = "--volatile",
       .type = "",
       .help = "what containers write is not synced when they are unmounted",
       .key = "volatile",
       .set = SetTrue(&settings->volatile_containers)},
      {.name = "--upperdir-label",
       .type = "",
       .help = "snapshots have a label that tells where their files are",
       .key = "upperdir_label",
       .set = SetTrue(&settings->upperdir_label)},
  };
  if (remap_ids) {
    const Choices<RemapIds> choices = {
        {"auto", RemapIds::kAuto}, {"on", RemapIds::kOn}, {"off", RemapIds::kOff}};
    config.keys.push_back(ChoiceKey("remap_ids", &settings->remap_ids, choices));
    config.flags.push_back({.name = "--remap-ids",
                            .type = "WHEN",
                            .help = "whether mounts map the ids of user namespaces: auto, on or "
                                    "off (default auto)",
                            .key = "remap_ids",
                            .set = SetChoice(&settings->remap_ids, choices)});
  }
  return config;
}

}  // namespace strata
