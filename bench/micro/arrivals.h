// Arrivals for an engine that has no ring.

#ifndef RINGMASTER_BENCH_MICRO_ARRIVALS_H_
#define RINGMASTER_BENCH_MICRO_ARRIVALS_H_

#include <cstdint>
#include <vector>

#include "core/engine.h"
#include "core/op.h"

namespace ringmaster::bench {

// Lets the engine arm its multishot accepts, which nobody submits, and returns `count` completions
// of each: what OnBatch may be given again and again. `ops` is overwritten.
inline std::vector<core::Completion> MadeUpArrivals(core::Engine& engine, uint64_t count,
                                                    std::vector<core::Op>& ops) {
  std::vector<core::Completion> arrivals;
  engine.OnBatch({}, 0, ops);
  for (const core::Op& op : ops) {
    if (op.key.kind != core::OpKind::kAcceptEach) continue;
    for (uint64_t i = 0; i < count; ++i) {
      arrivals.push_back({.key = op.key, .result = static_cast<int32_t>(10 + i), .more = true});
    }
  }
  return arrivals;
}

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MICRO_ARRIVALS_H_
