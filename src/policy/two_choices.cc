// Two choices: the better one of two candidates drawn at random.
//
// What it decides. Two different candidates are drawn, each pair with the same chance. The one with
// fewer `open` connections gets the arrival. A worker that says that it does not wait (`busy`)
// would have each of them twice, the arrival included. Of equals an idle one gets it; of equals
// still, the one drawn first. The numbers come from a generator of its own, so the same seed and
// history give the same picks.
//
// Source. Azar, Broder, Karlin and Upfal (1994) and Mitzenmacher (1996) have the theory. With one
// random choice, the fullest worker is above the average by a number that grows with the
// connections. With the better of two, that number hardly grows with the workers: log log n.
// `random two` of nginx and HAProxy do so because balancers that all look for the least loaded
// server, by counts that are late, all run to the same one.
//
// Cost. The same for any number of workers: one number drawn, two candidates looked at.
//
// When not to use it. Here the counts are those of this moment, so least-loaded spreads better; it
// looks at all candidates, which is worth saving with hundreds of them. With few or short
// connections chance shows: a worker may get none for a while, and no bound says for how long.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "policy/load.h"
#include "policy/mix.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

class TwoChoicesPolicy final : public Policy {
 public:
  explicit TwoChoicesPolicy(TwoChoicesOptions options)
      : seed_(options.seed), state_(options.seed) {}

  std::string name() const override {
    if (seed_ == TwoChoicesOptions{}.seed) return "two-choices";
    return "two-choices:" + std::to_string(seed_);
  }

  bool AnyThread() const override { return true; }

  size_t Pick(const Arrival&, const View& view) override {
    const size_t count = view.candidates.size();
    if (count == 1) return 0;
    const uint64_t drawn = Draw();
    const size_t first = Below(count, static_cast<uint32_t>(drawn >> 32));
    size_t second = Below(count - 1, static_cast<uint32_t>(drawn));
    second += second >= first ? 1 : 0;
    const bool second_wins =
        LoadWithOneMore(view.candidates[second]) < LoadWithOneMore(view.candidates[first]);
    return second_wins ? second : first;
  }

  bool MayMove(const Arrival&, const Candidate& from, const Candidate& to) const override {
    return MayMoveByLoad(from, to);
  }

  // The first numbers are the seed's.
  bool Save(Span<uint64_t> words) const override {
    words[0] = state_ - seed_;
    return true;
  }
  bool Load(Span<const uint64_t> words) override {
    state_ = seed_ + words[0];
    return true;
  }

 private:
  uint64_t Draw() {
    state_ += kMixStep;
    return Mix(state_);
  }

  // A number from 0 to `count` - 1. With 1,024 workers the chances are equal to one part in four
  // million.
  static size_t Below(size_t count, uint32_t drawn) {
    return static_cast<size_t>(uint64_t{drawn} * count >> 32);
  }

  const uint64_t seed_;
  uint64_t state_;
};

}  // namespace

std::unique_ptr<Policy> TwoChoices(TwoChoicesOptions options) {
  return std::make_unique<TwoChoicesPolicy>(options);
}

}  // namespace ringmaster
