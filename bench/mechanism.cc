#include "bench/mechanism.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/mechanisms/mechanisms.h"
#include "ringmaster/policy.h"

namespace ringmaster::bench {
namespace {

struct Entry {
  std::string_view name;
  std::unique_ptr<Mechanism> (*make)();
};

constexpr Entry kRivals[] = {
    {"epoll-shared", MakeEpollShared},
    {"epoll-exclusive", MakeEpollExclusive},
    {"epoll-exclusive-one", MakeEpollExclusiveOne},
    {"epoll-exclusive-readd", MakeEpollExclusiveReadd},
    {"epoll-exclusive-readd-1", MakeEpollExclusiveReadd1},
    {"blocking-accept", MakeBlockingAccept},
    {"reuseport", MakeReusePort},
    {"reuseport-cbpf", MakeReusePortCbpf},
    {"reuseport-ebpf", MakeReusePortEbpf},
    {"uring-multishot-each", MakeUringMultishotEach},
    {"uring-oneshot-each", MakeUringOneshotEach},
    {"eventfd-round-robin", MakeEventfdRoundRobin},
    {"eventfd-least-loaded", MakeEventfdLeastLoaded},
};

// Compared with each other and with ringmaster's ways to do the same.
constexpr Entry kDirectRivals[] = {
    {"uring-multishot-direct-each", MakeUringMultishotDirectEach},
    {"uring-oneshot-direct-each", MakeUringOneshotDirectEach},
};
constexpr std::string_view kDirectOfRingmaster[] = {
    "least-loaded/poll-accept/direct/thread",
    "least-loaded/poll-accept/completion-register/thread",
    "least-loaded/poll-accept/inbox-register/thread",
};

constexpr std::string_view kRingmaster = "ringmaster:";

}  // namespace

absl::StatusOr<std::unique_ptr<Mechanism>> MakeMechanism(std::string_view name) {
  for (const Entry& rival : kRivals) {
    if (rival.name == name) return rival.make();
  }
  for (const Entry& rival : kDirectRivals) {
    if (rival.name == name) return rival.make();
  }
  if (name.starts_with(kRingmaster)) return MakeRingmaster(name.substr(kRingmaster.size()));
  return absl::InvalidArgumentError(absl::StrCat(
      "no mechanism is called \"", std::string(name), "\"; known are: ",
      absl::StrJoin(MechanismNames(), ", "), ", ", absl::StrJoin(DirectMechanismNames(), ", ")));
}

std::vector<std::string> MechanismNames() {
  std::vector<std::string> names;
  for (const Entry& rival : kRivals) names.emplace_back(rival.name);
  for (const std::string_view policy : PolicyNames()) {
    // A policy that asks for parameters is not there without them.
    const auto mechanism = MakeRingmaster(policy);
    if (mechanism.ok()) names.push_back((*mechanism)->name());
  }
  return names;
}

std::vector<std::string> DirectMechanismNames() {
  std::vector<std::string> names;
  for (const Entry& rival : kDirectRivals) names.emplace_back(rival.name);
  for (const std::string_view way : kDirectOfRingmaster) {
    names.push_back(absl::StrCat(std::string(kRingmaster), std::string(way)));
  }
  return names;
}

}  // namespace ringmaster::bench
