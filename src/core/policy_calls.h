// Policy calls: how an engine asks the policies of its sources. A policy is a user's code, and
// cannot lose an arrival: whatever it does wrong, somebody gets that. What it does wrong is
// counted, and said once for each policy, because what fails once will fail often.

#ifndef RINGMASTER_SRC_CORE_POLICY_CALLS_H_
#define RINGMASTER_SRC_CORE_POLICY_CALLS_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>

#include "core/books.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

class PolicyCalls {
 public:
  explicit PolicyCalls(Books& books) : books_(books) {}

  // Asks the policy which of `candidates` gets the arrival; there is at least one. Returns a
  // position, or Policy::kNobodyNow. `joined`: the workers that the policy is shown as having
  // joined.
  size_t Pick(Source& source, const Arrival& arrival, std::span<const Candidate> candidates,
              std::span<const uint32_t> joined);

  // Runs `call`, which calls a function of the policy. `function` is its name, for the report if it
  // throws.
  template <typename Call>
  void Tell(Source& source, const char* function, Call call) {
    TakeDesk(source);
    try {
      call(*source.config.policy);
    } catch (const std::exception& thrown) {
      Failed(source, std::string("threw \"") + thrown.what() + "\" in " + function);
    } catch (...) {
      Failed(source, std::string("threw something in ") + function);
    }
  }

  // Whoever has a source's desk asks its policy (core/desk.h): this takes the desk from whoever has
  // it, if it is open, and from then on the engine deals. Each call of a policy begins with it.
  void TakeDesk(Source& source) {
    if (source.aim.open()) CloseDesk(source);
  }

  // Set-up. Prepare must not throw: a policy cannot decide about a worker for which it has not
  // prepared. If it throws, the process ends.
  void Prepare(const Source& source) const;

 private:
  void CloseDesk(Source& source);
  void Failed(Source& source, const std::string& what);
  void Fault(Source& source, const std::string& what);

  Books& books_;
  const CpuTopology no_topology_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_POLICY_CALLS_H_
