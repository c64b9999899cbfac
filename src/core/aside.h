// Aside: what a source remembers of the arrivals that are set aside. It remembers what the policy
// was shown then, and by when it is asked again in any case.
//
// Rule "set aside". What a policy picks nobody for (Policy::kNobodyNow) is set aside: it is held,
// but neither dealt nor counted where credit matters. It keeps no credit and no promise
// (core/places.h). So what is accepted may exceed what workers have places for by as many as are
// set aside; its place at the gates it keeps. The policy is asked again about all of it when it
// would be shown something better than before, which whoever makes credit knocks for; and after a
// pause. The oldest comes first, also before what has been recalled since. No more than AsideMax
// is set aside; then nothing of the source is asked for, and what it holds beyond that waits as
// well. That, and what is set aside for kAsideLongNs, is said once until nothing is held.
//
// What is better:
//  * Better is a candidate that was none before, or has fewer open connections or unclaimed offers,
//    or waits now, or is busy no more. Other things do not let a policy change its mind, or too
//    often.
//  * Several arrivals may have been shown different things. What is remembered is the least that
//    any of them was shown, so none misses what is better for it.
//  * A policy may also go by something of its own, which nobody tells of. So it is asked again
//    after a pause, which doubles up to a limit while nothing is better.

#ifndef RINGMASTER_SRC_CORE_ASIDE_H_
#define RINGMASTER_SRC_CORE_ASIDE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/deadline.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

inline constexpr int64_t kAskAgainNsMin = 5'000'000;
inline constexpr int64_t kAskAgainNsMax = 100'000'000;
// No source sets aside more than this, because each of them is asked about anew.
inline constexpr uint32_t kAsideMax = 1024;
// What is set aside for longer is reported.
inline constexpr int64_t kAsideLongNs = 1'000'000'000;

class Aside {
 public:
  // Set-up: worker indexes are below this.
  void Reserve(size_t workers) { shown_.resize(workers); }
  // Set-up: something has changed that no candidate shows: who has joined, or the policy.
  void Change() { changed_ = true; }

  // The policy has picked nobody of `candidates`, who are among `joined`; both ascending.
  void Note(std::span<const uint32_t> joined, std::span<const Candidate> candidates,
            int64_t now_ns) {
    size_t next = 0;
    for (const uint32_t worker : joined) {
      Shown& shown = shown_[worker];
      if (next == candidates.size() || candidates[next].worker != worker) {
        shown = {};
        continue;
      }
      const Candidate& now = candidates[next++];
      if (anew_) {
        shown = {.candidate = true,
                 .idle = now.idle,
                 .busy = now.busy,
                 .open = now.open,
                 .unclaimed = now.unclaimed};
        continue;
      }
      shown.idle &= now.idle;
      shown.busy |= now.busy;
      shown.open = std::max(shown.open, now.open);
      shown.unclaimed = std::max(shown.unclaimed, now.unclaimed);
    }
    anew_ = false;
    if (active_) return;
    active_ = true;
    changed_ = false;
    pause_ns_ = kAskAgainNsMin;
    ask_at_ns_ = After(now_ns, pause_ns_);
  }

  // Whether the policy might pick one of these now.
  bool HasNews(std::span<const Candidate> candidates) const {
    if (changed_) return !candidates.empty();
    return std::any_of(candidates.begin(), candidates.end(), [this](const Candidate& now) {
      const Shown& shown = shown_[now.worker];
      return !shown.candidate || now.open < shown.open || now.unclaimed < shown.unclaimed ||
             (now.idle && !shown.idle) || (!now.busy && shown.busy);
    });
  }

  // It is asked again about all.
  void AskAgain() {
    changed_ = false;
    anew_ = true;
  }

  // When it is asked again at the latest. Put off when it is, or when nobody could be picked.
  int64_t ask_at_ns() const { return ask_at_ns_; }
  void PutOff(int64_t now_ns) {
    pause_ns_ = std::min(pause_ns_ * 2, kAskAgainNsMax);
    ask_at_ns_ = After(now_ns, pause_ns_);
  }

  // Whether it is to be said that much was set aside, or for long: once, until nothing is.
  bool Say() { return !std::exchange(said_, true); }

  // Nothing is set aside any more.
  void End() {
    active_ = false;
    said_ = false;
    anew_ = true;
  }
  bool active() const { return active_; }

 private:
  struct Shown {
    bool candidate = false;
    bool idle = false;
    bool busy = false;
    uint32_t open = 0;
    uint32_t unclaimed = 0;
  };

  std::vector<Shown> shown_;  // by worker
  bool active_ = false;       // something is set aside
  bool anew_ = true;          // nothing was shown since all were asked about
  bool changed_ = false;
  bool said_ = false;
  int64_t pause_ns_ = kAskAgainNsMin;
  int64_t ask_at_ns_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ASIDE_H_
