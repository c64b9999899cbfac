// The seam: the only way from the engine's decisions to the kernel. `ring/uring_ring.h` implements
// it over io_uring, `sim/sim_ring.h` over a simulated world.

#ifndef RINGMASTER_SRC_CORE_RING_H_
#define RINGMASTER_SRC_CORE_RING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/deadline.h"
#include "core/op.h"

namespace ringmaster::core {

// How a turn waits for completions.
struct Wait {
  // NOLINTNEXTLINE(google-explicit-constructor): a plain time is a wait
  constexpr Wait(int64_t at_most_ns, int64_t gather = 0) : max_ns(at_most_ns), gather_ns(gather) {}

  int64_t max_ns;     // until something has completed, but no longer than this; 0: does not wait
  int64_t gather_ns;  // at first so long, whatever completes: all of that shares one wake-up
};

class Ring {
 public:
  virtual ~Ring() = default;

  // Crosses the seam once. Submits `ops` in order, waits as `wait` says, and replaces the contents
  // of `completions` by what has completed, in the order in which it happened. These are at most
  // `completions.capacity()`; the others are kept for the next turn.
  //
  // Always called by one and the same thread. Returns 0, also when nothing completed in time.
  // Returns the -errno of a failure that leaves the ring unusable; transient failures are retried
  // inside. Never allocates.
  virtual int Turn(std::span<const Op> ops, Wait wait, std::vector<Completion>& completions) = 0;

  // After a turn: whether the kernel has taken everything that was submitted, and everything that
  // it completed at once has been returned. A kSend that has not failed by then has been received.
  virtual bool AllReported() const = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RING_H_
