// Intake::kReadiness: a multishot poll watches the source, and the master issues tickets, by which
// workers accept or read.
//
// Rule "tickets". A ticket is pending from when it is issued until a worker has claimed it. A
// listener whose backlog can be counted has no more pending tickets than connections were waiting
// at the last count. Any other source has at most one, and newer edges merge into it. When the
// source is removed or the intake stops, pending tickets are withdrawn.

#include <algorithm>
#include <cstdint>

#include "core/asker.h"

namespace ringmaster::core {
namespace {

// Returns whether it could. What is counted as waiting is to have a ticket, so a place and credit
// are kept for one.
bool CountBacklog(Asker& asker, Source& source) {
  Books& books = asker.books();
  if (source.tickets.counting() || asker.Admit(source, 1) == 0) return false;
  source.tickets.AskCount();
  books.places.LeaveToCount(source.index);
  books.ops.push_back(
      {.key = source.Key(OpKind::kCount), .fd = source.config.fd, .file = source.config.file});
  return true;
}

// Returns whether it has offered or asked for anything.
bool Ask(Asker& asker, const Asking& asking) {
  if (!Asker::MayAsk(asking)) return false;
  Books& books = asker.books();
  Source& source = asking.source;
  Edges& edges = source.intake.edges();
  const SourceIndex index = source.index;
  // A ticket that was claimed out of order is pending no more: its worker may have redeemed it.
  for (const uint32_t worker : source.joined) {
    if (books.ledger.source(index).offered > 0 && !books.workers[worker].sending.used()) {
      asker.reader().ReadAll(worker);
    }
  }
  const uint64_t credit = books.Credit(source);
  const uint64_t pending = books.PendingTickets(source);
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
    return CountBacklog(asker, source);
  }
  uint64_t issued = 0;
  const uint64_t allowed = std::min<uint64_t>(wanted, books.MayBring(source));
  while (issued < std::min(allowed, credit) && books.HasRoomFor(1) && books.places.Reserve(index)) {
    books.ledger.Arrive(index, edges.Tell(), {}, books.now_ns);
    ++issued;
    ++books.arrived;
  }
  bool advanced = asker.dealer().Deal(source);
  if (issued < wanted) edges.LookAgain();
  if (issued < allowed) {
    source.lack.LackCredit();
    if (!books.HasRoomFor(1)) books.room.Want();
  } else if (edges.ready()) {
    // An edge came after the count, which is not asked for while too much is set aside.
    if (!books.AsideFull(source)) advanced |= CountBacklog(asker, source);
  } else if (untaken) {
    edges.AwaitTook();
  }
  return advanced;
}

}  // namespace

const IntakeType kIntakeReadiness = {.name = "kReadiness", .tickets = true, .ask = Ask};

}  // namespace ringmaster::core
