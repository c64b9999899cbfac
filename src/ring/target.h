// What set-up and a late end ask of rings that are not ours: whether a worker's can be rung,
// whether that of a loop can be lent, and to ring them without a master's ring.

#ifndef RINGMASTER_SRC_RING_TARGET_H_
#define RINGMASTER_SRC_RING_TARGET_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"

namespace ringmaster::ring {

// Asks the kernel whether `ring_fd` is an io_uring that takes messages, without sending one: OK, or
// InvalidArgument (not an open descriptor, not an io_uring) or FailedPrecondition (still disabled).
// Any thread; for set-up.
absl::Status CheckTarget(int ring_fd);

// The same for a ring that a loop lends. InvalidArgument also if a thread of the kernel takes its
// submissions (IORING_SETUP_SQPOLL), as far as /proc tells.
absl::Status CheckLendable(int ring_fd);

// A completion for the ring of a worker.
struct Doorbell {
  int ring_fd = -1;
  uint64_t tag = 0;  // its user_data
};

// Rings them all by a ring of its own, which is closed when this returns. Those that cannot be
// reached are left out. Call it on a thread that ends then, see runtime/apart.h.
absl::Status RingAll(std::span<const Doorbell> doorbells);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_TARGET_H_
