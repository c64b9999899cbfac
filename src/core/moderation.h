// Moderation: how long a master lets arrivals wait for one another, so that they share its wake-up.
//
// This is to *gather*. It saves the master turns, and the workers wake-ups, if connections come
// whether or not the last ones were answered, or if there are many clients. If there are few
// clients, and each waits for its answer before it comes back, then everybody who could arrive has
// arrived, and gathering only makes them wait. The master cannot see how many clients there are. So
// it compares: now and then, for one period, it does the opposite of what it does otherwise. Then
// it keeps to what brings more arrivals in the same time.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_MODERATION_H_
#define RINGMASTER_SRC_CORE_MODERATION_H_

#include <cstdint>

namespace ringmaster::core {

// In units of what a turn costs the master, so that it suits slow and fast machines. Where an
// arrival comes in less than kLoadedTurns of these, waking for each would take the master a sixth
// of a CPU or more, and whoever is woken in turn as much again. Then it may gather for
// kGatherTurns.
inline constexpr int64_t kLoadedTurns = 6;
inline constexpr int64_t kGatherTurns = 16;
inline constexpr int64_t kGatherNsMax = 400'000;
// Until it has been measured.
inline constexpr int64_t kTurnCostNs = 5'000;
// The mean gap between arrivals forgets one in so many; longer gaps count as kGapNsMax, so that a
// pause is forgotten.
inline constexpr int64_t kGapMemory = 8;
inline constexpr int64_t kGapNsMax = 2'000'000;

// The comparison. A period is so many arrivals. A trial is one period in which the master does the
// opposite. It is compared with the mean of the period before and the period after it, so a load
// that rises or falls favours neither.
inline constexpr uint32_t kPeriodArrivals = 256;
// How many periods pass from one trial to the next; fewer until some have been made, and after one
// that contradicts them.
inline constexpr uint32_t kPeriodsToTrial = 16;
inline constexpr uint32_t kPeriodsToEarlyTrial = 3;
inline constexpr int32_t kEarlyTrials = 4;
// A gap in the arrivals so long that what is measured across it says nothing.
inline constexpr int64_t kPauseNs = 20'000'000;
// What the trials have said is the mean of their results, of which the last so many count.
inline constexpr int32_t kTrialMemory = 8;
// Arrivals with gathering for each 1,024 without. Gathering saves CPU time, so it may bring a
// little less; an open load, which brings the same either way, is gathered.
inline constexpr int32_t kEven = 1'024;
inline constexpr int32_t kWorthGathering = kEven - kEven / 16;

class Moderation {
 public:
  // `count` arrivals have come by `now_ns`; not 0.
  void NoteArrivals(uint32_t count, int64_t now_ns);

  // The CPU time that a turn with its batch has taken of late.
  void SetTurnCost(int64_t cpu_ns) { turn_cost_ns_ = cpu_ns; }

  // For how long to gather now; 0: not at all.
  int64_t GatherNs() const;

  // Arrivals with gathering for each 1,024 without, as far as the trials tell.
  int32_t worth() const { return worth_; }

 private:
  enum class Part : uint8_t { kUsual, kTrial, kAfterTrial };

  bool worth_gathering() const { return worth_ >= kWorthGathering; }
  void BeginPeriod(int64_t now_ns);
  void EndPeriod(int64_t pace_ns);
  bool Compare(int64_t usual_ns, int64_t trial_ns);

  int64_t turn_cost_ns_ = kTurnCostNs;
  int64_t gap_ns_ = kGapNsMax;
  int64_t arrived_at_ns_ = 0;

  Part part_ = Part::kUsual;
  uint32_t arrivals_ = 0;    // of this period
  int64_t began_at_ns_ = 0;  // this period; 0: none has
  int64_t before_ns_ = 0;    // from one arrival to the next in the period before the trial
  int64_t trial_ns_ = 0;     // the same in the trial
  uint32_t to_trial_ = kPeriodsToEarlyTrial;
  int32_t trials_ = 0;  // no more are counted than are remembered
  int32_t worth_ = kEven;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_MODERATION_H_
