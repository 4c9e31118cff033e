// SPDX-License-Identifier: Apache-2.0
//
// Between messages of the snapshots API and core types; the one place that knows both. Stateless.
#pragma once

#include <services/snapshots/v1/snapshots.pb.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/core/snapshot.h"

namespace strata::codec {

namespace wire = containerd::services::snapshots::v1;

void ToWire(const SnapshotInfo& info, wire::Info* out);
void ToWire(const Mount& mount, containerd::types::Mount* out);
void ToWire(const Labels& labels, google::protobuf::Map<std::string, std::string>* out);

// Appends `info` as field `field` of a message that has Infos there (StatSnapshotResponse,
// ListSnapshotsResponse: field 1), the same bytes that the message class would write, without its
// objects: a List of thousands of rows is mostly this.
void AppendInfoField(uint32_t field, const SnapshotInfo& info, std::string* out);

// Unknown kinds read as committed, as containerd's own code does. A time outside of what TimeNs
// holds (1677 to 2262) is cut to its limit.
SnapshotInfo FromWire(const wire::Info& info);
Mount FromWire(const containerd::types::Mount& mount);
Labels FromWire(const google::protobuf::Map<std::string, std::string>& labels);

}  // namespace strata::codec
