// ringmaster-sim: what a policy does to a load, in virtual time.
//
// Exit status: 0 done, 1 something was lost or could not be written (the reason is on stderr),
// 2 wrong options.

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "options.h"
#include "output/output_file.h"
#include "picture.h"
#include "results.h"
#include "ringmaster/policy.h"
#include "sim/study.h"
#include "workload.h"

namespace ringmaster::simtool {
namespace {

constexpr int kFailed = 1;

// One load, which every policy gets.
class Trial {
 public:
  Trial(const Options& options, const Workload& workload, uint32_t workers, double load)
      : options_(options), workload_(workload), load_(Draw(workers, load)) {
    common_.workload = workload.name;
    common_.workers = workers;
    common_.load = load > 0 ? load : sim::OfferedLoad(workload.trace, workers);
    common_.capacity = CapacityFor(options, workload);
    common_.requests = load_.requests.size();
    common_.connections = load_.connections.size();
  }

  Row Ideal() {
    Row row = RowOf(kIdeal, sim::ServeFromOneQueue(load_));
    ideal_p99_ns_ = row.sojourn.p99_ns;
    row.p99_ratio = 1;
    return row;
  }

  // After Ideal.
  Row Run(const std::string& policy, uint32_t masters) const {
    const sim::StudyOptions study{
        .masters = masters,
        .capacity = common_.capacity,
        .window = options_.window,
        .recall_after_ns = static_cast<int64_t>(options_.recall_after_ms * 1e6),
        .costs = options_.costs};
    Row row = RowOf(
        policy, sim::RunStudy(study, load_, [&policy] { return PolicyByName(policy).value(); }));
    row.masters = masters;
    return row;
  }

 private:
  sim::Load Draw(uint32_t workers, double load) const {
    sim::LoadOptions drawn{.workers = workers,
                           .requests = options_.arrivals,
                           .load = load,
                           .service_ns = static_cast<int64_t>(options_.service_us * 1e3),
                           .seed = options_.seed};
    if (!workload_.kind.has_value()) return sim::LoadOfTrace(workload_.trace, drawn);
    drawn.kind = *workload_.kind;
    return sim::DrawLoad(drawn);
  }

  // The times are of what comes after the first ones.
  Row RowOf(const std::string& policy, const sim::StudyOutcome& outcome) const {
    const auto first =
        static_cast<size_t>(options_.warm_up * static_cast<double>(load_.requests.size()));
    Row row = common_;
    row.policy = policy;
    row.sojourn = sim::Summarize(std::span(outcome.sojourn_ns).subspan(first));
    row.wait = sim::Summarize(std::span(outcome.wait_ns).subspan(first));
    if (ideal_p99_ns_ > 0) {
      row.p99_ratio = static_cast<double>(row.sojourn.p99_ns) / static_cast<double>(ideal_p99_ns_);
    }
    const auto connections = static_cast<double>(std::max<uint64_t>(common_.connections, 1));
    row.jain = sim::JainIndex(outcome.taken);
    row.recalled = outcome.recalled;
    row.doorbells = static_cast<double>(outcome.doorbells) / connections;
    row.turns = static_cast<double>(outcome.turns) / connections;
    row.master_busy_share = outcome.master_busy_share;
    row.lost = outcome.lost;
    return row;
  }

  const Options& options_;
  const Workload& workload_;
  const sim::Load load_;
  Row common_;
  int64_t ideal_p99_ns_ = 0;
};

void Print(const std::string& text) { std::cout << text << std::flush; }

std::vector<Row> RunAll(const Options& options) {
  const Table table(options);
  Print(table.Intro());
  std::vector<Row> rows;
  for (const Workload& workload : options.workloads) {
    // A recorded load as it is, unless it is to be stretched.
    const bool as_recorded = !workload.kind.has_value() && !options.loads_given;
    for (const uint32_t workers : options.workers) {
      for (const double load : as_recorded ? std::vector<double>{0} : options.loads) {
        Trial trial(options, workload, workers, load);
        rows.push_back(trial.Ideal());
        Print(table.Head(rows.back()));
        Print(table.Line(rows.back()));
        for (const uint32_t masters : options.masters) {
          for (const std::string& policy : options.policies) {
            rows.push_back(trial.Run(policy, masters));
            Print(table.Line(rows.back()));
          }
        }
      }
    }
  }
  return rows;
}

absl::Status WriteFiles(const Options& options, const std::vector<Row>& rows) {
  const std::pair<const std::string&, std::string (*)(const std::vector<Row>&, const Options&)>
      files[] = {
          {options.csv_path,
           [](const std::vector<Row>& all, const Options&) { return AsCsv(all); }},
          {options.json_path,
           [](const std::vector<Row>& all, const Options& how) { return AsJson(all, how); }},
          {options.picture_path,
           [](const std::vector<Row>& all, const Options& how) { return AsPicture(all, how); }},
      };
  for (const auto& [path, text] : files) {
    if (path.empty()) continue;
    if (absl::Status status = output::WriteFile(path, text(rows, options)); !status.ok()) {
      return status;
    }
    Print("wrote " + path + "\n");
  }
  return absl::OkStatus();
}

int Fail(const std::string& why) {
  std::cerr << "ringmaster-sim: " << why << '\n';
  return kFailed;
}

int Run(const Options& options) {
  for (const std::string& path : {options.csv_path, options.json_path, options.picture_path}) {
    if (path.empty()) continue;
    // Before minutes are spent on what cannot be written.
    if (const absl::Status status = output::PrepareFile(path); !status.ok()) {
      return Fail(std::string(status.message()));
    }
  }
  const std::vector<Row> rows = RunAll(options);
  if (const absl::Status status = WriteFiles(options, rows); !status.ok()) {
    return Fail(std::string(status.message()));
  }
  if (!std::cout) return Fail("the standard output could not be written; --csv writes a file");
  for (const Row& row : rows) {
    if (row.lost == 0) continue;
    return Fail(row.policy + " did not serve " + std::to_string(row.lost) + " requests of " +
                row.workload + ", which must not happen: please report this command");
  }
  return 0;
}

}  // namespace
}  // namespace ringmaster::simtool

int main(int argument_count, char** arguments) {
  // A reader that leaves early must not take the files along: writing fails instead.
  std::signal(SIGPIPE, SIG_IGN);
  const ringmaster::simtool::CommandLine command =
      ringmaster::simtool::ParseCommandLine(argument_count, arguments);
  if (command.exit_status.has_value()) return *command.exit_status;
  return ringmaster::simtool::Run(command.options);
}
