// How far a measurement is, on stderr: one line that is always up to date on a terminal; elsewhere,
// a line after each tenth.

#ifndef RINGMASTER_BENCH_PROGRESS_LINE_H_
#define RINGMASTER_BENCH_PROGRESS_LINE_H_

#include <cstddef>
#include <string>

#include "bench/report.h"
#include "bench/runner.h"

namespace ringmaster::bench {

class ProgressLine {
 public:
  ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  // Clears the line, which the result follows.
  ~ProgressLine();

  void Show(const Progress& progress);

 private:
  std::string Bar(const Progress& progress) const;

  // To the terminal's width: a line that wraps could not be overwritten.
  std::string Cut(const std::string& line) const;

  const bool terminal_;
  const TerminalStyle style_;
  size_t told_ = 0;  // which tenth, from 1
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_PROGRESS_LINE_H_
