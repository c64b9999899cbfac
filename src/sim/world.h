// A world on one thread: a clock that only events move, a kernel with listeners and descriptors,
// workers, leases and masters. The masters run the library's own engine through the seam, turn by
// turn, exactly as the runtime does. Given the same configuration everything happens in the same
// order.
//
// A master is in the middle of a turn, sleeps in it, or wakes from it. A hosted master acts only
// while its host is in no claim, or between two callbacks of a claim. The time at which a master
// acts next stands beside the events, because what arrives in its ring may move that time forward.
//
// A run has three parts. While traffic is on, faults strike, and other threads change the balancer.
// Then arrivals and faults stop. Everything that has arrived must be served within bounded time; in
// some runs a shutdown may also refuse it. At last the engine is destroyed, and the workers end
// what they have begun. A bound on events and batches turns every endless loop into a failure.
//
//   world.cc         time, chance, events, what workers need, the end
//   world_desk.cc    sources that are aimed: what the kernel does for their desks, and what is
//   checked world_master.cc  the masters: their turns and batches, and the calls that others make

#ifndef RINGMASTER_SRC_SIM_WORLD_H_
#define RINGMASTER_SRC_SIM_WORLD_H_

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine.h"
#include "core/op.h"
#include "core/port_state.h"
#include "sim/checker.h"
#include "sim/completion_worker.h"
#include "sim/config.h"
#include "sim/counters.h"
#include "sim/inbox_worker.h"
#include "sim/prng.h"
#include "sim/sim_kernel.h"
#include "sim/sim_ring.h"
#include "sim/sim_sights.h"
#include "sim/sim_worker.h"
#include "sim/trace.h"
#include "sim/watched_policy.h"

namespace ringmaster::sim {

class World {
 public:
  static constexpr int32_t kWatchFd = 900'000;
  static uint64_t Tag(uint32_t worker) { return 3'000'000 + worker; }
  // A worker's own value for a source.
  static uint64_t Token(uint32_t worker, uint32_t source) {
    return (uint64_t{worker} + 1) * 100'000 + source;
  }
  static uint32_t WorkerOfToken(uint64_t token) {
    return static_cast<uint32_t>(token / 100'000 - 1);
  }
  static uint32_t SourceOfToken(uint64_t token) { return static_cast<uint32_t>(token % 100'000); }

  // Borrows the trace.
  World(const SimConfig& config, Breakage breakage, Trace* trace);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Runs to the end or to the first failure; see checker().
  void Run();

  const SimConfig& config() const { return config_; }
  Checker& checker() { return checker_; }
  SimKernel& kernel() { return kernel_; }
  const Counters& counters() const { return counters_; }

  // --- Time and chance. ---
  int64_t now_ns() const { return now_ns_; }
  Prng& prng() { return prng_; }
  // Whether a fault strikes on this occasion.
  bool Happens(Fault fault);
  void CountStrike(Fault fault) { ++counters_.faults[static_cast<size_t>(fault)]; }
  // Whether this run breaks this part on purpose, and does so on this occasion.
  bool breaks(Breakage breakage) const { return breakage == breakage_; }
  bool Breaks(Breakage breakage, Ratio how_often = {1, 1}) {
    return breaks(breakage) && prng_.Chance(how_often);
  }
  void Reached(Milestone milestone) { ++counters_.milestones[static_cast<size_t>(milestone)]; }
  void Note(std::string_view what, std::initializer_list<Trace::Field> fields = {}) {
    trace_->Note(now_ns_, what, fields);
  }

  uint32_t masters() const { return config_.masters; }

  int64_t TurnCost() { return 100 + prng_.Between(0, config_.turn_ns_max); }
  int64_t MasterWakeCost();
  int64_t WorkerWakeCost() { return prng_.Between(0, config_.wake_ns_max); }
  int64_t StepCost() { return prng_.Chance({1, 4}) ? prng_.Between(0, 2'000) : 20; }
  int64_t StallTime() { return prng_.Between(0, 20 * config_.recall_after_ns); }
  int64_t ServiceTime();

  // --- For the rings. ---
  // The master of a source, and the index that its engine has for it.
  uint32_t MasterOf(uint32_t source) const { return sources_[source].master; }
  uint32_t IndexOf(uint32_t source) const { return sources_[source].index; }
  bool removed(uint32_t source) const { return sources_[source].removed; }
  // 0 or -errno.
  int32_t Doorbell(uint32_t master, const core::Op& op);
  int32_t Send(const core::Op& op);
  // `ticket_of`: its source; Checker::kNone: it was a connection.
  void OnSendFailureTold(uint32_t master, int32_t fd, uint32_t worker, uint32_t ticket_of);
  // The source of what is sent, if that is a ticket; Checker::kNone: it is a connection.
  uint32_t TicketOf(const core::Op& op) const;
  void CloseRefused(int32_t fd);
  // The kernel takes a kInstall, and does it now or later; and a kLetGo.
  void StartInstall(uint32_t master, const core::Op& op);
  void LetGo(uint32_t master, const core::Op& op);

  // --- For the workers. ---
  core::Hunger& hunger(uint32_t master) { return masters_[master].hunger; }
  void ScheduleStep(uint32_t worker, int64_t after_ns);
  // A worker that gives hints waits: something else may wake it while traffic is on.
  void ScheduleOwnWork(uint32_t worker);
  void Serve(uint32_t worker, uint32_t connection, bool leased);
  void OnCallbackEnd(uint32_t worker, uint32_t connection);
  // After a ticket was redeemed: whether the worker must give it back because other connections
  // wait.
  bool MoreWaits(uint32_t source) const;
  bool countable(uint32_t source) const { return sources_[source].config.countable; }
  void GiveBack(uint32_t worker, uint32_t source, int32_t error);
  // Something was accepted by a ticket, or nothing was found (EAGAIN). The master hears of it if it
  // has asked for that.
  void TellResult(uint32_t worker, uint32_t source, int32_t error);
  // Accepts with a ticket of the source, as Ticket::Accept does. Returns a descriptor, or -errno;
  // -EAGAIN also when the ticket is late.
  int32_t AcceptFor(uint32_t source);
  // The worker keeps a ticket beyond its claim.
  void KeepTicket(uint32_t worker, uint32_t source);
  // Gives back the places that one connection of the worker has: at the worker, and in the limits.
  bool ReleasePlace(uint32_t worker, uint32_t source);
  void ScheduleVisits(bool wanted, uint32_t worker);
  // The balancer's limit: a place for a connection that is there already; a place that is given
  // back.
  void TakePlaceAnyway() {
    if (gate_.limited()) gate_.ForceReserve();
  }
  void GiveBackToGate(uint32_t count) {
    if (gate_.limited()) gate_.GiveBack(count);
  }
  void Knock(uint32_t master, uint32_t worker);
  // Whether it drives the master.
  bool Hosts(uint32_t worker) const { return config_.hosted && worker == 0; }
  // The host's loop comes round; or the host looks after the master in the middle of a claim.
  void HostComesRound();
  void HostComesBy();

  // --- For the desks (world_desk.cc). A worker is known by the number that a master has of its
  // sight. ---
  int Show(uint32_t source, int sight, bool again, bool asleep);
  int ListenerOf(uint32_t source) const;
  void Wake(int sight, int listener);
  void Hide(uint32_t source, int sight);
  int WaitingAt(uint32_t source);
  void CallMaster(uint32_t source);
  // Whether a listener is readable.
  bool Readable(uint32_t source) const {
    return kernel_.Backlog(source) > 0 || kernel_.shut(source);
  }
  // --- For workers that have permits. ---
  core::SourceSet& hungry_desks(uint32_t master) { return masters_[master].hungry_desks; }
  core::Desk* DeskAt(uint32_t master, uint32_t index) {
    return &masters_[master].at_index[index].desk->desk;
  }
  uint32_t SourceAt(uint32_t master, uint32_t index) const {
    return masters_[master].by_index[index];
  }
  core::Gate* GateOf(uint32_t source) { return sources_[source].gate.get(); }
  core::Gate* gate() { return gate_.limited() ? &gate_ : nullptr; }
  // A descriptor, or -errno.
  int32_t AcceptByPermit(uint32_t source);
  void KnockForPlace(uint32_t worker);
  // A worker is about to visit a desk, if nothing is broken.
  bool MayVisit(uint32_t master, uint32_t index);
  bool IsHeld(uint32_t source) const;
  // It has said at the desk that it could not accept.
  void OnTroubleSaid(uint32_t source);
  void NoteVisit(uint32_t worker, uint32_t master, uint32_t index);
  void VisitHungryDesks();
  // It has just ended a claim by a permit.
  void OnRedeemsNoMore(uint32_t worker);

  // A worker leaves only when it has been introduced to every master.
  bool MayLeave(uint32_t worker) const { return !running_ || InAllBooks(worker); }
  void AskToLeave(uint32_t worker);

 private:
  enum class Happening : uint8_t {
    kArrival,
    kStep,
    kInstall,       // the kernel gets to what is to be installed
    kSayRoom,       // a worker that has closed a slot says so
    kWake,          // a worker learns that something is in its ring
    kOwnWork,       // a worker has something else to do
    kClose,         // a lease ends: its descriptor
    kRelease,       // its place
    kReleaseKnock,  // its knock
    kPassOnPlace,   // a connection was passed on: its place at the worker
    kPassOnKnock,   // the knock after that
    kVisitDesks,    // a place was given back for which hungry desks are visited
    kRedeem,        // of a ticket that was kept
    kHangUp,        // a client
    kJoin,
    kJoinSource,
    kAddSource,
    kResume,
    kHostEnds,
    kHostFollows,
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
  // What is being installed, or was.
  struct Installing {
    core::Op op;
    uint32_t master = 0;
    uint32_t connection = 0;
    bool done = false;
  };
  enum class CallKind : uint8_t {
    kAddWorker,
    kIntroduce,  // one that the masters before this one know already
    kRemoveWorker,
    kJoin,
    kLeave,
    kSetCapacity,
    kSetWindow,
    kAddSource,
    kRemoveSource,
    kSetPolicy,
    kPause,
    kResume,
    kReplace,  // whoever died
    kStopIntake,
    kRefuseAll
  };
  // What workers see of an index of an engine, as in the runtime.
  struct AtIndex {
    core::SourceIdentity identity;
    core::GivenBack given_back;
    std::unique_ptr<SimDesk> desk;  // if a source of this index may be or was aimed
  };
  // What another thread asks of the master; done between two batches.
  struct Call {
    CallKind kind = CallKind::kPause;
    uint32_t source = 0;
    uint32_t worker = 0;
    uint32_t value = 0;
  };
  // A source, and how the world serves it.
  struct Connection {
    uint32_t worker = 0;
    uint32_t source = 0;
    bool leased = false;
    bool direct = false;  // it is in a slot of its worker's file table
    bool closes_in_callback = false;
    bool in_callback = false;
    bool served = false;  // and neither closed nor passed on since
    uint32_t times = 0;   // that it was served
  };
  // A connection on its way to a master.
  struct PassedOn {
    uint32_t source = 0;
    uint32_t giver = 0;
    int32_t fd = -1;
    Arrival facts;
  };
  struct Source {
    uint32_t master = 0;
    uint32_t index = 0;  // its engine's
    uint64_t serial = 0;
    int32_t fd = -1;
    SimSourceConfig config;
    std::unique_ptr<core::Gate> gate;  // if it has a capacity
    std::vector<uint32_t> joined;      // workers
    bool steady = true;                // the same workers and policy all the while
    bool paused = false;
    bool removed = false;
    bool closed = false;       // removed, and its listener is closed
    bool given_up = false;     // the engine has said so
    uint64_t errors_said = 0;  // by its tickets
    bool is_short = false;     // of descriptors, the same
    // What its tickets have said since its master's last batch: while it was not short, that it is;
    // and something graver.
    bool says_short = false;
    bool says_graver = false;
    WatchedPolicy* policy = nullptr;  // owned by the engine
    // If it may be aimed: since when its desk has been open, -1: it is not; when a holder has
    // closed it, -1: none has since the last batch; who redeemed when it was removed, and does
    // still.
    int64_t aimed_since_ns = -1;
    int64_t called_at_ns = -1;
    std::vector<uint32_t> redeemers;
    uint32_t counted = 0;      // what waited when a holder asked last
    bool show_failed = false;  // the last time that a sight was to show it
  };
  // A worker as an engine has it.
  struct AtMaster {
    bool in_books = false;
    uint32_t window = 0;
    uint32_t capacity = 0;
  };
  struct WorkerEntry {
    std::unique_ptr<SimWorker> worker;
    CompletionWorker* receiver = nullptr;  // the same, if connections are handed over to it
    std::vector<AtMaster> at;              // by master
    std::vector<int> sights;               // the same: its number of the worker's sight; or none
    bool doorbell_failed = false;
  };
  enum class Doing : uint8_t { kTurn, kSleep, kWake };
  struct SimMaster {
    SimMaster(World* world, uint32_t number, uint32_t completion_entries)
        : index(number), ring(world, number, completion_entries) {}

    const uint32_t index;
    core::Hunger hunger;
    core::SourceSet hungry_desks;
    std::optional<core::Engine> engine;
    SimRing ring;
    Doing doing = Doing::kTurn;
    int64_t at_ns = 0;      // when it acts next; kWaitForever: when something arrives in its ring
    int64_t until_ns = 0;   // when it ends its sleep
    int64_t wait_ns = 0;    // as its engine said
    int64_t gather_ns = 0;  // the same
    int64_t gathers_until_ns = 0;  // it does not wake before
    int64_t due_ns = -1;  // when it would have acted, while its host is busy; -1: it is not
    std::vector<uint32_t> by_index;  // sources
    std::vector<uint32_t> leaving;   // workers whose rings what was submitted may still use
    std::deque<AtIndex> at_index;
    bool given_back = false;                    // something, since the last batch
    std::vector<PassedOn> passed_on;            // since then
    std::vector<core::PassedOn> passed_on_now;  // as the engine gets it
    std::vector<Call> calls;
    std::vector<Call> calls_running;
    std::vector<core::Op> ops;
    std::vector<core::Completion> completions;
    std::vector<int32_t> slots_used;
    std::vector<Handed> handed;   // in the last batch
    std::vector<int32_t> closed;  // the same
    bool switched = false;        // a policy, in this batch
    bool in_batch = false;
    bool busy = false;      // its host is in the middle of a turn
    bool deserted = false;  // its host does not drive it any more
    bool resting = false;   // nor is there one
    bool stopped = false;
    bool refusing = false;
    uint32_t quiet_batches = 0;
  };
  enum class Phase : uint8_t { kTraffic, kDrain, kShutdown, kOver };

  // world.cc
  void Advance();
  void Schedule(int64_t after_ns, Happening what, uint32_t a = 0, uint32_t b = 0);
  void Do(const Event& event);
  void Arrive();
  void ArriveAt(uint32_t source);
  void ScheduleArrival();
  void MakeMischief();
  void ChangeSource(uint32_t source);
  void ChangeLimits();
  void LeaveIfIdle(uint32_t worker);
  void DoInstall(uint32_t install);
  int32_t Install(const core::Op& op, uint32_t connection, uint32_t worker);
  void CloseConnection(uint32_t connection);
  void EndConnection(uint32_t connection);
  bool MayPassOn(const Connection& connection) const;
  void PassOn(uint32_t connection);
  void PassAllOn(uint32_t worker);
  void TakeInPassedOn(SimMaster& master);
  std::span<const core::PassedOn> TakePassedOn(SimMaster& master);
  void RedeemKept(uint32_t worker, uint32_t source);
  core::SourceIdentity& IdentityOf(const Source& source) {
    return masters_[source.master].at_index[source.index].identity;
  }
  void EndTraffic();
  bool Abandoned(uint32_t source) const;
  void DoNext();
  bool Asleep() const;
  SimWorker& worker(uint32_t id) { return *workers_[id].worker; }
  const SimWorker& worker(uint32_t id) const { return *workers_[id].worker; }
  bool Live(uint32_t id) const;
  std::vector<bool> Dead() const;
  bool AtRest() const;
  bool ExcusedWake() const;
  void LookForTheEnd();
  void FinishDrain();
  void CheckPlacesAtRest();
  void CheckRounds();
  void Outlive();

  // world_desk.cc
  void WakeSights(uint32_t source);
  void GoOnMeanwhile(uint32_t source);
  void LookAt(uint32_t source, uint32_t id);
  bool MayGoOn(const Event& event) const;
  bool InBatch() const;
  uint32_t WorkerOfSight(int sight);
  bool IsOwnListener(uint32_t source);
  SimDesk* DeskOf(const Source& source) {
    return source.config.aimed ? masters_[source.master].at_index[source.index].desk.get()
                               : nullptr;
  }
  bool HasDesks() const;
  SimDesk* PrepareDesk(SimMaster& master, uint32_t index, uint32_t source);
  void NoteDesks(const SimMaster& master);
  void CheckCalls(const SimMaster& master);
  void CheckDesks(SimMaster& master);
  void CheckPermitsOf(uint32_t source, const core::Desk& desk);
  void CheckWaiters(uint32_t source);
  core::Permits& PermitsOf(uint32_t worker, uint32_t source);
  void CheckPermitsOut(uint32_t source);
  void CheckDesksAtRest();
  bool LooksAfterDesks(const SimMaster& master) const;

  // world_master.cc
  void SetUp();
  void Enter(SimMaster& master);
  void SleepIn(SimMaster& master);
  void Act(SimMaster& master);
  void WakeMasters();
  void RunOnce(SimMaster& master);
  void RunHosted(SimMaster& master);
  void Batch(SimMaster& master);
  void TakeBatch(SimMaster& master, bool all_reported);
  void DropWhatSwitched(SimMaster& master);
  void NotePromises();
  bool MayDesert() const;
  void DesertMaster();
  void EndHost();
  void ComeToRest(SimMaster& master);
  void LoseRing(SimMaster& master);
  void BatchAtRest(SimMaster& master, bool all_reported);
  void FollowHost();
  void TakeIn(const SimMaster& master);
  void Misread(SimMaster& master);
  void Ask(const Call& call);
  void AskSomehow(uint32_t master, const Call& call);
  void AskAt(uint32_t master, const Call& call);
  void RunCalls(SimMaster& master);
  void Run(SimMaster& master, const Call& call);
  uint32_t AddWorker(const SimWorkerConfig& config);
  void Introduce(SimMaster& master, uint32_t id);
  void JoinAll(uint32_t id);
  void RemoveWorker(SimMaster& master, uint32_t id);
  void FinishLeaves(SimMaster& master);
  void AddSource(SimSourceConfig config);
  void RemoveSource(uint32_t source);
  void CloseRemoved(const SimMaster& master);
  void SetPolicy(uint32_t source, std::string_view name);
  void SetPaused(uint32_t source, bool paused);
  void SetLimits(SimMaster& master, uint32_t id, uint32_t window, uint32_t capacity);
  void JoinSource(uint32_t source, uint32_t id);
  void LeaveSource(uint32_t source, uint32_t id);
  void Replace(const SimMaster& master);
  void StopIntake(SimMaster& master);
  std::unique_ptr<WatchedPolicy> MakePolicy(std::string_view name, uint32_t source,
                                            const SimSourceConfig& config);
  void NoteOps(const SimMaster& master);
  void NoteEvents(SimMaster& master);
  void OnShortage(const SimMaster& master, uint32_t index, bool begins);
  // After a batch: of a shortage that a worker has told of, somebody was told.
  void CheckShortages(const SimMaster& master);
  struct TurnCaller;  // see core/turn.h
  void TellOthers(const SimMaster& master);
  void ShowWaiter();
  void CompareBooks(const SimMaster& master);
  void CountStates(const SimMaster& master);
  uint32_t FreeIndex() const;
  bool InAllBooks(uint32_t id) const;
  SimMaster& MasterAt(const Source& source) { return masters_[source.master]; }

  // Whether rings bring no more than the engines were told, or keep it back.
  bool keeps_its_word() const { return config_.entries_told == 0 || config_.keeps_back; }

  const SimConfig config_;
  const Breakage breakage_;
  Trace* const trace_;
  Prng prng_;
  Checker checker_;
  Counters counters_;

  int64_t now_ns_ = 0;
  uint64_t order_ = 0;
  std::vector<Event> events_;  // a heap by Later
  uint32_t arrivals_left_ = 0;

  SimKernel kernel_;
  core::Gate gate_;
  std::deque<SimMaster> masters_;
  bool running_ = false;  // set-up is over, and the engines are there
  std::vector<WorkerEntry> workers_;
  std::vector<SimWorkerConfig> worker_configs_;
  std::vector<Source> sources_;
  std::vector<Connection> connections_;
  std::vector<Installing> installs_;
  std::vector<uint32_t> meanwhile_;  // sources whose desks are held while others go on
  int32_t ring_fd_max_ = -1;
  Phase phase_ = Phase::kTraffic;
  bool willing_ = false;  // policies pick somebody whenever they can
  int64_t traffic_ended_ns_ = 0;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_WORLD_H_
