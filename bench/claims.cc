#include "bench/claims.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "bench/format.h"

namespace ringmaster::bench {
namespace {

constexpr char kOursByDefault[] = "ringmaster:least-loaded";
constexpr char kOurs[] = "ringmaster:";

const Result* Find(const Report& report, const std::string& workload,
                   const std::string& mechanism) {
  for (const Result& result : report.results) {
    if (result.workload == workload && result.mechanism == mechanism) return &result;
  }
  return nullptr;
}

Verdict Compare(const Result& rival, const Result& ours, Figure Figures::*figure,
                bool more_is_better) {
  const double sign = more_is_better ? 1 : -1;
  const auto worst = [&](const Result& result) {
    return std::min(sign * *(result.low.*figure), sign * *(result.high.*figure));
  };
  const auto best = [&](const Result& result) {
    return std::max(sign * *(result.low.*figure), sign * *(result.high.*figure));
  };
  if (worst(ours) > best(rival)) return Verdict::kBetter;
  if (best(ours) < worst(rival)) return Verdict::kWorse;
  return Verdict::kEven;
}

class Writer {
 public:
  Writer(const WorkloadText& workload, const Result& rival, const Result& ours,
         std::vector<Claim>& claims)
      : workload_(workload), rival_(rival), ours_(ours), claims_(claims) {}

  void Write() {
    switch (workload_.question) {
      case Question::kShare:
        Share();
        Latency("half of all connections are answered within", &Figures::p50_us);
        break;
      case Question::kThroughput:
        Throughput();
        break;
      case Question::kLoss:
        break;  // Lost() says it
      case Question::kTail:
        if (KeptUp()) {
          Latency("99 % are answered within", &Figures::p99_us);
          Latency("99.9 % are answered within", &Figures::p999_us);
        }
        break;
    }
    Lost();
  }

 private:
  void Add(Verdict verdict, const std::string& text) {
    claims_.push_back({verdict, workload_.name, absl::StrCat(workload_.title, ": ", text)});
  }

  bool Both(Figure Figures::*figure) const {
    return (rival_.median.*figure).has_value() && (ours_.median.*figure).has_value();
  }

  void Share() {
    if (!Both(&Figures::max_over_mean)) return;
    const auto share = [](const Result& result) {
      return FormatShare(*result.median.max_over_mean / result.workers);
    };
    Add(Compare(rival_, ours_, &Figures::max_over_mean, false),
        absl::StrCat("the busiest of ", ours_.workers, " workers gets ", share(ours_),
                     " of the connections with ", ours_.mechanism, ", ", share(rival_), " with ",
                     rival_.mechanism, "."));
  }

  void Latency(const char* what, Figure Figures::*figure) {
    if (!Both(figure)) return;
    Add(Compare(rival_, ours_, figure, false),
        absl::StrCat(what, " ", FormatUs(*(ours_.median.*figure)), " with ", ours_.mechanism, ", ",
                     FormatUs(*(rival_.median.*figure)), " with ", rival_.mechanism, "."));
  }

  void Throughput() {
    if (!Both(&Figures::connections_per_second)) return;
    const double ours = *ours_.median.connections_per_second;
    const double rival = *rival_.median.connections_per_second;
    const std::string difference =
        rival == 0 ? ""
                   : absl::StrCat(" (", ours < rival ? "−" : "+",
                                  FormatFixed(std::abs(ours / rival - 1) * 100, 0), " %)");
    Add(Compare(rival_, ours_, &Figures::connections_per_second, true),
        absl::StrCat(FormatCount(ours), " connections per second with ", ours_.mechanism,
                     difference, ", ", FormatCount(rival), " with ", rival_.mechanism, "."));
  }

  // A side that fell behind has no percentiles that could be quoted; that is its result.
  bool KeptUp() {
    const bool ours = ours_.median.p99_us.has_value();
    const bool rival = rival_.median.p99_us.has_value();
    const auto behind = [&](const Result& result) {
      return absl::StrCat(result.mechanism, " does not keep up: ",
                          FormatFigure(result.median.connections_per_second, FormatCount), " of ",
                          FormatFigure(result.median.offered_per_second, FormatCount),
                          " connections per second.");
    };
    if (!ours) Add(rival ? Verdict::kWorse : Verdict::kEven, behind(ours_));
    if (!rival) Add(ours ? Verdict::kBetter : Verdict::kEven, behind(rival_));
    return ours && rival;
  }

  // Said only when it happened: nobody should have to look for it.
  void Lost() {
    if (!Both(&Figures::lost) || (*ours_.high.lost == 0 && *rival_.high.lost == 0)) return;
    Add(Compare(rival_, ours_, &Figures::lost, false),
        absl::StrCat("up to ", FormatCount(*ours_.high.lost),
                     " connections of a repetition got no right answer with ", ours_.mechanism,
                     ", up to ", FormatCount(*rival_.high.lost), " with ", rival_.mechanism, "."));
  }

  const WorkloadText& workload_;
  const Result& rival_;
  const Result& ours_;
  std::vector<Claim>& claims_;
};

}  // namespace

Sides SidesOf(const Report& report) {
  Sides sides;
  for (const Result& result : report.results) {
    if (result.mechanism == kReference) sides.rival = kReference;
    if (result.mechanism == kOursByDefault) sides.ours = kOursByDefault;
    if (sides.ours.empty() && result.mechanism.starts_with(kOurs)) sides.ours = result.mechanism;
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
    Writer(workload, *rival, *ours, claims).Write();
  }
  return claims;
}

std::string HeadlineOf(const Report& report) {
  const Sides sides = SidesOf(report);
  for (const WorkloadText& workload : report.workloads) {
    const Result* rival = Find(report, workload.name, sides.rival);
    const Result* ours = Find(report, workload.name, sides.ours);
    if (workload.question != Question::kShare || rival == nullptr || ours == nullptr) continue;
    if (!rival->median.max_over_mean || !ours->median.max_over_mean) continue;
    const auto share = [](const Result& result) {
      return FormatShare(*result.median.max_over_mean / result.workers);
    };
    return absl::StrCat(rival->mechanism, " gave the busiest of ", rival->workers, " workers ",
                        share(*rival), " of the connections, ", ours->mechanism, " ", share(*ours),
                        ".");
  }
  return absl::StrCat(report.results.size(), " measurements of who serves, and how fast.");
}

}  // namespace ringmaster::bench
