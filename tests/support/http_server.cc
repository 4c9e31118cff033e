// SPDX-License-Identifier: Apache-2.0
#include "tests/support/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace strata::testing {
namespace {

std::string Lower(std::string text) {
  for (char& c : text) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return text;
}

bool SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

ServerRequest ParseHead(const std::string& head) {
  ServerRequest request;
  const size_t line_end = head.find("\r\n");
  const std::string line = head.substr(0, line_end);
  const size_t first = line.find(' ');
  const size_t second = line.find(' ', first + 1);
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, second - first - 1);
  size_t at = line_end + 2;
  while (at < head.size()) {
    const size_t end = head.find("\r\n", at);
    const std::string header = head.substr(at, end - at);
    const size_t colon = header.find(':');
    if (colon == std::string::npos) {
      break;
    }
    const size_t value = header.find_first_not_of(' ', colon + 1);
    request.headers[Lower(header.substr(0, colon))] =
        value == std::string::npos ? "" : header.substr(value);
    at = end + 2;
  }
  return request;
}

}  // namespace

std::string ServerRequest::Header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HttpServer::HttpServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (listener_ < 0 || pipe2(stop_, O_CLOEXEC) != 0 ||
      bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

HttpServer::~HttpServer() {
  (void)!write(stop_[1], "x", 1);
  acceptor_.join();
  {
    const std::lock_guard lock(mutex_);
    for (const int fd : fds_) {
      shutdown(fd, SHUT_RDWR);
    }
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
  for (const int fd : fds_) {
    close(fd);
  }
  close(listener_);
  close(stop_[0]);
  close(stop_[1]);
}

std::vector<ServerRequest> HttpServer::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

size_t HttpServer::connections() {
  const std::lock_guard lock(mutex_);
  return fds_.size();
}

void HttpServer::Accept() {
  while (true) {
    pollfd fds[2] = {{listener_, POLLIN, 0}, {stop_[0], POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 || fds[1].revents != 0) {
      return;
    }
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) {
      const std::lock_guard lock(mutex_);
      fds_.push_back(fd);
      threads_.emplace_back([this, fd] { Serve(fd); });
    }
  }
}

void HttpServer::Serve(int fd) {
  std::string buffer;
  while (true) {
    size_t head_end = 0;
    while ((head_end = buffer.find("\r\n\r\n")) == std::string::npos) {
      char piece[4096];
      const ssize_t got = recv(fd, piece, sizeof(piece), 0);
      if (got <= 0) {
        return;
      }
      buffer.append(piece, static_cast<size_t>(got));
    }
    ServerRequest request = ParseHead(buffer.substr(0, head_end + 2));
    buffer.erase(0, head_end + 4);
    const size_t length = std::strtoul(request.Header("content-length").c_str(), nullptr, 10);
    while (buffer.size() < length) {
      char piece[4096];
      const ssize_t got = recv(fd, piece, sizeof(piece), 0);
      if (got <= 0) {
        return;
      }
      buffer.append(piece, static_cast<size_t>(got));
    }
    request.body = buffer.substr(0, length);
    buffer.erase(0, length);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    if (!Answer(fd, request)) {
      shutdown(fd, SHUT_RDWR);
      return;
    }
  }
}

bool HttpServer::Answer(int fd, const ServerRequest& request) {
  const ServerReply reply = handler_(request);
  if (reply.stall) {
    pollfd stop{stop_[0], POLLIN, 0};
    poll(&stop, 1, -1);
    return false;
  }
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " Scripted\r\n";
  for (const auto& [name, value] : reply.headers) {
    head += name + ": " + value + "\r\n";
  }
  if (reply.content_length) {
    head += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n";
  }
  head += "\r\n";
  const std::string body = request.method == "HEAD" ? "" : reply.body;
  const size_t sent = std::min(reply.cut_after.value_or(body.size()), body.size());
  return SendAll(fd, head) && SendAll(fd, std::string_view(body).substr(0, sent)) &&
         !reply.cut_after.has_value() && reply.content_length;
}

ServerReply HttpServer::Range(const ServerRequest& request, const std::string& content) {
  const std::string range = request.Header("range");
  if (!range.starts_with("bytes=")) {
    return {.status = 200, .body = content};
  }
  const std::string span = range.substr(6);
  const size_t dash = span.find('-');
  uint64_t first = std::strtoull(span.c_str(), nullptr, 10);
  uint64_t last = content.size() - 1;
  if (dash == 0) {
    const uint64_t suffix = std::strtoull(span.c_str() + 1, nullptr, 10);
    first = content.size() - std::min<uint64_t>(suffix, content.size());
  } else if (dash + 1 < span.size()) {
    last = std::min<uint64_t>(last, std::strtoull(span.c_str() + dash + 1, nullptr, 10));
  }
  const std::string total = std::to_string(content.size());
  if (first >= content.size()) {
    return {.status = 416, .headers = {{"Content-Range", "bytes */" + total}}};
  }
  return {.status = 206,
          .headers = {{"Content-Range", "bytes " + std::to_string(first) + "-" +
                                            std::to_string(last) + "/" + total}},
          .body = content.substr(first, last - first + 1)};
}

}  // namespace strata::testing
