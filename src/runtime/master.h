// One master: the engine and the ring that it drives, the thread that does so (its own, or that of
// a host), and the way in for all other threads.

#ifndef RINGMASTER_SRC_RUNTIME_MASTER_H_
#define RINGMASTER_SRC_RUNTIME_MASTER_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine.h"
#include "ring/features.h"
#include "ring/lent_ring.h"
#include "ring/master_ring.h"
#include "ring/process.h"
#include "ring/uring_ring.h"
#include "ringmaster/balancer.h"
#include "runtime/calls.h"
#include "runtime/descriptor.h"
#include "runtime/roster.h"
#include "runtime/shared.h"
#include "runtime/thread_watch.h"

namespace ringmaster::internal {

// What is the same for all masters of a balancer. Outlives them.
struct MasterEnvironment {
  BalancerOptions options;
  ring::Features features;
  CpuTopology topology;
  std::shared_ptr<BalancerShared> shared;
  // Each master calls each of these once, on the thread that drives it; when nobody drives it, on
  // the thread that closes it. The first says that the master refers to no source any more, the
  // second that it has ended and its report is there.
  std::function<void()> intake_ended;
  std::function<void()> ended;
};

// A handle calls the master of its source directly. So what is true of every call is checked here:
// a forked child is refused, and so is code that a master of this balancer has called (IsInside). A
// forked child runs no destructor, see BalancerImpl.
//
// Threads: any thread may call the public functions, except from within the master itself. The
// master's own functions say so. Set-up is a Call: a closure that the master runs between two
// batches, while the caller waits.
//
// With a host: nobody drives the master before the first RunOnce, and after the host's thread has
// ended. Then nothing of it is armed or under way, and each caller runs its own call at once. The
// next thread that calls RunOnce becomes the host.
//
// Indexes of sources are the master's own here; everybody else knows the source by
// Roster::PublicIndex.
class Master {
 public:
  // `index` among the masters of the balancer.
  static absl::StatusOr<std::unique_ptr<Master>> Create(const MasterEnvironment* environment,
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
  absl::Status SetWindow(uint32_t worker, PortShared* shared, uint32_t window);

  absl::Status Join(SourceKey source, uint32_t worker, PortShared* shared, uint64_t token);
  absl::Status Leave(SourceKey source, uint32_t worker, PortShared* shared);
  absl::Status SetPaused(SourceKey source, bool paused);
  absl::Status SetPolicy(SourceKey source, std::unique_ptr<Policy> policy);
  // Any thread; does not wait. FailedPrecondition when the source was removed, or the master has
  // ended.
  absl::Status GiveBack(SourceKey source, int error);

  // With a host.
  int fd() const;
  absl::Status RunOnce();
  // On the host's thread, in the middle of its own work: does what RunOnce does, if there is
  // something to do.
  void ComeBy();
  absl::Status Lend(RingLoan loan);
  bool OnCompletion(const io_uring_cqe& cqe);

  // Asks for the end: the intake stops, and everything ends by `until_ns` of the monotonic clock,
  // or earlier if that was asked for before. Does not wait; on the master's own thread, too.
  void BeginShutdown(int64_t until_ns);
  // Waits for the end that was asked for. Must not be called where IsInside.
  ShutdownReport FinishShutdown();
  // Null until it has ended.
  std::optional<ShutdownReport> FinalReport() const;
  // Shuts down without waiting, also when nobody will drive a hosted master any more.
  void Close();
  BalancerStats Stats();

  // Whether the calling thread drives this master.
  bool OnMaster() const;
  // Whether this master, or another one of the same balancer, has called the code that asks. Then
  // that code must not wait for any of them: another master may be waiting for its turn to call
  // back. Takes no lock.
  bool IsInside() const;

 private:
  // While this object lives, the calling thread is inside `master`: in a step, or in a call that
  // changes it. The master may then call code of the program: policies, the event callback, the
  // functions of a loan. What that code asks of the same master is refused, because it would be
  // done in the middle of something.
  class Inside {
   public:
    explicit Inside(const Master& master);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    friend class Master;
    // The innermost object of this thread.
    static thread_local const Inside* innermost;
    const Master* const master_;
    const Inside* const outer_;
  };

  Master(const MasterEnvironment* environment, uint32_t index);

  absl::Status StartThread();
  // Runs `run` on the master's thread between two batches and waits for it. FailedPrecondition in a
  // forked child, after the end, and inside a master of this balancer.
  absl::Status RunOnMaster(absl::FunctionRef<absl::Status()> run,
                           absl::FunctionRef<bool()>* until = nullptr);

  // The same on the thread of the host, where nobody else would run it. It runs as part of a step,
  // like the calls of other threads. So nothing is set up while operations of the last batch are
  // still pending here; those name descriptors by their numbers.
  absl::Status RunOnHost(absl::FunctionRef<absl::Status()> run, absl::FunctionRef<bool()>* until);
  absl::Status HandOverLoan();

  bool hosted() const { return options_.host != Host::kThread; }
  // Whether the ring is lent. Then the host's loop reaps, so nothing can be waited for on the
  // host's thread.
  bool rides() const { return options_.host == Host::kRing; }
  // Whether the ring that was lent has brought more than the engine had room for.
  bool KeepsBack() const { return lent_ != nullptr && lent_->KeepsBack(); }
  absl::Status BecomeHost();
  // Called on the thread of the host when that ends.
  void OnHostEnds();
  bool ComeToRest();
  void RetireLoan();
  void LetHostGo();
  void SayHostGone();
  void EndOnLoan();
  void EndDriven(absl::Status status);

  // --- On the master's thread. -----------------------------------------------------------------
  void Run();
  // Step does one turn of the ring and one batch, with what belongs to them. Advance does as many
  // steps as there is something to do, without waiting. Both return false when the master has
  // ended.
  bool Step(core::Wait wait);
  bool TurnAndBatch(core::Wait wait);
  struct TurnHost;  // see core/turn.h
  bool Advance();
  void RunCalls();
  void ObeyShutdown();
  bool SourcesReleased() const;
  void SayIntakeEnded();
  void MeasureTurns();
  void CallBack(const Event& event);
  int64_t WaitMax(int64_t now_ns);
  bool Drained(int64_t now_ns);
  void FillStats(BalancerStats& stats);
  void ReleaseWorker(uint32_t worker);
  void CloseRings();
  void LetGoOfRings();
  // RefuseWithoutRing is for a ring that can do nothing any more. What the ring has reported is
  // still read, and `reported` before it.
  void RefuseAll();
  void RefuseWithoutRing(std::vector<core::Completion> reported = {});
  void TakeRemaining();
  void BatchWithoutRing(bool all_reported, std::vector<core::Op>* not_done = nullptr);
  void LastTurns();
  void TellEnd();
  void CountEnd();
  void End(absl::Status status);

  const MasterEnvironment& environment_;
  const BalancerOptions& options_;
  const uint32_t index_;
  MasterShared* const shared_;
  std::unique_ptr<ring::MasterRing> ring_;                  // Host::kRing: null until it is lent
  ring::UringRing* own_ = nullptr;                          // the same, if it is the master's own
  ring::LentRing* lent_ = nullptr;                          // the same, Host::kRing
  std::vector<std::unique_ptr<ring::LentRing>> old_loans_;  // of hosts that have ended
  std::unique_ptr<core::Engine> engine_;
  pthread_t thread_{};       // of its own
  bool has_thread_ = false;  // written before anybody else knows the master
  // The thread that drives the master, as ThisThread numbers it; 0: nobody does. A thread that
  // finds its own number here has written it itself, hence relaxed.
  std::atomic<uint64_t> driver_{0};
  // With the lock: the host's thread is ending, and lets go of the master.
  bool host_ends_ = false;
  std::unique_ptr<ThreadWatch> watch_;  // of hosts

  // The master's own, once its thread runs.
  Roster roster_;
  std::vector<core::Completion> completions_;
  std::vector<core::Op> ops_;  // of the last batch, not yet handed over
  int64_t now_ns_ = 0;         // of the last batch
  bool in_event_ = false;      // in the event callback
  bool loan_ended_ = false;
  uint64_t wakes_ = 0;
  int64_t cpu_ns_ = 0;  // of its thread, when it was last read
  bool shutting_down_ = false;
  bool end_counted_ = false;
  bool intake_ended_said_ = false;
  std::optional<uint64_t> refused_before_;  // what was left is being refused
  bool drain_ended_ = false;                // at the deadline: what is left is being refused
  int64_t drain_until_ns_ = 0;

  const std::unique_ptr<MasterLock> sync_ = std::make_unique<MasterLock>();
  CallQueue calls_{sync_.get()};
  Departures departures_;
  // Guarded by sync_->mutex.
  bool ended_ = false;
  absl::Status end_status_;  // why calls are refused, once ended_
  ShutdownReport report_;    // just before ended_
  bool has_report_ = false;
  bool abandoned_ = false;               // it was shut down before any host came
  std::optional<int64_t> end_asked_ns_;  // BeginShutdown, not yet obeyed
  bool thread_joined_ = false;
};

int64_t MonotonicNow();

absl::Status CalledFromCallback();

// A forked child has called.
absl::Status BalancerOfParent();

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_MASTER_H_
