// SPDX-License-Identifier: Apache-2.0
#include "client/image/pull.h"

#include <utility>

#include "client/image/commit_image.h"
#include "client/image/image_manifest.h"
#include "client/image/image_origin.h"
#include "client/image/layer_fetches.h"
#include "client/image/unpack.h"
#include "snapshotters/base/digest.h"
#include "snapshotters/registry/blob_client.h"
#include "snapshotters/registry/http_client.h"

namespace strata {
namespace {

using std::chrono::steady_clock;

constexpr int kMostIndexes = 3;  // one in another

// A manifest, and its bytes.
struct Resolved {
  Descriptor descriptor;
  std::string text;
  ImageManifest manifest;
  bool by_platform = false;  // an index has said so
};

// What an image that is here could be fetched from, when its name tells no place.
class NoOrigin : public ImageOrigin {
 public:
  StatusOr<std::string> FetchTop(const CallContext& /*call*/, Deadline /*deadline*/) override {
    return Nowhere("the manifest");
  }
  StatusOr<std::string> FetchManifest(const CallContext& /*call*/, const Descriptor& manifest,
                                      Deadline /*deadline*/) override {
    return Nowhere(manifest.digest);
  }
  Status FetchBlob(const CallContext& /*call*/, const Descriptor& blob,
                   const std::vector<std::string>& /*urls*/, uint64_t /*offset*/,
                   Deadline /*deadline*/, const Receiver& /*receiver*/) override {
    return Nowhere(blob.digest);
  }

 private:
  static Status Nowhere(const std::string& what) {
    return MakeStatus(StatusCode::kNotFound,
                      "'" + what + "' is not here, and the image's name tells no place for it");
  }
};

class ImagePuller : public Puller {
 public:
  ImagePuller(ContentStore& content, WorkerSnapshots& snapshots, CredentialSource& credentials,
              std::unique_ptr<HttpClient> http)
      : content_(content),
        snapshots_(snapshots),
        credentials_(credentials),
        http_(std::move(http)) {}

  StatusOr<PulledImage> Pull(CallContext& call, const ImageSource& source,
                             const PullOptions& options) override;
  StatusOr<PulledImage> Open(CallContext& call, std::string_view name,
                             const PullOptions& options) override;
  StatusOr<PulledImage> CommitImage(CallContext& call, const PulledImage& base,
                                    std::string_view active, const std::string& name,
                                    const ImageConfig& config) override {
    return CommitAsImage(call, content_, snapshots_, base, active, name, config);
  }

 private:
  // An origin and what it needs.
  struct Place {
    std::unique_ptr<BlobClient> client;
    std::unique_ptr<ImageOrigin> origin;
  };
  StatusOr<Place> PlaceOf(const ImageSource& source, const PullOptions& options);
  StatusOr<Resolved> Resolve(CallContext& call, const FetchContext& context,
                             const ImageSource& source, const Platform& platform);
  StatusOr<std::string> ManifestText(CallContext& call, const FetchContext& context,
                                     const Descriptor& manifest);
  StatusOr<ImageConfig> Config(CallContext& call, const FetchContext& context,
                               const Resolved& image, const Platform& platform);
  StatusOr<PulledImage> Unpack(CallContext& call, const FetchContext& context,
                               const Resolved& image, const std::string& name,
                               const std::string& lazy_reference, const PullOptions& options);
  Status Keep(const Resolved& image);

  ContentStore& content_;
  WorkerSnapshots& snapshots_;
  CredentialSource& credentials_;
  const std::unique_ptr<HttpClient> http_;
};

StatusOr<ImagePuller::Place> ImagePuller::PlaceOf(const ImageSource& source,
                                                  const PullOptions& options) {
  Place place;
  if (source.kind != ImageSource::Kind::kRegistry) {
    STRATA_ASSIGN_OR_RETURN(place.origin, OpenLayoutOrigin(source));
    return place;
  }
  STRATA_ASSIGN_OR_RETURN(place.client,
                          BlobClient::Create({.hosts = options.hosts}, credentials_, *http_));
  place.origin = NewRegistryOrigin(*place.client, source.reference);
  return place;
}

Status CheckDigest(const std::string& text, const std::string& digest) {
  DigestStream hash(digest);
  hash.Update(text);
  const std::string found = hash.Finish();
  return found == digest ? OkStatus()
                         : MakeStatus(StatusCode::kDataLoss,
                                      "manifest '" + digest + "' has digest '" + found + "'");
}

StatusOr<std::string> ImagePuller::ManifestText(CallContext& call, const FetchContext& context,
                                                const Descriptor& manifest) {
  if (content_.Has(manifest.digest)) {
    return content_.ReadBlob(manifest.digest, kMostManifestBytes);
  }
  STRATA_ASSIGN_OR_RETURN(std::string text,
                          context.origin.FetchManifest(call, manifest, context.deadline));
  STRATA_RETURN_IF_ERROR(CheckDigest(text, manifest.digest));
  return text;
}

StatusOr<Resolved> ImagePuller::Resolve(CallContext& call, const FetchContext& context,
                                        const ImageSource& source, const Platform& platform) {
  context.progress.Tell("", PullProgress::Step::kResolving);
  Resolved image;
  STRATA_ASSIGN_OR_RETURN(image.text, context.origin.FetchTop(call, context.deadline));
  if (!source.reference.digest.empty()) {
    STRATA_RETURN_IF_ERROR(CheckDigest(image.text, source.reference.digest));
  }
  image.descriptor.digest =
      source.reference.digest.empty() ? Sha256Text(image.text) : source.reference.digest;
  for (int depth = 0; IsImageIndex(image.text); ++depth) {
    if (depth == kMostIndexes) {
      return MakeStatus(StatusCode::kDataLoss, "an index in an index, and so on");
    }
    STRATA_ASSIGN_OR_RETURN(const std::vector<IndexEntry> entries, ParseImageIndex(image.text));
    STRATA_ASSIGN_OR_RETURN(const IndexEntry chosen, ChoosePlatform(entries, platform));
    STRATA_ASSIGN_OR_RETURN(image.text, ManifestText(call, context, chosen.manifest));
    image.descriptor.digest = chosen.manifest.digest;
    image.by_platform = true;
  }
  STRATA_ASSIGN_OR_RETURN(image.manifest, ParseImageManifest(image.text));
  image.descriptor.media_type = image.manifest.media_type;
  image.descriptor.size = image.text.size();
  return image;
}

// In the content store, as the blobs are.
Status ImagePuller::Keep(const Resolved& image) {
  const StatusOr<std::unique_ptr<BlobWriter>> writer = content_.Write(image.descriptor);
  if (writer.status().code() == StatusCode::kAlreadyExists) {
    return OkStatus();
  }
  STRATA_RETURN_IF_ERROR(writer.status());
  STRATA_RETURN_IF_ERROR((*writer)->Reset());
  STRATA_RETURN_IF_ERROR((*writer)->Write(image.text));
  return (*writer)->Commit();
}

StatusOr<ImageConfig> ImagePuller::Config(CallContext& call, const FetchContext& context,
                                          const Resolved& image, const Platform& platform) {
  const Descriptor& blob = image.manifest.config;
  if (blob.size > kMostConfigBytes) {
    return MakeStatus(StatusCode::kDataLoss, "image config of " + std::to_string(blob.size) +
                                                 " bytes, at most " +
                                                 std::to_string(kMostConfigBytes) + " are read");
  }
  IncomingBlob incoming;
  STRATA_RETURN_IF_ERROR(FetchBlobInto(call, context, {.blob = blob}, incoming));
  STRATA_ASSIGN_OR_RETURN(const std::string text, content_.ReadBlob(blob.digest, kMostConfigBytes));
  STRATA_ASSIGN_OR_RETURN(ImageConfig config, ParseImageConfig(text));
  if (config.diff_ids.size() != image.manifest.layers.size()) {
    return MakeStatus(StatusCode::kDataLoss,
                      "the image's config has " + std::to_string(config.diff_ids.size()) +
                          " diff ids, its manifest " +
                          std::to_string(image.manifest.layers.size()) + " layers");
  }
  if (!image.by_platform && !config.platform.os.empty()) {
    STRATA_RETURN_IF_ERROR(
        ChoosePlatform({{.platform = config.platform, .has_platform = true}}, platform).status());
  }
  return config;
}

StatusOr<PulledImage> ImagePuller::Unpack(CallContext& call, const FetchContext& context,
                                          const Resolved& image, const std::string& name,
                                          const std::string& lazy_reference,
                                          const PullOptions& options) {
  PulledImage pulled{.name = name, .manifest = image.descriptor};
  STRATA_ASSIGN_OR_RETURN(pulled.config, Config(call, context, image, options.platform));
  STRATA_ASSIGN_OR_RETURN(
      pulled.snapshot,
      UnpackLayers(call, context, snapshots_,
                   {.manifest = image.manifest,
                    .config = pulled.config,
                    .name = name,
                    .parallel_layers = options.parallel_layers,
                    .lazy_reference = options.lazy ? lazy_reference : std::string(),
                    .manifest_digest = image.descriptor.digest}));
  return pulled;
}

// By which a snapshotter finds the layers again, whatever becomes of the tag.
std::string LazyReference(const ImageSource& source, const std::string& manifest_digest) {
  if (source.kind != ImageSource::Kind::kRegistry) {
    return "";
  }
  Reference reference = source.reference;
  reference.digest = manifest_digest;
  return ShowReference(reference);
}

StatusOr<PulledImage> ImagePuller::Pull(CallContext& call, const ImageSource& source,
                                        const PullOptions& options) {
  STRATA_ASSIGN_OR_RETURN(const auto kept, content_.KeepBlobs());
  STRATA_ASSIGN_OR_RETURN(const Place place, PlaceOf(source, options));
  ProgressTeller progress(options.progress);
  const FetchContext context{.content = content_,
                             .origin = *place.origin,
                             .deadline = steady_clock::now() + options.timeout,
                             .progress = progress};
  const std::string shown = "pull '" + source.name + "'";
  const StatusOr<Resolved> image = Resolve(call, context, source, options.platform);
  STRATA_RETURN_IF_ERROR(Annotate(image.status(), shown));
  StatusOr<PulledImage> pulled = Unpack(call, context, *image, source.name,
                                        LazyReference(source, image->descriptor.digest), options);
  STRATA_RETURN_IF_ERROR(Annotate(pulled.status(), shown));
  STRATA_RETURN_IF_ERROR(Annotate(Keep(*image), shown));
  STRATA_RETURN_IF_ERROR(content_.PutImage({.name = source.name, .manifest = image->descriptor}));
  progress.Tell("", PullProgress::Step::kDone);
  return pulled;
}

StatusOr<PulledImage> ImagePuller::Open(CallContext& call, std::string_view name,
                                        const PullOptions& options) {
  STRATA_ASSIGN_OR_RETURN(const auto kept, content_.KeepBlobs());
  STRATA_ASSIGN_OR_RETURN(const ImageRecord record, content_.FindImage(name));
  Resolved image{.descriptor = record.manifest, .by_platform = true};
  STRATA_ASSIGN_OR_RETURN(image.text,
                          content_.ReadBlob(record.manifest.digest, kMostManifestBytes));
  STRATA_ASSIGN_OR_RETURN(image.manifest, ParseImageManifest(image.text));
  Place place;
  std::string lazy_reference;
  if (const StatusOr<ImageSource> source = ParseImageSource(name); source.ok()) {
    StatusOr<Place> found = PlaceOf(*source, options);
    if (found.ok()) {
      place = *std::move(found);
      lazy_reference = LazyReference(*source, record.manifest.digest);
    }
  }
  if (place.origin == nullptr) {
    place.origin = std::make_unique<NoOrigin>();
  }
  ProgressTeller progress(options.progress);
  const FetchContext context{.content = content_,
                             .origin = *place.origin,
                             .deadline = steady_clock::now() + options.timeout,
                             .progress = progress};
  StatusOr<PulledImage> opened =
      Unpack(call, context, image, std::string(name), lazy_reference, options);
  STRATA_RETURN_IF_ERROR(Annotate(opened.status(), "open '" + std::string(name) + "'"));
  return opened;
}

}  // namespace

StatusOr<std::unique_ptr<Puller>> Puller::Create(ContentStore& content, WorkerSnapshots& snapshots,
                                                 CredentialSource& credentials) {
  STRATA_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, HttpClient::Create({}));
  return std::unique_ptr<Puller>(
      std::make_unique<ImagePuller>(content, snapshots, credentials, std::move(http)));
}

}  // namespace strata
