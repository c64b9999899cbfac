// A world on one thread: a clock that only events move, a kernel with listeners and descriptors,
// workers, leases, and a master that runs the library's own engine through the seam, turn by turn,
// exactly as the runtime does. Given the same configuration everything happens in the same order.
//
// A run has two parts. While traffic is on, faults strike. Then arrivals and faults stop, and all
// that has arrived must be served within bounded time (or, in some runs, be served or refused by a
// shutdown). A bound on events and batches turns every endless loop into a failure.

#ifndef RINGMASTER_SRC_SIM_WORLD_H_
#define RINGMASTER_SRC_SIM_WORLD_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/engine.h"
#include "core/op.h"
#include "core/port_state.h"
#include "sim/checker.h"
#include "sim/config.h"
#include "sim/counters.h"
#include "sim/prng.h"
#include "sim/sim_ring.h"
#include "sim/sim_worker.h"
#include "sim/trace.h"
#include "sim/watched_policy.h"

namespace ringmaster::sim {

class World {
 public:
  static constexpr int32_t kWatchFd = 900'000;
  static int32_t SourceFd(uint32_t source) { return 1'000'000 + static_cast<int32_t>(source); }
  static int32_t RingFd(uint32_t worker) { return 2'000'000 + static_cast<int32_t>(worker); }
  static uint64_t Tag(uint32_t worker) { return 3'000'000 + worker; }

  // Borrows the trace.
  World(const SimConfig& config, Breakage breakage, Trace* trace);

  // Runs to the end or to the first failure; see checker().
  void Run();

  const SimConfig& config() const { return config_; }
  Checker& checker() { return checker_; }
  const Counters& counters() const { return counters_; }

  // --- Time and chance. ---
  int64_t now_ns() const { return now_ns_; }
  Prng& prng() { return prng_; }
  // Runs the next event if it is due by then. Otherwise lets the time pass (except for ever) and
  // returns false.
  bool StepUntil(int64_t until_ns);
  // Lets `ns` pass and runs what is due meanwhile.
  void Pass(int64_t ns);
  // Whether a fault strikes on this occasion.
  bool Happens(Fault fault);
  // Whether this run breaks this part, and does so on this occasion.
  bool Breaks(Breakage breakage, Ratio how_often = {1, 1});
  void Reached(Milestone milestone) { ++counters_.milestones[static_cast<size_t>(milestone)]; }
  void Note(std::string_view what, int64_t a = 0, int64_t b = 0, int64_t c = 0) {
    trace_->Note(now_ns_, what, a, b, c);
  }

  int64_t TurnCost() { return 100 + prng_.Between(0, config_.turn_ns_max); }
  int64_t MasterWakeCost();
  int64_t WorkerWakeCost() { return prng_.Between(0, config_.wake_ns_max); }
  int64_t StepCost() { return prng_.Chance({1, 4}) ? prng_.Between(0, 2'000) : 20; }
  int64_t StallTime();
  int64_t ServiceTime(uint32_t connection);

  // --- The kernel, for the ring. ---
  size_t Backlog(uint32_t source) const { return backlogs_[source].size(); }
  bool OutOfDescriptors() const { return fds_open_ >= descriptors_max_; }
  // A descriptor, or -errno; EAGAIN when the backlog is empty. The descriptor is allocated before
  // the kernel looks, so EMFILE comes also when there is nothing to accept.
  int32_t AcceptOne(uint32_t source, Arrival& facts);
  int32_t Doorbell(const core::Op& op);
  void CloseRefused(int32_t fd);

  // --- For the workers. ---
  core::Hunger& hunger() { return hunger_; }
  void ScheduleStep(uint32_t worker, int64_t after_ns);
  uint32_t Serve(uint32_t worker, uint64_t word);
  void OnCallbackEnd(uint32_t worker, uint32_t connection);
  void Knock(uint32_t worker);
  void AskToLeave(uint32_t worker);

 private:
  enum class Happening : uint8_t {
    kArrival,
    kStep,
    kDoorbell,
    kClose,         // a lease ends: its descriptor
    kRelease,       // its place
    kReleaseKnock,  // its knock
    kJoin,
    kJoinSource,
    kResume,
    kTrafficEnds,
    kDeadline,
  };
  struct Event {
    int64_t at_ns = 0;
    uint64_t order = 0;
    Happening what = Happening::kArrival;
    uint32_t a = 0;
    uint32_t b = 0;
  };
  struct Later {
    bool operator()(const Event& left, const Event& right) const {
      return left.at_ns != right.at_ns ? left.at_ns > right.at_ns : left.order > right.order;
    }
  };
  enum class CallKind : uint8_t {
    kAddWorker,
    kRemoveWorker,
    kJoin,
    kLeave,
    kPause,
    kResume,
    kStopIntake,
    kRefuseAll
  };
  // What another thread asks of the master; done between two batches.
  struct Call {
    CallKind kind = CallKind::kPause;
    uint32_t source = 0;
    uint32_t worker = 0;
  };
  struct Connection {
    uint32_t source = 0;
    int32_t fd = -1;
    Arrival facts;
    bool closes_in_callback = false;
  };
  struct Source {
    std::vector<uint32_t> joined;  // workers
    bool steady = true;            // the same workers have joined all the while
    bool paused = false;
    WatchedPolicy* policy = nullptr;  // owned by the engine
  };
  enum class Phase : uint8_t { kTraffic, kDrain, kShutdown, kOver };

  void Schedule(int64_t after_ns, Happening what, uint32_t a = 0, uint32_t b = 0);
  void Do(const Event& event);
  void Arrive(uint32_t source);
  Arrival DrawFacts();
  void ScheduleArrival();
  void MakeMischief();
  void CloseConnection(uint32_t worker, uint32_t connection);
  void EndTraffic();

  void SetUp();
  void Batch(std::vector<core::Completion>& completions);
  void RunCalls();
  void Run(const Call& call);
  void Ask(const Call& call);
  void JoinSource(uint32_t source, uint32_t worker);
  bool Live(uint32_t worker) const;
  void NoteOps();
  void NoteEvents();
  void CompareBooks();
  void CountStates();
  void LookForTheEnd();
  bool AtRest() const;
  bool ExcusedWake() const;
  void FinishDrain();
  void CheckRounds();

  const SimConfig config_;
  const Breakage breakage_;
  Trace* const trace_;
  Prng prng_;
  Checker checker_;
  Counters counters_;

  int64_t now_ns_ = 0;
  uint64_t order_ = 0;
  std::vector<Event> events_;  // a heap by Later

  std::vector<std::deque<uint32_t>> backlogs_;
  std::vector<Connection> connections_;
  std::vector<bool> fds_;  // open
  int32_t fds_open_ = 0;
  uint32_t arrivals_left_ = 0;
  int32_t descriptors_max_ = 0;

  core::Hunger hunger_;
  core::Engine engine_;
  SimRing ring_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::vector<SimWorkerConfig> worker_configs_;
  std::vector<bool> doorbell_failed_;  // by worker
  std::vector<Source> sources_;
  std::vector<Call> calls_;
  std::vector<Call> calls_running_;
  std::span<const core::Op> ops_;
  int64_t wait_ns_ = 0;
  Phase phase_ = Phase::kTraffic;
  int64_t traffic_ended_ns_ = 0;
  uint32_t quiet_batches_ = 0;
  bool stopped_ = false;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_WORLD_H_
