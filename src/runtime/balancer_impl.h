// The balancer behind the public handles: its masters, and what concerns all of them. All handles
// share it, so that a handle which outlives the balancer still gets an answer.
//
// A call that concerns one master goes from its handle to that master (runtime/master.h), without
// coming by here.

#ifndef RINGMASTER_SRC_RUNTIME_BALANCER_IMPL_H_
#define RINGMASTER_SRC_RUNTIME_BALANCER_IMPL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/balancer.h"
#include "runtime/ending.h"
#include "runtime/master.h"
#include "runtime/shared.h"
#include "runtime/watched_files.h"

namespace ringmaster::internal {

// A source belongs to one master, a worker to all of them.
//
// Threads: any thread may call every function. No lock here is held while a master is waited for,
// because a hosted master may be waiting for the lock.
//
// fork: a child has a copy of all this. The parent's threads may have been in the middle of
// anything, under locks that nobody will ever release. So every function, here and of a master,
// asks which process this is before it takes a lock, or looks at what a thread may have been
// changing. Destruction in a child leaves all of that alone. It closes the child's copies of the
// descriptors, which stand in a table of their own (ring/process.h), and forgets the rest.
class BalancerImpl {
 public:
  static absl::StatusOr<std::shared_ptr<BalancerImpl>> Create(BalancerOptions options);
  ~BalancerImpl();
  BalancerImpl(const BalancerImpl&) = delete;
  BalancerImpl& operator=(const BalancerImpl&) = delete;

  struct AddedSource {
    Master* master;
    SourceKey key;
    uint64_t number;  // see WatchedFiles
  };
  absl::StatusOr<AddedSource> AddSource(int fd, SourceOptions options);
  absl::Status RemoveSource(const AddedSource& source);
  // Whether the descriptor of source `number` is still the file that was added.
  absl::Status CheckOpen(uint64_t number);

  struct AddedWorker {
    uint32_t index;
    PortShared* shared;  // with one holder: the port
  };
  absl::StatusOr<AddedWorker> AddWorker(const WorkerOptions& options);
  // The worker leaves the balancer and all sources, also when the balancer has ended already. In a
  // callback of a master nobody can wait for that master; there the worker has left when the
  // callback has returned.
  void RemoveWorker(uint32_t worker, PortShared* shared);
  absl::Status SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity);
  // From now on the worker watches this epoll set, which stays the caller's.
  absl::Status SetSight(uint32_t worker, PortShared* shared, int sight);
  absl::Status SetWindow(uint32_t worker, PortShared* shared, uint32_t window);

  // A balancer with a host has this one alone.
  Master& first_master() { return *masters_[0]; }

  absl::Status BeginShutdown(ShutdownOptions options);
  ShutdownReport Shutdown(ShutdownOptions options);
  std::optional<ShutdownReport> Ended() const;
  // Shuts down without waiting, also when nobody will drive a hosted master any more.
  void Close();
  BalancerStats Stats();

 private:
  explicit BalancerImpl(BalancerOptions options);

  // False in a forked child.
  bool ours() const { return environment_.shared->ours(); }
  void LetGoInChild();
  // Whether the calling thread is in a callback of one of the masters.
  bool InCallback() const { return masters_[0]->IsInside(); }
  absl::Status WithEach(absl::FunctionRef<absl::Status(Master&)> call);
  void RemoveWorkerFrom(size_t masters, uint32_t worker, PortShared* shared);

  std::mutex event_mutex_;  // several masters, one callback at a time
  MasterEnvironment environment_;
  // Objects of their own, because a forked child must not destroy them.
  std::unique_ptr<WatchedFiles> files_;
  std::unique_ptr<Ending> ending_;
  std::vector<std::unique_ptr<Master>> masters_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_BALANCER_IMPL_H_
