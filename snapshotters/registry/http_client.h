// SPDX-License-Identifier: Apache-2.0
//
// HttpClient: all HTTP of the process over one I/O thread and one pool of connections (libcurl's
// multi interface). HTTP/2 where TLS offers it, HTTP/1.1 otherwise, keep-alive, proxies by the
// environment, no redirect followed. Start, Fetch and RunAt are safe from any thread; all callbacks
// come on the I/O thread and must not block it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/registry/hosts.h"

namespace strata {

using Deadline = std::chrono::steady_clock::time_point;

enum class HttpMethod { kGet, kHead, kPost };

struct HttpRequest {
  std::string url;
  HttpMethod method = HttpMethod::kGet;
  HttpHeaders headers;
  HttpHeaders secret_headers;  // sent like the others, shown nowhere
  std::string body;            // of a POST
  Deadline deadline = Deadline::max();
  uint64_t max_body = uint64_t{1} << 20;  // a longer answer ends with ResourceExhausted
  TlsOptions tls;
  int priority = 0;  // higher goes first where requests wait for a connection
};

struct HttpResponseHead {
  int status = 0;
  HttpHeaders headers;  // in their order, names in lower case

  // The first value of the name (in lower case).
  [[nodiscard]] std::optional<std::string_view> Find(std::string_view name) const;
};

struct HttpResponse {
  HttpResponseHead head;
  std::string body;
};

class HttpSink {
 public:
  virtual ~HttpSink() = default;
  // Once, before any body; false ends the request, which is then done with OK.
  virtual bool OnHead(const HttpResponseHead& head) = 0;
  virtual bool OnBody(std::string_view bytes) = 0;
  // Exactly once, the last call. OK: an answer came whole, of whatever HTTP status, or the sink
  // ended it. DeadlineExceeded, Unavailable (refused, reset, cut off, stalled), ResourceExhausted
  // (max_body), InvalidArgument (URL), FailedPrecondition (certificates), Cancelled (the client
  // ends). Texts name method, host and cause; never path, query or headers.
  virtual void OnDone(Status status) = 0;
};

class HttpClient {
 public:
  struct Options {
    std::chrono::milliseconds connect_timeout{10'000};
    // An answer of which nothing comes for so long is given up; whole seconds.
    std::chrono::seconds stall_timeout{15};
    int requests_per_host = 16;  // so many connections at most with HTTP/1.1
    int reserved_per_host = 4;   // of these, for requests of a priority above 0
    std::string user_agent = "strata";
  };

  static StatusOr<std::unique_ptr<HttpClient>> Create(const Options& options);

  // Ends all requests and timers with Cancelled and joins the thread. Not from a callback.
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // After the end of the client has begun: OnDone(Cancelled), on the calling thread.
  void Start(HttpRequest request, std::shared_ptr<HttpSink> sink);

  // Calls with OK on the I/O thread at `time` (past: as soon as possible), or with Cancelled when
  // the client ends first.
  void RunAt(Deadline time, std::function<void(Status)> callback);

  // Start and wait. Not on the I/O thread.
  StatusOr<HttpResponse> Fetch(HttpRequest request);

 private:
  class Loop;
  explicit HttpClient(std::unique_ptr<Loop> loop);

  std::unique_ptr<Loop> loop_;
};

// The Status of an answer that is not what was asked for: Unauthenticated 401, PermissionDenied
// 403, NotFound 404 and 410, OutOfRange 416, Unavailable 408, 429 and 5xx, Unimplemented 501, else
// FailedPrecondition.
Status HttpStatusError(HttpMethod method, std::string_view host, int http_status);

}  // namespace strata
