// Whether a worker's ring can be rung, and whether that of a loop can be lent.

#ifndef RINGMASTER_SRC_RING_TARGET_H_
#define RINGMASTER_SRC_RING_TARGET_H_

#include "absl/status/status.h"

namespace ringmaster::ring {

// Asks the kernel whether `ring_fd` is an io_uring that takes messages, without sending one: OK, or
// InvalidArgument (not an open descriptor, not an io_uring) or FailedPrecondition (still disabled).
// Any thread; for set-up.
absl::Status CheckTarget(int ring_fd);

// The same for a ring that a loop lends. InvalidArgument also if a thread of the kernel takes its
// submissions (IORING_SETUP_SQPOLL), as far as /proc tells.
absl::Status CheckLendable(int ring_fd);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_TARGET_H_
