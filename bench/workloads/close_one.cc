// What becomes of the connections that wait for a worker that leaves? Worker 0 stops for a moment
// with a connection in its hands, so that its queue fills, if it has one. Then it leaves. It takes
// no more connections, closes its listener if that is its own, and serves what it has to the end.
// This is what happens when there are to be fewer workers, or when one that has its own listener is
// restarted. nginx keeps its listeners when it reloads with as many workers as before.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/on_schedule.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kConnectionsPerSecond = 4000;
constexpr int64_t kFreezeAtNs = 250 * kMillisecond;
// Long enough for more connections to queue up than a worker takes in one turn, with an even share
// among up to a dozen workers.
constexpr int64_t kFreezeNs = 300 * kMillisecond;
constexpr int64_t kLeaveAtNs = kFreezeAtNs + kFreezeNs / 2;
constexpr int64_t kWindowNsMin = kSecond;

class CloseOne : public OnSchedule {
 public:
  explicit CloseOne(const WorkloadOptions& options) : OnSchedule(options, kConnectionsPerSecond) {}

  std::string name() const override { return "close-one"; }
  std::string title() const override { return "One worker leaves"; }
  std::string description() const override {
    return absl::StrCat(*rate(),
                        " connections per second on a random schedule that waits for nobody; "
                        "worker 0 stops for ",
                        kFreezeNs / kMillisecond,
                        " ms and then leaves, with whatever waits for it. Look at the connections "
                        "that got no answer.");
  }
  Question question() const override { return Question::kLoss; }
  int64_t WindowNsMin() const override { return kWindowNsMin; }
  std::vector<Incident> Incidents(int64_t) const override {
    // It sees that it is to leave when it moves again.
    return {{.at_ns = kFreezeAtNs, .worker = 0, .freeze_ns = kFreezeNs},
            {.at_ns = kLeaveAtNs, .worker = 0, .leaves = true}};
  }
};

}  // namespace

std::unique_ptr<Workload> MakeCloseOne(const WorkloadOptions& options) {
  return std::make_unique<CloseOne>(options);
}

}  // namespace ringmaster::bench
