#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "bench/claims.h"
#include "bench/measures.h"
#include "bench/report.h"
#include "output/format.h"

namespace ringmaster::bench {
namespace {

using output::FormatFigure;
using output::FormatFixed;

constexpr int kColumnsMin = 60;
constexpr size_t kSharesSpelledMax = 6;   // more workers are summed up
constexpr size_t kSharesPicturedMax = 8;  // more workers are not drawn
constexpr size_t kNameWidthMax = 24;      // a longer name has a line of its own
constexpr size_t kOrderShownMax = 32;     // of the workers that served one after the other

// Characters on the screen, which UTF-8 makes fewer than bytes.
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string PadRight(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, Width(text)), ' ');
}

std::string PadLeft(const std::string& text, size_t width) {
  return std::string(width - std::min(width, Width(text)), ' ') + text;
}

class Painter {
 public:
  explicit Painter(const TerminalStyle& style) : style_(style) {}

  std::string Bold(const std::string& text) const { return Wrap("1", text); }
  std::string Dim(const std::string& text) const { return Wrap("2", text); }
  std::string Good(const std::string& text) const { return Wrap("32", text); }
  std::string Bad(const std::string& text) const { return Wrap("31", text); }

  // How much of the work a worker has: half a cell is its even share.
  std::string Level(double share, size_t workers) const {
    static constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static constexpr const char* kLetters[] = {".", ":", "-", "=", "+", "*", "#", "@"};
    if (share == 0) return "_";
    constexpr double kLevels = 8;
    const double level = std::ceil(share * static_cast<double>(workers) * kLevels / 2);
    const auto at = static_cast<size_t>(std::clamp(level, 1.0, kLevels)) - 1;
    return style_.utf8 ? kBlocks[at] : kLetters[at];
  }

 private:
  std::string Wrap(const char* code, const std::string& text) const {
    return style_.colours ? absl::StrCat("\033[", code, "m", text, "\033[0m") : text;
  }

  const TerminalStyle& style_;
};

std::string SharesText(const std::vector<double>& shares) {
  if (shares.empty()) return "–";
  if (shares.size() > kSharesSpelledMax) {
    const auto [low, high] = std::minmax_element(shares.begin(), shares.end());
    return absl::StrCat(std::lround(*low * 100), " to ", std::lround(*high * 100), " %");
  }
  return absl::StrCat(absl::StrJoin(shares, " ",
                                    [](std::string* out, double share) {
                                      absl::StrAppend(
                                          out, PadLeft(absl::StrCat(std::lround(share * 100)), 2));
                                    }),
                      " %");
}

// Breaks at spaces; the first line has its sign, the others are indented as far.
std::string Paragraph(const std::string& text, int columns) {
  std::string out;
  size_t column = 4;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (column > 4 && column + 1 + Width(word) > static_cast<size_t>(columns)) {
      out += "\n    ";
      column = 4;
    } else if (column > 4) {
      out += ' ';
      ++column;
    }
    out += word;
    column += Width(word);
    at = end + 1;
  }
  return out;
}

std::string ClaimLine(const Painter& painter, const Claim& claim, int columns) {
  std::string sign = painter.Dim("=");
  if (claim.verdict == Verdict::kBetter) sign = painter.Good("+");
  if (claim.verdict == Verdict::kWorse) sign = painter.Bad("-");
  return absl::StrCat("  ", sign, " ",
                      Paragraph(absl::StrCat(claim.title, ": ", claim.text), columns), "\n");
}

std::string Sparkline(const Painter& painter, const std::vector<double>& shares) {
  std::string text;
  if (shares.size() > kSharesPicturedMax) return text;
  for (const double share : shares) text += painter.Level(share, shares.size());
  return text;
}

// Half the distance between the least and the largest repetition, of the median: "±4%".
std::string SpreadText(const Result& result, Figure Figures::*figure) {
  const Figure& low = result.low.*figure;
  const Figure& high = result.high.*figure;
  const Figure& median = result.median.*figure;
  if (median && IsPercentile(figure) && result.fell_behind_count > 0) return ">99%";
  if (result.repetitions < 2 || !low || !high || !median || *median == 0) return "";
  const double percent = (*high - *low) / 2 / *median * 100;
  return percent > 99 ? ">99%" : absl::StrCat("±", std::lround(percent), "%");
}

// What a column marks, as it is written: nothing where all look the same.
struct Extremes {
  std::string best;
  std::string worst;
};

Extremes ExtremesOf(const WorkloadText& workload, const std::vector<const Result*>& results,
                    const Measure& measure) {
  std::optional<double> low;
  std::optional<double> high;
  for (const Result* result : results) {
    const Figure& figure = result->median.*measure.figure;
    if (!figure) continue;
    low = low ? std::min(*low, *figure) : *figure;
    high = high ? std::max(*high, *figure) : *figure;
  }
  const Better better = BetterUnder(workload, measure);
  if (!low || better == Better::kNeither) return {};
  const std::string lowest = measure.format(*low);
  const std::string highest = measure.format(*high);
  if (lowest == highest) return {};
  if (better == Better::kMore) return {.best = highest, .worst = lowest};
  return {.best = lowest, .worst = highest};
}

// The tables of one workload. Rows are mechanisms, rivals first, ringmaster's under a heading that
// says what their short names stand for.
class Tables {
 public:
  Tables(const Report& report, const WorkloadText& workload, const TerminalStyle& style)
      : workload_(workload),
        style_(style),
        painter_(style),
        names_(report),
        all_(report.Of(workload.name)) {
    if (!all_.empty() && all_.front()->seconds != report.context.seconds) {
      window_ = absl::StrCat(", windows of ", FormatFixed(all_.front()->seconds, 1), " s");
    }
    for (const Result* result : all_) {
      if (result->repetitions > 0) results_.push_back(result);
    }
    for (const Result* result : results_) {
      const size_t width = Width(names_.Short(result->mechanism));
      if (width <= kNameWidthMax) name_width_ = std::max(name_width_, width);
      shares_width_ = std::max(shares_width_, Width(SharesText(result->shares)));
    }
  }

  std::string Text() const {
    std::string text = absl::StrCat(painter_.Bold(workload_.title),
                                    painter_.Dim(absl::StrCat("  ", workload_.name, window_)), "\n",
                                    painter_.Dim(QuestionText(workload_.question)), "\n");
    if (!results_.empty()) absl::StrAppend(&text, Main(), "\n", Costs(), Order());
    return absl::StrCat(text, Notes());
  }

 private:
  // A number and its mark; the mark is a character, so that it needs no colour.
  std::string Marked(const std::string& value, const Extremes& extremes, size_t width,
                     const char* sign = "") const {
    const std::string padded = PadLeft(sign + value, width);
    if (value == extremes.best) return painter_.Good(padded + "*");
    if (value == extremes.worst) return painter_.Bad(padded + "!");
    return padded + " ";
  }

  template <typename Row>
  std::string Rows(const std::string& header, Row row) const {
    std::string text = absl::StrCat(painter_.Dim(header), "\n");
    bool ours = false;
    for (const Result* result : results_) {
      if (Names::IsOurs(result->mechanism) && !ours) {
        ours = true;
        absl::StrAppend(&text, painter_.Dim(names_.pattern()), "\n");
      }
      const std::string name = names_.Short(result->mechanism);
      if (Width(name) > name_width_) {
        absl::StrAppend(&text, "  ", name, "\n  ", PadRight("", name_width_));
      } else {
        absl::StrAppend(&text, "  ", PadRight(name, name_width_));
      }
      absl::StrAppend(&text, row(*result), "\n");
    }
    return text;
  }

  // Shares as a picture, throughput, latency, and the first deciding figure against the reference.
  std::string Main() const {
    const Answered& answered = AnsweredUnder(workload_.question);
    const std::array<Figure Figures::*, 4> columns = {answered.rate, answered.p50, answered.p99,
                                                      answered.p999};
    constexpr size_t kValueWidth = 7;
    constexpr size_t kSpreadWidthMax = 5;
    const size_t picture_width = std::min(results_.front()->shares.size(), kSharesPicturedMax);
    // Two characters, name, shares, index, four values with their marks, and the ratio.
    const size_t needed = 2 + name_width_ + 1 + picture_width + 5 +
                          columns.size() * (kValueWidth + 2 + kSpreadWidthMax) + 9;
    const size_t spread_width = needed <= static_cast<size_t>(style_.columns) ? kSpreadWidthMax : 0;
    const Measure& decider = MeasureOf(DecidingFigures(workload_.question).front());
    std::string header = absl::StrCat("  ", PadRight("mechanism", name_width_), " ",
                                      PadRight("", picture_width), " ", PadLeft("Jain", 4));
    for (const auto figure : columns) {
      absl::StrAppend(&header, " ", PadLeft(MeasureOf(figure).column, kValueWidth), " ",
                      PadRight("", spread_width));
    }
    absl::StrAppend(&header, " ×", decider.column);
    std::array<Extremes, columns.size()> extremes;
    for (size_t i = 0; i < columns.size(); ++i) {
      extremes[i] = ExtremesOf(workload_, results_, MeasureOf(columns[i]));
    }
    return Rows(header, [&](const Result& result) {
      std::string line = absl::StrCat(
          " ", PadRight(Sparkline(painter_, result.shares), picture_width), " ",
          PadLeft(FormatFigure(result.median.jain, MeasureOf(&Figures::jain).format), 4));
      for (size_t i = 0; i < columns.size(); ++i) {
        const Figure& figure = result.median.*columns[i];
        const std::string value = FormatFigure(figure, MeasureOf(columns[i]).format);
        const char* sign = i == 0 && result.generator_limited() ? "≥" : "";
        absl::StrAppend(&line, " ", Marked(value, extremes[i], kValueWidth, sign),
                        spread_width == 0
                            ? std::string()
                            : painter_.Dim(PadRight(SpreadText(result, columns[i]), spread_width)));
      }
      return absl::StrCat(line, " ", Ratio(result, decider));
    });
  }

  // "1.20 +"
  std::string Ratio(const Result& result, const Measure& measure) const {
    const Figure& ratio = result.ratio.*measure.figure;
    const std::string text =
        PadLeft(FormatFigure(ratio, [](double v) { return FormatFixed(v, v < 9.995 ? 2 : 1); }), 5);
    if (result.mechanism == kReference) return text;
    const auto reference =
        std::find_if(results_.begin(), results_.end(),
                     [](const Result* candidate) { return candidate->mechanism == kReference; });
    if (reference == results_.end()) return text;
    switch (Compare(result, **reference, measure.figure)) {
      case Verdict::kBetter:
        return painter_.Good(absl::StrCat(text, " +"));
      case Verdict::kWorse:
        return painter_.Bad(absl::StrCat(text, " -"));
      case Verdict::kEven:
        break;
    }
    return absl::StrCat(text, " =");
  }

  // What a connection costs, and what went wrong: the columns that have something to tell, as many
  // as the terminal is wide.
  std::string Costs() const {
    static constexpr Figure Figures::*kCostColumns[] = {&Figures::cpu_us_per_connection,
                                                        &Figures::context_switches_per_connection,
                                                        &Figures::system_calls_per_connection,
                                                        &Figures::worker_wakes_per_connection,
                                                        &Figures::empty_wakes_per_connection,
                                                        &Figures::master_wakes_per_connection,
                                                        &Figures::doorbells_per_connection,
                                                        &Figures::lost,
                                                        &Figures::recalled,
                                                        &Figures::generator_cpu_share};
    static constexpr Figure Figures::*kLossColumns[] = {&Figures::lost,
                                                        &Figures::reset,
                                                        &Figures::refused,
                                                        &Figures::resume_ms,
                                                        &Figures::over_cap,
                                                        &Figures::idle_worker_share,
                                                        &Figures::server_cpu_share,
                                                        &Figures::recalled,
                                                        &Figures::cpu_us_per_connection,
                                                        &Figures::context_switches_per_connection,
                                                        &Figures::generator_cpu_share};
    std::vector<Figure Figures::*> wanted;
    if (workload_.question == Question::kLoss) {
      wanted.assign(std::begin(kLossColumns), std::end(kLossColumns));
    } else {
      wanted = {&Figures::idle_worker_share, &Figures::resume_ms, &Figures::new_p50_us,
                &Figures::new_p99_us, &Figures::cpu_us_per_request};
      wanted.insert(wanted.end(), std::begin(kCostColumns), std::end(kCostColumns));
    }
    struct Column {
      const Measure* measure;
      Extremes extremes;
      size_t width;
    };
    std::vector<Column> columns;
    size_t used = 2 + name_width_ + 1 + shares_width_;
    for (const auto figure : wanted) {
      if (!Tells(figure)) continue;
      const Measure& measure = MeasureOf(figure);
      size_t width = Width(measure.column);
      for (const Result* result : results_) {
        width = std::max(width, Width(FormatFigure(result->median.*figure, measure.format)));
      }
      if (used + 1 + width + 1 > static_cast<size_t>(style_.columns)) continue;
      used += 1 + width + 1;
      columns.push_back({&measure, ExtremesOf(workload_, results_, measure), width});
    }
    std::string header = absl::StrCat("  ", PadRight("per connection", name_width_), " ",
                                      PadRight("by worker", shares_width_));
    for (const Column& column : columns) {
      absl::StrAppend(&header, " ", PadLeft(column.measure->column, column.width), " ");
    }
    return Rows(header, [&](const Result& result) {
      std::string line = absl::StrCat(" ", PadRight(SharesText(result.shares), shares_width_));
      for (const Column& column : columns) {
        const std::string value =
            FormatFigure(result.median.*column.measure->figure, column.measure->format);
        absl::StrAppend(&line, " ", Marked(value, column.extremes, column.width));
      }
      return line;
    });
  }

  // Counts of what should not happen tell nothing while they are all zero.
  bool Tells(Figure Figures::*figure) const {
    const bool count = figure == &Figures::lost || figure == &Figures::reset ||
                       figure == &Figures::refused || figure == &Figures::recalled;
    return std::any_of(results_.begin(), results_.end(), [&](const Result* result) {
      const Figure& high = result->high.*figure;
      return high && !(count && workload_.question != Question::kLoss && *high == 0);
    });
  }

  std::string Order() const {
    const bool any = std::any_of(results_.begin(), results_.end(),
                                 [](const Result* result) { return !result->order.empty(); });
    if (!any) return "";
    return absl::StrCat(
        "\n", Rows("  who served, one connection after the other", [](const Result& result) {
          std::vector<uint32_t> first = result.order;
          first.resize(std::min(first.size(), kOrderShownMax));
          return absl::StrCat(" ", absl::StrJoin(first, " "));
        }));
  }

  std::string Notes() const {
    std::vector<std::string> notes;
    notes.push_back(workload_.open_loop ? "Open loop: latency counts from the intended start."
                                        : "Closed loop: clients wait for answers, so latency looks "
                                          "better than users would find it.");
    for (const uint32_t worker : workload_.slow_workers) {
      notes.push_back(absl::StrCat("Worker ", worker, " is the slow one."));
    }
    std::vector<std::string> behind;
    bool limited = false;
    for (const Result* result : results_) {
      limited = limited || result->generator_limited();
      if (result->fell_behind_count == 0) continue;
      behind.push_back(
          absl::StrCat(names_.Short(result->mechanism), " in ", FellBehindText(*result)));
    }
    if (!behind.empty()) {
      notes.push_back(
          absl::StrCat("These achieved less than 99 % of the offered load. Such a repetition "
                       "counts as slower than any latency, and a – stands where it is the median: ",
                       absl::StrJoin(behind, ", "), "."));
    }
    if (limited) {
      notes.push_back("≥: the load generator was the bottleneck; the server could have done more.");
    }
    for (const Result* result : all_) {
      if (result->repetitions > 0) continue;
      notes.push_back(absl::StrCat(result->mechanism, " did not run: ", result->skipped));
    }
    std::string text;
    for (const std::string& note : notes) {
      absl::StrAppend(&text, "  ", painter_.Dim(Paragraph(note, style_.columns)), "\n");
    }
    return text;
  }

  const WorkloadText& workload_;
  const TerminalStyle& style_;
  const Painter painter_;
  const Names names_;
  const std::vector<const Result*> all_;
  std::vector<const Result*> results_;  // those that ran
  std::string window_;                  // of this workload, where it is not the usual one
  size_t name_width_ = std::strlen("per connection");
  size_t shares_width_ = std::strlen("by worker");
};

bool SaysUtf8(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr &&
         (std::strstr(value, "UTF-8") != nullptr || std::strstr(value, "utf8") != nullptr);
}

}  // namespace

TerminalStyle StyleOf(int fd) {
  TerminalStyle style;
  const bool terminal = isatty(fd) == 1;
  const char* no_color = std::getenv("NO_COLOR");
  style.colours = terminal && (no_color == nullptr || *no_color == '\0');
  // The first of them that is set decides; none set is the C locale.
  style.utf8 = false;
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    style.utf8 = SaysUtf8(name);
    break;
  }
  winsize size{};
  if (terminal && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    style.columns = std::max<int>(size.ws_col, kColumnsMin);
  }
  return style;
}

std::string TerminalReport(const Report& report, const TerminalStyle& style) {
  const Painter painter(style);
  std::string text;
  for (const WorkloadText& workload : report.workloads) {
    absl::StrAppend(&text, Tables(report, workload, style).Text(), "\n");
  }
  absl::StrAppend(
      &text,
      painter.Dim(absl::StrCat(
          "Medians of the repetitions. * best, ! worst; ± half the distance between the extremes.\n"
          "×: as a multiple of ",
          kReference,
          ", the median over pairs of repetitions;\n"
          "   + better or - worse in every single pair, = neither.\n"
          "The bars: the share of each worker. Jain: 1 is even, 1 over the workers is one has "
          "all.\n"
          "wakes: how often a worker woke for each connection, and empty, how often for nothing;\n"
          "   master: how often whoever accepts woke; bells: how often it rang for a worker.\n")));
  const std::vector<Claim> claims = ClaimsOf(report);
  if (!claims.empty()) {
    absl::StrAppend(&text, "\n", painter.Bold("What the figures say"),
                    painter.Dim("  + better  = the repetitions show no difference  - worse"), "\n");
    for (const Claim& claim : claims) text += ClaimLine(painter, claim, style.columns);
  }
  for (const std::string& caveat : CaveatsOf(report)) {
    absl::StrAppend(&text, "\n", painter.Bad("!"), " ", Paragraph(caveat, style.columns), "\n");
  }
  // In one line, however long, so that it can be copied.
  if (!report.context.command.empty()) {
    absl::StrAppend(&text, "\n", painter.Bold("To repeat it"), "\n", report.context.command, "\n");
  }
  if (style.utf8) return text;
  return absl::StrReplaceAll(text, {{"µ", "u"},
                                    {"–", "-"},
                                    {"−", "-"},
                                    {"±", "~"},
                                    {"×", "x"},
                                    {"≥", ">"},
                                    {"…", "..."},
                                    {"’", "'"}});
}

}  // namespace ringmaster::bench
