// What happens when connections do not take the same time? Most are cheap, some take a thousand
// times as much. The work of each is drawn from a Pareto distribution with a long tail, by its
// number, so that every mechanism gets the same. It is computed, not slept, so it takes a processor
// away from others.

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "bench/random.h"
#include "bench/workloads/on_schedule.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kConnectionsPerSecond = 3000;

// Units of work, about a microsecond each. With this shape and these limits the mean is 90 units,
// and one connection in a hundred takes more than 900.
constexpr double kShape = 1.2;
constexpr double kWorkMin = 20;
constexpr double kWorkMax = 20'000;

class Skewed : public OnSchedule {
 public:
  explicit Skewed(const WorkloadOptions& options) : OnSchedule(options, kConnectionsPerSecond) {}

  std::string name() const override { return "skewed"; }
  std::string title() const override { return "Uneven work"; }
  std::string description() const override {
    return absl::StrCat(*rate(),
                        " connections per second on a random schedule that waits for nobody; "
                        "each asks for ",
                        kWorkMin, " to ", kWorkMax,
                        " µs of computing, heavy-tailed, with a mean of some 90. Look at the tail: "
                        "who waits behind the expensive ones.");
  }
  Question question() const override { return Question::kTail; }
  // The inverse of the distribution function of a bounded Pareto distribution.
  uint32_t Work(uint64_t number, uint64_t seed) const override {
    Random random(seed ^ (number * 0x9e3779b97f4a7c15));
    const double tail = 1 - std::pow(kWorkMin / kWorkMax, kShape);
    const double work = kWorkMin / std::pow(1 - random.Uniform() * tail, 1 / kShape);
    return static_cast<uint32_t>(std::min(work, kWorkMax));
  }
};

}  // namespace

std::unique_ptr<Workload> MakeSkewed(const WorkloadOptions& options) {
  return std::make_unique<Skewed>(options);
}

}  // namespace ringmaster::bench
