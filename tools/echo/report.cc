#include "report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ringmaster::echo {
namespace {

uint64_t BytesOf(const WorkerStats& worker, std::span<const uint64_t> bytes_echoed) {
  return worker.worker < bytes_echoed.size() ? bytes_echoed[worker.worker] : 0;
}

}  // namespace

std::string ReportAsTable(const ShutdownReport& report, std::span<const uint64_t> bytes_echoed) {
  std::string text = absl::StrFormat("%6s %12s %12s %10s %8s %16s\n", "worker", "assigned",
                                     "claimed", "recalled", "open", "bytes echoed");
  for (const WorkerStats& worker : report.stats.workers) {
    absl::StrAppendFormat(&text, "%6u %12u %12u %10u %8u %16u\n", worker.worker, worker.assigned,
                          worker.claimed, worker.recalled, worker.open,
                          BytesOf(worker, bytes_echoed));
  }
  absl::StrAppend(&text, "accepted ", report.stats.accepted, ", refused ", report.stats.refused,
                  ", recalled ", report.stats.recalled, "; ");
  if (report.open > 0) {
    absl::StrAppend(&text, report.open,
                    " still open when the time was up or a second signal came; now closed\n");
  } else {
    absl::StrAppend(&text, "no connection was open at the end\n");
  }
  return text;
}

std::string ReportAsJson(const ShutdownReport& report, std::span<const uint64_t> bytes_echoed) {
  nlohmann::ordered_json workers = nlohmann::ordered_json::array();
  for (const WorkerStats& worker : report.stats.workers) {
    workers.push_back({{"worker", worker.worker},
                       {"assigned", worker.assigned},
                       {"claimed", worker.claimed},
                       {"recalled", worker.recalled},
                       {"moved", worker.moved},
                       {"stalls", worker.stalls},
                       {"open", worker.open},
                       {"bytes_echoed", BytesOf(worker, bytes_echoed)}});
  }
  const nlohmann::ordered_json object = {{"accepted", report.stats.accepted},
                                         {"refused", report.stats.refused},
                                         {"recalled", report.stats.recalled},
                                         {"moved", report.stats.moved},
                                         {"drained", report.drained},
                                         {"open", report.open},
                                         {"workers", workers}};
  return object.dump() + "\n";
}

}  // namespace ringmaster::echo
