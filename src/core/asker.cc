#include "core/asker.h"

#include <algorithm>
#include <utility>

namespace ringmaster::core {

bool Asker::AskForMore(Source& source, Ahead ahead) {
  // What a count has found while nothing may be issued is looked for again later.
  const bool held_back = source.lack.credit() || books_.AsideFull(source) ||
                         source.back_off.pauses() || source.intake.listening().doubted() ||
                         books_.Shut(source);
  if (held_back && source.tickets.UseCount()) source.intake.edges().MayHaveMore();
  if (source.intake.accepts_each()) return MayArmEach(source, held_back, ahead);
  const bool may_have_more = source.intake.edges().ready() || source.tickets.counted();
  if (!may_have_more || held_back || source.pace.under_way() > 0) return false;
  if (source.intake.edges().awaits_took() && !source.tickets.counted()) return false;
  return source.intake.accepts_singly() ? AskForAccepts(source) : IssueTickets(source);
}

bool Asker::AskForAccepts(Source& source) {
  const uint32_t asked = Admit(source, std::min(source.pace.wanted(), books_.MayBring(source)));
  source.pace.Ask(asked);
  books_.room.Ask(asked);
  for (uint32_t i = 0; i < asked; ++i) {
    books_.ops.push_back({.key = source.Key(OpKind::kAccept),
                          .fd = source.config.fd,
                          .accept_flags = source.config.accept_flags,
                          .file = source.config.file});
  }
  return asked > 0;
}

// A multishot accept is ended where there is no place or no room, and armed again when a lease
// ends, or there is room again. Returns whether it may be armed again now.
bool Asker::MayArmEach(Source& source, bool held_back, Ahead ahead) {
  // Asked once, because a lease may end meanwhile: what is not armed must be hungry.
  const bool no_room = !books_.HasRoomFor(0);
  const bool was_full = source.lack.Set(false, false);
  if (no_room && waits_.WantsArm(source)) books_.room.Want();
  const bool full = no_room || books_.places.Full(source.index);
  // Rule "yielding".
  const bool yields =
      source.intake.arming().idle() &&
      ((ahead == Ahead::kStarves && books_.Credit(source) == 0) ||
       (ahead == Ahead::kGetsCreditSoon && (was_full || books_.Credit(source) == 0)));
  source.lack.Set(full, yields);
  if (held_back) return false;
  if (source.lack.place()) source.lack.LackCredit();
  return was_full && !source.lack.place();
}

bool Asker::GetsCreditSoon(const Source& source) const {
  if (books_.Credit(source) > 0) return false;
  return std::any_of(source.joined.begin(), source.joined.end(), [this](uint32_t index) {
    const Worker& worker = books_.workers[index];
    return !worker.motion.owes_motion() && !worker.bell.owed() &&
           books_.Unclaimed(index) >= worker.motion.window() &&
           books_.StillNs(index) < books_.config.recall_after_ns;
  });
}

// Rule "place first": for how many of `wanted` something may be asked for. If for none, the source
// lacks credit.
uint32_t Asker::Admit(Source& source, uint32_t wanted) {
  const SourceIndex index = source.index;
  bool any = false;
  credits_.clear();
  for (const uint32_t worker : source.joined) {
    // What it still has from before is for whoever is first in the next round.
    const uint32_t credit = books_.Credit(worker, source);
    credits_.push_back(credit - std::min(credit, books_.places.Kept(index, worker)));
    any |= credits_.back() > 0;
  }
  uint32_t admitted = 0;
  while (any && admitted < wanted && books_.HasRoomFor(admitted + 1) &&
         books_.places.Reserve(index)) {
    if (!books_.places.Keep(index, source.joined, credits_)) {
      books_.places.GiveBack(index);
      break;
    }
    ++admitted;
  }
  // Even if there is a place again by now: whoever made it has not knocked.
  if (admitted == 0) {
    source.lack.LackCredit();
    if (any && !books_.HasRoomFor(1)) books_.room.Want();
  }
  return admitted;
}

// Returns whether it has offered or asked for anything.
bool Asker::IssueTickets(Source& source) {
  Edges& edges = source.intake.edges();
  const SourceIndex index = source.index;
  // A ticket that was claimed out of order is pending no more: its worker may have redeemed it.
  for (const uint32_t worker : source.joined) {
    if (books_.ledger.source(index).offered > 0 && !books_.workers[worker].sending.used()) {
      reader_.ReadAll(worker);
    }
  }
  const uint64_t credit = books_.Credit(source);
  const uint64_t pending = books_.PendingTickets(source);
  uint64_t wanted = 0;
  // A ticket that was handed over as a completion may have been redeemed before Took says so.
  const bool untaken = source.tickets.untaken() > 0;
  if (!source.config.countable) {
    edges.Clear();
    const bool ends = edges.has_untold_end() && !source.intake.listens();
    wanted = pending == 0 || ends ? 1 : 0;
  } else if (source.tickets.UseCount()) {
    // The backlog was read first and then, in this batch, which tickets are pending. A worker
    // claims before it accepts, so what it is about to accept is counted as waiting: a ticket too
    // many, which finds nothing, and never one too few.
    wanted = source.tickets.backlog() - std::min<uint64_t>(source.tickets.backlog(), pending);
    // An error or a hang-up is for a worker to find out about.
    if (edges.ends() && pending == 0) wanted = std::max<uint64_t>(wanted, 1);
  } else {
    return CountBacklog(source);
  }
  uint64_t issued = 0;
  const uint64_t allowed = std::min<uint64_t>(wanted, books_.MayBring(source));
  while (issued < std::min(allowed, credit) && books_.HasRoomFor(1) &&
         books_.places.Reserve(index)) {
    books_.ledger.Arrive(index, edges.Tell(), {}, books_.now_ns);
    ++issued;
    ++books_.arrived;
  }
  bool advanced = dealer_.Deal(source);
  if (issued < wanted) edges.LookAgain();
  if (issued < allowed) {
    source.lack.LackCredit();
    if (!books_.HasRoomFor(1)) books_.room.Want();
  } else if (edges.ready()) {
    // An edge came after the count, which is not asked for while too much is set aside.
    if (!books_.AsideFull(source)) advanced |= CountBacklog(source);
  } else if (untaken) {
    edges.AwaitTook();
  }
  return advanced;
}

// Returns whether it could. What is counted as waiting is to have a ticket, so a place and credit
// are kept for one.
bool Asker::CountBacklog(Source& source) {
  if (source.tickets.counting() || Admit(source, 1) == 0) return false;
  source.tickets.AskCount();
  books_.places.LeaveToCount(source.index);
  books_.ops.push_back(
      {.key = source.Key(OpKind::kCount), .fd = source.config.fd, .file = source.config.file});
  return true;
}

}  // namespace ringmaster::core
