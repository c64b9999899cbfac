// Takes a world in which something fails, and makes it small enough to be read. Reductions are
// tried one after the other: fewer arrivals, workers, sources, faults and changes, and plainer
// settings. A reduction is kept if the world still fails in the same way. Any reduction changes the
// course of events, so each is tried with several courses.

#ifndef RINGMASTER_SRC_SIM_SHRINK_H_
#define RINGMASTER_SRC_SIM_SHRINK_H_

#include <cstdint>
#include <functional>
#include <string>

#include "sim/config.h"
#include "sim/simulation.h"

namespace ringmaster::sim {

struct ShrinkBudget {
  uint32_t runs_max = 20'000;
  uint64_t events_max = 30'000'000;  // in all runs together: a bound on the time
};

struct Shrunk {
  SimConfig config;  // to be written down by Describe
  std::string failure;
  uint32_t runs = 0;  // that it took
};

// `outcome` is that of `config`, a failure; `run` runs a world.
Shrunk Shrink(const SimConfig& config, const Outcome& outcome,
              const std::function<Outcome(const SimConfig&)>& run, const ShrinkBudget& budget = {});

// The text of a failure without its numbers, so that failures of the same kind are equal.
std::string KindOfFailure(const std::string& failure);

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SHRINK_H_
