// What users are told of an event of the engine.

#ifndef RINGMASTER_SRC_RUNTIME_EVENT_TEXT_H_
#define RINGMASTER_SRC_RUNTIME_EVENT_TEXT_H_

#include "core/engine.h"
#include "ringmaster/balancer.h"
#include "runtime/roster.h"

namespace ringmaster::internal {

// Says what happened, why, and what to do. `engine` and `roster` are those of the master that the
// event is about. Called on the thread that drives the master, between two batches.
Event DescribeEvent(const core::EngineEvent& event, const BalancerOptions& options,
                    const core::Engine& engine, const Roster& roster);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_EVENT_TEXT_H_
