// SPDX-License-Identifier: Apache-2.0
//
// RpcCall: one call of a client as the code of its method sees it. Methods are found by their path
// and get the bytes of the request; who answers is free to do it later, on any thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// The one message of an answer, as bytes, or why there is none.
using Answer = StatusOr<std::string>;

class RpcCall {
 public:
  virtual ~RpcCall() = default;

  // Cancelled when the client goes away, if the method has asked for that.
  virtual CallContext& context() = 0;

  // Whether this thread, on which a method begins, may block from here on. False: what blocks has
  // to go to a pool.
  [[nodiscard]] virtual bool MayBlock() = 0;

  // Ends the call, once; it may be gone when this returns.
  virtual void Finish(Answer answer) = 0;
};

// A call that is answered by any number of messages. One thing at a time: after Write or Wait
// nothing until what they were given is called.
class StreamCall {
 public:
  virtual ~StreamCall() = default;

  // Cancelled when the client goes away.
  virtual CallContext& context() = 0;

  // Calls `then`, on the thread that serves all calls, when the message is on its way; not ok: the
  // client has gone, and the call is to be ended.
  virtual void Write(std::string message, std::function<void(bool ok)> then) = 0;

  // Calls `then` that much later, on that thread.
  virtual void Wait(std::chrono::milliseconds time, std::function<void()> then) = 0;

  // Calls `then` when the client has gone before the end, on that thread, whatever else goes on; at
  // once if it has gone already. To be called when the method begins.
  virtual void WhenCancelled(std::function<void()> then) = 0;

  // Ends the call, once; it may be gone when this returns.
  virtual void Finish(const Status& status) = 0;
};

// How a method begins to answer: on the thread that serves all calls, where it must not block (see
// RpcCall::MayBlock). The request stays until that returns.
struct UnaryMethod {
  std::function<void(RpcCall& call, std::string_view request)> begin;
  bool often = false;        // so many calls come at a time that they should be expected
  bool cancellable = false;  // wants to hear of clients that go away
};
struct StreamMethod {
  std::function<void(StreamCall& call, std::string_view request)> begin;
};

// By path: "/package.Service/Method".
struct MethodTable {
  std::map<std::string, UnaryMethod, std::less<>> unary;
  std::map<std::string, StreamMethod, std::less<>> streams;
};

// Into a protobuf message. InvalidArgument names the message.
template <typename Request>
Status ParseRequest(std::string_view bytes, Request* request) {
  if (!request->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return MakeStatus(StatusCode::kInvalidArgument,
                      "malformed " + Request::descriptor()->name() +
                          ": expected protobuf whose strings are UTF-8");
  }
  return OkStatus();
}

}  // namespace strata
