// SPDX-License-Identifier: Apache-2.0
//
// BlobRequest: one range or tail of a blob through hosts, tokens, redirects and retries. A state
// machine that lives on the I/O thread of HttpClient alone, and keeps itself alive until it is
// done.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/registry/blob_client.h"
#include "snapshotters/registry/blob_context.h"
#include "snapshotters/registry/token.h"

namespace strata {

// The numbers of "bytes 5-9/20" and "bytes */20"; a total of "*" is none.
struct ContentRange {
  bool unsatisfied = false;  // "bytes */20"
  uint64_t first = 0;
  uint64_t last = 0;
  std::optional<uint64_t> total;
};
std::optional<ContentRange> ParseContentRange(std::string_view value);

class BlobRequest : public HttpSink, public std::enable_shared_from_this<BlobRequest> {
 public:
  struct Want {
    bool suffix = false;  // the last `length` bytes of a blob whose size is not known
    uint64_t offset = 0;
    uint64_t length = 0;
    int priority = 0;
    Deadline deadline = Deadline::max();
  };

  // `sink` gets the bytes; `on_size`, which may be empty, the size of the blob once it is known,
  // before any byte.
  BlobRequest(std::shared_ptr<BlobContext> context, std::shared_ptr<const BlobSource> source,
              const Want& want, std::shared_ptr<RangeSink> sink,
              std::function<void(uint64_t)> on_size);

  void Begin();

  bool OnHead(const HttpResponseHead& head) override;
  bool OnBody(std::string_view bytes) override;
  void OnDone(Status status) override;

 private:
  enum class Phase { kSuffix, kProbe, kRange };
  struct Candidate {
    RegistryHost host;
    Url url;
    bool with_credentials = true;
  };
  // What the request under way has answered.
  struct Answer {
    int http_status = 0;
    bool receiving = false;  // the bytes are those of the blob, from `position` on
    uint64_t position = 0;
    uint64_t ignored = 0;  // bytes of a body that is not the blob's
    bool suffix_cut = false;
    std::string location;
    std::optional<std::string> cache_control;
    std::string www_authenticate;
    std::optional<std::chrono::milliseconds> retry_after;
    Status failure;
  };

  void BeginRound();
  void BeginCandidate();
  void Send();
  StatusOr<std::optional<std::string>> Authorization();
  bool MayAsk();
  void EndProbe(bool answered);
  void AcceptPartial(const HttpResponseHead& head);
  bool AcceptWhole(const HttpResponseHead& head);
  bool SetSize(uint64_t size);
  bool Deliver(std::string_view bytes);
  void HandleAnswer();
  void HandleBody();
  void FollowLocation();
  void Authorize();
  void AskRegistryAgain();
  void Fail(const Status& status, const AttemptFailure& failure);
  void EndRound();
  void Finish(Status status);
  [[nodiscard]] const Candidate& candidate() const { return candidates_[candidate_index_]; }
  [[nodiscard]] bool AtRegistry() const { return target_.SameOrigin(candidate().url); }
  [[nodiscard]] Status Loss(std::string_view what) const;
  [[nodiscard]] static bool SuffixRefused(int http_status);

  const std::shared_ptr<BlobContext> context_;
  const std::shared_ptr<const BlobSource> source_;
  const Want want_;
  const std::shared_ptr<RangeSink> sink_;
  const std::function<void(uint64_t)> on_size_;

  Phase phase_;
  uint64_t size_;      // 0: unknown
  uint64_t next_ = 0;  // the next byte to deliver
  uint64_t left_ = 0;  // bytes still to deliver
  bool size_known_ = false;
  bool ended_by_sink_ = false;
  bool probing_ = false;  // others wait for what the registry answers
  bool waited_ = false;   // for another's probe, once and not again

  std::vector<Candidate> candidates_;
  size_t candidate_index_ = 0;
  int attempt_ = 1;
  Status last_error_;
  AttemptFailure worst_failure_{.http_status = 404};  // of the round: retryable if any was

  // Of the candidate.
  Url target_;
  int redirects_ = 0;
  bool authorized_ = false;
  bool asked_again_ = false;
  TokenKey token_key_;
  std::optional<Credential> credential_;
  std::string sent_authorization_;

  Answer answer_;
};

}  // namespace strata
