// Reader: reads what the workers have done from their inboxes and tallies. In each batch it reads
// those of every worker that has something unclaimed, was rung, or is owed a doorbell.

#ifndef RINGMASTER_SRC_CORE_READER_H_
#define RINGMASTER_SRC_CORE_READER_H_

#include <cstdint>

#include "core/books.h"
#include "core/delivery.h"

namespace ringmaster::core {

class Reader {
 public:
  Reader(Books& books, Delivery& delivery) : books_(books), delivery_(delivery) {}

  // Reads all of these. Returns whether anyone has taken what a source waited for.
  bool ReadActive();
  // Reads one, as far as the worker has claimed in order.
  void Read(uint32_t worker);
  // Reads one, and finds also what was claimed out of order: a worker that leaves a source and
  // joins it again while it is inside a callback can find a younger offer in the word of an older
  // one.
  void ReadAll(uint32_t worker);

  // The worker is said to stall. `recalled`: something was recalled from it.
  void Stall(uint32_t worker, bool recalled);

 private:
  void ReadTally(uint32_t worker);
  // Whether the worker need not be read.
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
