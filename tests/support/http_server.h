// SPDX-License-Identifier: Apache-2.0
//
// HttpServer: HTTP/1.1 on a loopback port of the kernel's choice, answered by a function of the
// test. For tests only. The handler runs on the server's threads, one per connection.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace strata::testing {

struct ServerRequest {
  std::string method;
  std::string target;                          // path and query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;

  [[nodiscard]] std::string Header(const std::string& name) const;
};

struct ServerReply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  // Content-Length says the length of `body` anyway, then the connection is cut.
  std::optional<size_t> cut_after;
  bool stall = false;          // nothing is sent until the server ends
  bool content_length = true;  // false: the end of the connection ends the body
};

class HttpServer {
 public:
  using Handler = std::function<ServerReply(const ServerRequest&)>;

  explicit HttpServer(Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  [[nodiscard]] std::string url() const { return "http://" + host(); }
  [[nodiscard]] std::vector<ServerRequest> requests();
  [[nodiscard]] size_t connections();

  // The reply of a server with ranges to `request`, of `content`; 416 when it lies outside.
  static ServerReply Range(const ServerRequest& request, const std::string& content);

 private:
  void Accept();
  void Serve(int fd);
  // False: the connection is to end.
  bool Answer(int fd, const ServerRequest& request);

  const Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  int stop_[2] = {-1, -1};  // a pipe: readable when the server ends
  std::mutex mutex_;
  std::vector<int> fds_;
  std::vector<std::thread> threads_;
  std::vector<ServerRequest> requests_;
  std::thread acceptor_;
};

}  // namespace strata::testing
