// Desk of processes: where permits for one source are issued, by whichever process comes by. It is
// the protocol of core/desk.h, with its rules, but for these: nobody deals. However many
// connections wait, permits decide; no more are out than the width. There are no places. And a
// process may be killed or frozen between any two steps. So:
//
//  * Named. The word of the desk names who holds it. A holder asks for the word before it asks the
//    kernel for something and before it writes what the policy remembers. If it was deposed, it
//    changes nothing more, says that the source is *torn*, and visits. A step of it was on its way,
//    which may have undone a step of whoever came after it; if it was renewing, that is the whole
//    round of the sights.
//  * Renew. A look that finds the source torn takes back every permit, takes the source out of
//    every sight whatever is known of it, lets the policy begin anew, and goes on.
//  * Keeper. One process, the keeper, never accepts. It hears which process has died, and sees
//    where nothing moves. It deposes whoever holds the desk, says that the source is torn, and
//    looks.
//  * Dead. If a process dies, the keeper takes back its workers' permits, redeeming ones too, and
//    deposes and renews at every source. Only then it gives the dead workers' numbers away: the
//    word of a desk must not name somebody else by such a number.
//  * Frozen. If something waits and nothing has been accepted for a while, the keeper marks those
//    who have permits, and renews. A marked worker gets no permit, unless all are marked. The mark
//    ends as soon as the worker moves. So that it moves, its sight shows the source: the sight is
//    the doorbell of a mark. And the keeper ends it after a while: what the doorbell announces may
//    be gone when the worker looks.
//  * Stray. A sight may show a source that its worker has no permit for. A worker that is woken by
//    it says so (Pair::shown) and visits, still waiting, and the holder takes the source out.
//  * Late. The policy is shown workers that do not wait as well as those that do, because servers
//    whose workers are busy most of the time would be uneven otherwise. A worker that does not wait
//    claims its permit when it comes back to its wait. But one that has not waited for kLateNs is
//    late: it gets a permit only where all are late, and loses it to one that waits. So `hungry` is
//    raised where a permit stays at a late worker, and where there is no worker at all.
//  * Idle. While a worker waits that has no connection at all, one that does not wait gets no
//    permit, and loses what it has: what it would claim later, the idle one serves now. So `hungry`
//    asks for idle workers (kHungryForIdle) where a permit stays at one that does not wait. Others
//    that come to wait need not look.
//  * First. A worker that was woken by its sight alone still counts as waiting until it has claimed
//    a permit. Otherwise a permit that it is about to claim is astray, and may go to and fro
//    between two workers without end.
//  * Nonsense. Whoever is broken may write over all of this. Each process puts right what only it
//    writes, as far as it remembers that (ProcessMember::Heal, ProcessGroup::OnLook; ringmaster-run
//    remembers less). No loop here goes on for as long as somebody writes.
//  * Alone. Nobody waits for the keeper. When it dies, every sight wakes its worker, which watches
//    the listener itself from then on.
//
// tests/model/processes.pml has these rules, each with a variant that breaks it; "idle" only
// decides who gets a permit, and is tried in tests/processes/desk_test.cc.
//
// Any process, any thread; pure: what only the kernel can do is asked of Kernel. It never allocates
// and never ends the process, because that is somebody else's server.

#ifndef RINGMASTER_SRC_PROCESSES_DESK_H_
#define RINGMASTER_SRC_PROCESSES_DESK_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "processes/area.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {

// What the kernel does for the desk of one source. `sight`: below kSightsMax. But for Wake, called
// by the holder.
class Kernel {
 public:
  virtual ~Kernel() = default;
  // From now on the sight shows the source, whether it did or not, and wakes whoever watches it,
  // unless `asleep`: then it does so from Wake on. False: it cannot.
  virtual bool Show(uint32_t sight, bool asleep) = 0;
  // Without the desk. One that does not show the source stays as it is.
  virtual void Wake(uint32_t sight) = 0;
  virtual void Hide(uint32_t sight) = 0;
  // How many connections wait; negative: unknown.
  virtual int Waiting() = 0;
  // Every sight of the area, whatever stands in it.
  virtual void HideFromAll() = 0;
  virtual int64_t NowNs() = 0;
};

class Desk {
 public:
  // So many permits may be out for each worker on the average, and in all.
  static constexpr uint32_t kWidth = 4;
  static constexpr uint32_t kWidthMax = 16;
  static constexpr int64_t kLateNs = 10'000'000;

  // All are borrowed. `policy`: prepared for kWorkersMax, used on this thread by nobody else while
  // a call lasts. `me`: a worker of this process, or kNone for the keeper.
  Desk(Area& area, uint32_t source, uint32_t me, Policy& policy, Kernel& kernel)
      : area_(area),
        source_(area.sources[source]),
        index_(source),
        me_(me == kNone ? NamedWord::kKeeper : me + 1),
        policy_(policy),
        kernel_(kernel) {}
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;

  // Looks at everything, unless somebody else holds the desk, who then does. False: the source
  // cannot be aimed any more (Mode::kLeft from now on).
  bool Visit();

  // Keeper. Deposes whoever holds the desk, and renews.
  bool Repair();
  // Keeper. Deposes whoever holds the desk, and wakes everybody: the kernel decides from now on.
  void Abandon();

 private:
  struct Found {
    uint32_t worker = 0;
    uint32_t open = 0;
    core::Permits::Count permits;
    bool marked = false;  // and not all are
    bool really_marked = false;
    bool waits = false;
    bool late = false;
    bool gets_more = false;  // permits, by this look
  };
  static bool IsFree(const Found& it) { return !it.marked && it.waits && it.permits.out() == 0; }
  static bool IsIdle(const Found& it) { return IsFree(it) && it.open == 0; }
  // Sights that are to wake their workers when the desk is free.
  struct Wakes {
    std::array<uint32_t, kWidthMax> sights;
    size_t count = 0;
  };
  enum class Looked : uint8_t { kDone, kAgain, kDeposed, kTrouble };

  Looked Work();
  void GiveUp();
  void LeaveDespiteNotes();
  Looked Look(Wakes& wakes);
  void Renew();
  void Find();
  void TakeBackAstray();
  void TakeBack(size_t at);
  void AddCandidates(bool late_ones);
  bool ShowWhatIsNeeded(bool something_waits);
  template <typename Is>
  bool Anybody(Is is) const;
  bool Yields(const Found& found) const;
  void LoadMemory();
  void SaveMemory();
  Pair& PairOf(uint32_t worker) { return area_.workers[worker].of_source[index_]; }

  Area& area_;
  Source& source_;
  const uint32_t index_;
  const uint32_t me_;
  Policy& policy_;
  Kernel& kernel_;

  uint64_t held_ = 0;
  std::array<Found, kWorkersMax> found_;
  size_t found_count_ = 0;
  std::array<Candidate, kWorkersMax> candidates_;
  std::array<uint32_t, kWorkersMax> positions_;  // of each candidate: where in found_
  size_t candidates_count_ = 0;
  std::array<uint32_t, kWorkersMax> joined_;
};

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_DESK_H_
