// SPDX-License-Identifier: Apache-2.0
//
// BlobContext: what all blobs of a BlobClient share: tokens, redirect targets, which hosts have
// failed, and who is finding out how a registry wants to be asked. All but the counters belongs to
// the I/O thread of HttpClient.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "snapshotters/registry/blob_client.h"
#include "snapshotters/registry/token.h"
#include "snapshotters/registry/url.h"

namespace strata {

class BlobContext {
 public:
  BlobContext(BlobClient::Options options, CredentialSource& credentials, HttpClient& http);

  const BlobClient::Options options;
  CredentialSource& credentials;
  HttpClient& http;
  TokenBroker tokens;

  // The target of a registry's redirect while it may be used.
  std::optional<Url> RedirectOf(const std::string& registry_url);
  void KeepRedirect(const std::string& registry_url, const Url& target,
                    std::chrono::seconds lifetime);
  void DropRedirect(const std::string& registry_url) { redirects_.erase(registry_url); }

  // How a registry wants to be asked is found out by the first request, for all that would ask it
  // the same way. True: go ahead, and call EndProbe once an answer is there or none will be. False:
  // somebody else is finding out, and `go` is called when that has ended, or has taken too long.
  bool BeginProbe(const TokenKey& key, std::function<void()> go);
  void EndProbe(const TokenKey& key, bool answered);

  void NoteFailure(const std::string& origin);
  void NoteSuccess(const std::string& origin) { failed_until_.erase(origin); }
  [[nodiscard]] bool IsResting(const std::string& origin) const;

  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> retries{0};
  std::atomic<uint64_t> redirects{0};
  std::atomic<uint64_t> token_requests{0};

 private:
  struct KeptRedirect {
    Url target;
    Deadline expires;
  };
  // Who waits for a probe; emptied by the call.
  using Waiter = std::shared_ptr<std::function<void()>>;

  std::map<std::string, KeptRedirect> redirects_;
  std::map<std::string, Deadline> failed_until_;
  std::set<TokenKey> probed_;
  std::map<TokenKey, std::vector<Waiter>> probes_;
};

}  // namespace strata
