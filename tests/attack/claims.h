// Claims: with callbacks that do what port.h allows them to do.

#ifndef RINGMASTER_TESTS_ATTACK_CLAIMS_H_
#define RINGMASTER_TESTS_ATTACK_CLAIMS_H_

#include "attack/world.h"

namespace ringmaster::attack {

// On the thread of the port. Whether offers are left.
bool Claim(Actor& actor, PortBox& box);

// Leaves in one of the ways that there are; whoever calls has the port alone.
void LeaveNow(Random& random, PortBox& box);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_CLAIMS_H_
