#include "bench/claims.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/measures.h"
#include "output/format.h"

namespace ringmaster::bench {
namespace {

using output::FormatCount;
using output::FormatFigure;
using output::FormatFixed;
using output::FormatShare;
using output::FormatUs;

constexpr char kOursByDefault[] = "ringmaster:least-loaded";
constexpr uint32_t kRepetitionsToQuote = 9;
constexpr size_t kNamedMax = 3;  // of those that are better than ringmaster; the others are counted

const Result* Find(const Report& report, const std::string& workload,
                   const std::string& mechanism) {
  for (const Result& result : report.results) {
    if (result.workload == workload && result.mechanism == mechanism) {
      return result.repetitions > 0 ? &result : nullptr;
    }
  }
  return nullptr;
}

bool Has(const Result& result, Figure Figures::*figure) {
  return (result.median.*figure).has_value();
}

std::string ShareOfBusiest(const Result& result) {
  return FormatShare(*result.median.max_over_mean / result.workers);
}

// How far a ratio is from 1; never 0, which would contradict that it is better or worse.
std::string PercentText(double ratio) {
  const double percent = std::abs(ratio - 1) * 100;
  return percent < 0.1 ? "less than 0.1" : FormatFixed(percent, percent < 1 ? 1 : 0);
}

class Writer {
 public:
  Writer(const Report& report, const WorkloadText& workload, const Result& rival,
         const Result& ours, std::vector<Claim>& claims)
      : report_(report),
        names_(report),
        workload_(workload),
        answered_(AnsweredUnder(workload.question)),
        rival_(rival),
        ours_(ours),
        claims_(claims) {}

  void Write() {
    switch (workload_.question) {
      case Question::kShare:
        Share();
        if (KeptUp()) Latency("half of all connections are answered within", &Figures::p50_us);
        break;
      case Question::kThroughput:
        Throughput();
        break;
      case Question::kTail:
        if (KeptUp()) {
          Latency("99 % are answered within", &Figures::p99_us);
          Latency("99.9 % are answered within", &Figures::p999_us);
        }
        break;
      case Question::kLoss:
        NothingLost();
        break;
      case Question::kStaying:
        Share();
        Throughput();
        if (KeptUp()) Latency("99 % of the requests are answered within", answered_.p99);
        Value("99 % of the newcomers are answered within", &Figures::new_p99_us);
        break;
    }
    Lost();
    Value("of the trials, a worker was left without any connection in",
          &Figures::idle_worker_share);
    Value("accepting goes on after", &Figures::resume_ms);
    Value("connections open at once beyond the cap:", &Figures::over_cap);
  }

 private:
  void Add(Verdict verdict, const std::string& text) {
    claims_.push_back({verdict, workload_.name, workload_.title, text});
  }

  bool Both(Figure Figures::*figure) const { return Has(rival_, figure) && Has(ours_, figure); }

  std::string Ours() const { return names_.Clear(ours_.mechanism); }

  void Share() {
    if (!Both(&Figures::max_over_mean)) return;
    Add(Compare(ours_, rival_, &Figures::max_over_mean),
        absl::StrCat("the busiest of ", ours_.workers, " workers gets ", ShareOfBusiest(ours_),
                     " of the connections with ", Ours(), ", ", ShareOfBusiest(rival_), " with ",
                     rival_.mechanism, ".", AmongAll(&Figures::max_over_mean, ShareOfBusiest)));
  }

  void Latency(const char* what, Figure Figures::*figure) {
    if (!Both(figure)) return;
    const auto value = [&](const Result& result) { return FormatUs(*(result.median.*figure)); };
    Add(Compare(ours_, rival_, figure),
        absl::StrCat(what, " ", value(ours_), " with ", Ours(), ", ", value(rival_), " with ",
                     rival_.mechanism, ".", AmongAll(figure, value)));
  }

  void Throughput() {
    if (!Both(answered_.rate)) return;
    const auto value = [this](const Result& result) {
      return FormatCount(*(result.median.*answered_.rate));
    };
    const Verdict verdict = Compare(ours_, rival_, answered_.rate);
    // Where neither side wins every pair, the ratio of the pairs may well have another sign than
    // the difference of the medians.
    std::string difference;
    if (const Figure& ratio = ours_.ratio.*answered_.rate; ratio && verdict != Verdict::kEven) {
      difference =
          absl::StrCat(" (", *ratio < 1 ? "−" : "+", PercentText(*ratio), " % pair by pair)");
    }
    Add(verdict,
        absl::StrCat(
            value(ours_), " ", answered_.what, " per second with ", Ours(), difference, ", ",
            value(rival_), " with ", rival_.mechanism,
            verdict == Verdict::kEven ? ", no difference that these repetitions can tell." : ".",
            AmongAll(answered_.rate, value)));
  }

  // A side that fell behind in half of the repetitions has no percentiles that could be quoted.
  // That is its result, and decides as much as any other.
  bool KeptUp() {
    const bool ours = Has(ours_, answered_.p99);
    const bool rival = Has(rival_, answered_.p99);
    const Verdict verdict = Compare(ours_, rival_, answered_.p99);
    Behind(ours_, ours ? Verdict::kEven : verdict);
    Behind(rival_, rival ? Verdict::kEven : verdict);
    return ours && rival;
  }

  void Behind(const Result& result, Verdict verdict) {
    if (result.fell_behind_count == 0) return;
    std::string served;
    if (!Has(result, answered_.p99)) {
      served = absl::StrCat(": ", FormatFigure(result.median.*answered_.rate, FormatCount), " of ",
                            FormatFigure(result.median.offered_per_second, FormatCount), " ",
                            answered_.what, " per second");
    }
    Add(verdict, absl::StrCat(names_.Clear(result.mechanism), " does not keep up in ",
                              FellBehindText(result), served, "."));
  }

  // What only some workloads ask.
  void Value(const char* what, Figure Figures::*figure) {
    if (!Both(figure)) return;
    const auto value = [&](const Result& result) {
      return MeasureOf(figure).format(*(result.median.*figure));
    };
    Add(Compare(ours_, rival_, figure),
        absl::StrCat(what, " ", value(ours_), " with ", Ours(), ", ", value(rival_), " with ",
                     rival_.mechanism, ".", AmongAll(figure, value)));
  }

  // A workload that is there to lose connections has an answer, too, when none is lost.
  void NothingLost() {
    if (!Both(&Figures::lost) || *ours_.high.lost > 0 || *rival_.high.lost > 0) return;
    const auto value = [](const Result& result) { return FormatCount(*result.median.lost); };
    Add(Verdict::kEven, absl::StrCat("no connection is lost with ", Ours(), ", and none with ",
                                     rival_.mechanism, ".", AmongAll(&Figures::lost, value)));
  }

  // Said only when it happened: nobody should have to look for it.
  void Lost() {
    if (!Both(&Figures::lost) || (*ours_.high.lost == 0 && *rival_.high.lost == 0)) return;
    const auto value = [](const Result& result) { return FormatCount(*result.median.lost); };
    Add(Compare(ours_, rival_, &Figures::lost),
        absl::StrCat("up to ", FormatCount(*ours_.high.lost),
                     " connections of a repetition got no right answer with ", Ours(), ", up to ",
                     FormatCount(*rival_.high.lost), " with ", rival_.mechanism, ".",
                     AmongAll(&Figures::lost, value)));
  }

  // Where ringmaster stands among the rivals besides the reference; those that beat it by name.
  template <typename Value>
  std::string AmongAll(Figure Figures::*figure, Value value) const {
    if (ours_.repetitions < kPairsMin) return "";  // "even" with everybody, whatever happened
    size_t better = 0;
    size_t even = 0;
    std::vector<const Result*> winners;
    for (const Result* other : report_.Of(workload_.name)) {
      if (Names::IsOurs(other->mechanism) || other->mechanism == rival_.mechanism) continue;
      if (other->repetitions == 0) continue;
      const Verdict verdict = Compare(ours_, *other, figure);
      if (verdict == Verdict::kWorse) winners.push_back(other);
      if (verdict == Verdict::kEven) ++even;
      if (verdict == Verdict::kBetter) ++better;
    }
    const size_t others = better + even + winners.size();
    if (others == 0) return "";
    const bool more = MeasureOf(figure).better == Better::kMore;
    std::sort(winners.begin(), winners.end(), [&](const Result* a, const Result* b) {
      const double difference = *(a->median.*figure) - *(b->median.*figure);
      return more ? difference > 0 : difference < 0;
    });
    std::vector<std::string> named;
    for (const Result* winner : winners) {
      if (named.size() == kNamedMax) {
        named.push_back(absl::StrCat("and ", winners.size() - kNamedMax, " more"));
        break;
      }
      named.push_back(absl::StrCat(winner->mechanism, " ", value(*winner)));
    }
    return absl::StrCat(
        " Of ", others, " other rivals it is better than ", better, ", even with ", even,
        ", worse than ", winners.size(),
        named.empty() ? std::string() : absl::StrCat(" (", absl::StrJoin(named, ", "), ")"), ".");
  }

  const Report& report_;
  const Names names_;
  const WorkloadText& workload_;
  const Answered& answered_;
  const Result& rival_;
  const Result& ours_;
  std::vector<Claim>& claims_;
};

// Whether it is ringmaster with the policy that it has unless told otherwise.
bool IsDefault(const std::string& mechanism) {
  return mechanism == kOursByDefault ||
         absl::StartsWith(mechanism, absl::StrCat(kOursByDefault, "/"));
}

// The two sides under one workload.
struct Pair {
  const Result* rival = nullptr;
  const Result* ours = nullptr;
};

// Under the first workload that asks `question` and has `figure` of both sides; none: null.
Pair PairUnder(const Report& report, const Sides& sides, Question question,
               Figure Figures::*figure) {
  for (const WorkloadText& workload : report.workloads) {
    if (workload.question != question) continue;
    const Result* rival = Find(report, workload.name, sides.rival);
    const Result* ours = Find(report, workload.name, sides.ours);
    if (rival == nullptr || ours == nullptr) continue;
    if (Has(*rival, figure) && Has(*ours, figure)) return {rival, ours};
  }
  return {};
}

// Who has the connections. Empty where nothing was asked about that.
std::string ShareOfHeadline(const Report& report, const Sides& sides, Question question,
                            const char* connections) {
  const auto [rival, ours] = PairUnder(report, sides, question, &Figures::max_over_mean);
  if (rival == nullptr) return "";
  return absl::StrCat(rival->mechanism, " gave the busiest of ", rival->workers, " workers ",
                      ShareOfBusiest(*rival), " of the ", connections, ", ",
                      Names(report).Clear(ours->mechanism), " ", ShareOfBusiest(*ours));
}

std::string TimesText(double ratio) { return absl::StrCat(FormatFixed(ratio, 2), " times"); }

// What those get whose connections stay.
std::string RequestsOfHeadline(const Report& report, const Sides& sides) {
  const auto figure = &Figures::requests_per_second;
  const auto [rival, ours] = PairUnder(report, sides, Question::kStaying, figure);
  if (rival == nullptr || !(ours->ratio.*figure)) return "";
  if (Compare(*ours, *rival, figure) == Verdict::kEven) return "; both answer as many requests";
  return absl::StrCat(", which answers ", TimesText(*(ours->ratio.*figure)), " the requests");
}

// Whoever reads of the spread should read what it costs or gains.
std::string ThroughputOfHeadline(const Report& report, const Sides& sides) {
  const auto figure = &Figures::connections_per_second;
  const auto [rival, ours] = PairUnder(report, sides, Question::kThroughput, figure);
  if (rival == nullptr || !(ours->ratio.*figure)) return "";
  const double ratio = *(ours->ratio.*figure);
  if (Compare(*ours, *rival, figure) == Verdict::kEven) return "; under full load they are even";
  return absl::StrCat("; under full load it serves ", PercentText(ratio),
                      ratio < 1 ? " % fewer" : " % more");
}

// And what a connection costs that comes and goes while nobody is busy.
std::string PriceOfHeadline(const Report& report, const Sides& sides) {
  const auto figure = &Figures::p50_us;
  const auto [rival, ours] = PairUnder(report, sides, Question::kShare, figure);
  if (rival == nullptr || !(ours->ratio.*figure)) return "";
  if (Compare(*ours, *rival, figure) == Verdict::kEven) return "; at light load they are even";
  return absl::StrCat("; at light load its p50 is ", TimesText(*(ours->ratio.*figure)),
                      " the other’s");
}

}  // namespace

Verdict Compare(const Result& ours, const Result& rival, Figure Figures::*figure) {
  const double sign = MeasureOf(figure).better == Better::kMore ? 1 : -1;
  const size_t pairs = std::min(ours.runs.size(), rival.runs.size());
  size_t won = 0;
  size_t lost = 0;
  for (size_t i = 0; i < pairs; ++i) {
    const Figure& a = ours.runs[i].*figure;
    const Figure& b = rival.runs[i].*figure;
    if (a && b) {
      if (sign * *a > sign * *b) ++won;
      if (sign * *a < sign * *b) ++lost;
    } else if (IsPercentile(figure)) {
      // It is missing because the mechanism fell behind, and nothing is worse than that.
      if (a) ++won;
      if (b) ++lost;
    }
  }
  if (pairs < kPairsMin) return Verdict::kEven;
  if (won == pairs) return Verdict::kBetter;
  return lost == pairs ? Verdict::kWorse : Verdict::kEven;
}

Sides SidesOf(const Report& report) {
  Sides sides;
  for (const Result& result : report.results) {
    if (result.repetitions == 0) continue;
    if (result.mechanism == kReference) sides.rival = kReference;
    // The full name says how, too; of several, the first is the default.
    if (IsDefault(result.mechanism) && !IsDefault(sides.ours)) sides.ours = result.mechanism;
    if (sides.ours.empty() && Names::IsOurs(result.mechanism)) sides.ours = result.mechanism;
  }
  return sides;
}

std::vector<Claim> ClaimsOf(const Report& report) {
  std::vector<Claim> claims;
  const Sides sides = SidesOf(report);
  for (const WorkloadText& workload : report.workloads) {
    const Result* rival = Find(report, workload.name, sides.rival);
    const Result* ours = Find(report, workload.name, sides.ours);
    if (rival == nullptr || ours == nullptr) continue;
    Writer(report, workload, *rival, *ours, claims).Write();
  }
  return claims;
}

std::string HeadlineOf(const Report& report) {
  const Sides sides = SidesOf(report);
  if (const std::string staying =
          ShareOfHeadline(report, sides, Question::kStaying, "connections that stay");
      !staying.empty()) {
    return absl::StrCat(staying, RequestsOfHeadline(report, sides),
                        ThroughputOfHeadline(report, sides), PriceOfHeadline(report, sides), ".");
  }
  if (const std::string share = ShareOfHeadline(report, sides, Question::kShare, "connections");
      !share.empty()) {
    return absl::StrCat(share, ThroughputOfHeadline(report, sides), ".");
  }
  return absl::StrCat(report.results.size(), " measurements of who serves, and how fast.");
}

std::vector<std::string> CaveatsOf(const Report& report) {
  std::vector<std::string> caveats;
  const Context& context = report.context;
  const auto first = std::find_if(report.results.begin(), report.results.end(),
                                  [](const Result& result) { return result.repetitions > 0; });
  if (first != report.results.end() && first->repetitions < kRepetitionsToQuote) {
    caveats.push_back(absl::StrCat(
        "Not for quoting: ", first->repetitions,
        first->repetitions == 1 ? " repetition" : " repetitions", " instead of at least ",
        kRepetitionsToQuote,
        first->repetitions < kPairsMin ? ", too few to call anything better or worse." : "."));
  }
  if (context.hogs > 0) {
    caveats.push_back(absl::StrCat("Beside ", context.hogs,
                                   context.hogs == 1 ? " process" : " processes",
                                   " that computed all the time, as --hogs asked for."));
  }
  if (context.busy()) {
    caveats.push_back(absl::StrCat(
        "The machine was busy already (load ", FormatFixed(context.load_before, 1), " on ",
        context.usable_cpus(),
        " CPUs): a mechanism that keeps more threads running gets more of contended CPUs. Measure "
        "again when it is idle."));
  }
  if (absl::StrContains(context.build_flags, "-fsanitize") ||
      absl::StrContains(context.build_flags, "-O0")) {
    caveats.push_back(absl::StrCat("This build is slow on purpose (", context.build_flags,
                                   "): its figures are of no use but to test the program."));
  }
  size_t limited = 0;
  for (const Result& result : report.results) limited += result.generator_limited() ? 1 : 0;
  if (limited > 0) {
    caveats.push_back(absl::StrCat(
        "In ", limited, " of ", report.results.size(),
        " measurements the load generator was the bottleneck: the server could have done more, so "
        "their connections per second compare nothing."));
  }
  return caveats;
}

}  // namespace ringmaster::bench
