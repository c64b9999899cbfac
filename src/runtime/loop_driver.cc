#include "runtime/loop_driver.h"

#include <utility>
#include <vector>

#include "core/op.h"
#include "ring/errors.h"

namespace ringmaster::internal {
namespace {

// How many of the turns that bring a master to rest, the first ones, do not wait.
constexpr int kPromptTurns = 4;
constexpr size_t kLateCompletionsMax = 64;  // of one look after the end

}  // namespace

absl::StatusOr<std::unique_ptr<Driver>> LoopDriver::Create(const MasterEnvironment& environment,
                                                           uint32_t index) {
  absl::StatusOr<std::unique_ptr<ring::UringRing>> ring = MakeRing(environment, /*pollable=*/true);
  if (!ring.ok()) return ring.status();
  return std::unique_ptr<Driver>(new LoopDriver(environment, index, *std::move(ring)));
}

LoopDriver::LoopDriver(const MasterEnvironment& environment, uint32_t index,
                       std::unique_ptr<ring::UringRing> ring)
    : HostDriver(environment, index, SizeOf(*ring)), ring_(std::move(ring)) {
  turns_.UseRing(ring_.get());
}

// The last callback of the host may have taken long, and so may the next one.
void LoopDriver::ComeBy() {
  if (ring_ != nullptr && ring_->HasSomething()) RunOnce().IgnoreError();
}

absl::Status LoopDriver::EnableRing() {
  const int result = ring_->Enable();
  return result < 0 ? ring::ErrorStatus(ring::Operation::kEnableRing, -result) : absl::OkStatus();
}

absl::Status LoopDriver::FinishCall(Call& call, bool goes_on) {
  while (goes_on && !call.done) goes_on = Step(kHostPauseNs) && Advance();
  return call.result;
}

bool LoopDriver::ComeToRest() {
  for (int turns = 0; turns < kLastTurnsMax; ++turns) {
    if (!Step(turns < kPromptTurns ? 0 : kHostPauseNs)) return false;
    if (turns_.AtRest()) break;
  }
  ring_->LetGo();
  return true;
}

void LoopDriver::DriveToEnd() {
  while (Step(turns_.WaitMax())) {
  }
}

// Neither completions that come late, nor that nobody was the host, must keep the descriptor
// readable for ever.
void LoopDriver::ReapAfterEnd(bool host) {
  ring_->StopAsking();
  if (!host) return;
  std::vector<core::Completion> late;
  late.reserve(kLateCompletionsMax);
  ring_->Turn({}, 0, late);
}

}  // namespace ringmaster::internal
