// What a worker does with a ticket of a datagram socket: it sends back what it receives.

#ifndef RINGMASTER_TOOLS_ECHO_DATAGRAMS_H_
#define RINGMASTER_TOOLS_ECHO_DATAGRAMS_H_

#include <atomic>
#include <cstdint>

#include "ringmaster/port.h"

namespace ringmaster::echo {

// Echoes until nothing is left, or, after some, gives the ticket back so that others help. A reply
// that does not fit the socket's send buffer is lost, as datagrams may be.
void EchoDatagrams(const Ticket& ticket, std::atomic<uint64_t>& bytes_echoed);

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_DATAGRAMS_H_
