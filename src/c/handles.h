// What is behind the handles of the C interface, and how leases travel through it.

#ifndef RINGMASTER_SRC_C_HANDLES_H_
#define RINGMASTER_SRC_C_HANDLES_H_

#include <memory>
#include <string>
#include <utility>

#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"
#include "ringmaster/ringmaster.h"
#include "ringmaster/stats.h"

namespace ringmaster::internal {

// A lease as plain data. What has been given is a lease of nobody until it is taken.
class LeaseWords {
 public:
  static ringmaster_lease Give(Lease lease);
  static Lease Take(const ringmaster_lease& words);
};

}  // namespace ringmaster::internal

namespace ringmaster::c {

class OwnPolicy;

// Descriptor and lease are the caller's from now on.
ringmaster_connection Give(Connection connection);

// No connection.
inline constexpr ringmaster_connection kNoConnection = {-1, 0, 0, {{0, 0}}};

// What a handle that is passed on leaves: `given`, for the balancer behind `balancer`. Null if
// `given` is null.
std::unique_ptr<Policy> TakePolicy(ringmaster_policy* given, const ringmaster_balancer* balancer);

}  // namespace ringmaster::c

struct ringmaster_balancer {
  std::unique_ptr<ringmaster::Balancer> balancer;
};

struct ringmaster_source {
  ringmaster::Source source;
  const ringmaster_balancer* balancer = nullptr;  // only its address counts: it may be gone
};

struct ringmaster_port {
  ringmaster::Port port;
};

struct ringmaster_ticket {
  ringmaster::Ticket ticket;
};

struct ringmaster_mailbox {
  ringmaster::Mailbox mailbox;
};

struct ringmaster_policy {
  std::unique_ptr<ringmaster::Policy> policy;
  ringmaster::c::OwnPolicy* own = nullptr;  // the same, if its functions are the program's
  std::string name;
};

struct ringmaster_stats {
  ringmaster::BalancerStats own;
  const ringmaster::BalancerStats* borrowed = nullptr;  // instead of `own`

  const ringmaster::BalancerStats& stats() const { return borrowed != nullptr ? *borrowed : own; }
};

#endif  // RINGMASTER_SRC_C_HANDLES_H_
