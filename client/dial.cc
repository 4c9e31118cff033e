// SPDX-License-Identifier: Apache-2.0
#include "client/dial.h"

#include <fcntl.h>
#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>

#include "snapshotters/base/unique_fd.h"

namespace strata {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kMaxMessageBytes = 16 << 20;  // both ways, as the seed and containerd

// sun_path holds the path and a final NUL (unix(7)).
constexpr size_t kMaxSocketPathBytes = sizeof(sockaddr_un::sun_path) - 1;

// gRPC lengthens a pause by up to a fifth after it has capped it. A quarter off the cap leaves a
// twentieth for making the connection, so that backoff_max is what a user sees.
constexpr double kCapOfBackoffMax = 0.8;

// The name belies it: gRPC takes it as the least time that an attempt gets (20 s by default). With
// its lowest value an attempt ends when the next one is due, as the seed's attempts do.
constexpr int kLeastAttemptMs = 100;

// How often an attempt is hurried while Dial waits: then a socket is found soon after it is there.
constexpr milliseconds kReadyPoll{50};

std::string Quoted(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out = "\"";
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
      continue;
    }
    if (character == '"' || character == '\\') {
      out += '\\';
    }
    out += character;
  }
  return out + '"';
}

// The path as gRPC's "unix:" scheme reads it: a URI, whose escapes it undoes.
std::string UnixTarget(std::string_view path) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  constexpr std::string_view kLiteral =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~";
  std::string target = "unix:";
  for (const char character : path) {
    if (kLiteral.find(character) != std::string_view::npos) {
      target += character;
      continue;
    }
    const auto byte = static_cast<unsigned char>(character);
    target += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return target;
}

Status CheckPath(const std::string& path) {
  if (path.starts_with("unix://")) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "snapshotter doesn't exist on " + Quoted(path) +
                          " (Do not include 'unix://' prefix): leave it out, a path is wanted");
  }
  if (!path.starts_with('/')) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "failed to dial " + Quoted(path) + ": not an absolute path");
  }
  if (path.find('\0') != std::string::npos) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "failed to dial " + Quoted(path) + ": a path has no NUL byte");
  }
  if (path.find(',') != std::string::npos) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "failed to dial " + Quoted(path) +
                          ": a comma in the path of a socket would end it (gRPC reads a list)");
  }
  if (path.size() > kMaxSocketPathBytes) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "failed to dial " + Quoted(path) + ": the path of a socket has at most " +
                          std::to_string(kMaxSocketPathBytes) + " bytes, not " +
                          std::to_string(path.size()));
  }
  // As the seed: whatever else is wrong with the path is left to the calls.
  struct stat ignored {};
  if (::stat(path.c_str(), &ignored) != 0 && errno == ENOENT) {
    return MakeStatus(StatusCode::kNotFound, "snapshotter doesn't exist on " + Quoted(path) +
                                                 " (Do not include 'unix://' prefix): stat " +
                                                 path + ": no such file or directory");
  }
  return OkStatus();
}

int Milliseconds(milliseconds duration) {
  constexpr milliseconds::rep kMost = std::numeric_limits<int>::max();
  return static_cast<int>(std::clamp<milliseconds::rep>(duration.count(), 0, kMost));
}

grpc::ChannelArguments Arguments(const DialOptions& options) {
  grpc::ChannelArguments arguments;
  const int cap = static_cast<int>(Milliseconds(options.backoff_max) * kCapOfBackoffMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
                   std::min(Milliseconds(options.backoff_base), cap));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, cap);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kLeastAttemptMs);
  // Two dials of one path then share neither connection nor pauses.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  if (options.keepalive.count() > 0) {
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
    arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
    // Otherwise the third ping of a call that carries no data would not be sent.
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  }
  return arguments;
}

// Why the socket cannot be connected to, for a message; "no answer" if it can.
std::string ReasonForSilence(const std::string& path) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (fd.valid() &&
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return std::string(StatusMessage(ErrnoStatus(errno, "connect")));
  }
  return "it is connected to, but does not answer";
}

Status WaitForReady(grpc::Channel& channel, const std::string& path, milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  while (steady_clock::now() < deadline) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
    const auto poll = gpr_time_from_millis(std::min(left, kReadyPoll).count(), GPR_TIMESPAN);
    if (channel.WaitForConnected(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), poll))) {
      return OkStatus();
    }
    grpc::experimental::ChannelResetConnectionBackoff(&channel);
  }
  return MakeStatus(StatusCode::kUnavailable,
                    "snapshotter on " + Quoted(path) + " not ready within " +
                        std::to_string(limit.count()) + " ms: " + ReasonForSilence(path));
}

}  // namespace

StatusOr<std::shared_ptr<grpc::Channel>> Dial(const std::string& path, const DialOptions& options) {
  STRATA_RETURN_IF_ERROR(CheckPath(path));
  std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      UnixTarget(path), grpc::InsecureChannelCredentials(), Arguments(options));
  if (options.wait_for_ready.count() > 0) {
    STRATA_RETURN_IF_ERROR(WaitForReady(*channel, path, options.wait_for_ready));
  }
  return channel;
}

}  // namespace strata
