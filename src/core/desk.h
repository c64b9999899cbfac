// Desk: where permits for one source are issued. A permit (core/permits.h) is leave to accept one
// connection. Each worker has a *sight*, an epoll set that its loop watches. The listener stands in
// the sights of those who have a permit, so the kernel wakes them and nobody else.
//
//   a connection comes ──► the kernel wakes whoever has the permit
//   that worker:           claims the permit, reserves places, accepts, finishes, visits the desk
//   whoever is there:      counts what waits, asks the policy who is next, issues the next permit
//
// So the policy has decided before the connection comes, and one wake-up serves it.
//
// A desk is open, or the master has it. Open, its permits decide who serves. While the master has
// it there are no permits, and the master deals by its engine. It opens the desk by Open and gets
// it back by Close, or because a holder has closed it (`closed_for`).
//
// Rules:
//  * Holder. One thread at a time holds the desk. It alone asks the policy, keeps the books of the
//    desk, and touches a sight. While the master has the desk, the master is the holder.
//  * Note. Nobody waits for an open desk. Whoever finds it held leaves a note and goes on. The
//    holder leaves by one compare-and-exchange, and only if there is no note. Otherwise it looks at
//    everything again.
//  * Order. A worker claims a permit, reserves places, accepts, finishes, and visits the desk, in
//    this order, whatever came of it. If it finds nothing, its other permits go back as well, and
//    it does not try again. The holder tells the policy of each by OnRecall: these turns were not
//    used.
//  * How many. The holder first sums up the permits that are out, both fields, then asks the kernel
//    how many connections wait. It issues the difference. If nothing waits and none is out, it
//    issues one: that one *stands*. If more wait than kWidth for each worker, or than kWidthMax in
//    all, it closes the desk: under full load and in a burst the master's dealing costs less,
//    because it takes several connections with each wake-up.
//  * Who. Of the workers that have a place and are not marked, one that waits if any does. Among
//    these the policy decides.
//  * How. First the permit, then the sight. Adding the listener to a sight makes the kernel look,
//    also where it stood there before. Then the holder looks whether the worker still waits. If it
//    does not, the holder looks at everything again.
//  * Wakes. Where something waits, showing the source wakes a worker, and the kernel may run that
//    worker in the place of the holder. Whoever comes then would find the desk held until the
//    holder runs again. So the holder shows the source asleep, leaves the desk, and wakes the
//    sights then. If somebody has hidden the source meanwhile, nothing happens. The master closes a
//    desk only when nobody is about to wake: afterwards it may close the descriptors.
//  * Astray. A permit is astray at a worker that has no place or is marked. It is so at one that
//    does not wait, too, while another waits and could take it. The holder takes it back and issues
//    it anew; the policy is told by OnRecall.
//  * Hungry. If a permit stays at a worker that does not wait, the holder raises `hungry` and then
//    looks at everything once more. A worker that has just said that it waits, or has ended a
//    claim, reads `hungry` afterwards and visits. So does whoever gives a place back of a worker
//    that waits and had none: a lease, or a master.
//  * Busy. A worker that has just said that it does not wait visits the desks from which it has
//    permits. One that was woken by a permit does so when it has accepted by that, or when it has
//    claimed all in vain.
//  * No place. A permit holds no place, and is no open connection.
//  * Sights. The holder takes the listener out of the sight of a worker that has no permit.
//  * Marks. If something waits and nothing moves, the master rings the workers that have permits,
//    and visits. `rung` is the mark, so the doorbell clears it as soon as the worker moves. What a
//    marked worker redeems does not count as out.
//
// tests/model/aim.pml has each rule with a variant that breaks it. (There a permit is called a
// ticket, and who lacks a place is waited for at the desk. Here the master gets the desk then,
// whose engine waits for places.)
//
// Any thread, as the functions say. Pure: what only the kernel can do is asked of Sights.

#ifndef RINGMASTER_SRC_CORE_DESK_H_
#define RINGMASTER_SRC_CORE_DESK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/inbox.h"
#include "core/permits.h"
#include "core/port_state.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

// What the kernel does for a desk. Called by the holder only, so by one thread at a time; but for
// Wake.
class Sights {
 public:
  virtual ~Sights() = default;
  // From now on the sight shows the source. The kernel looks at once whether anything waits, and if
  // so wakes whoever watches the sight. `again`: the source stands in the sight. 0, or an errno.
  virtual int Show(int sight, bool again) = 0;
  // The same, but the sight wakes nobody before Wake.
  virtual int ShowAsleep(int sight, bool again) = 0;
  // By this Wake knows the source.
  virtual int Listener() const = 0;
  // Without the desk, on several threads at once. A sight that shows the source wakes whoever
  // watches it from now on, at once if something waits. One that does not show it stays as it is.
  virtual void Wake(int sight, int listener) = 0;
  virtual void Hide(int sight) = 0;
  // How many connections wait; negative: unknown.
  virtual int Waiting() = 0;
  // Lets whoever holds the desk go on: the master wants it.
  virtual void Yield() = 0;
  // The desk has been closed by its holder: wakes the master.
  virtual void CallMaster() = 0;
  // Master. Whether the number of the source stands for nothing, or for another file, by now.
  virtual bool Gone() { return false; }
};

class Desk {
 public:
  // So many permits may be out for each worker, on the average.
  static constexpr uint32_t kWidth = 4;
  // And no more than these in all, because one thread at a time issues them.
  static constexpr uint32_t kWidthMax = 16;

  // A worker that may get permits. All pointers are borrowed while the desk is open.
  struct Seat {
    uint32_t worker = 0;  // its index
    PortState* state = nullptr;
    const Inbox* inbox = nullptr;  // whose `rung` marks it
    WorkerPermits* permits = nullptr;
    int sight = -1;
    uint32_t capacity = 0;
    int32_t cpu = -1;  // to which it is bound; -1: where it last claimed
  };

  // Why a holder has closed it.
  enum class Closed : uint8_t {
    kNot,
    kByMaster,
    kFull,       // more wait than its width: dealing them together costs less
    kNoPlace,    // nobody may have a permit
    kTrouble,    // a worker could not accept, or a sight cannot show the source
    kUncounted,  // the kernel does not say how many wait
    kPolicy,     // the policy failed, or picked nobody
  };

  // --- Master, while it has the desk -------------------------------------------------------------

  // What it works with while it is open. `source`: its index.
  struct Config {
    uint32_t source = 0;
    Policy* policy = nullptr;
    Sights* sights = nullptr;
    SourceSet* hungry = nullptr;            // of the master: desks that want to hear who waits
    const Gate* gate = nullptr;             // of the source; null: none
    const Gate* all = nullptr;              // of the balancer; null: none
    const CpuTopology* topology = nullptr;  // never null
  };
  // Set-up: room for so many seats.
  void Reserve(size_t seats);
  std::vector<Seat>& seats() { return seats_; }
  // Opens it for the workers in `seats`, ordered by index, at least one. It may be closed again
  // when this returns.
  void Open(const Config& config);
  // Why it was closed, and by which errno if by kTrouble; otherwise 0.
  Closed closed_for() const { return closed_for_; }
  int error() const { return error_; }
  // If it was closed for kPolicy: what the policy did that it must not, or empty.
  const std::string& policy_fault() const { return policy_fault_; }

  // --- Master ------------------------------------------------------------------------------------

  // The master has it when this returns. Nothing is issued, and no sight shows the source. Workers
  // may be redeeming still.
  void Close();
  // Whether the master has it.
  bool closed() const { return word_.is_masters(); }
  // While it is open: how many connections wait; how many were accepted by permits. The seats do
  // not change meanwhile.
  int Waiting() const { return config_.sights->Waiting(); }
  uint64_t Accepted() const;
  // While it is open: calls `mark` with the index of each worker that has a permit.
  template <typename Mark>
  void ForEachOut(Mark mark) const {
    for (const Seat& seat : seats_) {
      if (PermitsOf(seat).Read().out() > 0) mark(seat.worker);
    }
  }

  // --- Any thread --------------------------------------------------------------------------------

  // Looks at everything, unless somebody else holds it, who then does.
  void Visit();
  // The same of a worker that could not accept, because of `error`: the master gets the desk.
  void VisitInTrouble(int error) {
    word_.SayTrouble(error);
    Visit();
  }

 private:
  // What the holder remembers of a seat.
  struct Book {
    bool shown = false;
  };
  // A seat as a look finds it.
  struct Found {
    Permits::Count permits;
    bool may = false;    // has a place and is not marked
    bool waits = false;  // as far as is known
    bool marked = false;
  };

  Permits& PermitsOf(const Seat& seat) const { return seat.permits->of_source[config_.source]; }
  void Work();
  enum class Looked : uint8_t { kDone, kAgain, kClosed };
  // Sights that are to wake their workers when the desk is free.
  struct Wakes;
  Looked Look(Wakes& wakes);
  int ShowTo(size_t seat, bool something_waits, Wakes& wakes);
  void FindSeats();
  void TakeBackAstray();
  void TellRecalled(size_t seat, uint32_t count);
  static Activity ActivityOf(const PortState& state, const Found& found);
  void AddCandidates(bool waiters_only);
  void HideFrom(size_t seat);
  void HideUnused();
  bool NoPlaceAtGates() const;
  void GiveToMaster(Closed why);
  void WithdrawAll();
  size_t AskPolicy();

  DeskWord word_;

  // The holder's.
  Config config_;
  std::vector<Seat> seats_;
  std::vector<Book> books_;
  std::vector<Found> found_;
  std::vector<Candidate> candidates_;
  std::vector<uint32_t> positions_;  // of each candidate: its seat
  std::vector<uint32_t> joined_;
  Closed closed_for_ = Closed::kByMaster;
  int error_ = 0;
  std::string policy_fault_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_DESK_H_
