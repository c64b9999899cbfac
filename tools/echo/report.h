// What the workers did, for people and for programs.

#ifndef RINGMASTER_TOOLS_ECHO_REPORT_H_
#define RINGMASTER_TOOLS_ECHO_REPORT_H_

#include <cstdint>
#include <map>
#include <string>

#include "ringmaster/balancer.h"

namespace ringmaster::echo {

// How many bytes the workers have sent back.
struct Echoed {
  std::map<uint32_t, uint64_t> by_worker;  // by its index
  uint64_t departed = 0;                   // of those that have left
};

// Aligned columns, a row for each worker and one for those that have left, and the sums in a
// sentence.
std::string ReportAsTable(const ShutdownReport& report, const Echoed& echoed);

// One line with one JSON object.
std::string ReportAsJson(const ShutdownReport& report, const Echoed& echoed);

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_REPORT_H_
