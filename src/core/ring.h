// The seam: the only way from the engine's decisions to the kernel. `ring/uring_ring.h` implements
// it over io_uring, `sim/sim_ring.h` over a simulated world.

#ifndef RINGMASTER_SRC_CORE_RING_H_
#define RINGMASTER_SRC_CORE_RING_H_

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/op.h"

namespace ringmaster::core {

inline constexpr int64_t kWaitForever = std::numeric_limits<int64_t>::max();

class Ring {
 public:
  virtual ~Ring() = default;

  // Crosses the seam once: submits `ops` in order, waits until something has completed or
  // `wait_ns_max` has passed (0: does not wait), and replaces the contents of `completions` by what
  // completed, in the order in which it happened, at most `completions.capacity()` of them; what
  // does not fit is kept for the next turn.
  //
  // Always called by one and the same thread. Returns 0, also when nothing completed in time, or
  // the -errno of a failure that leaves the ring unusable; transient ones are retried inside. Never
  // allocates.
  virtual int Turn(std::span<const Op> ops, int64_t wait_ns_max,
                   std::vector<Completion>& completions) = 0;

  // After a turn: whether the kernel has taken everything that was submitted, and nothing that it
  // completed at once is still to be returned. A kSend that has not failed by then has been
  // received.
  virtual bool AllReported() const = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RING_H_
