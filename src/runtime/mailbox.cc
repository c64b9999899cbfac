#include "ringmaster/mailbox.h"

#include <utility>

#include "ring/mailbox_ring.h"

namespace ringmaster {

absl::StatusOr<Mailbox> Mailbox::Create() {
  absl::StatusOr<std::shared_ptr<ring::MailboxRing>> ring = ring::MailboxRing::Create();
  if (!ring.ok()) return ring.status();
  return Mailbox(*std::move(ring));
}

int Mailbox::fd() const { return ring_ == nullptr ? -1 : ring_->fd(); }

}  // namespace ringmaster
