// What users are told of an event of the engine.

#ifndef RINGMASTER_SRC_RUNTIME_EVENT_TEXT_H_
#define RINGMASTER_SRC_RUNTIME_EVENT_TEXT_H_

#include "core/engine.h"
#include "ringmaster/balancer.h"
#include "runtime/roster.h"

namespace ringmaster::internal {

// Says what happened, why, and what to do. On the thread that drives the master, between two
// batches; `engine` and `roster` are those that the event is of.
Event DescribeEvent(const core::EngineEvent& event, const BalancerOptions& options,
                    const core::Engine& engine, const Roster& roster);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_EVENT_TEXT_H_
