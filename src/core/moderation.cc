#include "core/moderation.h"

#include <algorithm>

namespace ringmaster::core {

namespace {

// So that one period in which something else held the machine up does not decide.
constexpr int64_t kResultMin = kEven / 2;
constexpr int64_t kResultMax = kEven * 2;

}  // namespace

void Moderation::NoteArrivals(uint32_t count, int64_t now_ns) {
  const int64_t since_ns = now_ns - arrived_at_ns_;
  const int64_t gap_ns = std::min(since_ns / count, kGapNsMax);
  gap_ns_ += (gap_ns - gap_ns_) * std::min<int64_t>(count, kGapMemory) / kGapMemory;
  arrived_at_ns_ = now_ns;
  if (began_at_ns_ == 0 || since_ns > kPauseNs) {
    // A trial that was under way is made again.
    if (part_ != Part::kUsual) to_trial_ = 1;
    part_ = Part::kUsual;
    return BeginPeriod(now_ns);
  }
  arrivals_ += count;
  if (arrivals_ < kPeriodArrivals) return;
  EndPeriod((now_ns - began_at_ns_) / arrivals_);
  BeginPeriod(now_ns);
}

int64_t Moderation::GatherNs() const {
  if (gap_ns_ > kLoadedTurns * turn_cost_ns_) return 0;
  // In a trial, the other thing.
  if (worth_gathering() == (part_ == Part::kTrial)) return 0;
  return std::min(kGatherTurns * turn_cost_ns_, kGatherNsMax);
}

void Moderation::BeginPeriod(int64_t now_ns) {
  began_at_ns_ = now_ns;
  arrivals_ = 0;
}

void Moderation::EndPeriod(int64_t pace_ns) {
  switch (part_) {
    case Part::kUsual:
      before_ns_ = pace_ns;
      if (--to_trial_ == 0) part_ = Part::kTrial;
      return;
    case Part::kTrial:
      trial_ns_ = pace_ns;
      part_ = Part::kAfterTrial;
      return;
    case Part::kAfterTrial:
      part_ = Part::kUsual;
      to_trial_ =
          Compare((before_ns_ + pace_ns) / 2, trial_ns_) ? kPeriodsToTrial : kPeriodsToEarlyTrial;
      return;
  }
}

// Whether it has confirmed what enough trials have said before.
bool Moderation::Compare(int64_t usual_ns, int64_t trial_ns) {
  const int64_t with_ns = worth_gathering() ? usual_ns : trial_ns;
  const int64_t without_ns = worth_gathering() ? trial_ns : usual_ns;
  const int64_t result =
      std::clamp(kEven * without_ns / std::max<int64_t>(with_ns, 1), kResultMin, kResultMax);
  trials_ = std::min(trials_ + 1, kTrialMemory);
  worth_ += (static_cast<int32_t>(result) - worth_) / trials_;
  return trials_ >= kEarlyTrials && (result >= kWorthGathering) == worth_gathering();
}

}  // namespace ringmaster::core
