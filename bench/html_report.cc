#include "bench/html_report.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "bench/claims.h"
#include "bench/format.h"

namespace ringmaster::bench {
namespace {

// All lengths are units of the pictures' own coordinates, which scale with the page.
constexpr double kPictureWidth = 560;
constexpr double kNameHeight = 20;  // a mechanism's name above its row
constexpr double kBarHeight = 26;
constexpr double kBarRowHeight = 62;
constexpr double kBarWidth = 470;  // the Jain index stands right of it
constexpr double kDotRowHeight = 62;
constexpr double kDotLeft = 56;  // room for the label of the first dot
constexpr double kDotRight = 500;
constexpr double kAxisHeight = 34;
constexpr double kLabelWidthMin = 34;  // a narrower segment goes without a label
constexpr size_t kWorkerColours = 4;

constexpr char kStyle[] = R"css(
:root{color-scheme:light dark;--paper:#faf8f4;--card:#fff;--ink:#211f1c;--soft:#6a655d;--line:#e5dfd5;
--ours:#b3261e;--rival:#7a746a;--good:#1d7a46;--bad:#b3261e;--slow:#e0a021;--slow-ink:#2b1f00;
--w0:#244b6b;--w1:#3f7ba8;--w2:#8bb7d6;--w3:#c9dfee;--t0:#fff;--t1:#fff;--t2:#10242f;--t3:#10242f}
@media (prefers-color-scheme:dark){:root{--paper:#131417;--card:#1b1d22;--ink:#ece9e3;--soft:#a09b92;
--line:#33363e;--ours:#ff8a7a;--rival:#b3aca0;--good:#6fd39b;--bad:#ff8a7a;--slow:#d99a1c;
--slow-ink:#1c1400;--w0:#8fc3e8;--w1:#5795c2;--w2:#356b94;--w3:#224760;--t0:#0b1a24;--t1:#0b1a24;
--t2:#fff;--t3:#fff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1180px;margin:0 auto;padding:48px 24px 64px}
.brand{color:var(--ours);font-weight:650;letter-spacing:.02em;margin:0 0 12px}
.brand span{color:var(--soft);font-weight:400}
h1{font-size:clamp(1.6rem,3.4vw,2.5rem);line-height:1.18;letter-spacing:-.015em;margin:0 0 16px;
max-width:26em;text-wrap:balance}
h2{font-size:1.35rem;margin:0;letter-spacing:-.01em}
h3{font-size:.95rem;margin:0 0 2px}
p{margin:0 0 12px;max-width:70ch}
.lead,.note,figcaption{color:var(--soft)}
.note,figcaption{font-size:.875rem}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:26px 28px;
margin:28px 0}
.tag{color:var(--soft);font:.85rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
border:1px solid var(--line);border-radius:99px;padding:2px 10px;margin-left:10px;vertical-align:3px}
ul.claims{list-style:none;margin:0;padding:0}
ul.claims li{display:flex;gap:12px;padding:7px 0;border-top:1px solid var(--line)}
ul.claims li:first-child{border-top:0}
.verdict{flex:none;width:5.2em;font-weight:650}
.better .verdict{color:var(--good)}.worse .verdict{color:var(--bad)}.even .verdict{color:var(--soft)}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(430px,100%),1fr));gap:32px;
margin:20px 0 8px}
figure{margin:0}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--ink);font-size:13px}
svg .soft{fill:var(--soft)}svg .name{font-weight:600}svg .rival{fill:var(--rival)}
svg .ours{fill:var(--ours)}svg .small{font-size:12px}
svg .grid{stroke:var(--line);stroke-width:1}svg .faint{stroke:var(--line);stroke-width:1;opacity:.5}
.w0{fill:var(--w0)}.w1{fill:var(--w1)}.w2{fill:var(--w2)}.w3{fill:var(--w3)}.slow{fill:var(--slow)}
svg .t0{fill:var(--t0)}svg .t1{fill:var(--t1)}svg .t2{fill:var(--t2)}svg .t3{fill:var(--t3)}
svg .ts{fill:var(--slow-ink);font-weight:600}
.mark{stroke:currentColor;stroke-width:2}.mark.hollow{fill:var(--card)}.mark.full{fill:currentColor}
.reach{stroke:currentColor;stroke-width:2;opacity:.55}
.spread{stroke:currentColor;stroke-width:9;stroke-linecap:round;opacity:.16}
g.rival{color:var(--rival)}g.ours{color:var(--ours)}
.scroll{overflow-x:auto;margin-top:20px}
table{border-collapse:collapse;width:100%;font-size:.82rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:7px 0 7px 9px;border-top:1px solid var(--line);white-space:nowrap;
vertical-align:top}
thead th{border-top:0;color:var(--soft);font-weight:500;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;padding-left:0}
tbody th{font-weight:600}
td small{display:block;color:var(--soft);font-size:.7rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 20px;margin:12px 0 0}
dt{color:var(--soft)}dd{margin:0}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:3px;vertical-align:-1px;
margin:0 5px 0 12px}
.b0{background:var(--w0)}.b1{background:var(--w1)}.b2{background:var(--w2)}.b3{background:var(--w3)}
.bs{background:var(--slow)}
.swatch:first-child{margin-left:0}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;
--ours:#b3261e;--rival:#666;--good:#1d7a46;--bad:#b3261e;--slow:#e0a021;--slow-ink:#000;--w0:#244b6b;
--w1:#3f7ba8;--w2:#8bb7d6;--w3:#c9dfee;--t0:#fff;--t1:#fff;--t2:#000;--t3:#000}
body{font-size:11pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}.card{break-inside:avoid;border-radius:0;padding:14px 16px;margin:14px 0}
.pictures{grid-template-columns:1fr 1fr;gap:18px}.scroll{overflow:visible}
table{font-size:8pt}th,td{padding:3px 0 3px 6px}}
)css";

// For text and attributes. A unit stays on the line of its number.
std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"},
                                    {"<", "&lt;"},
                                    {">", "&gt;"},
                                    {"\"", "&quot;"},
                                    {" %", "&nbsp;%"},
                                    {" ms", "&nbsp;ms"},
                                    {" µs", "&nbsp;µs"}});
}

// A coordinate.
std::string N(double value) { return absl::StrFormat("%.1f", value); }

bool IsSlow(const WorkloadText& workload, size_t worker) {
  return std::find(workload.slow_workers.begin(), workload.slow_workers.end(), worker) !=
         workload.slow_workers.end();
}

const char* SideOf(const Result& result) {
  return result.mechanism.starts_with("ringmaster:") ? "ours" : "rival";
}

std::string SvgBegin(double height, const std::string& label) {
  return absl::StrCat("<svg viewBox=\"0 0 ", N(kPictureWidth), " ", N(height),
                      "\" role=\"img\" aria-label=\"", Escape(label), "\">\n");
}

std::string SvgText(double x, double y, const char* anchor, const std::string& classes,
                    const std::string& text) {
  return absl::StrCat("<text x=\"", N(x), "\" y=\"", N(y), "\" text-anchor=\"", anchor,
                      "\" class=\"", classes, "\">", Escape(text), "</text>\n");
}

std::string SvgLine(double x1, double y1, double x2, double y2, const char* classes) {
  return absl::StrCat("<line x1=\"", N(x1), "\" y1=\"", N(y1), "\" x2=\"", N(x2), "\" y2=\"", N(y2),
                      "\" class=\"", classes, "\"/>\n");
}

// One bar for each mechanism, divided by worker.
std::string SharesPicture(const WorkloadText& workload, const std::vector<const Result*>& results) {
  constexpr double kHeader = 18;
  const double height = kHeader + kBarRowHeight * static_cast<double>(results.size()) + 4;
  std::string svg =
      SvgBegin(height, absl::StrCat(workload.title, ": share of the connections of each worker"));
  svg += SvgText(kPictureWidth, 12, "end", "soft small", "Jain index");
  double y = kHeader;
  for (const Result* result : results) {
    svg += SvgText(0, y + 12, "start", absl::StrCat("name ", SideOf(*result)), result->mechanism);
    const double top = y + kNameHeight;
    double x = 0;
    for (size_t i = 0; i < result->shares.size(); ++i) {
      const double width = result->shares[i] * kBarWidth;
      const bool slow = IsSlow(workload, i);
      // A gap of one unit tells neighbours apart, also on paper without colours.
      absl::StrAppend(&svg, "<rect x=\"", N(x), "\" y=\"", N(top), "\" width=\"",
                      N(std::max(width - 1, 0.0)), "\" height=\"", N(kBarHeight),
                      "\" rx=\"2\" class=\"",
                      slow ? std::string("slow") : absl::StrCat("w", i % kWorkerColours),
                      "\"><title>worker ", i, slow ? " (slow)" : "", ": ",
                      FormatFixed(result->shares[i] * 100, 1), " %</title></rect>\n");
      if (width >= kLabelWidthMin) {
        svg += SvgText(x + width / 2, top + 17.5, "middle",
                       slow ? std::string("small ts") : absl::StrCat("small t", i % kWorkerColours),
                       FormatShare(result->shares[i]));
      }
      x += width;
    }
    svg += SvgText(kPictureWidth, top + 18, "end", "name",
                   FormatFigure(result->median.jain, [](double v) { return FormatFixed(v, 2); }));
    y += kBarRowHeight;
  }
  // Where the shares would part if they were even.
  if (!results.empty() && workload.slow_workers.empty()) {
    for (uint32_t i = 1; i < results.front()->workers; ++i) {
      const double x = kBarWidth * i / results.front()->workers;
      svg += SvgLine(x, kHeader + kNameHeight - 3, x,
                     y - kBarRowHeight + kNameHeight + kBarHeight + 5, "faint");
    }
  }
  return svg + "</svg>\n";
}

// A logarithmic axis from a round value below `low` to one above `high`.
class LogAxis {
 public:
  LogAxis(double low, double high)
      : low_(std::log10(Round(low * 0.8, false))), high_(std::log10(Round(high * 1.2, true))) {}

  double X(double value) const {
    return kDotLeft + (std::log10(value) - low_) / (high_ - low_) * (kDotRight - kDotLeft);
  }

  // The powers of ten within, and the 2 and 5 between them if there are few.
  std::vector<double> Marks() const {
    std::vector<double> marks;
    const bool many = high_ - low_ > 2.2;
    for (int exponent = static_cast<int>(std::floor(low_)); exponent <= std::ceil(high_);
         ++exponent) {
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double value = digit * std::pow(10, exponent);
        const double at = std::log10(value);
        if (at < low_ - 1e-9 || at > high_ + 1e-9 || (many && digit != 1)) continue;
        marks.push_back(value);
      }
    }
    return marks;
  }

 private:
  // To 1, 2 or 5 times a power of ten.
  static double Round(double value, bool up) {
    const double power = std::pow(10, std::floor(std::log10(value)));
    const double digit = value / power;
    if (up) return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
    return power * (digit >= 5 ? 5 : digit >= 2 ? 2 : 1);
  }

  double low_;
  double high_;
};

// "10 µs": a round value without digits after the point.
std::string MarkText(double us) {
  if (us < 1e3) return absl::StrCat(std::lround(us), " µs");
  if (us < 1e6) return absl::StrCat(std::lround(us / 1e3), " ms");
  return absl::StrCat(std::lround(us / 1e6), " s");
}

std::string Mark(char shape, double x, double y) {
  constexpr double kRadius = 5;
  if (shape == 'o') {
    return absl::StrCat("<circle cx=\"", N(x), "\" cy=\"", N(y), "\" r=\"", N(kRadius),
                        "\" class=\"mark hollow\"/>\n");
  }
  if (shape == '*') {
    return absl::StrCat("<circle cx=\"", N(x), "\" cy=\"", N(y), "\" r=\"", N(kRadius),
                        "\" class=\"mark full\"/>\n");
  }
  constexpr double kReach = 6.5;
  return absl::StrCat("<path d=\"M", N(x), " ", N(y - kReach), "L", N(x + kReach), " ", N(y), "L",
                      N(x), " ", N(y + kReach), "L", N(x - kReach), " ", N(y),
                      "Z\" class=\"mark full\"/>\n");
}

// One row for each mechanism: half, 99 % and 99.9 % of the connections, and how far the repetitions
// were apart.
std::string LatencyPicture(const WorkloadText& workload,
                           const std::vector<const Result*>& results) {
  constexpr double kHeader = 18;
  double low = std::numeric_limits<double>::max();
  double high = 0;
  for (const Result* result : results) {
    if (!result->median.p50_us) continue;
    low = std::min({low, *result->low.p50_us, *result->median.p50_us});
    high = std::max({high, *result->high.p999_us, *result->median.p999_us});
  }
  const double bottom = kHeader + kDotRowHeight * static_cast<double>(results.size());
  std::string svg =
      SvgBegin(bottom + kAxisHeight, absl::StrCat(workload.title, ": latency, logarithmic scale"));
  if (high > 0 && low > 0) {
    const LogAxis axis(low, high);
    for (const double mark : axis.Marks()) {
      svg += SvgLine(axis.X(mark), kHeader, axis.X(mark), bottom, "grid");
      svg += SvgText(axis.X(mark), bottom + 18, "middle", "soft small", MarkText(mark));
    }
    double y = kHeader;
    for (const Result* result : results) {
      const Figures& median = result->median;
      svg += SvgText(0, y + 12, "start", absl::StrCat("name ", SideOf(*result)), result->mechanism);
      const double middle = y + kNameHeight + 22;
      if (!median.p50_us) {
        svg += SvgText(
            kDotLeft, middle, "start", "soft",
            absl::StrCat("kept up with ", FormatFigure(median.connections_per_second, FormatCount),
                         " per second only: no percentiles"));
        y += kDotRowHeight;
        continue;
      }
      absl::StrAppend(&svg, "<g class=\"", SideOf(*result), "\">\n");
      struct Point {
        Figure Figures::*figure;
        char shape;
      };
      constexpr Point kPoints[] = {
          {&Figures::p50_us, 'o'}, {&Figures::p99_us, '*'}, {&Figures::p999_us, 'd'}};
      for (const Point& point : kPoints) {
        svg += SvgLine(axis.X(*(result->low.*point.figure)), middle,
                       axis.X(*(result->high.*point.figure)), middle, "spread");
      }
      const double first = axis.X(*median.p50_us);
      const double second = axis.X(*median.p99_us);
      const double third = axis.X(*median.p999_us);
      svg += SvgLine(first, middle, third, middle, "reach");
      for (const Point& point : kPoints) {
        svg += Mark(point.shape, axis.X(*(median.*point.figure)), middle);
      }
      svg += "</g>\n";
      // The outer two labels stand outside, the middle one above: they cannot meet.
      svg += SvgText(first - 11, middle + 4.5, "end", "small", FormatUs(*median.p50_us));
      svg += SvgText(second, middle - 11, "middle", "small", FormatUs(*median.p99_us));
      svg += SvgText(third + 11, middle + 4.5, "start", "small", FormatUs(*median.p999_us));
      y += kDotRowHeight;
    }
  } else {
    svg += SvgText(0, kHeader + 20, "start", "soft", "No latency that could be quoted.");
  }
  return svg + "</svg>\n";
}

struct Column {
  const char* title;
  Figure Figures::*figure;
  std::string (*format)(double);
};

// "2.06–3.28 ms"; a unit that both have stands once. Empty when there is nothing between them.
std::string Range(const std::string& low, const std::string& high) {
  if (low == high) return "";
  const size_t space = low.find(' ');
  const bool same_unit = space != std::string::npos && high.ends_with(low.substr(space));
  return absl::StrCat(same_unit ? low.substr(0, space) : low, "–", high);
}

std::string FiguresTable(const std::vector<const Result*>& results) {
  static const Column kColumns[] = {
      {"connections<br>per second", &Figures::connections_per_second, FormatCount},
      {"p50", &Figures::p50_us, FormatUs},
      {"p99", &Figures::p99_us, FormatUs},
      {"p99.9", &Figures::p999_us, FormatUs},
      {"longest", &Figures::max_us, FormatUs},
      {"Jain<br>index", &Figures::jain, [](double v) { return FormatFixed(v, 3); }},
      {"server CPU<br>µs / conn.", &Figures::cpu_us_per_connection,
       [](double v) { return FormatFixed(v, 1); }},
      {"context sw.<br>/ conn.", &Figures::context_switches_per_connection,
       [](double v) { return FormatFixed(v, 2); }},
      {"generator<br>CPU", &Figures::generator_cpu_share, FormatShare},
      {"re-<br>called", &Figures::recalled, FormatCount},
      {"lost", &Figures::lost, FormatCount},
  };
  std::string html = "<div class=\"scroll\"><table><thead><tr><th>mechanism</th>";
  for (const Column& column : kColumns) absl::StrAppend(&html, "<th>", column.title, "</th>");
  html += "</tr></thead><tbody>\n";
  for (const Result* result : results) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">", Escape(result->mechanism), "</th>");
    for (const Column& column : kColumns) {
      const Figure& low = result->low.*column.figure;
      const Figure& high = result->high.*column.figure;
      absl::StrAppend(&html, "<td>", FormatFigure(result->median.*column.figure, column.format));
      if (low && high) {
        const std::string range = Range(column.format(*low), column.format(*high));
        if (!range.empty()) absl::StrAppend(&html, "<small>", range, "</small>");
      }
      html += "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string WorkersLegend(const WorkloadText& workload, uint32_t workers) {
  std::string html;
  for (uint32_t i = 0; i < std::min<uint32_t>(workers, kWorkerColours); ++i) {
    const bool slow = IsSlow(workload, i);
    absl::StrAppend(&html, "<span class=\"swatch ", slow ? std::string("bs") : absl::StrCat("b", i),
                    "\"></span>worker ", i, slow ? ", the slow one" : "");
  }
  if (workers > kWorkerColours) html += " and so on in turn";
  return html;
}

std::string WorkloadCard(const Report& report, const WorkloadText& workload) {
  const std::vector<const Result*> results = report.Of(workload.name);
  if (results.empty()) return "";
  return absl::StrCat(
      "<section class=\"card\">\n<h2>", Escape(workload.title), "<span class=\"tag\">",
      Escape(workload.name), "</span></h2>\n<p class=\"lead\">", Escape(workload.description),
      "</p>\n<div class=\"pictures\">\n<figure><h3>Who served</h3>\n",
      SharesPicture(workload, results), "<figcaption>",
      WorkersLegend(workload, results.front()->workers),
      "</figcaption></figure>\n<figure><h3>How long it took</h3>\n",
      LatencyPicture(workload, results),
      "<figcaption>○ half, ● 99 %, ◆ 99.9 % of the connections. ",
      workload.open_loop
          ? "Open loop: counted from the moment at which the connection was to start."
          : "Closed loop: counted from when the client was ready, which flatters every mechanism.",
      "</figcaption></figure>\n</div>\n", FiguresTable(results), "</section>\n");
}

std::string ClaimsCard(const Report& report) {
  const std::vector<Claim> claims = ClaimsOf(report);
  if (claims.empty()) return "";
  const Sides sides = SidesOf(report);
  std::string html =
      absl::StrCat("<section class=\"card\">\n<h2>What the figures say</h2>\n<p class=\"note\">",
                   Escape(sides.ours), " against ", Escape(sides.rival),
                   ". Better and worse only where the two sides’ repetitions do not overlap.</p>\n"
                   "<ul class=\"claims\">\n");
  for (const Claim& claim : claims) {
    const char* verdict = claim.verdict == Verdict::kBetter  ? "better"
                          : claim.verdict == Verdict::kWorse ? "worse"
                                                             : "even";
    absl::StrAppend(&html, "<li class=\"", verdict, "\"><span class=\"verdict\">",
                    claim.verdict == Verdict::kBetter  ? "▲ better"
                    : claim.verdict == Verdict::kWorse ? "▼ worse"
                                                       : "● even",
                    "</span><span>", Escape(claim.text), "</span></li>\n");
  }
  return html + "</ul>\n</section>\n";
}

std::string ContextCard(const Report& report) {
  const Context& context = report.context;
  const uint32_t repetitions = report.results.empty() ? 0 : report.results.front().repetitions;
  return absl::StrCat(
      "<section class=\"card\">\n<h2>How this was measured</h2>\n"
      "<p>Every connection is real: a client connects, sends a small request, reads it back, "
      "compares it and closes. Each mechanism serves with the same code; only the way from the "
      "listener to a worker differs. Figures are medians of ",
      repetitions, " repetitions of ", FormatFixed(context.seconds, 1),
      " s, interleaved in an order drawn from the seed; the least and the largest repetition stand "
      "below in small print and as a shade behind the dots. The bars show the repetition with the "
      "median Jain index.</p>\n"
      "<p class=\"lead\">Clients and server share the CPUs of one machine and talk over its "
      "loopback, so connections per second compare mechanisms with each other and say nothing of "
      "a network. Where the clients wait for answers (closed loop), a slow answer delays the next "
      "question, and latency looks better than users would find it.</p>\n<dl>\n"
      "<dt>Measured</dt><dd>",
      Escape(context.date), " with ", Escape(context.program), "</dd>\n<dt>Kernel</dt><dd>Linux ",
      Escape(context.kernel), "</dd>\n<dt>CPUs</dt><dd>", context.cpus, ", load ",
      FormatFixed(context.load_before, 1), " before the measurement",
      context.busy() ? ": <strong>busy with other work</strong>, and a mechanism that keeps more "
                       "threads running gets more of contended CPUs. Measure again when it is idle."
                     : "",
      "</dd>\n<dt>liburing</dt><dd>", Escape(context.liburing), "</dd>\n<dt>Seed</dt><dd>",
      context.seed, "</dd>\n<dt>Repeat it</dt><dd><code>", Escape(context.command),
      "</code></dd>\n</dl>\n</section>\n");
}

}  // namespace

std::string HtmlReport(const Report& report) {
  std::string html = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<title>Ringmaster: who serves, and how fast</title>\n<style>",
      kStyle, "</style>\n</head>\n<body>\n<main>\n<p class=\"brand\">Ringmaster <span>· ",
      Escape(report.context.date), "</span></p>\n<h1>", Escape(HeadlineOf(report)),
      "</h1>\n<p class=\"lead\">The same connections, served on this machine by one mechanism "
      "after "
      "the other: the kernel’s own way of sharing a listener, and one io_uring that accepts while "
      "a "
      "policy picks the worker.</p>\n",
      ClaimsCard(report));
  for (const WorkloadText& workload : report.workloads) html += WorkloadCard(report, workload);
  return absl::StrCat(html, ContextCard(report), "</main>\n</body>\n</html>\n");
}

}  // namespace ringmaster::bench
