// What becomes of the connections of a worker that stops for a second? A worker does so that
// collects garbage, waits for a lock or is stopped by a debugger. It freezes with the next
// connection that it takes, a quarter of a second after the window's beginning, and then goes on.
// Nothing is lost with any mechanism; what differs is how many connections wait for it, and for how
// long.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/on_schedule.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kConnectionsPerSecond = 4000;
constexpr int64_t kFreezeAtNs = 250 * kMillisecond;
constexpr int64_t kFreezeNs = kSecond;
constexpr int64_t kWindowNsMin = 2 * kSecond;

class FrozenWorker : public OnSchedule {
 public:
  explicit FrozenWorker(const WorkloadOptions& options)
      : OnSchedule(options, kConnectionsPerSecond) {}

  std::string name() const override { return "frozen-worker"; }
  std::string title() const override { return "One worker freezes"; }
  std::string description() const override {
    return absl::StrCat(*rate(),
                        " connections per second on a random schedule that waits for nobody; "
                        "worker 0 freezes for a second with a connection in its hands. One "
                        "connection has to wait for it. Look at how many do: the p99 tells.");
  }
  Question question() const override { return Question::kTail; }
  int64_t WindowNsMin() const override { return kWindowNsMin; }
  std::vector<Incident> Incidents(int64_t) const override {
    return {{.at_ns = kFreezeAtNs, .worker = 0, .freeze_ns = kFreezeNs}};
  }
};

}  // namespace

std::unique_ptr<Workload> MakeFrozenWorker(const WorkloadOptions& options) {
  return std::make_unique<FrozenWorker>(options);
}

}  // namespace ringmaster::bench
