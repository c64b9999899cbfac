#include "bench/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "output/format.h"

namespace ringmaster::bench {
namespace {

using output::FormatMinutes;

constexpr int kProgressCells = 20;
constexpr size_t kLinesMax = 10;  // without a terminal

}  // namespace

ProgressLine::ProgressLine()
    : terminal_(isatty(STDERR_FILENO) == 1), style_(StyleOf(STDERR_FILENO)) {}

ProgressLine::~ProgressLine() {
  if (terminal_) std::fputs("\r\033[K", stderr);
}

void ProgressLine::Show(const Progress& progress) {
  if (!progress.skipped.empty()) {
    std::fprintf(stderr, "%s%s, %s is skipped: %s\n", terminal_ ? "\r\033[K" : "",
                 progress.workload.c_str(), progress.mechanism.c_str(), progress.skipped.c_str());
    return;
  }
  const size_t part = 1 + progress.run * kLinesMax / std::max<size_t>(progress.run_count, 1);
  if (!terminal_ && told_ == part) return;
  told_ = part;
  std::string line =
      absl::StrFormat("%3d/%d  %s elapsed, %s left", progress.run + 1, progress.run_count,
                      FormatMinutes(progress.elapsed_ns), FormatMinutes(progress.remaining_ns));
  if (terminal_) absl::StrAppend(&line, "  ", Bar(progress));
  absl::StrAppend(&line, "  ", progress.workload, ", ", progress.mechanism);
  if (terminal_) {
    std::fprintf(stderr, "\r%s\033[K", Cut(line).c_str());
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  std::fflush(stderr);
}

std::string ProgressLine::Bar(const Progress& progress) const {
  const double whole = static_cast<double>(progress.elapsed_ns + progress.remaining_ns);
  const double part = whole > 0 ? static_cast<double>(progress.elapsed_ns) / whole : 0;
  std::string bar;
  for (int i = 0; i < kProgressCells; ++i) {
    const bool done = i < part * kProgressCells;
    bar += style_.utf8 ? (done ? "━" : "┄") : (done ? "=" : ".");
  }
  return bar;
}

std::string ProgressLine::Cut(const std::string& line) const {
  int columns = 0;
  size_t end = 0;
  for (; end < line.size(); ++end) {
    if ((line[end] & 0xc0) != 0x80 && ++columns >= style_.columns) break;
  }
  return line.substr(0, end);
}

}  // namespace ringmaster::bench
