#include "runtime/master_end.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace ringmaster::internal {

void MasterEnd::Ask(int64_t until_ns) {
  asked_ns_ = std::min(asked_ns_.value_or(until_ns), until_ns);
}

bool MasterEnd::Obey() {
  std::optional<int64_t> until_ns;
  {
    const std::lock_guard lock(lock_.mutex);
    until_ns = std::exchange(asked_ns_, std::nullopt);
  }
  if (!until_ns.has_value()) return false;
  until_ns_ = begun_ ? std::min(until_ns_, *until_ns) : *until_ns;
  if (std::exchange(begun_, true)) return false;
  environment_.shared->BeginDrain();
  return true;
}

int64_t MasterEnd::Limit(int64_t wait_ns, int64_t now_ns) const {
  if (!begun_ || Due(now_ns)) return wait_ns;
  return std::min(wait_ns, std::max<int64_t>(0, until_ns_ - now_ns));
}

void MasterEnd::SayIntakeEnded() {
  if (!std::exchange(intake_ended_said_, true)) environment_.intake_ended();
}

void MasterEnd::Count() {
  if (!std::exchange(counted_, true)) environment_.shared->CountEnded();
}

void MasterEnd::Refuse(uint64_t refused) {
  if (!refused_before_.has_value()) refused_before_ = refused;
}

void MasterEnd::GiveUpNow() {
  until_ns_ = 0;
  given_up_ = true;
}

void MasterEnd::Report(ShutdownReport report) {
  if (refused_before_.has_value()) report.refused = report.stats.refused - *refused_before_;
  report.drained = begun_ && report.open == 0 && !given_up_;
  {
    const std::lock_guard lock(lock_.mutex);
    report_ = std::move(report);
  }
  environment_.ended();
}

void MasterEnd::Complete(absl::Status why) {
  why_ = std::move(why);
  ended_ = true;
}

}  // namespace ringmaster::internal
