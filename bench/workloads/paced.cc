// What does a connection cost, and how long does it wait, when the server is neither idle nor full?
// Arrivals that know nothing of each other, at a fixed mean rate.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/on_schedule.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kConnectionsPerSecond = 4000;

class Paced : public OnSchedule {
 public:
  explicit Paced(const WorkloadOptions& options) : OnSchedule(options, kConnectionsPerSecond) {}

  std::string name() const override { return "paced"; }
  std::string title() const override { return "Steady load"; }
  std::string description() const override {
    return absl::StrCat(*rate(),
                        " connections per second on a random schedule that waits for nobody. "
                        "Everybody does the same work, so the latency, the wake-ups and the CPU "
                        "time of a connection are the mechanism's.");
  }
  Question question() const override { return Question::kTail; }
};

}  // namespace

std::unique_ptr<Workload> MakePaced(const WorkloadOptions& options) {
  return std::make_unique<Paced>(options);
}

}  // namespace ringmaster::bench
