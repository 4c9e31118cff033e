// SPDX-License-Identifier: Apache-2.0
//
// TokenBroker: the Authorization header for a registry, by its challenge: one token request however
// many requests wait for it. Used on the I/O thread of HttpClient alone. Also what a
// WWW-Authenticate says (pure).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/status.h"
#include "snapshotters/registry/credentials.h"
#include "snapshotters/registry/http_client.h"

namespace strata {

struct Challenge {
  enum class Scheme { kBasic, kBearer };
  Scheme scheme = Scheme::kBasic;
  std::string realm;
  std::string service;
  std::string scope;
};

// The challenges of one WWW-Authenticate value that we can answer, in their order. What does not
// parse is left out.
std::vector<Challenge> ParseChallenges(std::string_view header);

struct Token {
  std::string value;
  std::chrono::seconds lifetime{60};  // the specification's default
};

// The JSON answer of a token server. InvalidArgument never quotes it.
StatusOr<Token> ParseToken(std::string_view json);

// Who asks which host for what: tokens are kept by this.
struct TokenKey {
  std::string origin;  // scheme://host[:port] of the registry
  std::string scope;   // repository:NAME:pull
  std::string credential_fingerprint;

  auto operator<=>(const TokenKey&) const = default;
};

// Of nothing, or a hash that does not give the secret away.
std::string CredentialFingerprint(const std::optional<Credential>& credential);

class TokenBroker {
 public:
  using Callback = std::function<void(StatusOr<std::string>)>;

  // `http` must outlive this. `request_timeout` is of one token request, whoever waits for it.
  TokenBroker(HttpClient& http, std::chrono::milliseconds request_timeout)
      : http_(http), request_timeout_(request_timeout) {}

  // The header value that is still valid, if any.
  std::optional<std::string> Cached(const TokenKey& key);

  // A new header value after a 401 to a request that had carried `rejected` (empty: none). Joins a
  // request that is under way. The callback comes once, on the I/O thread: Unauthenticated or
  // PermissionDenied (the token server says no), DeadlineExceeded (the caller's own), Unavailable,
  // FailedPrecondition (a challenge that cannot be answered).
  void Renew(const TokenKey& key, std::string_view www_authenticate,
             const std::optional<Credential>& credential, const TlsOptions& tls,
             std::string_view rejected, Deadline deadline, Callback callback);

  [[nodiscard]] uint64_t requests() const { return state_->requests; }

 private:
  struct Entry {
    std::string header;
    Deadline expires = Deadline::max();
  };
  struct Waiter {
    Callback callback;  // empty: has been called
  };
  // Outlives the broker while requests are under way.
  struct State {
    std::map<TokenKey, Entry> entries;
    std::map<TokenKey, std::vector<std::shared_ptr<Waiter>>> waiters;
    uint64_t requests = 0;

    void Settle(const TokenKey& key, const StatusOr<Token>& token);
  };
  class Sink;

  void Wait(const TokenKey& key, Deadline deadline, Callback callback);

  HttpClient& http_;
  const std::chrono::milliseconds request_timeout_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace strata
