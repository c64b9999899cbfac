#include "report.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace ringmaster::echo {
namespace {

uint64_t BytesOf(const WorkerStats& worker, const Echoed& echoed) {
  const auto found = echoed.by_worker.find(worker.worker);
  return found == echoed.by_worker.end() ? 0 : found->second;
}

}  // namespace

std::string ReportAsTable(const ShutdownReport& report, const Echoed& echoed) {
  std::string text = absl::StrFormat("%6s %12s %12s %10s %8s %16s\n", "worker", "assigned",
                                     "claimed", "recalled", "open", "bytes echoed");
  const auto add_row = [&](absl::string_view name, const WorkerStats& worker, uint64_t bytes) {
    absl::StrAppendFormat(&text, "%6s %12u %12u %10u %8u %16u\n", name, worker.assigned,
                          worker.claimed, worker.recalled, worker.open, bytes);
  };
  for (const WorkerStats& worker : report.stats.workers) {
    add_row(absl::StrCat(worker.worker), worker, BytesOf(worker, echoed));
  }
  if (report.stats.departed.assigned > 0) add_row("left", report.stats.departed, echoed.departed);
  absl::StrAppend(&text, "accepted ", report.stats.accepted, ", refused ", report.stats.refused,
                  ", recalled ", report.stats.recalled, ", passed on ", report.stats.passed_on,
                  "; ");
  if (report.open > 0) {
    absl::StrAppend(&text, report.open,
                    " still open when the time was up or a second signal came; now closed\n");
  } else {
    absl::StrAppend(&text, "no connection was open at the end\n");
  }
  return text;
}

std::string ReportAsJson(const ShutdownReport& report, const Echoed& echoed) {
  const auto counts = [](const WorkerStats& worker) {
    return nlohmann::ordered_json{{"assigned", worker.assigned},
                                  {"claimed", worker.claimed},
                                  {"recalled", worker.recalled},
                                  {"moved", worker.moved},
                                  {"stalls", worker.stalls}};
  };
  nlohmann::ordered_json workers = nlohmann::ordered_json::array();
  for (const WorkerStats& worker : report.stats.workers) {
    nlohmann::ordered_json row = {{"worker", worker.worker}};
    row.update(counts(worker));
    row["open"] = worker.open;
    row["bytes_echoed"] = BytesOf(worker, echoed);
    workers.push_back(std::move(row));
  }
  nlohmann::ordered_json departed = counts(report.stats.departed);
  departed["bytes_echoed"] = echoed.departed;
  const nlohmann::ordered_json object = {{"accepted", report.stats.accepted},
                                         {"refused", report.stats.refused},
                                         {"recalled", report.stats.recalled},
                                         {"moved", report.stats.moved},
                                         {"passed_on", report.stats.passed_on},
                                         {"drained", report.drained},
                                         {"open", report.open},
                                         {"workers", workers},
                                         {"departed", departed}};
  return object.dump() + "\n";
}

}  // namespace ringmaster::echo
