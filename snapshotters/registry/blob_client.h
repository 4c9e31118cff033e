// SPDX-License-Identifier: Apache-2.0
//
// BlobClient: ranges of blobs from registries, mirrors and where they redirect to. Everything here
// may be called from any thread; all callbacks come on the I/O thread of HttpClient and must not
// block it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshotters/base/clock.h"
#include "snapshotters/base/status.h"
#include "snapshotters/registry/credentials.h"
#include "snapshotters/registry/hosts.h"
#include "snapshotters/registry/http_client.h"
#include "snapshotters/registry/reference.h"
#include "snapshotters/registry/retry.h"

namespace strata {

struct BlobSource {
  Reference reference;
  std::string digest;
  // Not a blob but this manifest of the repository: a tag or a digest. `digest` is not looked at.
  std::string manifest;
  // Of manifests: an index of several platforms' will do, too.
  bool accepts_index = false;
  // A long transfer: only its caller's deadline and HttpClient's stall_timeout end it, not the
  // request_timeout of a host.
  bool is_long = false;
  uint64_t size = 0;  // 0: unknown
  // Further places, tried after the registry without credentials; https or loopback only.
  std::vector<std::string> urls;
};

struct BlobTail {
  uint64_t blob_size = 0;
  std::string bytes;  // the last ones, all of them when the blob is shorter than asked for
};

// Who waits: later ones give way where requests wait for a connection.
enum class FetchClass { kOnDemand, kResolve, kPrefetch, kBackground };

class RangeSink {
 public:
  virtual ~RangeSink() = default;
  // Whose bytes come next: host[:port] of the registry, or of where it redirects to.
  virtual void OnHost(std::string_view /*host*/) {}
  // `offset` is the blob's; pieces come in order and without gaps, each byte once. False ends the
  // request with OnDone(Cancelled). Bytes are what the server sent: the caller verifies them.
  virtual bool OnData(uint64_t offset, std::string_view bytes) = 0;
  // Once, the last call. OK: the whole range was delivered. DeadlineExceeded; DataLoss (a server
  // that answered another range or another length than asked for); NotFound; Unauthenticated and
  // PermissionDenied; Unavailable; Unimplemented (no ranges); OutOfRange; InvalidArgument. Errors
  // name the host, never path, query or secrets.
  virtual void OnDone(Status status) = 0;
};

class Blob {
 public:
  virtual ~Blob() = default;
  // The last `bytes` bytes and the size of the blob, in one request where the server can: a suffix
  // range, or, for a server that cannot, its size and an explicit range.
  virtual void FetchTail(uint64_t bytes, Deadline deadline,
                         std::function<void(StatusOr<BlobTail>)> callback) = 0;
  // Retries continue behind the bytes already delivered. An answer of the whole blob is read up to
  // the range if that is near, and cut off behind it.
  virtual void FetchRange(uint64_t offset, uint64_t length, FetchClass fetch_class,
                          Deadline deadline, std::shared_ptr<RangeSink> sink) = 0;
};

class BlobClient {
 public:
  struct Options {
    HostsConfig hosts;
    RetryOptions retry;
    // A host that failed is asked after the others for so long.
    std::chrono::milliseconds failed_host_rest{30'000};
    std::function<double()> random;   // [0, 1); empty: the machine's
    Clock* clock = &Clock::System();  // for dates in headers and signatures
  };
  struct Counters {
    uint64_t requests = 0;  // to registries and redirect targets
    uint64_t bytes = 0;     // delivered
    uint64_t retries = 0;   // rounds over the hosts after the first
    uint64_t redirects = 0;
    uint64_t token_requests = 0;
  };

  // `credentials` and `http` must outlive this and every Blob. InvalidArgument: options.
  static StatusOr<std::unique_ptr<BlobClient>> Create(const Options& options,
                                                      CredentialSource& credentials,
                                                      HttpClient& http);
  ~BlobClient();
  BlobClient(const BlobClient&) = delete;
  BlobClient& operator=(const BlobClient&) = delete;

  // Asks nobody yet. A source that is not valid (digest, names) fails each fetch.
  std::shared_ptr<Blob> Open(BlobSource source);

  [[nodiscard]] Counters counters() const;

 private:
  explicit BlobClient(std::shared_ptr<class BlobContext> context);

  std::shared_ptr<BlobContext> context_;
};

}  // namespace strata
