// Ages: when the first of what may grow too old does so.
//
// Rule "too old". If a source has an age_max, each connection is asked, when it is accepted, when
// its client came and whether the client has hung up. A connection whose client has hung up, or
// that is too old by then, is closed at once: no policy is asked who should have it, and its place
// is free for the next. The age of all others counts from when their clients came, too. What is too
// old is not dealt. A client that hangs up later is not noticed: to ask again would cost a system
// call for each connection that is held.
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
  // Whether an arrival that came then is too old. If it is not, notes when it will be. `age_max_ns`
  // of 0: it never is.
  bool IsOver(int64_t came_at_ns, int64_t age_max_ns, int64_t now_ns) {
    if (age_max_ns == 0) return false;
    const int64_t at_ns = After(came_at_ns, age_max_ns);
    if (now_ns >= at_ns) return true;
    Note(at_ns);
    return false;
  }
  void Note(int64_t at_ns) { due_at_ns_ = std::min(due_at_ns_, at_ns); }

  // When to look at all arrivals that may have grown too old; kWaitForever: never.
  int64_t due_at_ns() const { return due_at_ns_; }
  // Whether to look now. If so, the caller asks IsOver about all of them, which notes when the next
  // one is too old.
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
