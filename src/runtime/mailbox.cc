#include "ringmaster/mailbox.h"

#include <sys/epoll.h>

#include <cerrno>
#include <utility>

#include "ring/errors.h"
#include "runtime/apart.h"
#include "runtime/mailbox_shared.h"

namespace ringmaster {
namespace internal {

absl::StatusOr<std::shared_ptr<MailboxShared>> MailboxShared::Create() {
  absl::StatusOr<std::unique_ptr<ring::MailboxRing>> ring;
  const absl::Status created = RunApart([&] {
    ring = ring::MailboxRing::Create();
    return ring.status();
  });
  if (!created.ok()) return created;
  ring::OwnDescriptor sight(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN, .data = {.fd = (*ring)->fd()}};
  if (sight.get() < 0 || epoll_ctl(sight.get(), EPOLL_CTL_ADD, (*ring)->fd(), &event) != 0) {
    return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  }
  return std::make_shared<MailboxShared>(*std::move(ring), std::move(sight));
}

absl::Status MailboxShared::Occupy() {
  if (!ours()) {
    return absl::FailedPreconditionError(
        "the mailbox belongs to the process that forked this one: create a mailbox after the fork");
  }
  // Acquire: pairs with the release in Vacate, so that the next port reads on where the last one
  // stopped.
  if (occupied_.exchange(true, std::memory_order_acquire)) {
    return absl::FailedPreconditionError(
        "the mailbox serves another port already: let that one leave first, or create a mailbox "
        "for each worker");
  }
  return absl::OkStatus();
}

void MailboxShared::Empty() {
  if (!ours()) return;
  epoll_event events[8];
  // The ring is level-triggered, so a doorbell that has come meanwhile stays.
  epoll_wait(sight_.get(), events, 8, 0);
}

void MailboxShared::Vacate() {
  // Otherwise a loop that watches the mailbox would be woken for doorbells that nobody consumes any
  // more.
  while (const uint32_t counted = Count()) Consume(counted, /*left=*/false);
  SetBalancer(0);
  occupied_.store(false, std::memory_order_release);
}

}  // namespace internal

absl::StatusOr<Mailbox> Mailbox::Create() {
  absl::StatusOr<std::shared_ptr<internal::MailboxShared>> shared =
      internal::MailboxShared::Create();
  if (!shared.ok()) return shared.status();
  Mailbox mailbox;
  mailbox.shared_ = *std::move(shared);
  return mailbox;
}

int Mailbox::fd() const { return shared_ == nullptr ? -1 : shared_->fd(); }

}  // namespace ringmaster
