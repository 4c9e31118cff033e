// SPDX-License-Identifier: Apache-2.0
// One HTTP/2 connection that carries gRPC calls over a unix socket, for a load generator that has
// to be much cheaper than the server it loads. One thread; nothing blocks but Connect.

#pragma once

#include <nghttp2/nghttp2.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace strata::bench {

// Counts the gRPC messages of a reply and the entries of protobuf field 1 in them, without decoding
// the entries. Field 1 is all that the replies of the snapshots service consist of: the mounts, the
// info, the rows of a list.
class ReplyCounter {
 public:
  void Reset() { *this = ReplyCounter(); }
  void Feed(const uint8_t* data, size_t size);

  [[nodiscard]] uint64_t messages() const { return messages_; }
  [[nodiscard]] uint64_t entries() const { return entries_; }
  // False if the bytes so far are no whole number of such messages.
  [[nodiscard]] bool well_formed() const {
    return !malformed_ && stage_ == Stage::kFrame && frame_bytes_ == 0;
  }

 private:
  enum class Stage { kFrame, kTag, kLength, kEntry };

  void TakeByte(uint8_t byte);
  void TakeFrameByte(uint8_t byte);
  void TakeLengthByte(uint8_t byte);
  void EndOfEntry();

  Stage stage_ = Stage::kFrame;
  bool malformed_ = false;
  uint32_t frame_bytes_ = 0;   // of the five bytes before each message
  uint64_t message_left_ = 0;  // bytes of the message not seen yet
  uint64_t entry_left_ = 0;    // bytes of the entry not seen yet
  uint32_t length_shift_ = 0;  // of the varint being read
  uint64_t messages_ = 0;
  uint64_t entries_ = 0;
};

// One call, used again for the next one when it is done. The caller fills in method and request.
struct Call {
  static constexpr int kNoStatus = -1;

  // ":path"; a string that outlives the channel.
  const char* method = nullptr;
  // The message, with gRPC's five bytes before it (see FrameRequest).
  std::string request;

  int grpc_status = kNoStatus;
  std::string error;  // the server's message or what broke the stream; empty after a success
  ReplyCounter reply;

  size_t sent = 0;  // bytes of the request handed out, kept by the channel
};

// Writes gRPC's prefix into the first five bytes of `request`, which the caller left free for it.
void FrameRequest(std::string* request);

class GrpcChannel {
 public:
  // Null on failure, with the reason in `error`.
  static std::unique_ptr<GrpcChannel> Connect(const std::string& socket_path, std::string* error);
  ~GrpcChannel();
  GrpcChannel(const GrpcChannel&) = delete;
  GrpcChannel& operator=(const GrpcChannel&) = delete;

  [[nodiscard]] int fd() const { return fd_; }

  // Queues the call, which must stay where it is until it is in ended().
  [[nodiscard]] bool Start(Call* call);

  // Writes what the socket takes; wants_write() tells whether something is left.
  [[nodiscard]] bool Flush();
  [[nodiscard]] bool wants_write() const { return out_sent_ < out_.size(); }

  // Reads what has arrived, at most one buffer, and adds the calls that ended to ended().
  [[nodiscard]] bool Receive();

  // The calls that are over; the caller empties it.
  std::vector<Call*>& ended() { return ended_; }

  // After one of the above returned false: why. The channel is of no use from then on.
  [[nodiscard]] const std::string& failure() const { return failure_; }

 private:
  explicit GrpcChannel(int fd) : fd_(fd) {}
  bool OpenSession();
  bool Fail(const char* what, int nghttp2_error);
  bool FailErrno(const char* what);

  static ssize_t ReadRequest(nghttp2_session* session, int32_t stream, uint8_t* out, size_t size,
                             uint32_t* flags, nghttp2_data_source* source, void* self);
  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t flags,
                      void* self);
  static int OnData(nghttp2_session* session, uint8_t flags, int32_t stream, const uint8_t* data,
                    size_t size, void* self);
  static int OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t error_code,
                           void* self);

  int fd_;
  nghttp2_session* session_ = nullptr;
  std::string out_;      // frames made but not written yet
  size_t out_sent_ = 0;  // of out_
  std::vector<uint8_t> in_;
  std::vector<Call*> ended_;
  std::string failure_;
};

}  // namespace strata::bench
