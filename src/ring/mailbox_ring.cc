#include "ring/mailbox_ring.h"

#include "ring/errors.h"

namespace ringmaster::ring {
namespace {

// A doorbell comes only after a claim, so there is seldom more than one; a few more may come late
// or because one seems to have been missed.
constexpr unsigned kCompletionEntries = 16;

}  // namespace

absl::StatusOr<std::shared_ptr<MailboxRing>> MailboxRing::Create() {
  io_uring ring;
  io_uring_params params{};
  params.flags = IORING_SETUP_CQSIZE;
  params.cq_entries = kCompletionEntries;
  if (const int result = io_uring_queue_init_params(1, &ring, &params); result < 0) {
    return ErrorStatus(Operation::kCreateRing, -result);
  }
  return std::make_shared<MailboxRing>(ring);
}

}  // namespace ringmaster::ring
