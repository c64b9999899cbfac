#include "bench/result.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

namespace ringmaster::bench {
namespace {

constexpr FigureName kFigureNames[] = {
    {"connections_per_second", &Figures::connections_per_second},
    {"offered_per_second", &Figures::offered_per_second},
    {"p50_us", &Figures::p50_us},
    {"p99_us", &Figures::p99_us},
    {"p999_us", &Figures::p999_us},
    {"max_us", &Figures::max_us},
    {"requests_per_second", &Figures::requests_per_second},
    {"request_p50_us", &Figures::request_p50_us},
    {"request_p99_us", &Figures::request_p99_us},
    {"request_p999_us", &Figures::request_p999_us},
    {"new_p50_us", &Figures::new_p50_us},
    {"new_p99_us", &Figures::new_p99_us},
    {"jain", &Figures::jain},
    {"max_over_mean", &Figures::max_over_mean},
    {"worker_wakes_per_connection", &Figures::worker_wakes_per_connection},
    {"empty_wakes_per_connection", &Figures::empty_wakes_per_connection},
    {"arrival_wakes_per_connection", &Figures::arrival_wakes_per_connection},
    {"master_wakes_per_connection", &Figures::master_wakes_per_connection},
    {"doorbells_per_connection", &Figures::doorbells_per_connection},
    {"context_switches_per_connection", &Figures::context_switches_per_connection},
    {"system_calls_per_connection", &Figures::system_calls_per_connection},
    {"cpu_us_per_connection", &Figures::cpu_us_per_connection},
    {"cpu_us_per_request", &Figures::cpu_us_per_request},
    {"generator_cpu_share", &Figures::generator_cpu_share},
    {"server_cpu_share", &Figures::server_cpu_share},
    {"recalled", &Figures::recalled},
    {"lost", &Figures::lost},
    {"reset", &Figures::reset},
    {"refused", &Figures::refused},
    {"idle_worker_share", &Figures::idle_worker_share},
    {"resume_ms", &Figures::resume_ms},
    {"over_cap", &Figures::over_cap},
};

// Of a number of values that is even, the mean of the two in the middle.
double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

constexpr double kLongerThanAny = std::numeric_limits<double>::infinity();

// What the repetitions of one figure amount to. Nothing if half of them have none, or if one that
// fell behind, or was compared with one that did, is in the middle.
void SummarizeFigure(const std::vector<double>& values, size_t repetitions, Figure Figures::*figure,
                     Figures& median, Figures& low, Figures& high) {
  std::vector<double> measured;
  std::copy_if(values.begin(), values.end(), std::back_inserter(measured),
               [](double value) { return std::abs(value) != kLongerThanAny; });
  if (values.size() * 2 <= repetitions || measured.empty()) return;
  low.*figure = *std::min_element(measured.begin(), measured.end());
  high.*figure = *std::max_element(measured.begin(), measured.end());
  if (const double middle = Median(values); std::isfinite(middle)) median.*figure = middle;
}

void AddRatios(const Series& ours, const Series& reference, Result& result) {
  const size_t pairs = std::min(ours.runs.size(), reference.runs.size());
  for (const FigureName& name : kFigureNames) {
    std::vector<double> ratios;
    for (size_t i = 0; i < pairs; ++i) {
      const Figure& above = ours.runs[i].figures.*name.figure;
      const Figure& below = reference.runs[i].figures.*name.figure;
      if (above && below && *below != 0) {
        ratios.push_back(*above / *below);
      } else if (IsPercentile(name.figure) && above.has_value() != below.has_value()) {
        // Less than any ratio where it is the reference that fell behind.
        ratios.push_back(below ? kLongerThanAny : -kLongerThanAny);
      }
    }
    SummarizeFigure(ratios, pairs, name.figure, result.ratio, result.ratio_low, result.ratio_high);
  }
}

// Leaves the ratios to AddRatios.
Result SummarizeOne(const Series& series) {
  Result result{.mechanism = series.mechanism,
                .workload = series.workload,
                .transport = series.transport,
                .pinned = series.pinned,
                .workers = series.workers,
                .repetitions = static_cast<uint32_t>(series.runs.size()),
                .seconds = series.seconds,
                .skipped = series.skipped};
  if (series.runs.empty()) return result;
  for (const FigureName& name : kFigureNames) {
    std::vector<double> values;
    for (const RunResult& run : series.runs) {
      if (const Figure& figure = run.figures.*name.figure) {
        values.push_back(*figure);
      } else if (IsPercentile(name.figure)) {
        values.push_back(kLongerThanAny);
      }
    }
    SummarizeFigure(values, series.runs.size(), name.figure, result.median, result.low,
                    result.high);
  }
  std::vector<const RunResult*> by_jain;
  for (const RunResult& run : series.runs) {
    by_jain.push_back(&run);
    result.runs.push_back(run.figures);
    if (run.generator_limited) ++result.generator_limited_count;
    if (run.figures.fell_behind()) ++result.fell_behind_count;
  }
  std::stable_sort(by_jain.begin(), by_jain.end(), [](const RunResult* a, const RunResult* b) {
    return a->figures.jain.value_or(0) < b->figures.jain.value_or(0);
  });
  const RunResult& typical = *by_jain[(by_jain.size() - 1) / 2];
  result.shares = typical.shares;
  result.order = typical.order;
  result.over_time = typical.over_time;
  return result;
}

}  // namespace

std::span<const FigureName> FigureNames() { return kFigureNames; }

bool IsPercentile(Figure Figures::*figure) {
  return figure == &Figures::p50_us || figure == &Figures::p99_us || figure == &Figures::p999_us ||
         figure == &Figures::max_us || figure == &Figures::request_p50_us ||
         figure == &Figures::request_p99_us || figure == &Figures::request_p999_us ||
         figure == &Figures::new_p50_us || figure == &Figures::new_p99_us;
}

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

std::vector<Result> Summarize(std::span<const Series> all) {
  std::vector<Result> results;
  for (const Series& series : all) {
    Result result = SummarizeOne(series);
    const auto reference = std::find_if(all.begin(), all.end(), [&](const Series& other) {
      return other.mechanism == kReference && other.workload == series.workload &&
             other.transport == series.transport;
    });
    if (reference != all.end()) AddRatios(series, *reference, result);
    results.push_back(std::move(result));
  }
  return results;
}

std::vector<const Result*> Report::Of(const std::string& workload) const {
  std::vector<const Result*> found;
  for (const Result& result : results) {
    if (result.workload == workload) found.push_back(&result);
  }
  return found;
}

}  // namespace ringmaster::bench
