// Single calls of the library, each with what it may answer.

#ifndef RINGMASTER_TESTS_ATTACK_CALLS_H_
#define RINGMASTER_TESTS_ATTACK_CALLS_H_

#include <memory>

#include "attack/things.h"
#include "attack/world.h"

namespace ringmaster::attack {

// Of a source and a port that stays where it is. Whether the header lets a port of this kind join
// the source at all, the function asks itself.
void Join(PortBox& box, SourceRecord& record);
void LeaveSource(PortBox& box, SourceRecord& record);
// AddSource, of whatever is drawn.
void AddSourceOf(Actor& actor);
void ChangeLimits(Random& random, PortBox& box);

// A port of this kind, published, or null. `ring` is the worker's, for the kinds that need one.
std::shared_ptr<PortBox> AddPort(Actor& actor, PortBox::Kind kind, Ring* ring);
// For what the kernel is to wake the port by: WatchSight, if it has a ring.
void WatchSight(Actor& actor, PortBox& box, Ring& ring);
// AddWorker with what is refused.
void AddWrongPort(Actor& actor, Ring* ring);

// Stats, checked.
void LookAtStats(World& world, const char* when);

// Ends the balancer now, if nobody holds it; for the thread that may. Whether it is gone.
bool TryToDestroy(World& world, Ring* host_ring);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_CALLS_H_
