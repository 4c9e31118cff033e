// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/toc.h"

#include <simdjson.h>

#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "snapshotters/lazy/toc_fields.h"
#include "snapshotters/lazy/toc_pin.h"

namespace strata {
namespace {

namespace ondemand = simdjson::ondemand;
using simdjson::error_code;

static_assert(kTocPadding >= simdjson::SIMDJSON_PADDING);

constexpr uint64_t kTocVersion = 1;
constexpr uint64_t kModeBits = 07777;
constexpr std::string_view kPrefetchLandmark = ".prefetch.landmark";
constexpr std::string_view kNoPrefetchLandmark = ".no.prefetch.landmark";
constexpr size_t kLongestXattrName = 255;  // XATTR_NAME_MAX, linux/limits.h

Status Malformed(std::string_view why) {
  return MakeStatus(StatusCode::kDataLoss, why);
}

Status JsonError(error_code error) {
  return Malformed(std::string("not the JSON that is expected: ") + simdjson::error_message(error));
}

// From one of simdjson's results to a value, or out of the function.
#define STRATA_JSON_ASSIGN(lhs, expr)                     \
  do {                                                    \
    if (const error_code json_error_ = (expr).get(lhs)) { \
      return JsonError(json_error_);                      \
    }                                                     \
  } while (false)

enum class Field : uint8_t {
  kName,
  kType,
  kLinkName,
  kModTime,
  kSize,
  kMode,
  kUid,
  kGid,
  kDevMajor,
  kDevMinor,
  kXattrs,
  kDigest,
  kChunkDigest,
  kOffset,
  kChunkOffset,
  kChunkSize,
  kInnerOffset,
  kEndOffset,
  kChunkType,
  kOther,
};

Field FieldOf(std::string_view key) {
  using Pair = std::pair<std::string_view, Field>;
  static constexpr auto kFields = std::to_array<Pair>({
      {"name", Field::kName},
      {"type", Field::kType},
      {"linkName", Field::kLinkName},
      {"modtime", Field::kModTime},
      {"size", Field::kSize},
      {"mode", Field::kMode},
      {"uid", Field::kUid},
      {"gid", Field::kGid},
      {"devMajor", Field::kDevMajor},
      {"devMinor", Field::kDevMinor},
      {"xattrs", Field::kXattrs},
      {"digest", Field::kDigest},
      {"chunkDigest", Field::kChunkDigest},
      {"offset", Field::kOffset},
      {"chunkOffset", Field::kChunkOffset},
      {"chunkSize", Field::kChunkSize},
      {"innerOffset", Field::kInnerOffset},
      {"endOffset", Field::kEndOffset},
      {"chunkType", Field::kChunkType},
  });
  for (const auto& [name, field] : kFields) {
    if (key == name) {
      return field;
    }
  }
  return Field::kOther;
}

std::optional<EntryType> EntryTypeOf(std::string_view name) {
  using Pair = std::pair<std::string_view, EntryType>;
  static constexpr auto kTypes = std::to_array<Pair>({
      {"reg", EntryType::kRegular},
      {"chunk", EntryType::kChunk},
      {"dir", EntryType::kDirectory},
      {"symlink", EntryType::kSymlink},
      {"hardlink", EntryType::kHardlink},
      {"char", EntryType::kCharDevice},
      {"block", EntryType::kBlockDevice},
      {"fifo", EntryType::kFifo},
  });
  for (const auto& [text, type] : kTypes) {
    if (text == name) {
      return type;
    }
  }
  return std::nullopt;
}

// One entry at a time, over buffers that are kept between entries.
class EntryReader {
 public:
  explicit EntryReader(const TocLimits& limits) : limits_(limits) {}

  // The name as far as it is known, for messages.
  [[nodiscard]] std::string_view raw_name() const { return raw_name_; }

  StatusOr<TocEntry> Read(ondemand::object& object) {
    Reset();
    for (auto field : object) {
      ondemand::value value;
      std::string_view key;
      STRATA_JSON_ASSIGN(key, field.unescaped_key());
      STRATA_JSON_ASSIGN(value, field.value());
      STRATA_RETURN_IF_ERROR(ReadField(FieldOf(key), value));
    }
    STRATA_RETURN_IF_ERROR(Finish());
    return entry_;
  }

 private:
  void Reset() {
    entry_ = {};
    has_type_ = false;
    raw_name_ = {};
    raw_link_ = {};
    xattrs_.clear();
    xattr_bytes_.clear();
  }

  Status ReadField(Field field, ondemand::value& value) {
    if (field == Field::kOther) {
      return OkStatus();
    }
    bool null = false;
    STRATA_JSON_ASSIGN(null, value.is_null());
    if (null) {
      return OkStatus();  // for Go's reader too, this is as if it were not there
    }
    switch (field) {
      case Field::kSize:
        return ReadNumber(value, "size", limits_.file_bytes, entry_.size);
      case Field::kOffset:
        return ReadNumber(value, "offset", kLargest, entry_.offset);
      case Field::kChunkOffset:
        return ReadNumber(value, "chunkOffset", limits_.file_bytes, entry_.chunk_offset);
      case Field::kChunkSize:
        return ReadNumber(value, "chunkSize", limits_.file_bytes, entry_.chunk_size);
      case Field::kInnerOffset:
        return ReadNumber(value, "innerOffset", kLargest, entry_.inner_offset);
      case Field::kEndOffset:
        return ReadNumber(value, "endOffset", kLargest, entry_.end_offset);
      case Field::kMode:
        return ReadMode(value);
      case Field::kUid:
        return ReadNumber32(value, "uid", entry_.uid);
      case Field::kGid:
        return ReadNumber32(value, "gid", entry_.gid);
      case Field::kDevMajor:
        return ReadNumber32(value, "devMajor", entry_.dev_major);
      case Field::kDevMinor:
        return ReadNumber32(value, "devMinor", entry_.dev_minor);
      case Field::kXattrs:
        return ReadXattrs(value);
      case Field::kName:
      case Field::kType:
      case Field::kLinkName:
      case Field::kModTime:
      case Field::kDigest:
      case Field::kChunkDigest:
      case Field::kChunkType:
        return ReadText(field, value);
      case Field::kOther:
        break;
    }
    return OkStatus();
  }

  static Status ReadNumber(ondemand::value& value, std::string_view name, uint64_t most,
                           uint64_t& number) {
    if (value.get_uint64().get(number) != simdjson::SUCCESS) {
      return Malformed("'" + std::string(name) + "' is not a number that fits");
    }
    if (number > most) {
      return Malformed("'" + std::string(name) + "' is " + std::to_string(number) +
                       ", more than the limit");
    }
    return OkStatus();
  }

  static Status ReadNumber32(ondemand::value& value, std::string_view name, uint32_t& number) {
    uint64_t wide = 0;
    STRATA_RETURN_IF_ERROR(ReadNumber(value, name, std::numeric_limits<uint32_t>::max(), wide));
    number = static_cast<uint32_t>(wide);
    return OkStatus();
  }

  Status ReadMode(ondemand::value& value) {
    uint64_t wide = 0;
    // Some writers add the file type's bits; the type is a field of its own.
    STRATA_RETURN_IF_ERROR(ReadNumber(value, "mode", std::numeric_limits<uint32_t>::max(), wide));
    entry_.mode = static_cast<uint32_t>(wide & kModeBits);
    return OkStatus();
  }

  Status ReadText(Field field, ondemand::value& value) {
    std::string_view text;
    STRATA_JSON_ASSIGN(text, value.get_string());
    if (field == Field::kName) {
      raw_name_ = text;
    } else if (field == Field::kLinkName) {
      raw_link_ = text;
    } else if (field == Field::kType) {
      return SetType(text);
    } else if (field == Field::kModTime) {
      return SetTime(text);
    } else if (field == Field::kDigest) {
      return SetDigest(text, entry_.digest);
    } else if (field == Field::kChunkDigest) {
      return SetDigest(text, entry_.chunk_digest);
    } else {
      return SetChunkType(text);
    }
    return OkStatus();
  }

  Status SetType(std::string_view text) {
    const std::optional<EntryType> type = EntryTypeOf(text);
    if (!type) {
      return Malformed("unknown type '" + Printable(text) + "'");
    }
    entry_.type = *type;
    has_type_ = true;
    return OkStatus();
  }

  Status SetTime(std::string_view text) {
    if (text.empty()) {
      return OkStatus();
    }
    const std::optional<TocTime> time = ParseRfc3339(text);
    if (!time) {
      return Malformed("'modtime' is not a time: '" + Printable(text) + "'");
    }
    entry_.mtime_s = time->seconds;
    entry_.mtime_ns = time->nanoseconds;
    return OkStatus();
  }

  static Status SetDigest(std::string_view text, std::optional<Sha256Digest>& digest) {
    if (text.empty()) {
      return OkStatus();
    }
    digest = ParseSha256(text);
    return digest ? OkStatus() : Malformed("not a sha256 digest: '" + Printable(text) + "'");
  }

  Status SetChunkType(std::string_view text) {
    if (!text.empty() && text != "zeros") {
      return Malformed("unknown chunkType '" + Printable(text) + "'");
    }
    entry_.zeros = !text.empty();
    return OkStatus();
  }

  Status ReadXattrs(ondemand::value& value) {
    ondemand::object object;
    STRATA_JSON_ASSIGN(object, value.get_object());
    for (auto field : object) {
      std::string_view name;
      std::string_view text;
      STRATA_JSON_ASSIGN(name, field.unescaped_key());
      STRATA_JSON_ASSIGN(text, field.value().get_string());
      STRATA_RETURN_IF_ERROR(AddXattr(name, text));
    }
    return OkStatus();
  }

  Status AddXattr(std::string_view name, std::string_view text) {
    if (name.empty() || name.size() > kLongestXattrName ||
        name.find('\0') != std::string_view::npos) {
      return Malformed("an xattr's name is empty, too long or has a NUL");
    }
    for (const PendingXattr& other : xattrs_) {
      if (other.name == name) {
        return Malformed("xattr '" + Printable(name) + "' is there twice");
      }
    }
    const size_t begin = xattr_bytes_.size();
    // Checked before it is decoded: base64 makes three bytes of four.
    if (xattrs_.size() >= limits_.xattrs || text.size() / 4 * 3 > limits_.xattr_value_bytes + 2 ||
        begin + text.size() / 4 * 3 > limits_.xattr_total_bytes + 2) {
      return Malformed("too many xattrs, or too large ones");
    }
    if (!AppendBase64(text, xattr_bytes_)) {
      return Malformed("xattr '" + Printable(name) + "' is not base64");
    }
    const size_t bytes = xattr_bytes_.size() - begin;
    if (bytes > limits_.xattr_value_bytes || xattr_bytes_.size() > limits_.xattr_total_bytes) {
      return Malformed("too many xattrs, or too large ones");
    }
    xattrs_.push_back({.name = name, .begin = begin, .bytes = bytes});
    return OkStatus();
  }

  Status Finish() {
    if (!has_type_) {
      return Malformed("it has no type");
    }
    STRATA_ASSIGN_OR_RETURN(entry_.name, CleanName(raw_name_, limits_.name_bytes,
                                                   limits_.component_bytes, name_bytes_));
    if (entry_.name.empty() && entry_.type != EntryType::kDirectory &&
        entry_.type != EntryType::kChunk) {
      return Malformed("the root is no directory, or the name is missing");
    }
    STRATA_RETURN_IF_ERROR(FinishLink());
    views_.clear();
    for (const PendingXattr& xattr : xattrs_) {
      views_.push_back({.name = xattr.name,
                        .value = std::string_view(xattr_bytes_).substr(xattr.begin, xattr.bytes)});
    }
    entry_.xattrs = views_;
    return OkStatus();
  }

  Status FinishLink() {
    if (entry_.type == EntryType::kHardlink) {
      STRATA_ASSIGN_OR_RETURN(entry_.link_name, CleanName(raw_link_, limits_.name_bytes,
                                                          limits_.component_bytes, link_bytes_));
      if (entry_.link_name.empty()) {
        return Malformed("a hardlink to nothing");
      }
    } else if (entry_.type == EntryType::kSymlink) {
      // Any text, as long as the kernel can give it back (PATH_MAX counts a NUL).
      if (raw_link_.empty() || raw_link_.size() >= limits_.name_bytes ||
          raw_link_.find('\0') != std::string_view::npos) {
        return Malformed("a symlink's target is empty, too long or has a NUL");
      }
      entry_.link_name = raw_link_;
    }
    return OkStatus();
  }

  struct PendingXattr {
    std::string_view name;
    size_t begin = 0;  // in xattr_bytes_, which still moves
    size_t bytes = 0;
  };

  static constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max();

  const TocLimits limits_;
  TocEntry entry_;
  bool has_type_ = false;
  // Into the parser's buffer, which lives as long as the pass.
  std::string_view raw_name_;
  std::string_view raw_link_;
  std::string name_bytes_;
  std::string link_bytes_;
  std::string xattr_bytes_;
  std::vector<PendingXattr> xattrs_;
  std::vector<TocXattr> views_;
};

void NoteLandmark(const TocEntry& entry, TocSummary& summary) {
  if (entry.type != EntryType::kRegular) {
    return;
  }
  if (entry.name == kPrefetchLandmark) {
    summary.has_prefetch_landmark = true;
    summary.prefetch_end = entry.offset;
  } else if (entry.name == kNoPrefetchLandmark) {
    summary.no_prefetch = true;
  }
}

Status ReadEntries(ondemand::value& value, const TocLimits& limits, TocVisitor& visitor,
                   TocSummary& summary) {
  ondemand::array array;
  STRATA_JSON_ASSIGN(array, value.get_array());
  EntryReader reader(limits);
  for (auto element : array) {
    const auto context = [&] {
      return "entry " + std::to_string(summary.entries) + " '" + Printable(reader.raw_name()) + "'";
    };
    if (summary.entries >= limits.entries) {
      return Malformed("more than " + std::to_string(limits.entries) + " entries");
    }
    ondemand::object object;
    STRATA_JSON_ASSIGN(object, element.get_object());
    const StatusOr<TocEntry> entry = reader.Read(object);
    if (!entry.ok()) {
      return Annotate(entry.status(), context());
    }
    if (const Status status = visitor.OnEntry(*entry); !status.ok()) {
      return Annotate(status, context());
    }
    NoteLandmark(*entry, summary);
    ++summary.entries;
  }
  return OkStatus();
}

Status ReadDocument(ondemand::document& document, const TocLimits& limits, TocVisitor& visitor,
                    TocSummary& summary) {
  ondemand::object object;
  STRATA_JSON_ASSIGN(object, document.get_object());
  uint64_t version = 0;
  bool has_entries = false;
  for (auto field : object) {
    std::string_view key;
    ondemand::value value;
    STRATA_JSON_ASSIGN(key, field.unescaped_key());
    STRATA_JSON_ASSIGN(value, field.value());
    if (key == "version") {
      STRATA_JSON_ASSIGN(version, value.get_uint64());
      if (version != kTocVersion) {
        return Malformed("version " + std::to_string(version) + " is not known");
      }
    } else if (key == "entries") {
      if (std::exchange(has_entries, true)) {
        return Malformed("'entries' is there twice");
      }
      bool null = false;
      STRATA_JSON_ASSIGN(null, value.is_null());  // what Go writes for an empty layer
      if (!null) {
        STRATA_RETURN_IF_ERROR(ReadEntries(value, limits, visitor, summary));
      }
    }
  }
  if (version != kTocVersion) {
    return Malformed("it has no version");
  }
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) {
    return Malformed("something follows the JSON");
  }
  return OkStatus();
}

#undef STRATA_JSON_ASSIGN

}  // namespace

StatusOr<TocSummary> ParseToc(std::string& json, const TocLimits& limits, TocVisitor& visitor) {
  if (json.size() > limits.toc_bytes) {
    return Malformed("TOC: " + std::to_string(json.size()) + " bytes are more than the limit");
  }
  if (json.capacity() - json.size() < kTocPadding) {
    json.reserve(json.size() + kTocPadding);
  }
  ondemand::parser parser(limits.toc_bytes);
  ondemand::document document;
  if (const error_code error =
          parser.iterate(json.data(), json.size(), json.capacity()).get(document)) {
    return Annotate(JsonError(error), "TOC");
  }
  TocSummary summary;
  if (const Status status = ReadDocument(document, limits, visitor, summary); !status.ok()) {
    return Annotate(status, "TOC");
  }
  return summary;
}

}  // namespace strata
