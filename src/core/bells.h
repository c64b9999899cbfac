// Bells: the doorbells of all workers. A worker is rung once for each batch, when everything that
// the batch offers to it is published. The books of one worker's doorbell are Bell; how a doorbell
// travels is for the ring to know (kDoorbell).

#ifndef RINGMASTER_SRC_CORE_BELLS_H_
#define RINGMASTER_SRC_CORE_BELLS_H_

#include <cstdint>
#include <vector>

#include "core/books.h"
#include "core/op.h"
#include "core/reserve.h"

namespace ringmaster::core {

class Bells {
 public:
  explicit Bells(Books& books) : books_(books) {}

  // Set-up: for as many workers as there are.
  void Reserve() { core::Reserve(touched_, books_.workers.size()); }
  // Set-up: the worker leaves.
  void Forget(uint32_t worker) { std::erase(touched_, worker); }

  // The first of a batch was offered to the worker: RingTouched publishes it and rings.
  void Touch(uint32_t worker) {
    touched_.push_back(worker);
    books_.Activate(worker);
  }
  void RingTouched();
  // Rings all workers with the next RingTouched, also those to whom nothing is offered. They are
  // told something that stands elsewhere and was written before. Such a doorbell is one as any
  // other: by (1) of core/inbox.h a claim that begins after it finds what was written before it,
  // and if it fails it is owed. Workers to whom arrivals are sent are not rung, because nothing but
  // arrivals comes into their rings.
  void RingAll() { all_ = true; }

  // Rings for what is published already, unless a doorbell is on its way.
  void Ring(uint32_t worker);
  // Rings again where a doorbell is owed, and it is time to.
  void TryAgain();

  // A doorbell has failed, says the ring.
  void OnFailed(const Completion& completion);
  // The worker's ring cannot be reached just now.
  void BackOff(uint32_t worker, int32_t error);

 private:
  void Send(uint32_t worker);
  void TouchAll();

  Books& books_;
  std::vector<uint32_t> touched_;  // workers offered to in this batch
  bool all_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_BELLS_H_
