// What an engine knows of one source: the parts that keep its books, each with a header of its own,
// and what set-up has said of it.

#ifndef RINGMASTER_SRC_CORE_SOURCE_H_
#define RINGMASTER_SRC_CORE_SOURCE_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/aim.h"
#include "core/aside.h"
#include "core/back_off.h"
#include "core/engine_config.h"
#include "core/index.h"
#include "core/intake.h"
#include "core/lack.h"
#include "core/op.h"
#include "core/overflows.h"
#include "core/pace.h"
#include "core/tickets.h"

namespace ringmaster::core {

struct Source {
  // --- Said by set-up --------------------------------------------------------------------------
  SourceConfig config;
  SourceIndex index;    // its own
  uint64_t serial = 0;  // tells it from all others that have had the index
  uint8_t facts = 0;    // what is asked for of connections: a set of kFact bits
  // Nothing is taken in before so many workers have joined. 1 once it has started.
  uint32_t starts_with = 1;
  bool paused = false;
  bool removed = false;
  bool drained = false;          // removed, and nothing is left of it; `joined` are those who may
                                 // still look an offer of it up
  std::vector<uint32_t> joined;  // workers, ascending

  // --- Counted ---------------------------------------------------------------------------------
  IntakeCount counts;
  uint32_t unsettled = 0;    // sent and not known to have been received
  std::string policy_fault;  // the first thing that its policy did and must not, or empty

  // --- Its parts -------------------------------------------------------------------------------
  SourceIntake intake;
  Pace pace;        // of single accepts
  Tickets tickets;  // of a readiness intake
  Overflows overflows;
  BackOff back_off;
  Aside aside;
  Lack lack;
  Aim aim;

  OpKey Key(OpKind kind) const {
    return {
        .kind = kind, .facts = facts, .generation = intake.arming().generation(), .index = index};
  }
  bool Joined(WorkerIndex worker) const {
    return std::binary_search(joined.begin(), joined.end(), worker);
  }
  // How many its policy may set aside.
  uint32_t AsideMax() const { return std::clamp(config.hold, 1u, kAsideMax); }
  // What it has asked for and may still bring something.
  uint32_t UnderWay() const { return pace.under_way() + (tickets.counting() ? 1 : 0); }
  // Nothing of it is armed or asked for, but for single accepts.
  bool Disarmed() const {
    return intake.arming().idle() && !tickets.counting() && !overflows.asking() &&
           !intake.listening().asking() && !intake.arming().watches_end();
  }
  // Nothing is armed or under way.
  bool IntakeEnded() const { return Disarmed() && pace.under_way() == 0; }
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_SOURCE_H_
