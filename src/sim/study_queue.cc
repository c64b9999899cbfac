// The ideal of a study, and the figures that both have.

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "sim/study.h"

namespace ringmaster::sim {
namespace {

class OneQueue {
 public:
  explicit OneQueue(const Load& load) : load_(load) {
    for (uint32_t worker = 0; worker < load.workers; ++worker) SetFree(worker);
  }

  StudyOutcome Serve() {
    StudyOutcome outcome;
    outcome.taken.resize(load_.workers);
    int64_t now_ns = 0;  // never falls: who came first begins first
    for (const LoadRequest& request : load_.requests) {
      now_ns = std::max(now_ns, request.at_ns);
      const uint32_t worker = NextFree(now_ns);
      if (worker == kNoWorker) {
        ++outcome.lost;
        outcome.wait_ns.push_back(-1);
        outcome.sojourn_ns.push_back(-1);
        continue;
      }
      ++outcome.taken[worker];
      const int64_t done_ns = now_ns + load_.ServiceNs(worker, request);
      busy_.push({done_ns, worker});
      outcome.wait_ns.push_back(now_ns - request.at_ns);
      outcome.sojourn_ns.push_back(done_ns - request.at_ns);
    }
    return outcome;
  }

 private:
  using Busy = std::pair<int64_t, uint32_t>;  // until when, who

  void SetFree(uint32_t worker) { (worker == load_.slow_worker ? slow_ : free_).push_back(worker); }

  // Somebody who is free at `now_ns`, which moves on until there is one.
  uint32_t NextFree(int64_t& now_ns) {
    while (true) {
      for (; !busy_.empty() && busy_.top().first <= now_ns; busy_.pop()) {
        SetFree(busy_.top().second);
      }
      for (std::deque<uint32_t>* const queue : {&free_, &slow_}) {
        while (!queue->empty()) {
          const uint32_t worker = queue->front();
          queue->pop_front();
          if (!load_.Dead(worker, now_ns)) return worker;
        }
      }
      if (busy_.empty()) return kNoWorker;
      now_ns = busy_.top().first;
    }
  }

  const Load& load_;
  std::priority_queue<Busy, std::vector<Busy>, std::greater<>> busy_;
  std::deque<uint32_t> free_;  // who is free longest first
  std::deque<uint32_t> slow_;
};

int64_t Quantile(std::vector<int64_t>& values, double quantile) {
  const double wanted = std::ceil(quantile * static_cast<double>(values.size()));
  const auto rank = std::clamp<size_t>(static_cast<size_t>(wanted), 1, values.size()) - 1;
  const auto at = values.begin() + static_cast<ptrdiff_t>(rank);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

StudyOutcome ServeFromOneQueue(const Load& load) { return OneQueue(load).Serve(); }

Distribution Summarize(std::span<const int64_t> values_ns) {
  std::vector<int64_t> served;
  served.reserve(values_ns.size());
  double sum = 0;
  for (const int64_t value : values_ns) {
    if (value < 0) continue;
    served.push_back(value);
    sum += static_cast<double>(value);
  }
  if (served.empty()) return {};
  return {.mean_ns = sum / static_cast<double>(served.size()),
          .p50_ns = Quantile(served, 0.5),
          .p99_ns = Quantile(served, 0.99),
          .p999_ns = Quantile(served, 0.999),
          .max_ns = *std::max_element(served.begin(), served.end())};
}

double JainIndex(std::span<const uint64_t> counts) {
  double sum = 0;
  double squares = 0;
  for (const uint64_t count : counts) {
    const auto value = static_cast<double>(count);
    sum += value;
    squares += value * value;
  }
  return squares == 0 ? 1 : sum * sum / (static_cast<double>(counts.size()) * squares);
}

}  // namespace ringmaster::sim
