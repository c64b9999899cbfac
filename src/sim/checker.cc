#include "sim/checker.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace ringmaster::sim {
namespace {

// A word as core/inbox.h describes it, taken apart here once more on purpose.
constexpr uint64_t kPresentBit = uint64_t{1} << 63;
int32_t FdOf(uint64_t word) { return static_cast<int32_t>(static_cast<uint32_t>(word)); }
uint32_t SourceOf(uint64_t word) { return static_cast<uint32_t>((word & ~kPresentBit) >> 32); }

// An offer whose worker moves may be recalled at four times the limit, for a worker that waits.
constexpr int64_t kLateFactor = 4;
// How many limits an offer may lie with a worker that does not move while another has credit: its
// age, the look that finds that the worker has moved meanwhile, and some slack.
constexpr int64_t kNeglectFactor = 3;
constexpr uint32_t kDoublings = 6;

}  // namespace

// --- Set-up --------------------------------------------------------------------------------------

uint32_t Checker::AddWorker(const CheckedWorker& worker) {
  workers_.push_back({.facts = worker, .seen = std::vector<uint64_t>(worker.words_count)});
  for (Source& source : sources_) {
    source.joined_at_ns.push_back(-1);
    source.claimed.push_back(0);
  }
  return static_cast<uint32_t>(workers_.size() - 1);
}

void Checker::OnJoined(uint32_t source, uint32_t worker, int64_t now_ns) {
  sources_[source].joined_at_ns[worker] = now_ns;
}

void Checker::OnLeftSource(uint32_t source, uint32_t worker, int64_t now_ns) {
  Read(Occasion::kLeave, worker, source, now_ns);
  for (const uint64_t word : workers_[worker].seen) {
    if (word != 0 && SourceOf(word) == source) Fail("an offer stays with a worker that has left");
  }
  sources_[source].joined_at_ns[worker] = -1;
}

void Checker::OnLeft(uint32_t worker, int64_t now_ns) {
  Read(Occasion::kLeave, worker, kNone, now_ns);
  if (workers_[worker].unclaimed != 0) Fail("an offer stays with a worker that has left");
  for (Source& source : sources_) source.joined_at_ns[worker] = -1;
  workers_[worker].left = true;
  workers_[worker].idle = false;
}

void Checker::OnRefuseAll(int64_t now_ns) {
  refusing_ = true;
  Read(Occasion::kRefuse, kNone, kNone, now_ns);
}

// --- The kernel and the seam ---------------------------------------------------------------------

uint32_t Checker::OnArrival(uint32_t source) {
  connections_.push_back({.source = source});
  ++sources_[source].queued;
  ++unfinished_;
  return static_cast<uint32_t>(connections_.size() - 1);
}

void Checker::OnAborted(uint32_t connection) {
  connections_[connection].where = Where::kAborted;
  --sources_[connections_[connection].source].queued;
  --unfinished_;
}

void Checker::OnAccepted(uint32_t connection, int32_t fd) {
  Connection& accepted = connections_[connection];
  accepted.where = Where::kAccepted;
  --sources_[accepted.source].queued;
  accepted.fd = fd;
  if (by_fd_.size() <= static_cast<size_t>(fd)) by_fd_.resize(static_cast<size_t>(fd) + 1, kNone);
  if (by_fd_[static_cast<size_t>(fd)] != kNone) Fail("the simulated kernel reuses an open fd");
  by_fd_[static_cast<size_t>(fd)] = connection;
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
  connections_[connection].where = Where::kHeld;
  connections_[connection].number = counts.reported - 1;
}

void Checker::OnRefused(int32_t fd) {
  const uint32_t connection = Find(fd);
  if (connection == kNone) return Fail("the master closes fd " + std::to_string(fd) + " not open");
  Connection& refused = connections_[connection];
  if (!refusing_) return Fail("the master refuses " + Name(connection) + " without being told to");
  if (refused.where != Where::kHeld) {
    return Fail("the master closes " + Name(connection) + " which it does not hold");
  }
  refused.where = Where::kRefused;
  by_fd_[static_cast<size_t>(fd)] = kNone;
  Counts& counts = sources_[refused.source].counts;
  --counts.held;
  ++counts.refused;
  --unfinished_;
}

// --- The workers ---------------------------------------------------------------------------------

void Checker::OnMoved(uint32_t worker, int64_t now_ns) {
  workers_[worker].owes_motion = false;
  workers_[worker].moved_at_ns = now_ns;
}

uint32_t Checker::OnClaimed(uint32_t index, uint64_t word, int64_t now_ns) {
  Worker& worker = workers_[index];
  const auto it = std::find(worker.seen.begin(), worker.seen.end(), word);
  const uint32_t connection = Find(FdOf(word));
  if (word == 0 || it == worker.seen.end() || connection == kNone || worker.left) {
    Fail("worker " + std::to_string(index) + " claims what was not offered to it");
    return kNone;
  }
  Connection& claimed = connections_[connection];
  if (claimed.where != Where::kOffered || claimed.worker != index ||
      claimed.source != SourceOf(word)) {
    Fail("worker " + std::to_string(index) + " claims " + Name(connection) + " of somebody else");
    return kNone;
  }
  *it = 0;
  OnMoved(index, now_ns);
  --worker.unclaimed;
  ++worker.leased;
  Source& source = sources_[claimed.source];
  --source.counts.offered;
  ++source.counts.claimed;
  ++source.claimed[index];
  return connection;
}

void Checker::OnServed(uint32_t index, uint32_t connection) {
  Connection& served = connections_[connection];
  if (served.where != Where::kOffered || served.worker != index) {
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
  by_fd_[static_cast<size_t>(closed.fd)] = kNone;
  --unfinished_;
}

void Checker::OnReleased(uint32_t worker, int64_t now_ns) {
  if (workers_[worker].leased == 0) return Fail("a lease is released twice");
  --workers_[worker].leased;
  workers_[worker].credit_since_ns = now_ns;
}

void Checker::OnIdle(uint32_t worker, int64_t now_ns) {
  workers_[worker].idle = true;
  workers_[worker].credit_since_ns = now_ns;
}

void Checker::OnBusy(uint32_t worker) { workers_[worker].idle = false; }

// --- The master ----------------------------------------------------------------------------------

// Since when somebody else has had credit for a connection of `source`; negative: nobody has.
int64_t Checker::CreditSince(uint32_t source, uint32_t except) const {
  int64_t since_ns = -1;
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    const Worker& worker = workers_[index];
    const int64_t joined_ns = sources_[source].joined_at_ns[index];
    if (index == except || joined_ns < 0 || !worker.idle || worker.owes_motion ||
        worker.unclaimed != 0 || worker.leased >= worker.facts.capacity) {
      continue;
    }
    const int64_t this_ns = std::max(joined_ns, worker.credit_since_ns);
    if (since_ns < 0 || this_ns < since_ns) since_ns = this_ns;
  }
  return since_ns;
}

void Checker::BeforeBatch(int64_t now_ns) {
  CheckNeglect(now_ns);
  CheckIdleness(now_ns);
}

void Checker::AfterBatch(int64_t now_ns) {
  Read(Occasion::kBatch, kNone, kNone, now_ns);
  last_batch_ns_ = now_ns;
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Source& source = sources_[index];
    if (source.counts.held > 0 && !refusing_ && CreditSince(index, kNone) >= 0) {
      Fail("something is held after a batch although a worker that waits has credit");
    }
    const bool accepts = !source.paused && !stopping_ && !options_.backs_off;
    source.waits = source.counts.held > 0 || (accepts && source.queued > 0);
  }
}

// Work that has waited since the last batch must not wait longer for the master than it takes to
// wake it.
void Checker::CheckIdleness(int64_t now_ns) {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    if (!sources_[index].waits || refusing_) continue;
    const int64_t since_ns = CreditSince(index, kNone);
    if (since_ns < 0 || now_ns - std::max(since_ns, last_batch_ns_) <= options_.patience_ns) {
      continue;
    }
    Fail("work waits although a worker has credit: the master was not woken");
  }
}

void Checker::CheckNeglect(int64_t now_ns) {
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    const Worker& worker = workers_[index];
    if (worker.unclaimed == 0) continue;
    for (const uint64_t word : worker.seen) {
      const uint32_t connection = word == 0 ? kNone : Find(FdOf(word));
      if (connection == kNone) continue;
      const Connection& offered = connections_[connection];
      if (!sources_[offered.source].recall) continue;
      const int64_t limit_ns = options_.recall_after_ns << std::min(offered.recalls, kDoublings);
      const int64_t credit_since_ns = CreditSince(offered.source, index);
      if (credit_since_ns < 0) continue;
      const int64_t old_ns = now_ns - std::max(offered.offered_at_ns, credit_since_ns);
      const int64_t still_ns = std::min(old_ns, now_ns - worker.moved_at_ns);
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
  }
}

void Checker::Read(Occasion occasion, uint32_t left, uint32_t left_source, int64_t now_ns) {
  if (failed()) return;
  ++reading_;
  again_now_.clear();
  for (Source& source : sources_) source.first_offers_now = 0;
  changed_.clear();
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    if (!workers_[index].left) NoteChanges(index);
  }
  // What was taken back first, then what was offered: one may be the other.
  for (const Change& change : changed_) {
    const uint64_t seen = std::exchange(workers_[change.worker].seen[change.slot], 0);
    if (seen == 0) continue;
    if (occasion == Occasion::kLeave &&
        (change.worker != left || (left_source != kNone && SourceOf(seen) != left_source))) {
      return Fail("a leave takes back what does not belong to it");
    }
    OnRecalled(change.worker, seen, occasion, now_ns);
    if (failed()) return;
  }
  for (const Change& change : changed_) {
    if (change.word == 0) continue;
    if (occasion != Occasion::kBatch) return Fail("an offer outside of a batch");
    OnOffered(change.worker, change.word, now_ns);
    if (failed()) return;
    workers_[change.worker].seen[change.slot] = change.word;
  }
  for (uint32_t index = 0; index < workers_.size(); ++index) CheckBounds(index);
  if (occasion == Occasion::kBatch && !refusing_) CheckOrder();
}

void Checker::NoteChanges(uint32_t index) {
  const Worker& worker = workers_[index];
  const size_t bytes = worker.facts.words_count * sizeof(uint64_t);
  if (std::memcmp(worker.facts.words, worker.seen.data(), bytes) == 0) return;
  for (uint32_t slot = 0; slot < worker.facts.words_count; ++slot) {
    uint64_t word = 0;
    std::memcpy(&word, worker.facts.words + slot * sizeof(word), sizeof(word));
    if (word != worker.seen[slot])
      changed_.push_back({.worker = index, .slot = slot, .word = word});
  }
}

void Checker::OnRecalled(uint32_t index, uint64_t word, Occasion occasion, int64_t now_ns) {
  const uint32_t connection = Find(FdOf(word));
  if (connection == kNone) return Fail("what is taken back is not open");
  Connection& recalled = connections_[connection];
  Worker& worker = workers_[index];
  Source& source = sources_[recalled.source];
  if (recalled.where != Where::kOffered || recalled.worker != index) {
    return Fail(Name(connection) + " is taken back from the wrong worker");
  }
  if (occasion == Occasion::kBatch) {
    CheckRecallIsDue(recalled, now_ns);
    worker.owes_motion = true;
    ++recalled.recalls;
    ++source.counts.recalled;
  } else {
    ++source.counts.left;
  }
  trace_->Note(now_ns, occasion == Occasion::kBatch ? "recalls" : "takes-back", index, connection);
  recalled.where = Where::kHeld;
  recalled.recalled_from = index;
  recalled.was_offered_at_ns = recalled.offered_at_ns;
  recalled.recalled_in = reading_;
  recalled_.push_back(connection);
  ++source.recalled_held;
  --source.counts.offered;
  ++source.counts.held;
  --worker.unclaimed;
  worker.credit_since_ns = now_ns;
}

void Checker::CheckRecallIsDue(const Connection& connection, int64_t now_ns) {
  const Worker& worker = workers_[connection.worker];
  const Source& source = sources_[connection.source];
  const int64_t limit_ns = options_.recall_after_ns;
  const int64_t age_ns = now_ns - connection.offered_at_ns;
  const bool stuck = age_ns >= limit_ns && now_ns - worker.moved_at_ns >= limit_ns;
  if (!stuck && age_ns < kLateFactor * limit_ns) Fail("a recall comes too early");
  if (!source.recall) Fail("a recall where recalls are off");
  const auto others = static_cast<size_t>(std::count_if(
      source.joined_at_ns.begin(), source.joined_at_ns.end(), [](int64_t at) { return at >= 0; }));
  if (others < 2) Fail("a recall although there is nobody else");
}

void Checker::OnOffered(uint32_t index, uint64_t word, int64_t now_ns) {
  const uint32_t connection = Find(FdOf(word));
  if (connection == kNone || (word & kPresentBit) == 0) {
    return Fail("fd " + std::to_string(FdOf(word)) + " is offered and not open");
  }
  Connection& offered = connections_[connection];
  Worker& worker = workers_[index];
  Source& source = sources_[offered.source];
  if (offered.source != SourceOf(word)) return Fail(Name(connection) + " has the wrong source");
  if (offered.where != Where::kHeld) {
    return Fail(Name(connection) + " is offered to worker " + std::to_string(index) +
                " and is in another place already");
  }
  if (source.joined_at_ns[index] < 0) {
    return Fail(Name(connection) + " is offered to a worker that has not joined its source");
  }
  if (worker.owes_motion) {
    return Fail("worker " + std::to_string(index) + " is offered " + Name(connection) +
                " after a recall and before it has moved");
  }
  if (offered.ever_offered) {
    --source.recalled_held;
    std::erase(recalled_, connection);
    again_now_.push_back(connection);
  } else {
    ++source.first_offers_now;
  }
  trace_->Note(now_ns, "offers", index, connection);
  offered.ever_offered = true;
  offered.where = Where::kOffered;
  offered.worker = index;
  offered.offered_at_ns = now_ns;
  --source.counts.held;
  ++source.counts.offered;
  ++worker.unclaimed;
  worker.credit_since_ns = now_ns;
}

void Checker::CheckOrder() {
  bool any_first = false;
  for (Source& source : sources_) {
    source.first_offers += source.first_offers_now;
    any_first |= source.first_offers_now > 0;
    if (source.first_offers_now > 0 && source.recalled_held > 0) {
      Fail("a connection is offered for the first time while a recalled one waits");
    }
  }
  // So many have been offered at least once; they must be the oldest ones.
  for (const Change& change : changed_) {
    const uint32_t connection = change.word == 0 ? kNone : Find(FdOf(change.word));
    if (!any_first || connection == kNone) continue;
    if (connections_[connection].number >= sources_[SourceOf(change.word)].first_offers) {
      return Fail(Name(connection) + " is offered before an older one");
    }
  }
  for (const uint32_t other : again_now_) {
    const Connection& offered = connections_[other];
    for (const uint32_t held : recalled_) {
      const Connection& waiting = connections_[held];
      if (offered.source == waiting.source && offered.recalled_in == waiting.recalled_in &&
          offered.recalled_from == waiting.recalled_from &&
          offered.was_offered_at_ns > waiting.was_offered_at_ns) {
        return Fail(Name(held) + " waits after its recall, and " + Name(other) +
                    ", which had been offered later, does not");
      }
    }
  }
}

void Checker::CheckBounds(uint32_t index) {
  const Worker& worker = workers_[index];
  if (worker.left) return;
  if (worker.unclaimed > worker.facts.window) {
    Fail("worker " + std::to_string(index) + " has more unclaimed offers than its window");
  }
  if (worker.unclaimed + worker.leased > worker.facts.capacity) {
    Fail("worker " + std::to_string(index) + " has more connections than its capacity");
  }
}

// --- The end -------------------------------------------------------------------------------------

void Checker::AtRest(const std::vector<bool>& may_hold) {
  for (uint32_t connection = 0; connection < connections_.size(); ++connection) {
    const Connection& it = connections_[connection];
    if (it.where == Where::kClosed || it.where == Where::kAborted) continue;
    const bool with_the_dead = it.worker != kNone && may_hold[it.worker];
    if (it.where == Where::kServed && with_the_dead) continue;
    if (it.where == Where::kOffered && with_the_dead && !sources_[it.source].recall) continue;
    return Fail(Name(connection) + " was not served");
  }
}

void Checker::AtShutdown() {
  for (uint32_t connection = 0; connection < connections_.size(); ++connection) {
    switch (connections_[connection].where) {
      case Where::kQueued:
      case Where::kAborted:
      case Where::kServed:
      case Where::kClosed:
      case Where::kRefused:
        continue;
      case Where::kAccepted:
      case Where::kHeld:
      case Where::kOffered:
        return Fail(Name(connection) + " is neither served nor refused after the shutdown");
    }
  }
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
