// What an engine knows of one worker: the parts that keep its books, each with a header of its own,
// and what set-up has said of it.

#ifndef RINGMASTER_SRC_CORE_WORKER_H_
#define RINGMASTER_SRC_CORE_WORKER_H_

#include <cstdint>

#include "core/bell.h"
#include "core/engine_config.h"
#include "core/inbox.h"
#include "core/looks.h"
#include "core/motion.h"
#include "core/outbox.h"
#include "core/port_state.h"
#include "core/sending.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

struct Worker {
  WorkerConfig config;
  bool used = false;
  uint32_t generation = 0;  // of those that have had the index
  bool active = false;      // its inbox or ring is looked at in each batch
  Motion motion;
  Looks looks;
  Bell bell;
  Outbox outbox;           // for offers; or
  Sending sending;         // where arrivals are sent
  uint64_t by_permit = 0;  // accepted by permits of sources whose indexes were used again

  // Inside a claim. A hint: a wrong one costs a worse pick.
  bool Serving() const { return config.state->serving.load(std::memory_order_relaxed) != 0; }
  // Whether something was recalled from it of late, and it is inside a claim now. What it is
  // offered then waits for a callback that may take long: perhaps too briefly for a recall, and yet
  // for most of that callback. So everybody else is asked first. The same holds of a worker that
  // was relieved by the rule "moved" of core/mover.h, and is busy still. Its policy owes it a turn;
  // if it got that now, each arrival would lie with it first, and then be moved.
  bool SlowAtWork(int64_t now_ns) const {
    return (motion.slow(now_ns) && Serving()) || (motion.relieved() && config.state->Busy());
  }
  Activity activity() const;
  // The CPU on which it last claimed, or to which it is bound; -1: unknown.
  int32_t cpu() const {
    return config.cpu >= 0 ? config.cpu : config.state->cpu.load(std::memory_order_relaxed);
  }
  // By the rule "silent stall" of core/motion.h: when it is said to stall if nothing can be
  // recalled from it until then.
  int64_t SilentAt() const { return motion.SilentAtNs(looks.vain_since_ns()); }
};

// It is idle if nothing is there for it, of any master, and it neither is inside a claim nor says
// that it is busy. Mostly there are no other masters, so these are loops and no calls.
inline Activity Worker::activity() const {
  if (config.state->Busy()) return Activity::kBusy;
  if (!outbox.empty() || sending.untaken() > 0 || outbox.rung() || outbox.unpublished() ||
      Serving()) {
    return Activity::kClaiming;
  }
  for (const Inbox* const inbox : config.other_inboxes) {
    if (inbox->Rung()) return Activity::kClaiming;
  }
  for (const Tally* const tally : config.other_tallies) {
    if (tally->Untaken() > 0) return Activity::kClaiming;
  }
  return Activity::kIdle;
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_WORKER_H_
