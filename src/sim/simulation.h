// One simulated run: everything follows from the seed.

#ifndef RINGMASTER_SRC_SIM_SIMULATION_H_
#define RINGMASTER_SRC_SIM_SIMULATION_H_

#include <cstdint>
#include <string>

#include "sim/config.h"
#include "sim/counters.h"

namespace ringmaster::sim {

struct Outcome {
  bool ok = false;
  std::string failure;  // what went wrong; empty when nothing did
  Counters counters;
  uint64_t trace_hash = 0;  // of all that happened
  int64_t lasted_ns = 0;    // virtual
  FaultPlan faults;
};

// A broken invariant inside the engine ends the process (core/check.h); print the seed before.
// `text`, if any, gets a line for everything that happens.
Outcome RunSimulation(uint64_t seed, Breakage breakage = Breakage::kNone,
                      std::string* text = nullptr);
Outcome RunSimulation(const SimConfig& config, Breakage breakage = Breakage::kNone,
                      std::string* text = nullptr);

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SIMULATION_H_
