// SPDX-License-Identifier: Apache-2.0
//
// ServedCalls: the calls of a gRPC server go to the methods of a table, those of no method there
// get Unimplemented.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/async_unary_call.h>

#include <memory>
#include <vector>

#include "services/rpc/call_queue.h"
#include "services/rpc/rpc_call.h"
#include "snapshotters/base/mutex.h"

namespace strata {

class ServedCalls {
 public:
  // Registers with `builder`, whose queue is `queue`. All must outlive this, and this the queue's
  // threads.
  ServedCalls(grpc::ServerBuilder& builder, CallQueue& queue, const MethodTable& methods);
  ServedCalls(const ServedCalls&) = delete;
  ServedCalls& operator=(const ServedCalls&) = delete;

  // Once the server is built.
  void Begin();

  // When the server has been shut down: returns once every method has ended its call, as the queue
  // takes nothing more when it is stopped.
  void WaitUntilEnded();

 private:
  template <typename Call>
  friend class OpenCall;
  friend class ServedUnary;
  friend class ServedStream;

  // The unary methods: gRPC reads the request of a method that it knows before it tells of the
  // call, which spares a step of each.
  class UnaryService final : public grpc::Service {
   public:
    explicit UnaryService(const MethodTable& methods);
    void Request(int index, grpc::ServerContext* context, grpc::ByteBuffer* request,
                 grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* response,
                 grpc::ServerCompletionQueue* queue, void* tag) {
      RequestAsyncUnary(index, context, request, response, queue, queue, tag);
    }
  };
  class Fence final : public CallQueue::Tag {
   public:
    explicit Fence(ServedCalls& all) : all_(all) {}
    void Proceed(bool ok) override;

   private:
    ServedCalls& all_;
  };

  void Opened();
  void Closed();

  CallQueue& queue_;
  const MethodTable& methods_;
  std::vector<const UnaryMethod*> unary_;  // by their index in unary_service_
  UnaryService unary_service_;
  grpc::AsyncGenericService others_;
  Mutex mutex_;
  CondVar changed_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  bool passed_ ABSL_GUARDED_BY(mutex_) = false;
  Fence fence_{*this};
};

}  // namespace strata
