#include "bench/mechanism.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/mechanisms/mechanisms.h"
#include "ringmaster/policy.h"

namespace ringmaster::bench {
namespace {

constexpr std::string_view kEpollExclusive = "epoll-exclusive";
constexpr std::string_view kRingmaster = "ringmaster:";

}  // namespace

absl::StatusOr<std::unique_ptr<Mechanism>> MakeMechanism(std::string_view name) {
  if (name == kEpollExclusive) return MakeEpollExclusive();
  if (name.starts_with(kRingmaster)) return MakeRingmaster(name.substr(kRingmaster.size()));
  return absl::InvalidArgumentError(
      absl::StrCat("no mechanism is called \"", std::string(name),
                   "\"; known are: ", absl::StrJoin(MechanismNames(), ", ")));
}

std::vector<std::string> MechanismNames() {
  std::vector<std::string> names = {std::string(kEpollExclusive)};
  for (const std::string_view policy : PolicyNames()) {
    names.push_back(std::string(kRingmaster).append(policy));
  }
  return names;
}

}  // namespace ringmaster::bench
