#include "processes/choice.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ringmaster::processes {

absl::StatusOr<PolicyChoice> ChoiceByName(const std::string& name) {
  const absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(name);
  if (!policy.ok()) return policy.status();
  const size_t colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  PolicyChoice choice;
  if (name == "least-loaded:first") {
    choice.parameter = kFirstOfEquals;
  } else if (colon != std::string::npos &&
             !absl::SimpleAtoi(name.substr(colon + 1), &choice.parameter)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\": a number follows the colon"));
  }
  if (kind == "round-robin") {
    choice.kind = PolicyKind::kRoundRobin;
  } else if (kind == "least-loaded") {
    choice.kind = PolicyKind::kLeastLoaded;
  } else if (kind == "two-choices") {
    choice.kind = PolicyKind::kTwoChoices;
  } else if (kind == "hermes") {
    choice.kind = PolicyKind::kHermes;
    if (colon == std::string::npos) choice.parameter = HermesOptions{}.still_ms_max;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name,
                     "\" decides when a connection is there, and here it is decided before: take "
                     "round-robin, least-loaded, two-choices or hermes"));
  }
  return choice;
}

}  // namespace ringmaster::processes
