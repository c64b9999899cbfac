// A worker whose loop is an io_uring of its own, for the mechanisms in which one is. What they have
// in common is how connections are served: a one-shot poll for each that is waited for, submitted
// by the call that waits. Where they come from is each mechanism's own.
//
// A worker may live on the file table of its ring instead. Then a connection is a slot of that
// table, and slot_service.h serves it.

#ifndef RINGMASTER_BENCH_MECHANISMS_URING_WORKER_H_
#define RINGMASTER_BENCH_MECHANISMS_URING_WORKER_H_

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/slot_service.h"
#include "bench/mechanisms/thread_server.h"
#include "bench/serving.h"

namespace ringmaster::bench {

// What the connections of a worker are.
enum class ConnectionsAre : uint8_t {
  kDescriptors,
  kSlots,        // of its ring's file table
  kLeasedSlots,  // the same, and OnClosed is called when the slot is free, for who releases a lease
};

class UringWorker {
 public:
  UringWorker(const UringWorker&) = delete;
  UringWorker& operator=(const UringWorker&) = delete;
  virtual ~UringWorker() = default;

  // The worker's thread. Says by `ready` whether it takes part. Closes its ring when it ends.
  // `stop_fd` becomes readable when the server stops.
  void Run(int stop_fd, std::promise<absl::Status> ready);

 protected:
  // The mechanism's own user_data begin here: a connection's is its descriptor, and those are never
  // as large as this. Nor are those of slots.
  static constexpr uint64_t kOwn = uint64_t{1} << 32;

  UringWorker(const ServerOptions& options, uint32_t index,
              ConnectionsAre connections = ConnectionsAre::kDescriptors);

  // Called on the worker's thread when the ring is there: makes sure that connections come.
  virtual absl::Status Begin() = 0;

  // Around the call in which it waits.
  virtual void BeforeWait() {}
  virtual void AfterWait() {}

  // Between two requests of a turn.
  virtual void BetweenRequests() {}

  // A completion with user_data of the mechanism's own.
  virtual void OnCompletion(const io_uring_cqe& completion) = 0;

  // Called when all that a turn brought has been handled. Whether there is more to do before the
  // ring is waited for.
  virtual bool OnTurnEnd() = 0;

  // Called before it begins with one of `ready` connections that have something to do: how many of
  // them are better passed on to other workers. Then `PassOn` does so with each, and returns
  // whether somebody else has it now. Not called for slots: their requests have been read by then.
  virtual size_t ToPassOn(size_t /*ready*/) { return 0; }
  virtual bool PassOn(int /*fd*/) { return false; }

  // Told to take no more.
  virtual void Leave() = 0;

  // Called when the descriptor of a connection has been closed, or its slot.
  virtual void OnClosed(int connection) = 0;

  // Called before the ring is closed.
  virtual void End() {}

  // Makes of a descriptor what connections are here. Negative, and the descriptor closed, if there
  // is no slot for it.
  int Place(int fd);

  // Serves a connection that is non-blocking.
  void Take(int connection);

  // For what the mechanism submits; it goes out with the call that waits.
  io_uring_sqe* NextEntry();

  Serving& serving() { return serving_; }
  io_uring& ring() { return ring_; }

 private:
  void Loop();
  void OnSlotCompletion(const io_uring_cqe& completion);
  bool Ended(bool stop);
  size_t PassOnSome(std::span<const int> ready);
  void Watch(int fd, uint64_t data);
  void Close(int fd);

  static constexpr uint64_t kStop = kOwn - 1;

  const uint32_t index_;
  Serving serving_;
  io_uring ring_{};
  std::vector<bool> open_;              // by descriptor
  std::unique_ptr<SlotService> slots_;  // null: connections are descriptors
  bool left_ = false;
};

// Why this machine has no such rings; empty if it has. Cause and remedy.
std::string WhyNoWorkerRings();

// The same for rings with file tables. `also` is something else that is tried with one.
std::string WhyNoWorkerTables(const std::function<absl::Status(const io_uring& ring)>& also = {});

class UringServer : public ThreadServer {
 public:
  ~UringServer() override { Stop(); }

  // Starts the workers one after the other, so that everybody counts them alike.
  absl::Status Start(std::vector<std::unique_ptr<UringWorker>> workers);

 protected:
  void Stop();

 private:
  std::vector<std::unique_ptr<UringWorker>> workers_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_URING_WORKER_H_
