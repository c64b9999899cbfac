// What the workers did, for people and for programs.

#ifndef RINGMASTER_TOOLS_ECHO_REPORT_H_
#define RINGMASTER_TOOLS_ECHO_REPORT_H_

#include <cstdint>
#include <span>
#include <string>

#include "ringmaster/balancer.h"

namespace ringmaster::echo {

// Both take what each worker has sent back, by its index.

// Aligned columns, a row for each worker, and the sums in a sentence.
std::string ReportAsTable(const ShutdownReport& report, std::span<const uint64_t> bytes_echoed);

// One line with one JSON object.
std::string ReportAsJson(const ShutdownReport& report, std::span<const uint64_t> bytes_echoed);

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_REPORT_H_
