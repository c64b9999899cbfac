// Does an idle server spread its work? Four clients that think are seldom served at the same time,
// so nearly every connection finds all workers waiting, and the mechanism alone decides.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kClients = 4;
constexpr int64_t kThinkNs = kMillisecond;

class Light : public Workload {
 public:
  std::string name() const override { return "light"; }
  std::string title() const override { return "Even, light load"; }
  std::string description() const override {
    return absl::StrCat(kClients, " clients, each with ", kThinkNs / kMillisecond,
                        " ms of thought between two connections. Every worker could serve at any "
                        "time; look at who does.");
  }
  Question question() const override { return Question::kShare; }
  bool open_loop() const override { return false; }
  bench::Load Load(const Setting&, uint64_t) const override {
    return ClosedLoop{.clients = kClients, .think_ns = kThinkNs};
  }
};

// The client closes last in the other one, so a worker is woken twice for each connection. What the
// mechanism adds to the first time hides behind the second.
class LightOnce : public Light {
 public:
  std::string name() const override { return "light-once"; }
  std::string title() const override { return "Light load, one wake-up each"; }
  std::string description() const override {
    return absl::StrCat(Light::description(),
                        " The worker closes when it has answered, so that it need not be woken "
                        "again: what wakes is the mechanism.");
  }
  std::vector<WorkerTraits> Workers(uint32_t count) const override {
    return std::vector<WorkerTraits>(count, {.hangs_up = true});
  }
};

}  // namespace

std::unique_ptr<Workload> MakeLight(const WorkloadOptions& /*options*/) {
  return std::make_unique<Light>();
}

std::unique_ptr<Workload> MakeLightOnce(const WorkloadOptions& /*options*/) {
  return std::make_unique<LightOnce>();
}

}  // namespace ringmaster::bench
