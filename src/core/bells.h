// Bells: the doorbells of all workers. A worker is rung once for each batch, when everything that
// the batch offers to it is published. Bell keeps the books of one worker's doorbell. How a
// doorbell travels is the business of the ring (kDoorbell).

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

  // The worker was offered the first arrival of this batch. RingTouched publishes all that it is
  // offered, and rings it.
  void Touch(uint32_t worker) {
    touched_.push_back(worker);
    books_.Activate(worker);
  }
  void RingTouched();
  // Rings all workers with the next RingTouched, also those to whom nothing is offered. They are to
  // find out something that stands elsewhere and was written before. Such a doorbell is like any
  // other: by (1) of core/inbox.h a claim that begins after it finds what was written before it,
  // and if it fails it is owed. Workers to whom arrivals are sent are not rung, because nothing but
  // arrivals comes into their rings.
  void RingAll() { all_ = true; }

  // Rings the worker for what is published already, unless a doorbell is on its way.
  void Ring(uint32_t worker);
  // Rings all workers to whom a doorbell is owed, if it is time to.
  void TryAgain();

  // The ring says that a doorbell has failed.
  void OnFailed(const Completion& completion);
  // The worker's ring could not be reached: a doorbell is owed.
  void Owe(uint32_t worker, int32_t error);

 private:
  void Send(uint32_t worker);
  void TouchAll();

  Books& books_;
  std::vector<uint32_t> touched_;  // workers offered to in this batch
  bool all_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_BELLS_H_
