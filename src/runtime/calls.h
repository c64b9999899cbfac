// The way in for other threads: calls that a master runs between two batches, and workers that
// leave without waiting for it.

#ifndef RINGMASTER_SRC_RUNTIME_CALLS_H_
#define RINGMASTER_SRC_RUNTIME_CALLS_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// The mutex guards what calls and the end of a master have in common; `changed` says that a call is
// done, that the master has ended, or that its host has gone.
struct MasterLock {
  std::mutex mutex;
  std::condition_variable changed;
};

// A call: a closure, on the stack of the thread that waits for it.
struct Call {
  absl::FunctionRef<absl::Status()> run;
  // If not null, the call ends only when this is true. It is asked after every batch.
  absl::FunctionRef<bool()>* until = nullptr;
  absl::Status result;
  bool done = false;     // with the lock, or on the master
  Call* next = nullptr;  // the queue's
};

class CallQueue {
 public:
  explicit CallQueue(MasterLock* lock) : lock_(*lock) {}
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // Any thread, with the lock. The call stays there until it is done.
  void Add(Call& call);
  // With the lock: whether calls have come and not been run.
  bool waiting() const { return first_ != nullptr; }

  // On the master, without the lock. Runs what has come, one after the other, without the lock.
  void Run();
  // The same: ends the calls whose condition has become true.
  void EndDue();
  // The same: a call that waits for its condition is not waited for any more.
  void Forget(const Call& call);

  // With the lock, at the end of the master: those not run get `status`, those that wait are done,
  // because there is nothing left to wait for.
  void EndAll(const absl::Status& status);

 private:
  MasterLock& lock_;
  // Guarded by the lock.
  Call* first_ = nullptr;
  Call* last_ = nullptr;
  // The master's own: those that have been run and wait for their condition.
  Call* ran_ = nullptr;
};

// Workers that leave from a callback, for which the master itself waits: so they cannot wait for
// it. Any thread.
class Departures {
 public:
  struct Departure {
    uint32_t worker = 0;
    PortShared* shared = nullptr;
  };

  // False after the last Take: the caller sees to it himself.
  bool Add(uint32_t worker, PortShared* shared);
  // All that have come. `last`: none is taken in any more.
  std::vector<Departure> Take(bool last);

 private:
  // A mutex of its own, because a callback may come while its thread has that of the master.
  std::mutex mutex_;
  std::vector<Departure> departures_;  // guarded by mutex_
  bool ended_ = false;                 // the same
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_CALLS_H_
