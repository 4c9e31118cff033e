// SPDX-License-Identifier: Apache-2.0
//
// CallQueue: gRPC's completion queue and the threads that serve it. One thread at a time leads: it
// reads the sockets, runs what has come, and writes the answers, so that a call that only reads
// never goes from thread to thread (figures: ARCHITECTURE.md). A second thread is there to lead
// when the first is about to block (HandOver), and when it has blocked without saying so.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "snapshotters/base/mutex.h"

namespace strata {

class CallQueue {
 public:
  // What gRPC is given to say that something is done; used once for each thing that is begun.
  class Tag {
   public:
    // On the thread that leads.
    virtual void Proceed(bool ok) = 0;

    // What gRPC is given, right before that.
    void* ForGrpc();

   protected:
    ~Tag() = default;
  };

  // That gRPC hands a thing from thread to thread, ThreadSanitizer cannot see: Debian's build of
  // gRPC is not made for it. To be said of what goes in, and of what comes back.
  static void GoesToGrpc(void* thing);
  static void ComesFromGrpc(void* thing);

  // Something that is ready to be sent.
  class Outgoing {
   public:
    virtual void Send() = 0;

   protected:
    ~Outgoing() = default;
  };

  // How long the leader may take over one thing before another thread leads.
  static constexpr std::chrono::milliseconds kMostPatience{1000};

  explicit CallQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue,
                     std::chrono::milliseconds patience = kMostPatience);
  ~CallQueue() { Stop(); }
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // Once its server is built.
  void Start();

  [[nodiscard]] grpc::ServerCompletionQueue& queue() { return *queue_; }

  // To be called from Proceed: what follows may block. False: no other thread could lead, so it
  // must not be done here.
  [[nodiscard]] bool HandOver();

  // From Proceed: keeps `answer` until all that has come is run, and sends it with the others then.
  // Each one that is sent wakes up its client, which costs less when many are sent at once: the
  // client is awake still. False, from a thread that does not lead: it is to be sent now.
  [[nodiscard]] bool SendLater(Outgoing& answer);

  // Runs what is left, and ends the threads. The server has been shut down.
  void Stop();

 private:
  void Run();
  bool WaitForTurn(uint64_t* turn);
  void Lead(uint64_t turn);
  // False: the queue has ended. A null tag: answers were sent instead.
  bool NextTag(void** tag, bool* ok);
  void SendAnswers();
  void AddThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  const std::chrono::milliseconds patience_;
  // Changes with the leader; who leads looks at it between two things.
  std::atomic<uint64_t> turn_{0};
  // Odd while the leader runs something; another number each time.
  std::atomic<uint64_t> steps_{0};

  Mutex answers_mutex_;
  std::vector<Outgoing*> answers_ ABSL_GUARDED_BY(answers_mutex_);

  Mutex mutex_;
  CondVar changed_;
  bool led_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread::id leader_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace strata
