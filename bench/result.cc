#include "bench/result.h"

#include <algorithm>
#include <numeric>

namespace ringmaster::bench {
namespace {

constexpr FigureName kFigureNames[] = {
    {"connections_per_second", &Figures::connections_per_second},
    {"offered_per_second", &Figures::offered_per_second},
    {"p50_us", &Figures::p50_us},
    {"p99_us", &Figures::p99_us},
    {"p999_us", &Figures::p999_us},
    {"max_us", &Figures::max_us},
    {"jain", &Figures::jain},
    {"max_over_mean", &Figures::max_over_mean},
    {"generator_cpu_share", &Figures::generator_cpu_share},
    {"server_cpu_us_per_connection", &Figures::server_cpu_us_per_connection},
    {"context_switches_per_connection", &Figures::context_switches_per_connection},
    {"recalled", &Figures::recalled},
    {"lost", &Figures::lost},
};

// Of a number of values that is even, the mean of the two in the middle.
double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace

std::span<const FigureName> FigureNames() { return kFigureNames; }

double JainIndex(std::span<const double> values) {
  double sum = 0;
  double squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  return squares == 0 ? 1 : sum * sum / (static_cast<double>(values.size()) * squares);
}

double MaxOverMean(std::span<const double> values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  if (sum == 0) return 1;
  return *std::max_element(values.begin(), values.end()) * static_cast<double>(values.size()) / sum;
}

Result Summarize(std::span<const RunResult> runs) {
  Result result;
  result.repetitions = static_cast<uint32_t>(runs.size());
  for (const FigureName& name : kFigureNames) {
    std::vector<double> values;
    for (const RunResult& run : runs) {
      if (const Figure& figure = run.figures.*name.figure) values.push_back(*figure);
    }
    if (values.size() * 2 <= runs.size()) continue;
    result.median.*name.figure = Median(values);
    result.low.*name.figure = *std::min_element(values.begin(), values.end());
    result.high.*name.figure = *std::max_element(values.begin(), values.end());
  }
  std::vector<const RunResult*> by_jain;
  for (const RunResult& run : runs) by_jain.push_back(&run);
  std::sort(by_jain.begin(), by_jain.end(), [](const RunResult* a, const RunResult* b) {
    return a->figures.jain.value_or(0) < b->figures.jain.value_or(0);
  });
  result.shares = by_jain[(by_jain.size() - 1) / 2]->shares;
  return result;
}

std::vector<const Result*> Report::Of(const std::string& workload) const {
  std::vector<const Result*> found;
  for (const Result& result : results) {
    if (result.workload == workload) found.push_back(&result);
  }
  return found;
}

}  // namespace ringmaster::bench
