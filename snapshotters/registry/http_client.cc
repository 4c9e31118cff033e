// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/registry/http_client.h"

#include <curl/curl.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <deque>
#include <list>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/mutex.h"
#include "snapshotters/registry/url.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kLargestHead = 256 * 1024;
constexpr size_t kLargestCaFile = size_t{4} << 20;
constexpr milliseconds kLongestPoll{60'000};

const char* Name(HttpMethod method) {
  switch (method) {
    case HttpMethod::kGet:
      return "GET";
    case HttpMethod::kHead:
      return "HEAD";
    case HttpMethod::kPost:
      return "POST";
  }
  return "";
}

Status InitOnce() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  return code == CURLE_OK ? OkStatus()
                          : MakeStatus(StatusCode::kFailedPrecondition, "initialize libcurl");
}

// At least 1 where it is in the future: 0 means "none" to curl.
milliseconds Until(Deadline deadline, Deadline now) {
  return std::max(std::chrono::ceil<milliseconds>(deadline - now), milliseconds(1));
}

}  // namespace

std::optional<std::string_view> HttpResponseHead::Find(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) {
      return value;
    }
  }
  return std::nullopt;
}

Status HttpStatusError(HttpMethod method, std::string_view host, int http_status) {
  StatusCode code = StatusCode::kFailedPrecondition;
  if (http_status == 401) {
    code = StatusCode::kUnauthenticated;
  } else if (http_status == 403) {
    code = StatusCode::kPermissionDenied;
  } else if (http_status == 404 || http_status == 410) {
    code = StatusCode::kNotFound;
  } else if (http_status == 416) {
    code = StatusCode::kOutOfRange;
  } else if (http_status == 501) {
    code = StatusCode::kUnimplemented;
  } else if (http_status == 408 || http_status == 429 || http_status >= 500) {
    code = StatusCode::kUnavailable;
  }
  return MakeStatus(code, std::string(Name(method)) + " from '" + std::string(host) +
                              "': HTTP status " + std::to_string(http_status));
}

// One request under way. Lives on the I/O thread.
class Transfer {
 public:
  Transfer(HttpRequest request, std::shared_ptr<HttpSink> sink)
      : request_(std::move(request)), sink_(std::move(sink)) {}
  ~Transfer() {
    curl_easy_cleanup(easy_);
    curl_slist_free_all(header_list_);
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  [[nodiscard]] const HttpRequest& request() const { return request_; }
  [[nodiscard]] const std::string& authority() const { return url_.authority; }
  [[nodiscard]] CURL* easy() const { return easy_; }

  Status ParseTarget() {
    auto url = ParseUrl(request_.url);
    if (!url.ok()) {
      return Annotate(url.status(), Name(request_.method));
    }
    url_ = *std::move(url);
    return OkStatus();
  }

  Status Prepare(const HttpClient::Options& options);
  void Finish(const Status& status) { sink_->OnDone(status); }
  [[nodiscard]] Status Result(CURLcode code) const;
  [[nodiscard]] Status Failure(StatusCode code, std::string_view cause) const {
    return MakeStatus(code, std::string(Name(request_.method)) + " from '" + url_.authority +
                                "': " + std::string(cause));
  }

 private:
  template <typename Value>
  void Set(CURLoption option, Value value) {
    if (setup_ == CURLE_OK) {
      setup_ = curl_easy_setopt(easy_, option, value);
    }
  }
  Status SetTls();
  void AddHeader(const std::string& name, const std::string& value);
  bool HeaderLine(std::string_view line);
  bool Body(std::string_view bytes);

  static size_t OnHeaderLine(char* data, size_t size, size_t count, void* self) {
    const bool more = static_cast<Transfer*>(self)->HeaderLine({data, size * count});
    return more ? size * count : 0;
  }
  static size_t OnBodyBytes(char* data, size_t size, size_t count, void* self) {
    const bool more = static_cast<Transfer*>(self)->Body({data, size * count});
    // Anything but the size ends the transfer, an empty piece too.
    return more ? size * count : size * count + 1;
  }

  HttpRequest request_;
  std::shared_ptr<HttpSink> sink_;
  Url url_;
  CURL* easy_ = nullptr;
  curl_slist* header_list_ = nullptr;
  CURLcode setup_ = CURLE_OK;
  std::array<char, CURL_ERROR_SIZE> error_{};
  HttpResponseHead head_;
  size_t head_bytes_ = 0;
  uint64_t body_bytes_ = 0;
  bool head_done_ = false;
  bool ended_ = false;     // by the sink
  bool too_long_ = false;  // head or body
};

void Transfer::AddHeader(const std::string& name, const std::string& value) {
  // A header that would begin another one is left out: names and values come from configuration
  // and tokens.
  const std::string line = name + ": " + value;
  if (line.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
    return;
  }
  curl_slist* longer = curl_slist_append(header_list_, line.c_str());
  if (longer == nullptr) {
    setup_ = CURLE_OUT_OF_MEMORY;
    return;
  }
  header_list_ = longer;
}

Status Transfer::SetTls() {
  const TlsOptions& tls = request_.tls;
  if (tls.insecure) {
    Set(CURLOPT_SSL_VERIFYPEER, 0L);
    Set(CURLOPT_SSL_VERIFYHOST, 0L);
  }
  if (!tls.client_cert.empty()) {
    Set(CURLOPT_SSLCERT, tls.client_cert.c_str());
    Set(CURLOPT_SSLKEY, tls.client_key.c_str());
  }
  if (tls.ca_files.empty()) {
    return OkStatus();
  }
  // The blob takes the place of the system's bundle; its folder (CURLOPT_CAPATH) stays.
  std::string bundle;
  for (const std::string& path : tls.ca_files) {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(path, O_RDONLY));
    STRATA_ASSIGN_OR_RETURN(const std::string pem, ReadAll(file.get(), path, kLargestCaFile));
    bundle += pem;
    bundle += '\n';
  }
  curl_blob blob{bundle.data(), bundle.size(), CURL_BLOB_COPY};
  Set(CURLOPT_CAINFO_BLOB, &blob);
  return OkStatus();
}

Status Transfer::Prepare(const HttpClient::Options& options) {
  const auto now = steady_clock::now();
  if (request_.deadline <= now) {
    return Failure(StatusCode::kDeadlineExceeded, "the deadline has passed");
  }
  easy_ = curl_easy_init();
  if (easy_ == nullptr) {
    return Failure(StatusCode::kResourceExhausted, "no memory");
  }
  Set(CURLOPT_URL, url_.ToString().c_str());
  Set(CURLOPT_PROTOCOLS_STR, "http,https");
  Set(CURLOPT_PRIVATE, this);
  Set(CURLOPT_ERRORBUFFER, error_.data());
  Set(CURLOPT_NOSIGNAL, 1L);
  Set(CURLOPT_FOLLOWLOCATION, 0L);
  Set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));  // NOLINT: curl's type
  // Rather a stream of a connection that is being made than another connection.
  Set(CURLOPT_PIPEWAIT, url_.scheme == "https" ? 1L : 0L);
  Set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  Set(CURLOPT_BUFFERSIZE, 256L * 1024);
  Set(CURLOPT_TCP_KEEPALIVE, 1L);
  Set(CURLOPT_USERAGENT, options.user_agent.c_str());
  Set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout.count()));  // NOLINT
  Set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  Set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_timeout.count()));  // NOLINT
  if (request_.deadline != Deadline::max()) {
    constexpr milliseconds kLongest = std::chrono::hours(24);
    const milliseconds left = std::min(Until(request_.deadline, now), kLongest);
    Set(CURLOPT_TIMEOUT_MS, static_cast<long>(left.count()));  // NOLINT: curl's type
  }
  Set(CURLOPT_HEADERFUNCTION, &Transfer::OnHeaderLine);
  Set(CURLOPT_HEADERDATA, this);
  Set(CURLOPT_WRITEFUNCTION, &Transfer::OnBodyBytes);
  Set(CURLOPT_WRITEDATA, this);
  if (request_.method == HttpMethod::kHead) {
    Set(CURLOPT_NOBODY, 1L);
  } else if (request_.method == HttpMethod::kPost) {
    Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
    Set(CURLOPT_POSTFIELDS, request_.body.c_str());
  }
  for (const auto& [name, value] : request_.headers) {
    AddHeader(name, value);
  }
  for (const auto& [name, value] : request_.secret_headers) {
    AddHeader(name, value);
  }
  Set(CURLOPT_HTTPHEADER, header_list_);
  STRATA_RETURN_IF_ERROR(SetTls());
  if (setup_ != CURLE_OK) {
    return Failure(StatusCode::kFailedPrecondition, curl_easy_strerror(setup_));
  }
  return OkStatus();
}

bool Transfer::HeaderLine(std::string_view line) {
  head_bytes_ += line.size();
  if (head_bytes_ > kLargestHead) {
    too_long_ = true;
    return false;
  }
  if (head_done_) {
    return true;  // a trailer
  }
  if (line.starts_with("HTTP/")) {
    head_ = HttpResponseHead();
    const size_t blank = std::min(line.find(' '), line.size() - 1);
    for (const char c : line.substr(blank + 1, 3)) {
      head_.status = c >= '0' && c <= '9' ? head_.status * 10 + (c - '0') : 0;
    }
    return true;
  }
  line = TrimBlanks(line);
  if (!line.empty()) {
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos) {
      head_.headers.emplace_back(LowerCase(line.substr(0, colon)),
                                 TrimBlanks(line.substr(colon + 1)));
    }
    return true;
  }
  if (head_.status < 200) {
    return true;  // 100 Continue: another head follows
  }
  head_done_ = true;
  ended_ = !sink_->OnHead(head_);
  return !ended_;
}

bool Transfer::Body(std::string_view bytes) {
  body_bytes_ += bytes.size();
  if (body_bytes_ > request_.max_body) {
    too_long_ = true;
    return false;
  }
  ended_ = !sink_->OnBody(bytes);
  return !ended_;
}

Status Transfer::Result(CURLcode code) const {
  if (ended_) {
    return OkStatus();
  }
  if (too_long_) {
    return Failure(StatusCode::kResourceExhausted, "the answer is longer than allowed");
  }
  switch (static_cast<int>(code)) {
    case CURLE_OK:
      return head_done_ ? OkStatus() : Failure(StatusCode::kUnavailable, "no answer");
    case CURLE_OPERATION_TIMEDOUT:
      if (steady_clock::now() >= request_.deadline) {
        return Failure(StatusCode::kDeadlineExceeded, "the deadline has passed");
      }
      return Failure(StatusCode::kUnavailable, "nothing came for too long");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
      return Failure(StatusCode::kFailedPrecondition,
                     error_[0] != '\0' ? error_.data() : curl_easy_strerror(code));
    default:
      // Curl's own detail may quote what the server said; its fixed texts do not.
      return Failure(StatusCode::kUnavailable, curl_easy_strerror(code));
  }
}

// The I/O thread and what it owns.
class HttpClient::Loop {
 public:
  explicit Loop(const Options& options) : options_(options) {}
  ~Loop() {
    if (thread_.joinable()) {
      {
        const MutexLock lock(mutex_);
        stopping_ = true;
      }
      curl_multi_wakeup(multi_);
      thread_.join();
    }
    curl_multi_cleanup(multi_);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  Status Begin();
  void Start(std::unique_ptr<Transfer> transfer);
  void RunAt(Deadline time, std::function<void(Status)> callback);

 private:
  struct Timer {
    Deadline time;
    std::function<void(Status)> callback;
  };

  void Run();
  bool TakeIncoming();
  void RunTimers();
  void ExpireWaiting();
  void StartWaiting();
  bool MayStart(const Transfer& transfer) const;
  void Launch(std::unique_ptr<Transfer> transfer);
  void Reap();
  void CancelAll();
  [[nodiscard]] int PollMilliseconds() const;

  const Options options_;
  CURLM* multi_ = nullptr;

  Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;  // the thread takes nothing more
  std::vector<std::unique_ptr<Transfer>> new_transfers_ ABSL_GUARDED_BY(mutex_);
  std::vector<Timer> new_timers_ ABSL_GUARDED_BY(mutex_);

  // Of the I/O thread alone.
  std::multimap<Deadline, std::function<void(Status)>> timers_;
  std::map<int, std::list<std::unique_ptr<Transfer>>, std::greater<>> waiting_;  // by priority
  std::map<CURL*, std::unique_ptr<Transfer>> active_;
  std::map<std::string, int> active_per_host_;

  std::thread thread_;
};

Status HttpClient::Loop::Begin() {
  multi_ = curl_multi_init();
  if (multi_ == nullptr) {
    return MakeStatus(StatusCode::kResourceExhausted, "start the HTTP client: no memory");
  }
  curl_multi_setopt(multi_, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_MULTIPLEX));  // NOLINT
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, 64L);
  thread_ = std::thread([this] { Run(); });
  return OkStatus();
}

void HttpClient::Loop::Start(std::unique_ptr<Transfer> transfer) {
  {
    const MutexLock lock(mutex_);
    if (!stopped_) {
      new_transfers_.push_back(std::move(transfer));
    }
  }
  if (transfer != nullptr) {
    transfer->Finish(transfer->Failure(StatusCode::kCancelled, "the client has ended"));
    return;
  }
  curl_multi_wakeup(multi_);
}

void HttpClient::Loop::RunAt(Deadline time, std::function<void(Status)> callback) {
  {
    const MutexLock lock(mutex_);
    if (!stopped_) {
      new_timers_.push_back({time, std::move(callback)});
      callback = nullptr;
    }
  }
  if (callback) {
    callback(MakeStatus(StatusCode::kCancelled, "the HTTP client has ended"));
    return;
  }
  curl_multi_wakeup(multi_);
}

void HttpClient::Loop::Run() {
  while (TakeIncoming()) {
    RunTimers();
    ExpireWaiting();
    StartWaiting();
    int running = 0;
    curl_multi_perform(multi_, &running);
    Reap();
    // What the callbacks have started goes out before the wait; it has woken the poll as well.
    curl_multi_poll(multi_, nullptr, 0, PollMilliseconds(), nullptr);
  }
  CancelAll();
}

bool HttpClient::Loop::TakeIncoming() {
  std::vector<std::unique_ptr<Transfer>> transfers;
  std::vector<Timer> timers;
  bool stopping = false;
  {
    const MutexLock lock(mutex_);
    transfers.swap(new_transfers_);
    timers.swap(new_timers_);
    stopping = stopping_;
  }
  for (auto& transfer : transfers) {
    const int priority = transfer->request().priority;
    waiting_[priority].push_back(std::move(transfer));
  }
  for (Timer& timer : timers) {
    timers_.emplace(timer.time, std::move(timer.callback));
  }
  return !stopping;
}

void HttpClient::Loop::RunTimers() {
  const auto now = steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    const auto callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    callback(OkStatus());
  }
}

void HttpClient::Loop::ExpireWaiting() {
  const auto now = steady_clock::now();
  for (auto& [priority, queue] : waiting_) {
    for (auto it = queue.begin(); it != queue.end();) {
      if ((*it)->request().deadline > now) {
        ++it;
        continue;
      }
      const std::unique_ptr<Transfer> late = std::move(*it);
      it = queue.erase(it);
      late->Finish(late->Failure(StatusCode::kDeadlineExceeded, "the deadline has passed"));
    }
  }
}

bool HttpClient::Loop::MayStart(const Transfer& transfer) const {
  const auto found = active_per_host_.find(transfer.authority());
  const int active = found == active_per_host_.end() ? 0 : found->second;
  const int reserved = transfer.request().priority > 0 ? 0 : options_.reserved_per_host;
  return active < std::max(options_.requests_per_host - reserved, 1);
}

void HttpClient::Loop::StartWaiting() {
  for (auto& [priority, queue] : waiting_) {
    for (auto it = queue.begin(); it != queue.end();) {
      if (MayStart(**it)) {
        std::unique_ptr<Transfer> transfer = std::move(*it);
        it = queue.erase(it);
        Launch(std::move(transfer));
      } else {
        ++it;
      }
    }
  }
}

void HttpClient::Loop::Launch(std::unique_ptr<Transfer> transfer) {
  Status ready = transfer->Prepare(options_);
  if (ready.ok() && curl_multi_add_handle(multi_, transfer->easy()) != CURLM_OK) {
    ready = transfer->Failure(StatusCode::kResourceExhausted, "no memory");
  }
  if (!ready.ok()) {
    transfer->Finish(ready);
    return;
  }
  ++active_per_host_[transfer->authority()];
  CURL* const easy = transfer->easy();
  active_.emplace(easy, std::move(transfer));
}

void HttpClient::Loop::Reap() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) {
      continue;
    }
    const CURLcode code = message->data.result;
    const auto found = active_.find(message->easy_handle);
    const std::unique_ptr<Transfer> transfer = std::move(found->second);
    active_.erase(found);
    curl_multi_remove_handle(multi_, transfer->easy());
    const auto host = active_per_host_.find(transfer->authority());
    if (--host->second == 0) {
      active_per_host_.erase(host);
    }
    transfer->Finish(transfer->Result(code));
  }
}

void HttpClient::Loop::CancelAll() {
  // A cancelled request may start the next one or a timer: until nothing comes any more.
  while (true) {
    (void)TakeIncoming();  // stopping_ stays set
    const bool idle = active_.empty() && timers_.empty() &&
                      std::all_of(waiting_.begin(), waiting_.end(),
                                  [](const auto& entry) { return entry.second.empty(); });
    if (idle) {
      const MutexLock lock(mutex_);
      if (new_transfers_.empty() && new_timers_.empty()) {
        stopped_ = true;
        return;
      }
      continue;
    }
    auto waiting = std::exchange(waiting_, {});
    auto active = std::exchange(active_, {});
    auto timers = std::exchange(timers_, {});
    for (auto& [easy, transfer] : active) {
      curl_multi_remove_handle(multi_, easy);
      transfer->Finish(transfer->Failure(StatusCode::kCancelled, "the client has ended"));
    }
    for (auto& [priority, queue] : waiting) {
      for (const auto& transfer : queue) {
        transfer->Finish(transfer->Failure(StatusCode::kCancelled, "the client has ended"));
      }
    }
    for (const auto& [time, callback] : timers) {
      callback(MakeStatus(StatusCode::kCancelled, "the HTTP client has ended"));
    }
  }
}

int HttpClient::Loop::PollMilliseconds() const {
  const auto now = steady_clock::now();
  Deadline next = now + kLongestPoll;
  if (!timers_.empty()) {
    next = std::min(next, timers_.begin()->first);
  }
  for (const auto& [priority, queue] : waiting_) {
    for (const auto& transfer : queue) {
      // One that may start now: a place has become free after the last look.
      next = MayStart(*transfer) ? now : std::min(next, transfer->request().deadline);
    }
  }
  // curl_multi_poll itself wakes for curl's own timeouts.
  return next <= now ? 0 : static_cast<int>(Until(next, now).count());
}

HttpClient::HttpClient(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
HttpClient::~HttpClient() = default;

StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(const Options& options) {
  STRATA_RETURN_IF_ERROR(InitOnce());
  auto loop = std::make_unique<Loop>(options);
  STRATA_RETURN_IF_ERROR(loop->Begin());
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(loop)));
}

void HttpClient::Start(HttpRequest request, std::shared_ptr<HttpSink> sink) {
  auto transfer = std::make_unique<Transfer>(std::move(request), sink);
  const Status valid = transfer->ParseTarget();
  if (!valid.ok()) {
    // Not from here: the caller may hold what OnDone takes.
    RunAt(Deadline(),
          [sink = std::move(sink), valid](const Status& /*time*/) { sink->OnDone(valid); });
    return;
  }
  loop_->Start(std::move(transfer));
}

void HttpClient::RunAt(Deadline time, std::function<void(Status)> callback) {
  loop_->RunAt(time, std::move(callback));
}

namespace {

class CollectingSink : public HttpSink {
 public:
  bool OnHead(const HttpResponseHead& head) override {
    response_.head = head;
    return true;
  }
  bool OnBody(std::string_view bytes) override {
    response_.body += bytes;
    return true;
  }
  void OnDone(Status status) override {
    const MutexLock lock(mutex_);
    status_ = std::move(status);
    done_ = true;
    changed_.SignalAll();
  }
  StatusOr<HttpResponse> Wait() {
    const MutexLock lock(mutex_);
    while (!done_) {
      changed_.Wait(mutex_);
    }
    if (!status_.ok()) {
      return status_;
    }
    return std::move(response_);
  }

 private:
  HttpResponse response_;  // the I/O thread's until done_
  Mutex mutex_;
  CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

StatusOr<HttpResponse> HttpClient::Fetch(HttpRequest request) {
  const auto sink = std::make_shared<CollectingSink>();
  Start(std::move(request), sink);
  return sink->Wait();
}

}  // namespace strata
