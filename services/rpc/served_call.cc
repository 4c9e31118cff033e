// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/served_call.h"

#include <grpcpp/alarm.h>

#include <atomic>
#include <utility>

#include "protos/codec/status_codec.h"
#include "snapshotters/base/mutex.h"

namespace strata {

using grpc::ByteBuffer;

namespace {

// Calls that come while as many wait to be taken wait inside of gRPC.
constexpr int kExpected = 64;

// `bytes` as gRPC wants them, without a copy.
ByteBuffer ToBuffer(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));  // freed by the slice
  const grpc::Slice slice(
      owned->data(), owned->size(), [](void* data) { delete static_cast<std::string*>(data); },
      owned);
  return {&slice, 1};
}

}  // namespace

// It owns itself: from the moment it is expected until gRPC has told of its end, both that the
// answer is out and that the call is over.
class ServedCall final : public RpcCall {
 public:
  static void Expect(ServedCalls& all) {
    auto* call = new ServedCall(all);
    call->server_context_.AsyncNotifyWhenDone(call->done_.tag());
    all.service_.RequestCall(&call->server_context_, &call->stream_, &all.queue_.queue(),
                             &all.queue_.queue(), call->requested_.tag());
  }

  CallContext& context() override { return context_; }
  bool MayBlock() override { return all_.queue_.HandOver(); }

  void Finish(Answer answer) override {
    if (!answer.ok()) {
      FinishStream(answer.status());
      return;
    }
    out_ = ToBuffer(*std::move(answer));
    stream_.WriteAndFinish(out_, grpc::WriteOptions(), grpc::Status::OK, finished_.tag());
  }
  void FinishStream(const Status& status) override {
    stream_.Finish(codec::ToGrpc(status), finished_.tag());
  }

  void Write(std::string message, std::function<void(bool ok)> then) override {
    then_ = std::move(then);
    out_ = ToBuffer(std::move(message));
    stream_.Write(out_, then_step_.tag());
  }
  void Wait(std::chrono::milliseconds time, std::function<void()> then) override {
    then_ = [then = std::move(then)](bool /*ok*/) { then(); };
    alarm_.Set(&all_.queue_.queue(), std::chrono::system_clock::now() + time, then_step_.tag());
  }
  void WhenCancelled(std::function<void()> then) override {
    {
      const MutexLock lock(mutex_);
      if (!cancelled_) {
        when_cancelled_ = std::move(then);
        return;
      }
    }
    then();
  }

 private:
  class Step final : public CallQueue::Tag {
   public:
    Step(ServedCall& call, void (ServedCall::*step)(bool)) : call_(call), step_(step) {}
    void Proceed(bool ok) override { (call_.*step_)(ok); }
    void* tag() { return static_cast<CallQueue::Tag*>(this); }

   private:
    ServedCall& call_;
    void (ServedCall::*const step_)(bool);
  };

  explicit ServedCall(ServedCalls& all) : all_(all) {}

  void OnRequested(bool ok) {
    if (!ok) {
      delete this;  // the server ends; of such a call nothing else is told
      return;
    }
    all_.Opened();
    Expect(all_);
    const auto found = all_.methods_.find(server_context_.method());
    if (found == all_.methods_.end()) {
      FinishStream(MakeStatus(StatusCode::kUnimplemented,
                              "no method '" + server_context_.method() + "' here"));
      return;
    }
    method_ = &found->second;
    stream_.Read(&in_, read_.tag());
  }

  void OnRead(bool ok) {
    if (!ok) {
      Finish(MakeStatus(StatusCode::kInvalidArgument, "a call without a request"));
      return;
    }
    if (!in_.TrySingleSlice(&request_).ok() && !in_.DumpToSingleSlice(&request_).ok()) {
      Finish(MakeStatus(StatusCode::kResourceExhausted, "cannot read the request"));
      return;
    }
    (*method_)(*this, {reinterpret_cast<const char*>(request_.begin()), request_.size()});
  }

  void OnThen(bool ok) {
    const std::function<void(bool)> then = std::move(then_);
    then(ok);
  }

  void OnFinished(bool /*ok*/) { Release(); }  // not ok: the client did not wait for it

  void OnDone(bool /*ok*/) {
    if (server_context_.IsCancelled()) {
      context_.Cancel();
      std::function<void()> then;
      {
        const MutexLock lock(mutex_);
        cancelled_ = true;
        then.swap(when_cancelled_);
      }
      if (then) {
        then();
      }
    }
    Release();
  }

  void Release() {
    if (left_.fetch_sub(1) == 1) {
      ServedCalls& all = all_;
      delete this;
      all.Closed();
    }
  }

  ServedCalls& all_;
  CallContext context_;
  grpc::GenericServerContext server_context_;
  grpc::GenericServerAsyncReaderWriter stream_{&server_context_};
  const Method* method_ = nullptr;
  ByteBuffer in_;
  grpc::Slice request_;
  ByteBuffer out_;
  std::function<void(bool)> then_;
  grpc::Alarm alarm_;
  std::atomic<int> left_{2};  // OnFinished, OnDone

  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> when_cancelled_ ABSL_GUARDED_BY(mutex_);

  Step requested_{*this, &ServedCall::OnRequested};
  Step read_{*this, &ServedCall::OnRead};
  Step then_step_{*this, &ServedCall::OnThen};
  Step finished_{*this, &ServedCall::OnFinished};
  Step done_{*this, &ServedCall::OnDone};
};

void ServedCalls::Begin() {
  for (int i = 0; i < kExpected; ++i) {
    ServedCall::Expect(*this);
  }
}

void ServedCalls::Opened() {
  const MutexLock lock(mutex_);
  ++open_;
}

void ServedCalls::Closed() {
  const MutexLock lock(mutex_);
  if (--open_ == 0) {
    changed_.SignalAll();
  }
}

void ServedCalls::Fence::Proceed(bool /*ok*/) {
  const MutexLock lock(all_.mutex_);
  all_.passed_ = true;
  all_.changed_.SignalAll();
}

void ServedCalls::WaitUntilEnded() {
  // Behind whatever has come and was not looked at yet.
  grpc::Alarm alarm;
  alarm.Set(&queue_.queue(), std::chrono::system_clock::now(),
            static_cast<CallQueue::Tag*>(&fence_));
  MutexLock lock(mutex_);
  while (!passed_ || open_ > 0) {
    changed_.Wait(mutex_);
  }
}

}  // namespace strata
