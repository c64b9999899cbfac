// One master, as handles and the balancer call it: set-up, the end, statistics. What it does with
// its ring stands in runtime/turns.h, and which thread does that in runtime/driver.h.

#ifndef RINGMASTER_SRC_RUNTIME_MASTER_H_
#define RINGMASTER_SRC_RUNTIME_MASTER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine.h"
#include "ringmaster/balancer.h"
#include "runtime/descriptor.h"
#include "runtime/driver.h"
#include "runtime/environment.h"
#include "runtime/roster.h"
#include "runtime/shared.h"
#include "runtime/turns.h"

namespace ringmaster::internal {

// A handle calls the master of its source directly. So what is true of every call is checked here:
// a forked child is refused, and so is code that a master of this balancer has called (IsInside). A
// forked child runs no destructor, see BalancerImpl.
//
// Threads: any thread may call the public functions, except from within the master itself. The
// master's own functions say so. Set-up is a Call: a closure that is run between two batches,
// while the caller waits.
//
// Indexes of sources are the master's own here; everybody else knows the source by
// Roster::PublicIndex.
class Master {
 public:
  // `index` among the masters of the balancer.
  static absl::StatusOr<std::unique_ptr<Master>> Create(const MasterEnvironment& environment,
                                                        uint32_t index);
  ~Master();
  Master(const Master&) = delete;
  Master& operator=(const Master&) = delete;

  // By which users know the source.
  uint32_t PublicIndex(SourceKey source) const { return roster_.PublicIndex(source.index); }

  absl::StatusOr<SourceKey> AddSource(const NewSource& source, SourceOptions options);
  absl::Status RemoveSource(SourceKey source);
  // `worker` is an index that no worker has yet.
  absl::Status AddWorker(uint32_t worker, const WorkerOptions& options, PortShared* shared);
  // The worker leaves all sources of this master, also when the master has ended already.
  // Afterwards nothing here refers to the worker's ring.
  void RemoveWorker(uint32_t worker, PortShared* shared);
  // The same between the next two batches, without waiting: for callers in a callback of a master.
  void RemoveWorkerSoon(uint32_t worker, PortShared* shared);

  absl::Status SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity);
  absl::Status SetSight(uint32_t worker, PortShared* shared, int sight);
  void ForgetSight(uint32_t worker, PortShared* shared);
  absl::Status SetWindow(uint32_t worker, PortShared* shared, uint32_t window);

  absl::Status Join(SourceKey source, uint32_t worker, PortShared* shared, uint64_t token);
  absl::Status Leave(SourceKey source, uint32_t worker, PortShared* shared);
  absl::Status SetPaused(SourceKey source, bool paused);
  absl::Status SetPolicy(SourceKey source, std::unique_ptr<Policy> policy);
  // Any thread; does not wait. FailedPrecondition when the source was removed, or the master has
  // ended.
  absl::Status GiveBack(SourceKey source, int error);
  // Any thread; does not wait. On an error nothing has changed. Otherwise the descriptor is the
  // master's, and so are the places that the lease had, but for the worker's, which is free.
  absl::Status PassOn(SourceKey source, int fd, PortShared* giver, core::Gate* of_source,
                      PassOnOptions options);

  // With a host, see runtime/driver.h.
  int fd() const { return ours() ? driver_->fd() : -1; }
  absl::Status RunOnce();
  void ComeBy();
  absl::Status Lend(RingLoan loan);
  bool OnCompletion(const io_uring_cqe& cqe) { return ours() && driver_->OnCompletion(cqe); }

  // Asks for the end: the intake stops, and everything ends by `until_ns` of the monotonic clock,
  // or earlier if that was asked for before. Does not wait; on the master's own thread, too.
  void BeginShutdown(int64_t until_ns) { driver_->BeginShutdown(until_ns); }
  // Waits for the end that was asked for. Must not be called where IsInside.
  ShutdownReport FinishShutdown();
  // Null until it has ended.
  std::optional<ShutdownReport> FinalReport() const;
  // Shuts down without waiting, also when nobody will drive a hosted master any more.
  void Close();
  BalancerStats Stats();

  // Whether this master, or another one of the same balancer, has called the code that asks. Then
  // that code must not wait for any of them: another master may be waiting for its turn to call
  // back. Takes no lock.
  bool IsInside() const;

 private:
  Master(const MasterEnvironment& environment, uint32_t index, std::unique_ptr<Driver> driver);

  // False in a forked child.
  bool ours() const { return environment_.shared->ours(); }
  // FailedPrecondition in a forked child, and inside a master of this balancer.
  absl::Status CheckCaller() const;
  // Has `run` run between two batches and waits for it; with `until` also until that is true, see
  // Call. FailedPrecondition by CheckCaller, and after the end.
  absl::Status Run(absl::FunctionRef<absl::Status()> run,
                   absl::FunctionRef<bool()>* until = nullptr);

  const MasterEnvironment& environment_;
  const uint32_t index_;
  const std::unique_ptr<Driver> driver_;
  // Of the driver: what it takes, and what set-up needs of its parts.
  Turns& turns_;
  MasterShared& shared_;
  core::Engine& engine_;
  Roster& roster_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_MASTER_H_
