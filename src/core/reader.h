// Reader: the master's looks at what the workers have done, in their inboxes and tallies. In each
// batch it looks at whoever has something unclaimed, was rung, or is owed a doorbell.

#ifndef RINGMASTER_SRC_CORE_READER_H_
#define RINGMASTER_SRC_CORE_READER_H_

#include <cstdint>

#include "core/books.h"
#include "core/delivery.h"

namespace ringmaster::core {

class Reader {
 public:
  Reader(Books& books, Delivery& delivery) : books_(books), delivery_(delivery) {}

  // Looks at all of them. Returns whether anyone has taken what a source waited for.
  bool ReadActive();
  // Looks at one, as far as the worker claims in order.
  void Read(uint32_t worker);
  // Takes note also of what was claimed out of order. A worker that leaves a source and joins it
  // again while it is inside a callback can find a younger offer in the word of an older one.
  void ReadAll(uint32_t worker);

  // The worker is said to stall. `recalled`: something was recalled from it.
  void Stall(uint32_t worker, bool recalled);

 private:
  void ReadTally(uint32_t worker);
  // Whether there is nothing to be looked at.
  bool Quiet(uint32_t index) const {
    const Worker& worker = books_.workers[index];
    return books_.Unclaimed(index) == 0 && !worker.outbox.rung() && !worker.bell.owed() &&
           !worker.outbox.unpublished();
  }

  Books& books_;
  Delivery& delivery_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_READER_H_
