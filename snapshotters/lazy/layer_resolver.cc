// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/layer_resolver.h"

#include <span>
#include <string_view>
#include <utility>

#include "snapshotters/base/digest.h"
#include "snapshotters/lazy/fallback_reason.h"
#include "snapshotters/lazy/toc_images.h"

namespace strata {
namespace {

constexpr std::string_view kStargzFamily = "io.containers.zstd-chunked.";
constexpr std::string_view kContainersFamily = "io.github.containers.zstd-chunked.";

std::string ShowDigest(const std::optional<Sha256Digest>& digest) {
  return digest ? ShowSha256(*digest) : std::string();
}

bool HasFamily(const std::map<std::string, std::string>& annotations, std::string_view family) {
  const auto found = annotations.lower_bound(std::string(family));
  return found != annotations.end() && found->first.starts_with(family);
}

std::optional<LayerFormat> ZstdFormatOf(const std::map<std::string, std::string>& annotations) {
  if (HasFamily(annotations, kContainersFamily)) {
    return LayerFormat::kZstdChunkedContainers;
  }
  return HasFamily(annotations, kStargzFamily) ? std::optional(LayerFormat::kZstdChunked)
                                               : std::nullopt;
}

// What the image's manifest says of the layer. Nothing is as good as no pin.
Status TakePin(const std::vector<ManifestLayer>& layers, LayerQuestion& question) {
  for (const ManifestLayer& layer : layers) {
    if (layer.digest == question.request.digest) {
      STRATA_ASSIGN_OR_RETURN(question.pin, ParseTocPin(layer.annotations));
      question.zstd_format = ZstdFormatOf(layer.annotations);
      question.request.blob_bytes = layer.size;
      return OkStatus();
    }
  }
  return OkStatus();
}

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

std::string LayerQuestion::Key() const {
  std::string key =
      (ahead ? "ahead " : "") + request.digest + " " + reference.host + "/" + reference.repository;
  key += " " + ShowDigest(pin.toc_digest) + " " + ShowDigest(pin.manifest_checksum);
  key += policy.allow_unpinned ? " unpinned" : "";
  return key;
}

StatusOr<LayerQuestion> ParseLayerRequest(const LayerRequest& request, const VerifyPolicy& policy,
                                          bool allow_skip_verify) {
  LayerQuestion question{.request = request, .policy = policy};
  STRATA_ASSIGN_OR_RETURN(question.reference, ParseReference(request.reference));
  STRATA_RETURN_IF_ERROR(ValidateDigest(request.digest));
  STRATA_ASSIGN_OR_RETURN(question.pin, ParseTocPin(request.annotations));
  if (request.skip_verify && allow_skip_verify) {
    question.policy.allow_unpinned = true;
  }
  question.zstd_format = ZstdFormatOf(request.annotations);
  return question;
}

StatusOr<BlobSource> BlobSourceOf(const LayerSource& source) {
  STRATA_ASSIGN_OR_RETURN(Reference reference, ParseReference(source.reference));
  return BlobSource{.reference = std::move(reference),
                    .digest = source.digest,
                    .size = source.blob_bytes,
                    .urls = source.urls};
}

void LayerResolver::Fetch(const LayerQuestion& question, Deadline deadline, Callback callback) {
  FetchTocOf(std::make_shared<Fetching>(Fetching{
      .question = question, .deadline = deadline, .callback = std::move(callback), .fetched = {}}));
}

void LayerResolver::FetchTocOf(const std::shared_ptr<Fetching>& layer) {
  const LayerQuestion& question = layer->question;
  const std::shared_ptr<Blob> blob = blobs_.Open({.reference = question.reference,
                                                  .digest = question.request.digest,
                                                  .size = question.request.blob_bytes,
                                                  .urls = question.request.urls});
  const TocQuestion toc_question{
      .blob = blob,
      .blob_bytes = question.request.blob_bytes,
      .pin = question.policy.disabled ? TocPin{} : question.pin,
      .zstd_format = question.policy.disabled ? std::nullopt : question.zstd_format,
      .need_pin = !question.ahead && !question.policy.allow_unpinned && !question.policy.disabled,
      .longest_toc = options_.limits.toc_bytes,
      .deadline = layer->deadline};
  // On the I/O thread this may be gone already; on a thread of the tasks it is there.
  FetchToc(toc_question, [this, layer, tasks = tasks_](StatusOr<FetchedToc> fetched) {
    const Status status = fetched.status();
    if (fetched.ok()) {
      layer->fetched = *std::move(fetched);
    }
    tasks->Post([this, layer, status] {
      if (!status.ok()) {
        FindPin(layer, status);
      } else if (layer->fetched.footer.format == LayerFormat::kExternalToc) {
        FindExternal(layer);
      } else {
        layer->Succeed();
      }
    });
  });
}

void LayerResolver::FindPin(const std::shared_ptr<Fetching>& layer, const Status& unpinned) {
  const std::string manifest = layer->question.request.manifest_digest;
  if (manifest.empty() || layer->question.pin.pinned() ||
      ReasonOf(unpinned) != FallbackReason::kNoPin) {
    layer->callback(unpinned);
    return;
  }
  manifests_.Find(
      layer->question.reference, manifest, layer->deadline,
      [this, layer, unpinned, tasks = tasks_](const StatusOr<ImageManifests::Layers>& layers) {
        tasks->Post([this, layer, unpinned, layers] {
          if (!layers.ok()) {
            layer->callback(Annotate(layers.status(), "ask for the image's manifest"));
            return;
          }
          const Status pinned = TakePin(**layers, layer->question);
          if (!pinned.ok()) {
            layer->callback(pinned);
          } else if (!layer->question.pin.pinned()) {
            layer->callback(unpinned);
          } else {
            FetchTocOf(layer);
          }
        });
      });
}

void LayerResolver::FindExternal(const std::shared_ptr<Fetching>& layer) {
  const LayerQuestion& question = layer->question;
  FindExternalToc(manifests_, question.reference, question.request.digest, layer->deadline,
                  [this, layer, tasks = tasks_](const StatusOr<ManifestLayer>& toc) {
                    tasks->Post([this, layer, toc] {
                      if (toc.ok()) {
                        FetchExternal(layer, *toc);
                      } else {
                        layer->callback(toc.status());
                      }
                    });
                  });
}

void LayerResolver::FetchExternal(const std::shared_ptr<Fetching>& layer,
                                  const ManifestLayer& toc) {
  if (toc.size > options_.limits.toc_bytes) {
    layer->callback(TocTooLong(toc.size, options_.limits.toc_bytes));
    return;
  }
  const std::shared_ptr<Blob> blob = blobs_.Open(
      {.reference = TocImageOf(layer->question.reference), .digest = toc.digest, .size = toc.size});
  FetchWhole(blob, toc.size, layer->deadline,
             [layer, tasks = tasks_](StatusOr<std::string> compressed) {
               const Status status = compressed.status();
               if (compressed.ok()) {
                 layer->fetched.compressed = *std::move(compressed);
               }
               tasks->Post([layer, status] {
                 if (status.ok()) {
                   layer->Succeed();
                 } else {
                   layer->callback(status);
                 }
               });
             });
}

StatusOr<ResolvedLayer> LayerResolver::Decode(const Fetched& all) const {
  const auto& [fetched, question] = all;
  VerifyPolicy policy = question.policy;
  policy.allow_unpinned = policy.allow_unpinned || question.ahead;
  STRATA_ASSIGN_OR_RETURN(std::string json, DecodeToc(fetched.footer, AsBytes(fetched.compressed),
                                                      question.pin, policy, options_.limits));
  const bool pinned = question.pinned(fetched.footer.format);
  const bool is_pinned_by_json = pinned && question.pin.toc_digest.has_value();
  const bool verified = pinned || question.ahead;
  LayerSource source;
  source.reference = question.request.reference;
  source.digest = question.request.digest;
  source.blob_bytes = fetched.blob_bytes;
  source.urls = question.request.urls;
  source.format = fetched.footer.format;
  // What was compared with the pin just now need not be hashed once more.
  source.toc_digest = ShowSha256(is_pinned_by_json ? *question.pin.toc_digest : Sha256(json));
  source.toc_compressed_digest = ShowSha256(Sha256(fetched.compressed));
  source.user_xattr = options_.user_xattr;
  source.verified = verified;
  return ResolvedLayer{.plan = {.source = std::move(source),
                                .footer = fetched.footer,
                                .limits = options_.limits,
                                .allow_unverified_chunks = !verified},
                       .toc_json = std::move(json)};
}

}  // namespace strata
