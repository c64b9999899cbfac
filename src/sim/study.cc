#include "sim/study.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <utility>

#include "core/check.h"
#include "core/claim.h"
#include "core/engine.h"
#include "core/inbox.h"
#include "core/op.h"
#include "core/port_state.h"
#include "core/turn.h"
#include "sim/memory_worker.h"

namespace ringmaster::sim {
namespace {

using core::Completion;
using core::Op;
using core::OpKind;

constexpr uint32_t kCompletionEntries = 4096;  // as BalancerOptions has it
constexpr int32_t kWatchFd = 3;
constexpr int32_t kListenFd = 4;
constexpr int32_t kRingFd = 5;
constexpr int32_t kFirstConnectionFd = 10;  // a connection's descriptor is this and its index
constexpr int32_t kReadable = 1;            // POLLIN

// What CPUs share: eight share a cache, and eight caches a node.
constexpr uint32_t kCpusPerCache = 8;
constexpr uint32_t kCpusPerNode = 64;

// When nothing is to come, and nobody has moved for this many times recall_after, nobody will.
constexpr int64_t kGivesUpAfter = 1000;

// Something that a multishot poll of a master watches. What happens before the master has read the
// last completion is merged into it.
constexpr uint64_t kTurnsToMeasure = 256;

struct Watched {
  core::OpKey key;
  bool armed = false;
  bool pending = false;  // a completion is to be read
};

struct StudyMaster {
  enum class Phase : uint8_t { kAsleep, kWaking, kTurning };

  core::Hunger hunger;
  core::GivenBack given_back;
  std::unique_ptr<core::Engine> engine;
  std::deque<uint32_t> backlog;  // connections
  Watched poll;
  Watched knocks;
  bool knocked = false;  // its eventfd is not zero
  std::vector<Completion> completed;
  std::vector<Completion> reading;
  std::vector<Op> ops;
  Phase phase = Phase::kWaking;
  uint32_t epoch = 0;           // of its sleep; a timer of an older one means nothing
  bool gathers = false;         // asleep, and what completes does not wake it yet
  int64_t sleeps_until_ns = 0;  // at most
  int64_t busy_ns = 0;
  uint64_t turns = 0;
};

// What a worker has to do next: a claim, or a request of a connection that it has.
constexpr uint32_t kClaim = UINT32_MAX - 1;

struct Worker {
  Worker(uint32_t masters, uint32_t window) {
    std::vector<core::Inbox*> inboxes;
    for (uint32_t master = 0; master < masters; ++master) {
      boxes.push_back(std::make_unique<MemoryInbox>(window));
      inboxes.push_back(&boxes.back()->inbox);
    }
    claimer.emplace(&state, std::move(inboxes));
  }

  core::PortState state;
  std::vector<std::unique_ptr<MemoryInbox>> boxes;  // by master
  std::optional<core::Claimer> claimer;
  std::deque<uint32_t> jobs;
  bool claim_due = false;         // it is among the jobs
  bool awake = false;             // or about to be
  uint32_t request = kNoRequest;  // that it serves
};

// Something that happens at a time.
struct Event {
  enum class Kind : uint8_t { kTurnBegins, kTurnEnds, kWorker };

  int64_t at_ns = 0;
  uint64_t number = 0;  // of equals the one that was planned first happens first
  Kind kind = Kind::kWorker;
  uint32_t index = 0;  // of the master or worker
  uint32_t epoch = 0;

  // For a heap with the first to happen on top.
  bool operator<(const Event& other) const {
    return at_ns != other.at_ns ? at_ns > other.at_ns : number > other.number;
  }
};

class Study {
 public:
  Study(const StudyOptions& options, const Load& load,
        const std::function<std::unique_ptr<Policy>()>& make_policy)
      : options_(options), load_(load), taken_by_(load.connections.size(), kNoWorker) {
    for (uint32_t cpu = 0; cpu < load.workers; ++cpu) {
      topology_.cpus.push_back({.core = static_cast<int32_t>(cpu),
                                .cache = static_cast<int32_t>(cpu / kCpusPerCache),
                                .node = static_cast<int32_t>(cpu / kCpusPerNode)});
    }
    for (uint32_t i = 0; i < load.workers; ++i) {
      workers_.push_back(std::make_unique<Worker>(options.masters, options.window));
    }
    for (uint32_t i = 0; i < options.masters; ++i) AddMaster(make_policy());
    outcome_.wait_ns.assign(load.requests.size(), -1);
    outcome_.sojourn_ns.assign(load.requests.size(), -1);
    outcome_.taken.resize(load.workers);
  }

  StudyOutcome Run() {
    while (served_ < load_.requests.size()) {
      const bool comes = next_request_ < load_.requests.size();
      if (comes &&
          (events_.empty() || load_.requests[next_request_].at_ns <= events_.front().at_ns)) {
        now_ns_ = load_.requests[next_request_].at_ns;
        OnRequest(next_request_++);
        continue;
      }
      if (events_.empty()) break;
      std::pop_heap(events_.begin(), events_.end());
      const Event event = events_.back();
      events_.pop_back();
      now_ns_ = event.at_ns;
      if (!comes && serving_ == 0 && IsForEver()) break;
      Happen(event);
    }
    Finish();
    return std::move(outcome_);
  }

 private:
  // --- Set-up ------------------------------------------------------------------------------------

  void AddMaster(std::unique_ptr<Policy> policy) {
    const auto index = static_cast<uint32_t>(masters_.size());
    StudyMaster& master = *masters_.emplace_back(std::make_unique<StudyMaster>());
    master.engine = std::make_unique<core::Engine>(
        core::EngineConfig{.recall_after_ns = options_.recall_after_ns,
                           .completion_entries = kCompletionEntries,
                           .watch_fd = kWatchFd,
                           .topology = &topology_,
                           .shares_workers = options_.masters > 1},
        &master.hunger);
    master.engine->AddSource({.fd = kListenFd, .policy = std::move(policy)});
    for (uint32_t i = 0; i < load_.workers; ++i) {
      Worker& worker = *workers_[i];
      core::WorkerConfig config{.inbox = &worker.boxes[index]->inbox,
                                .state = &worker.state,
                                .ring_fd = kRingFd,
                                .capacity = options_.capacity,
                                .window_max = options_.window,
                                .cpu = static_cast<int32_t>(i)};
      for (const auto& other : worker.boxes) {
        if (other != worker.boxes[index]) config.other_inboxes.push_back(&other->inbox);
      }
      RINGMASTER_CHECK(master.engine->AddWorker(config) == i);
      master.engine->Join(core::SourceIndex(0), i);
    }
    Plan(0, Event::Kind::kTurnBegins, index, master.epoch);
  }

  void Finish() {
    outcome_.lost = load_.requests.size() - served_;
    for (const auto& master : masters_) {
      outcome_.turns += master->turns;
      for (uint32_t worker = 0; worker < load_.workers; ++worker) {
        outcome_.recalled += master->engine->ledger().worker(worker).recalled;
        outcome_.doorbells += master->engine->doorbells(worker);
      }
      master->engine->CheckAll(/*nothing_under_way=*/false);
    }
  }

  // Counted until the last request comes, because what is served afterwards does not need the
  // masters.
  void NoteBusyShare() {
    for (const auto& master : masters_) {
      const auto busy_ns = static_cast<double>(std::min(master->busy_ns, now_ns_));
      outcome_.master_busy_share = std::max(outcome_.master_busy_share,
                                            busy_ns / std::max(static_cast<double>(now_ns_), 1.0));
    }
  }

  // --- Time --------------------------------------------------------------------------------------

  void Plan(int64_t after_ns, Event::Kind kind, uint32_t index, uint32_t epoch = 0) {
    events_.push_back({.at_ns = now_ns_ + after_ns,
                       .number = planned_++,
                       .kind = kind,
                       .index = index,
                       .epoch = epoch});
    std::push_heap(events_.begin(), events_.end());
  }

  void Happen(const Event& event) {
    switch (event.kind) {
      case Event::Kind::kTurnBegins:
        if (masters_[event.index]->epoch == event.epoch) OnWoken(event.index);
        return;
      case Event::Kind::kTurnEnds:
        return EndTurn(event.index);
      case Event::Kind::kWorker:
        return RunWorker(event.index);
    }
  }

  bool IsForEver() const {
    const StudyCosts& costs = options_.costs;
    return now_ns_ - moved_at_ns_ > kGivesUpAfter * (options_.recall_after_ns + costs.wake_ns +
                                                     costs.doorbell_ns + costs.turn_ns);
  }

  // --- A master and its ring ---------------------------------------------------------------------

  // See core/turn.h. Nobody leaves, nobody calls, and all arrivals are connections.
  struct TurnCaller {
    static bool AllReported() { return true; }
    static bool KeepsBack() { return false; }
    static bool LeaversWait() { return false; }
    static void LetGoOfRings() {}
    static bool RunCalls() { return true; }
    static std::span<const core::PassedOn> PassedOn() { return {}; }
    static bool AnythingGivenBack() { return false; }
    core::GivenBack& given_back(uint32_t /*source*/) const { return master.given_back; }
    void TellOfWaiter() const {
      study.KnockByTurns([](StudyMaster& other) { return other.hunger.HearKnockOfWaiter(); });
    }
    void TellOthers() const {
      study.KnockByTurns(
          [this](StudyMaster& other) { return &other != &master && other.hunger.HearKnock(); });
    }

    Study& study;
    StudyMaster& master;
  };

  void BeginTurn(uint32_t index) {
    StudyMaster& master = *masters_[index];
    master.phase = StudyMaster::Phase::kTurning;
    // As the runtime does from its CPU time.
    if (++master.turns % kTurnsToMeasure == 0) {
      master.engine->SetTurnCost(master.busy_ns / static_cast<int64_t>(master.turns));
    }
    master.reading.clear();
    std::swap(master.reading, master.completed);
    master.poll.pending = false;
    master.knocks.pending = false;
    TurnCaller caller{*this, master};
    core::TakeTurn(*master.engine, caller, master.reading, now_ns_, master.ops);
    master.engine->ClearEvents();
    const StudyCosts& costs = options_.costs;
    // Time always goes on, so that a master which is busy all the time does not stop the run.
    const int64_t took_ns =
        std::max<int64_t>(1, costs.turn_ns + costs.look_ns * load_.workers +
                                 costs.operation_ns * static_cast<int64_t>(master.ops.size()));
    master.busy_ns += took_ns;
    Plan(took_ns, Event::Kind::kTurnEnds, index);
  }

  void EndTurn(uint32_t index) {
    StudyMaster& master = *masters_[index];
    for (const Op& op : master.ops) Submit(index, op);
    master.ops.clear();
    if (!master.completed.empty()) return BeginTurn(index);
    TurnCaller caller{*this, master};
    const int64_t wait_ns = core::WaitAfterTurn(*master.engine, caller, now_ns_);
    if (wait_ns == 0) return BeginTurn(index);
    master.phase = StudyMaster::Phase::kAsleep;
    ++master.epoch;
    master.sleeps_until_ns = wait_ns == core::kWaitForever
                                 ? core::kWaitForever
                                 : now_ns_ + wait_ns + options_.costs.wake_ns;
    const int64_t gather_ns = master.engine->Gather(now_ns_);
    master.gathers = gather_ns > 0;
    if (master.gathers) {
      Plan(gather_ns + options_.costs.wake_ns, Event::Kind::kTurnBegins, index, master.epoch);
    } else {
      SleepOn(index);
    }
  }

  void SleepOn(uint32_t index) {
    const StudyMaster& master = *masters_[index];
    if (master.sleeps_until_ns == core::kWaitForever) return;
    const int64_t wait_ns = std::max<int64_t>(0, master.sleeps_until_ns - now_ns_);
    Plan(wait_ns, Event::Kind::kTurnBegins, index, master.epoch);
  }

  // It has gathered for long enough, or its time has come, or something has completed.
  void OnWoken(uint32_t index) {
    StudyMaster& master = *masters_[index];
    const bool nothing = std::exchange(master.gathers, false) && master.completed.empty();
    if (nothing && now_ns_ < master.sleeps_until_ns) return SleepOn(index);
    BeginTurn(index);
  }

  void Complete(uint32_t index, const Completion& completion) {
    StudyMaster& master = *masters_[index];
    master.completed.push_back(completion);
    if (master.phase != StudyMaster::Phase::kAsleep || master.gathers) return;
    master.phase = StudyMaster::Phase::kWaking;
    ++master.epoch;
    Plan(options_.costs.wake_ns, Event::Kind::kTurnBegins, index, master.epoch);
  }

  void Notice(uint32_t index, Watched& watched) {
    if (!watched.armed || watched.pending) return;
    watched.pending = true;
    Complete(index, {.key = watched.key, .result = kReadable, .more = true});
  }

  void Submit(uint32_t index, const Op& op) {
    StudyMaster& master = *masters_[index];
    switch (op.key.kind) {
      case OpKind::kWatch:
        master.knocks = {.key = op.key, .armed = true};
        if (master.knocked) Notice(index, master.knocks);
        return;
      case OpKind::kPoll:
        master.poll = {.key = op.key, .armed = true};
        // Arming reports at once what is there already.
        if (!master.backlog.empty()) Notice(index, master.poll);
        return;
      case OpKind::kPollEnd:
        master.poll.armed = false;
        return Complete(index, {.key = master.poll.key, .result = -ECANCELED});
      case OpKind::kAccept:
        return Accept(index, op);
      case OpKind::kDoorbell:
        return RingWorker(op.key.index);
      default:
        // A kPollAccept source that nobody ends asks for no other operation.
        RINGMASTER_CHECK(false);
    }
  }

  void Accept(uint32_t index, const Op& op) {
    StudyMaster& master = *masters_[index];
    if (master.backlog.empty()) return Complete(index, {.key = op.key, .result = -EAGAIN});
    const uint32_t connection = master.backlog.front();
    master.backlog.pop_front();
    moved_at_ns_ = now_ns_;
    Complete(index, {.key = op.key,
                     .result = kFirstConnectionFd + static_cast<int32_t>(connection),
                     .facts = FactsOf(load_.connections[connection], op.key.facts)});
  }

  static Arrival FactsOf(const LoadConnection& connection, uint8_t facts) {
    Arrival arrival;
    if ((facts & core::kFactIncomingCpu) != 0) {
      arrival.incoming_cpu = static_cast<int32_t>(connection.cpu);
    }
    if ((facts & core::kFactPeer) != 0) {
      arrival.peer.kind = Peer::Kind::kIpv4;
      arrival.peer.address = {10, static_cast<uint8_t>(connection.client >> 16),
                              static_cast<uint8_t>(connection.client >> 8),
                              static_cast<uint8_t>(connection.client)};
    }
    return arrival;
  }

  // Knocks at hungry masters. The one that was woken first is asked last the next time.
  template <typename KnockAt>
  void KnockByTurns(KnockAt knock_at) {
    const auto count = static_cast<uint32_t>(masters_.size());
    const uint32_t begin = first_knocked_;
    bool knocked = false;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t index = (begin + i) % count;
      StudyMaster& master = *masters_[index];
      if (!knock_at(master)) continue;
      master.knocked = true;
      Notice(index, master.knocks);
      if (!std::exchange(knocked, true)) first_knocked_ = (index + 1) % count;
    }
  }

  // --- Clients and workers -----------------------------------------------------------------------

  void OnRequest(uint32_t request) {
    if (request + 1 == load_.requests.size()) NoteBusyShare();
    const uint32_t connection = load_.requests[request].connection;
    const LoadConnection& facts = load_.connections[connection];
    if (request == facts.first) {
      const auto index = static_cast<uint32_t>(facts.hash % masters_.size());
      masters_[index]->backlog.push_back(connection);
      return Notice(index, masters_[index]->poll);
    }
    // A request that comes before the connection is claimed waits in its socket.
    if (taken_by_[connection] != kNoWorker) GiveJob(taken_by_[connection], request, 0);
  }

  void RingWorker(uint32_t index) {
    Worker& worker = *workers_[index];
    if (std::exchange(worker.claim_due, true)) return;
    GiveJob(index, kClaim, options_.costs.doorbell_ns);
  }

  // A worker that sleeps needs `wakes_in_ns` to get up for it.
  void GiveJob(uint32_t index, uint32_t job, int64_t wakes_in_ns) {
    Worker& worker = *workers_[index];
    worker.jobs.push_back(job);
    if (std::exchange(worker.awake, true)) return;
    Plan(wakes_in_ns, Event::Kind::kWorker, index);
  }

  // It has got up, or is done with a request.
  void RunWorker(uint32_t index) {
    Worker& worker = *workers_[index];
    if (worker.request != kNoRequest) FinishRequest(worker);
    if (load_.Dead(index, now_ns_)) return;  // and stays awake, so that it is not planned again
    while (true) {
      if (worker.claimer->under_way()) {
        const uint32_t connection = Take(worker);
        if (connection != UINT32_MAX) return ServeFirst(index, connection);
        EndClaim(worker);
      } else if (worker.jobs.empty()) {
        worker.awake = false;
        return;
      } else {
        const uint32_t job = worker.jobs.front();
        worker.jobs.pop_front();
        if (job != kClaim) return Serve(index, job);
        BeginClaim(worker);
      }
    }
  }

  void BeginClaim(Worker& worker) {
    moved_at_ns_ = now_ns_;
    worker.claim_due = false;
    worker.claimer->Begin(/*on_host=*/false);
  }

  // The next connection; UINT32_MAX when there is none left.
  static uint32_t Take(Worker& worker) {
    const uint64_t word = worker.claimer->Take().word;
    if (word == 0) return UINT32_MAX;
    return static_cast<uint32_t>(core::Offer::FromWord(word).fd - kFirstConnectionFd);
  }

  void EndClaim(Worker& worker) {
    worker.claimer->End();
    if (!worker.claimer->KnocksAtEnd()) return;
    KnockByTurns([](StudyMaster& master) { return master.hunger.HearKnock(); });
  }

  // Serves the first request in the callback. What the client has sent meanwhile comes after it.
  void ServeFirst(uint32_t index, uint32_t connection) {
    RINGMASTER_CHECK(taken_by_[connection] == kNoWorker);
    taken_by_[connection] = index;
    ++outcome_.taken[index];
    const uint32_t first = load_.connections[connection].first;
    for (uint32_t request = load_.requests[first].next; request < next_request_;
         request = load_.requests[request].next) {
      workers_[index]->jobs.push_back(request);
    }
    Serve(index, first);
  }

  void Serve(uint32_t index, uint32_t request) {
    const LoadRequest& serves = load_.requests[request];
    workers_[index]->request = request;
    ++serving_;
    outcome_.wait_ns[request] = now_ns_ - serves.at_ns;
    Plan(load_.ServiceNs(index, serves), Event::Kind::kWorker, index);
  }

  void FinishRequest(Worker& worker) {
    const uint32_t request = std::exchange(worker.request, kNoRequest);
    outcome_.sojourn_ns[request] = now_ns_ - load_.requests[request].at_ns;
    ++served_;
    --serving_;
    moved_at_ns_ = now_ns_;
    if (load_.requests[request].next != kNoRequest) return;
    // The connection is closed, and its lease ends.
    worker.state.Release();
    KnockByTurns([](StudyMaster& master) { return master.hunger.HearKnockOfLease(); });
  }

  const StudyOptions options_;
  const Load& load_;
  CpuTopology topology_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<StudyMaster>> masters_;
  std::vector<uint32_t> taken_by_;  // worker, by connection
  std::vector<Event> events_;       // a heap
  uint64_t planned_ = 0;
  int64_t now_ns_ = 0;
  int64_t moved_at_ns_ = 0;  // when a worker last did something, or a connection was accepted
  uint32_t next_request_ = 0;
  uint32_t served_ = 0;
  uint32_t serving_ = 0;  // just now
  uint32_t first_knocked_ = 0;
  StudyOutcome outcome_;
};

}  // namespace

StudyOutcome RunStudy(const StudyOptions& options, const Load& load,
                      const std::function<std::unique_ptr<Policy>()>& make_policy) {
  return Study(options, load, make_policy).Run();
}

}  // namespace ringmaster::sim
