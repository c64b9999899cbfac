#include "bench/report.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "bench/claims.h"
#include "bench/format.h"

namespace ringmaster::bench {
namespace {

constexpr int kColumnsMin = 60;
constexpr int kColumnsForBar = 96;  // a narrower terminal gets the numbers only
constexpr size_t kBarCells = 16;
constexpr size_t kSharesSpelledMax = 6;  // more workers are summed up

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

  // One cell of a bar: worker after worker, told apart by colour or else by density.
  std::string Cell(size_t worker, bool slow) const {
    if (style_.colours) {
      static constexpr const char* kColours[] = {"36", "34", "96", "94"};
      return Wrap(slow ? "33" : kColours[worker % std::size(kColours)], style_.utf8 ? "█" : "#");
    }
    static constexpr const char* kDensities[] = {"█", "▓", "▒", "░"};
    static constexpr const char* kLetters[] = {"#", "=", "+", "-"};
    return style_.utf8 ? kDensities[worker % std::size(kDensities)]
                       : kLetters[worker % std::size(kLetters)];
  }

 private:
  std::string Wrap(const char* code, const std::string& text) const {
    return style_.colours ? absl::StrCat("\033[", code, "m", text, "\033[0m") : text;
  }

  const TerminalStyle& style_;
};

bool IsSlow(const WorkloadText& workload, size_t worker) {
  return std::find(workload.slow_workers.begin(), workload.slow_workers.end(), worker) !=
         workload.slow_workers.end();
}

// As many cells as kBarCells, divided so that each boundary is where it belongs.
std::string Bar(const Painter& painter, const WorkloadText& workload,
                const std::vector<double>& shares) {
  std::string bar;
  double sum = 0;
  size_t cells = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    sum += shares[i];
    const auto until = static_cast<size_t>(std::lround(sum * kBarCells));
    for (; cells < until; ++cells) bar += painter.Cell(i, IsSlow(workload, i));
  }
  return bar + std::string(kBarCells - cells, ' ');
}

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

std::string WorkloadTable(const Report& report, const WorkloadText& workload,
                          const TerminalStyle& style) {
  const Painter painter(style);
  const std::vector<const Result*> results = report.Of(workload.name);
  const bool with_bar = style.columns >= kColumnsForBar;
  size_t name_width = Width("mechanism");
  size_t shares_width = Width("by worker");
  for (const Result* result : results) {
    name_width = std::max(name_width, Width(result->mechanism));
    shares_width = std::max(shares_width, Width(SharesText(result->shares)));
  }
  const auto row = [&](const std::string& name, const std::string& bar, const std::string& shares,
                       const std::vector<std::string>& figures) {
    std::string line = absl::StrCat("  ", PadRight(name, name_width), "  ");
    if (with_bar) absl::StrAppend(&line, bar, "  ");
    absl::StrAppend(&line, PadRight(shares, shares_width));
    static constexpr size_t kWidths[] = {6, 8, 9, 9, 9};
    for (size_t i = 0; i < figures.size(); ++i) line += PadLeft(figures[i], kWidths[i]);
    return line;
  };
  std::string text = absl::StrCat(painter.Bold(workload.title),
                                  painter.Dim(absl::StrCat("  ", workload.name)), "\n");
  const std::string header = row("mechanism", PadRight("connections", kBarCells), "by worker",
                                 {"Jain", "conn/s", "p50", "p99", "p99.9"});
  absl::StrAppend(&text, painter.Dim(header), "\n");
  bool percentiles_missing = false;
  for (const Result* result : results) {
    const Figures& median = result->median;
    percentiles_missing = percentiles_missing || !median.p99_us.has_value();
    absl::StrAppend(
        &text,
        row(result->mechanism, Bar(painter, workload, result->shares), SharesText(result->shares),
            {FormatFigure(median.jain, [](double jain) { return FormatFixed(jain, 2); }),
             FormatFigure(median.connections_per_second, FormatCount),
             FormatFigure(median.p50_us, FormatUs), FormatFigure(median.p99_us, FormatUs),
             FormatFigure(median.p999_us, FormatUs)}),
        "\n");
  }
  absl::StrAppend(
      &text,
      painter.Dim(workload.open_loop
                      ? "  Open loop: latency counts from the intended start."
                      : "  Closed loop: clients wait for answers, so latency flatters."),
      "\n");
  for (const uint32_t worker : workload.slow_workers) {
    absl::StrAppend(&text, painter.Dim(absl::StrCat("  Worker ", worker, " is the slow one.")),
                    "\n");
  }
  if (percentiles_missing) {
    absl::StrAppend(
        &text, painter.Dim("  No percentiles: less than 99 % of the offered load was achieved."),
        "\n");
  }
  return text;
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
  return absl::StrCat("  ", sign, " ", Paragraph(claim.text, columns), "\n");
}

nlohmann::ordered_json FiguresToJson(const Figures& figures) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const FigureName& name : FigureNames()) {
    const Figure& figure = figures.*name.figure;
    json[name.name] = figure.has_value() ? nlohmann::ordered_json(*figure) : nullptr;
  }
  return json;
}

nlohmann::ordered_json SpreadToJson(const Result& result) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const FigureName& name : FigureNames()) {
    const Figure& low = result.low.*name.figure;
    const Figure& high = result.high.*name.figure;
    json[name.name] = low.has_value() && high.has_value()
                          ? nlohmann::ordered_json::array({*low, *high})
                          : nlohmann::ordered_json(nullptr);
  }
  return json;
}

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
    absl::StrAppend(&text, WorkloadTable(report, workload, style), "\n");
  }
  const std::vector<Claim> claims = ClaimsOf(report);
  if (!claims.empty()) {
    absl::StrAppend(&text, painter.Bold("What the figures say"),
                    painter.Dim("  + better  = no difference that the repetitions show  - worse"),
                    "\n");
    for (const Claim& claim : claims) text += ClaimLine(painter, claim, style.columns);
  }
  if (report.context.busy()) {
    absl::StrAppend(
        &text, "\n", painter.Bad("!"), " ",
        Paragraph(
            absl::StrCat("The machine was busy already (load ",
                         FormatFixed(report.context.load_before, 1), " on ", report.context.cpus,
                         " CPUs): a mechanism that keeps more threads running gets more of "
                         "contended CPUs. Measure again when it is idle."),
            style.columns),
        "\n");
  }
  if (style.utf8) return text;
  return absl::StrReplaceAll(text, {{"µ", "u"}, {"–", "-"}, {"−", "-"}});
}

std::string JsonReport(const Report& report) {
  const Context& context = report.context;
  nlohmann::ordered_json json;
  json["schema_version"] = 1;
  json["context"] = {{"program", context.program},
                     {"date", context.date},
                     {"kernel", context.kernel},
                     {"cpus", context.cpus},
                     {"liburing", context.liburing},
                     {"command", context.command},
                     {"seed", context.seed},
                     {"seconds", context.seconds},
                     {"warm_up_seconds", context.warm_up_seconds},
                     {"load_before", context.load_before}};
  json["results"] = nlohmann::ordered_json::array();
  for (const Result& result : report.results) {
    json["results"].push_back({{"mechanism", result.mechanism},
                               {"workload", result.workload},
                               {"transport", result.transport},
                               {"workers", result.workers},
                               {"repetitions", result.repetitions},
                               {"median", FiguresToJson(result.median)},
                               {"shares", result.shares},
                               {"spread", SpreadToJson(result)}});
  }
  return json.dump(2) + "\n";
}

}  // namespace ringmaster::bench
