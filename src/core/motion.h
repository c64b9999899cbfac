// Motion: what a master knows of one worker's pace: how much the worker may have unclaimed, whether
// it must move before it gets more, whether it is said to stall, and whether it counts as slow.
//
// A worker moves when it claims a word of its inbox, clears `rung`, or takes a connection out of
// its ring. A worker that has nothing unclaimed cannot move. So it is not said to be still, however
// long that lasts.
//
// Rules:
//  * Owes motion. After a recall the worker gets no credit until it moves. A recall by itself gives
//    no credit back. So a stalled worker costs at most two windows of late arrivals.
//  * The window. It is halved once for each stall, down to 1. Prompt claims in a row double it
//    again. So a worker that was only preempted soon has its window back, and a slow one ends up
//    with 1.
//  * Slow. A worker that was recalled from counts as slow for a while. The window alone does not
//    show this: it grows back sooner, because a slow worker is prompt whenever it has no work.
//  * Silent stall. Perhaps nothing can be recalled from a worker that does not move. It is said to
//    stall when it has been still for kSilentStallFactor times recall_after, and a look in vain was
//    made at its offers at least recall_after ago. If the master is late itself, its first look
//    begins that time, so its own lateness is not held against the worker.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_MOTION_H_
#define RINGMASTER_SRC_CORE_MOTION_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/deadline.h"

namespace ringmaster::core {

// So many prompt claims in a row double the window of a worker that was recalled from.
inline constexpr uint32_t kPromptClaimsToGrow = 8;
// For so many times `recall_after` a worker that was recalled from counts as slow.
inline constexpr int64_t kSlowMemory = 400;
// After so many times `recall_after` a worker that nobody can relieve is said to stall.
inline constexpr int64_t kSilentStallFactor = 10;

class Motion {
 public:
  Motion() = default;
  // A worker that may have up to `window_max` unclaimed, and has all of it from the beginning.
  // `recall_after_ns` is how long an offer may wait for it.
  Motion(uint32_t window_max, int64_t recall_after_ns)
      : recall_after_ns_(recall_after_ns), window_(window_max), window_max_(window_max) {}

  // --- The window ------------------------------------------------------------------------------

  // How much it may have unclaimed now.
  uint32_t window() const { return window_; }
  uint32_t window_max() const { return window_max_; }

  // A worker whose window is whole has all of the new one at once. Any other keeps what it has, as
  // far as the new limit allows, and grows.
  void SetWindowMax(uint32_t window_max) {
    if (window_ == window_max_) window_ = window_max;
    window_ = std::min(window_, window_max);
    window_max_ = window_max;
  }

  // --- What the worker does --------------------------------------------------------------------

  // It is offered something, and had nothing unclaimed.
  void BeginsToWait(int64_t now_ns) { waits_since_ns_ = now_ns; }

  // It has claimed `count`, of which the oldest had waited for `waited_ns`. Moved must be called
  // next: by that the window grows.
  void Took(uint32_t count, int64_t waited_ns) {
    prompt_claims_ = waited_ns < recall_after_ns_ ? prompt_claims_ + count : 0;
  }

  // It has moved. Returns whether it was said to stall: then it is to be reported that it moves
  // again.
  bool Moved(int64_t now_ns) {
    moved_at_ns_ = now_ns;
    owes_motion_ = false;
    relieved_ = false;
    if (prompt_claims_ >= kPromptClaimsToGrow && window_ < window_max_) {
      window_ = std::min(window_ * 2, window_max_);
      prompt_claims_ = 0;
    }
    return std::exchange(stalled_, false);
  }

  // --- What the master does about it -----------------------------------------------------------

  // It has let something wait too long: it gets nothing before it moves.
  void OweMotion(int64_t now_ns) {
    if (!owes_motion_) window_ = std::max(window_ / 2, 1u);
    prompt_claims_ = 0;
    slow_until_ns_ = After(now_ns, kSlowMemory * recall_after_ns_);
    owes_motion_ = true;
  }

  // It was busy, and something was moved to one that waits.
  void Relieve() { relieved_ = true; }
  bool relieved() const { return relieved_; }

  // It is said to stall.
  void Stall() {
    stalled_ = true;
    ++stalls_;
  }

  // --- Questions -------------------------------------------------------------------------------

  bool owes_motion() const { return owes_motion_; }
  bool stalled() const { return stalled_; }
  // How often it was said to stall.
  uint64_t stalls() const { return stalls_; }
  bool slow(int64_t now_ns) const { return now_ns < slow_until_ns_; }

  int64_t moved_at_ns() const { return moved_at_ns_; }
  // Since when it is still, if it has something unclaimed.
  int64_t still_since_ns() const { return std::max(moved_at_ns_, waits_since_ns_); }
  // For how long it has been still. `now_ns` may be older than what was noted.
  int64_t StillNs(int64_t now_ns) const { return std::max<int64_t>(0, now_ns - still_since_ns()); }

  // By the rule "silent stall": when the worker is said to stall if nothing can be recalled from it
  // until then. `vain_since_ns`: when the first look in vain was made at its offers since it has
  // moved; 0: none was.
  int64_t SilentAtNs(int64_t vain_since_ns) const {
    if (stalled_) return kWaitForever;
    const int64_t at_ns = After(still_since_ns(), kSilentStallFactor * recall_after_ns_);
    if (vain_since_ns == 0) return at_ns;
    return std::max(at_ns, After(vain_since_ns, recall_after_ns_));
  }

 private:
  int64_t recall_after_ns_ = 0;
  int64_t moved_at_ns_ = 0;
  int64_t waits_since_ns_ = 0;
  int64_t slow_until_ns_ = 0;
  uint64_t stalls_ = 0;
  uint32_t window_ = 1;
  uint32_t window_max_ = 1;
  uint32_t prompt_claims_ = 0;  // in a row
  bool owes_motion_ = false;
  bool relieved_ = false;  // and it has not moved since
  bool stalled_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_MOTION_H_
