// Recaller: takes back what a worker was offered and does not claim, so that somebody else can have
// it.
//
// Rules:
//  * Overdue. What has waited longer than its limit behind a worker that does not move is recalled,
//    if somebody else can take it. Behind a worker that moves it is recalled only if somebody else
//    is idle, and at kIdleRecallFactor times the limit. Then its limit doubles: it may only have
//    been unlucky, and is not passed round for ever.
//  * After a recall the worker owes motion: it gets no credit until it moves (core/motion.h). Where
//    no word is left to see motion in, `rung` must be able to show it. So the worker is rung.
//  * An unclaimed offer implies a pending look at its age (core/looks.h).
//  * Stalls are said. A worker that has something unclaimed and does not move is said to stall when
//    something is recalled from it. Where nothing can be, because nobody else may or can have what
//    it was offered, by "silent stall" in core/motion.h. That it moves again is said, too.

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
  // Whether what could not be recalled, for want of somebody to take it, can be now.
  bool AnyCanBeRecalled() const;

  // Takes back one offer. False: the worker was faster. Its holes are to be skipped afterwards.
  bool Recall(uint32_t worker, const Outbox::Entry& entry);
  // The same of a worker that owes no motion for it.
  bool TakeBack(uint32_t worker, const Outbox::Entry& entry);
  // What the worker has not claimed of the source. Nobody is told: the worker leaves, or the intake
  // ends.
  void RecallAllOf(WorkerIndex worker, SourceIndex source = kEverySource);

  // When the worker's first offer reaches its limit.
  int64_t FirstLimitAt(const Worker& worker) const;

 private:
  // kNotYet: it is young, or its worker has moved lately. kWanted: nobody can take it.
  enum class Recallable : uint8_t { kNever, kNotYet, kWanted, kNow };
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
