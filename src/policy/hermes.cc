// Hermes: sieves out the workers that should not get more, and lets the rest take turns.
//
// What it decides. Three sieves, one after the other. The first removes candidates that have not
// moved for over `still_ms_max` although offers wait for them. The second removes candidates with
// more than one and a half times the average of open connections. The third does the same by
// unclaimed offers. Each average is over the candidates that are still left. A sieve that would
// leave nobody lets everybody through; that can only be the first, because not everybody is above
// the average. The candidates that are left take turns. The next by index after the last pick gets
// it that does not say that it is `busy`. If all that are left say so, the next by index gets it.
//
// Source. The cascading filter of Hermes (Alibaba, SIGCOMM 2025): workers that hang, then
// connections, then pending events. Each average has half of it as tolerance, and the timeout of a
// loop is 5 ms, hence the default. There, every worker computes the set at the end of each turn of
// its loop. An eBPF program hashes new connections into the set when the SYN comes in; after that
// nothing can be taken back. Here the facts are those of the moment, turns replace the hash, and an
// offer can still be recalled.
//
// Cost. Two passes over the candidates, because an average is known only after everybody has been
// looked at. Then a look at the candidates in turn, until one passes that is not busy.
//
// When not to use it. When one count says it all: hermes tolerates half an average, so least-loaded
// is closer to even. And hermes cannot find out that a worker hangs before an offer waits for it:
// the first offer waits until it is recalled.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "policy/first_from.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

// A sum over candidates, and how many candidates are in it: for an average.
struct Sum {
  uint64_t count = 0;
  uint64_t sum = 0;

  void AddIf(bool counts, uint64_t load) {
    count += counts;
    sum += load & (uint64_t{0} - counts);
  }
  // Whether `load` is at most one and a half times the average. There is no division, because with
  // few candidates it would take longer than all the rest.
  bool Tolerates(uint64_t load) const { return 2 * count * load <= 3 * sum; }
};

// A worker that hangs is rare, so a branch is right there. Whether a worker passes the second sieve
// is as good as random to a branch predictor, so there is no branch in that pass.
class HermesPolicy final : public Policy {
 public:
  explicit HermesPolicy(HermesOptions options) : still_ms_max_(options.still_ms_max) {}

  std::string name() const override {
    if (still_ms_max_ == HermesOptions{}.still_ms_max) return "hermes";
    return "hermes:" + std::to_string(still_ms_max_);
  }

  bool AnyThread() const override { return true; }

  size_t Pick(const Arrival&, const View& view) override {
    const std::span<const Candidate> candidates = view.candidates;
    int64_t still_ns_max = still_ms_max_ * kNsPerMs;
    Sum open = SumOfOpen(candidates, still_ns_max);
    if (open.count == 0) {
      still_ns_max = std::numeric_limits<int64_t>::max();
      open = SumOfOpen(candidates, still_ns_max);
    }
    Sum unclaimed;
    for (const Candidate& candidate : candidates) {
      if (candidate.still_ns > still_ns_max) [[unlikely]]
        continue;
      unclaimed.AddIf(open.Tolerates(candidate.open), candidate.unclaimed);
    }
    const auto passes = [&](const Candidate& candidate) {
      return candidate.still_ns <= still_ns_max && open.Tolerates(candidate.open) &&
             unclaimed.Tolerates(candidate.unclaimed);
    };
    size_t position = TurnFrom(candidates, next_);
    while (!passes(candidates[position])) {
      if (++position == candidates.size()) position = 0;
    }
    if (candidates[position].busy()) {  // then the next that passes and is not, if there is one
      for (size_t next = position + 1;; ++next) {
        if (next == candidates.size()) next = 0;
        if (next == position) break;
        if (candidates[next].busy() || !passes(candidates[next])) continue;
        position = next;
        break;
      }
    }
    next_ = candidates[position].worker + 1;
    return position;
  }

  // One that has no more connections would have passed, too.
  bool MayMove(const Arrival&, const Candidate& from, const Candidate& to) const override {
    return to.open <= from.open;
  }

  bool Save(Span<uint64_t> words) const override {
    words[0] = next_;
    return true;
  }
  bool Load(Span<const uint64_t> words) override {
    next_ = static_cast<uint32_t>(words[0]);
    return true;
  }

 private:
  static Sum SumOfOpen(std::span<const Candidate> candidates, int64_t still_ns_max) {
    Sum open;
    for (const Candidate& candidate : candidates) {
      if (candidate.still_ns > still_ns_max) [[unlikely]]
        continue;
      ++open.count;
      open.sum += candidate.open;
    }
    return open;
  }

  const int64_t still_ms_max_;
  uint32_t next_ = 0;  // the index after the last pick
};

}  // namespace

std::unique_ptr<Policy> Hermes(HermesOptions options) {
  return std::make_unique<HermesPolicy>(options);
}

}  // namespace ringmaster
