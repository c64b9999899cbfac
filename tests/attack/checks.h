// What the headers of the library promise, as checks. A broken one ends the program.

#ifndef RINGMASTER_TESTS_ATTACK_CHECKS_H_
#define RINGMASTER_TESTS_ATTACK_CHECKS_H_

#include <cstddef>
#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "attack/trace.h"
#include "ringmaster/stats.h"

namespace ringmaster::attack {

// `status` is OK or has one of `codes`, and an error has a text. Returns whether it is OK.
bool Expect(Call& call, const absl::Status& status, std::initializer_list<absl::StatusCode> codes);

// `status` has this very code.
void ExpectError(Call& call, const absl::Status& status, absl::StatusCode code);

// What holds in every snapshot.
void CheckStats(const BalancerStats& stats, const std::string& when);

// Everything that they say, to stderr: for a failure.
void PrintStats(const BalancerStats& stats);

// What holds besides in the report of a balancer that has ended.
void CheckReport(const ShutdownReport& report, const std::string& when);

// Descriptors and threads that this process has now.
struct Belongings {
  size_t descriptors = 0;
  size_t threads = 0;
};
Belongings Count();

// Waits, up to some seconds, until there is no more than `before`.
void CheckNothingIsLeft(const Belongings& before);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_CHECKS_H_
