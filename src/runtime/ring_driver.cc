#include "runtime/ring_driver.h"

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/op.h"
#include "ring/errors.h"
#include "ring/translate.h"
#include "runtime/inside.h"
#include "runtime/options.h"
#include "runtime/refusals.h"

namespace ringmaster::internal {

absl::StatusOr<std::unique_ptr<Driver>> RingDriver::Create(const MasterEnvironment& environment,
                                                           uint32_t index) {
  return std::unique_ptr<Driver>(new RingDriver(environment, index));
}

// How much room is needed follows from what was asked for. A lent ring may have a queue of any
// size, so it keeps back what there is no room for. Its file table is the loop's.
RingDriver::RingDriver(const MasterEnvironment& environment, uint32_t index)
    : HostDriver(environment, index,
                 {.completion_entries = environment.options.completion_entries}) {}

// --- The loan ------------------------------------------------------------------------------------

absl::Status RingDriver::Lend(RingLoan loan) {
  if (absl::Status status = CheckLoan(loan); !status.ok()) return status;
  if (absl::Status status = ring::CheckLendable(loan.ring_fd); !status.ok()) return status;
  std::unique_lock lock(turns_.lock().mutex);
  if (absl::Status ended = AwaitHostGone(lock); !ended.ok()) return ended;
  if (lent_ != nullptr) {
    return absl::FailedPreconditionError(
        "a ring was lent before: the balancer uses that ring until the thread that drives it has "
        "ended. Lend another one then");
  }
  ring::Loan taken{.ring_fd = loan.ring_fd,
                   .get_sqe = std::move(loan.get_sqe),
                   .submit = std::move(loan.submit),
                   .user_data_mask = loan.user_data_mask,
                   .user_data_value = loan.user_data_value};
  for (const auto& old : old_loans_) {
    if (!old->Resembles(taken)) continue;
    return absl::InvalidArgumentError(
        "the loan's user_data_value cannot be told from that of an earlier loan, whose entries may "
        "still come: take another value of the mask's bits");
  }
  lent_ = std::make_unique<ring::LentRing>(std::move(taken), environment_.features,
                                           environment_.options.completion_entries);
  turns_.UseRing(lent_.get());
  const Inside within(environment_);
  lent_->AskForOwner();
  return absl::OkStatus();
}

absl::Status RingDriver::EnableRing() {
  if (lent_ == nullptr) {
    return absl::FailedPreconditionError(
        old_loans_.empty()
            ? "there is no ring to drive: lend it that of your loop by Balancer::Lend first"
            : "the thread of the loop whose ring was lent has ended, and the loan with it: lend "
              "the ring of the loop that goes on by Balancer::Lend first");
  }
  const int result = lent_->Enable();
  if (result >= 0) return absl::OkStatus();
  const absl::Status failed = ring::ErrorStatus(ring::Operation::kEnableRing, -result);
  RetireLoan();
  return absl::Status(failed.code(),
                      absl::StrCat(failed.message(),
                                   "; this loan has ended: lend a ring that the calling thread "
                                   "may submit to"));
}

bool RingDriver::OnCompletion(const io_uring_cqe& cqe) {
  // After the end, a port that leaves looks at the same things from another thread.
  std::unique_lock lock(turns_.lock().mutex, std::defer_lock);
  if (loan_ended_) lock.lock();
  if (lent_ != nullptr && lent_->Take(cqe)) {
    if (loan_ended_) {
      lent_->CloseArrived();
      turns_.CloseRings();
    }
    return true;
  }
  return std::any_of(old_loans_.begin(), old_loans_.end(),
                     [&](const auto& old) { return old->Take(cqe); });
}

// --- Calls of the host's own ---------------------------------------------------------------------

absl::Status RingDriver::FinishCall(Call& call, bool /*goes_on*/) {
  if (call.done) return call.result;
  turns_.calls().Forget(call);
  return call.result.ok() ? HandOver() : call.result;
}

// Submits what is pending. Afterwards nothing refers to a descriptor by its number any more. The
// ends of operations are reported to the loop, which cannot be waited for on its own thread.
absl::Status RingDriver::HandOver() {
  for (int turns = 0; turns < kLastTurnsMax && lent_->HoldsBack(); ++turns) {
    if (!Step(0)) return absl::OkStatus();
  }
  const int result = lent_->Submit();
  if (result >= 0 && !lent_->HoldsBack()) return absl::OkStatus();
  return absl::UnavailableError(
      "it is done, but the queue of the ring that was lent is full: keep the descriptor open until "
      "the loop has submitted");
}

// --- The host goes, and the end ------------------------------------------------------------------

bool RingDriver::ComeToRest() {
  RetireLoan();
  return true;
}

// The loop's memory of the ring may be gone, and must not be touched. What the ring has not taken
// has failed. What it has taken will be reported to the loop, if there still is one, and is of no
// use any more. If the ring is still open, what is armed in it is ended. Otherwise a multishot
// accept would go on to be woken for clients, each time instead of somebody who serves them, as
// long as the ring is open.
void RingDriver::RetireLoan() {
  std::vector<core::Op> pending = lent_->Retire();
  const std::vector<core::Op> last = turns_.TakePending();
  pending.insert(pending.end(), last.begin(), last.end());
  std::vector<core::Op> ends = pending;
  turns_.ReadWithoutRing(ends);
  lent_->EndArmed(ends);
  std::vector<core::Completion> failed;
  for (const core::Op& op : pending) {
    if (op.key.kind == core::OpKind::kClose) ring::CloseConnection(op.fd);
    if (op.key.kind == core::OpKind::kLetGo) ring::LetGoOf(op);
    if (op.key.kind != core::OpKind::kDoorbell && op.key.kind != core::OpKind::kSend) continue;
    failed.push_back({.key = op.key, .result = -ECANCELED});
  }
  turns_.ForgetRing(std::move(failed));
  turns_.UseRing(nullptr);
  old_loans_.push_back(std::move(lent_));
}

// The host cannot wait until what is under way has ended. The ends are asked for, and what is
// accepted until then is closed when it comes (OnCompletion).
void RingDriver::DriveToEnd() {
  turns_.RefuseNow();
  for (int turns = 0; turns < kLastTurnsMax && turns_.engine().Outstanding() > 0; ++turns) {
    if (!Step(0)) return;
  }
  turns_.TakeLast();
  End(BalancerEnded());
}

void RingDriver::LetGoOfRing() {
  lent_->End();
  lent_->CloseArrived();
  loan_ended_ = true;
}

}  // namespace ringmaster::internal
