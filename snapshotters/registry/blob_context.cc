// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/blob_context.h"

#include <utility>

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kMostKept = 4096;
constexpr milliseconds kTokenTimeout{30'000};
// A registry that takes longer to answer is not waited for twice.
constexpr milliseconds kLongestProbe{2'000};

}  // namespace

BlobContext::BlobContext(BlobClient::Options options_in, CredentialSource& credentials_in,
                         HttpClient& http_in)
    : options(std::move(options_in)),
      credentials(credentials_in),
      http(http_in),
      tokens(http_in, kTokenTimeout) {}

std::optional<Url> BlobContext::RedirectOf(const std::string& registry_url) {
  const auto found = redirects_.find(registry_url);
  if (found == redirects_.end()) {
    return std::nullopt;
  }
  if (found->second.expires <= steady_clock::now()) {
    redirects_.erase(found);
    return std::nullopt;
  }
  return found->second.target;
}

void BlobContext::KeepRedirect(const std::string& registry_url, const Url& target,
                               std::chrono::seconds lifetime) {
  if (lifetime.count() == 0) {
    redirects_.erase(registry_url);
    return;
  }
  if (redirects_.size() >= kMostKept) {
    redirects_.clear();
  }
  redirects_[registry_url] = {target, steady_clock::now() + lifetime};
}

bool BlobContext::BeginProbe(const TokenKey& key, std::function<void()> go) {
  if (probed_.contains(key)) {
    return true;
  }
  const auto [probe, first] = probes_.try_emplace(key);
  if (first) {
    return true;
  }
  const auto waiter = std::make_shared<std::function<void()>>(std::move(go));
  probe->second.push_back(waiter);
  http.RunAt(steady_clock::now() + kLongestProbe, [waiter](const Status& /*time or end*/) {
    if (*waiter) {
      std::exchange(*waiter, nullptr)();
    }
  });
  return false;
}

void BlobContext::EndProbe(const TokenKey& key, bool answered) {
  if (answered) {
    if (probed_.size() >= kMostKept) {
      probed_.clear();
    }
    probed_.insert(key);
  }
  const auto probe = probes_.extract(key);
  if (probe.empty()) {
    return;
  }
  for (const Waiter& waiter : probe.mapped()) {
    if (*waiter) {
      std::exchange(*waiter, nullptr)();
    }
  }
}

void BlobContext::NoteFailure(const std::string& origin) {
  if (failed_until_.size() >= kMostKept) {
    failed_until_.clear();
  }
  failed_until_[origin] = steady_clock::now() + options.failed_host_rest;
}

bool BlobContext::IsResting(const std::string& origin) const {
  const auto found = failed_until_.find(origin);
  return found != failed_until_.end() && found->second > steady_clock::now();
}

}  // namespace strata
