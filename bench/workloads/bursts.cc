// What happens when many arrive at once, as after a broadcast, a retry or a reconnect? A burst
// every 50 ms, with silence in between: the first of it finds everybody asleep.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kConnectionsPerBurst = 100;
constexpr int64_t kPauseNs = 50 * kMillisecond;

class Bursts : public Workload {
 public:
  std::string name() const override { return "bursts"; }
  std::string title() const override { return "Bursts"; }
  std::string description() const override {
    return absl::StrCat(
        kConnectionsPerBurst, " connections at once, every ", kPauseNs / kMillisecond,
        " ms. The latency says how soon the last of a burst is served, with the time "
        "that one client program takes to open it. The shares say whether all workers "
        "helped.");
  }
  Question question() const override { return Question::kTail; }
  bool open_loop() const override { return true; }
  bench::Load Load(const Setting& setting, uint64_t) const override {
    OpenLoop load;
    for (int64_t at_ns = 0; at_ns < setting.TotalNs(); at_ns += kPauseNs) {
      load.starts_ns.insert(load.starts_ns.end(), kConnectionsPerBurst, at_ns);
    }
    return load;
  }
};

}  // namespace

std::unique_ptr<Workload> MakeBursts(const WorkloadOptions& /*options*/) {
  return std::make_unique<Bursts>();
}

}  // namespace ringmaster::bench
