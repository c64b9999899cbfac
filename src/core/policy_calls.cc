#include "core/policy_calls.h"

#include "core/check.h"

namespace ringmaster::core {

size_t PolicyCalls::Pick(Source& source, const Arrival& arrival,
                         std::span<const Candidate> candidates, std::span<const uint32_t> joined) {
  const CpuTopology* const topology = books_.config.topology;
  const View view{.candidates = candidates,
                  .joined = joined,
                  .topology = topology != nullptr ? topology : &no_topology_};
  size_t position = 0;
  Tell(source, "Pick", [&](Policy& policy) { position = policy.Pick(arrival, view); });
  if (position < candidates.size() || position == Policy::kNobodyNow) return position;
  Failed(source, "picked position " + std::to_string(position) + " of " +
                     std::to_string(candidates.size()) + " candidates");
  return 0;
}

void PolicyCalls::CloseDesk(Source& source) {
  Desk& desk = *source.config.desk;
  desk.Close();
  if (desk.closed_for() == Desk::Closed::kByMaster) {
    source.aim.Close();
  } else {
    source.aim.Closed(books_.now_ns);
    if (desk.error() != 0) ++source.counts.errors;
    if (!desk.policy_fault().empty()) Fault(source, desk.policy_fault());
  }
  source.intake.edges().MayHaveMore();
}

void PolicyCalls::Failed(Source& source, const std::string& what) {
  Fault(source, "policy " + source.config.policy->name() + " " + what);
}

void PolicyCalls::Fault(Source& source, const std::string& what) {
  ++source.counts.policy_faults;
  if (!source.policy_fault.empty()) return;
  source.policy_fault = what;
  books_.Emit(EventKind::kPolicyFailed, source.index);
}

void PolicyCalls::Prepare(const Source& source) const {
  Policy& policy = *source.config.policy;
  const auto end = [&policy](const std::string& what) {
    Misused(("policy " + policy.name() + " threw " + what +
             " in Prepare, which must not throw: the balancer cannot go on without it")
                .c_str());
  };
  try {
    policy.Prepare(books_.worker_slots());
  } catch (const std::exception& thrown) {
    end(std::string("\"") + thrown.what() + "\"");
  } catch (...) {
    end("something");
  }
}

}  // namespace ringmaster::core
