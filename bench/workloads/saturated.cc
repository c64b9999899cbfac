// What does the mechanism cost when there is no idle time left? As many clients as keep every
// worker busy, none of which thinks.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kClients = 64;

class Saturated : public Workload {
 public:
  std::string name() const override { return "saturated"; }
  std::string title() const override { return "Full load"; }
  std::string description() const override {
    return absl::StrCat(kClients,
                        " clients without a pause. Look at the connections per second; the "
                        "latency says mostly how long the queue of clients is.");
  }
  Question question() const override { return Question::kThroughput; }
  bool open_loop() const override { return false; }
  bench::Load Load(const Setting&, uint64_t) const override {
    return ClosedLoop{.clients = kClients, .think_ns = 0};
  }
};

}  // namespace

std::unique_ptr<Workload> MakeSaturated(const WorkloadOptions& /*options*/) {
  return std::make_unique<Saturated>();
}

}  // namespace ringmaster::bench
