// Aimer: which sources are aimed (core/desk.h), and what the master does for them: it opens a desk
// when its engine has nothing of the source left to do, looks after it (core/aim.h), and takes it
// back when set-up changes anything, or when a holder could not go on.
//
// Rule "aimed". A source is aimed while all of this holds: it has a desk, which its intake and its
// listener allow; its policy needs no facts and may be asked on any thread; it does not drop by
// age; it is neither shut, nor backs off, nor has anything held, set aside or asked for;
// each worker that has joined it has a sight and gives hints; and one of them has a place. Without
// hints it cannot be known who waits, and a permit would lie with a worker that is busy more often
// than an offer does.

#ifndef RINGMASTER_SRC_CORE_AIMER_H_
#define RINGMASTER_SRC_CORE_AIMER_H_

#include <cstdint>

#include "core/bells.h"
#include "core/books.h"
#include "core/desk.h"
#include "core/policy_calls.h"

namespace ringmaster::core {

class Aimer {
 public:
  Aimer(Books& books, PolicyCalls& policies, Bells& bells)
      : books_(books), policies_(policies), bells_(bells) {}

  // After the completions of a batch: takes note of desks that holders have closed, whose sources
  // are dealt in this batch; and of polls that say that connections come again.
  void TakeNote();
  // Looks after open desks, when it is time to. Before workers are rung.
  void LookAfter();
  // At the end of a batch, before sources are armed: opens desks.
  void OpenDesks();
  // Set-up: what follows changes what permits are issued by. The engine deals until the next batch
  // has been.
  void Close(Source& source) { policies_.TakeDesk(source); }
  void CloseAll();
  // Of those that the worker has joined.
  void CloseAllOf(uint32_t worker);

  // When the next batch is due because of this.
  int64_t due_at_ns() const { return due_at_ns_; }

 private:
  bool MayAim(const Source& source) const;
  bool AllRung(const Source& source) const;
  void Open(Source& source);

  Books& books_;
  PolicyCalls& policies_;
  Bells& bells_;
  const CpuTopology no_topology_{};
  int64_t due_at_ns_ = kWaitForever;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_AIMER_H_
