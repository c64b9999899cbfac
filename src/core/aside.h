// Aside: what a source remembers of the arrivals that are set aside: what its policy was shown when
// it picked nobody, and by when the policy is asked again in any case.
//
// Rule "set aside". When a policy picks nobody for an arrival (Policy::kNobodyNow), the arrival is
// set aside.
//  * It is still held, but it waits in a queue of its own, and is not dealt.
//  * It keeps its place at the gates, and neither credit nor a promise (core/places.h). So the
//    source may accept more than its workers have places for: by as many as are set aside.
//  * The policy is asked again about everything that is set aside, when it would be shown something
//    better than before, and otherwise after a pause. Whoever makes anything better knocks. The
//    oldest arrival comes first, also before what has been recalled since.
//  * No more than AsideMax is set aside. At that limit nothing more of the source is asked for, and
//    what the source holds besides waits without being dealt.
//  * It is reported when this limit is reached, and when something has been set aside for
//    kAsideLongNs. Until the source holds nothing, only the first of these is reported.
//
// What is better:
//  * Something is better if there is a new candidate, or if a candidate has fewer open connections
//    or unclaimed offers, has become idle, or is busy no more. Anything else gives a policy no
//    reason to change its mind, or happens too often.
//  * Several arrivals may have been set aside at different times. What is remembered of each worker
//    is the worst that the policy was shown of it for any of them: so none of them misses what is
//    better for it.
//  * A policy may also go by something of its own, of which nobody tells. So it is asked again
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
// What has been set aside for longer is reported.
inline constexpr int64_t kAsideLongNs = 1'000'000'000;

class Aside {
 public:
  // Set-up: worker indexes are below this.
  void Reserve(size_t workers) { shown_.resize(workers); }
  // Set-up: something has changed that no candidate shows: the policy, or who has joined.
  void Change() { changed_ = true; }

  // The policy has picked nobody of `candidates`, which are workers of `joined`. Both are in the
  // order of their indexes.
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
                 .activity = now.activity,
                 .open = now.open,
                 .unclaimed = now.unclaimed};
        continue;
      }
      shown.activity = std::max(shown.activity, now.activity);
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
             now.activity < shown.activity;
    });
  }

  // The policy is asked again about everything that is set aside.
  void AskAgain() {
    changed_ = false;
    anew_ = true;
  }

  // When the policy is asked again at the latest. PutOff: it is asked now, or nobody could be
  // picked.
  int64_t ask_at_ns() const { return ask_at_ns_; }
  void PutOff(int64_t now_ns) {
    pause_ns_ = std::min(pause_ns_ * 2, kAskAgainNsMax);
    ask_at_ns_ = After(now_ns, pause_ns_);
  }

  // Whether to report that much was set aside, or for long: once, until the source holds nothing.
  bool Say() { return !std::exchange(said_, true); }

  // The source holds nothing any more.
  void End() {
    active_ = false;
    said_ = false;
    anew_ = true;
  }
  bool active() const { return active_; }

 private:
  struct Shown {
    bool candidate = false;
    Activity activity = Activity::kBusy;
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
