// Edges: what polls have shown of one source, and has not been looked for yet.
//
// A polled source carries one sticky bit, `ready`: it may have more. An edge sets it. So do a
// failed accept, a ticket given back, and a worker that leaves, which may have claimed a ticket
// that it does not redeem. Only a look that finds nothing clears it. Arming need not set it,
// because the kernel reports at once what is there already.
//
// Rules:
//  * News of an end. What a poll has shown of a source's end reaches somebody. Of a listener that
//    is the question about its end (core/listening.h), of anything else a ticket. A hang-up lasts,
//    so every arming shows it anew. Once a ticket has said it, another edge of it is no news, or
//    tickets would go round for ever.
//  * A look while tickets are untaken finds out nothing: some may have been redeemed. So what has
//    come since is looked for when they are taken.
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
  // A look finds nothing, or is made now and says if it leaves anything.
  void Clear() { ready_ = false; }
  // What was looked for may still be there.
  void LookAgain() { ready_ = true; }

  // It is looked for when the untaken tickets are taken.
  void AwaitTook() { ready_ = awaits_took_ = true; }
  bool awaits_took() const { return awaits_took_; }
  // They are taken. Returns whether anything has waited for that.
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
  // An edge of anything else, whose end tickets tell. Ignores what they have told already.
  void ComeOfOther(int32_t mask) {
    const int32_t ends = mask & ~kReadableMask;
    // What was told is what lasts; an edge without it shows that it does not.
    told_ &= mask;
    const bool news =
        (ends & ~told_) != 0 || ((mask & kReadableMask) != 0 && (told_ & kEndedMask) == 0);
    if (std::exchange(armed_anew_, false) && ends != 0 && !news) return;
    Come(mask);
  }

  // --- What tickets tell -----------------------------------------------------------------------

  // What has come beside something to read, and of that, what no ticket has told.
  bool ends() const { return events_ != kReadableMask; }
  bool has_untold_end() const { return (events_ & ~kReadableMask & ~told_) != 0; }
  // The mask that the next ticket tells.
  int32_t Tell() {
    told_ |= events_ & ~kReadableMask;
    return std::exchange(events_, kReadableMask);
  }
  // A ticket that nobody has redeemed is merged into the next one.
  void Untell(int32_t mask) { events_ |= mask; }
  // Somebody may not have heeded what tickets have told: the next one tells it again.
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
