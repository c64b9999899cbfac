// The statistics of one master, read off its engine and its roster, and of several, added up.

#ifndef RINGMASTER_SRC_RUNTIME_STATISTICS_H_
#define RINGMASTER_SRC_RUNTIME_STATISTICS_H_

#include <cstdint>

#include "core/engine.h"
#include "ringmaster/stats.h"
#include "runtime/roster.h"

namespace ringmaster::internal {

// Fills an empty `stats`, all but `master_wakes`. Asks the kernel about the backlogs, and tells the
// engine how often they have overflowed. Called on the thread that drives the master, between two
// batches.
void FillStats(core::Engine& engine, const Roster& roster, BalancerStats& stats);

// How many arrivals were refused so far, those of removed sources included.
uint64_t RefusedBy(const core::Engine& engine);

// These add up what several masters have counted.
void Add(BalancerStats& sum, const BalancerStats& more);
void Add(ShutdownReport& sum, const ShutdownReport& more);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_STATISTICS_H_
