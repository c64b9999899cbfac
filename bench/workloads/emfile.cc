// What does a server do that has no descriptor left? More clients come than it has descriptors for,
// and those that it let in stay for three seconds. The others wait in the kernel's queue, where
// they are safe. The server has to stop asking for them, without burning a processor meanwhile. It
// has to go on as soon as a descriptor is free.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kDescriptors = 40;
constexpr uint32_t kClients = 70;
constexpr int64_t kOpenNs = 20 * kMillisecond;
constexpr int64_t kHoldNs = 3 * kSecond;
constexpr int64_t kWindowNsMin = kHoldNs + kSecond;

// Since the window's beginning.
int64_t StartNs(uint64_t number) { return kOpenNs * static_cast<int64_t>(number) / kClients; }

class Emfile : public Workload {
 public:
  std::string name() const override { return "emfile"; }
  std::string title() const override { return "No descriptors left"; }
  std::string description() const override {
    return absl::StrCat(kClients, " clients at once, a server that has descriptors for ",
                        kDescriptors, " of them, and nobody goes for ", kHoldNs / kSecond,
                        " s. Look at the CPU time of the server, which has nothing to do. Look at "
                        "how soon it goes on afterwards, and at who got no answer.");
  }
  Question question() const override { return Question::kLoss; }
  bool open_loop() const override { return true; }
  bool holds_connections() const override { return true; }
  int64_t WindowNsMin() const override { return kWindowNsMin; }
  std::optional<uint32_t> Descriptors() const override { return kDescriptors; }
  bench::Load Load(const Setting& setting, uint64_t) const override {
    OpenLoop load{.hold_ns = kHoldNs};
    for (uint32_t i = 0; i < kClients; ++i) {
      load.starts_ns.push_back(setting.warm_up_ns + StartNs(i));
    }
    return load;
  }
  bool logs_answers() const override { return true; }
  void Evaluate(const Evidence& evidence, RunResult& run) const override {
    // A descriptor is free when the first client goes; who was answered later has waited for one.
    std::vector<int64_t> answered_ns;
    for (const Answer& answer : evidence.load.answers) {
      answered_ns.push_back(StartNs(answer.number) + answer.latency_ns);
    }
    std::sort(answered_ns.begin(), answered_ns.end());
    if (answered_ns.empty()) return;
    const int64_t free_ns = answered_ns.front() + kHoldNs;
    const auto resumed = std::lower_bound(answered_ns.begin(), answered_ns.end(), free_ns);
    if (resumed == answered_ns.end()) return;
    run.figures.resume_ms = static_cast<double>(*resumed - free_ns) / kMillisecond;
  }
};

}  // namespace

std::unique_ptr<Workload> MakeEmfile(const WorkloadOptions& /*options*/) {
  return std::make_unique<Emfile>();
}

}  // namespace ringmaster::bench
