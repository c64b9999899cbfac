#include "ring/lent_ring.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ring/doorbell.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::kWaitForever;
using core::Op;
using core::OpKind;

constexpr int kEndRounds = 3;

// Whether another thread waits for the operation.
bool IsUrgent(OpKind kind) {
  switch (kind) {
    case OpKind::kWatch:
    case OpKind::kPoll:
    case OpKind::kCount:
    case OpKind::kOverflows:
    case OpKind::kState:
    case OpKind::kHangUp:
    case OpKind::kAccept:
    case OpKind::kAcceptEach:
      return false;
    case OpKind::kPollEnd:
    case OpKind::kHangUpEnd:
    case OpKind::kAcceptEnd:
    case OpKind::kDoorbell:
    case OpKind::kSend:
    case OpKind::kInstall:
    case OpKind::kLetGo:
    case OpKind::kClose:
      return true;
  }
  return true;
}

// Which file the number stands for; 0: none. A ring has an inode of its own since Linux 5.16.
// EndNow needs a later kernel, so this is enough.
uint64_t InodeOf(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

// The kernel names the thread, or says -1.
bool IsPolled(int ring_fd) {
  std::ifstream facts(absl::StrCat("/proc/self/fdinfo/", ring_fd));
  for (std::string line; std::getline(facts, line);) {
    if (absl::StartsWith(line, "SqThread:")) return !absl::EndsWith(line, "-1");
  }
  return false;
}

}  // namespace

absl::Status CheckLendable(int ring_fd) {
  absl::Status status = CheckTarget(ring_fd);
  if (!status.ok() || !IsPolled(ring_fd)) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("the ring that is lent, descriptor ", ring_fd,
                   ", has IORING_SETUP_SQPOLL: its queue may still be full after a submit, so what "
                   "other threads wait for could be late. Lend a ring without that flag"));
}

LentRing::LentRing(Loan loan, const Features& features, uint32_t completion_entries)
    : loan_(std::move(loan)),
      inode_(InodeOf(loan_.ring_fd)),
      dialect_{.features = features, .ring_fd = loan_.ring_fd, .mark = loan_.user_data_value} {
  arrived_.reserve(completion_entries);
  accepted_.reserve(completion_entries);
  waiting_.reserve(completion_entries);
}

bool LentRing::Take(const io_uring_cqe& cqe) {
  if ((cqe.user_data & loan_.user_data_mask) != loan_.user_data_value) return false;
  switch (cqe.user_data & kKeyMask) {
    case kWakeUpKey:
      wakes_at_ns_ = kWaitForever;
      woken_ = true;
      return true;
    case kMarkerKey:
      // The entry that ends a watch or a timeout has the same key. It completes only if there was
      // nothing to end.
      if (cqe.res >= 0 && markers_ > 0) --markers_;
      woken_ = true;
      return true;
    default:
      break;
  }
  // On kernels before Linux 6.10 this accept was put off until now, and is not wanted any more.
  if (retired_ && !dialect_.features.accept_dontwait && KindOf(cqe.user_data) == OpKind::kAccept) {
    return true;
  }
  Completion completion;
  if (!Translate(cqe, dialect_, completion)) return true;
  (completion.key.kind == OpKind::kAcceptEach ? accepted_ : arrived_).push(completion);
  if (retired_) CloseArrived();
  return true;
}

void LentRing::Return(std::vector<Completion>& completions) {
  for (; !arrived_.empty() && completions.size() < completions.capacity(); arrived_.pop()) {
    completions.push_back(arrived_.front());
  }
  for (; !accepted_.empty() && completions.size() < completions.capacity(); accepted_.pop()) {
    const bool connection = accepted_.front().result >= 0;
    if (connection && accepts_max_ == 0) return;
    if (connection) --accepts_max_;
    completions.push_back(accepted_.front());
  }
}

int LentRing::Turn(std::span<const Op> ops, core::Wait /*wait*/,
                   std::vector<Completion>& completions) {
  completions.clear();
  Return(completions);
  woken_ = false;
  bool urgent = false;
  size_t queued = 0;
  while (queued < waiting_.size() && Queue(waiting_[queued])) {
    urgent |= IsUrgent(waiting_[queued].key.kind);
    ++queued;
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(queued));
  FileCheck check;
  for (const Op& op : ops) {
    if (check.Fails(op)) {
      (op.key.kind == OpKind::kAcceptEach ? accepted_ : arrived_)
          .push({.key = op.key, .result = -core::kOtherFile});
    } else if (AnswersAtOnce(op.key.kind)) {
      arrived_.push(Answer(op));
    } else if (!waiting_.empty() || !Queue(op)) {
      waiting_.push_back(op);
    } else {
      urgent |= IsUrgent(op.key.kind);
    }
  }
  if (marker_due_) {
    if (io_uring_sqe* const sqe = NextEntry(); sqe != nullptr) {
      io_uring_prep_nop(sqe);
      sqe->flags = 0;
      sqe->user_data = dialect_.mark | kMarkerKey;
      ++markers_;
      marker_due_ = false;
    }
  }
  // As with the library's own ring, this turn returns the answers to its own counts, if there is
  // room.
  Return(completions);
  return urgent ? Submit() : 0;
}

bool LentRing::Queue(const Op& op) {
  io_uring_sqe* const sqe = NextEntry();
  if (sqe == nullptr) return false;
  Prepare(op, dialect_, sqe);
  marker_due_ |= op.key.kind == OpKind::kSend;
  return true;
}

io_uring_sqe* LentRing::NextEntry() {
  if (io_uring_sqe* const sqe = loan_.get_sqe(); sqe != nullptr) return sqe;
  Submit();
  return loan_.get_sqe();
}

// What the kernel does not take now goes with the loop's next submission.
int LentRing::Submit() {
  const int result = loan_.submit();
  const bool later = result == -EAGAIN || result == -EBUSY || result == -EINTR;
  return result >= 0 || later ? 0 : result;
}

int LentRing::WakeIn(int64_t wait_ns) {
  const int64_t at_ns = wait_ns < kWaitForever / 2 ? core::After(NowNs(), wait_ns) : kWaitForever;
  if (at_ns >= wakes_at_ns_) return 0;
  io_uring_sqe* const sqe = NextEntry();
  if (sqe == nullptr) return 0;  // the queue is full, so the loop will come by anyway
  PrepareWakeUp(at_ns, wake_at_, dialect_, sqe);
  wakes_at_ns_ = at_ns;
  return Submit();  // the kernel reads the time when it takes the entry
}

void LentRing::AskForOwner() {
  if (io_uring_sqe* const sqe = NextEntry(); sqe != nullptr) {
    io_uring_prep_nop(sqe);
    sqe->flags = 0;
    sqe->user_data = dialect_.mark | kWakeUpKey;
  }
}

int LentRing::Enable() {
  AskForOwner();
  const int result = Submit();
  used_ |= result >= 0;
  return result;
}

std::vector<Op> LentRing::Retire() {
  retired_ = true;
  loan_.get_sqe = nullptr;
  loan_.submit = nullptr;
  return std::exchange(waiting_, {});
}

void LentRing::EndArmed(std::span<const Op> ends) const {
  // The loop may have closed its ring before its thread ends. Its number may be another file's by
  // now.
  if (inode_ == 0 || InodeOf(loan_.ring_fd) != inode_) return;
  std::vector<uint64_t> keys = {Encode({.kind = OpKind::kWatch}), kWakeUpKey};
  for (const Op& op : ends) {
    if (const std::optional<uint64_t> key = KeyOfEnded(op.key)) keys.push_back(*key);
  }
  // A request that is told to end lets go of its source when its thread comes by. With
  // DEFER_TASKRUN that is when the ring is entered. A request that is about to be tried once more
  // is armed nowhere, so this round does not find it, and the next one does. With a single round an
  // accept stayed armed now and then (Linux 6.18).
  for (int round = 0; round < kEndRounds; ++round) {
    for (const uint64_t key : keys) {
      const int result = EndNow(key, dialect_);
      if (result < 0 && result != -ETIME && result != -EINTR) return;  // nor is any other
    }
    io_uring_enter(static_cast<unsigned>(loan_.ring_fd), 0, 0, IORING_ENTER_GETEVENTS, nullptr);
  }
}

void LentRing::TakeRemaining(std::vector<Completion>& completions) {
  completions.clear();
  Return(completions);
}

void LentRing::CloseArrived() {
  for (; !arrived_.empty(); arrived_.pop()) CloseAccepted({&arrived_.front(), 1});
  for (; !accepted_.empty(); accepted_.pop()) CloseAccepted({&accepted_.front(), 1});
}

void LentRing::End() {
  for (const uint64_t key : {Encode({.kind = OpKind::kWatch}), kWakeUpKey}) {
    if (io_uring_sqe* const sqe = NextEntry(); sqe != nullptr) PrepareEnd(key, dialect_, sqe);
  }
  Submit();
}

}  // namespace ringmaster::ring
