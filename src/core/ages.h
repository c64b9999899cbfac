// Ages: when the first of what may grow too old does so.
//
// Rule "too old". Where connections may grow too old (age_max), each is asked, when it is accepted,
// when its client came and whether that has hung up. What has hung up or is too old by then is
// closed at once, and nobody is asked who should have it; its place is free for the next. The age
// of all others counts from when their clients came, too, and what is too old is not dealt. What
// hangs up later is not noticed: to ask again would cost a system call for each connection that is
// held.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_AGES_H_
#define RINGMASTER_SRC_CORE_AGES_H_

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {

class Ages {
 public:
  // Whether the time of what came then is over; otherwise notes when it will be. 0: it never is.
  bool IsOver(int64_t came_at_ns, int64_t age_max_ns, int64_t now_ns) {
    if (age_max_ns == 0) return false;
    const int64_t at_ns = After(came_at_ns, age_max_ns);
    if (now_ns >= at_ns) return true;
    Note(at_ns);
    return false;
  }
  void Note(int64_t at_ns) { due_at_ns_ = std::min(due_at_ns_, at_ns); }

  // When to look at all that may have grown too old; kWaitForever: never.
  int64_t due_at_ns() const { return due_at_ns_; }
  // Whether to look now. If so, what is not over yet is noted anew.
  bool LookNow(int64_t now_ns) {
    if (now_ns < due_at_ns_) return false;
    due_at_ns_ = kWaitForever;
    return true;
  }

 private:
  int64_t due_at_ns_ = kWaitForever;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_AGES_H_
