// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/blob_request.h"

#include <absl/strings/numbers.h>
#include <absl/strings/string_view.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "snapshotters/registry/redirect.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kManifestTypes =
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json";
constexpr const char* kIndexTypes =
    ", application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json";
// The body of an answer that is not the blob: read to its end, so that the connection can be used
// again, if it is short.
constexpr uint64_t kLongestIgnored = 64 * 1024;
// So much of a whole blob is read to come to the range.
constexpr uint64_t kLongestSkip = uint64_t{1} << 20;

std::optional<uint64_t> Number(std::string_view text) {
  uint64_t number = 0;
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos ||
      !absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &number)) {
    return std::nullopt;
  }
  return number;
}

bool IsRefusedTarget(int http_status) {
  return http_status == 401 || http_status == 403 || http_status == 404 || http_status == 410;
}

}  // namespace

std::optional<ContentRange> ParseContentRange(std::string_view value) {
  value = TrimBlanks(value);
  if (value.size() < 6 || !EqualsIgnoreCase(value.substr(0, 5), "bytes") ||
      (value[5] != ' ' && value[5] != '\t')) {
    return std::nullopt;
  }
  value = TrimBlanks(value.substr(6));
  const size_t slash = value.find('/');
  if (slash == std::string_view::npos) {
    return std::nullopt;
  }
  ContentRange range;
  const std::string_view total = value.substr(slash + 1);
  range.total = Number(total);
  if (!range.total.has_value() && total != "*") {
    return std::nullopt;
  }
  const std::string_view span = value.substr(0, slash);
  if (span == "*") {
    range.unsatisfied = true;
    return range;
  }
  const size_t dash = span.find('-');
  const auto first = Number(span.substr(0, dash));
  const auto last = dash == std::string_view::npos ? std::nullopt : Number(span.substr(dash + 1));
  if (!first.has_value() || !last.has_value() || *first > *last ||
      *last == std::numeric_limits<uint64_t>::max() ||
      (range.total.has_value() && *last >= *range.total)) {
    return std::nullopt;
  }
  range.first = *first;
  range.last = *last;
  return range;
}

BlobRequest::BlobRequest(std::shared_ptr<BlobContext> context,
                         std::shared_ptr<const BlobSource> source, const Want& want,
                         std::shared_ptr<RangeSink> sink, std::function<void(uint64_t)> on_size)
    : context_(std::move(context)),
      source_(std::move(source)),
      want_(want),
      sink_(std::move(sink)),
      on_size_(std::move(on_size)),
      phase_(want.suffix ? Phase::kSuffix : Phase::kRange),
      size_(source_->size),
      next_(want.offset),
      left_(want.length) {}

bool BlobRequest::SuffixRefused(int http_status) {
  return http_status == 400 || http_status == 416 || http_status == 501;
}

Status BlobRequest::Loss(std::string_view what) const {
  return MakeStatus(StatusCode::kDataLoss,
                    "GET from '" + target_.authority + "': " + std::string(what));
}

void BlobRequest::Begin() {
  for (RegistryHost& host : HostsFor(source_->reference, context_->options.hosts)) {
    auto url = ParseUrl(source_->manifest.empty()
                            ? host.BlobUrl(source_->reference, source_->digest)
                            : host.ManifestUrl(source_->reference, source_->manifest));
    if (url.ok()) {
      candidates_.push_back({std::move(host), *std::move(url), /*with_credentials=*/true});
    }
  }
  for (const std::string& text : source_->urls) {
    auto url = ParseUrl(text);
    if (url.ok() && (url->scheme == "https" || IsLoopback(url->authority))) {
      Candidate direct{.host = {.scheme = url->scheme, .host = url->authority},
                       .url = *url,
                       .with_credentials = false};
      direct.host.request_timeout = context_->options.hosts.request_timeout;
      candidates_.push_back(std::move(direct));
    }
  }
  if (candidates_.empty()) {
    Finish(MakeStatus(StatusCode::kInvalidArgument, "fetch a blob: no host that can be asked"));
    return;
  }
  BeginRound();
}

void BlobRequest::BeginRound() {
  std::stable_partition(candidates_.begin(), candidates_.end(), [this](const Candidate& one) {
    return !context_->IsResting(one.url.scheme + "://" + one.url.authority);
  });
  candidate_index_ = 0;
  worst_failure_ = {.http_status = 404};
  BeginCandidate();
}

void BlobRequest::BeginCandidate() {
  redirects_ = 0;
  authorized_ = false;
  asked_again_ = false;
  target_ = context_->RedirectOf(candidate().url.ToString()).value_or(candidate().url);
  Send();
}

StatusOr<std::optional<std::string>> BlobRequest::Authorization() {
  STRATA_ASSIGN_OR_RETURN(credential_,
                          context_->credentials.Find(candidate().host.host, source_->reference));
  token_key_ = {.origin = candidate().url.scheme + "://" + candidate().url.authority,
                .scope = "repository:" + source_->reference.repository + ":pull",
                .credential_fingerprint = CredentialFingerprint(credential_)};
  return context_->tokens.Cached(token_key_);
}

// Ten layers of one image would otherwise each be told to fetch the same token.
bool BlobRequest::MayAsk() {
  if (probing_ || waited_) {
    return true;
  }
  waited_ = true;
  if (!context_->BeginProbe(token_key_, [self = shared_from_this()] { self->Send(); })) {
    return false;
  }
  probing_ = true;
  return true;
}

void BlobRequest::EndProbe(bool answered) {
  if (std::exchange(probing_, false)) {
    context_->EndProbe(token_key_, answered);
  }
}

void BlobRequest::Send() {
  answer_ = Answer();
  sent_authorization_.clear();
  HttpRequest request;
  request.url = target_.ToString();
  request.tls = AtRegistry() ? candidate().host.tls : TlsOptions();
  request.headers.emplace_back("Accept-Encoding", "identity");
  std::string range = "bytes=";
  if (phase_ == Phase::kSuffix) {
    range += "-" + std::to_string(left_);
  } else if (phase_ == Phase::kProbe) {
    range += "0-0";
  } else {
    range += std::to_string(next_) + "-" + std::to_string(next_ + left_ - 1);
  }
  request.headers.emplace_back("Range", range);
  if (!source_->manifest.empty()) {
    request.headers.emplace_back(
        "Accept", std::string(kManifestTypes) + (source_->accepts_index ? kIndexTypes : ""));
  }
  if (AtRegistry()) {
    // These may be secrets too (a mirror's API key).
    request.secret_headers = candidate().host.headers;
    if (candidate().with_credentials) {
      auto authorization = Authorization();
      if (!authorization.ok()) {
        Fail(Annotate(authorization.status(), "find credentials for '" + target_.authority + "'"),
             {.http_status = 401});
        return;
      }
      if (authorization->has_value()) {
        sent_authorization_ = **authorization;
        request.secret_headers.emplace_back("Authorization", sent_authorization_);
      } else if (!MayAsk()) {
        return;
      }
    }
  }
  request.deadline = want_.deadline;
  if (candidate().host.request_timeout.count() > 0 && !source_->is_long) {
    request.deadline =
        std::min(request.deadline, steady_clock::now() + candidate().host.request_timeout);
  }
  request.max_body = std::numeric_limits<uint64_t>::max();
  request.priority = want_.priority;
  ++context_->requests;
  context_->http.Start(std::move(request), shared_from_this());
}

bool BlobRequest::SetSize(uint64_t size) {
  if (size_known_ || (size_ != 0 && source_->size != 0)) {
    if (size != size_) {
      answer_.failure = Loss("a blob of another size (" + std::to_string(size) +
                             " bytes instead of " + std::to_string(size_) + ")");
      return false;
    }
  }
  const bool first_time = !size_known_;
  size_ = size;
  size_known_ = true;
  if (phase_ != Phase::kRange) {
    left_ = std::min(want_.length, size);
    next_ = size - left_;
  }
  if (first_time && on_size_) {
    on_size_(size);
  }
  return true;
}

void BlobRequest::AcceptPartial(const HttpResponseHead& head) {
  const auto value = head.Find("content-range");
  const auto range = value.has_value() ? ParseContentRange(*value) : std::nullopt;
  if (!range.has_value() || range->unsatisfied) {
    answer_.failure = Loss("a partial answer without a valid Content-Range");
    return;
  }
  if (!range->total.has_value() && phase_ != Phase::kRange) {
    answer_.failure = Loss("a partial answer that does not say the size of the blob");
    return;
  }
  if (range->total.has_value() && !SetSize(*range->total)) {
    return;
  }
  if (phase_ == Phase::kProbe) {
    return;
  }
  if (range->first != next_ || range->last - range->first + 1 != left_) {
    answer_.failure = Loss("another range than asked for");
    return;
  }
  phase_ = Phase::kRange;
  answer_.receiving = true;
  sink_->OnHost(target_.authority);
  answer_.position = next_;
}

// False: no more of the body is wanted.
bool BlobRequest::AcceptWhole(const HttpResponseHead& head) {
  const auto value = head.Find("content-length");
  const auto length = value.has_value() ? Number(*value) : std::nullopt;
  if (length.has_value() && !SetSize(*length)) {
    return false;
  }
  if (phase_ != Phase::kRange) {
    if (!size_known_) {
      answer_.failure =
          MakeStatus(StatusCode::kUnimplemented, "GET from '" + target_.authority +
                                                     "': neither ranges nor the size of the blob");
      return false;
    }
    if (phase_ == Phase::kProbe || next_ > kLongestSkip) {
      answer_.suffix_cut = true;  // the size is what was needed
      return false;
    }
    phase_ = Phase::kRange;
  } else if (next_ > kLongestSkip) {
    answer_.failure =
        MakeStatus(StatusCode::kUnimplemented, "GET from '" + target_.authority + "': no ranges");
    return false;
  }
  answer_.receiving = true;
  sink_->OnHost(target_.authority);
  answer_.position = 0;
  return left_ > 0;
}

bool BlobRequest::OnHead(const HttpResponseHead& head) {
  answer_.http_status = head.status;
  if (head.status != 401) {
    EndProbe(/*answered=*/true);
  }
  if (const auto value = head.Find("retry-after"); value.has_value()) {
    answer_.retry_after = ParseRetryAfter(*value, context_->options.clock->Now());
  }
  if (head.status == 206) {
    AcceptPartial(head);
    return answer_.failure.ok();
  }
  if (head.status == 200) {
    return AcceptWhole(head);
  }
  if (IsRedirect(head.status)) {
    answer_.location = head.Find("location").value_or("");
    answer_.cache_control = head.Find("cache-control");
  } else if (head.status == 401) {
    for (const auto& [name, value] : head.headers) {
      if (name == "www-authenticate") {
        answer_.www_authenticate += answer_.www_authenticate.empty() ? "" : ", ";
        answer_.www_authenticate += value;
      }
    }
  } else if (head.status == 416 && phase_ == Phase::kSuffix) {
    const auto value = head.Find("content-range");
    const auto range = value.has_value() ? ParseContentRange(*value) : std::nullopt;
    if (range.has_value() && range->total.has_value()) {
      return SetSize(*range->total);
    }
  }
  return true;
}

bool BlobRequest::OnBody(std::string_view bytes) {
  if (!answer_.receiving) {
    answer_.ignored += bytes.size();
    return answer_.ignored <= kLongestIgnored;
  }
  if (answer_.position < next_) {
    const auto skipped =
        static_cast<size_t>(std::min<uint64_t>(next_ - answer_.position, bytes.size()));
    bytes.remove_prefix(skipped);
    answer_.position += skipped;
    if (bytes.empty()) {
      return true;
    }
  }
  return Deliver(bytes);
}

bool BlobRequest::Deliver(std::string_view bytes) {
  if (bytes.size() > left_) {
    if (answer_.http_status == 206) {
      answer_.failure = Loss("more bytes than asked for");
      if (left_ == 0) {
        return false;
      }
    }
    bytes = bytes.substr(0, static_cast<size_t>(left_));
  }
  const uint64_t at = next_;
  next_ += bytes.size();
  left_ -= bytes.size();
  answer_.position += bytes.size();
  context_->bytes += bytes.size();
  if (!bytes.empty() && !sink_->OnData(at, bytes)) {
    ended_by_sink_ = true;
    return false;
  }
  if (!answer_.failure.ok()) {
    return false;
  }
  // Behind the range of a whole blob nothing is wanted; of a partial one the end shows whether it
  // is too long.
  return left_ > 0 || answer_.http_status == 206;
}

void BlobRequest::OnDone(Status status) {
  if (ended_by_sink_) {
    Finish(MakeStatus(StatusCode::kCancelled, "ended by its receiver"));
    return;
  }
  if (status.code() == StatusCode::kCancelled) {
    Finish(std::move(status));
    return;
  }
  if (!answer_.failure.ok()) {
    if (left_ == 0) {
      Finish(answer_.failure);  // all was delivered, and it cannot be taken back
      return;
    }
    Fail(answer_.failure, {.http_status = answer_.http_status});
    return;
  }
  if (answer_.receiving && left_ == 0) {
    context_->NoteSuccess(candidate().url.scheme + "://" + candidate().url.authority);
    Finish(OkStatus());
    return;
  }
  if (status.ok()) {
    HandleAnswer();
    return;
  }
  if (status.code() == StatusCode::kDeadlineExceeded) {
    if (steady_clock::now() >= want_.deadline) {
      Finish(std::move(status));
      return;
    }
    status = MakeStatus(StatusCode::kUnavailable,
                        "GET from '" + target_.authority + "': the time for one request is over");
  }
  const bool retryable = status.code() == StatusCode::kUnavailable;
  Fail(status, {.http_status = retryable ? 0 : 400});
}

// A whole answer that has not ended the request.
void BlobRequest::HandleAnswer() {
  const int code = answer_.http_status;
  if (answer_.receiving) {
    Fail(Loss("fewer bytes than asked for"), {.http_status = code});
  } else if (answer_.suffix_cut || (phase_ == Phase::kProbe && code == 206)) {
    HandleBody();
  } else if (IsRedirect(code)) {
    FollowLocation();
  } else if (!AtRegistry() && IsRefusedTarget(code) && !asked_again_) {
    AskRegistryAgain();
  } else if (code == 401 && AtRegistry() && candidate().with_credentials && !authorized_) {
    Authorize();
  } else if (phase_ == Phase::kSuffix && SuffixRefused(code)) {
    phase_ = Phase::kProbe;
    if (size_known_) {
      HandleBody();
    } else {
      Send();
    }
  } else {
    Fail(HttpStatusError(HttpMethod::kGet, target_.authority, code),
         {.http_status = code, .retry_after = answer_.retry_after});
  }
}

// The size is known now, and with it the range.
void BlobRequest::HandleBody() {
  phase_ = Phase::kRange;
  if (left_ == 0) {
    Finish(OkStatus());
    return;
  }
  Send();
}

void BlobRequest::FollowLocation() {
  if (++redirects_ > kMostRedirects) {
    Fail(MakeStatus(StatusCode::kFailedPrecondition,
                    "GET from '" + candidate().url.authority + "': more than 5 redirects"),
         {.http_status = answer_.http_status});
    return;
  }
  auto target = FollowRedirect(target_, answer_.location);
  if (!target.ok()) {
    Fail(target.status(), {.http_status = answer_.http_status});
    return;
  }
  ++context_->redirects;
  std::optional<std::string_view> cache_control;
  if (answer_.cache_control.has_value()) {
    cache_control = *answer_.cache_control;
  }
  target_ = *std::move(target);
  context_->KeepRedirect(candidate().url.ToString(), target_,
                         RedirectLifetime(target_, cache_control, context_->options.clock->Now()));
  Send();
}

void BlobRequest::Authorize() {
  authorized_ = true;
  context_->tokens.Renew(
      token_key_, answer_.www_authenticate, credential_, candidate().host.tls, sent_authorization_,
      want_.deadline, [self = shared_from_this()](const StatusOr<std::string>& header) {
        self->EndProbe(header.ok());
        if (header.ok()) {
          self->Send();  // finds it in the cache
        } else if (header.status().code() == StatusCode::kDeadlineExceeded ||
                   header.status().code() == StatusCode::kCancelled) {
          self->Finish(header.status());
        } else {
          const bool retryable = header.status().code() == StatusCode::kUnavailable;
          self->Fail(header.status(), {.http_status = retryable ? 0 : 401});
        }
      });
  context_->token_requests = context_->tokens.requests();
}

void BlobRequest::AskRegistryAgain() {
  asked_again_ = true;
  redirects_ = 0;
  context_->DropRedirect(candidate().url.ToString());
  target_ = candidate().url;
  Send();
}

void BlobRequest::Fail(const Status& status, const AttemptFailure& failure) {
  EndProbe(/*answered=*/false);
  last_error_ = status;
  context_->DropRedirect(candidate().url.ToString());
  const bool whole_answer_of_blob = failure.http_status == 200 || failure.http_status == 206;
  if (IsRetryable(failure) || whole_answer_of_blob) {
    context_->NoteFailure(candidate().url.scheme + "://" + candidate().url.authority);
  }
  if (IsRetryable(failure)) {
    const auto longest = std::max(worst_failure_.retry_after, failure.retry_after);
    worst_failure_ = failure;
    worst_failure_.retry_after = longest;
  }
  if (++candidate_index_ < candidates_.size()) {
    BeginCandidate();
    return;
  }
  EndRound();
}

void BlobRequest::EndRound() {
  const auto now = steady_clock::now();
  if (now >= want_.deadline) {
    Finish(MakeStatus(StatusCode::kDeadlineExceeded, StatusMessage(last_error_)));
    return;
  }
  const auto time_left = want_.deadline == Deadline::max()
                             ? milliseconds(std::chrono::hours(24))
                             : std::chrono::duration_cast<milliseconds>(want_.deadline - now);
  const auto delay = RetryDelay(context_->options.retry, attempt_, worst_failure_, time_left,
                                context_->options.random());
  if (!delay.has_value()) {
    Finish(last_error_);
    return;
  }
  ++attempt_;
  ++context_->retries;
  context_->http.RunAt(now + *delay, [self = shared_from_this()](const Status& status) {
    if (status.ok()) {
      self->BeginRound();
    } else {
      self->Finish(status);
    }
  });
}

void BlobRequest::Finish(Status status) {
  EndProbe(/*answered=*/false);
  sink_->OnDone(std::move(status));
}

}  // namespace strata
