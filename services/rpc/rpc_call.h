// SPDX-License-Identifier: Apache-2.0
//
// RpcCall: one call of a client as the code of its method sees it. Methods are found by their path
// and get the bytes of the request; who answers is free to do it later, on any thread.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "snapshotters/base/status.h"
#include "snapshotters/core/call_context.h"

namespace strata {

// The one message of an answer, as bytes, or why there is none.
using Answer = StatusOr<std::string>;

// One thing at a time: after Write or Wait nothing but what they were given to call.
class RpcCall {
 public:
  virtual ~RpcCall() = default;

  // Cancelled when the client goes away.
  virtual CallContext& context() = 0;

  // Whether this thread, on which a method begins, may block from here on. False: what blocks has
  // to go to a pool.
  [[nodiscard]] virtual bool MayBlock() = 0;

  // These end the call, once; it may be gone when they return.
  virtual void Finish(Answer answer) = 0;
  virtual void FinishStream(const Status& status) = 0;

  // Of a call that is answered by several messages. Calls `then`, on a thread that must not block,
  // when the message is on its way; not ok: the client has gone, and the call is to be ended.
  virtual void Write(std::string message, std::function<void(bool ok)> then) = 0;

  // Calls `then` that much later, on such a thread.
  virtual void Wait(std::chrono::milliseconds time, std::function<void()> then) = 0;

  // Calls `then` when the client has gone before the end, on such a thread, whatever else goes on;
  // at once if it has gone already. To be called when the method begins.
  virtual void WhenCancelled(std::function<void()> then) = 0;
};

// Begins to answer. It runs on the thread that serves all calls and must not block there (see
// RpcCall::MayBlock). The request stays until the call ends.
using Method = std::function<void(RpcCall& call, std::string_view request)>;
// By path: "/package.Service/Method".
using MethodTable = std::unordered_map<std::string, Method>;

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
