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
  bool done = false;     // read and written with the lock, or on the thread of the master
  Call* next = nullptr;  // for the queue alone
};

// The calls of one master: those that have come and are to be run, and those that were run and wait
// for their condition. Borrows the lock. "With the lock" means that the caller holds its mutex.
class CallQueue {
 public:
  explicit CallQueue(MasterLock* lock) : lock_(*lock) {}
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // Any thread, with the lock. The call stays there until it is done.
  void Add(Call& call);
  // With the lock: whether calls have come and not been run.
  bool waiting() const { return first_ != nullptr; }

  // On the thread of the master, without the lock. Runs the calls that have come, one after the
  // other. The lock is free while a call runs, because the call may take it.
  void Run();
  // On the thread of the master, without the lock. Ends the calls whose condition has become true.
  void EndDue();
  // On the thread of the master, without the lock. The call no longer waits for its condition, so
  // that its caller may return.
  void Forget(const Call& call);

  // With the lock, at the end of the master. Calls that were not run get `status` as their result.
  // Calls that wait for their condition are done, because nothing can change it any more.
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

  // False after the last Take: then the caller must remove the worker by itself.
  bool Add(uint32_t worker, PortShared* shared);
  // Returns all that have come since the last call. `last`: Add refuses all that come later.
  std::vector<Departure> Take(bool last);

 private:
  // A mutex of its own, because a callback may come while its thread has that of the master.
  std::mutex mutex_;
  std::vector<Departure> departures_;  // guarded by mutex_
  bool ended_ = false;                 // the same
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_CALLS_H_
