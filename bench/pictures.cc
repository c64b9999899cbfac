#include "bench/pictures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "output/format.h"
#include "output/svg.h"

namespace ringmaster::bench {
namespace {

using output::Anchor;
using output::FormatCount;
using output::FormatFigure;
using output::FormatFixed;
using output::FormatShare;
using output::LinearAxis;
using output::LogAxis;
using output::Svg;

// All lengths are units of the pictures' own coordinates, which scale with the page.
constexpr double kWidth = 1100;
constexpr double kRowHeight = 23;
constexpr double kHeader = 30;
constexpr double kFooter = 6;
constexpr double kAxisHeight = 24;
constexpr double kBaseline = 16;  // of text within its row
constexpr double kBarHeight = 15;
constexpr double kBarTop = (kRowHeight - kBarHeight) / 2;
constexpr double kCharacter = 7.6;  // about as wide as one of a name
constexpr double kNameWidthMin = 120;
constexpr double kNameWidthMax = 330;
constexpr double kShareLabelWidthMin = 30;  // a narrower segment goes without a label
constexpr double kValueWidth = 66;          // of a number at the right of what it belongs to
constexpr size_t kOrderShownMax = 40;
constexpr size_t kPanelsMax = 5;

bool IsSlow(const WorkloadText& workload, size_t worker) {
  return std::find(workload.slow_workers.begin(), workload.slow_workers.end(), worker) !=
         workload.slow_workers.end();
}

std::string WorkerClass(const WorkloadText& workload, size_t worker, const char* prefix) {
  if (IsSlow(workload, worker)) return absl::StrCat(prefix, "s");
  return absl::StrCat(prefix, worker % kWorkerColours);
}

const char* SideOf(const Result& result) {
  if (result.mechanism == kReference) return "reference";
  return Names::IsOurs(result.mechanism) ? "ours" : "rival";
}

// Where everything stands that all pictures share: bands, names, and a heading above ringmaster's.
class Rows {
 public:
  explicit Rows(const PictureOf& of) : of_(of) {
    size_t longest = 0;
    bool ours = false;
    double y = kHeader;
    for (const Result* result : of.results) {
      longest = std::max(longest, of.names.Short(result->mechanism).size());
      if (Names::IsOurs(result->mechanism) && !ours) {
        ours = true;
        heading_y_ = y;
        y += kRowHeight;
      }
      tops_.push_back(y);
      y += kRowHeight;
    }
    bottom_ = y;
    left_ =
        std::clamp(static_cast<double>(longest) * kCharacter + 14, kNameWidthMin, kNameWidthMax);
  }

  // Where the names end and the figures begin.
  double left() const { return left_; }
  double top(size_t i) const { return tops_[i]; }
  double middle(size_t i) const { return tops_[i] + kRowHeight / 2; }
  double bottom() const { return bottom_; }

  void Draw(Svg& svg) const {
    for (size_t i = 0; i < of_.results.size(); ++i) {
      const Result& result = *of_.results[i];
      if (i % 2 == 0) svg.Box(0, tops_[i], kWidth, kRowHeight, "band");
      svg.Text(4, tops_[i] + kBaseline, Anchor::kStart, absl::StrCat("name ", SideOf(result)),
               of_.names.Short(result.mechanism));
    }
    if (heading_y_ > 0) {
      svg.Text(4, heading_y_ + kBaseline, Anchor::kStart, "pattern", of_.names.pattern());
    }
  }

  // A dashed line through all rows where the reference stands.
  void DrawReference(Svg& svg, double x) const {
    svg.Line(x, kHeader, x, bottom_, "reference-line");
  }

 private:
  const PictureOf& of_;
  std::vector<double> tops_;
  double heading_y_ = 0;
  double bottom_ = 0;
  double left_ = 0;
};

// The ends of the spread; the median itself where there is none.
double LowOf(const Result& result, Figure Figures::*figure) {
  return (result.low.*figure).value_or(*(result.median.*figure));
}
double HighOf(const Result& result, Figure Figures::*figure) {
  return (result.high.*figure).value_or(*(result.median.*figure));
}

const Result* ReferenceOf(const PictureOf& of) {
  for (const Result* result : of.results) {
    if (result->mechanism == kReference) return result;
  }
  return nullptr;
}

// The best median as it is written; empty where nothing is better.
std::string BestOf(const PictureOf& of, const Measure& measure) {
  const Better direction = BetterUnder(of.workload, measure);
  if (direction == Better::kNeither) return "";
  Figure best;
  for (const Result* result : of.results) {
    const Figure& figure = result->median.*measure.figure;
    if (!figure) continue;
    const bool better = direction == Better::kMore ? best < figure : figure < best;
    if (!best || better) best = figure;
  }
  return best ? measure.format(*best) : "";
}

// A number, strong where it is the best.
void DrawValue(Svg& svg, double x, double top, const std::string& value, const std::string& best) {
  svg.Text(x, top + kBaseline, Anchor::kEnd, value == best ? "value best" : "value", value);
}

std::string RangeTitle(const Result& result, const Measure& measure) {
  const Figure& low = result.low.*measure.figure;
  const Figure& high = result.high.*measure.figure;
  const Figure& ratio = result.ratio.*measure.figure;
  std::string title = absl::StrCat(result.mechanism, ": ", measure.title, " ",
                                   FormatFigure(result.median.*measure.figure, measure.format));
  if (low && high) {
    absl::StrAppend(&title, ", repetitions ", measure.format(*low), " to ", measure.format(*high));
  }
  if (ratio) absl::StrAppend(&title, ", ×", FormatFixed(*ratio, 2), " of ", kReference);
  return title;
}

// Median and spread on a scale from zero.
void DrawDots(Svg& svg, const PictureOf& of, const Rows& rows, const Measure& measure, double left,
              double right) {
  double high = 0;
  for (const Result* result : of.results) {
    high = std::max(high, (result->high.*measure.figure).value_or(0));
  }
  const LinearAxis axis(high * 1.03, left, right - kValueWidth);
  svg.Line(left, kHeader, left, rows.bottom(), "grid");
  if (const Result* reference = ReferenceOf(of)) {
    if (const Figure& figure = reference->median.*measure.figure) {
      rows.DrawReference(svg, axis.X(*figure));
    }
  }
  const std::string best = BestOf(of, measure);
  for (size_t i = 0; i < of.results.size(); ++i) {
    const Result& result = *of.results[i];
    const Figure& median = result.median.*measure.figure;
    if (!median) continue;
    const double y = rows.middle(i);
    svg.Line(axis.X(LowOf(result, measure.figure)), y, axis.X(HighOf(result, measure.figure)), y,
             absl::StrCat("spread ", SideOf(result)));
    svg.Circle(
        axis.X(*median), y, 5,
        absl::StrCat(result.generator_limited() ? "mark hollow " : "mark full ", SideOf(result)),
        RangeTitle(result, measure));
    DrawValue(svg, right, rows.top(i), measure.format(*median), best);
  }
}

// Bars from zero, with the spread at their end.
void DrawBars(Svg& svg, const PictureOf& of, const Rows& rows, const Measure& measure, double left,
              double right) {
  constexpr double kBarThickness = 11;
  double high = 0;
  for (const Result* result : of.results) {
    high = std::max(high, (result->high.*measure.figure).value_or(0));
  }
  const LinearAxis axis(high, left, right - kValueWidth);
  svg.Text(left, kHeader - 10, Anchor::kStart, "head", measure.title);
  svg.Line(left, kHeader, left, rows.bottom(), "grid");
  const std::string best = BestOf(of, measure);
  for (size_t i = 0; i < of.results.size(); ++i) {
    const Result& result = *of.results[i];
    const Figure& median = result.median.*measure.figure;
    const double y = rows.middle(i);
    if (!median) {
      svg.Text(left + 6, rows.top(i) + kBaseline, Anchor::kStart, "soft", "–");
      continue;
    }
    const double end = axis.X(*median);
    svg.Box(left, y - kBarThickness / 2, end - left, kBarThickness,
            absl::StrCat("bar ", SideOf(result)), RangeTitle(result, measure));
    svg.Line(axis.X(LowOf(result, measure.figure)), y, axis.X(HighOf(result, measure.figure)), y,
             "whisker");
    const double value_x = axis.X(HighOf(result, measure.figure)) + 6;
    const std::string value = measure.format(*median);
    svg.Text(value_x, rows.top(i) + kBaseline, Anchor::kStart,
             value == best ? "value best" : "value", value);
  }
}

// "10 µs": a round value without digits after the point.
std::string MarkText(double us) {
  if (us < 1e3) return absl::StrCat(std::lround(us), " µs");
  if (us < 1e6) return absl::StrCat(std::lround(us / 1e3), " ms");
  return absl::StrCat(std::lround(us / 1e6), " s");
}

struct Percentile {
  Figure Figures::*figure;
  const char* title;
  char shape;
};

std::array<Percentile, 3> PercentilesOf(const PictureOf& of) {
  const Answered& answered = AnsweredUnder(of.workload.question);
  return {Percentile{answered.p50, "p50", 'o'}, Percentile{answered.p99, "p99", '*'},
          Percentile{answered.p999, "p99.9", 'd'}};
}

void DrawMark(Svg& svg, const Percentile& percentile, double x, double y, const Result& result) {
  const std::string title = RangeTitle(result, MeasureOf(percentile.figure));
  const std::string side = SideOf(result);
  if (percentile.shape == 'o') svg.Circle(x, y, 4.6, "mark hollow " + side, title);
  if (percentile.shape == '*') svg.Circle(x, y, 4.6, "mark full " + side, title);
  if (percentile.shape == 'd') svg.Diamond(x, y, 6, "mark full " + side, title);
}

void DrawLatencyRow(Svg& svg, const PictureOf& of, const Result& result, const LogAxis& axis,
                    double y) {
  const std::string side = SideOf(result);
  double first = 0;
  double last = 0;
  for (const Percentile& percentile : PercentilesOf(of)) {
    const Figure& median = result.median.*percentile.figure;
    if (!median) continue;
    last = axis.X(*median);
    if (first == 0) first = last;
    svg.Line(axis.X(LowOf(result, percentile.figure)), y, axis.X(HighOf(result, percentile.figure)),
             y, "spread " + side);
  }
  svg.Line(first, y, last, y, "reach " + side);
  for (const Percentile& percentile : PercentilesOf(of)) {
    const Figure& median = result.median.*percentile.figure;
    if (median) DrawMark(svg, percentile, axis.X(*median), y, result);
  }
}

// Whether the figure distinguishes anything: counts of what should not happen do not while they are
// all zero.
bool Tells(const PictureOf& of, Figure Figures::*figure) {
  return std::any_of(of.results.begin(), of.results.end(),
                     [&](const Result* result) { return (result->high.*figure).value_or(0) > 0; });
}

std::vector<const Measure*> PanelsOf(const PictureOf& of) {
  static constexpr Figure Figures::*kCosts[] = {&Figures::idle_worker_share,
                                                &Figures::resume_ms,
                                                &Figures::new_p50_us,
                                                &Figures::new_p99_us,
                                                &Figures::cpu_us_per_request,
                                                &Figures::cpu_us_per_connection,
                                                &Figures::context_switches_per_connection,
                                                &Figures::worker_wakes_per_connection,
                                                &Figures::empty_wakes_per_connection,
                                                &Figures::system_calls_per_connection};
  static constexpr Figure Figures::*kLosses[] = {&Figures::lost,
                                                 &Figures::reset,
                                                 &Figures::refused,
                                                 &Figures::resume_ms,
                                                 &Figures::over_cap,
                                                 &Figures::server_cpu_share,
                                                 &Figures::cpu_us_per_connection};
  const bool loss = of.workload.question == Question::kLoss;
  std::vector<const Measure*> panels;
  for (const auto figure :
       loss ? std::vector<Figure Figures::*>(std::begin(kLosses), std::end(kLosses))
            : std::vector<Figure Figures::*>(std::begin(kCosts), std::end(kCosts))) {
    if (Tells(of, figure) && panels.size() < kPanelsMax) panels.push_back(&MeasureOf(figure));
  }
  return panels;
}

}  // namespace

std::string SharesPicture(const PictureOf& of) {
  const Rows rows(of);
  constexpr double kJainWidth = 46;
  constexpr double kGap = 34;
  const double bars_right = rows.left() + (kWidth - rows.left()) * 0.5;
  const double bars_width = bars_right - rows.left();
  const double rate_left = bars_right + kJainWidth + kGap;
  const Measure& rate = MeasureOf(AnsweredUnder(of.workload.question).rate);
  Svg svg(kWidth, rows.bottom() + kFooter,
          absl::StrCat(of.workload.title, ": share of each worker, and ", rate.title));
  rows.Draw(svg);
  svg.Text(rows.left(), kHeader - 10, Anchor::kStart, "head", "share of each worker");
  svg.Text(bars_right + kJainWidth, kHeader - 10, Anchor::kEnd, "head", "Jain");
  svg.Text(rate_left, kHeader - 10, Anchor::kStart, "head", rate.title);
  const Measure& jain = MeasureOf(&Figures::jain);
  const std::string best = BestOf(of, jain);
  for (size_t i = 0; i < of.results.size(); ++i) {
    const Result& result = *of.results[i];
    double x = rows.left();
    for (size_t worker = 0; worker < result.shares.size(); ++worker) {
      const double share = result.shares[worker];
      const double width = share * bars_width;
      // A gap of one unit tells neighbours apart, also on paper without colours.
      svg.Box(x, rows.top(i) + kBarTop, width - 1, kBarHeight,
              WorkerClass(of.workload, worker, "w"),
              absl::StrCat(result.mechanism, ", worker ", worker,
                           IsSlow(of.workload, worker) ? " (slow)" : "", ": ",
                           FormatFixed(share * 100, 1), " %"));
      if (width >= kShareLabelWidthMin) {
        svg.Text(x + width / 2, rows.top(i) + kBaseline - 0.5, Anchor::kMiddle,
                 absl::StrCat("label ", WorkerClass(of.workload, worker, "t")), FormatShare(share));
      }
      x += width;
    }
    DrawValue(svg, bars_right + kJainWidth, rows.top(i),
              FormatFigure(result.median.jain, jain.format), best);
  }
  // Where the shares would part if they were even.
  if (of.workload.slow_workers.empty()) {
    const uint32_t workers = of.results.front()->workers;
    for (uint32_t worker = 1; worker < workers && workers <= 16; ++worker) {
      const double x = rows.left() + bars_width * worker / workers;
      svg.Line(x, kHeader - 7, x, kHeader - 1, "even");
      svg.Line(x, rows.bottom() + 1, x, rows.bottom() + 6, "even");
    }
  }
  DrawDots(svg, of, rows, rate, rate_left, kWidth);
  return svg.End();
}

std::string OrderPicture(const PictureOf& of) {
  const bool any = std::any_of(of.results.begin(), of.results.end(),
                               [](const Result* result) { return !result->order.empty(); });
  if (!any) return "";
  const Rows rows(of);
  Svg svg(kWidth, rows.bottom() + kFooter,
          absl::StrCat(of.workload.title, ": the worker of each connection"));
  rows.Draw(svg);
  svg.Text(rows.left(), kHeader - 10, Anchor::kStart, "head",
           "the worker of one connection after the other");
  const double step = std::min((kWidth - rows.left()) / kOrderShownMax, kRowHeight);
  for (size_t i = 0; i < of.results.size(); ++i) {
    const Result& result = *of.results[i];
    for (size_t at = 0; at < std::min(result.order.size(), kOrderShownMax); ++at) {
      const uint32_t worker = result.order[at];
      const double x = rows.left() + step * static_cast<double>(at);
      svg.Box(x, rows.top(i) + kBarTop, step - 2, kBarHeight, WorkerClass(of.workload, worker, "w"),
              absl::StrCat(result.mechanism, ", connection ", at + 1, ": worker ", worker));
      svg.Text(x + (step - 2) / 2, rows.top(i) + kBaseline - 0.5, Anchor::kMiddle,
               absl::StrCat("label ", WorkerClass(of.workload, worker, "t")), absl::StrCat(worker));
    }
  }
  return svg.End();
}

std::string LatencyPicture(const PictureOf& of) {
  const Answered& answered = AnsweredUnder(of.workload.question);
  const std::array<Percentile, 3> percentiles = PercentilesOf(of);
  double low = std::numeric_limits<double>::max();
  double high = 0;
  for (const Result* result : of.results) {
    for (const Percentile& percentile : percentiles) {
      if (!(result->median.*percentile.figure)) continue;
      low = std::min(low, LowOf(*result, percentile.figure));
      high = std::max(high, HighOf(*result, percentile.figure));
    }
  }
  const Rows rows(of);
  Svg svg(kWidth, rows.bottom() + kAxisHeight,
          absl::StrCat(of.workload.title, ": latency, logarithmic scale"));
  rows.Draw(svg);
  if (!(high > 0 && low > 0)) {
    svg.Text(rows.left(), kHeader - 10, Anchor::kStart, "soft", "No latency that could be quoted.");
    return svg.End();
  }
  const double right = kWidth - kValueWidth * static_cast<double>(percentiles.size());
  const LogAxis axis(low, high, rows.left() + 4, right - 8);
  for (const double mark : axis.Marks()) {
    svg.Line(axis.X(mark), kHeader, axis.X(mark), rows.bottom(), "grid");
    svg.Text(axis.X(mark), rows.bottom() + 17, Anchor::kMiddle, "soft", MarkText(mark));
  }
  const Result* reference = ReferenceOf(of);
  if (reference != nullptr && reference->median.*answered.p50) {
    rows.DrawReference(svg, axis.X(*(reference->median.*answered.p50)));
  }
  for (size_t i = 0; i < of.results.size(); ++i) {
    const Result& result = *of.results[i];
    if (result.median.*answered.p50 || result.median.*answered.p99) {
      DrawLatencyRow(svg, of, result, axis, rows.middle(i));
      continue;
    }
    std::string text = "no percentiles";
    if (result.fell_behind_count > 0) {
      text =
          absl::StrCat("fell behind in ", FellBehindText(result), ": ",
                       FormatFigure(result.median.*answered.rate, FormatCount), " of ",
                       FormatFigure(result.median.offered_per_second, FormatCount), " per second");
    }
    svg.Text(rows.left() + 12, rows.top(i) + kBaseline, Anchor::kStart, "behind", text);
  }
  double x = right;
  for (const Percentile& percentile : percentiles) {
    x += kValueWidth;
    const Measure& measure = MeasureOf(percentile.figure);
    const std::string best = BestOf(of, measure);
    svg.Text(x, kHeader - 10, Anchor::kEnd, "head", percentile.title);
    for (size_t i = 0; i < of.results.size(); ++i) {
      DrawValue(svg, x, rows.top(i),
                FormatFigure(of.results[i]->median.*percentile.figure, measure.format), best);
    }
  }
  return svg.End();
}

std::string CostsPicture(const PictureOf& of) {
  const std::vector<const Measure*> panels = PanelsOf(of);
  if (panels.empty()) return "";
  const Rows rows(of);
  Svg svg(kWidth, rows.bottom() + kFooter,
          absl::StrCat(of.workload.title, ": what a connection costs"));
  rows.Draw(svg);
  constexpr double kGap = 14;
  const double width = (kWidth - rows.left() + kGap) / static_cast<double>(panels.size());
  for (size_t i = 0; i < panels.size(); ++i) {
    const double left = rows.left() + width * static_cast<double>(i);
    DrawBars(svg, of, rows, *panels[i], left, left + width - kGap);
  }
  return svg.End();
}

}  // namespace ringmaster::bench
