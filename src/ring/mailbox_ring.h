// The ring of a mailbox: it receives doorbells and does nothing else. Nothing is ever submitted to
// it, so it is made as small as it can be, and its descriptor is readable exactly while a doorbell
// waits: for epoll of either kind, poll and select.
//
// It is a plain ring on purpose. One with DEFER_TASKRUN puts a message off until its owner enters
// the kernel, so nothing could be read without a system call (mailbox_ring_test), and a loop that
// sleeps in epoll_wait on its descriptor is not woken by one (seen on Linux 6.18). One with
// SINGLE_ISSUER would belong to the thread that made it.
//
// Threads: one at a time. In a forked child the queue is still the parent's, and taking from it
// would take the parent's doorbells: do not call Waiting or Consume there. Destruction is harmless.

#ifndef RINGMASTER_SRC_RING_MAILBOX_RING_H_
#define RINGMASTER_SRC_RING_MAILBOX_RING_H_

#include <liburing.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace ringmaster::ring {

class MailboxRing {
 public:
  // How many doorbells the queue shows at once; the kernel keeps further ones until there is room.
  static constexpr uint32_t kEntries = 64;

  // The errors are those of ring/errors.h; they leave nothing open.
  static absl::StatusOr<std::unique_ptr<MailboxRing>> Create();

  ~MailboxRing();
  MailboxRing(const MailboxRing&) = delete;
  MailboxRing& operator=(const MailboxRing&) = delete;

  int fd() const { return ring_.ring_fd; }

  // How many doorbells wait in the queue, at most kEntries. What their sender did before it sent
  // them happens before this returns. No system call, unless the queue has overflowed: then one
  // that moves what the kernel has kept into the room that there is.
  uint32_t Waiting();

  // Takes the `count` oldest from the queue; no more than the last Waiting has counted.
  void Consume(uint32_t count);

 private:
  explicit MailboxRing(const io_uring& ring) : ring_(ring) {}

  io_uring ring_;
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_MAILBOX_RING_H_
