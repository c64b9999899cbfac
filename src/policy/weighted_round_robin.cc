// Weighted round-robin: every worker in turn, in proportion to its weight.
//
// What it decides. A pick hands out one turn. Every worker that has joined gets a part of that
// turn, in proportion to its weight. What a worker has got in parts and has not been picked for is
// *due* to it. If this is below zero, it had more than its part. Among the candidates to which
// something is due, the one whose next whole turn is complete soonest is picked. So weights 4, 1, 1
// give 0 0 1 0 0 2, and equal weights give a plain rotation. A worker without credit goes on
// getting its parts, and a recall gives a turn back, so both are owed. While a whole turn is due to
// the candidates already, none is handed out. Who waits does not matter, because turns are exact.
// So it is asked when a connection is there, and not before (Policy::AnyThread): a permit goes to a
// worker that waits, and under full load the one with the largest weight waits least.
//
// Invariants, for workers that have joined all the while:
// (1) When all have credit, the picks of each worker differ from its part of all picks by less than
//     one, after every pick.
// (2) The same holds again as soon as missed turns have been made up for. At most kTurnsOwedMax
//     turns are made up for. A worker that comes back must not shut the others out for as long as
//     it was away.
//
// Source. nginx spreads the turns of heavy servers like this ("smooth" weighted round-robin) and
// picks the one to which most is due. With many unlike weights that strays from (1), by over 1.5
// turns for 27 workers. The earliest complete turn does not (Tijdeman's chairman assignment, 1980).
// Packet schedulers know it as WF2Q.
//
// Cost. A comparison of `joined` with the last one seen, one pass over the candidates and two
// divisions; one pass more when a worker lacks credit.
//
// When not to use it. When you do not know that workers differ, and by how much: weights that are
// wrong are worse than none. Least-loaded finds out by itself, where connections last.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "policy/smallest_key.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

// How many turns a worker may be owed at most.
constexpr int64_t kTurnsOwedMax = 1024;

// A bound that keeps everything that is computed far from the limits of 64 bits.
constexpr int64_t kClockMax = int64_t{1} << 24;

// Moments are kept in fractions of the clock. Because of kWeightMax, two different moments differ
// by at least one part in a million. So none is mistaken for another.
constexpr int kMomentBits = 24;

constexpr uint64_t kSignBit = uint64_t{1} << 63;

class WeightedRoundRobinPolicy final : public Policy {
 public:
  explicit WeightedRoundRobinPolicy(std::vector<uint32_t> weights) : weights_(std::move(weights)) {}

  std::string name() const override {
    std::string text = "weighted-round-robin";
    for (size_t i = 0; i < weights_.size(); ++i) {
      text.append(i == 0 ? ":" : ",").append(std::to_string(weights_[i]));
    }
    return text;
  }

  void Prepare(uint32_t worker_slots) override {
    const size_t known = workers_.size();
    if (worker_slots <= known) return;
    workers_.resize(worker_slots);
    joined_.reserve(worker_slots);
    for (size_t i = known; i < std::min<size_t>(worker_slots, weights_.size()); ++i) {
      workers_[i].weight = weights_[i];
    }
  }

  size_t Pick(const Arrival&, const View& view) override {
    if (clock_ > kClockMax ||
        !std::equal(joined_.begin(), joined_.end(), view.joined.begin(), view.joined.end())) {
      Settle(view.joined);
    }
    clock_ += PartsToHandOut(view);
    const size_t position = FirstComplete(view.candidates);
    Worker& worker = workers_[view.candidates[position].worker];
    SetDue(worker, Due(worker) - turn_);
    return position;
  }

  // The turn is owed then.
  bool MayMove(const Arrival&, const Candidate&, const Candidate&) const override { return true; }

  void OnRecall(uint32_t worker) override {
    if (worker >= workers_.size() || !workers_[worker].joined) return;
    SetDue(workers_[worker], Due(workers_[worker]) + turn_);
  }

  void OnLeave(uint32_t worker) override {
    if (worker < workers_.size() && workers_[worker].joined) SetDue(workers_[worker], 0);
  }

 private:
  // What is due is counted in parts. A turn has as many parts as the sum of all weights, so the
  // count is exact. Nothing is written when parts are handed out: `clock_` says how many parts each
  // unit of weight has got since the clock was zero.
  struct Worker {
    int64_t due_from = 0;  // moment after which something is due to it
    int64_t complete = 0;  // moment at which its next turn is complete
    int64_t taken = 0;     // what it was handed and is not due any more
    uint32_t weight = 1;
    bool joined = false;
  };

  int64_t Due(const Worker& worker) const {
    return std::min(clock_ * worker.weight - worker.taken, kTurnsOwedMax * turn_);
  }

  void SetDue(Worker& worker, int64_t due) { SetTaken(worker, clock_ * worker.weight - due); }

  void SetTaken(Worker& worker, int64_t taken) {
    taken_total_ += taken - worker.taken;
    worker.taken = taken;
    worker.due_from = Moment(taken, worker.weight);
    worker.complete = Moment(taken + turn_, worker.weight);
  }

  // The moment at which a worker of this weight has got `parts`. The fraction is cut off.
  static int64_t Moment(int64_t parts, uint32_t weight) {
    return (parts << kMomentBits) / int64_t{weight};
  }

  // Starts the clock again, with the workers that have joined now. What is due to workers that stay
  // is worth as many turns as before, although a turn has another number of parts now.
  void Settle(std::span<const uint32_t> joined) {
    const int64_t turn_before = turn_;
    for (const uint32_t worker : joined_) {
      workers_[worker].taken = -Due(workers_[worker]);
      workers_[worker].joined = false;
    }
    clock_ = turn_ = 0;
    for (const uint32_t worker : joined) {
      workers_[worker].joined = true;
      turn_ += workers_[worker].weight;
    }
    for (const uint32_t worker : joined_) {
      int64_t& taken = workers_[worker].taken;
      taken = workers_[worker].joined ? taken * turn_ / turn_before : 0;
    }
    joined_.assign(joined.begin(), joined.end());
    taken_total_ = 0;
    for (const uint32_t worker : joined_) {
      taken_total_ += workers_[worker].taken;
      SetTaken(workers_[worker], workers_[worker].taken);
    }
  }

  // How many parts each unit of weight must get, so that one turn is due to the candidates
  // together.
  int64_t PartsToHandOut(const View& view) const {
    int64_t weights = turn_;
    int64_t due = clock_ * turn_ - taken_total_;
    const size_t lacking = view.joined.size() - view.candidates.size();
    for (size_t i = 0, found = 0; found < lacking; ++i) {
      const size_t next = i - found;
      if (next < view.candidates.size() && view.candidates[next].worker == view.joined[i]) continue;
      const Worker& worker = workers_[view.joined[i]];
      weights -= worker.weight;
      due -= clock_ * worker.weight - worker.taken;
      ++found;
    }
    if (turn_ - due <= weights) return turn_ > due ? 1 : 0;
    return (turn_ - due + weights - 1) / weights;
  }

  // Position of the candidate whose next turn is complete soonest, the lowest index of several.
  size_t FirstComplete(std::span<const Candidate> candidates) const {
    const int64_t now = clock_ << kMomentBits;
    return SmallestKey(candidates, [&](const Candidate& candidate) {
      const Worker& worker = workers_[candidate.worker];
      // Moments compare as signed numbers. A worker to which nothing is due comes behind all
      // others.
      const uint64_t key = static_cast<uint64_t>(worker.complete) + kSignBit;
      return worker.due_from < now ? key : std::numeric_limits<uint64_t>::max();
    });
  }

  const std::vector<uint32_t> weights_;  // by index, as given
  std::vector<Worker> workers_;          // by index
  std::vector<uint32_t> joined_;         // as last seen
  int64_t turn_ = 0;                     // parts of a turn: the weights of all that have joined
  int64_t clock_ = 0;
  int64_t taken_total_ = 0;  // of all that have joined
};

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> WeightedRoundRobin(WeightedRoundRobinOptions options) {
  for (size_t i = 0; i < options.weights.size(); ++i) {
    const uint32_t weight = options.weights[i];
    if (weight >= 1 && weight <= kWeightMax) continue;
    return absl::InvalidArgumentError(
        "The weights of policy weighted-round-robin must be from 1 to " +
        std::to_string(kWeightMax) + "; that of worker " + std::to_string(i) + " is " +
        std::to_string(weight) +
        (weight == 0 ? ". A worker that is to get nothing should not join the source." : "."));
  }
  return std::make_unique<WeightedRoundRobinPolicy>(std::move(options.weights));
}

}  // namespace ringmaster
