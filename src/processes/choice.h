// Which policy decides among processes: as numbers, so that it can travel.

#ifndef RINGMASTER_SRC_PROCESSES_CHOICE_H_
#define RINGMASTER_SRC_PROCESSES_CHOICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {

// The policies that may decide before a connection comes, and keep what they remember in words.
enum class PolicyKind : uint32_t { kNoPolicy, kRoundRobin, kLeastLoaded, kTwoChoices, kHermes };
struct PolicyChoice {
  PolicyKind kind = PolicyKind::kNoPolicy;
  // Of two-choices the seed, of hermes the milliseconds, of least-loaded kFirstOfEquals or 0.
  uint64_t parameter = 0;
};
inline constexpr uint64_t kFirstOfEquals = 1;

// From a name that PolicyByName takes. InvalidArgument says what is wrong, and what to take.
absl::StatusOr<PolicyChoice> ChoiceByName(const std::string& name);

// Prepared for kWorkersMax. Anything that is none of the above is least-loaded, because a number
// that travels may be nonsense.
std::unique_ptr<Policy> MakePolicy(const PolicyChoice& choice);

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_CHOICE_H_
