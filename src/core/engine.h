// The engine: what the master decides. Pure: completions and the time go in, operations come out.
// One engine drives one ring; it is called by one thread.
//
// Each batch runs through the same steps:
//   completions → look at the inboxes → recall what is overdue → deal → ring → arm
//
// The engine decides by means of its parts, which keep its books: of each source, back_off,
// overflows, pace and tickets; of each worker, motion, looks, bell, outbox and sending; of all
// together, ledger, places and moderation. A rule that concerns one part alone stands in the header
// of that part, by name. The numbers are those by which the code cites the rules.
//
// Rules:
// (3) A worker is offered an arrival only when it has credit: unclaimed < window and
//     open < capacity hold at the moment of the offer.
// (5) At rest, a source is armed if and only if a worker has joined it, it is neither paused,
//     failed nor backing off, and it is not ready without credit (kPollAccept) or full (kAccept).
//     What is left to be done waits for a reason that WaitsOf knows, and that implies `hungry`. An
//     unclaimed offer implies a pending look at its age.
// (7) After a recall the worker gets no credit until it moves: "owes motion" in core/motion.h.
// (8) To a worker with a tally an arrival is handed over as a completion of its own ring, and
//     counts as claimed at once: core/sending.h. A worker that has taken nothing for recall_after
//     gets no credit until it takes something. What its tickets stand for is looked for again, if
//     the source allows recalls.
// (9) A source that is removed is taken in no more, but what it has accepted is still dealt. Its
//     index is used again when nothing of it is left and no worker can still be looking up an offer
//     of it.
//
// (10) The arrivals of a source with readiness intake are tickets: its workers accept or read
//     themselves. Of a listener whose backlog can be counted, no more tickets are unclaimed than
//     connections were waiting at the last count; of anything else at most one, into which newer
//     edges merge. A ticket that is unclaimed when its source is removed or intake stops is
//     withdrawn.
//
// (11) Where the number of open connections is limited, each needs a place: "gates" in
//     core/places.h. A multishot accept cannot ask first: it is ended when there is no place left.
//
// (12) Several masters may serve the same workers. What they share is PortState and the balancer's
//     gate; a place that one of them gives back may be what another one waits for (PlacesFreed). A
//     worker that has taken a completion does not say whose it was. So one that says it took what
//     could not be sent to it has taken what another master had sent.
//
// (13) Credit that was there when an accept was asked for may be gone when the connection is there:
//     a ticket of another source has it, or another master. So a polled source whose workers are
//     all limited reserves a place at one of them first: "a promise" in core/places.h. No
//     connection is accepted that has none.
//
// (14) There is room in the ledger for whatever may arrive, and a batch makes none. A single accept
//     is asked for, and a ticket issued, only where there is room for it. A multishot accept cannot
//     ask first, so it is armed only while there is room for all that may still come when it has
//     been told to end, of all of them together (BurstMax):
//       the batch that finds too little room has brought up to completions_max,
//       the turn that submits the end may bring as many before it does so,
//       the completion queue may be full by then, and on its overflow list is at most the last
//       completion of each multishot accept.
//     Nothing else may use that room, so what is found at the end of a batch holds for the next.
//     Between two batches there is enough room again (MakeRoom): for what is there, for all that
//     workers can be offered or sent, for every `hold`, and for a burst. A ring that brings more
//     than it said it could is not trusted: what there is no room for is closed and reported.
//
// (15) Where connections may grow too old, each is asked, when it is accepted, when its client came
//     and whether that has hung up. What has hung up or is too old by then is closed at once, and
//     nobody is asked who should have it; its place is free for the next. The age of all others
//     counts from when their clients came, too, and what is too old is not dealt. What hangs up
//     later is not noticed: to ask again would cost a system call for each connection that is held.
//
// (16) Sources take turns at credit that is contended. They are dealt in the order in which they
//     were last served, who was longest ago first, and what is held takes part in the same order as
//     what is asked for. Whoever is served goes behind those who were not. An ask for an accept, or
//     for a count, keeps credit for what it may bring: room in the window of a joined worker, a
//     place there by (13) if that is limited, and a place by (11). Nobody else is offered it. What
//     the ask finds has it whatever the order; it is free again when the ask has found nothing, or
//     when what was found went to somebody else or could not be dealt.
//     So a source that wants credit meets, each time it is asked, all that is free and not taken by
//     those before it. They go behind it with that, and what they keep is part of their turn. Hence
//     between two turns of a source each other one has at most one turn at credit that it could
//     have had. Credit that becomes free in the middle of dealing is for the next round, which
//     begins with the first again. All that is kept is free in the end, because what keeps it is
//     under way: it never waits for a worker, and its completion brings a batch.
//     A multishot accept takes places by (11) without credit, for as many as come, and somebody
//     before it who waits for credit might never find both. So where the balancer is limited it is
//     not armed without credit while that one waits; nor, with credit, once the limit has ended it,
//     while that one waits for a worker who has been offered as much as it may have, and not for
//     long. For a worker whose capacity is used up it does not wait so: its leases may last for
//     ever. So a source whose workers are limited can wait long at the balancer's limit beside a
//     flooded multishot accept that has other workers, too.
//     Masters do not take turns with each other.
//
// (17) A source is given up, and said to be, when its socket confirms that it takes no connections
//     any more (kState), or its number is another file's. The errors of accept(2) are no proof:
//     those of a connection that went wrong look the same. So an accept that fails as if there were
//     no listener, whoever says so, is a doubt. So is a hang-up that a poll has shown, when nothing
//     is left to accept: a Unix socket that was shut down keeps what had come before. Its accepts
//     do not tell of its end, a multishot one never, so a poll for that stands beside it. While it
//     is asked about a doubt, nothing is accepted.
//
// (18) What a poll has shown of a source's end reaches somebody: the event of (17); or of what is
//     no listener, a ticket. A hang-up lasts, so every arming shows it anew: once a ticket has said
//     it, another edge of it is no news, or tickets would go round for ever.
//
// (19) A worker that has something unclaimed and does not move is said to stall: when something is
//     recalled from it, when by (8) it gets nothing more, and where neither can be, because nobody
//     else may or can have what it was offered, by "silent stall" in core/motion.h. That it moves
//     again is said, too.
//
// (20) What a policy picks nobody for is set aside: it is held, but neither dealt nor counted where
//     credit matters. It keeps no credit by (16) and no promise by (13), so what is accepted may
//     exceed what workers have places for by as many as are set aside; its place by (11) it keeps.
//     The policy is asked again about all of it when it would be shown something better than
//     before (Aside), which whoever makes credit knocks for; and after a pause. The oldest comes
//     first, also before what has been recalled since. No more than AsideMax is set aside; then
//     nothing of the source is asked for, and what it holds beyond that waits as well. That, and
//     what is set aside for kAsideLongNs, is said once until nothing is held.
//
// (21) Workers are told when the intake stops, and when the master ends. What they are told stands
//     elsewhere; it was written before, and here they are only rung. Such a doorbell is one as any
//     other: by (1) of core/inbox.h a claim that begins after it finds what was written before it,
//     and if it fails it is owed. Workers to whom arrivals are sent are not rung, because nothing
//     but arrivals comes into their rings.
//
// (22) A worker passes a connection on that it has claimed: another way in which one comes to be
//     held. It goes to the end of the queue, its age counts from then, and by (11) it has its place
//     still. No promise by (13) is for it, because nobody has asked for it. Room by (14) is made
//     when it is taken in, beyond kRecordsMax if need be: its descriptor is there already.
//     As long as its giver, who has passed it on, has joined its source, and somebody else has,
//     too, the giver does not get it. Its policy is shown neither the giver's candidacy nor that it
//     has joined. If nobody else has credit it waits, and holds up nothing that the giver may have;
//     nor does the intake wait for it, or `hold` count it. It is not recalled for the giver.
//
// A polled source carries one sticky bit, `ready`: it may have more. An edge sets it, and so do a
// failed accept, a ticket given back (GiveBack) and a worker that leaves; only a look that finds
// nothing clears it. A look while tickets are untaken (8) finds out nothing: some may have been
// redeemed, so what has come since is looked for when they are taken. Arming need not set it,
// because the kernel reports at once what is there already. A source without credit stays armed
// until the first edge that finds none; it is then ready, disarmed and hungry. Disarming it earlier
// would cost two operations whenever credit runs out for a moment.

#ifndef RINGMASTER_SRC_CORE_ENGINE_H_
#define RINGMASTER_SRC_CORE_ENGINE_H_

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/aside.h"
#include "core/back_off.h"
#include "core/bell.h"
#include "core/deadline.h"
#include "core/engine_config.h"
#include "core/inbox.h"
#include "core/ledger.h"
#include "core/looks.h"
#include "core/moderation.h"
#include "core/motion.h"
#include "core/op.h"
#include "core/outbox.h"
#include "core/overflows.h"
#include "core/pace.h"
#include "core/places.h"
#include "core/port_state.h"
#include "core/ring.h"
#include "core/sending.h"
#include "core/tickets.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

inline constexpr uint32_t kRefusalsPerBatchMax = 64;
inline constexpr uint32_t kDealRoundsMax = 4;
// By (14): records of arrivals, of all sources together. Each is a descriptor of the process, and
// fs.nr_open allows no more than so many unless somebody raises it; then the intake pauses here.
inline constexpr uint32_t kRecordsMax = 1 << 20;
// So many sources are asked in one batch how many connections their backlogs have dropped.
inline constexpr uint32_t kOverflowLooksPerBatchMax = 64;
// An offer whose worker moves is recalled only for an idle worker, at so many times the limit.
inline constexpr int64_t kIdleRecallFactor = 4;
// How often the limit of an arrival can double.
inline constexpr uint8_t kDoublingsMax = 6;

class Engine {
 public:
  // Borrows `hunger`, which it raises when it waits for credit.
  Engine(const EngineConfig& config, Hunger* hunger);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // --- The accept path: never allocates. -------------------------------------------------------

  // Takes in what has completed and replaces the contents of `ops` by what to do next. The vector
  // is the caller's, so nothing that is done to the engine meanwhile changes it; the first batch
  // after set-up sees to its room. `all_reported` is what the ring says of the turn, see
  // Ring::AllReported.
  void OnBatch(std::span<const Completion> completions, int64_t now_ns, std::vector<Op>& ops,
               bool all_reported = true);

  // A worker says that `source`, with readiness intake, may have more; with EAGAIN, that it has
  // found nothing; with another errno, that it could not accept from it. What a batch has an edge
  // of may be younger than any of these. The caller has told late tickets apart
  // (GivenBack), whose source has gone. Between two batches, followed by one.
  void GiveBack(uint32_t source, int32_t error);
  void GiveBack(uint32_t source, const GivenBack::News& news);
  // The same of a worker that has accepted something. It need not say so each time, only when that
  // would change the books of the source.
  void Redeemed(uint32_t source);
  bool WaitsForSuccess(uint32_t source) const;

  // What kOverflows would complete with now, for whoever asks between two batches.
  void NoteOverflows(uint32_t source, int32_t overflows);

  // How long the ring may wait after the last batch: 0, a time, or kWaitForever.
  int64_t WaitMax(int64_t now_ns) const;

  // How long the ring is to gather completions first, no longer than WaitMax: see Moderation.
  int64_t Gather(int64_t now_ns) const;
  // For it: the CPU time that a turn with its batch has taken of late.
  void SetTurnCost(int64_t cpu_ns) { moderation_.SetTurnCost(cpu_ns); }

  // What has happened since the last call of ClearEvents.
  std::span<const EngineEvent> events() const { return events_; }
  void ClearEvents() { events_.clear(); }

  // Takes note of what the workers have done since the last batch, so that counts are current.
  void CatchUp(int64_t now_ns);

  // By (14): how many connections of multishot accepts the next batch may bring; more would find
  // no room. For a ring that can keep back what it has.
  uint32_t RoomForEach() const;
  // By (14): whether something was not taken in for want of room in the ledger.
  bool WantsRoom() const { return wants_room_; }

  // By (12): whether places of workers or of the balancer's gate were given back since the last
  // call, other than by workers and leases. Then other masters that are hungry are to be woken.
  bool PlacesFreed() { return places_.TakeFreed(); }

  // --- Set-up: between two batches, followed by one. May allocate. -----------------------------

  uint32_t AddSource(SourceConfig config) { return AddSource(NextSource(), std::move(config)); }
  // At an index that NextSource has given for it. Workers may have made a lower one free since.
  uint32_t AddSource(uint32_t index, SourceConfig config);
  uint32_t AddWorker(const WorkerConfig& config);

  // By (22): what workers have passed on of sources that have not been removed, or not long ago:
  // the index still is that of the source that is meant.
  void PassOn(std::span<const PassedOn> passed_on, int64_t now_ns);
  // The same of one that is closed instead, by whoever calls.
  void RefuseAtOnce(uint32_t source);
  // The facts that the policy of a source needs, as kFact bits.
  uint8_t FactsOfPolicy(uint32_t source) const {
    return FactBits(sources_[source].config.policy->facts());
  }

  // By (14), when WantsRoom says so. Rare: bursts have brought more than the sources may hold, and
  // it is still held. The memory at least doubles, so it is allocated some twenty times at most.
  void MakeRoom();

  // The lowest index that is free for a source, by (9). It stays free until it is given to one.
  uint32_t NextSource();

  // By (9). No worker joins it any more. Its descriptor may be closed as soon as IntakeEnded.
  void RemoveSource(uint32_t source);
  // Whether nothing is armed or under way at the source.
  bool IntakeEnded(uint32_t source) const;

  // Puts `policy` in the place of the source's. What has been accepted before has the facts that
  // the old one asked for. Returns the old one.
  std::unique_ptr<Policy> SetPolicy(uint32_t source, std::unique_ptr<Policy> policy);

  // Changes what a worker may have. Where that is less than it has, it gets nothing before it has
  // less. `window_max` is at most half of its inbox.
  void SetCapacity(uint32_t worker, uint32_t capacity);
  void SetWindow(uint32_t worker, uint32_t window_max);

  // The worker leaves everything: all that it has not claimed is recalled at once. Afterwards the
  // engine no longer refers to what its config borrowed.
  void RemoveWorker(uint32_t worker);

  bool Joined(uint32_t source, uint32_t worker) const;
  // `token` goes with what is handed over as a completion.
  void Join(uint32_t source, uint32_t worker, uint64_t token = 0);
  void Leave(uint32_t source, uint32_t worker);
  void Pause(uint32_t source);
  void Resume(uint32_t source);

  // Nobody drives the master for a while: from the next batch on it ends what is armed, arms and
  // asks for nothing more, and deals nothing; what has been accepted is held. GoOn takes it up
  // again. Set-up goes on meanwhile.
  void Rest();
  void GoOn();
  // While it rests: whether nothing is armed or under way any more.
  bool AtRest() const;
  // While it rests: the ring is out of reach, and what was armed or under way there will never
  // complete, or not here.
  void ForgetRing();

  // Ends all intake for good; what has been accepted is still dealt. From now on `hungry` stays
  // raised, so that every claim and every lease wakes the master. Tells the workers.
  void StopIntake();
  // By (21): rings every worker in the next batch, also those to whom nothing is offered.
  void TellWorkers() { tells_ = true; }
  // After StopIntake: nothing is armed or under way any more.
  bool IntakeEnded() const;
  // After StopIntake: closes everything that is held or offered, a bounded number in each batch.
  void RefuseAll();
  // Held, offered, or sent and not known to have been received.
  uint64_t Outstanding() const;

  const Ledger& ledger() const { return ledger_; }
  uint32_t worker_slots() const { return static_cast<uint32_t>(workers_.size()); }
  uint32_t source_slots() const { return static_cast<uint32_t>(sources_.size()); }
  bool worker_used(uint32_t worker) const { return workers_[worker].used; }
  uint64_t doorbells(uint32_t worker) const { return workers_[worker].bell.doorbells(); }
  uint64_t stalls(uint32_t worker) const { return workers_[worker].motion.stalls(); }
  uint32_t open(uint32_t worker) const;
  // Offered or handed over, and not taken.
  uint32_t Unclaimed(uint32_t worker) const;
  // The age of the oldest of these; of what was handed over, how long nothing has been taken.
  int64_t OldestUnclaimedNs(uint32_t worker) const;
  bool source_removed(uint32_t source) const { return sources_[source].removed; }
  // Tells the source from all others that have had its index: never 0, never used again.
  uint64_t source_serial(uint32_t source) const { return sources_[source].serial; }
  const IntakeCount& intake(uint32_t source) const { return sources_[source].intake; }
  // By (20): how long ago the oldest was set aside of what still is, and how many may be.
  int64_t OldestAsideNs(uint32_t source) const;
  uint32_t AsideMax(uint32_t source) const { return AsideMax(sources_[source]); }
  const Policy& policy(uint32_t source) const { return *sources_[source].config.policy; }
  // Whether it has work that nobody has credit for.
  bool starved(uint32_t source) const { return sources_[source].starved; }
  // What the source's policy was the first to do that it must not: a sentence; empty: nothing.
  const std::string& policy_fault(uint32_t source) const { return sources_[source].policy_fault; }
  // What the sources have counted whose indexes were used again.
  const SourceCount& departed_sources() const { return departed_sources_; }

  // --- For tests and the simulator. ------------------------------------------------------------
  uint32_t window(uint32_t worker) const { return workers_[worker].motion.window(); }
  bool armed(uint32_t source) const { return sources_[source].arm != Arm::kIdle; }
  bool ready(uint32_t source) const { return sources_[source].ready; }
  // Places that it has reserved at a worker and not used.
  uint32_t promised(uint32_t worker) const;
  // Whether it asks to be woken for nothing but the taking of what it has handed over.
  bool waits_for_took_alone() const { return waits_alone(Waits::kForTook); }
  // The same for what policies have set aside, and for others than givers.
  bool waits_for_policies_alone() const { return waits_alone(Waits::kForPolicy); }
  bool waits_for_others_alone() const { return waits_alone(Waits::kForOthers); }
  bool waits_for_others(uint32_t source) const { return sources_[source].waits_for_others; }
  // Asserts the numbered rules; (5) only where nothing is under way. By (14) there is room for
  // every accept under way, as long as the ring has brought no more than it said it could.
  void CheckAll(bool at_rest, bool ring_keeps_its_word = true);

 private:
  enum class Arm : uint8_t { kIdle, kArmed, kEnding };

  struct SourceState {
    SourceConfig config;
    uint32_t index = 0;  // its own
    uint8_t facts = 0;
    Arm arm = Arm::kIdle;
    uint64_t serial = 0;
    uint16_t generation = 0;
    OpKey armed_key;  // of what is armed or ending
    IntakeCount intake;
    std::string policy_fault;
    bool removed = false;
    bool drained = false;    // removed, and nothing is left of it; `joined` are those who may still
                             // look an offer of it up
    uint32_t unsettled = 0;  // sent and not known to have been received
    int32_t events = kReadableMask;  // readiness: what polls said since the last ticket
    int32_t told = 0;                // the same: what tickets have said of its end, by (18)
    bool armed_anew = false;         // the same: and no edge has come since
    bool hung_up = false;            // by (17): a poll has shown it, and nobody was asked
    int32_t doubt = 0;               // the same: the errno of what is to be asked about
    bool asks_state = false;         // the same: a kState is due
    bool asking_state = false;       // the same: one is under way
    bool drains = false;             // given up; its tickets go on until it is empty
    bool watches_end = false;        // a kHangUp is under way
    bool ends_watch = false;         // the same: and has been told to end
    OpKey end_key;                   // of that
    bool ready = false;
    bool paused = false;
    bool failed = false;
    bool starved = false;           // ready or holding, and no candidate in the last round
    bool waits_for_others = false;  // by (22): it holds what only givers had credit for
    bool yields = false;            // multishot accept: it is not armed, by (16)
    bool full = false;  // multishot accept: no place or no room in the last round, by (11), (14)
    Tickets tickets;    // readiness
    Overflows overflows;
    BackOff back_off;
    Aside aside;
    Pace pace;                     // of single accepts
    int64_t blocked_until_ns = 0;  // kSourceBlocks has been reported
    std::vector<uint32_t> joined;  // ascending
  };

  struct WorkerState {
    WorkerConfig config;
    bool used = false;
    uint32_t generation = 0;
    Motion motion;
    Looks looks;
    Bell bell;
    Outbox outbox;        // for offers; or
    Sending sending;      // where arrivals are sent
    bool active = false;  // in active_
  };

  void OnCompletion(const Completion& completion);
  void OnDoorbellFailed(const Completion& completion);
  void BackOffBell(uint32_t worker, int32_t error);
  void Settle(bool all_reported);
  void OnAccepted(uint32_t source, const Completion& completion);
  void DropAtOnce(uint32_t source, const Completion& completion);
  void OnAcceptError(uint32_t source, int32_t error);
  void OnConnectionError(uint32_t source);
  void OnPolled(uint32_t source, int32_t mask);
  void OnHangUp(uint32_t source, int32_t result);
  static void OnEachEnded(SourceState& source, int32_t result);
  void OnState(uint32_t source, int32_t result);
  static void Doubt(SourceState& source, int32_t error);
  void AskForStates();
  void GiveUp(uint32_t source, int32_t error);
  void PauseIntake(uint32_t source);
  bool BackingOff() const;
  void EndBackOffs();
  void EndBackOff(SourceState& source);
  void FinishAccepts();

  bool ReadInboxes();
  bool ReadInbox(uint32_t worker);
  void ReadTally(uint32_t worker);
  bool Quiet(uint32_t worker) const;
  void ReadAll(uint32_t worker);
  void Moved(uint32_t worker);
  void RecallOverdue();
  void RecallOverdueOf(uint32_t worker);
  // kNotYet: it is young, or its worker has moved lately. kWanted: nobody can take it.
  enum class Recallable : uint8_t { kNever, kNotYet, kWanted, kNow };
  Recallable MayRecall(uint32_t worker, ArrivalId id) const;
  static Offer OfferOf(const ArrivalRecord& record);
  int64_t RecallLimit(ArrivalId id) const;
  int64_t FirstLimitAt(const WorkerState& worker) const;
  bool RecallAt(uint32_t worker, const Outbox::Entry& entry);
  void RecallAllOf(uint32_t worker, uint32_t source);
  bool TakerFor(const ArrivalRecord& record, uint32_t except, bool must_be_idle) const;

  size_t Pick(uint32_t source, const Arrival& arrival, const View& view);
  template <typename Tell>
  void TellPolicy(uint32_t source, const char* function, Tell tell);
  void PolicyFailed(uint32_t source, const std::string& what);
  void Prepare(const SourceState& source) const;
  void Deal();
  bool DealHeld(uint32_t source);
  ArrivalId NextToDeal(const SourceState& source) const;
  bool Excludes(const ArrivalRecord& record) const;
  size_t PickFor(uint32_t source, const ArrivalRecord& record);
  View ViewFor(const SourceState& source) const;
  bool OthersHaveCredit(const SourceState& source) const;
  uint64_t Dealable(const SourceState& source) const;
  void MakeRoomFor(uint64_t arrivals, uint64_t records_max);
  uint64_t SetAside(const SourceState& source) const;
  bool AsksAgain(const SourceState& source) const;
  static uint32_t AsideMax(const SourceState& source);
  bool AsideFull(const SourceState& source) const;
  uint32_t MayBring(const SourceState& source) const;
  bool HasNews(uint32_t source);
  void AskAgain(uint32_t source);
  // Who waits for credit of those that were served longer ago; only at the balancer's limit.
  enum class Ahead : uint8_t { kNobody, kStarves, kGetsCreditSoon };
  bool AcceptMore(uint32_t source, Ahead ahead);
  bool ArmEach(uint32_t source, bool held_back, Ahead ahead);
  bool WaitsForWorker(const SourceState& source) const;
  uint32_t Admit(uint32_t source, uint32_t wanted);
  uint64_t CreditOf(const SourceState& source) const;
  void TakeAgain();
  void FindNothing(uint32_t source);
  static void MayHaveMore(SourceState& source);
  bool IssueTickets(uint32_t source);
  bool CountBacklog(uint32_t source);
  void AskForOverflows();
  static uint32_t UnderWay(const SourceState& source);
  bool LetGo(uint32_t source, uint64_t fresh);
  bool LetGo();
  void TookFromOthers(uint32_t worker);
  uint32_t BurstMax() const;
  bool HasRoomFor(uint32_t arrivals) const;
  // Neither a place by (11) nor room by (14).
  bool Full(const SourceState& source) const {
    return places_.Full(source.index) || !HasRoomFor(1);
  }
  void TurnAway(uint32_t source, const Completion& completion);
  void Expire();
  void ExpireHeld(uint32_t source);
  bool DropExpired(uint32_t source, ArrivalId id);
  void ExpireOffered(uint32_t worker);
  bool Expired(const ArrivalRecord& record);
  static uint8_t FactsOf(const SourceState& source);
  uint64_t UnclaimedTickets(uint32_t source) const;
  void WithdrawTickets(uint32_t source);
  void DropTickets(uint32_t source);
  void MergeTicket(uint32_t source, ArrivalId id);
  void ForgetSent(WorkerState& worker, size_t count, bool taken);
  static uint32_t TicketOf(const SourceState& source, uint32_t index);
  void ForgetTickets(WorkerState& worker);
  void ForgetUnsent(WorkerState& worker, uint32_t source);
  void Refuse();
  void Refresh(SourceState& source);
  void RefreshOpen(const SourceState& source);
  void CountOpen(const SourceState& source, Candidate& candidate) const;
  void AddCandidates(SourceState& source, bool slow_too);
  bool SlowAtWork(const WorkerState& worker) const;
  bool Idle(const WorkerState& worker) const;
  int64_t StillNs(uint32_t worker) const;
  uint32_t Credit(uint32_t worker, const SourceState& source) const;
  bool OfferTo(uint32_t worker, ArrivalId id);
  void SendTo(uint32_t worker, ArrivalId id);
  static int64_t SilentAt(const WorkerState& worker);
  void Stall(uint32_t worker, bool recalled);

  // What keeps something from being done now that only a worker, or the end of a lease, can change.
  enum class Waits : uint8_t {
    kForNothing,
    kForCredit,
    kForDescriptors,
    kForTook,
    kForTaker,
    kForPolicy,
    kForOthers
  };
  bool waits_alone(Waits what) const;
  Waits WaitsOf(const SourceState& source) const;
  Waits WaitsOf(const WorkerState& worker) const;
  bool Starving() const;
  bool Shut(const SourceState& source) const;
  bool Deals(const SourceState& source) const;
  static bool Disarmed(const SourceState& source);
  bool HasWork(uint32_t source) const;

  void RingTouched();
  void TouchAll();
  void RingWorker(uint32_t worker);
  void SendDoorbell(uint32_t worker);
  void ArmSources();
  void WatchEnd(uint32_t source);
  bool WantsArm(uint32_t source) const;
  OpKey SourceKey(OpKind kind, uint32_t source) const;
  bool FreeIndex(uint32_t source);
  void Activate(uint32_t worker);
  void Emit(EventKind kind, uint32_t source, uint32_t worker, int32_t error);
  void Emit(const EngineEvent& event);
  void ReserveFor(SourceState& source);
  void ReserveShared();
  void NoteWindow(WorkerState& worker, uint32_t before, uint64_t now);

  const EngineConfig config_;
  Hunger* const hunger_;
  CpuTopology no_topology_;

  Ledger ledger_;
  Places places_;
  std::vector<SourceState> sources_;
  std::vector<WorkerState> workers_;
  std::vector<uint32_t> active_;   // workers with something unclaimed, or rung, or owing motion
  std::vector<uint32_t> touched_;  // workers offered to in this batch
  int64_t expires_at_ns_ = kWaitForever;  // the first of what may grow too old
  Unsettled unsettled_;
  std::vector<Candidate> candidates_;  // of the source that is dealt
  std::vector<uint32_t> credits_;      // of the source that asks, as it has joined
  std::vector<uint32_t> others_;       // by (22): who has joined, but for a giver
  // By (16): all sources, who was served longest ago first; within Deal, those who were served.
  std::vector<uint32_t> turns_;
  std::vector<uint32_t> served_;
  // What room is made for beside what may be sent: the words of all inboxes, the windows of all
  // workers; of multishot accepts, how many there are and what they may hold.
  uint64_t words_ = 0;
  uint64_t windows_ = 0;
  uint64_t holds_ = 0;
  uint32_t eaches_ = 0;
  SourceCount departed_sources_;
  std::vector<Op> ops_;  // within a batch: the caller's; empty between two
  size_t ops_max_ = 0;   // in one batch
  std::vector<EngineEvent> events_;

  Moderation moderation_;
  uint32_t arrived_ = 0;  // in this batch

  int64_t now_ns_ = 0;
  uint32_t accepts_under_way_ = 0;
  uint32_t expired_ = 0;      // closed in this batch because they had grown too old
  bool wants_room_ = false;   // by (14)
  bool turned_away_ = false;  // in this batch, and reported
  uint64_t serials_ = 0;      // of sources, given out
  bool watching_ = false;
  bool hungry_ = false;
  bool more_to_do_ = false;  // there is more to do than one batch takes
  bool taken_ = false;  // what a source waited for, by a Took that was seen since the last round
  bool stopping_ = false;
  bool tells_ = false;  // by (21): in the next batch
  bool resting_ = false;
  bool refusing_ = false;
};

template <typename Tell>
void Engine::TellPolicy(uint32_t index, const char* function, Tell tell) {
  try {
    tell(*sources_[index].config.policy);
  } catch (const std::exception& thrown) {
    PolicyFailed(index, std::string("threw \"") + thrown.what() + "\" in " + function);
  } catch (...) {
    PolicyFailed(index, std::string("threw something in ") + function);
  }
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ENGINE_H_
