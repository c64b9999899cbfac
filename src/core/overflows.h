// Overflows: how many connections the kernel has discarded because the backlog of one listener was
// full. The kernel only counts them, so the master has to ask. It asks while it is awake anyway,
// and only about a source that is not armed, or of which something has come since it was asked
// last. The backlog of any other source is empty: what comes completes the arming. A client whose
// attempt was discarded tries again. So an overflow that comes after the last question is found out
// when the client does.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_OVERFLOWS_H_
#define RINGMASTER_SRC_CORE_OVERFLOWS_H_

#include <cstdint>
#include <utility>

#include "core/op.h"

namespace ringmaster::core {

// A source is not asked more often than this.
inline constexpr int64_t kOverflowLookNs = 100'000'000;
// A backlog that has not overflowed for so long is at the end of an episode.
inline constexpr int64_t kOverflowCalmNs = 10'000'000'000;

class Overflows {
 public:
  Overflows() = default;
  // `asks`: whether the kernel can be asked about the source. `counted`: what it has counted by
  // now. Those are nobody's business.
  Overflows(bool asks, int32_t counted) : asks_(asks), counted_(counted) {}

  // Something of the source has completed.
  void Came() { came_ = true; }

  // Whether to ask now.
  bool Due(int64_t now_ns, bool armed) const {
    return asks_ && !asking_ && now_ns >= again_ns_ && (came_ || !armed);
  }
  // The kernel is asked.
  void Ask(int64_t now_ns) {
    asking_ = true;
    came_ = false;
    again_ns_ = now_ns + kOverflowLookNs;
  }
  // Whether the answer is still to come.
  bool asking() const { return asking_; }
  // The answer has come, or never will.
  void Answered() { asking_ = false; }

  // The kernel has counted so many by now. Returns how many of them are new, and whether an episode
  // begins with them, which is to be reported. It does not matter who has asked.
  struct News {
    uint32_t discarded = 0;
    bool begins = false;
  };
  News Note(int32_t counted, int64_t now_ns) {
    if (counted < 0) return {};  // the socket is broken, which its intake finds out
    const int32_t more = (counted - counted_) & kOverflowsMask;
    if (more == 0) return {};
    counted_ = counted;
    const bool calm = now_ns - std::exchange(last_at_ns_, now_ns) >= kOverflowCalmNs;
    return {.discarded = static_cast<uint32_t>(more), .begins = calm};
  }

 private:
  bool asks_ = false;
  bool asking_ = false;
  bool came_ = false;                      // since it was asked last
  int32_t counted_ = 0;                    // as last heard
  int64_t again_ns_ = 0;                   // not to be asked before
  int64_t last_at_ns_ = -kOverflowCalmNs;  // when the last were heard of
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_OVERFLOWS_H_
