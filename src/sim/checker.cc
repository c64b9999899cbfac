// The checker's table: what it hears of sources, connections and workers, and the end of a run. How
// it judges the master's decisions is in checker_master.cc.

#include "sim/checker.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace ringmaster::sim {
namespace {

// A word as core/inbox.h describes it. It is taken apart here once more on purpose, to share no
// code.
constexpr uint64_t kPresentBit = uint64_t{1} << 63;
int32_t FdOf(uint64_t word) { return static_cast<int32_t>(static_cast<uint32_t>(word)); }

// While something comes, the master must ask at least this often how often a backlog has
// overflowed.
constexpr int64_t kOverflowLookNs = 100'000'000;

// A worker that could not be reached is tried again after this at the latest.
constexpr int64_t kRetryNsMax = 100'000'000;

}  // namespace

// --- Set-up --------------------------------------------------------------------------------------

void Checker::AddSource(const CheckedSource& facts, uint32_t index) {
  std::vector<uint32_t>& by_index = masters_[facts.master].by_index;
  if (by_index.size() <= index) by_index.resize(index + 1, kNone);
  if (by_index[index] != kNone) {
    const Source& old = sources_[by_index[index]];
    if (!old.removed || old.counts.held > 0 || old.counts.offered > 0 || old.on_the_way > 0) {
      Fail("index " + std::to_string(index) +
           " is given to a new source while something of the old one is left");
    }
  }
  by_index[index] = static_cast<uint32_t>(sources_.size());
  Source& source = sources_.emplace_back();
  source.facts = facts;
  source.index = index;
  source.joined_at_ns.resize(workers_.size(), -1);
  source.claimed.resize(workers_.size(), 0);
}

uint32_t Checker::AddWorker(const std::vector<CheckedBox>& boxes) {
  any_direct_ |= boxes.front().direct;
  Worker& worker = workers_.emplace_back();
  for (const CheckedBox& box : boxes) {
    worker.boxes.push_back({.facts = box, .seen = std::vector<uint64_t>(box.words_count)});
  }
  for (Source& source : sources_) {
    source.joined_at_ns.push_back(-1);
    source.claimed.push_back(0);
  }
  return static_cast<uint32_t>(workers_.size() - 1);
}

void Checker::OnLimits(uint32_t index, uint32_t master, uint32_t window, uint32_t capacity,
                       int64_t now_ns) {
  Worker& worker = workers_[index];
  worker.boxes[master].facts.window = window;
  worker.boxes[master].facts.capacity = capacity;
  worker.credit_since_ns = now_ns;
  steady_ = false;
}

void Checker::OnJoined(uint32_t source, uint32_t worker, int64_t now_ns) {
  Source& it = sources_[source];
  it.joined_at_ns[worker] = now_ns;
  const auto joined = std::count_if(it.joined_at_ns.begin(), it.joined_at_ns.end(),
                                    [](int64_t at_ns) { return at_ns >= 0; });
  it.started |= joined >= it.facts.start_workers;
}

void Checker::OnLeftSource(uint32_t source, uint32_t worker, int64_t now_ns) {
  const uint32_t master = sources_[source].facts.master;
  Read(Occasion::kLeave, master, worker, source, now_ns);
  for (const uint64_t word : BoxOf(worker, source).seen) {
    if (word != 0 && SourceOf(master, word) == source) {
      Fail("an offer stays with a worker that has left");
    }
  }
  sources_[source].joined_at_ns[worker] = -1;
  ForgetGiver(source, worker);
  steady_ = false;
}

// Of what is not taken in yet, the master learns only then who the giver is.
void Checker::ForgetGiver(uint32_t source, uint32_t worker) {
  for (Connection& connection : connections_) {
    if (connection.source == source && connection.giver == worker &&
        connection.where != Where::kPassedOn) {
      connection.giver = kNone;
    }
  }
}

void Checker::OnLeft(uint32_t index, uint32_t master, int64_t now_ns) {
  Box& box = workers_[index].boxes[master];
  Read(Occasion::kLeave, master, index, kNone, now_ns);
  if (!box.facts.completions && box.unclaimed != 0) {
    Fail("an offer stays with a worker that has left");
  }
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    if (sources_[source].facts.master != master) continue;
    sources_[source].joined_at_ns[index] = -1;
    ForgetGiver(source, index);
  }
  box.left = true;
  workers_[index].idle = false;
  steady_ = false;
}

void Checker::OnRefuseAll(uint32_t master, int64_t now_ns) {
  masters_[master].refusing = true;
  Read(Occasion::kRefuse, master, kNone, kNone, now_ns);
}

void Checker::OnSourceRemoved(uint32_t source, int64_t now_ns) {
  sources_[source].removed = true;
  Read(Occasion::kWithdraw, sources_[source].facts.master, kNone, kNone, now_ns);
}

void Checker::OnStopIntake(uint32_t master, int64_t now_ns) {
  masters_[master].stopping = true;
  Read(Occasion::kWithdraw, master, kNone, kNone, now_ns);
}

void Checker::OnPromised(uint32_t worker, uint32_t count, int64_t now_ns) {
  if (std::exchange(workers_[worker].promised, count) != count) {
    workers_[worker].credit_since_ns = now_ns;
  }
}

uint32_t Checker::unclaimed(uint32_t worker) const {
  uint32_t unclaimed = 0;
  for (const Box& box : workers_[worker].boxes) unclaimed += box.unclaimed;
  return unclaimed;
}

uint32_t Checker::open(uint32_t worker) const {
  uint32_t open = workers_[worker].leased;
  for (const Box& box : workers_[worker].boxes) open += box.unclaimed - box.covered;
  return open;
}

bool Checker::NobodyJoined(uint32_t source) const {
  const std::vector<int64_t>& joined = sources_[source].joined_at_ns;
  return std::all_of(joined.begin(), joined.end(), [](int64_t at_ns) { return at_ns < 0; });
}

// --- The kernel and the seam ---------------------------------------------------------------------

uint32_t Checker::OnArrival(uint32_t source, int64_t now_ns) {
  connections_.push_back({.source = source, .arrived_at_ns = now_ns});
  sources_[source].queued.push_back(now_ns);
  return static_cast<uint32_t>(connections_.size() - 1);
}

void Checker::OnReset(uint32_t connection) {
  connections_[connection].where = Where::kReset;
  sources_[connections_[connection].source].queued.pop_front();
}

void Checker::OnOverflow(uint32_t source, int64_t now_ns) {
  int64_t& at_ns = sources_[source].overflowed_at_ns;
  if (at_ns < 0) at_ns = now_ns;
}

void Checker::OnAskedForOverflows(uint32_t index) {
  Source& source = sources_[index];
  source.overflow_known |= source.overflowed_at_ns >= 0;
  source.overflowed_at_ns = -1;
  source.overflow_due = false;
}

void Checker::OnOverflowReported(uint32_t index) {
  Source& source = sources_[index];
  if (!source.overflow_known) Fail("an overflow is reported that has not been");
  source.overflow_reported = true;
}

void Checker::OnAccepted(uint32_t connection, int32_t fd, int64_t now_ns) {
  Connection& accepted = connections_[connection];
  sources_[accepted.source].accepted_at_ns = now_ns;
  accepted.where = Where::kAccepted;
  Opened(accepted.source);
  sources_[accepted.source].queued.pop_front();
  accepted.fd = fd;
  if (by_fd_.size() <= static_cast<size_t>(fd)) by_fd_.resize(static_cast<size_t>(fd) + 1, kNone);
  if (by_fd_[static_cast<size_t>(fd)] != kNone) Fail("the simulated kernel reuses an open fd");
  by_fd_[static_cast<size_t>(fd)] = connection;
}

void Checker::Opened(uint32_t index) {
  Source& source = sources_[index];
  ++source.open;
  ++open_;
  if (source.facts.exact && source.facts.capacity > 0 && source.open > source.facts.capacity) {
    Fail("source " + std::to_string(index) + " has more connections open than it may");
  }
  const bool all_exact = std::all_of(sources_.begin(), sources_.end(),
                                     [](const Source& it) { return it.facts.exact; });
  // A connection that was handed over, and has no lease, counts only until it is taken out of the
  // ring.
  const bool all_leased = std::none_of(workers_.begin(), workers_.end(), [](const Worker& it) {
    return it.boxes[0].facts.completions;
  });
  if (!all_exact || !all_leased) return;
  if (options_.capacity > 0 && open_ > options_.capacity) {
    Fail("more connections are open than the balancer may have");
  }
  uint64_t capacity = 0;
  for (const Worker& it : workers_) capacity += it.boxes[0].facts.capacity;
  // What is set aside has no place at a worker, nor have those whose places it got in the end.
  for (const Source& it : sources_) capacity += it.facts.reluctant ? it.facts.aside_max + 64 : 0;
  if (steady_ && open_ > capacity) Fail("more connections are open than the workers may have");
}

void Checker::OnReceived(uint32_t worker, int32_t fd, uint32_t source) {
  const uint32_t connection = Find(fd);
  if (connection == kNone) return Fail("what is handed over is not open");
  Connection& received = connections_[connection];
  if (received.where != Where::kSent) return Fail(Name(connection) + " is handed over twice");
  if (received.worker != worker) {
    return Fail(Name(connection) + " reaches the ring of somebody else");
  }
  if (received.source != source) {
    return Fail(Name(connection) + " is handed over under the token of another source");
  }
  received.where = Where::kInRing;
  --sources_[received.source].on_the_way;
}

void Checker::OnInstalled(uint32_t worker, uint32_t index, uint32_t source) {
  Connection& connection = connections_[index];
  if (connection.where != Where::kSent || connection.installed) {
    return Fail(Name(index) + " is handed over twice");
  }
  if (connection.worker != worker) return Fail(Name(index) + " is installed at somebody else");
  if (connection.source != source) {
    return Fail(Name(index) + " is handed over under the token of another source");
  }
  connection.where = Where::kInRing;
  connection.installed = true;
  --sources_[source].on_the_way;
}

void Checker::OnInstallFailed(uint32_t connection, bool untold) {
  OnSendFailed(connections_[connection].fd);
  connections_[connection].untold = untold;
}

bool Checker::OnLetGo(int32_t fd, bool hang_up) {
  if (hang_up) {
    OnRefusedClosed(fd);
    return false;
  }
  const uint32_t index = Find(fd);
  if (index == kNone) {
    Fail("the master lets go of fd " + std::to_string(fd) + " not open");
    return false;
  }
  Connection& connection = connections_[index];
  Source& source = sources_[connection.source];
  // At the end nobody waits for what is under way, and it may fail.
  const bool given_up =
      connection.where == Where::kUnsent && masters_[source.facts.master].refusing;
  if (given_up) {
    connection.where = Where::kRefused;
    --source.on_the_way;
    --source.open;
    --open_;
    Untake(connection.worker, BoxOf(connection.worker, connection.source), kNone, now_ns_);
  }
  if (!connection.installed && !given_up) {
    Fail("the master lets go of " + Name(index) + " which was not installed");
  }
  connection.let_go = true;
  by_fd_[static_cast<size_t>(fd)] = kNone;
  return given_up;
}

void Checker::OnSendFailed(int32_t fd) {
  const uint32_t connection = Find(fd);
  if (connection == kNone || connections_[connection].where != Where::kSent) {
    return Fail("what could not be handed over was not sent");
  }
  connections_[connection].where = Where::kUnsent;
  connections_[connection].by_number = any_direct_;
}

void Checker::OnLookedAt(uint32_t index, int64_t came_at_ns, bool hung_up) {
  Connection& connection = connections_[index];
  const CheckedSource& source = sources_[connection.source].facts;
  if (source.age_max_ns == 0) return;
  connection.gone = hung_up;
  connection.came_at_ns = came_at_ns;
  if (!source.tells_age) return;
  const int64_t late_ns = came_at_ns - connection.arrived_at_ns;
  if (late_ns < 0 || late_ns > 2 * options_.tick_ns) {
    Fail("the simulated kernel does not know when " + Name(index) + " came");
  }
}

bool Checker::TooOld(const Connection& connection, int64_t now_ns) const {
  const int64_t age_max_ns = sources_[connection.source].facts.age_max_ns;
  return age_max_ns > 0 && now_ns - connection.came_at_ns >= age_max_ns;
}

void Checker::OnAsked(uint32_t source) {
  ++sources_[source].asked;
  sources_[source].asked_now = true;
}

void Checker::OnAnswered(uint32_t source, bool any) {
  ++sources_[source].answered;
  // What was found by an accept that was asked for together with one that has found nothing says
  // nothing about what is left.
  sources_[source].known &= any;
  sources_[source].known_at_ns = now_ns_;
}

void Checker::OnReported(uint32_t source, int32_t fd) {
  Counts& counts = sources_[source].counts;
  const uint32_t connection = Find(fd);
  ++counts.reported;
  ++counts.held;
  if (connection == kNone || connections_[connection].where != Where::kAccepted ||
      connections_[connection].source != source) {
    return Fail("the ring reports fd " + std::to_string(fd) + " which was not just accepted");
  }
  Connection& reported = connections_[connection];
  reported.where = Where::kHeld;
  if (reported.came_at_ns == 0) reported.came_at_ns = now_ns_;
  reported.dropped_at_once = reported.gone || TooOld(reported, now_ns_);
  if (reported.dropped_at_once) {
    to_drop_.push_back(connection);
  } else {
    reported_.push_back(connection);
  }
  const int64_t overflowed_at_ns = sources_[source].overflowed_at_ns;
  masters_[sources_[source].facts.master].burst |=
      !sources_[source].facts.exact && !sources_[source].facts.tickets;
  sources_[source].overflow_due |=
      overflowed_at_ns >= 0 && now_ns_ - overflowed_at_ns >= kOverflowLookNs;
}

void Checker::OnSendFailureTold(int32_t fd, int64_t now_ns) {
  const uint32_t connection = Find(fd);
  if (connection == kNone || connections_[connection].where != Where::kUnsent) {
    return Fail("the ring says of something that it could not be handed over, and it could");
  }
  Connection& unsent = connections_[connection];
  Source& source = sources_[unsent.source];
  Box& box = BoxOf(unsent.worker, unsent.source);
  unsent.failed_before = true;
  --source.on_the_way;
  --source.counts.claimed;
  --source.counts.handed_over;
  box.unreachable_until_ns = now_ns + kRetryNsMax;
  ++workers_[unsent.worker].came_back;
  Untake(unsent.worker, box, kNone, now_ns);
  ComeBack(connection, kNone);
}

void Checker::OnTicketFailureTold(uint32_t worker, uint32_t source, int64_t now_ns) {
  Box& box = BoxOf(worker, source);
  box.unreachable_until_ns = now_ns + kRetryNsMax;
  Untake(worker, box, source, now_ns);
}

// A connection that could not be handed over is not in the ring. If the worker has said that it
// took it, its place is free already, and what the worker took was sent by another master. If a
// lease has the place, the lease keeps it.
void Checker::Untake(uint32_t worker, Box& box, uint32_t ticket_of, int64_t now_ns) {
  if (!box.left && box.unclaimed > 0) {
    if (box.covered == box.unclaimed) --box.covered;
    --box.unclaimed;
    const auto newest = std::find(box.sent.rbegin(), box.sent.rend(), ticket_of);
    if (newest != box.sent.rend()) {
      box.sent.erase(std::next(newest).base());
    } else {  // it was counted for one behind it, which was taken
      if (box.sent.front() != kNone) sources_[box.sent.front()].told_until_ns = now_ns;
      box.sent.pop_front();
    }
  } else if (!box.left) {
    for (Box& other : workers_[worker].boxes) {
      if (other.unclaimed == 0) continue;
      --other.unclaimed;
      other.sent.pop_front();
      other.covered -= std::min(1u, other.covered);
      other.took = true;
      break;
    }
  }
}

void Checker::OnClosedByMaster(int32_t fd, int64_t now_ns) {
  const uint32_t connection = Find(fd);
  if (connection == kNone) return Fail("the master closes fd " + std::to_string(fd) + " not open");
  Connection& refused = connections_[connection];
  Source& source = sources_[refused.source];
  const bool too_old = refused.gone || refused.untold || TooOld(refused, now_ns);
  // By the rule of core/room.h also what a single accept finds: the room that was there for it is
  // used up.
  const bool too_many =
      options_.turns_away && !refused.ever_dealt && !refused.aside && !refused.passed_on;
  if (!too_old && !too_many && !masters_[source.facts.master].refusing &&
      !(source.removed && NobodyJoined(refused.source))) {
    return Fail("the master refuses " + Name(connection) + " without being told to");
  }
  if (refused.where != Where::kHeld) {
    return Fail("the master closes " + Name(connection) + " which it does not hold");
  }
  if (refused.ever_dealt) {
    --source.came_back;
    std::erase(came_back_, connection);
  } else if (refused.dropped_at_once) {
    source.counts.gone += refused.gone;
    source.counts.too_old_at_once += !refused.gone;
  } else if (too_many && !too_old) {
    ++source.first_deals;  // it has none
  } else {
    ++source.first_deals_now;  // its turn is over
  }
  refused.where = Where::kRefused;
  --source.counts.held;
  ++(too_old ? source.counts.dropped : source.counts.refused);
  --source.open;
  --open_;
}

void Checker::OnRefusedClosed(int32_t fd) {
  const uint32_t connection = Find(fd);
  if (connection == kNone || connections_[connection].where != Where::kRefused) {
    return Fail("fd " + std::to_string(fd) + " is closed, which was not refused");
  }
  by_fd_[static_cast<size_t>(fd)] = kNone;
}

// --- The workers ---------------------------------------------------------------------------------

void Checker::OnMoved(uint32_t worker, uint32_t master, int64_t now_ns) {
  workers_[worker].boxes[master].owes_motion = false;
  workers_[worker].boxes[master].moved_at_ns = now_ns;
  workers_[worker].boxes[master].moved = true;
}

uint32_t Checker::OnClaimed(uint32_t index, uint32_t master, uint64_t word, int64_t now_ns) {
  Worker& worker = workers_[index];
  Box& box = worker.boxes[master];
  const auto it = std::find(box.seen.begin(), box.seen.end(), word);
  const uint32_t connection = Find(FdOf(word));
  if (word == 0 || it == box.seen.end() || connection == kNone || box.left) {
    Fail("worker " + std::to_string(index) + " claims what was not offered to it");
    return kNone;
  }
  Connection& claimed = connections_[connection];
  if (claimed.where != Where::kOffered || claimed.worker != index ||
      claimed.source != SourceOf(master, word)) {
    Fail("worker " + std::to_string(index) + " claims " + Name(connection) + " of somebody else");
    return kNone;
  }
  *it = 0;
  OnMoved(index, master, now_ns);
  claimed.where = Where::kClaimed;
  --box.unclaimed;
  ++worker.leased;
  Source& source = sources_[claimed.source];
  --source.counts.offered;
  ++source.counts.claimed;
  ++source.claimed[index];
  ++source.on_the_way;
  return connection;
}

bool Checker::IsTicket(uint32_t master, uint64_t word) const {
  const uint32_t source = word == 0 ? kNone : SourceOf(master, word);
  return source != kNone && sources_[source].facts.tickets;
}

uint32_t Checker::OnTicketClaimed(uint32_t index, uint32_t master, uint64_t word, int64_t now_ns) {
  Worker& worker = workers_[index];
  Box& box = worker.boxes[master];
  // Several words may look alike. The one that was claimed is not in the inbox any more.
  uint32_t slot = 0;
  while (slot < box.facts.words_count) {
    uint64_t now = 0;
    std::memcpy(&now, box.facts.words + slot * sizeof(now), sizeof(now));
    if (box.seen[slot] == word && now == 0) break;
    ++slot;
  }
  if (slot == box.facts.words_count || box.left) {
    Fail("worker " + std::to_string(index) + " claims a ticket that was not offered to it");
    return kNone;
  }
  box.seen[slot] = 0;
  OnMoved(index, master, now_ns);
  --box.unclaimed;
  ++worker.leased;
  const uint32_t source = SourceOf(master, word);
  Source& state = sources_[source];
  --state.counts.offered;
  ++state.claimed_tickets;
  ++state.on_the_way;
  return source;
}

void Checker::OnTicketLookedUp(uint32_t source, uint32_t found) {
  --sources_[source].on_the_way;
  if (source != found) Fail("a ticket is claimed under the token of another source");
}

uint32_t Checker::OnRedeemed(uint32_t index, int32_t fd, uint32_t source, int64_t now_ns) {
  const uint32_t connection = OnAcceptedByWorker(index, fd, source);
  if (connection != kNone) OnTicketSpent(connections_[connection].source, now_ns);
  return connection;
}

void Checker::OnTicketReceived(uint32_t worker, uint32_t source) {
  BoxOf(worker, source).tickets.push_back(source);
}

void Checker::OnTicketTaken(uint32_t worker, uint32_t source) {
  ++sources_[source].claimed_tickets;
  std::vector<uint32_t>& tickets = BoxOf(worker, source).tickets;
  const auto ticket = std::find(tickets.begin(), tickets.end(), source);
  if (ticket == tickets.end()) return Fail("a ticket is taken that was not handed over");
  tickets.erase(ticket);
}

void Checker::OnTicketSpent(uint32_t source, int64_t now_ns) {
  --sources_[source].claimed_tickets;
  sources_[source].told_until_ns = now_ns;
}

uint32_t Checker::untaken_tickets(uint32_t source) const {
  size_t untaken = 0;
  for (const Worker& worker : workers_) {
    const std::deque<uint32_t>& sent = worker.boxes[sources_[source].facts.master].sent;
    untaken += static_cast<size_t>(std::count(sent.begin(), sent.end(), source));
  }
  return static_cast<uint32_t>(untaken);
}

uint32_t Checker::OnAcceptedByWorker(uint32_t index, int32_t fd, uint32_t source) {
  const uint32_t connection = Find(fd);
  if (connection == kNone || connections_[connection].where != Where::kAccepted) {
    Fail("worker " + std::to_string(index) + " has accepted what was not accepted");
    return kNone;
  }
  Connection& redeemed = connections_[connection];
  if (redeemed.source != source) {
    Fail("worker " + std::to_string(index) + " accepts " + Name(connection) +
         " by a ticket of source " + std::to_string(source));
    return kNone;
  }
  redeemed.where = Where::kClaimed;
  redeemed.worker = index;
  return connection;
}

void Checker::OnLookedUp(uint32_t connection, uint32_t source) {
  --sources_[connections_[connection].source].on_the_way;
  if (connections_[connection].source != source) {
    Fail(Name(connection) + " is claimed under the token of another source");
  }
}

uint32_t Checker::OnTaken(uint32_t index, int32_t fd) { return OnTakenSlot(index, Find(fd)); }

uint32_t Checker::OnTakenSlot(uint32_t index, uint32_t connection) {
  if (connection == kNone || connections_[connection].where != Where::kInRing ||
      connections_[connection].worker != index) {
    Fail("worker " + std::to_string(index) + " finds in its ring what was not handed over to it");
    return kNone;
  }
  ++sources_[connections_[connection].source].claimed[index];
  return connection;
}

void Checker::OnServed(uint32_t index, uint32_t connection) {
  Connection& served = connections_[connection];
  const bool has_it = served.where == Where::kClaimed || served.where == Where::kInRing;
  if (!has_it || served.worker != index) {
    return Fail("worker " + std::to_string(index) + " serves " + Name(connection) +
                (served.where == Where::kRefused ? " after it was refused" : " a second time"));
  }
  served.where = Where::kServed;
  ++served_;
}

void Checker::OnClosed(uint32_t connection) {
  Connection& closed = connections_[connection];
  if (closed.where != Where::kServed) return Fail(Name(connection) + " is closed unserved");
  closed.where = Where::kClosed;
  if (!closed.installed) by_fd_[static_cast<size_t>(closed.fd)] = kNone;
}

void Checker::OnTook(uint32_t index, uint32_t master, uint32_t count, int64_t now_ns) {
  Box& box = workers_[index].boxes[master];
  if (count > box.unclaimed) return Fail("more is taken than was handed over");
  box.unclaimed -= count;
  for (uint32_t i = 0; i < count; ++i) {
    if (box.sent[i] != kNone) workers_[index].said.push_back(box.sent[i]);
  }
  box.sent.erase(box.sent.begin(), box.sent.begin() + count);
  box.covered -= std::min(count, box.covered);
  box.took = true;
  workers_[index].credit_since_ns = now_ns;
}

void Checker::OnTookTold(uint32_t index, int64_t now_ns) {
  for (const uint32_t source : workers_[index].said) sources_[source].told_until_ns = now_ns;
  workers_[index].said.clear();
}

void Checker::OnPassedOn(uint32_t connection, int64_t now_ns) {
  Connection& it = connections_[connection];
  if (it.where != Where::kServed) return Fail(Name(connection) + " is passed on unserved");
  it.where = Where::kPassedOn;
  it.passed_on = true;
  it.moved = false;
  it.giver = it.worker;
  it.passed_on_at_ns = now_ns;
  passed_on_.push_back(connection);
  steady_ = false;
}

void Checker::OnPassedOnPlace(uint32_t worker, int64_t now_ns) {
  if (workers_[worker].leased == 0) return Fail("a place is given back that nobody had");
  --workers_[worker].leased;
  workers_[worker].credit_since_ns = now_ns;
}

void Checker::OnTakenIn(int32_t fd) {
  const uint32_t connection = Find(fd);
  if (connection == kNone || connections_[connection].where != Where::kPassedOn) {
    return Fail("fd " + std::to_string(fd) + " is taken in, which was not passed on");
  }
  Connection& it = connections_[connection];
  Source& source = sources_[it.source];
  it.where = Where::kHeld;
  it.came_at_ns = now_ns_;
  it.gone = false;
  it.number = source.numbers++;
  it.recalls = 0;
  it.ever_dealt = false;
  it.failed_before = false;
  if (it.giver != kNone && source.joined_at_ns[it.giver] < 0) it.giver = kNone;
  ++source.counts.held;
  ++source.counts.passed_on;
}

void Checker::OnAdopted(uint32_t index) {
  Worker& worker = workers_[index];
  for (Box& box : worker.boxes) {
    if (box.covered == box.unclaimed) continue;
    ++box.covered;
    break;
  }
  ++worker.leased;
}

void Checker::OnTicketDone(uint32_t worker, uint32_t source, int64_t now_ns) {
  OnTicketSpent(source, now_ns);
  --workers_[worker].leased;
  workers_[worker].credit_since_ns = now_ns;
}

void Checker::OnReleased(uint32_t worker, uint32_t source, int64_t now_ns) {
  if (workers_[worker].leased == 0) return Fail("a lease is released twice");
  --sources_[source].open;
  --open_;
  --workers_[worker].leased;
  workers_[worker].credit_since_ns = now_ns;
}

void Checker::OnIdle(uint32_t worker, int64_t now_ns) {
  workers_[worker].idle = true;
  workers_[worker].idle_since_ns = now_ns;
  workers_[worker].credit_since_ns = now_ns;
}

void Checker::OnBusy(uint32_t worker) { workers_[worker].idle = false; }

void Checker::OnHint(uint32_t worker, bool waiting, int64_t now_ns) {
  if (!waiting) workers_[worker].busy_since_ns = now_ns;
  workers_[worker].says = waiting ? Says::kWaiting : Says::kBusy;
}

// --- The end -------------------------------------------------------------------------------------

void Checker::AtRest(const std::vector<bool>& may_hold) {
  for (uint32_t connection = 0; connection < connections_.size(); ++connection) {
    const Connection& it = connections_[connection];
    const bool with_the_dead = it.worker != kNone && may_hold[it.worker];
    bool fine = false;
    switch (it.where) {
      case Where::kClosed:
      case Where::kReset:
      case Where::kRefused:
        fine = true;
        break;
      case Where::kServed:
      case Where::kClaimed:
      case Where::kInRing:
        fine = with_the_dead;
        break;
      case Where::kOffered:
        fine = with_the_dead && !sources_[it.source].facts.recall;
        break;
      case Where::kQueued:
        // A worker that died may have claimed the ticket; the next edge would bring another.
        // Without recalls it also keeps a ticket that it has not claimed, and newer edges merge
        // into that.
        // The backlog of a source that was removed waits for whoever is about to accept.
        fine = sources_[it.source].removed || sources_[it.source].claimed_tickets > 0 ||
               LostTicket(it.source, may_hold) ||
               (sources_[it.source].facts.tickets && !sources_[it.source].facts.recall &&
                sources_[it.source].counts.offered + untaken_tickets(it.source) > 0);
        break;
      case Where::kAccepted:
      case Where::kHeld:
      case Where::kSent:
      case Where::kUnsent:
      case Where::kPassedOn:
        break;
    }
    if (!fine) return Fail(Name(connection) + " was not served");
    if (it.installed && !it.let_go) {
      return Fail("the master keeps what it has of " + Name(connection) + " which is installed");
    }
  }
  for (const Source& source : sources_) {
    if (source.removed) continue;
    if (source.overflow_due) return Fail("it was not asked how often a backlog has overflowed");
    if (source.overflow_known && !source.overflow_reported) {
      return Fail("a backlog has overflowed, and nobody was told");
    }
  }
}

// Whether a worker that died has said of a ticket that it took it, and has not. The ticket is in
// its ring still, but nobody waits for it.
bool Checker::LostTicket(uint32_t source, const std::vector<bool>& may_hold) const {
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    const Box& box = BoxOf(worker, source);
    const auto untaken = std::count(box.sent.begin(), box.sent.end(), source);
    if (may_hold[worker] && std::count(box.tickets.begin(), box.tickets.end(), source) > untaken) {
      return true;
    }
  }
  return false;
}

void Checker::AtShutdown() {
  for (uint32_t connection = 0; connection < connections_.size(); ++connection) {
    switch (connections_[connection].where) {
      case Where::kQueued:
      case Where::kReset:
      case Where::kClaimed:
      case Where::kInRing:
      case Where::kServed:
      case Where::kClosed:
      case Where::kRefused:
        continue;
      case Where::kAccepted:
      case Where::kHeld:
      case Where::kOffered:
      case Where::kSent:
      case Where::kUnsent:
      case Where::kPassedOn:
        return Fail(Name(connection) + " is neither served nor refused after the shutdown");
    }
  }
}

void Checker::AfterTheEnd(const std::vector<bool>& may_hold) {
  for (uint32_t connection = 0; connection < connections_.size(); ++connection) {
    const Connection& it = connections_[connection];
    const bool with_a_worker =
        it.where == Where::kClaimed || it.where == Where::kInRing || it.where == Where::kServed;
    if (with_a_worker && !may_hold[it.worker]) {
      return Fail(Name(connection) + " was not served by its worker after the balancer's end");
    }
  }
}

bool Checker::NotTold(uint32_t worker) const {
  const std::vector<Box>& boxes = workers_[worker].boxes;
  for (uint32_t master = 0; master < boxes.size(); ++master) {
    if (masters_[master].stopping && !boxes[master].facts.completions &&
        !boxes[master].knows_the_end) {
      return true;
    }
  }
  return false;
}

void Checker::RoundIsEven(uint32_t source, const std::vector<uint32_t>& workers, uint64_t bound) {
  uint64_t most = 0;
  uint64_t least = UINT64_MAX;
  for (const uint32_t worker : workers) {
    most = std::max(most, sources_[source].claimed[worker]);
    least = std::min(least, sources_[source].claimed[worker]);
  }
  if (!workers.empty() && most - least > bound) {
    Fail("round-robin gave " + std::to_string(most) + " to one worker and " +
         std::to_string(least) + " to another, bound " + std::to_string(bound));
  }
}

// kNone for a word whose index no source has.
uint32_t Checker::SourceOf(uint32_t master, uint64_t word) const {
  const uint64_t index = (word & ~kPresentBit) >> 32;
  const std::vector<uint32_t>& by_index = masters_[master].by_index;
  return index < by_index.size() ? by_index[index] : kNone;
}

uint32_t Checker::Find(int32_t fd) const {
  if (fd < 0 || static_cast<size_t>(fd) >= by_fd_.size()) return kNone;
  return by_fd_[static_cast<size_t>(fd)];
}

std::string Checker::Name(uint32_t connection) const {
  const Connection& it = connections_[connection];
  return "connection " + std::to_string(connection) + " (source " + std::to_string(it.source) +
         ", fd " + std::to_string(it.fd) + ")";
}

}  // namespace ringmaster::sim
