// Whom to tell that the intake of a balancer has ended, and that the balancer has.

#ifndef RINGMASTER_SRC_RUNTIME_ENDING_H_
#define RINGMASTER_SRC_RUNTIME_ENDING_H_

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"
#include "ringmaster/balancer.h"
#include "ringmaster/stats.h"

namespace ringmaster::internal {

// Each end comes when the last of the masters has reached it. Any thread. Nobody is told while the
// mutex is held.
class Ending {
 public:
  using Report = absl::FunctionRef<ShutdownReport()>;

  explicit Ending(uint32_t masters) : intakes_(masters), running_(masters) {}
  Ending(const Ending&) = delete;
  Ending& operator=(const Ending&) = delete;

  // Notes the callbacks of `options`. Those whose end has come already are called at once.
  // `report` is asked only when the balancer has ended.
  void Note(ShutdownOptions& options, Report report);

  // Each master calls each of these once, the second when its report is there. `let_go` is called
  // when the last intake has ended, before anybody is told, and with the mutex: whoever is told
  // closes what the balancer has watched.
  void IntakeEnded(absl::FunctionRef<void()> let_go);
  void MasterEnded(Report report);

 private:
  std::mutex mutex_;
  // Guarded by mutex_: how many masters still have an intake, how many have not ended, and whom to
  // tell when none is left.
  uint32_t intakes_;
  uint32_t running_;
  std::vector<std::function<void()>> on_intake_ended_;
  std::vector<std::function<void(const ShutdownReport&)>> on_ended_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_ENDING_H_
