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
  // For the same reason as in uring_ring.cc: a mapping in a forked child would keep the ring.
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
  // What the kernel has kept back enters the queue only when the ring is entered. Should that fail,
  // it stays in the kernel, and keeps the descriptor readable.
  if (io_uring_cq_has_overflow(&ring_)) io_uring_get_events(&ring_);
  return io_uring_cq_ready(&ring_);
}

void MailboxRing::Consume(uint32_t count) { io_uring_cq_advance(&ring_, count); }

}  // namespace ringmaster::ring
