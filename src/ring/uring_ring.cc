#include "ring/uring_ring.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ring/doorbell.h"
#include "ring/errors.h"
#include "ring/translate.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::kWaitForever;
using core::Op;
using core::Wait;

// Linux refuses more with EINVAL.
constexpr uint32_t kSubmissionEntriesMax = 32768;
constexpr uint32_t kCompletionEntriesMax = 65536;

// At most one question of each kind is under way for each source.
constexpr size_t kAnswersMax = 3 * 1024;

// The file table has as many slots as the process's limit allows.
constexpr uint32_t kSlotsMax = 256;
constexpr uint32_t kSlotsMin = 16;
constexpr int32_t kNoFile = -1;

// How often, and with what pause, a crossing is tried again while the kernel lacks memory.
constexpr int kRetriesMax = 5000;
constexpr int kRetryPauseMs = 1;

// Longer waits than this, about three centuries, are for ever: no deadline to add up.
constexpr int64_t kFiniteWaitNsMax = kWaitForever / 2;

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kNsPerMicrosecond = 1'000;

// When this many completions have come, gathering ends early.
constexpr uint32_t kGatheredMax = 64;

// io_uring_getevents_arg; the oldest liburing that is supported calls `min_wait_us` padding.
struct GetEventsArgument {
  uint64_t signal_mask = 0;
  uint32_t signal_mask_size = 0;
  uint32_t min_wait_us = 0;
  uint64_t timeout = 0;
};
static_assert(sizeof(GetEventsArgument) == sizeof(io_uring_getevents_arg));

unsigned SetupFlags(const Features& features, bool pollable) {
  unsigned flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  if (features.submit_all) flags |= IORING_SETUP_SUBMIT_ALL;
  if (features.single_issuer && !pollable) flags |= IORING_SETUP_SINGLE_ISSUER;
  // With either of these, TASKRUN_FLAG shows in shared memory whether the kernel has more to tell,
  // which saves a system call per turn.
  if (features.single_issuer && features.defer_taskrun && !pollable) {
    flags |= IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  } else if (features.coop_taskrun) {
    flags |= IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  }
  return flags;
}

// Returns 0 or a positive errno.
int Restrict(int ring_fd) {
  // IORING_OP_TIMEOUT is for a pollable ring, see WakeIn.
  // IORING_OP_MSG_RING sends connections, also to oneself, see translate.cc.
  constexpr uint8_t kOpcodes[] = {IORING_OP_POLL_ADD,     IORING_OP_ACCEPT, IORING_OP_ASYNC_CANCEL,
                                  IORING_OP_MSG_RING,     IORING_OP_CLOSE,  IORING_OP_TIMEOUT,
                                  IORING_OP_FILES_UPDATE, kDoorbellOpcode};
  io_uring_restriction rules[std::size(kOpcodes) + 2] = {};
  io_uring_restriction* rule = rules;
  for (const uint8_t opcode : kOpcodes) {
    rule->opcode = IORING_RESTRICTION_SQE_OP;
    rule->sqe_op = opcode;
    ++rule;
  }
  rule->opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  rule->sqe_flags = IOSQE_CQE_SKIP_SUCCESS | IOSQE_IO_LINK | IOSQE_ASYNC;
  ++rule;
  rule->opcode = IORING_RESTRICTION_REGISTER_OP;
  rule->register_op = IORING_REGISTER_ENABLE_RINGS;
  return -io_uring_register(ring_fd, IORING_REGISTER_RESTRICTIONS, rules, std::size(rules));
}

}  // namespace

absl::StatusOr<std::unique_ptr<UringRing>> UringRing::Create(const UringRingOptions& options) {
  if (options.submission_entries == 0 || options.submission_entries > kSubmissionEntriesMax ||
      options.completion_entries < options.submission_entries ||
      options.completion_entries > kCompletionEntriesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a ring of ", options.submission_entries, " submission and ", options.completion_entries,
        " completion entries is impossible: the first must be 1 to ", kSubmissionEntriesMax,
        ", the second no fewer than the first and at most ", kCompletionEntriesMax));
  }
  if (absl::Status status = KnowThisProcess(); !status.ok()) return status;
  // Not by io_uring_queue_init_params: later versions of liburing add flags of their own, and the
  // queues are driven by hand here (see Enter).
  io_uring_params params{};
  params.flags = SetupFlags(options.features, options.pollable);
  params.cq_entries = options.completion_entries;
  const int fd = io_uring_setup(options.submission_entries, &params);
  if (fd < 0) return ErrorStatus(Operation::kCreateRing, -fd);
  io_uring ring{};
  if (const int result = io_uring_queue_mmap(fd, &params, &ring); result < 0) {
    close(fd);
    return ErrorStatus(Operation::kCreateRing, -result);
  }
  auto self = absl::WrapUnique(new UringRing(ring, options));
  // A mapping in a forked child would keep the ring, and what it watches, whatever is closed there.
  if (const int result = io_uring_ring_dontfork(&ring); result < 0) {
    return ErrorStatus(Operation::kCreateRing, -result);
  }
  self->RegisterSlots();
  if (options.restrict) {
    if (const int error = Restrict(fd); error != 0) {
      return ErrorStatus(Operation::kRestrictRing, error);
    }
  }
  return self;
}

UringRing::UringRing(const io_uring& ring, const UringRingOptions& options)
    : ring_(ring),
      descriptor_(ring.ring_fd, options.owner),
      dialect_{.features = options.features, .ring_fd = ring.ring_fd} {
  // Entry i of the queue is submission i, always.
  for (uint32_t i = 0; i < ring_.sq.ring_entries; ++i) ring_.sq.array[i] = i;
  answers_.reserve(kAnswersMax);
  pollable_ = options.pollable;
  if (pollable_) AskForOwner();
}

UringRing::~UringRing() {
  if (ThisProcess() != process_) return;
  descriptor_.Release();
  io_uring_queue_exit(&ring_);
}

// Not by io_uring_register_files_sparse: liburing raises the process's limit if it is too low.
// Without a table, or before Linux 5.19, nothing can be installed, which is for others to say.
void UringRing::RegisterSlots() {
  if (ring_.sq.ring_entries < 2) return;
  for (uint32_t count = kSlotsMax; count >= kSlotsMin; count /= 2) {
    io_uring_rsrc_register table{};
    table.nr = count;
    table.flags = IORING_RSRC_REGISTER_SPARSE;
    if (io_uring_register(ring_.ring_fd, IORING_REGISTER_FILES2, &table, sizeof(table)) == 0) {
      return slot_files_.resize(count, kNoFile);
    }
  }
}

// Not by io_uring_enable_rings: liburing 2.3 declares it and does not export it.
int UringRing::Enable() {
  StopAsking();
  wakes_at_ns_ = kWaitForever;  // timeouts of an owner before this one may be gone with it
  if (enabled_) return 0;
  const int result = io_uring_register(ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  enabled_ = result >= 0;
  return result;
}

// Makes the ring readable without submitting anything. Nothing can be submitted to a disabled ring.
// And the kernel interrupts any thread that has submitted to a ring when that ring is taken apart.
// But the reader says, in memory, how much of the completion queue has been read. As long as the
// entry before the first counts as not read, the ring is readable.
void UringRing::AskForOwner() {
  asks_for_owner_ = true;
  io_uring_smp_store_release(ring_.cq.khead, *ring_.cq.khead - 1);
}

void UringRing::StopAsking() {
  if (std::exchange(asks_for_owner_, false)) io_uring_cq_advance(&ring_, 1);
}

void UringRing::LetGo() {
  for (const uint64_t key : {Encode({.kind = core::OpKind::kWatch}), kWakeUpKey}) {
    if (io_uring_sqe* const sqe = io_uring_get_sqe(&ring_); sqe != nullptr) {
      PrepareEnd(key, dialect_, sqe);
    }
  }
  // The end of the watch is a completion, for the next owner to read.
  static_cast<void>(Enter(0));
  if (io_uring_cq_ready(&ring_) == 0) AskForOwner();
}

// A loop may be about to wait for the descriptor. So that is readable all the while.
void UringRing::TakeRemaining(std::vector<Completion>& completions) {
  completions.clear();
  if (pollable_ && !asks_for_owner_) AskForOwner();
  Reap(completions);
}

int UringRing::Turn(std::span<const Op> ops, Wait wait, std::vector<Completion>& completions) {
  completions.clear();
  while (!answers_.empty() && completions.size() < completions.capacity()) {
    completions.push_back(answers_.back());
    answers_.pop_back();
  }
  // First reap what is there already. That makes room, and then there is no need to wait.
  Reap(completions);
  if (const int error = Queue(ops, completions); error != 0) return error;

  const bool timed = wait.max_ns > 0 && wait.max_ns < kFiniteWaitNsMax;
  const int64_t deadline_ns = timed && completions.empty() ? core::After(NowNs(), wait.max_ns) : 0;
  if (!completions.empty()) wait = 0;
  if (Unsubmitted() > 0 || wait.max_ns > 0) {
    // A signal, or a completion of no interest, ends the call into the kernel but not the waiting.
    while (true) {
      if (const int error = Cross(wait, completions); error != 0) return error;
      if (!completions.empty() || completions.capacity() == 0) break;
      wait = timed ? deadline_ns - NowNs() : wait.max_ns;
      if (wait.max_ns <= 0) break;
    }
  }
  const int error = Drain(completions);
  // A message to a ring is sent within the call that submits it. So its failure is in the queue by
  // then, or on the overflow list. (A target with IORING_SETUP_IOPOLL would be another matter, but
  // such a ring serves no sockets.)
  const bool room_left = completions.size() < completions.capacity();
  all_reported_ = Unsubmitted() == 0 && answers_.empty() &&
                  (room_left || io_uring_cq_ready(&ring_) == 0) &&
                  (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW) == 0;
  return error;
}

int UringRing::Queue(std::span<const Op> ops, std::vector<Completion>& completions) {
  FileCheck check;
  for (const Op& op : ops) {
    if (const bool other = check.Fails(op); other || AnswersAtOnce(op.key.kind)) {
      // The answer has its place among what is reaped, because an edge behind a count is for
      // something that the count has not seen.
      const Completion answer =
          other ? Completion{.key = op.key, .result = -core::kOtherFile} : Answer(op);
      const bool room_left = completions.size() < completions.capacity();
      (room_left ? completions : answers_).push_back(answer);
      continue;
    }
    while (io_uring_sq_space_left(&ring_) < (HasSlot(op) ? 2 : 1)) {
      if (const int error = Cross(0, completions); error != 0) return error;
    }
    if (HasSlot(op)) {
      int32_t& file = slot_files_[static_cast<uint32_t>(op.slot)];
      if (op.key.kind == core::OpKind::kInstall) file = op.sent;
      PrepareSlot(op, op.key.kind == core::OpKind::kInstall ? &file : &kNoFile, dialect_,
                  io_uring_get_sqe(&ring_));
      if (op.fd < 0) continue;
    }
    Prepare(op, dialect_, io_uring_get_sqe(&ring_));
  }
  return 0;
}

int UringRing::WakeIn(int64_t wait_ns) {
  const int64_t at_ns = wait_ns < kFiniteWaitNsMax ? core::After(NowNs(), wait_ns) : kWaitForever;
  if (at_ns < wakes_at_ns_) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      if (const int error = Enter(0); error != 0) return error;
      sqe = io_uring_get_sqe(&ring_);
    }
    if (sqe != nullptr) {
      // Read by the kernel when it takes the entry, which is within this call.
      __kernel_timespec at;
      PrepareWakeUp(at_ns, at, dialect_, sqe);
      wakes_at_ns_ = at_ns;
      return Enter(0);
    }
  }
  return Unsubmitted() > 0 ? Enter(0) : 0;
}

int UringRing::Cross(Wait wait, std::vector<Completion>& completions) {
  for (int tries = 0;; ++tries) {
    const int error = Enter(wait);
    const uint32_t reaped = Reap(completions);
    if (error != -EAGAIN && error != -EBUSY) return error;
    // What the kernel has not taken stays queued, and goes with the next call of Cross.
    if (reaped > 0) return 0;
    if (tries == kRetriesMax) return error;
    poll(nullptr, 0, kRetryPauseMs);
  }
}

// By hand, as io_uring_submit_and_wait_timeout of liburing 2.3 waits a second time, for the whole
// time again, when something was submitted and nothing completed.
int UringRing::Enter(Wait wait) {
  io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
  __kernel_timespec timeout{};
  GetEventsArgument argument;
  uint32_t wanted = wait.max_ns > 0 ? 1 : 0;
  bool timed = wait.max_ns > 0 && wait.max_ns < kFiniteWaitNsMax;
  bool gathers = wait.max_ns > 0 && wait.gather_ns >= kNsPerMicrosecond;
  if (gathers) {
    wanted = kGatheredMax;
    argument.min_wait_us = static_cast<uint32_t>(wait.gather_ns / kNsPerMicrosecond);
    if (!dialect_.features.min_wait) {
      // The caller waits on if nothing has come meanwhile.
      argument.min_wait_us = 0;
      wait.max_ns = wait.gather_ns;
      timed = true;
    }
  }
  if (timed) {
    timeout.tv_sec = wait.max_ns / kNsPerSecond;
    timeout.tv_nsec = wait.max_ns % kNsPerSecond;
    argument.timeout = reinterpret_cast<uintptr_t>(&timeout);
  }
  const bool extended = timed || gathers;
  const unsigned flags = IORING_ENTER_GETEVENTS | (extended ? IORING_ENTER_EXT_ARG : 0u);
  const int result = io_uring_enter2(
      static_cast<unsigned>(ring_.ring_fd), Unsubmitted(), wanted, flags,
      extended ? reinterpret_cast<sigset_t*>(&argument) : nullptr, extended ? sizeof(argument) : 0);
  return result >= 0 || result == -EINTR || result == -ETIME ? 0 : result;
}

int UringRing::Drain(std::vector<Completion>& completions) {
  // A deferring ring hands over about 20 completions for each entry (Linux 6.18).
  while (completions.size() < completions.capacity() && HoldsBack()) {
    const int error = Enter(0);
    const uint32_t reaped = Reap(completions);
    if (error == -EAGAIN || error == -EBUSY) return 0;
    if (error != 0 || reaped == 0) return error;
  }
  return 0;
}

uint32_t UringRing::Unsubmitted() const { return io_uring_sq_ready(&ring_); }

bool UringRing::HoldsBack() const {
  return (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

uint32_t UringRing::Reap(std::vector<Completion>& completions) {
  uint32_t reaped = 0;
  const uint32_t asks = asks_for_owner_ ? 1 : 0;  // an entry that stays
  const uint32_t ready = io_uring_cq_ready(&ring_) - asks;
  const uint32_t head = *ring_.cq.khead + asks;
  Completion completion;
  for (; reaped < ready && completions.size() < completions.capacity(); ++reaped) {
    const io_uring_cqe& cqe = ring_.cq.cqes[(head + reaped) & ring_.cq.ring_mask];
    if (cqe.user_data == kWakeUpKey) {
      wakes_at_ns_ = kWaitForever;  // later ones that are still under way come in vain
    } else if (Translate(cqe, dialect_, completion)) {
      completions.push_back(completion);
    }
  }
  io_uring_cq_advance(&ring_, reaped);
  return reaped;
}

}  // namespace ringmaster::ring
