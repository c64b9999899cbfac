#include "picture.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "output/format.h"
#include "output/svg.h"

namespace ringmaster::simtool {
namespace {

using output::Anchor;
using output::LinearAxis;
using output::LogAxis;
using output::Svg;

constexpr double kNsPerUs = 1e3;
constexpr double kWidth = 960;
constexpr double kTop = 64;  // of the first panel: below the title
constexpr double kPanelHead = 44;
constexpr double kPanelGap = 34;
constexpr double kFootHeight = 24;
constexpr double kAxisHeight = 28;
constexpr double kLineHeight = 16;
// Lines.
constexpr double kPlotHeight = 300;
constexpr double kPlotLeft = 66;
constexpr double kPlotRight = 690;
constexpr double kLabelLeft = 726;
constexpr double kLabelHeight = 17;
// Rows.
constexpr double kRowHeight = 24;
constexpr double kRowLeft = 190;
constexpr double kRowRight = 640;
constexpr double kValueWidth = 76;
constexpr size_t kColours = 9;
// At least so much is on the scale: less is nothing to look at.
constexpr double kRatioShown = 1.05;

constexpr char kStyle[] = R"css(
svg{color-scheme:light dark;--paper:#fff;--ink:#211f1c;--soft:#6a655d;--line:#e5dfd5;--band:#f7f4ee;
--c0:#b3261e;--c1:#1f6f8b;--c2:#7a4fa3;--c3:#2f7d32;--c4:#b26a00;--c5:#5b6770;--c6:#c2185b;--c7:#00695c;
--c8:#3949ab;font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
@media (prefers-color-scheme:dark){svg{--paper:#131417;--ink:#ece9e3;--soft:#a09b92;--line:#33363e;
--band:#1c1f25;--c0:#ff8a7a;--c1:#7cc4de;--c2:#c3a1e6;--c3:#8bd08e;--c4:#f0b35c;--c5:#b4bec6;--c6:#ff8ab3;
--c7:#6fd0c0;--c8:#a3b0ff}}
@media print{svg{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--band:#f4f4f2;--c0:#b3261e;--c1:#1f6f8b;
--c2:#7a4fa3;--c3:#2f7d32;--c4:#b26a00;--c5:#5b6770;--c6:#c2185b;--c7:#00695c;--c8:#3949ab}}
.paper{fill:var(--paper)}.band{fill:var(--band)}
text{fill:var(--ink);font-size:12.5px;font-variant-numeric:tabular-nums}
.title{font-size:19px;font-weight:650}.head{font-size:14px;font-weight:650}.soft{fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}
.ideal{stroke:var(--ink);stroke-width:2;stroke-dasharray:6 4}
.strong{font-weight:650}.lead{stroke:var(--soft);stroke-width:.75;opacity:.6}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}
.c5{color:var(--c5)}.c6{color:var(--c6)}.c7{color:var(--c7)}.c8{color:var(--c8)}.ink{color:var(--ink)}
.curve{stroke:currentColor;stroke-width:2;stroke-linecap:round}.name{fill:currentColor;font-weight:600}
.reach{stroke:currentColor;stroke-width:1.5;opacity:.5}
.mark{stroke:currentColor;stroke-width:1.75}.full{fill:currentColor}.hollow{fill:var(--paper)}
)css";

double P50(const Row& row) { return static_cast<double>(row.sojourn.p50_ns) / kNsPerUs; }
double P99(const Row& row) { return static_cast<double>(row.sojourn.p99_ns) / kNsPerUs; }
double P999(const Row& row) { return static_cast<double>(row.sojourn.p999_ns) / kNsPerUs; }

// Nothing on a logarithmic scale is zero.
double Shown(double us) { return std::max(us, 0.001); }

// "10 ms", of a round value.
std::string MarkText(double us) {
  if (us >= 1e6) return absl::StrCat(us / 1e6, " s");
  if (us >= 1e3) return absl::StrCat(us / 1e3, " ms");
  return absl::StrCat(us, " µs");
}

// What is drawn as one line, or as one row: a policy with so many masters, or the ideal.
struct Series {
  std::string name;
  std::string colour;
  std::vector<const Row*> rows;  // by workers
};

// What is drawn into one panel: a workload, a load and, without an axis for it, a number of
// workers.
struct Panel {
  std::string title;
  std::vector<Series> series;  // the ideal first
};

bool Same(double a, double b) { return std::abs(a - b) < 1e-9; }

std::vector<Panel> PanelsOf(std::span<const Row> rows, bool lines, bool with_masters) {
  std::vector<Panel> panels;
  std::vector<const Row*> heads;
  for (const Row& row : rows) {
    size_t at = 0;
    while (at < panels.size() &&
           !(heads[at]->workload == row.workload && Same(heads[at]->load, row.load) &&
             (lines || heads[at]->workers == row.workers))) {
      ++at;
    }
    if (at == panels.size()) {
      heads.push_back(&row);
      panels.push_back(
          {.title = absl::StrCat(row.workload, ", load ", output::FormatFixed(row.load, 2),
                                 lines ? "" : absl::StrCat(", ", row.workers, " workers"), ", ",
                                 CapacityText(row.capacity))});
    }
    std::string name = row.policy;
    if (with_masters && !row.ideal()) {
      absl::StrAppend(&name, ", ", row.masters, row.masters == 1 ? " master" : " masters");
    }
    std::vector<Series>& series = panels[at].series;
    const auto found = std::find_if(series.begin(), series.end(),
                                    [&](const Series& known) { return known.name == name; });
    if (found != series.end()) {
      found->rows.push_back(&row);
      continue;
    }
    const std::string colour =
        row.ideal() ? "ink" : absl::StrCat("c", (series.size() - 1) % kColours);
    series.push_back({.name = name, .colour = colour, .rows = {&row}});
  }
  for (Panel& panel : panels) {
    for (Series& series : panel.series) {
      std::stable_sort(series.rows.begin(), series.rows.end(),
                       [](const Row* a, const Row* b) { return a->workers < b->workers; });
    }
  }
  return panels;
}

LogAxis AxisOf(const Panel& panel, double (*low_of)(const Row&), double (*high_of)(const Row&),
               double from, double to) {
  double low = std::numeric_limits<double>::max();
  double high = 0;
  for (const Series& series : panel.series) {
    for (const Row* const row : series.rows) {
      low = std::min(low, Shown(low_of(*row)));
      high = std::max(high, Shown(high_of(*row)));
    }
  }
  return LogAxis(low, high, from, to);
}

std::string TitleOf(const Series& series, const Row& row) {
  return absl::StrCat(series.name, ", ", row.workers, " workers: p50 ", output::FormatUs(P50(row)),
                      ", p99 ", output::FormatUs(P99(row)), ", p99.9 ", output::FormatUs(P999(row)),
                      ", p99 is ", output::FormatFixed(row.p99_ratio, 3), " times the ideal's");
}

// How many times the ideal: from 1 in equal steps, or logarithmic where that would leave most of it
// empty.
class RatioAxis {
 public:
  RatioAxis(const Panel& panel, double bottom, double top)
      : linear_(HighOf(panel) - 1, bottom, top),
        log_(1, HighOf(panel), bottom, top),
        is_log_(linear_.high() > kLinearMax) {
    if (is_log_) {
      marks_ = log_.Marks();
      return;
    }
    for (const double step : {0.01, 0.02, 0.05, 0.1, 0.2, 0.5}) {
      if (linear_.high() / step > kMarksMax) continue;
      for (int i = 0; i * step <= linear_.high() * (1 + 1e-9); ++i) marks_.push_back(1 + i * step);
      return;
    }
  }

  double Y(double ratio) const { return is_log_ ? log_.X(ratio) : linear_.X(ratio - 1); }
  const std::vector<double>& marks() const { return marks_; }

 private:
  static constexpr double kLinearMax = 2;
  static constexpr double kMarksMax = 6;

  static double HighOf(const Panel& panel) {
    double high = kRatioShown;
    for (const Series& series : panel.series) {
      for (const Row* const row : series.rows) high = std::max(high, row->p99_ratio);
    }
    return high;
  }

  const LinearAxis linear_;
  const LogAxis log_;
  const bool is_log_;
  std::vector<double> marks_;
};

struct Label {
  double y;      // where it belongs
  double drawn;  // where there is room for it
  const Series* series;
};

// At the end of each line, as far apart as they can be read.
void DrawLabels(Svg& svg, std::vector<Label> labels, double top, double bottom) {
  std::stable_sort(labels.begin(), labels.end(),
                   [](const Label& a, const Label& b) { return a.y < b.y; });
  double next = top;
  for (Label& label : labels) {
    label.drawn = std::max(label.y, next);
    next = label.drawn + kLabelHeight;
  }
  // Back up from the bottom, if the last ones have been pushed below it.
  next = bottom;
  for (auto label = labels.rbegin(); label != labels.rend(); ++label) {
    label->drawn = std::min(label->drawn, next);
    next = label->drawn - kLabelHeight;
  }
  for (const Label& label : labels) {
    svg.Line(kPlotRight + 6, label.y, kLabelLeft - 4, label.drawn, "lead");
    const Row& row = *label.series->rows.back();
    svg.Text(kLabelLeft, label.drawn + 4, Anchor::kStart,
             absl::StrCat("name ", label.series->colour),
             absl::StrCat(label.series->name, row.ideal() ? "" : "  ×",
                          row.ideal() ? "" : output::FormatFixed(row.p99_ratio, 2)));
  }
}

double DrawLines(Svg& svg, const Panel& panel, double top) {
  const double bottom = top + kPlotHeight;
  const RatioAxis axis(panel, bottom, top);
  const double first = std::log2(panel.series.front().rows.front()->workers);
  const double last = std::log2(panel.series.front().rows.back()->workers);
  const auto x_of = [&](uint32_t count) {
    return kPlotLeft + 14 +
           (std::log2(count) - first) / std::max(last - first, 0.1) * (kPlotRight - kPlotLeft - 14);
  };
  for (const double mark : axis.marks()) {
    svg.Line(kPlotLeft, axis.Y(mark), kPlotRight, axis.Y(mark), "grid");
    svg.Text(kPlotLeft - 8, axis.Y(mark) + 4, Anchor::kEnd, "soft", absl::StrCat("×", mark));
  }
  for (const Row* const row : panel.series.front().rows) {
    const double x = x_of(row->workers);
    svg.Line(x, bottom, x, bottom + 5, "grid");
    svg.Text(x, bottom + 19, Anchor::kMiddle, "soft", absl::StrCat(row->workers));
    svg.Text(x, bottom + 19 + kLineHeight, Anchor::kMiddle, "soft", output::FormatUs(P99(*row)));
  }
  svg.Text(kLabelLeft, bottom + 19, Anchor::kStart, "soft", "workers");
  svg.Text(kLabelLeft, bottom + 19 + kLineHeight, Anchor::kStart, "soft", "p99 of the ideal");
  std::vector<Label> labels;
  // The ideal last, so that it is seen where others lie on it.
  for (size_t i = panel.series.size(); i-- > 0;) {
    const Series& series = panel.series[i];
    const bool ideal = series.rows.front()->ideal();
    for (size_t at = 0; at < series.rows.size(); ++at) {
      const Row& row = *series.rows[at];
      const double x = x_of(row.workers);
      const double y = axis.Y(row.p99_ratio);
      if (at > 0) {
        const Row& before = *series.rows[at - 1];
        svg.Line(x_of(before.workers), axis.Y(before.p99_ratio), x, y,
                 ideal ? "ideal" : absl::StrCat("curve ", series.colour));
      }
      if (!ideal) {
        svg.Circle(x, y, 3, absl::StrCat("mark full ", series.colour), TitleOf(series, row));
      }
    }
    const double y = axis.Y(series.rows.back()->p99_ratio);
    labels.push_back({.y = y, .drawn = y, .series = &series});
  }
  DrawLabels(svg, std::move(labels), top, bottom);
  return bottom + kAxisHeight + kLineHeight;
}

double DrawRows(Svg& svg, const Panel& panel, double top) {
  const double bottom = top + kRowHeight * static_cast<double>(panel.series.size());
  const LogAxis axis = AxisOf(panel, P50, P999, kRowLeft + 10, kRowRight - 10);
  const char* const titles[] = {"p50", "p99", "p99.9", "× ideal"};
  for (size_t i = 0; i < std::size(titles); ++i) {
    svg.Text(kRowRight + kValueWidth * static_cast<double>(i + 1), top - 6, Anchor::kEnd, "soft",
             titles[i]);
  }
  for (size_t i = 0; i < panel.series.size(); i += 2) {
    svg.Box(0, top + kRowHeight * static_cast<double>(i), kWidth, kRowHeight, "band");
  }
  for (const double mark : axis.Marks()) {
    svg.Line(axis.X(mark), top, axis.X(mark), bottom, "grid");
    svg.Text(axis.X(mark), bottom + 17, Anchor::kMiddle, "soft", MarkText(mark));
  }
  const double ideal_x = axis.X(Shown(P99(*panel.series.front().rows.front())));
  svg.Line(ideal_x, top - 4, ideal_x, bottom, "ideal");
  for (size_t i = 0; i < panel.series.size(); ++i) {
    const Series& series = panel.series[i];
    const Row& row = *series.rows.front();
    const double y = top + kRowHeight * (static_cast<double>(i) + 0.5);
    const std::string title = TitleOf(series, row);
    // One colour: the rows have names.
    const std::string colour = row.ideal() ? "ink" : "c0";
    svg.Text(10, y + 4, Anchor::kStart, absl::StrCat("name ", colour), series.name);
    svg.Line(axis.X(Shown(P50(row))), y, axis.X(Shown(P999(row))), y,
             absl::StrCat("reach ", colour));
    svg.Circle(axis.X(Shown(P50(row))), y, 4.2, absl::StrCat("mark hollow ", colour), title);
    svg.Circle(axis.X(Shown(P99(row))), y, 4.2, absl::StrCat("mark full ", colour), title);
    svg.Diamond(axis.X(Shown(P999(row))), y, 5.4, absl::StrCat("mark full ", colour), title);
    const std::string values[] = {output::FormatUs(P50(row)), output::FormatUs(P99(row)),
                                  output::FormatUs(P999(row)),
                                  output::FormatFixed(row.p99_ratio, 3)};
    for (size_t value = 0; value < std::size(values); ++value) {
      svg.Text(kRowRight + kValueWidth * static_cast<double>(value + 1), y + 4, Anchor::kEnd,
               value == 1 || value == 3 ? "strong" : "soft", values[value]);
    }
  }
  return bottom + kAxisHeight;
}

double HeightOf(const Panel& panel, bool lines) {
  const double plot =
      lines ? kPlotHeight + kLineHeight : kRowHeight * static_cast<double>(panel.series.size());
  return kPanelHead + plot + kAxisHeight + kPanelGap;
}

}  // namespace

std::string AsPicture(std::span<const Row> rows, const Options& options) {
  const bool lines = options.workers.size() > 1;
  const bool with_masters = options.masters.size() > 1;
  const std::vector<Panel> panels = PanelsOf(rows, lines, with_masters);
  double height = kTop + kFootHeight;
  for (const Panel& panel : panels) height += HeightOf(panel, lines);
  const std::string title =
      lines ? "p99 of the time until a request is served, as how many times the ideal"
            : "Time until a request is served, by policy";
  Svg svg(kWidth, height, title);
  svg.Box(0, 0, kWidth, height, "paper");
  svg.Text(10, 32, Anchor::kStart, "title", title);
  svg.Text(10, 52, Anchor::kStart, "soft",
           lines ? "by number of workers; dashed: the ideal, one queue for all"
                 : "○ p50   ● p99   ◆ p99.9, logarithmic scale; dashed: p99 of one queue for all, "
                   "the ideal");
  double top = kTop;
  for (const Panel& panel : panels) {
    svg.Text(10, top + 18, Anchor::kStart, "head", panel.title);
    const double bottom =
        lines ? DrawLines(svg, panel, top + kPanelHead) : DrawRows(svg, panel, top + kPanelHead);
    top = bottom + kPanelGap;
  }
  svg.Text(10, height - 16, Anchor::kStart, "soft",
           absl::StrCat("ringmaster-sim, seed ", options.seed,
                        ": virtual time, the library's own engine and policies; see METHOD.md for "
                        "what it leaves out"));
  return svg.EndAsFile(kStyle);
}

}  // namespace ringmaster::simtool
