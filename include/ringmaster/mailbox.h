// For a worker whose loop is not an io_uring loop (epoll, poll, select, libuv, libevent, Asio). A
// mailbox is one more descriptor for that loop: when it is readable, the worker claims from its
// port.
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

// A mailbox is a small io_uring of the library's own that receives doorbells in the worker's place.
// Do nothing with its descriptor but watch it for readability, in one of two ways:
//
//  * Level-triggered (poll, select, epoll without EPOLLET): it is readable while a doorbell waits.
//    A claim that has found everything consumes the doorbells; one that has not keeps one of them.
//    So a loop that claims a few connections at a time need not remember that offers are left.
//  * Edge-triggered (EPOLLET): call Claim until it returns false, and only then wait.
//
// There may be a wake-up without an offer, but never an offer without a wake-up. Claim reads the
// doorbells in shared memory: it makes no system call beyond those that Port::Claim names.
//
// As ever, a wait may end with EINTR. The library never causes that, because the rings that it
// makes belong to no thread of the program. An io_uring of your own does. When it is closed, the
// kernel interrupts each thread that has made or used it, some milliseconds later (Linux 6.18).
//
// A mailbox serves one port at a time. The two share the ring; either may be destroyed first, also
// after the balancer. The descriptor stays open until the mailbox is destroyed and the port has
// left. Take it out of the loop before that, as any descriptor. The loop must not close it:
// asio::posix::stream_descriptor does so in its destructor, so call its release() first.
//
// Threads: any thread may call Create and fd, and destroy a mailbox. Claiming is the port's part,
// see port.h. In a forked child a mailbox of the parent cannot be added, and its port claims
// nothing.
class [[nodiscard]] Mailbox {
 public:
  // Makes a mailbox. It costs one descriptor, and 8 KiB of the memory that RLIMIT_MEMLOCK bounds
  // for unprivileged users (Linux 6.18). The ring is made on a thread that has ended when this
  // returns.
  //
  // It fails when io_uring is missing or forbidden, or a limit is reached. The text of the error
  // names the likely cause and the remedy. An error leaves nothing open.
  static absl::StatusOr<Mailbox> Create();

  // An empty mailbox, like one that was moved from: it has nothing to watch, and no balancer
  // accepts it.
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
