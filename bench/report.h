// A report in three forms: a table for the terminal, JSON for programs, and (html_report.h) a page.

#ifndef RINGMASTER_BENCH_REPORT_H_
#define RINGMASTER_BENCH_REPORT_H_

#include <string>

#include "bench/result.h"

namespace ringmaster::bench {

// What a terminal can show.
struct TerminalStyle {
  bool colours = false;
  bool utf8 = true;
  int columns = 100;
};

// The style for a file descriptor: colours on a terminal unless NO_COLOR is set, UTF-8 if the
// locale's variables say so, the terminal's width.
TerminalStyle StyleOf(int fd);

// One table for each workload, then what the figures say, and the command that repeats it.
std::string TerminalReport(const Report& report, const TerminalStyle& style);

// schema_version 1; a figure that is missing is null.
std::string JsonReport(const Report& report);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_REPORT_H_
