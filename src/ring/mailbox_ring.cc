#include "ring/mailbox_ring.h"

#include "absl/memory/memory.h"
#include "ring/errors.h"

namespace ringmaster::ring {

absl::StatusOr<std::unique_ptr<MailboxRing>> MailboxRing::Create() {
  if (absl::Status status = KnowThisProcess(); !status.ok()) return status;
  io_uring_params params{};
  params.flags = IORING_SETUP_CQSIZE;
  params.cq_entries = kEntries;
  io_uring ring{};
  const int result = io_uring_queue_init_params(1, &ring, &params);
  if (result < 0) return ErrorStatus(Operation::kCreateRing, -result);
  auto self = absl::WrapUnique(new MailboxRing(ring));
  // As uring_ring.cc does it.
  if (const int failed = io_uring_ring_dontfork(&ring); failed < 0) {
    return ErrorStatus(Operation::kCreateRing, -failed);
  }
  return self;
}

MailboxRing::~MailboxRing() {
  if (ThisProcess() != process_) return;
  descriptor_.Release();
  io_uring_queue_exit(&ring_);
}

uint32_t MailboxRing::Waiting() {
  // What was kept back enters the queue only on the way through the kernel. Should that fail, it
  // stays where it is, and the descriptor stays readable because of it.
  if (io_uring_cq_has_overflow(&ring_)) io_uring_get_events(&ring_);
  return io_uring_cq_ready(&ring_);
}

void MailboxRing::Consume(uint32_t count) { io_uring_cq_advance(&ring_, count); }

}  // namespace ringmaster::ring
