// Looks: when a master looks at the offers that one worker has left unclaimed, to see whether any
// of them can be recalled. The first look comes when an offer is overdue. If nothing can be
// recalled then, because nobody else can take it, looks become ever rarer: they are only a second
// means, because a worker that gets credit knocks. When a look has recalled something, or the
// worker moves, all begins anew.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_LOOKS_H_
#define RINGMASTER_SRC_CORE_LOOKS_H_

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {

// The longest pause between two looks, in times of `recall_after`.
inline constexpr int64_t kLookPauseFactorMax = 16;

class Looks {
 public:
  // The worker has moved: what looks have found says nothing any more.
  void Moved() { *this = {}; }

  // Something is offered to the worker. It is overdue at that time.
  void Offered(int64_t overdue_at_ns) { again_ns_ = std::min(again_ns_, overdue_at_ns); }

  // Somebody may have joined who can take what nobody else could: the next look is not put off.
  void LookSoon() { again_ns_ = 0; }

  // A look has recalled something.
  void Recalled() {
    pause_ns_ = 0;
    vain_since_ns_ = 0;
  }
  // A look has recalled nothing, although something is unclaimed.
  void InVain(int64_t now_ns) {
    if (vain_since_ns_ == 0) vain_since_ns_ = now_ns;
  }

  // A look is over. `wants_taker`: something is overdue that nobody else can take. `again_ns`: when
  // the first of all other offers is overdue; kWaitForever: there are no others.
  void Ended(bool wants_taker, int64_t again_ns, int64_t now_ns, int64_t recall_after_ns) {
    wants_taker_ = wants_taker;
    again_ns_ = again_ns;
    if (!wants_taker && again_ns != kWaitForever) return;
    pause_ns_ = std::clamp(pause_ns_ * 2, recall_after_ns, kLookPauseFactorMax * recall_after_ns);
    again_ns_ = std::min(again_ns, After(now_ns, pause_ns_));
  }

  // Whether the last look found something overdue that nobody else could take.
  bool wants_taker() const { return wants_taker_; }
  // When to look again.
  int64_t again_ns() const { return again_ns_; }
  // Whether looks become rarer now.
  bool rarer() const { return pause_ns_ != 0; }
  // When the first look in vain was, since the worker has moved or a look has recalled something;
  // 0: there was none.
  int64_t vain_since_ns() const { return vain_since_ns_; }

 private:
  bool wants_taker_ = false;
  int64_t again_ns_ = 0;
  int64_t pause_ns_ = 0;
  int64_t vain_since_ns_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_LOOKS_H_
