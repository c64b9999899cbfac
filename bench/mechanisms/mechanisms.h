// The mechanisms' makers, for the table in mechanism.cc.

#ifndef RINGMASTER_BENCH_MECHANISMS_MECHANISMS_H_
#define RINGMASTER_BENCH_MECHANISMS_MECHANISMS_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "bench/mechanism.h"

namespace ringmaster::bench {

std::unique_ptr<Mechanism> MakeBlockingAccept();
std::unique_ptr<Mechanism> MakeEpollExclusive();
std::unique_ptr<Mechanism> MakeEpollExclusiveOne();
std::unique_ptr<Mechanism> MakeEpollExclusiveReadd();
std::unique_ptr<Mechanism> MakeEpollExclusiveReadd1();
std::unique_ptr<Mechanism> MakeEpollShared();
std::unique_ptr<Mechanism> MakeEventfdLeastLoaded();
std::unique_ptr<Mechanism> MakeEventfdRoundRobin();
std::unique_ptr<Mechanism> MakeReusePort();
std::unique_ptr<Mechanism> MakeReusePortCbpf();
std::unique_ptr<Mechanism> MakeReusePortEbpf();
std::unique_ptr<Mechanism> MakeUringMultishotDirectEach();
std::unique_ptr<Mechanism> MakeUringMultishotEach();
std::unique_ptr<Mechanism> MakeUringOneshotDirectEach();
std::unique_ptr<Mechanism> MakeUringOneshotEach();

// "POLICY/INTAKE/HANDOFF/HOST", whose last parts may be left out. InvalidArgument names what is
// known where something is not.
absl::StatusOr<std::unique_ptr<Mechanism>> MakeRingmaster(std::string_view variant);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_MECHANISMS_H_
