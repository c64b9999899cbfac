// The next entry of a worker's submission queue. What is in it goes out with the call that waits,
// or before, when there is no room.

#ifndef RINGMASTER_BENCH_MECHANISMS_SUBMISSION_H_
#define RINGMASTER_BENCH_MECHANISMS_SUBMISSION_H_

#include <liburing.h>

#include "bench/calls.h"

namespace ringmaster::bench {

inline io_uring_sqe* NextEntry(io_uring& ring, Calls& call) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring);
  while (entry == nullptr) {
    call(io_uring_submit, &ring);
    entry = io_uring_get_sqe(&ring);
  }
  return entry;
}

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_SUBMISSION_H_
