// Deadlines. Whatever a caller asks for, a sum of times never wraps: what lies beyond the end of
// the clock is never.

#ifndef RINGMASTER_SRC_CORE_DEADLINE_H_
#define RINGMASTER_SRC_CORE_DEADLINE_H_

#include <cstdint>
#include <limits>

namespace ringmaster::core {

// As a time to wait, and as the moment at which it is over.
inline constexpr int64_t kWaitForever = std::numeric_limits<int64_t>::max();

// The moment `wait_ns` after `at_ns`; kWaitForever where there is no such moment. No time is before
// 0, so a negative sum that wraps is 0.
inline constexpr int64_t After(int64_t at_ns, int64_t wait_ns) {
  int64_t sum_ns = 0;
  if (!__builtin_add_overflow(at_ns, wait_ns, &sum_ns)) return sum_ns;
  return wait_ns > 0 ? kWaitForever : 0;
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_DEADLINE_H_
