#include "processes/area.h"
#include "processes/choice.h"

namespace ringmaster::processes {
namespace {

std::unique_ptr<Policy> Make(const PolicyChoice& choice) {
  switch (choice.kind) {
    case PolicyKind::kRoundRobin:
      return RoundRobin();
    case PolicyKind::kTwoChoices:
      return TwoChoices({.seed = choice.parameter});
    case PolicyKind::kHermes:
      return Hermes({.still_ms_max = static_cast<uint32_t>(choice.parameter)});
    case PolicyKind::kNoPolicy:
    case PolicyKind::kLeastLoaded:
      break;
  }
  return LeastLoaded({.rotate_ties = choice.parameter != kFirstOfEquals});
}

}  // namespace

std::unique_ptr<Policy> MakePolicy(const PolicyChoice& choice) {
  std::unique_ptr<Policy> policy = Make(choice);
  policy->Prepare(kWorkersMax);
  return policy;
}

}  // namespace ringmaster::processes
