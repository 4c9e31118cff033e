// SPDX-License-Identifier: Apache-2.0
#include "protos/codec/snapshot_codec.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

namespace strata::codec {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

__extension__ typedef __int128 Int128;  // not ISO C++; both compilers have it

// A Timestamp counts its nanoseconds forwards, before 1970 too.
void TimeToWire(TimeNs time, google::protobuf::Timestamp* out) {
  int64_t seconds = time / kNanosecondsPerSecond;
  int64_t nanoseconds = time % kNanosecondsPerSecond;
  if (nanoseconds < 0) {
    --seconds;
    nanoseconds += kNanosecondsPerSecond;
  }
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(nanoseconds));
}

TimeNs TimeFromWire(const google::protobuf::Timestamp& time) {
  const Int128 sum = Int128{time.seconds()} * kNanosecondsPerSecond + time.nanos();
  constexpr Int128 kEarliest = std::numeric_limits<TimeNs>::min();
  constexpr Int128 kLatest = std::numeric_limits<TimeNs>::max();
  return static_cast<TimeNs>(std::clamp(sum, kEarliest, kLatest));
}

wire::Kind KindToWire(Kind kind) {
  switch (kind) {
    case Kind::kView:
      return wire::VIEW;
    case Kind::kActive:
      return wire::ACTIVE;
    case Kind::kCommitted:
      return wire::COMMITTED;
  }
  return wire::UNKNOWN;
}

constexpr uint32_t kLengthDelimited = 2;  // wire type

size_t VarintSize(uint64_t value) {
  size_t size = 1;
  for (; value >= 0x80; value >>= 7) {
    ++size;
  }
  return size;
}

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) {
    *out += static_cast<char>(value | 0x80);
  }
  *out += static_cast<char>(value);
}

// Tags of fields below 16 take one byte; all of ours are.
void AppendTag(uint32_t field, std::string* out) {
  AppendVarint((field << 3) | kLengthDelimited, out);
}

size_t MessageSize(size_t content) {
  return 1 + VarintSize(content) + content;
}

size_t EntrySize(const std::string& key, const std::string& value) {
  return MessageSize(key.size()) + MessageSize(value.size());
}

// proto3 leaves empty strings out.
size_t TextSize(const std::string& text) {
  return text.empty() ? 0 : MessageSize(text.size());
}

void AppendText(uint32_t field, const std::string& text, std::string* out) {
  if (!text.empty()) {
    AppendTag(field, out);
    AppendVarint(text.size(), out);
    out->append(text);
  }
}

Kind KindFromWire(wire::Kind kind) {
  if (kind == wire::VIEW) {
    return Kind::kView;
  }
  return kind == wire::ACTIVE ? Kind::kActive : Kind::kCommitted;
}

}  // namespace

void ToWire(const SnapshotInfo& info, wire::Info* out) {
  out->set_name(info.name);
  out->set_parent(info.parent);
  out->set_kind(KindToWire(info.kind));
  TimeToWire(info.created, out->mutable_created_at());
  TimeToWire(info.updated, out->mutable_updated_at());
  ToWire(info.labels, out->mutable_labels());
}

// Lengths come before contents on the wire, so the parts are measured first (protobuf's encoding
// guide).
void AppendInfoField(uint32_t field, const SnapshotInfo& info, std::string* out) {
  google::protobuf::Timestamp created;
  google::protobuf::Timestamp updated;
  TimeToWire(info.created, &created);
  TimeToWire(info.updated, &updated);
  size_t size = TextSize(info.name) + TextSize(info.parent) + 2 +
                MessageSize(created.ByteSizeLong()) + MessageSize(updated.ByteSizeLong());
  for (const auto& [key, value] : info.labels) {
    size += MessageSize(EntrySize(key, value));
  }
  AppendTag(field, out);
  AppendVarint(size, out);
  AppendText(wire::Info::kNameFieldNumber, info.name, out);
  AppendText(wire::Info::kParentFieldNumber, info.parent, out);
  AppendVarint(wire::Info::kKindFieldNumber << 3, out);
  AppendVarint(static_cast<uint64_t>(KindToWire(info.kind)), out);
  AppendTag(wire::Info::kCreatedAtFieldNumber, out);
  AppendVarint(created.ByteSizeLong(), out);
  created.AppendToString(out);
  AppendTag(wire::Info::kUpdatedAtFieldNumber, out);
  AppendVarint(updated.ByteSizeLong(), out);
  updated.AppendToString(out);
  for (const auto& [key, value] : info.labels) {
    AppendTag(wire::Info::kLabelsFieldNumber, out);
    AppendVarint(EntrySize(key, value), out);
    // A map entry writes both of its fields, empty ones too.
    AppendTag(1, out);
    AppendVarint(key.size(), out);
    out->append(key);
    AppendTag(2, out);
    AppendVarint(value.size(), out);
    out->append(value);
  }
}

void ToWire(const Mount& mount, containerd::types::Mount* out) {
  out->set_type(mount.type);
  out->set_source(mount.source);
  out->set_target(mount.target);
  out->mutable_options()->Assign(mount.options.begin(), mount.options.end());
}

void ToWire(const Labels& labels, google::protobuf::Map<std::string, std::string>* out) {
  out->clear();
  for (const auto& [key, value] : labels) {
    (*out)[key] = value;
  }
}

SnapshotInfo FromWire(const wire::Info& info) {
  return {
      .name = info.name(),
      .parent = info.parent(),
      .kind = KindFromWire(info.kind()),
      .created = TimeFromWire(info.created_at()),
      .updated = TimeFromWire(info.updated_at()),
      .labels = FromWire(info.labels()),
  };
}

Mount FromWire(const containerd::types::Mount& mount) {
  return {
      .type = mount.type(),
      .source = mount.source(),
      .target = mount.target(),
      .options = {mount.options().begin(), mount.options().end()},
  };
}

Labels FromWire(const google::protobuf::Map<std::string, std::string>& labels) {
  return {labels.begin(), labels.end()};
}

}  // namespace strata::codec
