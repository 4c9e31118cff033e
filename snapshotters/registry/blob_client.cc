// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/blob_client.h"

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "snapshotters/registry/blob_request.h"

namespace strata {
namespace {

int PriorityOf(FetchClass fetch_class) {
  switch (fetch_class) {
    case FetchClass::kOnDemand:
      return 2;
    case FetchClass::kResolve:
      return 1;
    case FetchClass::kPrefetch:
      return 0;
    case FetchClass::kBackground:
      return -1;
  }
  return 0;
}

class TailSink : public RangeSink {
 public:
  explicit TailSink(std::function<void(StatusOr<BlobTail>)> callback)
      : callback_(std::move(callback)) {}

  void SetSize(uint64_t size) { tail_.blob_size = size; }
  bool OnData(uint64_t /*offset*/, std::string_view bytes) override {
    tail_.bytes += bytes;
    return true;
  }
  void OnDone(Status status) override {
    if (status.ok()) {
      callback_(std::move(tail_));
    } else {
      callback_(std::move(status));
    }
  }

 private:
  const std::function<void(StatusOr<BlobTail>)> callback_;
  BlobTail tail_;
};

class RegistryBlob : public Blob {
 public:
  RegistryBlob(std::shared_ptr<BlobContext> context, BlobSource source)
      : context_(std::move(context)),
        source_(std::make_shared<const BlobSource>(std::move(source))),
        valid_(Validate(*source_)) {}

  void FetchTail(uint64_t bytes, Deadline deadline,
                 std::function<void(StatusOr<BlobTail>)> callback) override {
    const auto sink = std::make_shared<TailSink>(std::move(callback));
    BlobRequest::Want want{.priority = PriorityOf(FetchClass::kResolve), .deadline = deadline};
    if (source_->size != 0) {
      // Every server with ranges has explicit ones.
      want.length = std::min(bytes, source_->size);
      want.offset = source_->size - want.length;
      sink->SetSize(source_->size);
    } else {
      want.suffix = true;
      want.length = bytes;
    }
    const Status ask =
        bytes == 0 ? MakeStatus(StatusCode::kInvalidArgument, "a tail of no bytes") : valid_;
    Run(want, ask, sink, [sink](uint64_t size) { sink->SetSize(size); });
  }

  void FetchRange(uint64_t offset, uint64_t length, FetchClass fetch_class, Deadline deadline,
                  std::shared_ptr<RangeSink> sink) override {
    Status ask = valid_;
    if (ask.ok() && length > std::numeric_limits<uint64_t>::max() - offset) {
      ask = MakeStatus(StatusCode::kInvalidArgument, "a range beyond 64 bits");
    } else if (ask.ok() && source_->size != 0 && offset + length > source_->size) {
      ask = MakeStatus(StatusCode::kOutOfRange, "a range beyond the end of the blob");
    }
    Run({.offset = offset,
         .length = length,
         .priority = PriorityOf(fetch_class),
         .deadline = deadline},
        ask, std::move(sink), nullptr);
  }

 private:
  static Status Validate(const BlobSource& source) {
    const std::string name = source.reference.host + "/" + source.reference.repository;
    if (!source.manifest.empty()) {
      const bool by_digest = source.manifest.find(':') != std::string::npos;
      return ParseReference(name + (by_digest ? "@" : ":") + source.manifest).status();
    }
    STRATA_RETURN_IF_ERROR(ValidateDigest(source.digest));
    return ParseReference(name).status();
  }

  void Run(const BlobRequest::Want& want, const Status& ask, std::shared_ptr<RangeSink> sink,
           std::function<void(uint64_t)> on_size) {
    auto request = std::make_shared<BlobRequest>(context_, source_, want, sink, std::move(on_size));
    context_->http.RunAt(Deadline(), [=, sink = std::move(sink),
                                      request = std::move(request)](const Status& status) {
      if (!status.ok() || !ask.ok()) {
        sink->OnDone(status.ok() ? ask : status);
      } else if (want.length == 0) {
        sink->OnDone(OkStatus());
      } else {
        request->Begin();
      }
    });
  }

  const std::shared_ptr<BlobContext> context_;
  const std::shared_ptr<const BlobSource> source_;
  const Status valid_;
};

}  // namespace

BlobClient::BlobClient(std::shared_ptr<BlobContext> context) : context_(std::move(context)) {}
BlobClient::~BlobClient() = default;

StatusOr<std::unique_ptr<BlobClient>> BlobClient::Create(const Options& options,
                                                         CredentialSource& credentials,
                                                         HttpClient& http) {
  if (options.clock == nullptr || options.retry.attempts < 1) {
    return MakeStatus(StatusCode::kInvalidArgument, "a blob client needs a clock and an attempt");
  }
  Options complete = options;
  if (!complete.random) {
    complete.random = [engine = std::minstd_rand(std::random_device()())]() mutable {
      return std::uniform_real_distribution<double>(0.0, 1.0)(engine);
    };
  }
  return std::unique_ptr<BlobClient>(
      new BlobClient(std::make_shared<BlobContext>(std::move(complete), credentials, http)));
}

std::shared_ptr<Blob> BlobClient::Open(BlobSource source) {
  return std::make_shared<RegistryBlob>(context_, std::move(source));
}

BlobClient::Counters BlobClient::counters() const {
  return {.requests = context_->requests,
          .bytes = context_->bytes,
          .retries = context_->retries,
          .redirects = context_->redirects,
          .token_requests = context_->token_requests};
}

}  // namespace strata
