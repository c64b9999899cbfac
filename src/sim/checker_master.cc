// How the checker judges the master's decisions: who gets what, when it is recalled, in which
// order, and whether anything waits that need not.

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "sim/checker.h"

namespace ringmaster::sim {
namespace {

constexpr uint64_t kPresentBit = uint64_t{1} << 63;
int32_t FdOf(uint64_t word) { return static_cast<int32_t>(static_cast<uint32_t>(word)); }

// If its worker moves, an offer may be recalled at four times the limit, for another worker that
// waits.
constexpr int64_t kLateFactor = 4;
// For how many limits an offer may lie at a worker that does not move while another worker has
// credit. They are its age, the look that finds that the worker has moved meanwhile, and some
// slack.
constexpr int64_t kNeglectFactor = 3;
constexpr uint32_t kDoublings = 6;
// What lies with a busy worker is not moved before that.
constexpr int64_t kMoveAfterNs = 100'000;
// After so long a policy is asked again in any case.
constexpr int64_t kAskAgainNs = 100'000'000;
// How often a source that has work may be passed over, for each source of the master.
constexpr uint32_t kTurnsMax = 3;
// How many of those that have grown too old a master drops in one batch.
constexpr uint32_t kDropsMax = 64;

}  // namespace

// Since when somebody else has had credit for a connection of `source`; negative: nobody has.
int64_t Checker::CreditSince(uint32_t source, uint32_t except, int64_t now_ns,
                             uint32_t giver) const {
  int64_t since_ns = -1;
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    const int64_t this_ns =
        index == except || index == giver ? -1 : CreditSinceOf(source, index, now_ns);
    if (this_ns >= 0 && (since_ns < 0 || this_ns < since_ns)) since_ns = this_ns;
  }
  return since_ns;
}

int64_t Checker::CreditSinceOf(uint32_t source, uint32_t index, int64_t now_ns) const {
  const Worker& worker = workers_[index];
  const int64_t joined_ns = sources_[source].joined_at_ns[index];
  const Box& box = BoxOf(index, source);
  if (joined_ns < 0 || !worker.idle || box.owes_motion || box.unclaimed != 0 ||
      open(index) + worker.promised >= box.facts.capacity) {
    return -1;
  }
  // Its table may be full, or the master's own; whether all is served in the end shows at rest.
  if (box.facts.direct) return -1;
  // Credit is kept for what other sources have asked for, and the window may be 1 by now.
  if (OthersAsk(index, source)) return -1;
  // How much may be sent before it is known to have arrived is bounded.
  if (box.facts.completions && (!masters_[sources_[source].facts.master].all_reported ||
                                now_ns < box.unreachable_until_ns)) {
    return -1;
  }
  return std::max({joined_ns, worker.credit_since_ns, box.unreachable_until_ns});
}

// --- What workers have passed on -----------------------------------------------------------------

// Who must not have it, because it has passed it on; kNone: anybody may.
uint32_t Checker::ExcludedFrom(const Connection& connection) const {
  const std::vector<int64_t>& joined = sources_[connection.source].joined_at_ns;
  const auto others =
      std::count_if(joined.begin(), joined.end(), [](int64_t at) { return at >= 0; });
  return others > 1 ? connection.giver : kNone;
}

// Counts what is held and not set aside of what was passed on.
void Checker::NotePassedOn() {
  std::erase_if(passed_on_, [this](uint32_t connection) {
    const Where where = connections_[connection].where;
    return where != Where::kPassedOn && where != Where::kHeld;
  });
  for (Source& source : sources_) source.passed_on = source.passed_on_held = 0;
  for (const uint32_t connection : passed_on_) {
    const Connection& it = connections_[connection];
    if (it.where != Where::kHeld) continue;
    sources_[it.source].passed_on += !it.aside;
    ++sources_[it.source].passed_on_held;
  }
}

void Checker::CheckPassedOn(uint32_t master, int64_t now_ns) {
  const MasterState& state = masters_[master];
  if (state.resting || state.refusing) return;
  for (const uint32_t connection : passed_on_) {
    const Connection& it = connections_[connection];
    if (sources_[it.source].facts.master != master) continue;
    if (it.where == Where::kPassedOn) {
      const int64_t waits_ns = now_ns - std::max(it.passed_on_at_ns, state.last_batch_ns);
      if (waits_ns <= options_.patience_ns) continue;
      return Fail(Name(connection) + " was passed on, and the master was not woken");
    }
    if (it.aside || HeldUp(sources_[it.source])) continue;
    const int64_t since_ns = CreditSince(it.source, kNone, now_ns, ExcludedFrom(it));
    if (since_ns < 0 || now_ns - std::max(since_ns, state.last_batch_ns) <= options_.patience_ns) {
      continue;
    }
    return Fail(Name(connection) +
                " waits that was passed on although another has credit: the master was not woken");
  }
}

// --- What policies pick nobody for ---------------------------------------------------------------

void Checker::OnMoving(uint32_t source, uint32_t worker) {
  moving_.push_back({.worker = worker, .source = source});
}

void Checker::OnPicked(uint32_t source, uint32_t connection, uint32_t worker) {
  if (connection == kNone) {
    sources_[source].ticket_picked = true;
  } else {
    connections_[connection].picked = worker;
  }
}

void Checker::OnNobody(uint32_t source, uint32_t connection, const std::vector<Shown>& shown) {
  ++sources_[source].counts.nobody;
  if (connection == kNone) {
    if (!sources_[source].facts.tickets) Fail("a policy is not shown who connects");
    sources_[source].ticket = {.at_ns = now_ns_, .shown = shown};
    sources_[source].ticket_picked = false;
    return;
  }
  Connection& asked = connections_[connection];
  if (asked.source != source) return Fail("a policy is asked about what is of another source");
  asked.picked = kNone;
  asked.nobody = {.at_ns = now_ns_, .shown = shown};
  nobody_.push_back(connection);
}

// After what a batch has given away is known.
void Checker::NoteAside() {
  const auto gone = [this](uint32_t connection) {
    Connection& it = connections_[connection];
    if (it.where == Where::kHeld && it.picked == kNone) return false;
    it.aside = false;
    --sources_[it.source].aside;
    return true;
  };
  std::erase_if(aside_, gone);
  for (const uint32_t connection : nobody_) {
    Connection& it = connections_[connection];
    if (it.aside || it.where != Where::kHeld || it.picked != kNone) continue;
    it.aside = true;
    ++sources_[it.source].aside;
    aside_.push_back(connection);
  }
  nobody_.clear();
}

// Whether the policy, when it picked nobody, was not shown this worker that waits now, or with more
// open, or as one that is busy.
bool Checker::MayHaveNews(uint32_t worker, const Nobody& nobody) const {
  const auto shown =
      std::find_if(nobody.shown.begin(), nobody.shown.end(),
                   [worker](const Shown& candidate) { return candidate.worker == worker; });
  return shown == nobody.shown.end() || shown->busy ||
         open(worker) + workers_[worker].promised < shown->open;
}

// Whether its policy keeps what it has from being dealt, or taken in. Tickets are all alike: others
// may be set aside when one is given away, but not for long without being asked about.
bool Checker::HeldUp(const Source& source) const {
  if (!source.facts.reluctant) return false;
  const int64_t until_ns = source.ticket.at_ns + kAskAgainNs + options_.patience_ns;
  const bool ticket = source.ticket.at_ns >= 0 && (!source.ticket_picked || now_ns_ <= until_ns);
  return ticket || source.aside >= source.facts.aside_max;
}

void Checker::CheckAside(uint32_t master, int64_t now_ns) {
  const MasterState& state = masters_[master];
  if (state.refusing || state.resting || state.rested) return;
  for (const uint32_t connection : aside_) {
    const Connection& it = connections_[connection];
    const Source& source = sources_[it.source];
    // Beyond what may be, what has come back is asked about first.
    if (source.facts.master != master || source.aside > source.facts.aside_max) continue;
    CheckAsideOf(it.source, it.nobody, ExcludedFrom(it), Name(connection), now_ns);
  }
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const Source& source = sources_[index];
    if (source.facts.master != master || source.ticket.at_ns < 0 || source.ticket_picked ||
        source.removed || state.stopping) {
      continue;
    }
    CheckAsideOf(index, source.ticket, kNone, "a ticket of source " + std::to_string(index),
                 now_ns);
  }
}

void Checker::CheckAsideOf(uint32_t source, const Nobody& nobody, uint32_t excluded,
                           const std::string& name, int64_t now_ns) {
  const MasterState& state = masters_[sources_[source].facts.master];
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    const int64_t since_ns = CreditSinceOf(source, worker, now_ns);
    if (since_ns < 0 || worker == excluded) continue;
    const bool news = MayHaveNews(worker, nobody);
    if (news &&
        now_ns - std::max({since_ns, nobody.at_ns, state.last_batch_ns}) > options_.patience_ns) {
      return Fail(name + " is set aside although a worker has more to give than before: the " +
                  "master was not woken");
    }
    if (now_ns - std::max({since_ns, nobody.at_ns, state.asks_from_ns}) >
        kAskAgainNs + options_.patience_ns) {
      return Fail(name + " is set aside, and its policy is not asked again");
    }
  }
}

void Checker::CheckAsideAfter(uint32_t master, uint32_t grown_old, int64_t now_ns) {
  MasterState& state = masters_[master];
  if (std::exchange(state.rested, state.resting)) state.asks_from_ns = now_ns;
  if (state.refusing || state.resting || meanwhile_) return;
  for (const Source& source : sources_) {
    // What has come back, or was passed on, may be asked about first.
    const uint32_t aside_max = source.facts.aside_max + source.came_back + source.passed_on_held;
    if (source.facts.master == master && source.aside > aside_max) {
      return Fail("more is set aside of a source than may be");
    }
  }
  for (const uint32_t connection : aside_) {
    const Connection& it = connections_[connection];
    const Source& source = sources_[it.source];
    if (source.facts.master != master || it.nobody.at_ns == now_ns ||
        source.aside > source.facts.aside_max ||
        (grown_old >= kDropsMax && HoldsTooOld(it.source, now_ns, /*aside_too=*/true))) {
      continue;
    }
    for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
      if (worker == ExcludedFrom(it) || CreditSinceOf(it.source, worker, now_ns) < 0 ||
          !MayHaveNews(worker, it.nobody)) {
        continue;
      }
      return Fail(Name(connection) +
                  " is set aside after a batch although a worker has more to give than before");
    }
  }
}

// Whether credit may be kept at the worker for what other sources may bring.
bool Checker::OthersAsk(uint32_t worker, uint32_t index) const {
  return std::any_of(sources_.begin(), sources_.end(), [&](const Source& other) {
    return &other != &sources_[index] && other.facts.master == sources_[index].facts.master &&
           other.joined_at_ns[worker] >= 0 && other.asked > 0;
  });
}

bool Checker::HoldsTooOld(uint32_t source, int64_t now_ns, bool aside_too) const {
  return std::any_of(connections_.begin(), connections_.end(), [&](const Connection& it) {
    return it.source == source && it.where == Where::kHeld && (aside_too || !it.aside) &&
           TooOld(it, now_ns);
  });
}

void Checker::BeforeBatch(uint32_t master, int64_t due_ns) {
  meanwhile_ = false;
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    workers_[index].places =
        open(index) + workers_[index].promised + std::exchange(workers_[index].came_back, 0);
    // The master's own lateness is not held against the worker.
    workers_[index].boxes[master].still_since_ns += now_ns_ - due_ns;
  }
  CheckNeglect(master, due_ns);
  CheckIdleness(master, due_ns);
  CheckAside(master, due_ns);
  CheckPassedOn(master, due_ns);
}

void Checker::AfterBatch(uint32_t master, std::span<const Handed> handed,
                         std::span<const int32_t> closed, bool all_reported, int64_t now_ns) {
  MasterState& state = masters_[master];
  state.all_reported = all_reported;
  given_.clear();
  // What was passed on comes before what the same batch brings.
  for (const uint32_t connection : reported_) {
    connections_[connection].number = sources_[connections_[connection].source].numbers++;
  }
  reported_.clear();
  for (Worker& worker : workers_) {
    Box& box = worker.boxes[master];
    if (box.took || box.moved || state.resting) box.still_since_ns = now_ns;
    box.moved = false;
    if (std::exchange(box.took, false)) box.took_seen_ns = now_ns;
  }
  Read(Occasion::kBatch, master, kNone, kNone, now_ns);
  for (const Handed& it : handed) {
    if (failed()) break;
    if (it.ticket_of == kNone) {
      OnHanded(it, now_ns);
    } else {
      OnTicketHanded(it.worker, it.ticket_of, now_ns);
    }
  }
  uint32_t grown_old = 0;
  for (const int32_t fd : closed) {
    if (failed()) break;
    const uint32_t connection = Find(fd);
    grown_old += connection != kNone && !connections_[connection].dropped_at_once &&
                 TooOld(connections_[connection], now_ns);
    OnClosedByMaster(fd, now_ns);
  }
  for (const uint32_t connection : to_drop_) {
    if (failed() || connections_[connection].where == Where::kRefused) continue;
    Fail(Name(connection) + (connections_[connection].gone ? " is kept although it has hung up"
                                                           : " is kept although it is too old"));
  }
  to_drop_.clear();
  if (failed()) return;
  NoteAside();
  NotePassedOn();
  CheckAsideAfter(master, grown_old, now_ns);
  if (!state.refusing) CheckOrder(master);
  CheckTurns(master, now_ns);
  for (Source& source : sources_) {
    if (source.facts.master == master) source.asked -= std::exchange(source.answered, 0);
  }
  state.last_batch_ns = now_ns;
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Source& source = sources_[index];
    if (source.facts.master != master) continue;
    const bool held = HeldNew(source) > 0 && !HeldUp(source);
    // What is too old is given to nobody. When a batch may drop no more, the next one does, and
    // what is behind it waits until then.
    const bool dealable = held && !(grown_old >= kDropsMax && HoldsTooOld(index, now_ns));
    // Whoever makes credit in the middle of a batch knocks.
    if (dealable && !state.refusing && !state.resting && !meanwhile_ &&
        CreditSince(index, kNone, now_ns) >= 0) {
      Fail("something is held after a batch although a worker that waits has credit");
    }
    const bool accepts = source.started && !source.paused && !source.removed && !source.given_up &&
                         !state.stopping && !options_.backs_off;
    const bool full = source.facts.capacity > 0 || options_.capacity > 0;
    source.waits =
        held || (accepts && !source.aimed && !source.queued.empty() && !full && !HeldUp(source));
  }
  if (state.refusing || state.resting || meanwhile_) return;
  for (const uint32_t connection : passed_on_) {
    const Connection& it = connections_[connection];
    const Source& source = sources_[it.source];
    if (source.facts.master != master || it.where != Where::kHeld || it.aside || HeldUp(source) ||
        (grown_old >= kDropsMax && HoldsTooOld(it.source, now_ns))) {
      continue;
    }
    if (CreditSince(it.source, kNone, now_ns, ExcludedFrom(it)) >= 0) {
      Fail(Name(connection) + " is held that was passed on although another has credit");
    }
  }
}

// A source that has work, and has got nothing and asked for nothing in this batch, is passed over
// by other sources that share a worker with it and have their turn. What comes of an earlier ask is
// part of that turn. While connections come unasked, there may be no room to ask for more.
void Checker::CheckTurns(uint32_t master, int64_t now_ns) {
  const bool burst = std::exchange(masters_[master].burst, false);
  uint32_t sources = 0;
  for (const Source& source : sources_) {
    sources += source.facts.master == master && (!source.removed || source.counts.held > 0);
  }
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Source& source = sources_[index];
    if (source.facts.master != master) continue;
    const bool accepts = source.started && !source.paused && !source.removed && !source.given_up &&
                         !source.aimed && !masters_[master].stopping && !options_.backs_off &&
                         source.facts.capacity == 0 && options_.capacity == 0 &&
                         (source.facts.tickets || source.facts.exact);
    // A count says nothing of what comes after it: the edge of that may be on its way still.
    const bool unknown = source.facts.countable && !source.queued.empty() &&
                         source.queued.front() > source.known_at_ns;
    const bool more = accepts && source.known && !source.queued.empty() && !unknown &&
                      !(source.facts.tickets && Told(index, now_ns));
    const bool idle = masters_[master].refusing || masters_[master].resting;
    const bool works = !idle && (HeldNew(source) > 0 || more) && !HeldUp(source);
    const bool served =
        source.asked > 0 ||
        std::any_of(given_.begin(), given_.end(), [&](Given it) { return it.source == index; });
    // What is to be installed may wait for a slot, or a table, while tickets go on.
    bool installs = false;
    for (uint32_t worker = 0; worker < workers_.size() && !source.facts.tickets; ++worker) {
      installs |= Joins(index, worker) && BoxOf(worker, index).facts.direct;
    }
    if (!works || served || installs) {
      source.passed_over = 0;
      continue;
    }
    if (burst && source.counts.held == 0) continue;
    for (uint32_t other = 0; other < sources_.size(); ++other) {
      const Source& it = sources_[other];
      if (other == index || it.facts.master != master) continue;
      bool turn = it.asked == 0 && std::any_of(given_.begin(), given_.end(), [&](Given given) {
                    return given.source == other && !given.again && Joins(index, given.worker);
                  });
      if (it.asked_now) {
        turn = true;
        for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
          turn &= !Joins(other, worker) || Joins(index, worker);
        }
      }
      source.passed_over += turn;
    }
    if (source.passed_over > kTurnsMax * sources) {
      return Fail("source " + std::to_string(index) + " has work and is passed over");
    }
  }
  for (Source& source : sources_) {
    if (source.facts.master == master) source.asked_now = false;
  }
}

void Checker::OnStallSaid(uint32_t worker, uint32_t master, bool stalls) {
  if (std::exchange(workers_[worker].boxes[master].stall_said, stalls) && stalls) {
    Fail("worker " + std::to_string(worker) + " is said to stall twice");
  }
}

void Checker::CheckStalls(uint32_t master, int64_t now_ns) {
  // The offer is looked at ever more rarely, but the look before the last is no later than ten
  // times the limit.
  constexpr int64_t kSaidAfter = 10 + 16 + 2;
  const int64_t late_ns = kSaidAfter * options_.recall_after_ns + options_.patience_ns;
  for (size_t index = 0; index < workers_.size(); ++index) {
    const Box& box = workers_[index].boxes[master];
    if (box.unclaimed > 0 && !box.left && !box.stall_said &&
        now_ns - box.still_since_ns > late_ns) {
      Fail("worker " + std::to_string(index) + " does not move, and nobody was told");
    }
  }
}

// Whether somebody has a ticket and may be about to accept. A ticket that was handed over may have
// been redeemed before its worker says that it took it. The master waits for that, but not for
// ever. A worker may also have said that it took a ticket which is in its ring still, because it
// does not know which master has sent what it took.
bool Checker::Told(uint32_t index, int64_t now_ns) const {
  const Source& source = sources_[index];
  if (source.counts.offered + source.claimed_tickets > 0) return true;
  return std::any_of(workers_.begin(), workers_.end(), [&](const Worker& worker) {
    const Box& box = worker.boxes[source.facts.master];
    if (std::find(worker.said.begin(), worker.said.end(), index) != worker.said.end()) return true;
    const auto untaken = std::count(box.sent.begin(), box.sent.end(), index);
    if (std::count(box.tickets.begin(), box.tickets.end(), index) > untaken) return true;
    if (box.left || std::find(box.sent.begin(), box.sent.end(), index) == box.sent.end()) {
      return false;
    }
    return !source.facts.recall || now_ns - std::max(box.took_seen_ns, box.waits_since_ns) <
                                       options_.recall_after_ns + options_.patience_ns;
  });
}

// Work that has waited since the last batch must not wait longer for the master than it takes to
// wake it.
void Checker::CheckIdleness(uint32_t master, int64_t now_ns) {
  const MasterState& state = masters_[master];
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    if (sources_[index].facts.master != master || !sources_[index].waits || state.refusing)
      continue;
    const Source& source = sources_[index];
    // A worker with a ticket may be about to accept, or may have accepted meanwhile.
    if (source.facts.tickets && (source.queued.empty() || Told(index, now_ns))) continue;
    if (HeldUp(source)) continue;
    int64_t since_ns = CreditSince(index, kNone, now_ns);
    if (since_ns < 0) continue;
    since_ns = std::max({since_ns, state.last_batch_ns, source.told_until_ns});
    if (source.facts.tickets) since_ns = std::max(since_ns, source.queued.front());
    if (now_ns - since_ns <= options_.patience_ns) continue;
    Fail("work waits although a worker has credit: the master was not woken");
  }
}

void Checker::CheckNeglect(uint32_t master, int64_t now_ns) {
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    const Box& box = workers_[index].boxes[master];
    // While a host is in a callback, nobody recalls what it has.
    if (box.unclaimed == 0 || index == options_.host) continue;
    for (const uint64_t word : box.seen) {
      if (word == 0 || IsTicket(master, word)) continue;
      const uint32_t connection = Find(FdOf(word));
      if (connection == kNone) continue;
      CheckNeglectOf(index, connection, now_ns);
      if (!masters_[master].resting && !masters_[master].refusing) {
        CheckBusinessOf(index, connection, now_ns);
      }
    }
  }
}

void Checker::CheckNeglectOf(uint32_t index, uint32_t connection, int64_t now_ns) {
  const Connection& offered = connections_[connection];
  if (!sources_[offered.source].facts.recall) return;
  const int64_t limit_ns = options_.recall_after_ns << std::min(offered.recalls, kDoublings);
  const int64_t credit_since_ns = CreditSince(offered.source, index, now_ns, ExcludedFrom(offered));
  if (credit_since_ns < 0) return;
  const int64_t old_ns =
      now_ns - std::max({offered.dealt_at_ns, credit_since_ns, host_returned_ns_});
  const int64_t still_ns = std::min(old_ns, now_ns - BoxOf(index, offered.source).moved_at_ns);
  if (still_ns > kNeglectFactor * limit_ns + options_.patience_ns) {
    return Fail(Name(connection) + " lies with worker " + std::to_string(index) +
                ", which does not move, although another has credit");
  }
  if (options_.doorbells_are_prompt &&
      old_ns > (kLateFactor + kNeglectFactor) * limit_ns + options_.patience_ns) {
    return Fail(Name(connection) + " grows old with worker " + std::to_string(index) +
                " although another has nothing to do");
  }
}

// Whoever waits, and said so after this was dealt, has told the master, if that wanted to know. A
// place that became free later at somebody who waits does not count: that wakes nobody for this.
void Checker::CheckBusinessOf(uint32_t index, uint32_t connection, int64_t now_ns) {
  const Connection& offered = connections_[connection];
  const Source& source = sources_[offered.source];
  if (!source.facts.recall || !source.facts.moves || source.facts.reluctant || offered.moved ||
      offered.passed_on || !offered.dealt_to_busy || !options_.doorbells_are_prompt ||
      TooOld(offered, now_ns)) {
    return;
  }
  const Worker& busy = workers_[index];
  const int64_t lies_since_ns =
      std::max({offered.dealt_at_ns, source.policy_since_ns,
                BoxOf(index, offered.source).moved_at_ns, host_returned_ns_});
  if (busy.says != Says::kBusy || busy.busy_since_ns > offered.dealt_at_ns) return;
  for (uint32_t other = 0; other < workers_.size(); ++other) {
    const Worker& waits = workers_[other];
    if (other == index || waits.says != Says::kWaiting || !waits.idle || waits.freed_places > 0 ||
        CreditSinceOf(offered.source, other, now_ns) < 0) {
      continue;
    }
    const int64_t since_ns = std::max(
        {lies_since_ns, waits.idle_since_ns, CreditSinceOf(offered.source, other, now_ns)});
    if (now_ns - since_ns > 2 * kMoveAfterNs + options_.patience_ns) {
      return Fail(Name(connection) + " lies with worker " + std::to_string(index) +
                  ", which is busy, although another waits");
    }
  }
}

void Checker::CheckMove(const Connection& connection, int64_t now_ns) {
  if (workers_[connection.worker].says != Says::kBusy && !meanwhile_) {
    return Fail("what lies with a worker that is not busy is moved");
  }
  if (now_ns - connection.dealt_at_ns < kMoveAfterNs) return Fail("a move comes too early");
  if (connection.moved) return Fail("something is moved twice");
  if (!sources_[connection.source].facts.recall) Fail("a move where recalls are off");
}

// --- What the inboxes say ------------------------------------------------------------------------

void Checker::Read(Occasion occasion, uint32_t master, uint32_t left, uint32_t left_source,
                   int64_t now_ns) {
  if (failed()) return;
  ++reading_;
  ++deals_;
  dealt_now_.clear();
  for (Source& source : sources_) {
    source.first_deals_now = 0;
    source.deals_new_now = false;
  }
  changed_.clear();
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    if (!workers_[index].boxes[master].left) NoteChanges(master, index);
  }
  if (occasion == Occasion::kBatch) CountMoves(master);
  // First what was recalled, then what was offered: the same connection may be both.
  for (const Change& change : changed_) {
    const uint64_t seen = workers_[change.worker].boxes[master].seen[change.slot];
    if (seen == 0) continue;
    if (occasion == Occasion::kLeave &&
        (change.worker != left ||
         (left_source != kNone && SourceOf(master, seen) != left_source))) {
      return Fail("a leave takes back what does not belong to it");
    }
    if (occasion == Occasion::kWithdraw && !IsTicket(master, seen)) {
      return Fail("what is no ticket is withdrawn");
    }
    if (IsTicket(master, seen)) {
      TakeBackTicket(master, change, occasion, now_ns);
    } else {
      TakeBack(master, change, occasion, now_ns);
    }
    if (failed()) return;
  }
  for (const Change& change : changed_) {
    if (change.word == 0) continue;
    if (occasion != Occasion::kBatch) return Fail("an offer outside of a batch");
    if (IsTicket(master, change.word)) {
      OnTicketOffered(change.worker, SourceOf(master, change.word), now_ns);
    } else {
      OnOffered(change.worker, master, change.word, now_ns);
    }
    if (failed()) return;
    workers_[change.worker].boxes[master].seen[change.slot] = change.word;
  }
}

void Checker::NoteChanges(uint32_t master, uint32_t index) {
  const Box& box = workers_[index].boxes[master];
  const size_t bytes = box.facts.words_count * sizeof(uint64_t);
  if (bytes == 0 || std::memcmp(box.facts.words, box.seen.data(), bytes) == 0) return;
  for (uint32_t slot = 0; slot < box.facts.words_count; ++slot) {
    uint64_t word = 0;
    std::memcpy(&word, box.facts.words + slot * sizeof(word), sizeof(word));
    if (word != box.seen[slot]) changed_.push_back({.worker = index, .slot = slot, .word = word});
  }
}

void Checker::TakeBackTicket(uint32_t master, const Change& change, Occasion occasion,
                             int64_t now_ns) {
  Box& box = workers_[change.worker].boxes[master];
  Source& source = sources_[SourceOf(master, std::exchange(box.seen[change.slot], 0))];
  --source.counts.offered;
  source.told_until_ns = now_ns;
  --box.unclaimed;
  workers_[change.worker].credit_since_ns = now_ns;
  if (occasion == Occasion::kWithdraw) {
    ++source.counts.withdrawn;
    if (!source.removed && !masters_[master].stopping) Fail("a ticket is withdrawn for no reason");
  }
  if (occasion != Occasion::kBatch) return;
  if (!source.facts.recall) return Fail("a ticket is recalled where recalls are off");
  const Moves& moves = MovesFrom(change.worker, static_cast<uint32_t>(&source - sources_.data()));
  if (moves.moved < moves.taken_back) box.owes_motion = true;
  ++source.counts.recalled;
}

void Checker::TakeBack(uint32_t master, const Change& change, Occasion occasion, int64_t now_ns) {
  Box& box = workers_[change.worker].boxes[master];
  const uint32_t connection = Find(FdOf(std::exchange(box.seen[change.slot], 0)));
  if (connection == kNone) return Fail("what is taken back is not open");
  Connection& recalled = connections_[connection];
  Source& source = sources_[recalled.source];
  if (recalled.where != Where::kOffered || recalled.worker != change.worker) {
    return Fail(Name(connection) + " is taken back from the wrong worker");
  }
  if (occasion == Occasion::kBatch) {
    const Moves& moves = MovesFrom(change.worker, recalled.source);
    const bool all_moved = moves.moved >= moves.taken_back;
    // What may not be recalled is moved. What may be is one or the other if only some is moved.
    if (moves.moved > 0 && (all_moved || !MayBeRecalled(recalled, now_ns))) {
      CheckMove(recalled, now_ns);
      recalled.moved = true;
      recalled.moved_in = reading_;
      ++source.counts.moved;
    } else {
      if (!TooOld(recalled, now_ns)) CheckRecallIsDue(recalled, now_ns);
      ++recalled.recalls;
    }
    if (!all_moved) box.owes_motion = true;
    ++source.counts.recalled;
    source.counts.passed_on_recalled += recalled.passed_on;
  } else {
    ++source.counts.left;
  }
  trace_->Note(now_ns, occasion == Occasion::kBatch ? "recalls" : "takes back",
               {{"worker", change.worker}, {"connection", connection}});
  --source.counts.offered;
  --box.unclaimed;
  workers_[change.worker].credit_since_ns = now_ns;
  ComeBack(connection, change.worker);
}

void Checker::ComeBack(uint32_t connection, uint32_t from) {
  Connection& it = connections_[connection];
  it.where = Where::kHeld;
  it.came_back_from = from;
  it.by_number &= from == kNone;
  it.came_back_in = reading_;
  it.was_dealt_as = it.dealt_as;
  came_back_.push_back(connection);
  if (it.passed_on) passed_on_.push_back(connection);
  ++sources_[it.source].came_back;
  ++sources_[it.source].counts.held;
}

bool Checker::MayBeRecalled(const Connection& connection, int64_t now_ns) const {
  const int64_t limit_ns = options_.recall_after_ns;
  const int64_t age_ns = now_ns - connection.dealt_at_ns;
  const int64_t still_ns = now_ns - BoxOf(connection.worker, connection.source).moved_at_ns;
  return TooOld(connection, now_ns) || age_ns >= kLateFactor * limit_ns ||
         std::min(age_ns, still_ns) >= limit_ns;
}

// How much of the source is taken back from the worker in this batch, and how much of that is
// moved.
Checker::Moves& Checker::MovesFrom(uint32_t worker, uint32_t source) {
  const auto it = std::find_if(moves_.begin(), moves_.end(), [&](const Moves& moves) {
    return moves.worker == worker && moves.source == source;
  });
  if (it != moves_.end()) return *it;
  return moves_.emplace_back(Moves{.worker = worker, .source = source});
}

// Before anything that was taken back is looked at.
void Checker::CountMoves(uint32_t master) {
  moves_.clear();
  for (const Given& it : moving_) ++MovesFrom(it.worker, it.source).moved;
  moving_.clear();
  for (const Change& change : changed_) {
    const uint64_t seen = workers_[change.worker].boxes[master].seen[change.slot];
    if (seen != 0) ++MovesFrom(change.worker, SourceOf(master, seen)).taken_back;
  }
}

void Checker::CheckRecallIsDue(const Connection& connection, int64_t now_ns) {
  const Source& source = sources_[connection.source];
  if (!MayBeRecalled(connection, now_ns)) Fail("a recall comes too early");
  if (!source.facts.recall) Fail("a recall where recalls are off");
  const auto others = static_cast<size_t>(std::count_if(
      source.joined_at_ns.begin(), source.joined_at_ns.end(), [](int64_t at) { return at >= 0; }));
  const bool without_giver = connection.giver != kNone && connection.giver != connection.worker;
  if (others < (without_giver ? 3 : 2)) Fail("a recall although there is nobody else");
}

// --- Who gets what -------------------------------------------------------------------------------

void Checker::OnOffered(uint32_t index, uint32_t master, uint64_t word, int64_t now_ns) {
  const uint32_t connection = Find(FdOf(word));
  if (connection == kNone || (word & kPresentBit) == 0) {
    return Fail("fd " + std::to_string(FdOf(word)) + " is offered and not open");
  }
  if (connections_[connection].source != SourceOf(master, word)) {
    return Fail(Name(connection) + " has the wrong source");
  }
  if (!MayHave(index, connection, now_ns)) return;
  trace_->Note(now_ns, "offers", {{"worker", index}, {"connection", connection}});
  connections_[connection].where = Where::kOffered;
  ++sources_[connections_[connection].source].counts.offered;
  Deal(index, connection, now_ns);
}

void Checker::OnHanded(const Handed& handed, int64_t now_ns) {
  const uint32_t connection = Find(handed.fd);
  if (handed.worker == kNone) return Fail("something is sent to a ring that is no worker's");
  if (connection == kNone) return Fail("what is handed over is not open");
  if (!MayHave(handed.worker, connection, now_ns)) return;
  trace_->Note(now_ns, "sends", {{"worker", handed.worker}, {"connection", connection}});
  Connection& sent = connections_[connection];
  Box& box = BoxOf(handed.worker, sent.source);
  if (box.unclaimed == 0) box.waits_since_ns = now_ns;
  sent.where = Where::kSent;
  Source& source = sources_[sent.source];
  ++source.on_the_way;
  ++source.counts.claimed;
  ++source.counts.handed_over;
  source.counts.handed_over_again += sent.failed_before;
  Deal(handed.worker, connection, now_ns);
}

void Checker::OnTicketOffered(uint32_t index, uint32_t source_index, int64_t now_ns) {
  if (const char* why_not = WhyNot(index, source_index, now_ns)) {
    return Fail("a ticket is given to worker " + std::to_string(index) + why_not);
  }
  Source& source = sources_[source_index];
  ++source.counts.offered;
  if (Box& box = BoxOf(index, source_index); ++box.unclaimed == 1) box.still_since_ns = now_ns;
  given_.push_back({.worker = index, .source = source_index});
  workers_[index].credit_since_ns = now_ns;
  if (!source.facts.countable && source.counts.offered > 1) {
    Fail("a second ticket is out for what cannot be counted");
  }
}

void Checker::OnTicketHanded(uint32_t index, uint32_t source, int64_t now_ns) {
  if (index == kNone) return Fail("a ticket is sent to a ring that is no worker's");
  if (const char* why_not = WhyNot(index, source, now_ns)) {
    return Fail("a ticket is sent to worker " + std::to_string(index) + why_not);
  }
  Box& box = BoxOf(index, source);
  if (box.unclaimed == 0) box.waits_since_ns = now_ns;
  if (++box.unclaimed == 1) box.still_since_ns = now_ns;
  given_.push_back({.worker = index, .source = source});
  box.sent.push_back(source);
  workers_[index].credit_since_ns = now_ns;
}

// Why a worker must not be given anything of the source; null if it may.
const char* Checker::WhyNot(uint32_t index, uint32_t source, int64_t now_ns) const {
  const Box& box = BoxOf(index, source);
  if (box.left || sources_[source].joined_at_ns[index] < 0) {
    return ", which has not joined its source";
  }
  if (box.owes_motion) return " after a recall and before it has moved";
  if (box.unclaimed >= box.facts.window) {
    return ", which has as many unclaimed as its window allows";
  }
  // A place that was promised before the capacity was lowered is kept.
  if (open(index) >= std::max(box.facts.capacity, workers_[index].places)) {
    return ", which has as many connections as its capacity";
  }
  if (box.facts.completions && box.unclaimed > 0 &&
      now_ns - std::max(box.took_seen_ns, box.waits_since_ns) >= options_.recall_after_ns) {
    return ", which has taken nothing for long";
  }
  return nullptr;
}

bool Checker::MayHave(uint32_t index, uint32_t connection, int64_t now_ns) {
  const Connection& it = connections_[connection];
  const char* why_not = it.where != Where::kHeld        ? " and is in another place already"
                        : it.dropped_at_once && it.gone ? " although its client has hung up"
                        : TooOld(it, now_ns)            ? " although it is too old"
                        : ExcludedFrom(it) == index     ? ", which has passed it on"
                                                        : WhyNot(index, it.source, now_ns);
  if (why_not == nullptr) return true;
  Fail(Name(connection) + " is given to worker " + std::to_string(index) + why_not);
  return false;
}

void Checker::Deal(uint32_t index, uint32_t connection, int64_t now_ns) {
  Connection& dealt = connections_[connection];
  Source& source = sources_[dealt.source];
  Box& box = BoxOf(index, dealt.source);
  if (source.facts.reluctant && dealt.picked != index) {
    return Fail(Name(connection) + " is given to somebody whom its policy has not picked");
  }
  given_.push_back({.worker = index, .source = dealt.source, .again = dealt.ever_dealt});
  if (dealt.ever_dealt) {
    --source.came_back;
    std::erase(came_back_, connection);
  } else {
    ++source.first_deals_now;
    source.deals_new_now |= !dealt.passed_on;
  }
  const Worker& worker = workers_[index];
  if (dealt.moved_in == reading_ && !meanwhile_ &&
      (worker.says != Says::kWaiting || box.unclaimed > 0)) {
    return Fail(Name(connection) + " is moved to worker " + std::to_string(index) +
                ", which does not wait for it");
  }
  dealt.dealt_to_busy = worker.says == Says::kBusy;
  dealt.ever_dealt = true;
  dealt.worker = index;
  dealt.dealt_at_ns = now_ns;
  // The inboxes do not tell the order within a batch.
  dealt.dealt_as = box.facts.completions ? ++deals_ : deals_;
  dealt_now_.push_back(connection);
  --source.counts.held;
  if (++box.unclaimed == 1) box.still_since_ns = now_ns;
  if (box.facts.completions) box.sent.push_back(kNone);
  workers_[index].credit_since_ns = now_ns;
}

void Checker::CheckOrder(uint32_t master) {
  for (Source& source : sources_) {
    if (source.facts.master != master) continue;
    source.first_deals += source.first_deals_now;
    const bool waits = std::any_of(came_back_.begin(), came_back_.end(), [&](uint32_t connection) {
      const Connection& it = connections_[connection];
      return &sources_[it.source] == &source && !it.passed_on;
    });
    if (source.deals_new_now && waits && !source.facts.reluctant) {
      Fail("a connection is dealt for the first time while one that came back waits");
    }
  }
  for (const uint32_t connection : dealt_now_) {
    const Connection& dealt = connections_[connection];
    // This many connections have been dealt at least once. They must be the oldest ones, but for
    // those that the policy has picked nobody for, or that wait for others than their givers.
    const Source& source = sources_[dealt.source];
    if (dealt.number >= source.first_deals + source.aside + source.passed_on) {
      return Fail(Name(connection) + " is dealt before an older one");
    }
    if (source.facts.reluctant) continue;
    for (const uint32_t held : came_back_) {
      const Connection& waiting = connections_[held];
      if (dealt.source == waiting.source && !dealt.passed_on && !waiting.passed_on &&
          dealt.came_back_in == waiting.came_back_in &&
          dealt.came_back_from == waiting.came_back_from &&
          (dealt.by_number || waiting.by_number ? dealt.number > waiting.number
                                                : dealt.was_dealt_as > waiting.was_dealt_as)) {
        return Fail(Name(held) + " waits after it came back, and " + Name(connection) +
                    ", which had been dealt later, does not");
      }
    }
  }
}

}  // namespace ringmaster::sim
