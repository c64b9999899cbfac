// What the figures say in sentences. Every sentence is computed, and says it just as plainly when
// ringmaster is the one that loses.

#ifndef RINGMASTER_BENCH_CLAIMS_H_
#define RINGMASTER_BENCH_CLAIMS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/result.h"

namespace ringmaster::bench {

// Better or worse only when the one side beats the other in every single repetition; what the
// repetitions cannot tell apart is called even.
enum class Verdict : uint8_t { kBetter, kEven, kWorse };

// Fewer pairs of repetitions decide nothing: with five, chance alone makes one of 16 comparisons of
// equals look decided, with nine one of 256.
inline constexpr size_t kPairsMin = 5;

// How `ours` compares with `rival`, pair by pair: repetitions with the same number ran side by
// side. A repetition that fell behind loses against any percentile, and neither wins a pair in
// which both did.
Verdict Compare(const Result& ours, const Result& rival, Figure Figures::*figure);

struct Claim {
  Verdict verdict = Verdict::kEven;  // of the reference and ringmaster
  std::string workload;
  std::string title;  // the workload's
  std::string text;
};

// The sides of the comparison. One is the kernel's own mechanism. The other is ringmaster with its
// default policy, or with the first one that was measured. Choosing the best policy for each
// sentence would be choosing the result.
struct Sides {
  std::string rival;
  std::string ours;
};
Sides SidesOf(const Report& report);

// In the order of the workloads; none when a side was not measured.
std::vector<Claim> ClaimsOf(const Report& report);

// One sentence for the top of a report.
std::string HeadlineOf(const Report& report);

// Why the figures should be read with care, a sentence each. There may be few repetitions, other
// work on the machine, a build that is slow on purpose, or a generator that was the bottleneck.
std::vector<std::string> CaveatsOf(const Report& report);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_CLAIMS_H_
