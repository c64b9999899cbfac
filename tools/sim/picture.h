// The picture of what ringmaster-sim has found out.

#ifndef RINGMASTER_TOOLS_SIM_PICTURE_H_
#define RINGMASTER_TOOLS_SIM_PICTURE_H_

#include <span>
#include <string>

#include "options.h"
#include "results.h"

namespace ringmaster::simtool {

// An SVG file that needs nothing else: a panel for each workload and load. Where there are several
// numbers of workers, it shows p99 over these, as how many times the ideal, a line for each policy.
// Otherwise it shows p50, p99 and p99.9 of each policy. The ideal is a line of its own in both.
std::string AsPicture(std::span<const Row> rows, const Options& options);

}  // namespace ringmaster::simtool

#endif  // RINGMASTER_TOOLS_SIM_PICTURE_H_
