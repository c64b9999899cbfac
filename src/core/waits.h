// Waits: what keeps something from being done now, so that the engine waits for somebody else. No
// other part knows these reasons. The engine asks Waits whether to raise `hungry`, and what is to
// be armed. Engine::CheckAll asks it about everything that is left to be done.
//
// Rule "reasons". When nothing is under way, whatever is left to be done waits for one of the
// reasons that stand here (For), and each of them implies `hungry`. A source is armed if and only
// if a worker has joined it, it is neither paused nor given up nor backing off, and, if it is
// polled, it is not ready without credit; if it has a multishot accept, it is not full
// (core/intake.h).

#ifndef RINGMASTER_SRC_CORE_WAITS_H_
#define RINGMASTER_SRC_CORE_WAITS_H_

#include <cstdint>

#include "core/books.h"

namespace ringmaster::core {

class Waits {
 public:
  // What only a worker, or the end of a lease, can bring about.
  enum class For : uint8_t {
    kNothing,      // it does not wait
    kCredit,       // credit, or a place at the gates
    kDescriptors,  // the end of a back-off; a descriptor that becomes free ends it early
    kTook,         // that a worker says Took of the source's tickets
    kTaker,        // that somebody can take overdue offers
    kPolicy,       // something for which a policy that has picked nobody might pick somebody
    kOthers,       // credit of others than a giver
  };

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
    return worker.active && worker.looks.wants_taker() ? For::kTaker : For::kNothing;
  }

  // Whether anything waits for one of these.
  bool Any() const;
  // Whether nothing waits for anything but this.
  bool OnlyFor(For what) const;

  // Whether the source is to be armed.
  bool WantsArm(const Source& source) const {
    return source.intake.WantsArm(
        {.closed = books_.Shut(source) || source.back_off.pauses() ||
                   (source.aim.open() && !source.aim.quiet()),
         .full = source.lack.place() ||
                 books_.ledger.source(source.index).held_of_intake() >= source.config.hold,
         .starves = Of(source) == For::kCredit || books_.AsideFull(source),
         .facts = source.facts});
  }
  // Whether something of the source is left to be done, and nothing is under way that does it.
  bool HasWork(const Source& source) const;

 private:
  const Books& books_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_WAITS_H_
