// Hermes: sieves out the workers that should not get more, and lets the rest take turns.
//
// What it decides. Three sieves, one after the other. First go the candidates behind which offers
// have waited for over `still_ms_max` without them moving; then those with more than one and a half
// times the average of open connections; then those with more than one and a half times the average
// of unclaimed offers. Each average is over those that are still left. A sieve that would leave
// nobody lets all through; only the first one can, because not everybody is above the average.
// Those left take turns: the next by index after the last pick.
//
// Source. The cascading filter of Hermes (Alibaba, SIGCOMM 2025): workers that hang, then
// connections, then pending events, each average with half of it as tolerance, and a loop timeout
// of 5 ms, hence the default. There every worker computes the set at the end of each turn of its
// loop, and an eBPF program hashes new connections into it when the SYN comes in, after which
// nothing can be taken back. Here the facts are those of the moment, turns replace the hash, and an
// offer can still be recalled.
//
// Cost. Three passes over the candidates.
//
// When not to use it. When one count says it all: it tolerates half an average, so least-loaded is
// closer to even. And it cannot find out that a worker hangs before an offer waits for it: the
// first one does until it is recalled.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

// How many there are, and of what how much.
struct Tally {
  uint64_t count = 0;
  uint64_t sum = 0;

  void Add(bool counts, uint64_t load) {
    count += counts;
    sum += load & (uint64_t{0} - counts);
  }
  // The largest load that is at most one and a half times the average; count is not zero.
  uint64_t LoadMax() const { return 3 * sum / (2 * count); }
};

// Who passes a sieve is as good as random to a branch predictor, hence no branches.
class HermesPolicy final : public Policy {
 public:
  explicit HermesPolicy(HermesOptions options) : still_ms_max_(options.still_ms_max) {}

  std::string name() const override {
    if (still_ms_max_ == HermesOptions{}.still_ms_max) return "hermes";
    return "hermes:" + std::to_string(still_ms_max_);
  }

  void Prepare(uint32_t worker_slots) override {
    if (worker_slots > left_.size()) left_.resize(worker_slots);
  }

  size_t Pick(const Arrival&, const View& view) override {
    int64_t still_ns_max = still_ms_max_ * kNsPerMs;
    Tally open = TallyOpen(view.candidates, still_ns_max);
    if (open.count == 0) {
      still_ns_max = std::numeric_limits<int64_t>::max();
      open = TallyOpen(view.candidates, still_ns_max);
    }
    // The average of the third sieve is known only when everybody has been through the second.
    const uint64_t open_max = open.LoadMax();
    Tally unclaimed;
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      const Candidate& candidate = view.candidates[i];
      const bool passes = (candidate.still_ns <= still_ns_max) & (candidate.open <= open_max);
      const uint32_t turn = candidate.worker - next_;  // wraps: those below come after those above
      left_[unclaimed.count] = {.order = uint64_t{turn} << 32 | i,
                                .unclaimed = candidate.unclaimed};
      unclaimed.Add(passes, candidate.unclaimed);
    }
    const size_t position = FirstByTurn(unclaimed);
    next_ = view.candidates[position].worker + 1;
    return position;
  }

 private:
  struct Left {
    uint64_t order;  // distance from the index after the last pick, and below it the position
    uint64_t unclaimed;
  };

  static Tally TallyOpen(std::span<const Candidate> candidates, int64_t still_ns_max) {
    Tally open;
    for (const Candidate& candidate : candidates) {
      open.Add(candidate.still_ns <= still_ns_max, candidate.open);
    }
    return open;
  }

  // Position of the first by turn of those left that pass the third sieve.
  size_t FirstByTurn(const Tally& unclaimed) const {
    const uint64_t unclaimed_max = unclaimed.LoadMax();
    uint64_t first = std::numeric_limits<uint64_t>::max();
    for (size_t i = 0; i < unclaimed.count; ++i) {
      const uint64_t fails = left_[i].unclaimed > unclaimed_max;
      first = std::min(first, left_[i].order | (uint64_t{0} - fails));
    }
    return static_cast<uint32_t>(first);
  }

  const int64_t still_ms_max_;
  std::vector<Left> left_;  // after the second sieve; as many as there are worker indexes
  uint32_t next_ = 0;       // the index after the last pick
};

}  // namespace

std::unique_ptr<Policy> Hermes(HermesOptions options) {
  return std::make_unique<HermesPolicy>(options);
}

}  // namespace ringmaster
