// SPDX-License-Identifier: Apache-2.0
//
// ServedCalls: the calls of a gRPC server go to the methods of a table, those of no method there
// get Unimplemented.
#pragma once

#include <grpcpp/generic/async_generic_service.h>

#include "services/rpc/call_queue.h"
#include "services/rpc/rpc_call.h"
#include "snapshotters/base/mutex.h"

namespace strata {

class ServedCalls {
 public:
  // All must outlive this, and this the queue's threads.
  ServedCalls(grpc::AsyncGenericService& service, CallQueue& queue, const MethodTable& methods)
      : service_(service), queue_(queue), methods_(methods) {}
  ServedCalls(const ServedCalls&) = delete;
  ServedCalls& operator=(const ServedCalls&) = delete;

  // Once the server is built.
  void Begin();

  // When the server has been shut down: returns once every method has ended its call, as the queue
  // takes nothing more when it is stopped.
  void WaitUntilEnded();

 private:
  friend class ServedCall;
  class Fence final : public CallQueue::Tag {
   public:
    explicit Fence(ServedCalls& all) : all_(all) {}
    void Proceed(bool ok) override;

   private:
    ServedCalls& all_;
  };

  void Opened();
  void Closed();

  grpc::AsyncGenericService& service_;
  CallQueue& queue_;
  const MethodTable& methods_;
  Mutex mutex_;
  CondVar changed_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  bool passed_ ABSL_GUARDED_BY(mutex_) = false;
  Fence fence_{*this};
};

}  // namespace strata
