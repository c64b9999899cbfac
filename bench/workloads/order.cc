// Who is next? One client comes at a time, with a pause in which everybody goes back to sleep. So
// the sequence of workers is the mechanism's order and nothing else.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr int64_t kThinkNs = kMillisecond;
constexpr size_t kShownMax = 24;

class Order : public Workload {
 public:
  std::string name() const override { return "order"; }
  std::string title() const override { return "One at a time"; }
  std::string description() const override {
    return absl::StrCat("One client, with ", kThinkNs / kMillisecond,
                        " ms of thought between two connections. Every worker sleeps when a "
                        "connection comes; look at the order in which they are woken.");
  }
  Question question() const override { return Question::kShare; }
  bool open_loop() const override { return false; }
  bench::Load Load(const Setting&, uint64_t) const override {
    return ClosedLoop{.clients = 1, .think_ns = kThinkNs};
  }
  bool logs_answers() const override { return true; }
  void Evaluate(const Evidence& evidence, RunResult& run) const override {
    for (const Answer& answer : evidence.load.answers) {
      if (run.order.size() == kShownMax) break;
      if (answer.worker >= 0) run.order.push_back(static_cast<uint32_t>(answer.worker));
    }
  }
};

}  // namespace

std::unique_ptr<Workload> MakeOrder(const WorkloadOptions& /*options*/) {
  return std::make_unique<Order>();
}

}  // namespace ringmaster::bench
