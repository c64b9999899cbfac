// Doorbell: how a worker's ring is told that its inbox is not empty. Everything that depends on the
// transport stands here: which operation it is, what it carries, what can be rung, what a failure
// means, and how to ring without a master's ring. Whether a worker is rung, and what a failure
// leads to, is for core/bells.h and core/bell.h.
//
// A doorbell is a message from ring to ring (IORING_OP_MSG_RING). On the other side it is
//  * a completion in the worker's own ring, with the worker's tag in `user_data`, or
//  * one of those that ring/mailbox_ring.h counts and consumes.
//
// The transport must keep what core/inbox.h and runtime/mailbox_shared.h rest on: what was written
// before a doorbell is seen by whoever has got it, and only a failure is reported.

#ifndef RINGMASTER_SRC_RING_DOORBELL_H_
#define RINGMASTER_SRC_RING_DOORBELL_H_

#include <liburing.h>

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "ring/errors.h"

namespace ringmaster::ring {

// One operation, which the rings of masters must be permitted.
inline constexpr uint8_t kDoorbellOpcode = IORING_OP_MSG_RING;

struct Doorbell {
  int ring_fd = -1;  // of the worker
  uint64_t tag = 0;  // the user_data that it sees
};

// Sets every field but `user_data`, which is the sender's. It completes only if it fails.
void PrepareDoorbell(const Doorbell& doorbell, io_uring_sqe* sqe);

// What such a failure means; so does that of a connection that is sent to the worker's ring. False:
// nothing that is special about a doorbell.
bool DoorbellCause(int error, const ErrorFacts& facts, Cause* cause);

// Asks the kernel whether `ring_fd` can be rung, without ringing it: OK, or InvalidArgument (not an
// open descriptor, not an io_uring) or FailedPrecondition (still disabled). Any thread; for set-up.
absl::Status CheckTarget(int ring_fd);

// Rings them all by a ring of its own, which is closed when this returns. Those that cannot be
// reached are left out. Call it on a thread that ends then, see runtime/apart.h.
absl::Status RingAll(std::span<const Doorbell> doorbells);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_DOORBELL_H_
