// What the figures say in sentences. Every sentence is computed, and says it just as plainly when
// ringmaster is the one that loses.

#ifndef RINGMASTER_BENCH_CLAIMS_H_
#define RINGMASTER_BENCH_CLAIMS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "bench/result.h"

namespace ringmaster::bench {

// How ringmaster compares. Better or worse only when the worst repetition of the one side beats the
// best of the other; what the repetitions cannot tell apart is called even.
enum class Verdict : uint8_t { kBetter, kEven, kWorse };

struct Claim {
  Verdict verdict = Verdict::kEven;
  std::string workload;
  std::string text;
};

// The sides of the comparison: the kernel's own mechanism, and ringmaster with the policy that it
// has unless told otherwise, or with the first one that was measured. Choosing the best policy for
// each sentence would be choosing the result.
struct Sides {
  std::string rival;
  std::string ours;
};
Sides SidesOf(const Report& report);

// In the order of the workloads; none when a side was not measured.
std::vector<Claim> ClaimsOf(const Report& report);

// One sentence for the top of a report.
std::string HeadlineOf(const Report& report);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_CLAIMS_H_
