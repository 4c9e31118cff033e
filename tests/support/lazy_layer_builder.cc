// SPDX-License-Identifier: Apache-2.0
#include "tests/support/lazy_layer_builder.h"

#include <absl/strings/escaping.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "snapshotters/base/check.h"
#include "snapshotters/base/digest.h"
#include "tests/support/lazy_layer.h"

namespace strata::testing {
namespace {

constexpr size_t kTarBlock = 512;

bool IsZstd(LayerFormat format) {
  return format == LayerFormat::kZstdChunked || format == LayerFormat::kZstdChunkedContainers;
}

std::string Quoted(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      quoted += "\\u00";
      quoted += kHex[static_cast<unsigned char>(c) >> 4];
      quoted += kHex[static_cast<unsigned char>(c) & 15U];
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

// One object of the TOC.
class TocObject {
 public:
  void Text(const char* name, std::string_view value) { Raw(name, Quoted(value)); }
  void Number(const char* name, uint64_t value) { Raw(name, std::to_string(value)); }
  void NumberUnlessZero(const char* name, uint64_t value) {
    if (value != 0) {
      Number(name, value);
    }
  }
  void Raw(const char* name, const std::string& json) {
    text_ += (text_.empty() ? "" : ",") + Quoted(name) + ":" + json;
  }
  [[nodiscard]] std::string Done() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

class Builder {
 public:
  explicit Builder(const LayerBuildOptions& options) : options_(options) {}

  void Add(const LayerEntry& entry) {
    TocObject object;
    object.Text("name",
                entry.type == "dir" && !entry.name.ends_with('/') ? entry.name + "/" : entry.name);
    object.Text("type", entry.type);
    object.NumberUnlessZero("size", entry.content.size());
    object.Text("modtime", entry.modtime);
    if (!entry.link_name.empty()) {
      object.Text("linkName", entry.link_name);
    }
    object.Number("mode", entry.mode);
    object.NumberUnlessZero("uid", entry.uid);
    object.NumberUnlessZero("gid", entry.gid);
    object.NumberUnlessZero("devMajor", entry.dev_major);
    object.NumberUnlessZero("devMinor", entry.dev_minor);
    AddXattrs(entry, object);
    PendHeader(entry);
    if (entry.type == "reg" && !entry.content.empty()) {
      AddContent(entry, std::move(object));
    } else {
      entries_.push_back(object.Done());
    }
  }

  BuiltLayer Finish() {
    FlushMember();
    Pend(std::string(2 * kTarBlock, '\0'));
    FlushPending();
    BuiltLayer layer;
    layer.toc_json = "{\"version\":1,\"entries\":[";
    for (size_t i = 0; i < entries_.size(); ++i) {
      layer.toc_json += (i == 0 ? "\n" : ",\n") + entries_[i];
    }
    layer.toc_json += "\n]}";
    layer.toc_digest = DigestOf(layer.toc_json);
    layer.payload_end = blob_.size();
    AddToc(layer);
    layer.blob = std::move(blob_);
    layer.digest = DigestOf(layer.blob);
    if (options_.format == LayerFormat::kExternalToc) {
      AddTocImage(layer);
    }
    return layer;
  }

 private:
  static void AddXattrs(const LayerEntry& entry, TocObject& object) {
    if (entry.xattrs.empty()) {
      return;
    }
    TocObject values;
    for (const auto& [name, value] : entry.xattrs) {
      std::string encoded;
      absl::Base64Escape(value, &encoded);
      values.Text(name.c_str(), encoded);
    }
    object.Raw("xattrs", values.Done());
  }

  // The tar header rides in the member before the content.
  void PendHeader(const LayerEntry& entry) {
    const std::string name = entry.name.substr(0, 99);
    const std::string file = TarFile(name, "");
    Pend(file);
  }

  void Pend(const std::string& bytes) {
    if (member_open_) {
      member_ += bytes;
    } else {
      pending_ += bytes;
    }
  }

  [[nodiscard]] std::string Compressed(const std::string& bytes) const {
    return IsZstd(options_.format) ? ZstdFrame(bytes) : GzipMember(bytes);
  }

  void FlushPending() {
    if (!pending_.empty()) {
      blob_ += Compressed(pending_);
      pending_.clear();
    }
  }

  void FlushMember() {
    if (member_open_) {
      blob_ += Compressed(member_);
      member_.clear();
      member_open_ = false;
    }
  }

  // Where the content of a chunk begins: offset of its member, and in it.
  std::pair<uint64_t, uint64_t> Place(const std::string& bytes, bool is_landmark) {
    const bool shares = options_.member_bytes > 0 && !is_landmark && member_open_ &&
                        member_.size() < options_.member_bytes;
    if (!shares) {
      FlushMember();
      FlushPending();
      member_open_ = true;
    }
    const uint64_t inner = member_.size();
    member_ += bytes;
    return {blob_.size(), inner};
  }

  void AddContent(const LayerEntry& entry, TocObject first) {
    const bool has_digests =
        options_.chunk_digests && options_.format != LayerFormat::kLegacyStargz;
    if (has_digests) {
      first.Text("digest", DigestOf(entry.content));
    }
    const bool is_landmark = entry.name.ends_with("prefetch.landmark");
    const bool several = entry.content.size() > options_.chunk_bytes;
    for (size_t at = 0; at < entry.content.size(); at += options_.chunk_bytes) {
      const std::string bytes = entry.content.substr(at, options_.chunk_bytes);
      const auto [offset, inner] = Place(bytes, is_landmark);
      TocObject next;
      if (at > 0) {
        next.Text("name", entry.name);
        next.Text("type", "chunk");
      }
      TocObject& object = at == 0 ? first : next;
      object.Number("offset", offset);
      object.NumberUnlessZero("innerOffset", inner);
      object.NumberUnlessZero("chunkOffset", at);
      object.NumberUnlessZero("chunkSize", several ? bytes.size() : 0);
      if (has_digests) {
        object.Text("chunkDigest", DigestOf(bytes));
      }
      if (options_.member_bytes == 0) {
        FlushMember();
      }
      if (options_.format == LayerFormat::kZstdChunkedContainers &&
          at + options_.chunk_bytes >= entry.content.size()) {
        (at == 0 ? first : next).Number("endOffset", blob_.size());
      }
      entries_.push_back(object.Done());
    }
    Pend(std::string((kTarBlock - entry.content.size() % kTarBlock) % kTarBlock, '\0'));
  }

  void AddToc(BuiltLayer& layer) {
    const bool is_external = options_.format == LayerFormat::kExternalToc;
    if (!is_external || options_.chunk_digests) {
      layer.annotations["containerd.io/snapshot/stargz/toc.digest"] = layer.toc_digest;
    }
    if (IsZstd(options_.format)) {
      AddZstdToc(layer);
      return;
    }
    const std::string toc =
        GzipMember(TarFile("stargz.index.json", layer.toc_json) + std::string(2 * kTarBlock, '\0'));
    if (is_external) {
      layer.toc_blob = toc;
      layer.toc_blob_digest = DigestOf(toc);
      blob_ += ExternalTocFooter();
      return;
    }
    layer.toc_offset = blob_.size();
    layer.toc_bytes = toc.size();
    blob_ += toc;
    blob_ += options_.format == LayerFormat::kLegacyStargz ? LegacyStargzFooter(layer.toc_offset)
                                                           : EstargzFooter(layer.toc_offset);
  }

  void AddZstdToc(BuiltLayer& layer) {
    constexpr uint64_t kFrameHeader = 8;
    const std::string toc = ZstdFrame(layer.toc_json);
    layer.toc_offset = blob_.size() + kFrameHeader;
    layer.toc_bytes = toc.size();
    blob_ += ZstdSkippableFrame(toc);
    const bool is_containers = options_.format == LayerFormat::kZstdChunkedContainers;
    const std::string family =
        is_containers ? "io.github.containers.zstd-chunked." : "io.containers.zstd-chunked.";
    layer.annotations[family + "manifest-checksum"] = DigestOf(toc);
    layer.annotations[family + "manifest-position"] = std::to_string(layer.toc_offset) + ":" +
                                                      std::to_string(toc.size()) + ":" +
                                                      std::to_string(layer.toc_json.size()) + ":1";
    if (!is_containers) {
      blob_ += ZstdChunkedFooter(layer.toc_offset, toc.size(), layer.toc_json.size());
      return;
    }
    layer.annotations.erase("containerd.io/snapshot/stargz/toc.digest");
    const std::string split = ZstdFrame("not looked at");
    const uint64_t split_offset = blob_.size() + kFrameHeader;
    blob_ += ZstdSkippableFrame(split);
    blob_ += ZstdContainersFooter(layer.toc_offset, toc.size(), layer.toc_json.size(), split_offset,
                                  split.size(), 13);
  }

  static void AddTocImage(BuiltLayer& layer) {
    TocObject annotations;
    annotations.Text("containerd.io/snapshot/stargz/layer.digest", layer.digest);
    TocObject descriptor;
    descriptor.Text("mediaType", "application/vnd.oci.image.layer.v1.tar+gzip");
    descriptor.Text("digest", layer.toc_blob_digest);
    descriptor.Number("size", layer.toc_blob.size());
    descriptor.Raw("annotations", annotations.Done());
    TocObject manifest;
    manifest.Number("schemaVersion", 2);
    manifest.Text("mediaType", "application/vnd.oci.image.manifest.v1+json");
    manifest.Raw("layers", "[" + descriptor.Done() + "]");
    layer.toc_manifest = manifest.Done();
  }

  const LayerBuildOptions options_;
  std::string blob_;
  std::string pending_;  // headers and padding that are in no member yet
  std::string member_;
  bool member_open_ = false;
  std::vector<std::string> entries_;
};

}  // namespace

std::string DigestOf(const std::string& bytes) {
  const Sha256Digest digest = Sha256(bytes);
  return "sha256:" + absl::BytesToHexString(absl::string_view(
                         reinterpret_cast<const char*>(digest.data()), digest.size()));
}

BuiltLayer BuildLayer(const std::vector<LayerEntry>& entries, const LayerBuildOptions& options) {
  STRATA_CHECK(options.chunk_bytes > 0);
  Builder builder(options);
  for (const LayerEntry& entry : entries) {
    builder.Add(entry);
  }
  return builder.Finish();
}

}  // namespace strata::testing
