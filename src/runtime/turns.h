// What one master does on the thread that drives it: turns of its ring, each with a batch of the
// engine, and the end. Which thread that is, and whose ring, the driver knows (runtime/driver.h).

#ifndef RINGMASTER_SRC_RUNTIME_TURNS_H_
#define RINGMASTER_SRC_RUNTIME_TURNS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/engine.h"
#include "core/op.h"
#include "core/ring.h"
#include "ring/master_ring.h"
#include "ringmaster/stats.h"
#include "runtime/calls.h"
#include "runtime/environment.h"
#include "runtime/event_callback.h"
#include "runtime/master_end.h"
#include "runtime/passing_on.h"
#include "runtime/roster.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// How many turns a master takes at most to have the kernel take everything at the end.
inline constexpr int kLastTurnsMax = 64;

// Of the ring that a master drives, see core::EngineConfig.
struct RingSize {
  uint32_t completion_entries = 0;
  uint32_t slots = 0;
};

// Threads: one at a time, that is the thread that drives the master, or a caller while nobody
// drives it. Some of the parts have a way in for other threads; their headers say so.
//
// The caller is inside the master (runtime/inside.h), unless a function says otherwise.
class Turns {
 public:
  Turns(const MasterEnvironment& environment, uint32_t index, RingSize size);
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // The parts.
  MasterShared& shared() { return shared_; }
  core::Engine& engine() { return engine_; }
  Roster& roster() { return roster_; }
  MasterLock& lock() { return lock_; }
  CallQueue& calls() { return calls_; }
  Departures& departures() { return departures_; }
  MasterEnd& end() { return end_; }
  EventCallback& events() { return events_; }

  // Borrows the ring, until another one or none (null) is set.
  void UseRing(ring::MasterRing* ring) { ring_ = ring; }

  // Before the first turn: a batch without completions, which says what is armed at first.
  void Begin();
  // Another thread takes the next turn: it drives the master, which rested, from now on.
  void GoOn();

  // One turn of the ring and one batch, with what belongs to them. False: the master has nothing
  // more to do, or its ring has failed. Then `why` says why calls are refused from now on, and End
  // is to be called.
  bool Take(core::Wait wait, absl::Status& why);
  // How long the next turn may wait. Not inside.
  core::Wait NextWait();
  int64_t WaitMax();
  // Whether the last batch has left operations for the next turn.
  bool pending() const { return !ops_.empty(); }
  // After engine().Rest(): whether nothing is armed or under way any more.
  bool AtRest() const;
  // What a turn begins with. RunCalls does what Obey does, removes workers that have left from a
  // callback, and runs calls. Obey does what BeginShutdown has asked for.
  void RunCalls();
  void Obey();

  void FillStats(BalancerStats& stats);

  // Between two batches. Nothing refers to the worker any more, except the duplicate of its ring.
  // As a rule the kernel has taken everything that was submitted, and the duplicate is closed. If
  // it has not, a doorbell for the worker may be among what is left. Then the duplicate stays open
  // until CloseRings finds that it has.
  void ReleaseWorker(uint32_t worker);
  void CloseRings();

  // Between two batches. What workers have passed on so far is the engine's from now on.
  void TakeInPassedOn();
  // Who has joined the source has changed.
  void NoteJoined(uint32_t source);

  // --- When the ring can do nothing any more -----------------------------------------------------

  // Reads what the ring has reported, `reported` first, and then refuses what nobody has claimed.
  void RefuseWithoutRing(std::vector<core::Completion> reported = {});
  // Returns the operations of the last batch, which are not submitted any more.
  std::vector<core::Op> TakePending();
  // Reads what the ring has reported. What it would be asked for because of that is added to
  // `not_done`.
  void ReadWithoutRing(std::vector<core::Op>& not_done);
  // There is another ring from now on. `failed`: what has failed of what the earlier one was asked
  // for.
  void ForgetRing(std::vector<core::Completion> failed);
  // Refuses what is left. For a master that cannot be waited for.
  void RefuseNow();
  // The last turns, after which nothing is accepted any more. They tell the workers, too.
  void TakeLast();

  // Ends the master. The ring must be let go of. Afterwards every call is refused with `why`. Not
  // necessarily inside.
  void End(absl::Status why);

 private:
  struct TurnCaller;  // see core/turn.h

  std::span<const core::PassedOn> TakePassedOn();
  void RefusePassedOn();
  void LetGoOfListeners();
  bool Drained();
  void SubmitLast();
  void TellWorkersApart();
  // Closes what nobody has claimed. The report counts this separately from what was refused before.
  void RefuseAll();
  void TakeRemaining();
  // A batch with `completions_` while the ring cannot be asked for anything.
  void BatchWithoutRing(bool all_reported, std::vector<core::Op>* not_done = nullptr);

  const MasterEnvironment& environment_;
  MasterShared& shared_;
  ring::MasterRing* ring_ = nullptr;
  core::Engine engine_;
  Roster roster_;
  std::vector<core::Completion> completions_;
  std::vector<core::Op> ops_;  // of the last batch, not yet submitted
  int64_t now_ns_ = 0;         // of the last batch
  bool workers_told_ = false;  // that the master ends
  uint64_t turns_ = 0;
  EventCallback events_;

  // What was just taken, and as the engine gets it.
  std::vector<PassingOn::Item> passing_on_;
  std::vector<core::PassedOn> passed_on_;

  MasterLock lock_;
  CallQueue calls_{&lock_};
  Departures departures_;
  MasterEnd end_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_TURNS_H_
