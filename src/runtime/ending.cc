#include "runtime/ending.h"

#include <utility>

namespace ringmaster::internal {

void Ending::Note(ShutdownOptions& options, Report report) {
  // The two are noted one after the other. If both were noted at once, and the intake had ended
  // already, the end could be told before the end of the intake, which is told here.
  bool intake_ended = false;
  {
    const std::lock_guard lock(mutex_);
    intake_ended = intakes_ == 0;
    if (options.on_intake_ended && !intake_ended) {
      on_intake_ended_.push_back(std::move(options.on_intake_ended));
    }
  }
  if (options.on_intake_ended && intake_ended) options.on_intake_ended();
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    ended = running_ == 0;
    if (options.on_ended && !ended) on_ended_.push_back(std::move(options.on_ended));
  }
  if (options.on_ended && ended) options.on_ended(report());
}

void Ending::IntakeEnded(absl::FunctionRef<void()> let_go) {
  std::vector<std::function<void()>> tell;
  {
    const std::lock_guard lock(mutex_);
    if (--intakes_ > 0) return;
    let_go();
    tell = std::move(on_intake_ended_);
  }
  for (const auto& call : tell) call();
}

void Ending::MasterEnded(Report report) {
  std::vector<std::function<void(const ShutdownReport&)>> tell;
  {
    const std::lock_guard lock(mutex_);
    if (--running_ > 0) return;
    tell = std::move(on_ended_);
  }
  if (tell.empty()) return;
  const ShutdownReport ended = report();
  for (const auto& call : tell) call(ended);
}

}  // namespace ringmaster::internal
