// Recaller: takes back what a worker was offered and does not claim, so that another can have it.
//
// Rules:
//  * Overdue. Each offer has a limit (Books::RecallLimit), and is overdue when it is older. If its
//    worker has not moved for that long either, an overdue offer is recalled as soon as anybody
//    else can take it. If its worker moves, the offer is recalled only at kIdleRecallFactor times
//    the limit, and only for a worker that is idle. Then the arrival's limit doubles: its worker
//    was not to blame, and the arrival must not be passed round for ever.
//  * Owes motion. A worker from which something was recalled gets no credit until it moves
//    (core/motion.h). Perhaps nothing is left in its inbox that it could claim. Then only `rung`
//    can show that it has moved, so the worker is rung.
//  * No offer is forgotten. As long as one is unclaimed, a time is set at which its age is looked
//    at (core/looks.h).
//  * Stalls are said. A worker that has not moved for recall_after is said to stall when something
//    is recalled from it. Perhaps nothing can be recalled, because nobody else may have what it was
//    offered, or can take it. Then it is said to stall by the rule "silent stall" of core/motion.h.
//    When it moves again, that is said, too.

#ifndef RINGMASTER_SRC_CORE_RECALLER_H_
#define RINGMASTER_SRC_CORE_RECALLER_H_

#include <cstdint>

#include "core/bells.h"
#include "core/books.h"
#include "core/policy_calls.h"
#include "core/reader.h"

namespace ringmaster::core {

// An offer whose worker moves is recalled only for an idle worker, at so many times the limit.
inline constexpr int64_t kIdleRecallFactor = 4;
// How often the limit of an arrival can double.
inline constexpr uint8_t kDoublingsMax = 6;

class Recaller {
 public:
  static constexpr SourceIndex kEverySource{UINT32_MAX};

  Recaller(Books& books, PolicyCalls& policies, Bells& bells, Reader& reader)
      : books_(books), policies_(policies), bells_(bells), reader_(reader) {}

  // Recalls what is overdue, and rings again where the doorbell seems to have been missed.
  void RecallOverdue();
  // Whether an overdue offer that nobody could take can be taken by somebody now.
  bool AnyCanBeRecalled() const;

  // Takes back one offer, for which the worker owes motion. False: the worker has claimed it
  // meanwhile. The caller skips the holes that this leaves in the outbox.
  bool Recall(uint32_t worker, const Outbox::Entry& entry);
  // The same, but the worker owes no motion.
  bool TakeBack(uint32_t worker, const Outbox::Entry& entry);
  // Takes back all that the worker has not claimed of the source. The worker owes no motion, and
  // the policy is not told, because the worker leaves or the intake ends.
  void RecallAllOf(WorkerIndex worker, SourceIndex source = kEverySource);

  // When the worker's first offer reaches its limit.
  int64_t FirstLimitAt(const Worker& worker) const;

 private:
  enum class Recallable : uint8_t {
    kNever,    // nobody else may have it
    kNotYet,   // it is not overdue, or its worker has moved lately
    kNoTaker,  // it is overdue, and nobody can take it now
    kNow,
  };
  Recallable MayRecall(uint32_t worker, ArrivalId id) const;
  // Whether somebody else could take it now.
  bool TakerFor(const ArrivalRecord& record, uint32_t except, bool must_be_idle) const;
  void RecallOverdueOf(uint32_t worker);

  Books& books_;
  PolicyCalls& policies_;
  Bells& bells_;
  Reader& reader_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RECALLER_H_
