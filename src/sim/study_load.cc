#include "sim/study_load.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "sim/prng.h"

namespace ringmaster::sim {
namespace {

// From 0 inclusive to 1 exclusive.
double Uniform(Prng& prng) { return static_cast<double>(prng.Next() >> 11) * 0x1.0p-53; }

// Exactly, where Prng::Exponential is near enough for faults: a queue depends on its second moment.
double Exponential(Prng& prng, double mean) { return -mean * std::log1p(-Uniform(prng)); }

double BoundedPareto(Prng& prng, double shortest) {
  const double rare = std::pow(kTailSpread, -kTailShape);  // what is cut off beyond the longest
  return shortest * std::pow(1 - Uniform(prng) * (1 - rare), -1 / kTailShape);
}

int64_t Ns(double value) { return std::llround(value); }

class Drawing {
 public:
  explicit Drawing(const LoadOptions& options)
      : options_(options), mean_(static_cast<double>(options.service_ns)), prng_(options.seed) {
    load_.workers = options.workers;
    if (options.kind == LoadKind::kOneSlow) load_.slow_worker = 0;
    if (options.kind == LoadKind::kOneDead) load_.dead_worker = 0;
  }

  Load Draw() {
    gap_ = mean_ / (options_.load * Capacity());
    load_.requests.reserve(options_.requests);
    if (options_.kind == LoadKind::kLongLived) {
      DrawLongLived();
    } else if (options_.kind == LoadKind::kBursts) {
      DrawBursts();
    } else {
      DrawIndependent();
    }
    return Finish();
  }

  Load Take(std::span<const TracedArrival> trace) {
    const double before = OfferedLoad(trace, options_.workers);
    const double stretch = options_.load > 0 && before > 0 ? before / options_.load : 1;
    for (const TracedArrival& arrival : trace) {
      Add(static_cast<double>(arrival.at_ns) * stretch, static_cast<double>(arrival.service_ns));
    }
    return Finish();
  }

 private:
  // In workers that are not slow.
  double Capacity() const {
    const double workers = options_.workers;
    if (load_.slow_worker != kNoWorker) return workers - 1 + 1 / kSlowFactor;
    if (load_.dead_worker != kNoWorker) return workers - 1;
    return workers;
  }

  double Service() {
    if (options_.kind == LoadKind::kHeavyTail) return BoundedPareto(prng_, TailShortest(mean_));
    return Exponential(prng_, mean_);
  }

  void Add(double at, double service) {
    load_.requests.push_back({.at_ns = Ns(at),
                              .service_ns = std::max<int64_t>(Ns(service), 1),
                              .connection = static_cast<uint32_t>(load_.connections.size())});
    load_.connections.emplace_back();
  }

  void DrawIndependent() {
    double at = 0;
    for (uint32_t i = 0; i < options_.requests; ++i) {
      at += Exponential(prng_, gap_);
      Add(at, Service());
    }
  }

  void DrawBursts() {
    const auto burst = static_cast<uint32_t>(std::max(2.0, options_.workers * kBurstPerWorker));
    double at = 0;
    while (load_.requests.size() < options_.requests) {
      at += Exponential(prng_, gap_ * burst);
      for (uint32_t i = 0; i < burst; ++i) Add(at, Service());
    }
  }

  // As many connections as are open on average come at the beginning, so that the load is there
  // from the start. Geometric numbers of requests do not tell how many a connection has had before.
  void DrawLongLived() {
    const double until = gap_ * options_.requests;
    const double pause = gap_ * options_.workers * kOpenMean;  // between two of a connection
    for (uint32_t i = 0; i < options_.workers * kOpenMean; ++i) {
      AddLongLived(Exponential(prng_, pause), pause, until);
    }
    const double between = gap_ * kRequestsMean;
    for (double at = Exponential(prng_, between); at < until; at += Exponential(prng_, between)) {
      AddLongLived(at, pause, until);
    }
  }

  void AddLongLived(double at, double pause, double until) {
    const auto connection = static_cast<uint32_t>(load_.connections.size());
    if (at >= until) return;
    load_.connections.emplace_back();
    do {
      load_.requests.push_back({.at_ns = Ns(at),
                                .service_ns = std::max<int64_t>(Ns(Service()), 1),
                                .connection = connection});
      at += Exponential(prng_, pause);
    } while (at < until && prng_.Below(kRequestsMean) != 0);
  }

  Load Finish() {
    std::stable_sort(load_.requests.begin(), load_.requests.end(),
                     [](const LoadRequest& a, const LoadRequest& b) { return a.at_ns < b.at_ns; });
    for (size_t i = load_.requests.size(); i-- > 0;) {
      LoadRequest& request = load_.requests[i];
      request.next =
          std::exchange(load_.connections[request.connection].first, static_cast<uint32_t>(i));
    }
    for (LoadConnection& connection : load_.connections) {
      connection.client = static_cast<uint32_t>(prng_.Below(options_.workers * kClientsPerWorker));
      connection.cpu = static_cast<uint32_t>(prng_.Below(options_.workers));
      connection.hash = static_cast<uint32_t>(prng_.Next() >> 32);
    }
    if (load_.dead_worker != kNoWorker && !load_.requests.empty()) {
      load_.dies_at_ns = Ns(static_cast<double>(load_.requests.back().at_ns) * kDiesAfter);
    }
    return std::move(load_);
  }

  const LoadOptions options_;
  const double mean_;
  Prng prng_;
  double gap_ = 0;  // mean time between two requests
  Load load_;
};

}  // namespace

int64_t Load::ServiceNs(uint32_t worker, const LoadRequest& request) const {
  if (worker != slow_worker) return request.service_ns;
  return Ns(static_cast<double>(request.service_ns) * kSlowFactor);
}

Load DrawLoad(const LoadOptions& options) { return Drawing(options).Draw(); }

Load LoadOfTrace(std::span<const TracedArrival> trace, const LoadOptions& options) {
  return Drawing(options).Take(trace);
}

double OfferedLoad(std::span<const TracedArrival> trace, uint32_t workers) {
  if (trace.empty()) return 0;
  double service = 0;
  int64_t first = trace.front().at_ns;
  int64_t last = first;
  for (const TracedArrival& arrival : trace) {
    service += static_cast<double>(arrival.service_ns);
    first = std::min(first, arrival.at_ns);
    last = std::max(last, arrival.at_ns);
  }
  return last == first ? 0 : service / (static_cast<double>(last - first) * workers);
}

double TailShortest(double mean) {
  const double power = std::pow(kTailSpread, -kTailShape);
  const double of_one =
      kTailShape / (kTailShape - 1) * (1 - std::pow(kTailSpread, 1 - kTailShape)) / (1 - power);
  return mean / of_one;
}

}  // namespace ringmaster::sim
