// The checker: what must be true of a run, told from outside. It shares no code and no state with
// the engine and the ledger. It hears what the kernel did, what the workers did, and when a batch
// is over. It reads the words of the inboxes as they lie in memory. It keeps its own table of every
// connection: arrived → accepted → reported → offered → claimed → served → closed. Where
// connections are handed over as completions: reported → sent → in the ring → served → closed.
//
// A worker has an inbox from each master, or is handed completions by each. Either is called its
// box at that master. A source belongs to one master, so what happens to a connection happens in
// one box. What is open, and who waits, is a matter of the worker.
//
// What it checks, all the time:
//  * A connection is served once, by the worker to which it was offered, under the token of its
//    source, and never after it was refused. No descriptor is in two places. Nothing is offered,
//    handed over, claimed or closed that is not the master's to give.
//  * What is handed over is never recalled, and reaches the ring of the worker to which it was
//    sent. What could not be handed over is given to somebody else, or tried again.
//  * At the moment of an offer, what is unclaimed stays within the window, and what is open, offers
//    included, within the capacity.
//  * Connections of a source are offered for the first time in the order in which they came. A
//    connection that was recalled, or could not be handed over, comes before those that were never
//    offered. Several of these keep the order in which they had been offered.
//  * After a recall a worker is offered nothing until it has moved. A worker that has taken nothing
//    out of its ring for the recall limit is handed nothing more until it takes something.
//  * A connection whose client has hung up when it is accepted, or that is too old by then, is
//    closed in the batch that hears of it. It is given to nobody. What grows too old later is given
//    to nobody either, and nothing is closed before its time. An age counts from when the client
//    came, if the kernel tells that.
//  * Nothing is recalled before it is old enough, nor from a worker that nobody could replace.
//  * An offer to a worker that does not move is not left there while somebody else has credit. No
//    offer grows very old while somebody else has nothing to do.
//  * What lies with a worker that says it is busy is moved at most once, to one that says that it
//    waits and has nothing unclaimed, and not before it has lain a while. It does not go on lying
//    there while somebody waits, where the policy would take either.
//  * Nothing is held, or left in the backlog, while a worker that waits has credit. The exception
//    is credit that is kept for what another source has asked for. Whoever makes credit wakes the
//    master.
//  * What a worker passes on reaches its master at once. As long as somebody else has joined, it is
//    not given to the worker that has passed it on. The exception is a worker that has left the
//    source meanwhile.
//  * What its policy picks somebody for goes to that worker. What it picks nobody for stays held:
//    no more of a source than may be. The policy is asked about it again when a worker could have
//    it that could not before, has fewer connections open, or waits again. It is asked at least ten
//    times a second. Nothing else waits for it.
//  * Sources of a master take turns. A source may have work of which the master knows. Then sources
//    that get credit from workers which it has joined, too, pass it over at most a few times.
//  * A ticket brings nothing but connections of its own source, however late it is redeemed, and
//    says nothing about another source.
//  * A full backlog drops clients. The master asks for their number at the next activity of the
//    source that is at least 100 milliseconds later, and reports it.
//  * A source takes nothing in before as many workers have joined as it waits for, or it was
//    resumed. From then on it is never without reason idle, whoever leaves.
//  * An index belongs to a new source only when nothing of the old source is left, and nobody looks
//    anything of it up.
// The first violation is kept as the failure, and nothing is checked after it.

#ifndef RINGMASTER_SRC_SIM_CHECKER_H_
#define RINGMASTER_SRC_SIM_CHECKER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sim/trace.h"

namespace ringmaster::sim {

// What the checker must know of a worker at one master. Borrows the inbox's storage until the
// worker has left.
struct CheckedBox {
  bool completions = false;          // has no inbox
  bool direct = false;               // and what is handed over is installed in a file table
  const std::byte* words = nullptr;  // the first word of its inbox
  uint32_t words_count = 0;
  uint32_t window = 0;
  uint32_t capacity = 0;
};

// What the checker must know of a source.
struct CheckedSource {
  uint32_t master = 0;
  bool recall = true;
  bool tickets = false;    // its workers accept
  bool countable = false;  // tickets: the master counts what waits
  bool exact = true;       // what is accepted never exceeds the capacity
  uint32_t capacity = 0;   // 0: no limit
  int64_t age_max_ns = 0;  // 0: no limit
  bool tells_age = true;   // the kernel tells when a client came
  bool reluctant = false;  // its policy picks nobody now and then
  bool moves = false;      // its policy takes any worker that waits instead of one that is busy
  uint32_t aside_max = 1;  // for so many at a time
  uint32_t start_workers = 1;
};

// A connection that the master hands over, or a ticket.
struct Handed {
  uint32_t worker = 0;
  int32_t fd = -1;
  uint32_t ticket_of = UINT32_MAX;  // its source; UINT32_MAX: it is a connection
};

struct CheckerOptions {
  uint32_t masters = 1;
  uint32_t host = UINT32_MAX;  // the worker that drives the master; UINT32_MAX: none does
  int64_t recall_after_ns = 0;
  uint32_t capacity = 0;    // of all sources together; 0: no limit
  int64_t patience_ns = 0;  // how late the master may be by itself
  int64_t tick_ns = 0;      // the unit in which the kernel tells when clients came
  bool backs_off = false;   // accepts may fail, after which the master waits before the next one
  bool turns_away = false;  // the ring brings more than it says, so what it brings may be closed
  bool doorbells_are_prompt = true;  // so that a worker that waits is known to wait
};

class Checker {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // Borrows the trace, which hears of offers and recalls.
  Checker(CheckerOptions options, Trace* trace)
      : options_(options), trace_(trace), masters_(options.masters) {}

  // Why the inboxes may have changed since they were read last.
  enum class Occasion : uint8_t { kBatch, kLeave, kWithdraw, kRefuse };

  // --- Set-up. Sources, workers and connections are numbered from 0 as they are added. ---
  // `index` is the engine's, which offers carry.
  void AddSource(const CheckedSource& source, uint32_t index);
  void OnSourceRemoved(uint32_t source, int64_t now_ns);
  void OnSourceGivenUp(uint32_t source) { sources_[source].given_up = true; }
  uint32_t AddWorker(const std::vector<CheckedBox>& boxes);  // by master
  // What the worker may have at one master.
  void OnLimits(uint32_t worker, uint32_t master, uint32_t window, uint32_t capacity,
                int64_t now_ns);
  void OnJoined(uint32_t source, uint32_t worker, int64_t now_ns);
  void OnLeftSource(uint32_t source, uint32_t worker, int64_t now_ns);
  void OnLeft(uint32_t worker, uint32_t master, int64_t now_ns);  // and every source of it
  void OnPaused(uint32_t source, bool paused) {
    sources_[source].paused = paused;
    sources_[source].started |= !paused;
  }
  bool started(uint32_t source) const { return sources_[source].started; }
  void OnStopIntake(uint32_t master, int64_t now_ns);
  void OnRefuseAll(uint32_t master, int64_t now_ns);

  // --- The kernel. ---
  uint32_t OnArrival(uint32_t source, int64_t now_ns);
  void OnReset(uint32_t connection);  // in the backlog
  // A client was dropped because the backlog is full; the master asks how many were dropped; the
  // master reports it.
  void OnOverflow(uint32_t source, int64_t now_ns);
  void OnAskedForOverflows(uint32_t source);
  void OnOverflowReported(uint32_t source);
  void OnAccepted(uint32_t connection, int32_t fd, int64_t now_ns);
  // What was handed over is in the ring of `worker` now, under the token of `source`; or it could
  // not be handed over.
  void OnReceived(uint32_t worker, int32_t fd, uint32_t source);
  void OnTicketReceived(uint32_t worker, uint32_t source);
  void OnSendFailed(int32_t fd);
  // The same of what is installed in the file table of `worker`. `untold`: it is in there, and the
  // worker does not know it.
  void OnInstalled(uint32_t worker, uint32_t connection, uint32_t source);
  void OnInstallFailed(uint32_t connection, bool untold);
  // The master has closed what it had of it. Returns whether it had given it up, and it is not in
  // the table after all.
  bool OnLetGo(int32_t fd, bool hang_up);
  bool installed(uint32_t connection) const { return connections_[connection].installed; }
  uint32_t worker_of(uint32_t connection) const { return connections_[connection].worker; }

  // --- The seam: an accepted connection, or a failure to hand one over, reaches the master; the
  // master decides to close one; it is closed. ---
  void OnCounted(uint32_t source, uint32_t count) { sources_[source].counted = count; }
  // The ring has looked when the client of an accepted connection came, and whether the client has
  // hung up. `came_at_ns` is 0 if it did not ask, or the kernel does not tell.
  void OnLookedAt(uint32_t connection, int64_t came_at_ns, bool hung_up);
  void OnReported(uint32_t source, int32_t fd);
  // The master was told that the source may have something; it has asked for one connection of the
  // source, or for the count of what waits; the answer has reached it.
  void OnEdge(uint32_t source) {
    sources_[source].known = true;
    sources_[source].known_at_ns = now_ns_;
  }
  void OnAsked(uint32_t source);
  void OnAnswered(uint32_t source, bool any);
  void OnSendFailureTold(int32_t fd, int64_t now_ns);
  void OnTicketFailureTold(uint32_t worker, uint32_t source, int64_t now_ns);
  void OnRefusedClosed(int32_t fd);

  // --- The workers. ---
  // The worker has begun a claim at the inbox of a master. What that has told it before is known to
  // it now.
  void OnBegun(uint32_t worker, uint32_t master) {
    workers_[worker].boxes[master].knows_the_end = masters_[master].stopping;
  }
  // It has begun a claim that cleared `rung`.
  void OnMoved(uint32_t worker, uint32_t master, int64_t now_ns);
  // It has claimed `word`. Returns the connection, kNone after a failure.
  uint32_t OnClaimed(uint32_t worker, uint32_t master, uint64_t word, int64_t now_ns);
  // The same for a word that is a ticket. Returns the source.
  bool IsTicket(uint32_t master, uint64_t word) const;
  uint32_t OnTicketClaimed(uint32_t worker, uint32_t master, uint64_t word, int64_t now_ns);
  void OnTicketLookedUp(uint32_t source, uint32_t found);
  // It has redeemed a ticket of the source: the connection takes over its place.
  uint32_t OnRedeemed(uint32_t worker, int32_t fd, uint32_t source, int64_t now_ns);
  // It has found nothing, or could not accept: the ticket's place is given back.
  void OnTicketDone(uint32_t worker, uint32_t source, int64_t now_ns);
  // For a ticket that was handed over: the worker has taken it out of its ring; it has accepted
  // something by it; it has finished with it.
  void OnTicketTaken(uint32_t worker, uint32_t source);
  uint32_t OnAcceptedByWorker(uint32_t worker, int32_t fd, uint32_t source);
  void OnTicketSpent(uint32_t source, int64_t now_ns);
  // By a permit: it has taken a place for it, or given that back; it has claimed the permit; it has
  // accepted (returns the connection, kNone after a failure); it has said so; or it has given up.
  void OnPermitPlace(uint32_t worker, bool taken, int64_t now_ns);
  void OnPermitClaimed(uint32_t worker, uint32_t source);
  uint32_t OnAcceptedByPermit(uint32_t worker, int32_t fd, uint32_t source);
  void OnPermitFinished(uint32_t source);
  void OnPermitGivenUp(uint32_t source);
  // It has found the token of `source` for what it has claimed.
  void OnLookedUp(uint32_t connection, uint32_t source);
  // It has taken a completion out of its ring. Returns the connection, kNone after a failure.
  uint32_t OnTaken(uint32_t worker, int32_t fd);
  uint32_t OnTakenSlot(uint32_t worker, uint32_t connection);
  // It serves `connection`, claimed or taken before.
  void OnServed(uint32_t worker, uint32_t connection);
  void OnClosed(uint32_t connection);
  // It says that it has taken so many completions out of its ring. They are booked as those of this
  // master; never more than there are.
  void OnTook(uint32_t worker, uint32_t master, uint32_t count, int64_t now_ns);
  // It has read the hungry flag after that.
  void OnTookTold(uint32_t worker, int64_t now_ns);
  // It passes on what it serves; it has given its place back; the master has taken it in.
  void OnPassedOn(uint32_t connection, int64_t now_ns);
  void OnPassedOnPlace(uint32_t worker, int64_t now_ns);
  void OnTakenIn(int32_t fd);
  // It has made a lease of a connection that was handed over. Until Took, the lease has the place
  // that the connection had in the ring.
  void OnAdopted(uint32_t worker);
  // A lease has been released: the place is given back, the fd was closed before.
  void OnReleased(uint32_t worker, uint32_t source, int64_t now_ns);
  // It waits, has done its last knock, and has nothing to wait for; it does not wait any more.
  void OnIdle(uint32_t worker, int64_t now_ns);
  void OnBusy(uint32_t worker);
  // What it says of its loop, if it gives hints.
  void OnHint(uint32_t worker, bool waiting, int64_t now_ns);
  bool SaysItWaits(uint32_t worker) const { return workers_[worker].says == Says::kWaiting; }

  // Places that the masters have reserved at it for what they are about to accept.
  void OnPromised(uint32_t worker, uint32_t count, int64_t now_ns);

  // --- The policies. A worker that one was shown, with as many connections open; it picks that
  // worker for `connection` (kNone: a ticket), or nobody of those. ---
  struct Shown {
    uint32_t worker = 0;
    uint32_t open = 0;
    bool busy = false;
  };
  // What lies with the worker is taken back, because that is busy and the policy would have taken
  // another one as well.
  void OnMoving(uint32_t source, uint32_t worker);
  void OnPolicySwitched(uint32_t source, bool moves, int64_t now_ns) {
    sources_[source].facts.moves = moves;
    sources_[source].policy_since_ns = now_ns;
  }
  void OnPicked(uint32_t source, uint32_t connection, uint32_t worker);
  void OnNobody(uint32_t source, uint32_t connection, const std::vector<Shown>& shown);

  // --- Sources that are aimed. ---
  // After a batch of its master: whether it is.
  void OnAimed(uint32_t source, bool aimed) { sources_[source].aimed = aimed; }
  // A batch is due. A holder had closed a desk of the master.
  void CheckCall(uint32_t master, int64_t called_at_ns, int64_t due_ns);
  // After a batch, if it is aimed. `able`: workers that wait, and that nothing keeps from waking.
  void CheckDesk(uint32_t source, const std::vector<bool>& able, int64_t aimed_since_ns,
                 int64_t now_ns);
  // A place of the worker has become free, and hungry desks will be visited because of it; they are
  // being visited.
  void OnFreedPlace(uint32_t worker) { ++workers_[worker].freed_places; }
  void OnFreedPlaceShown(uint32_t worker) { --workers_[worker].freed_places; }
  // Whether the worker waits and could have a connection of it, and nobody is about to show it.
  bool WaitsWithAPlace(uint32_t source, uint32_t worker, int64_t now_ns) const {
    return workers_[worker].freed_places == 0 && CreditSinceOf(source, worker, now_ns) >= 0;
  }
  // Others have gone on in the middle of a batch, while the master had a desk.
  void OnMeanwhile() { meanwhile_ = true; }

  // --- A master. ---
  // `due_ns` is when the master would have acted if its host had not been busy.
  void BeforeBatch(uint32_t master, int64_t due_ns);
  void OnBatchBegins(int64_t now_ns) { now_ns_ = now_ns; }
  int64_t now_ns() const { return now_ns_; }
  // Nobody drives it, so nothing is dealt; or somebody does again.
  void OnRest(uint32_t master, bool rests) {
    masters_[master].resting = rests;
    masters_[master].rested = true;
  }
  // The engine says that a worker does not move, or moves again.
  void OnStallSaid(uint32_t worker, uint32_t master, bool stalls);
  // After that.
  void CheckStalls(uint32_t master, int64_t now_ns);
  // The host has kept the master from its work until now, so the master learns only now who has
  // moved.
  void OnHostReturns(int64_t now_ns) { host_returned_ns_ = now_ns; }
  // `handed` is what the batch hands over, in order. `all_reported`: the master knew what has
  // become of all that it had handed over before.
  // `closed` are the connections that it decided to close: refused, or too old.
  void AfterBatch(uint32_t master, std::span<const Handed> handed, std::span<const int32_t> closed,
                  bool all_reported, int64_t now_ns);

  // --- The end. ---
  // Everything that arrived was served and closed; `may_hold` says for each worker whether it died
  // and may therefore keep what it has, and what nobody may recall from it.
  void AtRest(const std::vector<bool>& may_hold);
  // After a shutdown: everything that was accepted was served, is with a worker, or was refused.
  void AtShutdown();
  // The engine is gone and nothing happens any more: workers have served everything that they had.
  void AfterTheEnd(const std::vector<bool>& may_hold);
  // Whether a worker that takes offers has not been told that the intake of a master has stopped.
  bool NotTold(uint32_t worker) const;
  // The claimed of the source's busiest and idlest worker differ by at most `bound`.
  void RoundIsEven(uint32_t source, const std::vector<uint32_t>& workers, uint64_t bound);

  // --- What it has counted. ---
  struct Counts {
    uint64_t reported = 0;
    uint64_t passed_on = 0;  // and taken in
    uint64_t held = 0;
    uint64_t offered = 0;
    uint64_t claimed = 0;  // or handed over
    uint64_t refused = 0;
    uint64_t dropped = 0;  // too old, or gone
    uint64_t gone = 0;
    uint64_t too_old_at_once = 0;     // when they were reported
    uint64_t withdrawn = 0;           // tickets
    uint64_t recalled = 0;            // by age, not by leaving
    uint64_t left = 0;                // recalled because the worker left
    uint64_t moved = 0;               // of what was recalled
    uint64_t passed_on_recalled = 0;  // by age, of what had been passed on
    uint64_t nobody = 0;              // times that its policy picked nobody
    uint64_t handed_over = 0;
    uint64_t handed_over_again = 0;  // what had failed before
    uint64_t by_permit = 0;
  };
  const Counts& counts(uint32_t source) const { return sources_[source].counts; }
  bool NobodyJoined(uint32_t source) const;
  // Tickets that were claimed, or taken out of a ring, and neither redeemed nor given up.
  uint32_t claimed_tickets(uint32_t source) const { return sources_[source].claimed_tickets; }
  // Tickets that were handed over, and their workers have not said that they took them.
  uint32_t untaken_tickets(uint32_t source) const;
  // Connections that its policy has picked nobody for when it was last asked.
  uint32_t aside(uint32_t source) const { return sources_[source].aside; }
  uint32_t source_of(uint32_t connection) const { return connections_[connection].source; }
  // Offered and not claimed, or handed over and not taken: at one master, or at all of them.
  uint32_t unclaimed(uint32_t worker, uint32_t master) const {
    return workers_[worker].boxes[master].unclaimed;
  }
  uint32_t unclaimed(uint32_t worker) const;
  // Connections that count as open.
  uint32_t open(uint32_t worker) const;
  uint64_t served() const { return served_; }

  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  void Fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }

 private:
  enum class Where : uint8_t {
    kQueued,
    kReset,
    kAccepted,
    kHeld,
    kOffered,
    kClaimed,
    kSent,
    kUnsent,  // handing it over has failed, and the master has not been told
    kInRing,
    kServed,
    kPassedOn,  // and the master has not taken it in
    kClosed,
    kRefused
  };

  // A policy has picked nobody.
  struct Nobody {
    int64_t at_ns = -1;
    std::vector<Shown> shown;
  };

  struct Connection {
    Where where = Where::kQueued;
    uint32_t source = 0;
    uint32_t worker = kNone;  // offered or handed over to, or served by
    int32_t fd = -1;
    uint64_t number = 0;  // within its source, as reported; of those that are not dropped at once
    int64_t arrived_at_ns = 0;
    int64_t came_at_ns = 0;  // as its age counts
    bool gone = false;
    bool dropped_at_once = false;
    uint32_t recalls = 0;
    bool moved = false;          // from a worker that was busy to one that waits
    uint64_t moved_in = 0;       // reading
    bool dealt_to_busy = false;  // whoever it lies with was busy when it was dealt
    bool ever_dealt = false;
    bool failed_before = false;  // to be handed over
    bool installed = false;      // it has no descriptor but for the master's
    bool let_go = false;         // and the master has closed that
    bool untold = false;
    bool by_number = false;           // it could not be handed over, and came back in this order
    uint32_t came_back_from = kNone;  // a worker that it was recalled from; kNone: from none
    uint64_t came_back_in = 0;        // reading
    int64_t dealt_at_ns = 0;
    uint64_t dealt_as = 0;      // counts what is dealt
    uint64_t was_dealt_as = 0;  // before it came back
    bool passed_on = false;     // since it was reported
    uint32_t giver = kNone;     // who did that last, if it has not left since it was taken in
    int64_t passed_on_at_ns = 0;
    uint32_t picked = kNone;  // as its policy said last; kNone: nobody
    bool aside = false;       // it is held, and that was the answer
    Nobody nobody;
  };

  struct Source {
    CheckedSource facts;
    int64_t policy_since_ns = 0;
    uint32_t asked = 0;            // connections and counts, not answered before the last batch
    uint32_t answered = 0;         // of these, since then
    bool asked_now = false;        // in this batch
    bool known = false;            // the master knows that it may have something
    int64_t known_at_ns = 0;       // when it was told last
    uint32_t passed_over = 0;      // batches in which others had their turn, since it had its own
    uint32_t counted = 0;          // tickets: as counted last
    uint32_t claimed_tickets = 0;  // and not redeemed
    uint32_t open = 0;             // accepted, and its lease not released
    uint32_t index = 0;
    bool started = false;
    bool paused = false;
    bool removed = false;
    bool given_up = false;
    bool aimed = false;
    int64_t accepted_at_ns = 0;     // when anything was, last
    std::deque<int64_t> queued;     // in the backlog: when they came
    int64_t overflowed_at_ns = -1;  // since it was asked for; -1: it has not
    bool overflow_due = false;      // it is to be asked for
    bool overflow_known = false;    // it was asked for
    bool overflow_reported = false;
    uint64_t numbers = 0;
    bool waits = false;                 // something was held or queued after the last batch
    int64_t told_until_ns = 0;          // tickets: when somebody last ceased to have one
    uint64_t first_deals = 0;           // connections dealt at least once
    uint64_t first_deals_now = 0;       // of these, in this reading
    bool deals_new_now = false;         // any of these had not been passed on
    uint32_t came_back = 0;             // held, and dealt before
    uint32_t aside = 0;                 // held, and the policy has picked nobody
    uint32_t passed_on = 0;             // held, and passed on, and not that
    uint32_t passed_on_held = 0;        // held, and passed on
    Nobody ticket;                      // the last time that it did so of a ticket
    bool ticket_picked = false;         // since then somebody was for one, the same or another
    uint32_t on_the_way = 0;            // sent, or claimed and its token not looked up
    std::vector<int64_t> joined_at_ns;  // by worker; negative: has not joined
    std::vector<uint64_t> claimed;      // by worker
    Counts counts;
  };

  // A worker at one master.
  struct Box {
    CheckedBox facts;
    std::vector<uint64_t> seen;  // words as read last, zero where claimed since
    uint32_t unclaimed = 0;
    uint32_t covered = 0;       // of these, how many have the place of a lease
    std::deque<uint32_t> sent;  // and not taken: the source of a ticket, kNone of a connection
    // Tickets that are in its ring, by their source. They stay there when it says Took too early.
    std::vector<uint32_t> tickets;
    bool left = false;
    bool knows_the_end = false;  // it has looked since the intake was stopped
    bool owes_motion = false;
    bool took = false;   // since the last batch
    bool moved = false;  // the same
    // When it moved, as far as the master could know, or was given something and had nothing.
    int64_t still_since_ns = 0;
    bool stall_said = false;
    int64_t moved_at_ns = 0;
    int64_t took_seen_ns = 0;           // the last batch that could know that it took something
    int64_t waits_since_ns = 0;         // handed over something when it had nothing in its ring
    int64_t unreachable_until_ns = -1;  // handing over has failed
  };

  enum class Says : uint8_t { kNothing, kBusy, kWaiting };
  struct Worker {
    std::vector<Box> boxes;  // by master
    uint32_t leased = 0;
    uint32_t promised = 0;
    uint32_t places = 0;     // open or promised before this batch
    uint32_t came_back = 0;  // could not be handed over, and is promised in this batch
    bool idle = false;
    Says says = Says::kNothing;
    int64_t busy_since_ns = 0;
    int64_t idle_since_ns = 0;
    std::vector<uint32_t>
        said;  // sources of tickets that it has said to have taken, before it knocks
    int64_t credit_since_ns = 0;  // nothing about its credit has changed since
    uint32_t freed_places = 0;    // of which hungry desks are to hear
  };

  struct MasterState {
    std::vector<uint32_t> by_index;  // sources
    int64_t last_batch_ns = 0;
    bool all_reported = true;
    bool burst = false;  // connections have come unasked, since the last batch
    bool stopping = false;
    bool refusing = false;
    bool resting = false;
    bool rested = false;       // and no batch has come since
    int64_t asks_from_ns = 0;  // when one had
  };

  // A word that has changed since it was read last.
  struct Change {
    uint32_t worker = 0;
    uint32_t slot = 0;
    uint64_t word = 0;  // as it is now
  };

  Box& BoxOf(uint32_t worker, uint32_t source) {
    return workers_[worker].boxes[sources_[source].facts.master];
  }
  const Box& BoxOf(uint32_t worker, uint32_t source) const {
    return workers_[worker].boxes[sources_[source].facts.master];
  }
  void Read(Occasion occasion, uint32_t master, uint32_t worker, uint32_t source, int64_t now_ns);
  void NoteChanges(uint32_t master, uint32_t worker);
  void TakeBackTicket(uint32_t master, const Change& change, Occasion occasion, int64_t now_ns);
  void OnTicketOffered(uint32_t worker, uint32_t source, int64_t now_ns);
  const char* WhyNot(uint32_t worker, uint32_t source, int64_t now_ns) const;
  void Opened(uint32_t source);
  void OnClosedByMaster(int32_t fd, int64_t now_ns);
  void TakeBack(uint32_t master, const Change& change, Occasion occasion, int64_t now_ns);
  void ComeBack(uint32_t connection, uint32_t from);
  void OnOffered(uint32_t worker, uint32_t master, uint64_t word, int64_t now_ns);
  void OnHanded(const Handed& handed, int64_t now_ns);
  void OnTicketHanded(uint32_t worker, uint32_t source, int64_t now_ns);
  void Untake(uint32_t worker, Box& box, uint32_t ticket_of, int64_t now_ns);
  bool Told(uint32_t source, int64_t now_ns) const;
  bool MayHave(uint32_t worker, uint32_t connection, int64_t now_ns);
  bool TooOld(const Connection& connection, int64_t now_ns) const;
  bool HoldsTooOld(uint32_t source, int64_t now_ns, bool aside_too = false) const;
  void Deal(uint32_t worker, uint32_t connection, int64_t now_ns);
  bool MayBeRecalled(const Connection& connection, int64_t now_ns) const;
  struct Moves {
    uint32_t worker = 0;
    uint32_t source = 0;
    uint32_t taken_back = 0;
    uint32_t moved = 0;  // of these
  };
  Moves& MovesFrom(uint32_t worker, uint32_t source);
  void CountMoves(uint32_t master);
  void CheckRecallIsDue(const Connection& connection, int64_t now_ns);
  void CheckNeglect(uint32_t master, int64_t now_ns);
  void CheckBusinessOf(uint32_t worker, uint32_t connection, int64_t now_ns);
  void CheckMove(const Connection& connection, int64_t now_ns);
  void CheckNeglectOf(uint32_t worker, uint32_t connection, int64_t now_ns);
  void CheckIdleness(uint32_t master, int64_t now_ns);
  void CheckOrder(uint32_t master);
  void NoteAside();
  void CheckAside(uint32_t master, int64_t now_ns);
  void CheckAsideOf(uint32_t source, const Nobody& nobody, uint32_t excluded,
                    const std::string& name, int64_t now_ns);
  void CheckAsideAfter(uint32_t master, uint32_t grown_old, int64_t now_ns);
  bool MayHaveNews(uint32_t worker, const Nobody& nobody) const;
  bool HeldUp(const Source& source) const;
  int64_t CreditSince(uint32_t source, uint32_t except, int64_t now_ns,
                      uint32_t giver = kNone) const;
  uint32_t ExcludedFrom(const Connection& connection) const;
  void ForgetGiver(uint32_t source, uint32_t worker);
  void NotePassedOn();
  void CheckPassedOn(uint32_t master, int64_t now_ns);
  uint64_t HeldNew(const Source& source) const {
    return source.counts.held - source.aside - source.passed_on;
  }
  int64_t CreditSinceOf(uint32_t source, uint32_t worker, int64_t now_ns) const;
  bool OthersAsk(uint32_t worker, uint32_t source) const;
  void CheckTurns(uint32_t master, int64_t now_ns);
  bool Joins(uint32_t source, uint32_t worker) const {
    return sources_[source].joined_at_ns[worker] >= 0;
  }
  uint32_t SourceOf(uint32_t master, uint64_t word) const;
  bool LostTicket(uint32_t source, const std::vector<bool>& may_hold) const;
  uint32_t Find(int32_t fd) const;
  std::string Name(uint32_t connection) const;

  const CheckerOptions options_;
  Trace* const trace_;
  std::vector<Source> sources_;
  std::vector<MasterState> masters_;
  std::vector<Worker> workers_;
  std::vector<Connection> connections_;
  bool any_direct_ = false;          // a worker has a file table
  std::vector<uint32_t> by_fd_;      // kNone: not open
  std::vector<Change> changed_;      // in this reading
  std::vector<uint32_t> came_back_;  // connections that came back and have not been dealt again
  std::vector<uint32_t> dealt_now_;  // connections dealt in this reading
  struct Given {
    uint32_t worker = 0;
    uint32_t source = 0;
    bool again = false;  // it came back, and has kept its place
  };
  std::vector<Given> given_;   // connections and tickets, in this batch
  std::vector<Given> moving_;  // taken back from busy workers in this batch, to be moved
  std::vector<Moves> moves_;
  std::vector<uint32_t> to_drop_;   // connections to be dropped by this batch
  std::vector<uint32_t> nobody_;    // connections that a policy has picked nobody for in this batch
  std::vector<uint32_t> reported_;  // connections, and not numbered
  std::vector<uint32_t> aside_;     // those for which that is the last word
  std::vector<uint32_t> passed_on_;  // connections on their way to a master, or held
  uint64_t reading_ = 0;
  uint64_t deals_ = 0;
  uint64_t served_ = 0;
  int64_t now_ns_ = 0;
  int64_t host_returned_ns_ = 0;
  uint32_t open_ = 0;       // of all sources
  bool meanwhile_ = false;  // others have gone on in this batch
  bool steady_ = true;      // nobody has left and no limit has been changed
  std::string failure_;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_CHECKER_H_
