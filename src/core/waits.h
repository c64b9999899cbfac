// Waits: what keeps something from being done now, so that the engine waits for somebody else. The
// only place that knows. It is asked whether to raise `hungry`, and what is armed; and CheckAll
// asks it at rest about everything that is left to be done.
//
// Rule "at rest". A source is armed if and only if a worker has joined it, it is neither paused,
// failed nor backing off, and it is not ready without credit (polls) or full (multishot accepts);
// see core/intake.h. What is left to be done waits for a reason that stands here, and that implies
// `hungry`.

#ifndef RINGMASTER_SRC_CORE_WAITS_H_
#define RINGMASTER_SRC_CORE_WAITS_H_

#include <cstdint>

#include "core/books.h"

namespace ringmaster::core {

class Waits {
 public:
  // What only a worker, or the end of a lease, can change.
  enum class For : uint8_t { kNothing, kCredit, kDescriptors, kTook, kTaker, kPolicy, kOthers };

  explicit Waits(const Books& books) : books_(books) {}

  For Of(const Source& source) const {
    if (source.lack.credit()) return For::kCredit;
    if (source.back_off.pauses()) return For::kDescriptors;
    if (source.intake.edges().awaits_took() && !books_.Shut(source)) return For::kTook;
    // Only Took says that all went well by a ticket that was handed over.
    if (source.tickets.untaken() > 0 && source.back_off.waits_for_success()) return For::kTook;
    if (books_.AsksAgain(source)) return For::kPolicy;
    if (source.lack.others()) return For::kOthers;
    return For::kNothing;
  }
  For Of(const Worker& worker) const {
    // Overdue offers that nobody could take.
    return worker.active && worker.looks.wants_taker() ? For::kTaker : For::kNothing;
  }

  // Whether there is work that waits for somebody else to move.
  bool Any() const;
  // Whether some waits, and all of it for this alone.
  bool OnlyFor(For what) const;

  // Whether the source is to be armed.
  bool WantsArm(const Source& source) const {
    return source.intake.WantsArm(
        {.closed = books_.Shut(source) || source.back_off.pauses(),
         .full = source.lack.place() ||
                 books_.ledger.source(source.index).held_of_intake() >= source.config.hold,
         .starves = Of(source) == For::kCredit || books_.AsideFull(source),
         .facts = source.facts});
  }
  // Whether something of the source is left to be done and not under way.
  bool HasWork(const Source& source) const;

 private:
  const Books& books_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_WAITS_H_
