// The ring of a mailbox: it receives doorbells and does nothing else. Nothing is ever submitted to
// it, so it is as small as a ring can be. Its descriptor is readable exactly while a doorbell
// waits: for epoll of either kind, poll and select.
//
// It is a plain ring on purpose. A ring with DEFER_TASKRUN puts a message off until its owner
// enters the kernel. So nothing could be read without a system call (mailbox_ring_test). And a
// message would not wake a loop that sleeps in epoll_wait on its descriptor (seen on Linux 6.18). A
// ring with SINGLE_ISSUER would belong to the thread that made it.
//
// Threads: one at a time. A forked child does not have the queue: do not call Waiting or Consume
// there. In a child, destruction only closes the child's copy of the descriptor, unless
// ring/process.h has done so before.

#ifndef RINGMASTER_SRC_RING_MAILBOX_RING_H_
#define RINGMASTER_SRC_RING_MAILBOX_RING_H_

#include <liburing.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ring/process.h"

namespace ringmaster::ring {

class MailboxRing {
 public:
  // How many doorbells the queue has room for. The kernel keeps further ones until there is room.
  static constexpr uint32_t kEntries = 64;

  // The errors are those of ring/errors.h; they leave nothing open.
  static absl::StatusOr<std::unique_ptr<MailboxRing>> Create();

  ~MailboxRing();
  MailboxRing(const MailboxRing&) = delete;
  MailboxRing& operator=(const MailboxRing&) = delete;

  // -1 in a forked child that has closed its copy.
  int fd() const { return descriptor_.get(); }
  // For CloseDescriptorsOf.
  void SetOwner(uint64_t owner) { descriptor_.SetOwner(owner); }

  // How many doorbells wait in the queue, at most kEntries. What their sender did before it sent
  // them happens before this returns. Makes no system call, unless the queue has overflowed. Then
  // it makes one, which moves what the kernel has kept into the room that there is.
  uint32_t Waiting();

  // Removes the `count` oldest from the queue; no more than the last Waiting has counted.
  void Consume(uint32_t count);

 private:
  explicit MailboxRing(const io_uring& ring) : ring_(ring), descriptor_(ring.ring_fd) {}

  io_uring ring_;
  const uint64_t process_ = ThisProcess();
  OwnDescriptor descriptor_;  // of ring_
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_MAILBOX_RING_H_
