// Who waits behind a worker that is slow? One worker sleeps with every connection that it takes, as
// one does that swaps, compiles or waits for a disk; the others could serve everything.
//
// Two loads ask two questions. An open loop shows the tail: who waits, and how long. A closed loop
// of few clients shows the throughput. Clients that wait behind the slow worker ask for nothing
// else meanwhile. So a mechanism that keeps giving to it ends up at the slow worker's pace.

#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/workloads/on_schedule.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kConnectionsPerSecond = 2000;
constexpr int64_t kDelayNs = 20 * kMillisecond;
constexpr uint32_t kClients = 16;
constexpr int64_t kThinkNs = 500 * kMicrosecond;

std::vector<WorkerTraits> OneSlowWorker(uint32_t count) {
  std::vector<WorkerTraits> workers(count);
  workers.front().delay_ns = kDelayNs;
  return workers;
}

class SlowWorker : public OnSchedule {
 public:
  explicit SlowWorker(const WorkloadOptions& options)
      : OnSchedule(options, kConnectionsPerSecond) {}

  std::string name() const override { return "slow-worker"; }
  std::string title() const override { return "One slow worker"; }
  std::string description() const override {
    return absl::StrCat(*rate(),
                        " connections per second on a random schedule that "
                        "waits for nobody; worker 0 sleeps ",
                        kDelayNs / kMillisecond,
                        " ms with each connection that it takes. An even share would be wrong "
                        "here: look at the tail of the latency, and at worker 0.");
  }
  Question question() const override { return Question::kTail; }
  std::vector<WorkerTraits> Workers(uint32_t count) const override { return OneSlowWorker(count); }
};

class SlowWorkerClosed : public Workload {
 public:
  std::string name() const override { return "slow-worker-closed"; }
  std::string title() const override { return "One slow worker, few clients"; }
  std::string description() const override {
    return absl::StrCat(kClients,
                        " clients, each with half a millisecond of thought between two "
                        "connections; worker 0 sleeps ",
                        kDelayNs / kMillisecond,
                        " ms with each connection that it takes. Look at the connections per "
                        "second: clients that wait behind worker 0 ask for nothing else.");
  }
  Question question() const override { return Question::kThroughput; }
  bool open_loop() const override { return false; }
  std::vector<WorkerTraits> Workers(uint32_t count) const override { return OneSlowWorker(count); }
  bench::Load Load(const Setting&, uint64_t) const override {
    return ClosedLoop{.clients = kClients, .think_ns = kThinkNs};
  }
};

}  // namespace

std::unique_ptr<Workload> MakeSlowWorker(const WorkloadOptions& options) {
  return std::make_unique<SlowWorker>(options);
}

std::unique_ptr<Workload> MakeSlowWorkerClosed(const WorkloadOptions& /*options*/) {
  return std::make_unique<SlowWorkerClosed>();
}

}  // namespace ringmaster::bench
