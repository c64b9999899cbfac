// Edges: what polls have shown of one source, and what of that nobody has looked for yet.
//
// A polled source has a flag, `ready`, which says that the source may have more. It is set by an
// edge, by a failed accept, by a ticket that is given back, and by a worker that leaves, because
// that may have claimed a ticket which it does not redeem. Only an attempt to obtain something that
// finds nothing clears it. Arming need not set it, because the kernel reports at once what is there
// already.
//
// Rules:
//  * News of an end. Somebody is told what a poll has shown of a source's end. Of a listener the
//    master asks the socket (core/listening.h); of anything else a ticket tells a worker. A hang-up
//    lasts, so every arming shows it anew. Once a ticket has told it, another edge of the same
//    hang-up is no news. Otherwise tickets would go round for ever.
//  * Untaken tickets. While there are any, it cannot be known whether something is left, because
//    some of them may have been redeemed. So what has come since is looked for when they are taken.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_EDGES_H_
#define RINGMASTER_SRC_CORE_EDGES_H_

#include <cstdint>
#include <utility>

#include "core/op.h"

namespace ringmaster::core {

class Edges {
 public:
  // --- Whether it may have more ----------------------------------------------------------------

  bool ready() const { return ready_; }
  void MayHaveMore() {
    ready_ = true;
    awaits_took_ = false;
  }
  // An attempt has found nothing, or is made now and calls LookAgain if it leaves anything.
  void Clear() { ready_ = false; }
  // What was looked for may still be there.
  void LookAgain() { ready_ = true; }

  // What may be there is looked for when the untaken tickets are taken.
  void AwaitTook() { ready_ = awaits_took_ = true; }
  bool awaits_took() const { return awaits_took_; }
  // The untaken tickets are taken. Returns whether anything has waited for that.
  bool StopAwaiting() { return std::exchange(awaits_took_, false); }

  // --- What polls say --------------------------------------------------------------------------

  // A poll is armed; what it shows first may have been there before.
  void Arm() { armed_anew_ = true; }

  // An edge of a listener.
  void Come(int32_t mask) {
    armed_anew_ = false;
    MayHaveMore();
    events_ |= mask;
  }
  // An edge of anything else, whose end is told by tickets. Ignores what they have told already.
  void ComeOfOther(int32_t mask) {
    const int32_t ends = mask & ~kReadableMask;
    // What was told lasts; an edge without it shows that it does not.
    told_ &= mask;
    const bool news =
        (ends & ~told_) != 0 || ((mask & kReadableMask) != 0 && (told_ & kEndedMask) == 0);
    if (std::exchange(armed_anew_, false) && ends != 0 && !news) return;
    Come(mask);
  }

  // --- What tickets tell -----------------------------------------------------------------------

  // Whether polls have said anything but that there is something to read; and whether any of that
  // has not been told by a ticket.
  bool ends() const { return events_ != kReadableMask; }
  bool has_untold_end() const { return (events_ & ~kReadableMask & ~told_) != 0; }
  // The mask that the next ticket tells.
  int32_t Tell() {
    told_ |= events_ & ~kReadableMask;
    return std::exchange(events_, kReadableMask);
  }
  // A ticket that nobody has redeemed is merged into the next one.
  void Untell(int32_t mask) { events_ |= mask; }
  // A worker that was told something may not have acted on it: the next ticket tells it again.
  void TellAgain() { events_ |= told_; }

 private:
  bool ready_ = false;
  bool awaits_took_ = false;
  bool armed_anew_ = false;         // and no edge has come since
  int32_t events_ = kReadableMask;  // what polls said since the last ticket
  int32_t told_ = 0;                // what tickets have said of the end
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_EDGES_H_
