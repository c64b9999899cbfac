// Where do a few connections end up that stay, as those of databases, message brokers and gRPC do?
// When there are hardly more of them than workers, chance is no spread. Two on one worker while
// another has none is a server at half its strength, for as long as they last.
//
// One trial comes after the other. In each, so many connections are opened one by one, at random
// moments within 20 ms. They are held for longer than that, so that all of them are there at some
// time. A trial in which a worker has none although another has two or more counts as one with an
// idle worker.

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/random.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr int64_t kOpenNs = 20 * kMillisecond;
constexpr int64_t kHoldNs = 40 * kMillisecond;
constexpr int64_t kTrialNs = 80 * kMillisecond;  // the rest is for the server to notice the end
constexpr int64_t kWindowNsMin = 2 * kSecond;

class FewLong : public Workload {
 public:
  explicit FewLong(uint32_t connections) : connections_(connections) {}

  std::string name() const override { return absl::StrCat("few-long-", connections_); }
  std::string title() const override {
    return absl::StrCat(connections_, " long-lived connections");
  }
  std::string description() const override {
    return absl::StrCat(connections_,
                        " connections are opened one by one and stay open together; "
                        "then they are closed, and the next trial begins. Look at the share of "
                        "trials in which a worker had none although another had two or more.");
  }
  Question question() const override { return Question::kShare; }
  bool open_loop() const override { return true; }
  bool holds_connections() const override { return true; }
  int64_t WindowNsMin() const override { return kWindowNsMin; }

  // Whole trials only, from the window's beginning on; those before are the warm-up.
  bench::Load Load(const Setting& setting, uint64_t seed) const override {
    OpenLoop load{.hold_ns = kHoldNs};
    Random random(seed);
    for (int64_t trial_ns = setting.warm_up_ns % kTrialNs; trial_ns + kTrialNs <= setting.TotalNs();
         trial_ns += kTrialNs) {
      const size_t first = load.starts_ns.size();
      for (uint32_t i = 0; i < connections_; ++i) {
        load.starts_ns.push_back(trial_ns + static_cast<int64_t>(random.Uniform() * kOpenNs));
      }
      std::sort(load.starts_ns.begin() + static_cast<ptrdiff_t>(first), load.starts_ns.end());
    }
    return load;
  }

  bool logs_answers() const override { return true; }
  void Evaluate(const Evidence& evidence, RunResult& run) const override {
    // Connections are numbered as the schedule has them, so the trial follows from the number.
    std::map<uint64_t, std::vector<uint32_t>> trials;
    for (const Answer& answer : evidence.load.answers) {
      std::vector<uint32_t>& by_worker = trials[answer.number / connections_];
      by_worker.resize(evidence.setting.workers);
      if (answer.worker >= 0) ++by_worker.at(static_cast<size_t>(answer.worker));
    }
    if (trials.empty()) return;
    const auto idle = [](const auto& trial) {
      const auto [least, most] = std::minmax_element(trial.second.begin(), trial.second.end());
      return *least == 0 && *most > 1;
    };
    run.figures.idle_worker_share =
        static_cast<double>(std::count_if(trials.begin(), trials.end(), idle)) /
        static_cast<double>(trials.size());
  }

 private:
  const uint32_t connections_;
};

}  // namespace

std::unique_ptr<Workload> MakeFewLong2(const WorkloadOptions& /*options*/) {
  return std::make_unique<FewLong>(2);
}

std::unique_ptr<Workload> MakeFewLong3(const WorkloadOptions& /*options*/) {
  return std::make_unique<FewLong>(3);
}

std::unique_ptr<Workload> MakeFewLong17(const WorkloadOptions& /*options*/) {
  return std::make_unique<FewLong>(17);
}

}  // namespace ringmaster::bench
