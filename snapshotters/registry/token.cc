// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/token.h"

#include <absl/strings/escaping.h>
#include <absl/strings/string_view.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "snapshotters/base/digest.h"
#include "snapshotters/registry/url.h"

namespace strata {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kLongestLifetime{24 * 60 * 60};
constexpr size_t kMostEntries = 4096;

// The parts of a WWW-Authenticate value: tokens, quoted strings, commas and equals signs.
class ChallengeScanner {
 public:
  explicit ChallengeScanner(std::string_view text) : text_(text) {}

  void Skip(std::string_view characters) {
    text_.remove_prefix(std::min(text_.find_first_not_of(characters), text_.size()));
  }
  std::string_view TokenText() {
    const std::string_view token = text_.substr(0, text_.find_first_of(" \t,=\""));
    text_.remove_prefix(token.size());
    return token;
  }
  bool Take(char c) {
    if (text_.empty() || text_.front() != c) {
      return false;
    }
    text_.remove_prefix(1);
    return true;
  }
  std::string Value() {
    if (!Take('"')) {
      return std::string(TokenText());
    }
    std::string value;
    while (!text_.empty() && !Take('"')) {
      if (Take('\\') && text_.empty()) {
        break;
      }
      value += text_.front();
      text_.remove_prefix(1);
    }
    return value;
  }
  [[nodiscard]] bool done() const { return text_.empty(); }
  void Drop() { text_ = {}; }

 private:
  std::string_view text_;
};

void SetParameter(Challenge& challenge, std::string_view name, std::string value) {
  if (EqualsIgnoreCase(name, "realm")) {
    challenge.realm = std::move(value);
  } else if (EqualsIgnoreCase(name, "service")) {
    challenge.service = std::move(value);
  } else if (EqualsIgnoreCase(name, "scope")) {
    challenge.scope = std::move(value);
  }
}

std::string Base64(std::string_view bytes) {
  std::string encoded;
  absl::Base64Escape(absl::string_view(bytes.data(), bytes.size()), &encoded);
  return encoded;
}

std::string BasicHeader(const Credential& credential) {
  return "Basic " + Base64(credential.username + ":" + credential.secret);
}

StatusOr<HttpRequest> TokenRequest(const Challenge& challenge, const std::string& default_scope,
                                   const std::optional<Credential>& credential,
                                   const std::string& origin) {
  auto realm = ParseUrl(challenge.realm);
  if (!realm.ok()) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "'" + origin + "' names a token server that is no URL");
  }
  if (realm->scheme == "http" && !origin.starts_with("http:") && !IsLoopback(realm->authority)) {
    return MakeStatus(StatusCode::kFailedPrecondition,
                      "'" + origin + "' names a token server without https");
  }
  const std::string& scope = challenge.scope.empty() ? default_scope : challenge.scope;
  HttpRequest request;
  if (credential.has_value() && !credential->identity_token.empty()) {
    request.method = HttpMethod::kPost;
    request.headers.emplace_back("Content-Type", "application/x-www-form-urlencoded");
    request.body = "grant_type=refresh_token&service=" + PercentEncode(challenge.service) +
                   "&scope=" + PercentEncode(scope) +
                   "&client_id=strata&refresh_token=" + PercentEncode(credential->identity_token);
  } else {
    std::string query = realm->query;
    query += query.empty() ? "" : "&";
    if (!challenge.service.empty()) {
      query += "service=" + PercentEncode(challenge.service) + "&";
    }
    realm->query = query + "scope=" + PercentEncode(scope);
    if (credential.has_value()) {
      request.secret_headers.emplace_back("Authorization", BasicHeader(*credential));
    }
  }
  request.url = realm->ToString();
  return request;
}

}  // namespace

std::vector<Challenge> ParseChallenges(std::string_view header) {
  std::vector<Challenge> challenges;
  ChallengeScanner scanner(header);
  bool known = false;  // the scheme whose parameters follow is one of ours
  while (true) {
    scanner.Skip(" \t,");
    if (scanner.done()) {
      return challenges;
    }
    const std::string_view name = scanner.TokenText();
    if (name.empty()) {
      return challenges;  // not the grammar
    }
    scanner.Skip(" \t");
    if (scanner.Take('=')) {
      scanner.Skip(" \t");
      std::string value = scanner.Value();
      if (known) {
        SetParameter(challenges.back(), name, std::move(value));
      }
      continue;
    }
    known = EqualsIgnoreCase(name, "bearer") || EqualsIgnoreCase(name, "basic");
    if (known) {
      challenges.emplace_back();
      challenges.back().scheme =
          EqualsIgnoreCase(name, "bearer") ? Challenge::Scheme::kBearer : Challenge::Scheme::kBasic;
    }
  }
}

StatusOr<Token> ParseToken(std::string_view json) {
  const nlohmann::json root = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  Token token;
  if (root.is_object()) {
    for (const char* key : {"access_token", "token"}) {
      const auto found = root.find(key);
      if (found != root.end() && found->is_string() &&
          !found->get_ref<const std::string&>().empty()) {
        token.value = found->get<std::string>();
      }
    }
    const auto expires = root.find("expires_in");
    if (expires != root.end() && expires->is_number_integer() && expires->get<int64_t>() > 0) {
      token.lifetime = std::min(
          seconds(std::min(expires->get<int64_t>(), kLongestLifetime.count())), kLongestLifetime);
    }
  }
  if (token.value.empty() ||
      std::any_of(token.value.begin(), token.value.end(), [](char c) { return c <= ' '; })) {
    return MakeStatus(StatusCode::kInvalidArgument, "no token in the answer of the token server");
  }
  return token;
}

std::string CredentialFingerprint(const std::optional<Credential>& credential) {
  if (!credential.has_value()) {
    return "";
  }
  // Lengths in front, so that no two divisions of the same text are the same.
  const std::string text = std::to_string(credential->username.size()) + ":" +
                           std::to_string(credential->secret.size()) + ":" + credential->username +
                           credential->secret + credential->identity_token;
  const Sha256Digest digest = Sha256(text);
  return std::string(reinterpret_cast<const char*>(digest.data()), digest.size());
}

class TokenBroker::Sink : public HttpSink {
 public:
  Sink(std::shared_ptr<State> state, TokenKey key, HttpMethod method, std::string host)
      : state_(std::move(state)), key_(std::move(key)), method_(method), host_(std::move(host)) {}

  bool OnHead(const HttpResponseHead& head) override {
    http_status_ = head.status;
    return true;
  }
  bool OnBody(std::string_view bytes) override {
    body_ += bytes;
    return true;
  }
  void OnDone(Status status) override {
    if (status.code() == StatusCode::kDeadlineExceeded) {
      // Not the deadline of those that wait.
      status = MakeStatus(StatusCode::kUnavailable, StatusMessage(status));
    }
    if (status.ok() && http_status_ != 200) {
      status = HttpStatusError(method_, host_, http_status_);
    }
    if (!status.ok()) {
      state_->Settle(key_, Annotate(status, "get a token"));
      return;
    }
    auto token = ParseToken(body_);
    if (!token.ok()) {
      token = MakeStatus(
          StatusCode::kFailedPrecondition,
          "get a token from '" + host_ + "': " + std::string(StatusMessage(token.status())));
    }
    state_->Settle(key_, token);
  }

 private:
  const std::shared_ptr<State> state_;
  const TokenKey key_;
  const HttpMethod method_;
  const std::string host_;
  int http_status_ = 0;
  std::string body_;
};

void TokenBroker::State::Settle(const TokenKey& key, const StatusOr<Token>& token) {
  StatusOr<std::string> header = std::string();
  if (!token.ok()) {
    header = token.status();
  } else {
    header = "Bearer " + token->value;
    // A token that ends while its request travels is of no use.
    const seconds slack = std::max(seconds(1), std::min(seconds(30), token->lifetime / 10));
    if (entries.size() >= kMostEntries) {
      entries.clear();
    }
    entries[key] = {*header, steady_clock::now() + token->lifetime - slack};
  }
  const auto found = waiters.find(key);
  if (found == waiters.end()) {
    return;
  }
  const auto waiting = std::move(found->second);
  waiters.erase(found);
  for (const auto& waiter : waiting) {
    if (const Callback callback = std::exchange(waiter->callback, nullptr)) {
      callback(header);
    }
  }
}

std::optional<std::string> TokenBroker::Cached(const TokenKey& key) {
  const auto found = state_->entries.find(key);
  if (found == state_->entries.end()) {
    return std::nullopt;
  }
  if (found->second.expires <= steady_clock::now()) {
    state_->entries.erase(found);
    return std::nullopt;
  }
  return found->second.header;
}

void TokenBroker::Wait(const TokenKey& key, Deadline deadline, Callback callback) {
  auto waiter = std::make_shared<Waiter>();
  waiter->callback = std::move(callback);
  state_->waiters[key].push_back(waiter);
  if (deadline == Deadline::max()) {
    return;
  }
  http_.RunAt(deadline, [waiter](const Status& status) {
    if (const Callback late = std::exchange(waiter->callback, nullptr)) {
      late(status.ok()
               ? MakeStatus(StatusCode::kDeadlineExceeded, "get a token: the deadline has passed")
               : status);
    }
  });
}

void TokenBroker::Renew(const TokenKey& key, std::string_view www_authenticate,
                        const std::optional<Credential>& credential, const TlsOptions& tls,
                        std::string_view rejected, Deadline deadline, Callback callback) {
  const auto cached = Cached(key);
  if (cached.has_value() && *cached != rejected) {
    callback(*cached);  // another request has got it in the meantime
    return;
  }
  state_->entries.erase(key);
  if (state_->waiters.contains(key)) {
    Wait(key, deadline, std::move(callback));
    return;
  }
  const std::vector<Challenge> challenges = ParseChallenges(www_authenticate);
  const auto bearer = std::find_if(challenges.begin(), challenges.end(), [](const Challenge& c) {
    return c.scheme == Challenge::Scheme::kBearer;
  });
  if (bearer == challenges.end()) {
    const bool usable =
        !challenges.empty() && credential.has_value() && !credential->secret.empty();
    const std::string header = usable ? BasicHeader(*credential) : "";
    if (!usable || header == rejected) {
      callback(MakeStatus(StatusCode::kUnauthenticated,
                          "'" + key.origin + "' asks for credentials" +
                              (usable ? ", and ours are wrong" : ", and we have none")));
      return;
    }
    state_->entries[key] = {header, Deadline::max()};
    callback(header);
    return;
  }
  auto request = TokenRequest(*bearer, key.scope, credential, key.origin);
  if (!request.ok()) {
    callback(request.status());
    return;
  }
  request->tls = tls;
  request->deadline = steady_clock::now() + request_timeout_;
  request->priority = 3;  // others wait for it
  const auto realm = ParseUrl(request->url);
  Wait(key, deadline, std::move(callback));
  ++state_->requests;
  const HttpMethod method = request->method;
  http_.Start(*std::move(request),
              std::make_shared<Sink>(state_, key, method, realm.ok() ? realm->authority : ""));
}

}  // namespace strata
