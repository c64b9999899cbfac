// What does a connection cost, and how long does it wait, when the server is neither idle nor full?
// Arrivals that know nothing of each other, at a fixed mean rate.

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kConnectionsPerSecond = 4000;

class Paced : public Workload {
 public:
  explicit Paced(const WorkloadOptions& options)
      : rate_(options.rate.value_or(kConnectionsPerSecond)) {}

  std::string name() const override { return "paced"; }
  std::string title() const override { return "Steady load"; }
  std::string description() const override {
    return absl::StrCat(rate_,
                        " connections per second on a random schedule that waits for nobody. "
                        "Everybody does the same work, so the latency, the wake-ups and the CPU "
                        "time of a connection are the mechanism's.");
  }
  Question question() const override { return Question::kTail; }
  bool open_loop() const override { return true; }
  std::optional<double> rate() const override { return rate_; }
  bench::Load Load(const Setting& setting, uint64_t seed) const override {
    return OpenLoop{.starts_ns = PoissonSchedule(rate_, setting.TotalNs(), seed)};
  }

 private:
  const double rate_;
};

}  // namespace

std::unique_ptr<Workload> MakePaced(const WorkloadOptions& options) {
  return std::make_unique<Paced>(options);
}

}  // namespace ringmaster::bench
