// The balancer itself, behind the public handles: the master's thread, what it drives, and the way
// in for everybody else. Handles share it, so that one which outlives the balancer gets an answer.

#ifndef RINGMASTER_SRC_RUNTIME_LIFELINE_H_
#define RINGMASTER_SRC_RUNTIME_LIFELINE_H_

#include <pthread.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine.h"
#include "ring/uring_ring.h"
#include "ringmaster/balancer.h"
#include "runtime/descriptor.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// Threads: the public functions from any thread but the master's. The master's own functions say
// so. Set-up runs as calls: a closure that the master runs between two batches, while the caller
// waits.
class Lifeline {
 public:
  static absl::StatusOr<std::shared_ptr<Lifeline>> Create(BalancerOptions options);
  ~Lifeline();
  Lifeline(const Lifeline&) = delete;
  Lifeline& operator=(const Lifeline&) = delete;

  // The serial tells a source from others that have had its index.
  struct SourceId {
    uint32_t index;
    uint64_t serial;
  };
  absl::StatusOr<SourceId> AddSource(int fd, SourceOptions options);
  absl::Status RemoveSource(SourceId source);
  struct NewWorker {
    uint32_t index;
    PortShared* shared;  // with one holder for the port
  };
  absl::StatusOr<NewWorker> AddWorker(const WorkerOptions& options);
  // The worker leaves everything. OK also when the master is gone already.
  void RemoveWorker(uint32_t worker, PortShared* shared);

  absl::Status SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity);
  absl::Status SetWindow(uint32_t worker, PortShared* shared, uint32_t window);

  absl::Status Join(SourceId source, uint32_t worker, PortShared* shared, uint64_t token);
  absl::Status Leave(SourceId source, uint32_t worker, PortShared* shared);
  absl::Status SetPaused(SourceId source, bool paused);
  absl::Status Again(SourceId source, int error);
  absl::Status SetPolicy(SourceId source, std::unique_ptr<Policy> policy);

  // Host::kLoop.
  int fd() const;
  absl::Status RunOnce();

  ShutdownReport Shutdown(absl::Duration drain);
  // Shuts down without waiting, also when nobody will drive a hosted master any more.
  void Close();
  BalancerStats Stats();

 private:
  struct Call {
    absl::FunctionRef<absl::Status()> run;
    // If any, the call ends only when this is true, which is asked after every batch.
    absl::FunctionRef<bool()>* until = nullptr;
    absl::Status result;
    bool done = false;
    Call* next = nullptr;
  };
  // A source as set-up sees it; by index.
  struct SourceEntry {
    bool used = false;
    uint64_t serial = 0;
    FileId file;
    int fd = -1;
    bool tickets = false;
  };
  // A worker as set-up sees it; by index.
  struct WorkerEntry {
    PortShared* shared = nullptr;  // null: free
    int ring_fd = -1;              // our duplicate
    Handoff handoff = Handoff::kInbox;
    uint32_t window = 0;  // as added
  };

  explicit Lifeline(BalancerOptions options);

  absl::Status StartThread();
  bool InAnotherProcess() const;
  // Runs `run` on the master's thread between two batches and waits for it. FailedPrecondition in a
  // forked child, after the end, and on the master's thread itself.
  absl::Status RunOnMaster(absl::FunctionRef<absl::Status()> run,
                           absl::FunctionRef<bool()>* until = nullptr);

  // The same on the thread of the host, where nobody else would run it.
  absl::Status RunOnHost(absl::FunctionRef<absl::Status()> run, absl::FunctionRef<bool()>* until);

  bool hosted() const { return options_.host == Host::kLoop; }
  // Whether the calling thread drives the master.
  bool OnMaster() const;
  // Whether a worker may be added without a ring, by these options.
  absl::Status CheckOnHost(const WorkerOptions& options) const;

  // --- On the master's thread. -----------------------------------------------------------------
  void Run();
  // One turn of the ring and one batch; or as many as there is something to do, without waiting.
  // False: it has ended.
  bool Step(int64_t wait_ns);
  bool TurnAndBatch(int64_t wait_ns);
  bool Advance();
  void RunCalls();
  void TakeGivenBack();
  void EndCalls();
  // Errors when the handle is of no use any more.
  absl::Status CheckSource(SourceId source) const;
  absl::Status CheckWorker(uint32_t worker, const PortShared* shared) const;
  void Report(const core::EngineEvent& event);
  int64_t WaitMax(int64_t now_ns);
  bool Drained(int64_t now_ns);
  uint64_t OpenTotal() const;
  void FillStats(BalancerStats& stats);
  void ReleaseWorker(uint32_t worker);
  void CloseRings();
  void RefuseWithoutRing();
  void End(absl::Status status);

  const BalancerOptions options_;
  const pid_t process_;
  std::shared_ptr<MasterShared> master_;
  CpuTopology topology_;
  ring::Features features_;
  std::unique_ptr<ring::UringRing> ring_;
  std::unique_ptr<core::Engine> engine_;
  pthread_t thread_{};       // that drives the master
  bool has_thread_ = false;  // written before the handle is shared

  // The master's own, once its thread runs.
  std::vector<SourceEntry> sources_;
  std::vector<WorkerEntry> workers_;
  std::vector<int> rings_to_close_;  // of workers that have left
  WorkerStats departed_;
  uint64_t source_serial_ = 0;
  Call* waiting_calls_ = nullptr;
  std::vector<core::Completion> completions_;
  std::span<const core::Op> ops_;  // of the last batch
  int64_t now_ns_ = 0;             // of the last batch
  bool in_step_ = false;
  uint64_t wakes_ = 0;
  bool shutting_down_ = false;
  bool drain_ended_ = false;  // at the deadline: what is left is being refused
  int64_t drain_until_ns_ = 0;

  // Apart, because a forked child must not destroy it: it may have been locked or waited on at the
  // moment of the fork, and destroying a condition variable waits for its waiters.
  struct Sync {
    std::mutex mutex;
    std::condition_variable changed;
  };
  std::unique_ptr<Sync> sync_ = std::make_unique<Sync>();
  // Guarded by sync_->mutex.
  Call* first_call_ = nullptr;
  Call* last_call_ = nullptr;
  bool ended_ = false;
  absl::Status end_status_;  // why calls are refused, once ended_
  ShutdownReport report_;    // once ended_
  bool thread_joined_ = false;
  bool host_known_ = false;  // Host::kLoop: RunOnce was called, by `thread_`
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_LIFELINE_H_
