// SPDX-License-Identifier: Apache-2.0
#include "client/image/commit_image.h"

#include <zlib.h>

#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "client/image/image_manifest.h"
#include "client/image/layer_diff.h"
#include "client/image/layer_target.h"
#include "client/image/store_index.h"
#include "client/random_name.h"
#include "snapshotters/base/clock.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/os/unseen_mount.h"

namespace strata {
namespace {

using Json = nlohmann::json;

constexpr size_t kOutputBytes = size_t{256} << 10;
// Docker's types stay among themselves (distribution, "manifest v2 schema 2").
constexpr std::string_view kDockerManifestType =
    "application/vnd.docker.distribution.manifest.v2+json";
constexpr const char* kDockerLayerType = "application/vnd.docker.image.rootfs.diff.tar.gzip";

// A tar on its way into the store: hashed as it is and compressed.
class GzipLayer {
 public:
  explicit GzipLayer(NewBlob& blob) : blob_(blob), output_(new char[kOutputBytes]) {}
  ~GzipLayer() {
    if (begun_) {
      (void)::deflateEnd(&stream_);
    }
  }
  GzipLayer(const GzipLayer&) = delete;
  GzipLayer& operator=(const GzipLayer&) = delete;

  Status Begin() {
    // 16: with a gzip header and trailer (zlib.h, deflateInit2).
    begun_ = ::deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 8,
                            Z_DEFAULT_STRATEGY) == Z_OK;
    return begun_ ? OkStatus() : MakeStatus(StatusCode::kResourceExhausted, "no memory for zlib");
  }
  Status Write(std::string_view bytes) {
    hash_.Update(bytes);
    return Deflate(bytes, Z_NO_FLUSH);
  }
  // The diff id.
  StatusOr<std::string> Finish() {
    STRATA_RETURN_IF_ERROR(Deflate({}, Z_FINISH));
    return hash_.Finish();
  }

 private:
  Status Deflate(std::string_view bytes, int flush) {
    stream_.next_in =
        reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));  // zlib's signature
    stream_.avail_in = static_cast<uInt>(bytes.size());             // blocks of TarWriter
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(output_.get());
      stream_.avail_out = kOutputBytes;
      (void)::deflate(&stream_, flush);  // fails only when it is misused
      STRATA_RETURN_IF_ERROR(blob_.Write({output_.get(), kOutputBytes - stream_.avail_out}));
    } while (stream_.avail_out == 0);
    return OkStatus();
  }

  NewBlob& blob_;
  const std::unique_ptr<char[]> output_;
  DigestStream hash_;
  z_stream stream_{};
  bool begun_ = false;
};

// The time as RFC 3339 has it, in UTC.
std::string Timestamp(TimeNs now) {
  const auto seconds = static_cast<time_t>(now / 1'000'000'000);
  struct tm parts {};
  char text[32];
  (void)::gmtime_r(&seconds, &parts);
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts));
}

class Committing {
 public:
  Committing(CallContext& call, ContentStore& content, WorkerSnapshots& snapshots,
             const PulledImage& base, std::string_view active)
      : call_(call), content_(content), snapshots_(snapshots), base_(base), active_(active) {}

  StatusOr<PulledImage> Run(const std::string& name, const ImageConfig& config);

 private:
  struct NewLayer {
    Descriptor blob;
    std::string diff_id;
  };
  Status WriteDiff(const LayerTarget& target, const std::vector<Mount>& mounts,
                   const TarReceiver& receiver);
  Status WriteDiffOfTrees(const std::vector<Mount>& mounts, const TarReceiver& receiver);
  StatusOr<NewLayer> MakeLayer(const LayerTarget& target, const std::vector<Mount>& mounts);
  StatusOr<Json> ReadJson(const std::string& digest, uint64_t most);
  StatusOr<Descriptor> WriteJson(const Json& json, const std::string& media_type);
  StatusOr<Json> NewConfig(const Json& manifest, const NewLayer& layer, const ImageConfig& config);
  StatusOr<Descriptor> WriteImage(const NewLayer& layer, const ImageConfig& config);

  CallContext& call_;
  ContentStore& content_;
  WorkerSnapshots& snapshots_;
  const PulledImage& base_;
  const std::string active_;
};

// By mounts of both, whatever kind of snapshotter it is.
Status Committing::WriteDiffOfTrees(const std::vector<Mount>& mounts, const TarReceiver& receiver) {
  STRATA_ASSIGN_OR_RETURN(const UniqueFd after, MountUnseen(mounts));
  if (base_.snapshot.empty()) {
    return WriteTreeDiff(call_, -1, after.get(), receiver);
  }
  STRATA_ASSIGN_OR_RETURN(const std::string name, RandomName());
  const std::string view = "compare/" + name;
  STRATA_ASSIGN_OR_RETURN(const std::vector<Mount> below,
                          snapshots_.View(call_, view, base_.snapshot));
  Status status;
  {
    const StatusOr<UniqueFd> before = MountUnseen(below);
    status =
        before.ok() ? WriteTreeDiff(call_, before->get(), after.get(), receiver) : before.status();
  }
  CallContext anyway;
  const Status removed = snapshots_.Remove(anyway, view);
  return status.ok() ? removed : status;
}

Status Committing::WriteDiff(const LayerTarget& target, const std::vector<Mount>& mounts,
                             const TarReceiver& receiver) {
  return target.options.overlay_upper ? WriteUpperDiff(call_, target.directory.get(), receiver)
                                      : WriteDiffOfTrees(mounts, receiver);
}

StatusOr<Committing::NewLayer> Committing::MakeLayer(const LayerTarget& target,
                                                     const std::vector<Mount>& mounts) {
  for (const bool by_trees : {false, true}) {
    STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<NewBlob> blob, content_.WriteNew());
    GzipLayer gzip(*blob);
    STRATA_RETURN_IF_ERROR(gzip.Begin());
    const TarReceiver receiver = [&gzip](std::string_view bytes) { return gzip.Write(bytes); };
    const Status written =
        by_trees ? WriteDiffOfTrees(mounts, receiver) : WriteDiff(target, mounts, receiver);
    if (written.code() == StatusCode::kUnimplemented && !by_trees) {
      continue;
    }
    STRATA_RETURN_IF_ERROR(written);
    NewLayer layer;
    STRATA_ASSIGN_OR_RETURN(layer.diff_id, gzip.Finish());
    const bool docker = base_.manifest.media_type == kDockerManifestType;
    STRATA_ASSIGN_OR_RETURN(
        layer.blob, blob->Commit(docker ? kDockerLayerType : std::string(kOciGzipLayerType)));
    return layer;
  }
  return MakeStatus(StatusCode::kUnimplemented, "the trees cannot be compared");
}

StatusOr<Json> Committing::ReadJson(const std::string& digest, uint64_t most) {
  STRATA_ASSIGN_OR_RETURN(const std::string text, content_.ReadBlob(digest, most));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_object()
             ? StatusOr<Json>(std::move(json))
             : MakeStatus(StatusCode::kDataLoss, "blob '" + digest + "' is no JSON object");
}

StatusOr<Descriptor> Committing::WriteJson(const Json& json, const std::string& media_type) {
  STRATA_ASSIGN_OR_RETURN(const std::unique_ptr<NewBlob> blob, content_.WriteNew());
  STRATA_RETURN_IF_ERROR(blob->Write(json.dump(-1, ' ', false, Json::error_handler_t::replace)));
  return blob->Commit(media_type);
}

StatusOr<Json> Committing::NewConfig(const Json& manifest, const NewLayer& layer,
                                     const ImageConfig& config) {
  STRATA_ASSIGN_OR_RETURN(const ImageManifest parsed, ParseImageManifest(manifest.dump()));
  STRATA_ASSIGN_OR_RETURN(Json root, ReadJson(parsed.config.digest, kMostConfigBytes));
  const std::string now = Timestamp(Clock::System().Now());
  root["created"] = now;
  root["rootfs"]["diff_ids"].push_back(layer.diff_id);
  if (!root.contains("history") || !root["history"].is_array()) {
    root["history"] = Json::array();
  }
  root["history"].push_back({{"created", now}, {"created_by", "strata-worker run --commit"}});
  if (!root.contains("config") || !root["config"].is_object()) {
    root["config"] = Json::object();
  }
  Json& process = root["config"];
  process["Env"] = config.env;
  process["Entrypoint"] = config.entrypoint;
  process["Cmd"] = config.cmd;
  process["User"] = config.user;
  process["WorkingDir"] = config.working_dir;
  process["Labels"] = config.labels;
  if (!config.stop_signal.empty()) {
    process["StopSignal"] = config.stop_signal;
  }
  return root;
}

StatusOr<Descriptor> Committing::WriteImage(const NewLayer& layer, const ImageConfig& config) {
  STRATA_ASSIGN_OR_RETURN(Json manifest, ReadJson(base_.manifest.digest, kMostManifestBytes));
  STRATA_ASSIGN_OR_RETURN(const Json new_config, NewConfig(manifest, layer, config));
  const Json& old = manifest["config"];
  const std::string type = old.contains("mediaType") && old["mediaType"].is_string()
                               ? old["mediaType"].get<std::string>()
                               : std::string(kOciConfigType);
  STRATA_ASSIGN_OR_RETURN(const Descriptor stored, WriteJson(new_config, type));
  const auto describe = [](const Descriptor& blob) {
    return Json{{"mediaType", blob.media_type}, {"digest", blob.digest}, {"size", blob.size}};
  };
  manifest["config"] = describe(stored);
  manifest["layers"].push_back(describe(layer.blob));
  return WriteJson(manifest, base_.manifest.media_type);
}

StatusOr<PulledImage> Committing::Run(const std::string& name, const ImageConfig& config) {
  STRATA_ASSIGN_OR_RETURN(const auto kept, content_.KeepBlobs());
  STRATA_ASSIGN_OR_RETURN(const std::vector<Mount> mounts, snapshots_.Mounts(call_, active_));
  STRATA_ASSIGN_OR_RETURN(const LayerTarget target, OpenLayerTarget(mounts));
  STRATA_ASSIGN_OR_RETURN(const NewLayer layer, MakeLayer(target, mounts));
  PulledImage image{.name = name, .config = config};
  image.config.diff_ids = base_.config.diff_ids;
  image.config.diff_ids.push_back(layer.diff_id);
  image.snapshot = ChainIdOf(image.config.diff_ids);
  STRATA_ASSIGN_OR_RETURN(image.manifest, WriteImage(layer, image.config));
  STRATA_RETURN_IF_ERROR(SyncLayerTarget(target));
  const Status committed = snapshots_.Commit(call_, image.snapshot, active_, RecordType::kRegular,
                                             "committed as " + name, {});
  if (committed.code() == StatusCode::kAlreadyExists) {
    STRATA_RETURN_IF_ERROR(snapshots_.Remove(call_, active_));  // the same is there
  } else {
    STRATA_RETURN_IF_ERROR(committed);
  }
  STRATA_RETURN_IF_ERROR(content_.PutImage({.name = name, .manifest = image.manifest}));
  return image;
}

}  // namespace

StatusOr<PulledImage> CommitAsImage(CallContext& call, ContentStore& content,
                                    WorkerSnapshots& snapshots, const PulledImage& base,
                                    std::string_view active, const std::string& name,
                                    const ImageConfig& config) {
  StatusOr<PulledImage> image =
      Committing(call, content, snapshots, base, active).Run(name, config);
  STRATA_RETURN_IF_ERROR(Annotate(image.status(), "commit '" + name + "'"));
  return image;
}

}  // namespace strata
