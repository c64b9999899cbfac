#include "runtime/driver.h"

#include <algorithm>
#include <utility>

#include "runtime/inside.h"
#include "runtime/loop_driver.h"
#include "runtime/refusals.h"
#include "runtime/ring_driver.h"
#include "runtime/thread_driver.h"
#include "runtime/thread_watch.h"

namespace ringmaster::internal {
namespace {

constexpr uint32_t kSubmissionEntries = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<Driver>> Driver::Create(const MasterEnvironment& environment,
                                                       uint32_t index) {
  switch (environment.options.host) {
    case Host::kThread:
      return ThreadDriver::Create(environment, index);
    case Host::kLoop:
      return LoopDriver::Create(environment, index);
    case Host::kRing:
      return RingDriver::Create(environment, index);
  }
  return absl::InvalidArgumentError("the host is none of those that Host names");
}

absl::StatusOr<std::unique_ptr<ring::UringRing>> Driver::MakeRing(
    const MasterEnvironment& environment, bool pollable) {
  const BalancerOptions& options = environment.options;
  return ring::UringRing::Create(
      {.submission_entries = std::min(kSubmissionEntries, options.completion_entries),
       .completion_entries = options.completion_entries,
       .pollable = pollable,
       .restrict = options.restrict_ring,
       .features = environment.features,
       .owner = environment.shared->id()});
}

bool Driver::OnThisThread() const {
  return thread_.load(std::memory_order_relaxed) == ThisThread();
}

absl::Status Driver::Queue(std::unique_lock<std::mutex>& lock, Call& call) {
  turns_.calls().Add(call);
  turns_.shared().Knock();
  turns_.lock().changed.wait(lock, [&] { return call.done; });
  return call.result;
}

bool Driver::Step(core::Wait wait) {
  const Inside within(environment_);
  return RefusingExceptions([&] {
    absl::Status why;
    if (turns_.Take(wait, why)) return true;
    End(std::move(why));
    return false;
  });
}

void Driver::End(absl::Status why) {
  LetGoOfRing();
  turns_.End(std::move(why));
}

void Driver::EndWithoutRing() {
  const Inside within(environment_);
  turns_.RefuseWithoutRing();
  turns_.End(BalancerEnded());
}

void Driver::DropRing() {
  turns_.UseRing(nullptr);
  DestroyRing();
}

// The lock is needed, because a port that leaves now looks at the ring.
void Driver::CloseRing() {
  const std::lock_guard lock(turns_.lock().mutex);
  DropRing();
  turns_.CloseRings();
}

absl::Status Driver::RunOnce() {
  return absl::FailedPreconditionError(
      "this balancer has a thread of its own: create it with BalancerOptions::host = "
      "Host::kLoop or Host::kRing to drive it");
}

absl::Status Driver::Lend(RingLoan /*loan*/) {
  return absl::FailedPreconditionError(
      "a ring is lent, but this balancer does not use one: create it with Host::kRing");
}

}  // namespace ringmaster::internal
