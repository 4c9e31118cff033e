// SPDX-License-Identifier: Apache-2.0
// The HTTP/2 side of the load generator, on libnghttp2.

#include "tests/bench/metadata/grpc_channel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace strata::bench {
namespace {

constexpr size_t kFramePrefixBytes = 5;
constexpr size_t kReadBytes = size_t{256} * 1024;
// More than all the replies that can be under way, so that no server waits for our window.
constexpr int32_t kWindowBytes = 1 << 30;
// Frames beyond this stay inside nghttp2 until the socket has taken some.
constexpr size_t kOutLimitBytes = size_t{1024} * 1024;

constexpr uint8_t kEntryTag = 0x0a;  // field 1, length-delimited
constexpr uint32_t kLastLengthShift = 63;

// Both strings are literals or outlive the channel, so nghttp2 need not copy them.
nghttp2_nv Header(std::string_view name, std::string_view value) {
  nghttp2_nv header{};
  // nghttp2 declares the pointers without const but does not write through them.
  header.name = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(name.data()));
  header.value = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(value.data()));
  header.namelen = name.size();
  header.valuelen = value.size();
  header.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  return header;
}

std::string_view View(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace

void ReplyCounter::Feed(const uint8_t* data, size_t size) {
  const uint8_t* const end = data + size;
  while (data != end && !malformed_) {
    if (stage_ != Stage::kEntry) {
      TakeByte(*data++);
      continue;
    }
    const auto step = std::min<uint64_t>(entry_left_, static_cast<uint64_t>(end - data));
    data += step;
    entry_left_ -= step;
    message_left_ -= step;
    if (entry_left_ == 0) {
      EndOfEntry();
    }
  }
}

void ReplyCounter::TakeByte(uint8_t byte) {
  if (stage_ == Stage::kFrame) {
    TakeFrameByte(byte);
    return;
  }
  if (message_left_ == 0) {
    malformed_ = true;
    return;
  }
  --message_left_;
  if (stage_ == Stage::kLength) {
    TakeLengthByte(byte);
    return;
  }
  malformed_ = byte != kEntryTag;
  entry_left_ = 0;
  length_shift_ = 0;
  stage_ = Stage::kLength;
}

void ReplyCounter::TakeFrameByte(uint8_t byte) {
  if (frame_bytes_ == 0) {
    malformed_ = byte != 0;  // compressed, which we did not ask for
    message_left_ = 0;
  } else {
    message_left_ = message_left_ << 8 | byte;
  }
  if (++frame_bytes_ == kFramePrefixBytes) {
    frame_bytes_ = 0;
    ++messages_;
    stage_ = message_left_ == 0 ? Stage::kFrame : Stage::kTag;
  }
}

void ReplyCounter::TakeLengthByte(uint8_t byte) {
  if (length_shift_ > kLastLengthShift) {
    malformed_ = true;
    return;
  }
  entry_left_ |= static_cast<uint64_t>(byte & 0x7f) << length_shift_;
  length_shift_ += 7;
  if ((byte & 0x80) != 0) {
    return;
  }
  ++entries_;
  malformed_ = entry_left_ > message_left_;
  stage_ = Stage::kEntry;
  if (entry_left_ == 0) {
    EndOfEntry();
  }
}

void ReplyCounter::EndOfEntry() {
  stage_ = message_left_ == 0 ? Stage::kFrame : Stage::kTag;
}

void FrameRequest(std::string* request) {
  const auto size = static_cast<uint32_t>(request->size() - kFramePrefixBytes);
  (*request)[0] = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    (*request)[1 + i] = static_cast<char>(size >> (24 - 8 * i) & 0xff);
  }
}

std::unique_ptr<GrpcChannel> GrpcChannel::Connect(const std::string& socket_path,
                                                  std::string* error) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) {
    *error = "'" + socket_path + "' is too long for a socket";
    return nullptr;
  }
  socket_path.copy(address.sun_path, sizeof(address.sun_path) - 1);  // zeroed behind it
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    *error = std::string("socket: ") + std::strerror(errno);
    return nullptr;
  }
  std::unique_ptr<GrpcChannel> channel(new GrpcChannel(fd));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
    *error = "connect '" + socket_path + "': " + std::strerror(errno);
    return nullptr;
  }
  if (!channel->OpenSession()) {
    *error = channel->failure();
    return nullptr;
  }
  return channel;
}

GrpcChannel::~GrpcChannel() {
  nghttp2_session_del(session_);
  close(fd_);
}

bool GrpcChannel::OpenSession() {
  in_.resize(kReadBytes);
  nghttp2_session_callbacks* callbacks = nullptr;
  int result = nghttp2_session_callbacks_new(&callbacks);
  if (result != 0) {
    return Fail("callbacks", result);
  }
  nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnStreamClose);
  result = nghttp2_session_client_new(&session_, callbacks, this);
  nghttp2_session_callbacks_del(callbacks);
  if (result != 0) {
    return Fail("session", result);
  }
  const std::array<nghttp2_settings_entry, 2> settings{{
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
  }};
  result = nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  if (result != 0) {
    return Fail("settings", result);
  }
  result = nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, /*stream_id=*/0,
                                                 kWindowBytes);
  return result == 0 || Fail("window", result);
}

bool GrpcChannel::Fail(const char* what, int nghttp2_error) {
  failure_ = std::string(what) + ": " + nghttp2_strerror(nghttp2_error);
  return false;
}

bool GrpcChannel::FailErrno(const char* what) {
  failure_ = std::string(what) + ": " + std::strerror(errno);
  return false;
}

bool GrpcChannel::Start(Call* call) {
  call->grpc_status = Call::kNoStatus;
  call->error.clear();
  call->reply.Reset();
  call->sent = 0;
  const std::array<nghttp2_nv, 8> headers{{
      Header(":method", "POST"),
      Header(":scheme", "http"),
      Header(":path", call->method),
      Header(":authority", "localhost"),
      Header("content-type", "application/grpc"),
      Header("user-agent", "strata-bench-metadata"),
      Header("te", "trailers"),
      Header("containerd-namespace", "bench"),
  }};
  nghttp2_data_provider body{};
  body.source.ptr = call;
  body.read_callback = ReadRequest;
  const int32_t stream = nghttp2_submit_request(session_, /*pri_spec=*/nullptr, headers.data(),
                                                headers.size(), &body, call);
  return stream >= 0 || Fail("request", stream);
}

ssize_t GrpcChannel::ReadRequest(nghttp2_session* /*session*/, int32_t /*stream*/, uint8_t* out,
                                 size_t size, uint32_t* flags, nghttp2_data_source* source,
                                 void* /*self*/) {
  auto* call = static_cast<Call*>(source->ptr);
  const size_t step = std::min(size, call->request.size() - call->sent);
  std::copy_n(call->request.data() + call->sent, step, out);
  call->sent += step;
  if (call->sent == call->request.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
  }
  return static_cast<ssize_t>(step);
}

bool GrpcChannel::Flush() {
  for (;;) {
    if (!wants_write()) {
      out_.clear();
      out_sent_ = 0;
    }
    while (out_.size() < kOutLimitBytes) {
      const uint8_t* frames = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &frames);
      if (size < 0) {
        return Fail("send", static_cast<int>(size));
      }
      if (size == 0) {
        break;
      }
      out_.append(reinterpret_cast<const char*>(frames), static_cast<size_t>(size));
    }
    if (!wants_write()) {
      return true;
    }
    // Not write(): a server that is gone is an error here, no SIGPIPE.
    const ssize_t sent = send(fd_, out_.data() + out_sent_, out_.size() - out_sent_, MSG_NOSIGNAL);
    if (sent < 0) {
      return errno == EAGAIN || errno == EINTR || FailErrno("write");
    }
    out_sent_ += static_cast<size_t>(sent);
  }
}

bool GrpcChannel::Receive() {
  const ssize_t size = read(fd_, in_.data(), in_.size());
  if (size < 0) {
    return errno == EAGAIN || errno == EINTR || FailErrno("read");
  }
  if (size == 0) {
    failure_ = "the server closed the connection";
    return false;
  }
  const ssize_t taken = nghttp2_session_mem_recv(session_, in_.data(), static_cast<size_t>(size));
  return taken >= 0 || Fail("receive", static_cast<int>(taken));
}

int GrpcChannel::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                          size_t name_size, const uint8_t* value, size_t value_size,
                          uint8_t /*flags*/, void* /*self*/) {
  auto* call =
      static_cast<Call*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
  if (call == nullptr) {
    return 0;
  }
  const std::string_view header = View(name, name_size);
  const std::string_view text = View(value, value_size);
  if (header == "grpc-status") {
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), call->grpc_status);
    if (parsed.ec != std::errc()) {
      call->grpc_status = Call::kNoStatus;
    }
  } else if (header == "grpc-message") {
    call->error = text;
  } else if (header == ":status" && text != "200") {
    call->error = "http status ";
    call->error += text;
  }
  return 0;
}

int GrpcChannel::OnData(nghttp2_session* session, uint8_t /*flags*/, int32_t stream,
                        const uint8_t* data, size_t size, void* /*self*/) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream));
  if (call != nullptr) {
    call->reply.Feed(data, size);
  }
  return 0;
}

int GrpcChannel::OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t error_code,
                               void* self) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream));
  auto* channel = static_cast<GrpcChannel*>(self);
  if (call == nullptr) {
    return 0;
  }
  // A server may reset the stream after a full answer; what counts is whether a status came.
  if (call->grpc_status == Call::kNoStatus && call->error.empty()) {
    call->error = std::string("no grpc-status; http/2 ") + nghttp2_http2_strerror(error_code);
  }
  channel->ended_.push_back(call);
  return 0;
}

}  // namespace strata::bench
