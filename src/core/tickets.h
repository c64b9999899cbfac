// Tickets: what a master knows of the tickets of one source with readiness intake, beside what the
// ledger counts. The workers accept or read by themselves, so the master hears of it only from them
// and from the kernel's count.
//
//  * The count. Of some listeners the kernel can be asked how many connections wait. One question
//    is under way at a time. Its answer is used once, in the batch in which it comes.
//  * Untaken tickets. A ticket that was handed over as a completion may have been redeemed before
//    its worker says Took. So what comes while there are any is looked for when they are taken. A
//    worker need not say that it has accepted by such a ticket: when all are taken, and none has
//    failed meanwhile, they count as a success.
//  * News. What workers have said of the source's tickets since the last batch. In which order is
//    not known. Of several errors the gravest is kept.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_TICKETS_H_
#define RINGMASTER_SRC_CORE_TICKETS_H_

#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/accept_error.h"
#include "core/port_state.h"

namespace ringmaster::core {

class Tickets {
 public:
  // --- The count -------------------------------------------------------------------------------

  // The kernel is asked.
  void AskCount() { counting_ = true; }
  // It answers.
  void Count(uint32_t backlog) {
    counting_ = false;
    counted_ = true;
    backlog_ = backlog;
  }
  bool counting() const { return counting_; }
  // Whether there is an answer that was not used, and what it says.
  bool counted() const { return counted_; }
  uint32_t backlog() const { return backlog_; }
  // Uses the answer. Returns whether there was one.
  bool UseCount() { return std::exchange(counted_, false); }
  // The answer will never come. Returns whether there was a question.
  bool ForgetCount() { return std::exchange(counting_, false); }

  // --- Untaken tickets -------------------------------------------------------------------------

  // One is handed over as a completion.
  void Send() { ++untaken_; }
  uint32_t untaken() const { return untaken_; }
  // One of them is taken or given up. Returns whether it was the last one, and nothing went wrong
  // meanwhile. What went wrong by these tickets says nothing of those that are sent later.
  bool Forget() {
    if (--untaken_ > 0) return false;
    return !std::exchange(failed_, false);
  }
  // A worker could not accept by a ticket. By which one is not known, nor whether that one was
  // taken before. So if none is untaken, this is held against the next ticket that is sent.
  void Fail() { failed_ = true; }
  // The source tries again after a back-off. What went wrong before says nothing of the tickets
  // that are to come, unless some are untaken still.
  void TryAgain() {
    if (untaken_ == 0) failed_ = false;
  }

  // --- News ------------------------------------------------------------------------------------

  // A ticket was given back: 0, EAGAIN or another errno.
  void GiveBack(int32_t error) {
    if (error == EAGAIN) {
      news_.nothing = true;
    } else if (error == 0) {
      news_.more = true;
    } else {
      news_.error = Graver(news_.error, error);
    }
  }
  void Redeem() { news_.redeemed = true; }
  GivenBack::News TakeNews() { return std::exchange(news_, {}); }

 private:
  bool counting_ = false;
  bool counted_ = false;
  bool failed_ = false;  // since `untaken_` was last 0
  uint32_t backlog_ = 0;
  uint32_t untaken_ = 0;
  GivenBack::News news_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_TICKETS_H_
