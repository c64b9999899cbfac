// For a worker whose loop is not an io_uring loop (epoll, poll, select, libuv, libevent, Asio): a
// mailbox is one more readable descriptor, and its port is claimed from when it is readable.
//
//   auto mailbox = ringmaster::Mailbox::Create().value();
//   auto port = balancer->AddWorker(mailbox).value();
//   epoll_ctl(epoll_fd, EPOLL_CTL_ADD, mailbox.fd(), &event);
//   …
//   if (events[i].data.fd == mailbox.fd())
//     port.Claim([&](ringmaster::Connection connection) { Serve(std::move(connection)); });

#ifndef RINGMASTER_MAILBOX_H_
#define RINGMASTER_MAILBOX_H_

#include <memory>

#include "absl/status/statusor.h"

namespace ringmaster {

namespace internal {
class MailboxShared;
}  // namespace internal

// A small io_uring of the library's own that receives doorbells in the worker's place. Do nothing
// with its descriptor but watch it for readability, of either kind:
//
//  * Level-triggered (poll, select, epoll without EPOLLET): it is readable while a doorbell waits.
//    Claim takes the doorbells away once it has found everything, and leaves one if it has not, so
//    a loop that claims a few connections at a time need not remember that offers are left.
//  * Edge-triggered (EPOLLET): call Claim again until it returns false, and only then wait.
//
// As ever, a wait may end with EINTR. The library causes none of that: the rings that it makes
// belong to no thread of the program. An io_uring of your own does: when it is closed, the kernel
// interrupts each thread that has made or used it, some milliseconds later (Linux 6.18).
//
// There may be a wake-up for nothing, never an offer without one. Claim reads the doorbells in
// shared memory: it makes no system call beyond those that `Port::Claim` names.
//
// A mailbox serves one port at a time. It and its port share the ring: either may be destroyed
// first, also after the balancer. The descriptor stays open until both are gone, the port by
// leaving; take it out of the loop before that, as any descriptor. A loop must not close it:
// asio::posix::stream_descriptor does so in its destructor, so call its release() before.
//
// Threads: Create, fd and destruction on any thread; what claims is the port, see port.h. In a
// forked child a mailbox that the parent made can neither be added nor claimed from.
class [[nodiscard]] Mailbox {
 public:
  // Errors have the likely cause and the remedy in the text, and leave nothing open: io_uring is
  // missing or forbidden, or a limit is reached. It takes one descriptor, and 8 KiB of the memory
  // that RLIMIT_MEMLOCK bounds for unprivileged users (Linux 6.18). A thread that has ended when it
  // returns makes the ring.
  static absl::StatusOr<Mailbox> Create();

  // Empty, as one that was moved from: there is nothing to watch, and no balancer takes it.
  Mailbox() = default;
  Mailbox(Mailbox&&) noexcept = default;
  Mailbox& operator=(Mailbox&&) noexcept = default;
  ~Mailbox() = default;

  // What the loop watches for readability; -1 when empty. Close-on-exec.
  int fd() const;

 private:
  friend class Balancer;

  std::shared_ptr<internal::MailboxShared> shared_;
};

}  // namespace ringmaster

#endif  // RINGMASTER_MAILBOX_H_
