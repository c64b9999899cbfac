#include "runtime/master.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"
#include "ring/target.h"
#include "ring/translate.h"
#include "runtime/master_common.h"
#include "runtime/options.h"

namespace ringmaster::internal {
namespace {

// How many of the turns that bring a master to rest, the first ones, do not wait.
constexpr int kPromptTurns = 4;
// How many steps one RunOnce does at most, because a host has other work, too.
constexpr int kStepsAtOnceMax = 16;

}  // namespace

absl::Status Master::RunOnHost(absl::FunctionRef<absl::Status()> run,
                               absl::FunctionRef<bool()>* until) {
  Call call{.run = run, .until = until};
  {
    const std::unique_lock lock(sync_->mutex);
    if (ended_) return end_status_;
    calls_.Add(call);
  }
  // What the call changes is told to the kernel at once.
  bool goes_on = Advance();
  while (goes_on && !rides() && !call.done) goes_on = Step(kHostPauseNs) && Advance();
  if (call.done) return call.result;
  calls_.Forget(call);
  return call.result.ok() ? HandOverLoan() : call.result;
}

// Submits what is pending. Afterwards nothing refers to a descriptor by its number any more. The
// ends of operations are reported to the loop, which cannot be waited for on its own thread.
absl::Status Master::HandOverLoan() {
  for (int turns = 0; turns < kLastTurnsMax && lent_->HoldsBack(); ++turns) {
    if (!Step(0)) return absl::OkStatus();
  }
  const int result = lent_->Submit();
  if (result >= 0 && !lent_->HoldsBack()) return absl::OkStatus();
  return absl::UnavailableError(
      "it is done, but the queue of the ring that was lent is full: keep the descriptor open until "
      "the loop has submitted");
}

absl::Status Master::RunOnce() {
  if (!environment_.shared->ours()) return BalancerOfParent();
  if (!hosted()) {
    return absl::FailedPreconditionError(
        "this balancer has a thread of its own: create it with BalancerOptions::host = "
        "Host::kLoop or Host::kRing to drive it");
  }
  if (IsInside()) return CalledFromCallback();
  bool first = false;
  {
    std::unique_lock lock(sync_->mutex);
    // A thread that has heard that the host is gone may go on: it waits here until that is
    // complete.
    if (!OnMaster()) sync_->changed.wait(lock, [this] { return !host_ends_ || ended_; });
    if (abandoned_) return BalancerEnded();
    if (ended_) {
      // Completions that come late must not keep the descriptor readable.
      if (OnMaster() && !rides()) ring_->Turn({}, 0, completions_);
      return end_status_;
    }
    if (driver_ == 0) {
      if (absl::Status status = BecomeHost(); !status.ok()) return status;
      first = true;
    }
    if (!OnMaster()) {
      return absl::FailedPreconditionError(
          "another thread is the host, because it has called RunOnce before: call RunOnce from "
          "that thread, or from this one when that thread has ended");
    }
  }
  // A loop that lends its ring calls this in every turn of its own, whatever the turn was about.
  if (!rides() || first || lent_->HasSomething()) Advance();
  return absl::OkStatus();
}

// With the lock, and while nobody drives it.
absl::Status Master::BecomeHost() {
  if (ring_ == nullptr) {
    return absl::FailedPreconditionError(
        old_loans_.empty()
            ? "there is no ring to drive: lend it that of your loop by Balancer::Lend first"
            : "the thread of the loop whose ring was lent has ended, and the loan with it: lend "
              "the ring of the loop that goes on by Balancer::Lend first");
  }
  const Inside within(*this);
  if (const int result = ring_->Enable(); result < 0) {
    const absl::Status failed = ring::ErrorStatus(ring::Operation::kEnableRing, -result);
    if (!rides()) return failed;
    RetireLoan();
    return absl::Status(failed.code(),
                        absl::StrCat(failed.message(),
                                     "; this loan has ended: lend a ring that the calling thread "
                                     "may submit to"));
  }
  watch_->WatchThisThread();
  engine_->GoOn();
  now_ns_ = MonotonicNow();
  driver_ = ThisThread();
  return absl::OkStatus();
}

// The last callback of the host may have taken long, and so may the next one.
void Master::ComeBy() {
  if (!environment_.shared->ours() || IsInside()) return;
  if (ring_ != nullptr && !rides() && ring_->HasSomething()) RunOnce().IgnoreError();
}

// Steps until there is nothing more to do now, or it has done enough for once. False: the master
// has ended.
bool Master::Advance() {
  for (int steps = 0; steps < kStepsAtOnceMax; ++steps) {
    if (!Step(0)) return false;
    if (ops_.empty() && WaitMax(now_ns_) > 0) {
      ring_->WakeIn(WaitMax(now_ns_));
      return true;
    }
  }
  ring_->WakeIn(0);  // the host has other work, too
  return true;
}

// A thread that ends runs this when it destroys its thread_local objects, so it is one of the last
// things that the thread does. No lock is held while the ring is asked, so calls of other threads
// may still come, and are answered.
void Master::OnHostEnds() {
  {
    const std::unique_lock lock(sync_->mutex);
    if (ended_ || !OnMaster()) return;
  }
  const Inside within(*this);
  RefusingExceptions([this] { LetHostGo(); });
}

void Master::LetHostGo() {
  {
    const std::unique_lock lock(sync_->mutex);
    host_ends_ = true;
  }
  engine_->Rest();
  if (rides()) {
    RetireLoan();
  } else if (!ComeToRest()) {
    return;  // it has ended
  }
  CloseRings();
  bool said = false;
  while (true) {
    RunCalls();
    calls_.EndDue();
    if (shutting_down_) {
      RefuseWithoutRing();
      return End(BalancerEnded());
    }
    // The event comes before other threads run their own calls, because its callback may ask for
    // statistics, or make a port leave.
    if (!std::exchange(said, true)) {
      SayHostGone();
      continue;
    }
    const std::unique_lock lock(sync_->mutex);
    if (calls_.waiting() || end_asked_ns_.has_value()) continue;
    driver_ = 0;
    host_ends_ = false;
    sync_->changed.notify_all();
    return;
  }
}

void Master::SayHostGone() {
  CallBack(
      {.kind = Event::Kind::kHostGone,
       .text = absl::StrCat("the thread of the host has ended: nothing is accepted until another "
                            "thread calls Balancer::RunOnce",
                            rides() ? ", after it has lent its ring by Balancer::Lend" : "",
                            "; shut the balancer down before its host ends if none shall follow")});
}

// Host::kLoop: ends all that is armed, so that nothing is left for a thread that exists no more.
// False: the master has ended.
bool Master::ComeToRest() {
  for (int turns = 0; turns < kLastTurnsMax; ++turns) {
    if (!TurnAndBatch(turns < kPromptTurns ? 0 : kHostPauseNs)) return false;
    if (engine_->AtRest() && ops_.empty() && ring_->AllReported()) break;
  }
  own_->LetGo();
  return true;
}

// Host::kRing: the loop's memory of the ring may be gone, and must not be touched. What the ring
// has not taken has failed. What it has taken will be reported to the loop, if there still is one,
// and is of no use any more. If the ring is still open, what is armed in it is ended. Otherwise a
// multishot accept would go on to be woken for clients, each time instead of somebody who serves
// them, as long as the ring is open.
void Master::RetireLoan() {
  std::vector<core::Op> pending = lent_->Retire();
  pending.insert(pending.end(), ops_.begin(), ops_.end());
  ops_.clear();
  std::vector<core::Op> ends = pending;
  do {
    TakeRemaining();
    BatchWithoutRing(/*all_reported=*/false, &ends);
  } while (!completions_.empty());
  lent_->EndArmed(ends);
  std::vector<core::Completion> failed;
  for (const core::Op& op : pending) {
    if (op.key.kind == core::OpKind::kClose) ring::CloseConnection(op.fd);
    if (op.key.kind != core::OpKind::kDoorbell && op.key.kind != core::OpKind::kSend) continue;
    failed.push_back({.key = op.key, .result = -ECANCELED});
  }
  engine_->ForgetRing();
  std::swap(completions_, failed);
  BatchWithoutRing(/*all_reported=*/true);
  std::swap(completions_, failed);
  old_loans_.emplace_back(lent_);
  static_cast<void>(ring_.release());
  lent_ = nullptr;
}

absl::Status Master::Lend(RingLoan loan) {
  if (!environment_.shared->ours()) return BalancerOfParent();
  if (!rides()) {
    return absl::FailedPreconditionError(
        "a ring is lent, but this balancer does not use one: create it with Host::kRing");
  }
  if (absl::Status status = CheckLoan(loan); !status.ok()) return status;
  if (absl::Status status = ring::CheckLendable(loan.ring_fd); !status.ok()) return status;
  if (IsInside()) return CalledFromCallback();
  std::unique_lock lock(sync_->mutex);
  if (!OnMaster()) sync_->changed.wait(lock, [this] { return !host_ends_ || ended_; });
  if (ended_) return end_status_;
  if (ring_ != nullptr) {
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
  auto lent = std::make_unique<ring::LentRing>(std::move(taken), environment_.features,
                                               options_.completion_entries);
  lent_ = lent.get();
  ring_ = std::move(lent);
  const Inside within(*this);
  lent_->AskForOwner();
  return absl::OkStatus();
}

bool Master::OnCompletion(const io_uring_cqe& cqe) {
  if (!environment_.shared->ours()) return false;
  // After the end, a port that leaves looks at the same things from another thread.
  std::unique_lock lock(sync_->mutex, std::defer_lock);
  if (loan_ended_) lock.lock();
  if (lent_ != nullptr && lent_->Take(cqe)) {
    if (loan_ended_) {
      lent_->CloseArrived();
      CloseRings();
    }
    return true;
  }
  return std::any_of(old_loans_.begin(), old_loans_.end(),
                     [&](const auto& old) { return old->Take(cqe); });
}

// On the thread of the host, which cannot wait until what is under way has ended. The ends are
// asked for, and what is accepted until then is closed when it comes (OnCompletion).
void Master::EndOnLoan() {
  drain_until_ns_ = 0;
  drain_ended_ = true;
  RefuseAll();
  for (int turns = 0; turns < kLastTurnsMax && engine_->Outstanding() > 0; ++turns) {
    if (!Step(0)) return;
  }
  LastTurns();
  TellEnd();
  EndDriven(BalancerEnded());
}

int Master::fd() const {
  return environment_.shared->ours() && hosted() && own_ != nullptr ? own_->fd() : -1;
}

}  // namespace ringmaster::internal
