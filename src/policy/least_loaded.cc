// Least-loaded: the worker with the fewest open connections.
//
// What it decides. The worker with the fewest `open` wins. These are the connections that it serves
// or has been offered, from every source and every master. A worker that says that it does not wait
// (`busy`) would have each of them twice, the arrival included. So one that waits is preferred
// unless it has more than twice as many, and one. Among equals an idle worker is preferred. Among
// those, the next by index after the last pick wins. So at light load arrivals go round instead of
// piling up on the lowest index. Without `rotate_ties` the lowest index wins: as many workers are
// awake as there is work for, and the others sleep on, with cold caches and deep CPU states.
//
// Why twice. Where connections differ in what they bring, or workers pass on what is ready
// (Port::ToPassOn), their numbers say little, and whether a worker waits says more. Newcomers need
// that, see `mixed` in bench/METHOD.md. Where connections are alike it costs nothing: workers that
// wait are as often those with few.
//
// Source. Envoy's `exact_balance`, Redis 8's io-threads and Seastar's `connection_distribution`
// choose so. This one learns from Seastar's bugs (#3514, #3524). There counts that arrive late, and
// ties that always go to shard 0, give one shard a multiple of the rest. Here the count is that of
// this moment, earlier picks of the same batch included.
//
// Cost. One pass over the candidates, with one 64-bit comparison each. It remembers the last pick
// and nothing else.
//
// When not to use it. When connections bring very different amounts of work: the count says nothing
// about that. When a worker joins late among many long-lived connections: it gets everything until
// it has caught up, bounded only by its credit. When clients look for a certain worker by
// connecting again (ScyllaDB #29687): use round-robin then.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "policy/load.h"
#include "policy/smallest_key.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

class LeastLoadedPolicy final : public Policy {
 public:
  explicit LeastLoadedPolicy(const LeastLoadedOptions& options) : options_(options) {}

  std::string name() const override {
    return options_.rotate_ties ? "least-loaded" : "least-loaded:first";
  }

  size_t Pick(const Arrival&, const View& view) override {
    const size_t best = SmallestKey(view.candidates, [&](const Candidate& c) { return Key(c); });
    if (options_.rotate_ties) next_ = view.candidates[best].worker + 1;
    return best;
  }

  bool AnyThread() const override { return true; }

  bool MayMove(const Arrival&, const Candidate& from, const Candidate& to) const override {
    return MayMoveByLoad(from, to);
  }

  bool Save(Span<uint64_t> words) const override {
    words[0] = next_;
    return true;
  }
  bool Load(Span<const uint64_t> words) override {
    if (options_.rotate_ties) next_ = static_cast<uint32_t>(words[0]);
    return true;
  }

 private:
  static constexpr uint32_t kTurnMask = 0x3f'ffff;

  // 42 bits of load, the last of which say whether the worker is idle, and 22 bits of distance from
  // the last pick. The distance wraps, so that the indexes above the last pick come before those
  // below. No two of four million workers have the same key.
  uint64_t Key(const Candidate& candidate) const {
    return (LoadWithOneMore(candidate) << 22) + ((candidate.worker - next_) & kTurnMask);
  }

  const LeastLoadedOptions options_;
  uint32_t next_ = 0;  // the index after the last pick; 0 if ties do not rotate
};

}  // namespace

std::unique_ptr<Policy> LeastLoaded(LeastLoadedOptions options) {
  return std::make_unique<LeastLoadedPolicy>(options);
}

}  // namespace ringmaster
