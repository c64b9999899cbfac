// Intake::kAccept: a multishot accept takes whatever comes. It is ended where there is no place or
// no room, and armed again when a lease ends, or there is room again.
//
// Rule "yielding". A multishot accept cannot ask first. While it is armed, it takes a place at the
// gates for every connection that comes, whether or not anybody has credit. Another source, which
// advanced longer ago (core/rota.h), may wait for credit at the same time. When that gets credit,
// it needs a place at the balancer's gate as well, and beside a flooded multishot accept it might
// never find both. So at a balancer with a limit a multishot accept yields to such a source, in two
// ways:
//  * Without credit of its own it is not armed while the other one waits for credit.
//  * If the limit has ended it, it is not armed, not even with credit, while the other one gets
//    credit soon: a worker of that one has been offered as much as its window allows, and not long
//    ago.
// The second does not hold for a source whose workers have used up their capacities, because leases
// may last for ever. At the balancer's limit such a source can wait long beside a flooded multishot
// accept that has other workers, too.

#include "core/asker.h"

namespace ringmaster::core {
namespace {

// Whether it may be armed again now.
bool Ask(Asker& asker, const Asking& asking) {
  Books& books = asker.books();
  Source& source = asking.source;
  // Asked once, because a lease may end meanwhile: what is not armed must be hungry.
  const bool no_room = !books.HasRoomFor(0);
  const bool was_full = source.lack.Set(false, false);
  if (no_room && asker.waits().WantsArm(source)) books.room.Want();
  const bool full = no_room || books.places.Full(source.index);
  // Rule "yielding".
  const bool yields =
      source.intake.arming().idle() &&
      ((asking.ahead == Ahead::kStarves && books.Credit(source) == 0) ||
       (asking.ahead == Ahead::kGetsCreditSoon && (was_full || books.Credit(source) == 0)));
  source.lack.Set(full, yields);
  if (asking.held_back) return false;
  if (source.lack.place()) source.lack.LackCredit();
  return was_full && !source.lack.place();
}

}  // namespace

const IntakeType kIntakeAccept = {.name = "kAccept",
                                  .arms = OpKind::kAcceptEach,
                                  .ends = OpKind::kAcceptEnd,
                                  .accepts_each = true,
                                  .ask = Ask};

}  // namespace ringmaster::core
