// A mailbox: how a worker whose loop is not io_uring hears of its offers. It is a descriptor that
// is readable while there are some, for epoll (level- or edge-triggered), poll, select, libuv,
// libevent or Asio to watch.
//
//   auto mailbox = ringmaster::Mailbox::Create().value();
//   auto port = balancer->AddWorker(mailbox).value();
//   source.Join(port);
//   epoll_ctl(epoll_fd, EPOLL_CTL_ADD, mailbox.fd(), &event);
//   …
//   // whenever it is readable:
//   port.Claim([&](ringmaster::Connection connection) { Serve(std::move(connection)); });
//
// A level-triggered loop need not look at what Claim returns: the descriptor stays readable until
// everything is claimed. An edge-triggered one calls Claim until it returns false. Nobody else
// reads from the descriptor or writes to it. As ever, a wait may end with EINTR; in a process that
// uses io_uring it does so also without a signal handler (seen with epoll_wait on Linux 6.18).

#ifndef RINGMASTER_MAILBOX_H_
#define RINGMASTER_MAILBOX_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"

namespace ringmaster {

class Balancer;
namespace ring {
class MailboxRing;
}  // namespace ring

// Threads: made by any thread, watched and claimed from by the worker's. The mailbox and its port
// may be destroyed in either order, also after the balancer; the descriptor is closed when both are
// gone.
class [[nodiscard]] Mailbox {
 public:
  // The errors are those of creating an io_uring, with cause and remedy.
  static absl::StatusOr<Mailbox> Create();

  // Without a ring: fd() is -1, and Balancer::AddWorker refuses it.
  Mailbox() = default;
  Mailbox(Mailbox&&) noexcept = default;
  Mailbox& operator=(Mailbox&&) noexcept = default;
  ~Mailbox() = default;

  // What to watch for readability. Belongs to the mailbox.
  int fd() const;

 private:
  friend class Balancer;
  explicit Mailbox(std::shared_ptr<ring::MailboxRing> ring) : ring_(std::move(ring)) {}

  std::shared_ptr<ring::MailboxRing> ring_;  // shared with the port
};

}  // namespace ringmaster

#endif  // RINGMASTER_MAILBOX_H_
