// A study: how long requests wait under a policy, and how long they would have to. It runs the
// shipped engine, inboxes and policies in virtual time. What is simulated is the kernel and the
// threads, as far as they take time. Lean: no faults and no checker, which are the business of
// world.h, so a million connections to a thousand workers take less than a minute.
//
// How it goes, and which of the Costs each step has:
//
//   a connection comes to the listener of one master; the edge wakes it                   wake_ns
//   the master's turn: the engine decides, then the ring submits           turn, look, operation_ns
//   accepts complete within the turn that submits them, and so make another turn
//   a doorbell wakes a worker that sleeps; one at work finds it when it is done         doorbell_ns
//   the worker claims as Port::Claim does: it serves each connection to its end, in the callback,
//   before it takes the next; then the lease ends, which knocks a hungry master           wake_ns
//
// Beside it stands the ideal: one queue for all, first come, first served. Any worker that is free
// gets the first request at once, at no cost.

#ifndef RINGMASTER_SRC_SIM_STUDY_H_
#define RINGMASTER_SRC_SIM_STUDY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ringmaster/policy.h"
#include "sim/study_load.h"

namespace ringmaster::sim {

// What the machinery costs, in virtual time. The defaults follow from measurements on the machine
// of bench/METHOD.md. There a connection that comes alone takes 25 microseconds longer through the
// library than through EPOLLEXCLUSIVE: one thread more to wake, and two turns.
struct StudyCosts {
  int64_t wake_ns = 20'000;      // until a master that sleeps runs
  int64_t doorbell_ns = 20'000;  // until a worker that sleeps runs
  int64_t turn_ns = 2'000;       // each turn of a master
  int64_t look_ns = 10;          // in each turn, for each worker
  int64_t operation_ns = 1'500;  // each operation: an accept, a doorbell
};

struct StudyOptions {
  uint32_t masters = 1;
  uint32_t capacity = 1;  // WorkerOptions::capacity; UINT32_MAX: no limit
  uint32_t window = 32;   // WorkerOptions::window
  int64_t recall_after_ns = 10'000'000;
  StudyCosts costs;
};

struct StudyOutcome {
  // By request. -1: it was not served.
  std::vector<int64_t> wait_ns;     // until a worker began with it
  std::vector<int64_t> sojourn_ns;  // until it was done
  std::vector<uint64_t> taken;      // connections (ideal: requests) by worker
  uint64_t lost = 0;                // requests that were not served
  uint64_t recalled = 0;
  uint64_t doorbells = 0;
  uint64_t turns = 0;            // of all masters
  double master_busy_share = 0;  // of the time until the last request came, of the busiest master
};

// Serves `load` by the policies that `make_policy` makes, one for each master.
StudyOutcome RunStudy(const StudyOptions& options, const Load& load,
                      const std::function<std::unique_ptr<Policy>()>& make_policy);

// Serves `load` from one queue. Of several free workers, the one that has been free longest begins;
// a slow worker comes last.
StudyOutcome ServeFromOneQueue(const Load& load);

struct Distribution {
  double mean_ns = 0;
  int64_t p50_ns = 0;
  int64_t p99_ns = 0;
  int64_t p999_ns = 0;
  int64_t max_ns = 0;
};

// Figures of what was served. A quantile is the smallest value that this part of them does not
// exceed.
Distribution Summarize(std::span<const int64_t> values_ns);

// (sum x)^2 / (n sum x^2): 1 when all are equal.
double JainIndex(std::span<const uint64_t> counts);

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_STUDY_H_
