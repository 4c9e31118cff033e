// SPDX-License-Identifier: Apache-2.0
#include "services/rpc/served_calls.h"

#include <grpcpp/alarm.h>

#include <atomic>
#include <utility>

#include "protos/codec/status_codec.h"

namespace strata {

using grpc::ByteBuffer;

namespace {

// Calls of a method that come while as many wait to be taken wait inside of gRPC.
constexpr int kExpected = 2;
constexpr int kExpectedOften = 16;

// `bytes` as gRPC wants them, without a copy.
ByteBuffer ToBuffer(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));  // freed by the slice
  CallQueue::GoesToGrpc(owned);
  const grpc::Slice slice(
      owned->data(), owned->size(),
      [](void* data) {
        CallQueue::ComesFromGrpc(data);
        delete static_cast<std::string*>(data);
      },
      owned);
  return {&slice, 1};
}

StatusOr<grpc::Slice> OneSlice(const ByteBuffer& bytes) {
  grpc::Slice slice;
  if (!bytes.TrySingleSlice(&slice).ok() && !bytes.DumpToSingleSlice(&slice).ok()) {
    return MakeStatus(StatusCode::kResourceExhausted, "cannot read the request");
  }
  return slice;
}

std::string_view View(const grpc::Slice& slice) {
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

}  // namespace

// What calls of both kinds have: they own themselves, from the moment they are expected until gRPC
// has told all that it will of them.
template <typename Call>
class OpenCall {
 protected:
  class Step final : public CallQueue::Tag {
   public:
    Step(Call& call, void (Call::*step)(bool)) : call_(call), step_(step) {}
    void Proceed(bool ok) override { (call_.*step_)(ok); }

   private:
    Call& call_;
    void (Call::*const step_)(bool);
  };

  OpenCall(ServedCalls& all, int left) : all_(all), left_(left) {}

  void Release() {
    if (left_.fetch_sub(1) == 1) {
      ServedCalls& all = all_;
      delete static_cast<Call*>(this);
      all.Closed();
    }
  }

  ServedCalls& all_;
  CallContext context_;

 private:
  std::atomic<int> left_;  // things that gRPC is still to tell
};

class ServedUnary final : public RpcCall,
                          private CallQueue::Outgoing,
                          private OpenCall<ServedUnary> {
 public:
  static void Expect(ServedCalls& all, int index) {
    auto* call = new ServedUnary(all, index);
    if (call->method_.cancellable) {
      call->server_context_.AsyncNotifyWhenDone(call->done_.ForGrpc());
    }
    all.unary_service_.Request(index, &call->server_context_, &call->in_, &call->response_,
                               &all.queue_.queue(), call->requested_.ForGrpc());
  }

  CallContext& context() override { return context_; }
  bool MayBlock() override { return all_.queue_.HandOver(); }
  void Finish(Answer answer) override {
    answer_ = std::move(answer);
    if (!all_.queue_.SendLater(*this)) {
      Send();
    }
  }

 private:
  friend class OpenCall<ServedUnary>;
  ServedUnary(ServedCalls& all, int index)
      : OpenCall(all, all.unary_[static_cast<size_t>(index)]->cancellable ? 2 : 1),
        index_(index),
        method_(*all.unary_[static_cast<size_t>(index)]) {}

  void OnRequested(bool ok) {
    if (!ok) {
      delete this;  // the server ends; of such a call nothing else is told
      return;
    }
    all_.Opened();
    Expect(all_, index_);
    const StatusOr<grpc::Slice> request = OneSlice(in_);
    if (!request.ok()) {
      Finish(request.status());
      return;
    }
    method_.begin(*this, View(*request));
  }

  void Send() override {
    if (answer_.ok()) {
      response_.Finish(ToBuffer(*std::move(answer_)), grpc::Status::OK, finished_.ForGrpc());
    } else {
      response_.FinishWithError(codec::ToGrpc(answer_.status()), finished_.ForGrpc());
    }
  }

  void OnFinished(bool /*ok*/) { Release(); }  // not ok: the client did not wait for it

  void OnDone(bool /*ok*/) {
    if (server_context_.IsCancelled()) {
      context_.Cancel();
    }
    Release();
  }

  const int index_;
  const UnaryMethod& method_;
  grpc::ServerContext server_context_;
  grpc::ServerAsyncResponseWriter<ByteBuffer> response_{&server_context_};
  ByteBuffer in_;
  Answer answer_ = std::string();
  Step requested_{*this, &ServedUnary::OnRequested};
  Step finished_{*this, &ServedUnary::OnFinished};
  Step done_{*this, &ServedUnary::OnDone};
};

class ServedStream final : public StreamCall, private OpenCall<ServedStream> {
 public:
  static void Expect(ServedCalls& all) {
    auto* call = new ServedStream(all);
    call->server_context_.AsyncNotifyWhenDone(call->done_.ForGrpc());
    all.others_.RequestCall(&call->server_context_, &call->stream_, &all.queue_.queue(),
                            &all.queue_.queue(), call->requested_.ForGrpc());
  }

  CallContext& context() override { return context_; }
  void Finish(const Status& status) override {
    stream_.Finish(codec::ToGrpc(status), finished_.ForGrpc());
  }
  void Write(std::string message, std::function<void(bool ok)> then) override {
    then_ = std::move(then);
    stream_.Write(ToBuffer(std::move(message)), then_step_.ForGrpc());
  }
  void Wait(std::chrono::milliseconds time, std::function<void()> then) override {
    then_ = [then = std::move(then)](bool /*ok*/) { then(); };
    alarm_.Set(&all_.queue_.queue(), std::chrono::system_clock::now() + time, then_step_.ForGrpc());
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
  friend class OpenCall<ServedStream>;
  explicit ServedStream(ServedCalls& all) : OpenCall(all, 2) {}

  void OnRequested(bool ok) {
    if (!ok) {
      delete this;  // as for a unary one
      return;
    }
    all_.Opened();
    Expect(all_);
    const auto found = all_.methods_.streams.find(server_context_.method());
    if (found == all_.methods_.streams.end()) {
      Finish(MakeStatus(StatusCode::kUnimplemented,
                        "no method '" + server_context_.method() + "' here"));
      return;
    }
    method_ = &found->second;
    stream_.Read(&in_, read_.ForGrpc());
  }

  void OnRead(bool ok) {
    const StatusOr<grpc::Slice> request =
        ok ? OneSlice(in_) : MakeStatus(StatusCode::kInvalidArgument, "a call without a request");
    if (!request.ok()) {
      Finish(request.status());
      return;
    }
    method_->begin(*this, View(*request));
  }

  void OnThen(bool ok) {
    const std::function<void(bool)> then = std::move(then_);
    then(ok);
  }

  void OnFinished(bool /*ok*/) { Release(); }

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

  grpc::GenericServerContext server_context_;
  grpc::GenericServerAsyncReaderWriter stream_{&server_context_};
  const StreamMethod* method_ = nullptr;
  ByteBuffer in_;
  std::function<void(bool)> then_;
  grpc::Alarm alarm_;

  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> when_cancelled_ ABSL_GUARDED_BY(mutex_);

  Step requested_{*this, &ServedStream::OnRequested};
  Step read_{*this, &ServedStream::OnRead};
  Step then_step_{*this, &ServedStream::OnThen};
  Step finished_{*this, &ServedStream::OnFinished};
  Step done_{*this, &ServedStream::OnDone};
};

// As protoc's plugin writes it for raw asynchronous methods.
ServedCalls::UnaryService::UnaryService(const MethodTable& methods) {
  int index = 0;
  for (const auto& [path, method] : methods.unary) {
    AddMethod(new grpc::internal::RpcServiceMethod(path.c_str(),
                                                   grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRaw(index++);
  }
}

ServedCalls::ServedCalls(grpc::ServerBuilder& builder, CallQueue& queue, const MethodTable& methods)
    : queue_(queue), methods_(methods), unary_service_(methods) {
  for (const auto& [path, method] : methods.unary) {
    unary_.push_back(&method);
  }
  builder.RegisterService(&unary_service_);
  builder.RegisterAsyncGenericService(&others_);
}

void ServedCalls::Begin() {
  for (size_t index = 0; index < unary_.size(); ++index) {
    for (int i = 0; i < (unary_[index]->often ? kExpectedOften : kExpected); ++i) {
      ServedUnary::Expect(*this, static_cast<int>(index));
    }
  }
  for (int i = 0; i < kExpected; ++i) {
    ServedStream::Expect(*this);
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
  alarm.Set(&queue_.queue(), std::chrono::system_clock::now(), fence_.ForGrpc());
  MutexLock lock(mutex_);
  while (!passed_ || open_ > 0) {
    changed_.Wait(mutex_);
  }
}

}  // namespace strata
