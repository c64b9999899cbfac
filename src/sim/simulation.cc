#include "sim/simulation.h"

#include "sim/trace.h"
#include "sim/world.h"

namespace ringmaster::sim {

Outcome RunSimulation(uint64_t seed, Breakage breakage, std::string* text) {
  return RunSimulation(DrawConfig(seed), breakage, text);
}

Outcome RunSimulation(const SimConfig& config, Breakage breakage, std::string* text) {
  Trace trace(text);
  World world(config, breakage, &trace);
  world.Run();
  return {.ok = !world.checker().failed(),
          .failure = world.checker().failure(),
          .counters = world.counters(),
          .trace_hash = trace.hash(),
          .lasted_ns = world.now_ns(),
          .faults = config.faults};
}

}  // namespace ringmaster::sim
