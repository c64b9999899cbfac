// Looks: when a master looks at what one worker has left unclaimed for too long. A look that
// recalls something, and a worker that moves, begin anew. While nothing can be recalled, looks
// become ever rarer: what would change that, credit of somebody else, knocks. The time is a second
// means.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_LOOKS_H_
#define RINGMASTER_SRC_CORE_LOOKS_H_

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {

// How rare looks become, in times of `recall_after`.
inline constexpr int64_t kLookPauseFactorMax = 16;

class Looks {
 public:
  // The worker has moved: what looks have found says nothing any more.
  void Moved() { *this = {}; }

  // Something is offered to the worker, which is overdue at that time.
  void Offered(int64_t overdue_at_ns) { again_ns_ = std::min(again_ns_, overdue_at_ns); }

  // A look has recalled something.
  void Recalled() {
    pause_ns_ = 0;
    vain_since_ns_ = 0;
  }
  // A look has recalled nothing, though something is unclaimed.
  void InVain(int64_t now_ns) {
    if (vain_since_ns_ == 0) vain_since_ns_ = now_ns;
  }

  // How the last look ended. `wants_taker`: something is overdue that nobody else can take.
  // `again_ns`: when the first of the rest is overdue; kWaitForever: there is no rest.
  void Ended(bool wants_taker, int64_t again_ns, int64_t now_ns, int64_t recall_after_ns) {
    wants_taker_ = wants_taker;
    again_ns_ = again_ns;
    if (!wants_taker && again_ns != kWaitForever) return;
    pause_ns_ = std::clamp(pause_ns_ * 2, recall_after_ns, kLookPauseFactorMax * recall_after_ns);
    again_ns_ = std::min(again_ns, After(now_ns, pause_ns_));
  }

  bool wants_taker() const { return wants_taker_; }
  // No look is needed before.
  int64_t again_ns() const { return again_ns_; }
  // Whether looks become rarer now.
  bool rarer() const { return pause_ns_ != 0; }
  // When a look was in vain for the first time, since it began anew; 0: none was.
  int64_t vain_since_ns() const { return vain_since_ns_; }

 private:
  bool wants_taker_ = false;
  int64_t again_ns_ = 0;
  int64_t pause_ns_ = 0;
  int64_t vain_since_ns_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_LOOKS_H_
