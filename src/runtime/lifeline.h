// The balancer itself, behind the public handles: its masters, and what concerns all of them. All
// handles share it, so that a handle which outlives the balancer still gets an answer.

#ifndef RINGMASTER_SRC_RUNTIME_LIFELINE_H_
#define RINGMASTER_SRC_RUNTIME_LIFELINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ring/process.h"
#include "ringmaster/balancer.h"
#include "runtime/descriptor.h"
#include "runtime/master.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// A source belongs to one master, a worker to all of them.
//
// Threads: any thread may call every function. No lock here is held while a master is waited for,
// because a hosted master may be waiting for the lock.
//
// fork: a child has a copy of all this. The parent's threads may have been in the middle of
// anything, under locks that nobody will ever release. So every function asks which process this is
// before it takes a lock, or looks at what a thread may have been changing. Destruction in a child
// leaves all of that alone. It closes the child's copies of the descriptors, which stand in a table
// of their own (ring/process.h), and forgets the rest.
class Lifeline {
 public:
  static absl::StatusOr<std::shared_ptr<Lifeline>> Create(BalancerOptions options);
  ~Lifeline();
  Lifeline(const Lifeline&) = delete;
  Lifeline& operator=(const Lifeline&) = delete;

  // A source as its handles know it. The index is public; the serial tells the source from others
  // that have had that index.
  struct SourceId {
    uint32_t index;
    uint64_t serial;
  };
  absl::StatusOr<SourceId> AddSource(int fd, SourceOptions options);
  absl::Status RemoveSource(SourceId source);
  struct NewWorker {
    uint32_t index;
    PortShared* shared;  // with one holder: the port
  };
  absl::StatusOr<NewWorker> AddWorker(const WorkerOptions& options);
  // The worker leaves the balancer and all sources, also when the balancer has ended already. In a
  // callback of a master nobody can wait for that master; there the worker has left when the
  // callback has returned.
  void RemoveWorker(uint32_t worker, PortShared* shared);

  absl::Status SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity);
  absl::Status SetWindow(uint32_t worker, PortShared* shared, uint32_t window);

  absl::Status Join(SourceId source, uint32_t worker, PortShared* shared, uint64_t token);
  absl::Status Leave(SourceId source, uint32_t worker, PortShared* shared);
  absl::Status SetPaused(SourceId source, bool paused);
  absl::Status Again(SourceId source, int error);
  absl::Status SetPolicy(SourceId source, std::unique_ptr<Policy> policy);

  // With a host.
  int fd() const { return InAnotherProcess() ? -1 : masters_[0]->fd(); }
  absl::Status RunOnce();
  void ComeBy() {
    if (!InAnotherProcess()) masters_[0]->ComeBy();
  }
  absl::Status Lend(RingLoan loan);
  bool OnCompletion(const io_uring_cqe& cqe) {
    return !InAnotherProcess() && masters_[0]->OnCompletion(cqe);
  }

  absl::Status BeginShutdown(ShutdownOptions options);
  ShutdownReport Shutdown(ShutdownOptions options);
  std::optional<ShutdownReport> Ended() const;
  // Shuts down without waiting, also when nobody will drive a hosted master any more.
  void Close();
  BalancerStats Stats();

 private:
  // A source that is being added, is there, or is being removed.
  struct SourceEntry {
    uint64_t number = 0;  // counts all sources that were ever entered
    FileId file;
    uint32_t master = 0;
    bool added = false;
    SourceId id{};  // once added
  };

  explicit Lifeline(BalancerOptions options);

  // Called by each master, see MasterEnvironment.
  void OnIntakeEnded();
  void OnEnded();

  bool InAnotherProcess() const;
  void LetGoInChild();
  // Whether the calling thread is in a callback of one of the masters.
  bool InCallback() const;
  // Refuses a forked child. Also refuses a callback of one of several masters: it might wait for
  // another master that waits for it. A single master checks that itself.
  absl::Status CheckCaller() const;
  absl::StatusOr<NewSource> Examine(int fd, const SourceOptions& options) const;
  struct Entered {
    uint64_t number;
    uint32_t master;
  };
  absl::StatusOr<Entered> EnterSource(int fd, int master);
  absl::Status CheckOpen(SourceId source);
  void RemoveWorkerFrom(size_t masters, uint32_t worker, PortShared* shared);

  Master& MasterOf(SourceId source) const { return *masters_[source.index % masters_.size()]; }
  Master::SourceId InMaster(SourceId source) const {
    return {.index = source.index / static_cast<uint32_t>(masters_.size()),
            .serial = source.serial};
  }

  const uint64_t process_ = ring::ThisProcess();
  std::mutex event_mutex_;  // several masters, one callback at a time

  std::mutex ending_mutex_;
  // Guarded by ending_mutex_: how many masters still have an intake, how many have not ended, and
  // whom to tell when none is left. Nobody is told while the mutex is held.
  uint32_t intakes_ = 0;
  uint32_t running_ = 0;
  std::vector<std::function<void()>> on_intake_ended_;
  std::vector<std::function<void(const ShutdownReport&)>> on_ended_;

  MasterEnvironment environment_;
  std::vector<std::unique_ptr<Master>> masters_;

  // What set-up functions share. It is an object of its own, because a forked child must not
  // destroy it.
  struct Books {
    std::mutex mutex;
    // Guarded by mutex.
    std::vector<SourceEntry> sources;
    uint64_t sources_entered = 0;
  };
  std::unique_ptr<Books> books_ = std::make_unique<Books>();
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_LIFELINE_H_
