// Does an idle server spread its work? Four clients that think are seldom served at the same time,
// so nearly every connection finds all workers waiting, and the mechanism alone decides.

#include <string>

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
  std::variant<ClosedLoop, OpenLoop> Load(const Setting&, uint64_t) const override {
    return ClosedLoop{.clients = kClients, .think_ns = kThinkNs};
  }
};

}  // namespace

std::unique_ptr<Workload> MakeLight(const WorkloadOptions& /*options*/) {
  return std::make_unique<Light>();
}

}  // namespace ringmaster::bench
