// What does a server do to which ten times as many want to connect as it may serve at once? Every
// worker has a cap on its open connections, and every client stays for a while. What is not
// admitted waits in the kernel's queue, where it costs the server nothing. A mechanism that accepts
// before it knows who can serve goes beyond the cap.

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kCapacity = 8;  // of each worker
constexpr uint32_t kTimes = 10;
constexpr int64_t kHoldNs = 50 * kMillisecond;

class Flood : public Workload {
 public:
  std::string name() const override { return "flood"; }
  std::string title() const override { return "Ten times the cap"; }
  std::string description() const override {
    return absl::StrCat("Workers that may have ", kCapacity, " connections at once, and ", kTimes,
                        " times as many clients as that makes, each of which keeps its "
                        "connection for ",
                        kHoldNs / kMillisecond,
                        " ms. Look at how many were open beyond the cap, and at who got no "
                        "answer; the connections per second say whether the cap was used.");
  }
  Question question() const override { return Question::kLoss; }
  bool open_loop() const override { return false; }
  bool holds_connections() const override { return true; }
  bench::Load Load(const Setting& setting, uint64_t) const override {
    return ClosedLoop{.clients = kTimes * kCapacity * setting.workers, .hold_ns = kHoldNs};
  }
  std::vector<WorkerTraits> Workers(uint32_t count) const override {
    return std::vector<WorkerTraits>(count, WorkerTraits{.capacity = kCapacity});
  }
  void Evaluate(const Evidence& evidence, RunResult& run) const override {
    double over = 0;
    for (const uint64_t open : evidence.open_max) {
      over += static_cast<double>(std::max<uint64_t>(open, kCapacity) - kCapacity);
    }
    run.figures.over_cap = over;
  }
};

}  // namespace

std::unique_ptr<Workload> MakeFlood(const WorkloadOptions& /*options*/) {
  return std::make_unique<Flood>();
}

}  // namespace ringmaster::bench
