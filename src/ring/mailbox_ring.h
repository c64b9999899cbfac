// The ring of a mailbox: a small io_uring that nothing is ever submitted to. Doorbells arrive in it
// as completions, and whoever watches its descriptor (epoll, poll, select) sees it readable while
// there are some.
//
// Plain on purpose: the descriptor of a ring with DEFER_TASKRUN does not become readable by a
// message from another ring (Linux 6.18; mailbox_ring_test asserts that this one does, 3 wake-ups
// for 3 messages under epoll, level- and edge-triggered).
//
// Threads: Count and Consume by one thread at a time, the worker's; Occupy and Vacate by any.

#ifndef RINGMASTER_SRC_RING_MAILBOX_RING_H_
#define RINGMASTER_SRC_RING_MAILBOX_RING_H_

#include <liburing.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace ringmaster::ring {

class MailboxRing {
 public:
  static absl::StatusOr<std::shared_ptr<MailboxRing>> Create();
  explicit MailboxRing(const io_uring& ring) : ring_(ring) {}
  ~MailboxRing() { io_uring_queue_exit(&ring_); }
  MailboxRing(const MailboxRing&) = delete;
  MailboxRing& operator=(const MailboxRing&) = delete;

  int fd() const { return ring_.ring_fd; }

  // How many doorbells are there. Reads shared memory; enters the kernel only if more came than
  // fit, which then lie on its overflow list.
  uint32_t Count() {
    if ((IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0) {
      io_uring_get_events(&ring_);
    }
    return io_uring_cq_ready(&ring_);
  }

  // Takes `count` doorbells away, no more than Count has said. No system call.
  void Consume(uint32_t count) { io_uring_cq_advance(&ring_, count); }

  // A mailbox serves one port at a time. False when it does so already.
  bool Occupy() { return !occupied_.exchange(true, std::memory_order_acq_rel); }
  void Vacate() { occupied_.store(false, std::memory_order_release); }

 private:
  io_uring ring_;
  std::atomic<bool> occupied_{false};
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_MAILBOX_RING_H_
