#include "bench/html_report.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/claims.h"
#include "bench/measures.h"
#include "bench/pictures.h"
#include "output/format.h"
#include "output/svg.h"

namespace ringmaster::bench {
namespace {

using output::EscapeHtml;
using output::FormatFigure;
using output::FormatFixed;

// With more workloads the overview shows one figure of each instead of two.
constexpr size_t kWorkloadsInDetailMax = 4;

constexpr char kStyle[] = R"css(
:root{color-scheme:light dark;--paper:#faf8f4;--card:#fff;--ink:#211f1c;--soft:#6a655d;--line:#e5dfd5;
--band:#f7f4ee;--ours:#b3261e;--rival:#6f6a62;--reference:#211f1c;--good:#0b6e62;--bad:#9a4b00;
--good-tint:15,140,120;--bad-tint:224,124,20;--slow:#e0a021;--slow-ink:#2b1f00;
--w0:#244b6b;--w1:#3f7ba8;--w2:#8bb7d6;--w3:#c9dfee;--t0:#fff;--t1:#fff;--t2:#10242f;--t3:#10242f}
@media (prefers-color-scheme:dark){:root{--paper:#131417;--card:#1b1d22;--ink:#ece9e3;--soft:#a09b92;
--line:#33363e;--band:#20232a;--ours:#ff8a7a;--rival:#b3aca0;--reference:#ece9e3;--good:#5fd0bd;
--bad:#f0a860;--good-tint:60,190,165;--bad-tint:230,140,50;--slow:#d99a1c;--slow-ink:#1c1400;
--w0:#8fc3e8;--w1:#5795c2;--w2:#356b94;--w3:#224760;--t0:#0b1a24;--t1:#0b1a24;--t2:#fff;--t3:#fff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1240px;margin:0 auto;padding:48px 24px 64px}
.brand{color:var(--ours);font-weight:650;letter-spacing:.02em;margin:0 0 12px}
.brand span{color:var(--soft);font-weight:400}
h1{font-size:clamp(1.6rem,3.4vw,2.5rem);line-height:1.18;letter-spacing:-.015em;margin:0 0 16px;
max-width:26em;text-wrap:balance}
h2{font-size:1.4rem;margin:0 0 4px;letter-spacing:-.01em}
h3{font-size:1rem;margin:30px 0 4px}
p{margin:0 0 12px;max-width:88ch}
.question{font-size:1.08rem;font-weight:550;margin:0 0 4px}
.lead,.note,figcaption{color:var(--soft)}
.note,figcaption{font-size:.875rem}
figcaption{margin-top:6px}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:28px 30px;
margin:28px 0}
.caveat{border-left:4px solid var(--slow);background:var(--card);padding:10px 16px;margin:14px 0;
max-width:78ch;border-radius:0 8px 8px 0}
.tag{color:var(--soft);font:.85rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
border:1px solid var(--line);border-radius:99px;padding:2px 10px;margin-left:10px;vertical-align:3px}
ul.claims{list-style:none;margin:14px 0 0;padding:0}
ul.claims li{display:flex;gap:12px;padding:7px 0;border-top:1px solid var(--line)}
.verdict{flex:none;width:5.2em;font-weight:650}
.better .verdict{color:var(--good)}.worse .verdict{color:var(--bad)}.even .verdict{color:var(--soft)}
figure{margin:0;overflow-x:auto}
svg{display:block;width:100%;min-width:860px;height:auto;overflow:visible}
svg text{fill:var(--ink);font-size:12.5px;font-variant-numeric:tabular-nums}
svg .soft,svg .head,svg .pattern{fill:var(--soft);font-size:12px}
svg .pattern{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:11.5px}
svg .name{font-weight:550}svg .name.rival{fill:var(--rival)}svg .name.ours{fill:var(--ours)}
svg .name.reference{fill:var(--reference);font-weight:700}
svg .value{fill:var(--soft)}svg .best{fill:var(--ink);font-weight:750}
svg .behind{fill:var(--bad);font-weight:600}
svg .label{font-size:11.5px}
.band{fill:var(--band)}
.grid{stroke:var(--line);stroke-width:1}
.even{stroke:var(--soft);stroke-width:1}
.reference-line{stroke:var(--reference);stroke-width:1;stroke-dasharray:3 3;opacity:.45}
.w0{fill:var(--w0)}.w1{fill:var(--w1)}.w2{fill:var(--w2)}.w3{fill:var(--w3)}.ws{fill:var(--slow)}
svg .t0{fill:var(--t0)}svg .t1{fill:var(--t1)}svg .t2{fill:var(--t2)}svg .t3{fill:var(--t3)}
svg .ts{fill:var(--slow-ink);font-weight:600}
.mark.rival,.reach.rival,.spread.rival,.bar.rival{color:var(--rival)}
.mark.ours,.reach.ours,.spread.ours,.bar.ours{color:var(--ours)}
.mark.reference,.reach.reference,.spread.reference,.bar.reference{color:var(--reference)}
.mark{stroke:currentColor;stroke-width:2}.mark.hollow{fill:var(--card)}.mark.full{fill:currentColor}
.reach{stroke:currentColor;stroke-width:1.5;opacity:.5}
.spread{stroke:currentColor;stroke-width:9;stroke-linecap:round;opacity:.2}
.bar{fill:currentColor;opacity:.72}
.whisker{stroke:var(--ink);stroke-width:1.25;opacity:.65}
.scroll{overflow-x:auto;margin-top:14px}
table{border-collapse:collapse;width:100%;font-size:.82rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 0 6px 12px;border-top:1px solid var(--line);white-space:nowrap;
vertical-align:top}
thead th{border-top:0;color:var(--soft);font-weight:500;vertical-align:bottom;
white-space:normal;max-width:8em}
thead th[colspan]{text-align:center;color:var(--ink);font-weight:650;padding-bottom:0}
th:first-child,td:first-child{text-align:left;padding-left:0}
tbody th{font-weight:550;color:var(--rival)}tbody th.ours{color:var(--ours)}
tbody th.reference{color:var(--reference);font-weight:700}
td small{display:block;color:var(--soft);font-size:.7rem;line-height:1.25}
td.best,td .best{font-weight:750}
tr.pattern td{color:var(--soft);text-align:left;white-space:normal;
font:.78rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;padding-top:12px}
td.skipped{color:var(--soft);text-align:left;white-space:normal}
table.glance{border-collapse:separate;border-spacing:3px}
table.glance th,table.glance td{border:0;padding:5px 10px}
table.glance tbody td{border-radius:5px;background:var(--band)}
table.glance td.reference{outline:1px dashed var(--soft);outline-offset:-1px}
table.glance th:first-child{padding-left:0;width:1%}
.better-1{--a:.18}.better-2{--a:.38}.better-3{--a:.62}.worse-1{--a:.18}.worse-2{--a:.38}.worse-3{--a:.62}
table.glance tbody td.better-1,table.glance tbody td.better-2,table.glance tbody td.better-3,
.key.better-1,.key.better-2,.key.better-3{background:rgba(var(--good-tint),var(--a))}
table.glance tbody td.worse-1,table.glance tbody td.worse-2,table.glance tbody td.worse-3,
.key.worse-1,.key.worse-2,.key.worse-3{background:rgba(var(--bad-tint),var(--a))}
table.glance td[class] small{color:inherit;opacity:.8}
.key{display:inline-block;border-radius:4px;padding:0 7px;margin:0 2px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 20px;margin:12px 0 0}
dt{color:var(--soft)}dd{margin:0}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:3px;vertical-align:-1px;
margin:0 5px 0 12px}
.b0{background:var(--w0)}.b1{background:var(--w1)}.b2{background:var(--w2)}.b3{background:var(--w3)}
.bs{background:var(--slow)}
.swatch:first-child{margin-left:0}
@media (max-width:600px){main{padding:28px 14px}.card{padding:20px 16px;border-radius:10px}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}}
@page{size:A4;margin:11mm}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;
--band:#f4f4f2;--ours:#b3261e;--rival:#555;--reference:#000;--good:#0b6e62;--bad:#9a4b00;
--good-tint:15,140,120;--bad-tint:224,124,20;--slow:#e0a021;--slow-ink:#000;--w0:#244b6b;
--w1:#3f7ba8;--w2:#8bb7d6;--w3:#c9dfee;--t0:#fff;--t1:#fff;--t2:#000;--t3:#000}
body{font-size:10pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}h1{font-size:16pt;max-width:none}
.card{border:0;border-radius:0;padding:0;margin:0 0 8mm;break-before:page}
.card.first,.card.last{break-before:auto}
h2,h3,.question{break-after:avoid}figure,tr,li,.caveat{break-inside:avoid}
figure,.scroll{overflow:visible}svg{min-width:0}
table{font-size:7.5pt}th,td{padding:2px 0 2px 6px}table.glance th,table.glance td{padding:2px 6px}
table.glance td small{display:inline;margin-left:5px}table.glance{border-spacing:2px}
td small{font-size:6pt;line-height:1.15}thead{display:table-header-group}}
)css";

const char* SideOf(const std::string& mechanism) {
  if (mechanism == kReference) return "reference";
  return Names::IsOurs(mechanism) ? "ours" : "rival";
}

const Result* Find(const Report& report, const std::string& workload,
                   const std::string& mechanism) {
  for (const Result* result : report.Of(workload)) {
    if (result->mechanism == mechanism) return result;
  }
  return nullptr;
}

// A cell's tint says how far it is from the reference, and that no repetition contradicts it.
std::string TintOf(const Result& result, const Result* reference, const Measure& measure) {
  if (reference == nullptr || result.mechanism == kReference) return "";
  const Verdict verdict = Compare(result, *reference, measure.figure);
  if (verdict == Verdict::kEven) return "";
  const Figure& ratio = result.ratio.*measure.figure;
  // A figure that is missing because the mechanism fell behind is as bad as any.
  const double distance = ratio && *ratio > 0 ? std::abs(std::log2(*ratio)) : 9;
  const int strength = distance < 0.15 ? 1 : distance < 0.6 ? 2 : 3;
  return absl::StrCat(verdict == Verdict::kBetter ? "better-" : "worse-", strength);
}

std::string RowHead(const Names& names, const std::string& mechanism) {
  return absl::StrCat("<th scope=\"row\" class=\"", SideOf(mechanism), "\">",
                      EscapeHtml(names.Short(mechanism)), "</th>");
}

// The line above the first of ringmaster's that says what the short names stand for.
std::string PatternRow(const Names& names, size_t columns) {
  return absl::StrCat("<tr class=\"pattern\"><td colspan=\"", columns, "\">",
                      EscapeHtml(names.pattern()), "</td></tr>\n");
}

// Below a percentile: the figures above are not those of all repetitions.
std::string BehindSmall(const Result& result) {
  return absl::StrCat("<small>behind in ", FellBehindText(result), "</small>");
}

struct GlanceColumn {
  const WorkloadText* workload;
  const Measure* measure;
};

std::string GlanceCell(const Report& report, const std::string& mechanism,
                       const GlanceColumn& column) {
  const Result* result = Find(report, column.workload->name, mechanism);
  if (result == nullptr || result->repetitions == 0) return "<td>–</td>";
  const Result* reference = Find(report, column.workload->name, kReference);
  const std::string tint = mechanism == kReference ? std::string("reference")
                                                   : TintOf(*result, reference, *column.measure);
  std::string html = tint.empty() ? "<td>" : absl::StrCat("<td class=\"", tint, "\">");
  const Figure& median = result->median.*column.measure->figure;
  const bool behind = IsPercentile(column.measure->figure) && result->fell_behind_count > 0;
  html += behind && !median ? "fell behind" : FormatFigure(median, column.measure->format);
  if (behind) html += BehindSmall(*result);
  if (const Figure& ratio = result->ratio.*column.measure->figure) {
    absl::StrAppend(&html, "<small>×", FormatFixed(*ratio, *ratio < 9.995 ? 2 : 1), "</small>");
  }
  return absl::StrCat(html, "</td>");
}

// Everything in one table: mechanisms by the figures that decide the workloads.
std::string GlanceCard(const Report& report, const Names& names) {
  const size_t measures = report.workloads.size() > kWorkloadsInDetailMax ? 1 : 2;
  std::vector<GlanceColumn> columns;
  std::string workloads;
  std::string titles;
  for (const WorkloadText& workload : report.workloads) {
    absl::StrAppend(&workloads, "<th scope=\"colgroup\" colspan=\"", measures, "\">",
                    EscapeHtml(workload.title), "</th>");
    for (size_t i = 0; i < measures; ++i) {
      const Measure& measure = MeasureOf(DecidingFigures(workload.question)[i]);
      columns.push_back({&workload, &measure});
      absl::StrAppend(&titles, "<th scope=\"col\">", EscapeHtml(measure.title), "</th>");
    }
  }
  std::vector<std::string> mechanisms;
  for (const Result& result : report.results) {
    if (std::find(mechanisms.begin(), mechanisms.end(), result.mechanism) == mechanisms.end()) {
      mechanisms.push_back(result.mechanism);
    }
  }
  std::string html = absl::StrCat(
      "<section class=\"card first\">\n<h2>At a glance</h2>\n<p class=\"note\">Medians, and below "
      "them the ratio to ",
      kReference,
      ". Tinted only where every single repetition agrees: <span class=\"key "
      "better-2\">better</span><span class=\"key worse-2\">worse</span>, the stronger the farther. "
      "Without a tint the repetitions cannot tell them apart.</p>\n"
      "<div class=\"scroll\"><table class=\"glance\"><thead><tr><th></th>",
      workloads, "</tr><tr><th>mechanism</th>", titles, "</tr></thead><tbody>\n");
  bool ours = false;
  for (const std::string& mechanism : mechanisms) {
    if (Names::IsOurs(mechanism) && !ours) {
      ours = true;
      html += PatternRow(names, columns.size() + 1);
    }
    absl::StrAppend(&html, "<tr>", RowHead(names, mechanism));
    for (const GlanceColumn& column : columns) html += GlanceCell(report, mechanism, column);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n</section>\n";
}

// "2.06–3.28 ms"; a unit that both have stands once. Empty when there is nothing between them.
std::string Range(const std::string& low, const std::string& high) {
  if (low == high) return "";
  const size_t space = low.find(' ');
  const bool same_unit = space != std::string::npos && high.ends_with(low.substr(space));
  return absl::StrCat(same_unit ? low.substr(0, space) : low, "–", high);
}

std::string FigureCell(const Result& result, const Measure& measure) {
  std::string html =
      absl::StrCat("<td>", EscapeHtml(FormatFigure(result.median.*measure.figure, measure.format)));
  const Figure& low = result.low.*measure.figure;
  const Figure& high = result.high.*measure.figure;
  if (low && high) {
    const std::string range = Range(measure.format(*low), measure.format(*high));
    if (!range.empty()) absl::StrAppend(&html, "<small>", EscapeHtml(range), "</small>");
  }
  if (IsPercentile(measure.figure) && result.fell_behind_count > 0) html += BehindSmall(result);
  const Figure& ratio = result.ratio.*measure.figure;
  const Figure& ratio_low = result.ratio_low.*measure.figure;
  const Figure& ratio_high = result.ratio_high.*measure.figure;
  if (ratio && ratio_low && ratio_high && result.mechanism != kReference &&
      measure.better != Better::kNeither) {
    absl::StrAppend(&html, "<small>×", FormatFixed(*ratio, 2));
    if (result.repetitions > 1) {
      absl::StrAppend(&html, " (", FormatFixed(*ratio_low, 2), "–", FormatFixed(*ratio_high, 2),
                      ")");
    }
    html += "</small>";
  }
  return html + "</td>";
}

std::string FiguresTable(const std::vector<const Result*>& results, const Names& names,
                         const std::vector<const Measure*>& measures) {
  std::string html = "<div class=\"scroll\"><table><thead><tr><th>mechanism</th>";
  for (const Measure* measure : measures) {
    absl::StrAppend(&html, "<th scope=\"col\">", EscapeHtml(measure->title), "</th>");
  }
  html += "</tr></thead><tbody>\n";
  bool ours = false;
  for (const Result* result : results) {
    if (Names::IsOurs(result->mechanism) && !ours) {
      ours = true;
      html += PatternRow(names, measures.size() + 1);
    }
    absl::StrAppend(&html, "<tr>", RowHead(names, result->mechanism));
    if (result->repetitions == 0) {
      absl::StrAppend(&html, "<td class=\"skipped\" colspan=\"", measures.size(),
                      "\">did not run: ", EscapeHtml(result->skipped), "</td></tr>\n");
      continue;
    }
    for (const Measure* measure : measures) html += FigureCell(*result, *measure);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

// Two tables, because one would be too wide for a page: what a client sees, and what it costs.
std::string FiguresTables(const std::vector<const Result*>& results, const Names& names) {
  constexpr size_t kForClients = 7;  // of the measures, see measures.cc
  std::vector<const Measure*> first;
  std::vector<const Measure*> second;
  for (const Measure& measure : Measures()) {
    const bool any = std::any_of(results.begin(), results.end(), [&](const Result* result) {
      return (result->median.*measure.figure).has_value();
    });
    if (any) (first.size() < kForClients && second.empty() ? first : second).push_back(&measure);
  }
  std::string html =
      "<h3>All figures</h3>\n<p class=\"note\">Medians; below them the least and the "
      "largest repetition that has one, and the ratio to ";
  absl::StrAppend(&html, kReference, ", pair by pair.</p>\n", FiguresTable(results, names, first));
  if (!second.empty()) absl::StrAppend(&html, FiguresTable(results, names, second));
  return html;
}

std::string WorkersLegend(const WorkloadText& workload, uint32_t workers) {
  std::string html;
  for (uint32_t i = 0; i < std::min<uint32_t>(workers, kWorkerColours); ++i) {
    const bool slow = std::find(workload.slow_workers.begin(), workload.slow_workers.end(), i) !=
                      workload.slow_workers.end();
    absl::StrAppend(&html, "<span class=\"swatch ", slow ? std::string("bs") : absl::StrCat("b", i),
                    "\"></span>worker ", i, slow ? ", the slow one" : "");
  }
  if (workers > kWorkerColours) html += " and so on in turn";
  return html + ". ";
}

std::string Illustration(const std::string& title, const std::string& picture,
                         const std::string& caption) {
  return absl::StrCat("<h3>", title, "</h3>\n<figure>\n", picture, "</figure>\n<figcaption>",
                      caption, "</figcaption>\n");
}

std::string Pictures(const PictureOf& of) {
  const bool limited = std::any_of(of.results.begin(), of.results.end(), [](const Result* result) {
    return result->generator_limited();
  });
  std::string html = Illustration(
      "Who served, and how much", SharesPicture(of),
      absl::StrCat(
          WorkersLegend(of.workload, of.results.front()->workers),
          of.workload.slow_workers.empty() ? "Ticks mark even shares. " : "",
          "The repetition with the median Jain index: 1 is even. The dot is the median, the shade "
          "all repetitions, the dashed line ",
          kReference, ".",
          limited
              ? " A hollow dot: the load generator was the bottleneck, and the server could have "
                "done more."
              : ""));
  if (const std::string order = OrderPicture(of); !order.empty()) {
    html += Illustration("In which order", order, "From left to right.");
  }
  html += Illustration(
      "How long it took", LatencyPicture(of),
      absl::StrCat(
          "○ half, ● 99 %, ◆ 99.9 % of the connections, on a logarithmic scale. ",
          of.workload.open_loop
              ? "Open loop: counted from the moment at which the connection was to start."
              : "Closed loop: counted from when the client was ready, which flatters every "
                "mechanism."));
  if (const std::string costs = CostsPicture(of); !costs.empty()) {
    html += Illustration(
        of.workload.question == Question::kLoss ? "What went wrong" : "What a connection costs",
        costs,
        "Bars begin at zero; the thin line reaches from the least to the largest repetition.");
  }
  return html;
}

std::string ClaimsList(const std::vector<Claim>& claims, const WorkloadText& workload) {
  std::string html;
  for (const Claim& claim : claims) {
    if (claim.workload != workload.name) continue;
    const char* verdict = claim.verdict == Verdict::kBetter  ? "better"
                          : claim.verdict == Verdict::kWorse ? "worse"
                                                             : "even";
    absl::StrAppend(&html, "<li class=\"", verdict, "\"><span class=\"verdict\">",
                    claim.verdict == Verdict::kBetter  ? "▲ better"
                    : claim.verdict == Verdict::kWorse ? "▼ worse"
                                                       : "● even",
                    "</span><span>", EscapeHtml(claim.text), "</span></li>\n");
  }
  return html.empty() ? "" : absl::StrCat("<ul class=\"claims\">\n", html, "</ul>\n");
}

std::string WorkloadCard(const Report& report, const WorkloadText& workload, const Names& names,
                         const std::vector<Claim>& claims) {
  const std::vector<const Result*> results = report.Of(workload.name);
  if (results.empty()) return "";
  PictureOf of{.workload = workload, .names = names, .results = {}};
  for (const Result* result : results) {
    if (result->repetitions > 0) of.results.push_back(result);
  }
  return absl::StrCat(
      "<section class=\"card\">\n<h2>", EscapeHtml(workload.title), "<span class=\"tag\">",
      EscapeHtml(workload.name), ", windows of ", FormatFixed(results.front()->seconds, 1), " s",
      "</span></h2>\n<p class=\"question\">", EscapeHtml(QuestionText(workload.question)),
      "</p>\n<p class=\"lead\">", EscapeHtml(workload.description), "</p>\n",
      ClaimsList(claims, workload), of.results.empty() ? std::string() : Pictures(of),
      FiguresTables(results, names), "</section>\n");
}

std::string Term(const char* name, const std::string& text) {
  return absl::StrCat("<dt>", name, "</dt><dd>", text, "</dd>\n");
}

std::string MechanismsCard(const Report& report) {
  if (report.mechanisms.empty()) return "";
  std::string html = "<section class=\"card last\">\n<h2>The mechanisms</h2>\n<dl>\n";
  for (const MechanismText& mechanism : report.mechanisms) {
    html += Term(absl::StrCat("<code>", EscapeHtml(mechanism.name), "</code>").c_str(),
                 EscapeHtml(mechanism.summary));
  }
  return html + "</dl>\n</section>\n";
}

std::string ContextCard(const Report& report) {
  const Context& context = report.context;
  uint32_t repetitions = 0;
  for (const Result& result : report.results)
    repetitions = std::max(repetitions, result.repetitions);
  const Result* first = report.results.empty() ? nullptr : &report.results.front();
  return absl::StrCat(
      "<section class=\"card last\">\n<h2>How this was measured</h2>\n"
      "<p>Every connection is real: a client connects, sends a small request, reads it back, "
      "compares it and closes. Each mechanism serves with the same code; only the way from the "
      "listener to a worker differs. Figures are medians of ",
      repetitions, " repetitions of ", FormatFixed(context.seconds, 1),
      " s (longer where a workload needs it), interleaved in an order drawn from the seed. Better "
      "and worse are said only where one side wins every pair of repetitions that ran side by "
      "side. Costs are those of the whole server, over the connections that its workers took.</p>\n"
      "<p class=\"lead\">Clients and server share one machine and talk over its loopback. So "
      "connections per second compare mechanisms with each other, and say nothing of a network. "
      "Where the clients wait for answers (closed loop), a slow answer delays the next question, "
      "and latency looks better than users would find it.</p>\n<dl>\n",
      Term("Measured", absl::StrCat(EscapeHtml(context.date), " with ", EscapeHtml(context.program),
                                    ", commit ", EscapeHtml(context.commit))),
      Term("Kernel", absl::StrCat("Linux ", EscapeHtml(context.kernel))),
      Term("CPUs",
           absl::StrCat(
               context.cpus, " × ", EscapeHtml(context.cpu_model),
               context.usable_cpus() == context.cpus
                   ? std::string()
                   : absl::StrCat(", of which this process may use ", context.usable_cpus()),
               ", load ", FormatFixed(context.load_before, 1), " before the measurement")),
      Term("Frequency governor", EscapeHtml(context.governor)),
      Term("Mitigations", EscapeHtml(context.mitigations)),
      Term("io_uring", absl::StrCat("liburing ", EscapeHtml(context.liburing), ", ",
                                    EscapeHtml(context.ring_flags))),
      Term("Built by",
           absl::StrCat(EscapeHtml(context.compiler), " with ", EscapeHtml(context.build_flags))),
      first == nullptr
          ? std::string()
          : Term("Workers",
                 absl::StrCat(first->workers, ", over ", first->transport,
                              first->pinned ? ", pinned apart from the clients" : ", not pinned")),
      Term("Windows",
           absl::StrCat(FormatFixed(context.seconds, 1), " s, or what a workload needs, after ",
                        FormatFixed(context.warm_up_seconds, 2), " s that do not count")),
      Term("Seed", absl::StrCat(context.seed)),
      Term("Repeat it", absl::StrCat("<code>", EscapeHtml(context.command), "</code>")),
      "</dl>\n</section>\n");
}

}  // namespace

std::string HtmlReport(const Report& report) {
  const Names names(report);
  const std::vector<Claim> claims = ClaimsOf(report);
  std::string html = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<title>Ringmaster: who serves, and how fast</title>\n<style>",
      kStyle, "</style>\n</head>\n<body>\n<main>\n<p class=\"brand\">Ringmaster <span>· ",
      EscapeHtml(report.context.date), "</span></p>\n<h1>", EscapeHtml(HeadlineOf(report)),
      "</h1>\n<p class=\"lead\">The same connections, served on this machine by one mechanism "
      "after the other: the kernel’s own ways of sharing a listener, threads that hand "
      "connections on, and one io_uring that accepts while a policy picks the worker.</p>\n");
  for (const std::string& caveat : CaveatsOf(report)) {
    absl::StrAppend(&html, "<p class=\"caveat\">", EscapeHtml(caveat), "</p>\n");
  }
  html += GlanceCard(report, names);
  for (const WorkloadText& workload : report.workloads) {
    html += WorkloadCard(report, workload, names, claims);
  }
  return absl::StrCat(html, MechanismsCard(report), ContextCard(report),
                      "</main>\n</body>\n</html>\n");
}

}  // namespace ringmaster::bench
