// Dealing: which worker gets a connection that its parent gives (processes/chute.h). The parent has
// accepted it, so the policy sees it, and may be any. Rules:
//
//  * Room. So many connections may lie in one chute. A chute without room, whatever the kernel says
//    is the reason, is lack of credit: the connection goes to another worker, or is held.
//  * Held. What nobody has room for, or the policy has picked nobody for, waits here in its order.
//    It is dealt again whenever something has changed.
//  * Counted by the kernel. What lies in a chute is asked of the kernel, never of the worker.
//  * Taken back. What a worker has not taken comes back here, before everything that is held, when
//    the worker is dead, when it takes no more (Worker::takes), and when nothing has moved in its
//    chute for kStillNs while somebody else could have it. A worker of the last kind is marked
//    (processes/desk.h, rule "frozen").
//  * Late, marked, idle. As at the desk (processes/desk.h): late and marked workers get something
//    only where all are so, and one that does not wait gets nothing while another has nothing to
//    do.
//  * Ruined. A chute that fails otherwise gets nothing more, until there is another one.
//  * Nonsense. Whoever says that it takes nothing is nudged once in a while, so that it says what
//    is true before it waits again. Somebody who is broken may have written it, or it has
//    descriptors again.
//
// One thread at a time; pure: what only the kernel can do is asked of ChuteKernel.

#ifndef RINGMASTER_SRC_PROCESSES_DEALING_H_
#define RINGMASTER_SRC_PROCESSES_DEALING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "processes/area.h"
#include "processes/chute.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {

// What the kernel does for it, for the chute of a worker.
class ChuteKernel {
 public:
  virtual ~ChuteKernel() = default;
  // As PutIn and TakeOut; after PutIn the connection is the chute's alone.
  virtual int Put(uint32_t worker, const Given& given) = 0;
  virtual int Take(uint32_t worker, Given& given) = 0;
  virtual uint32_t Lying(uint32_t worker) = 0;
  // The number of the chute that the place has now; 0: nobody has the place.
  virtual uint64_t Number(uint32_t worker) = 0;
  // Wakes the worker, by a message that is no connection.
  virtual void Nudge(uint32_t worker) = 0;
  // The worker does not move: it gets no permits either for a while.
  virtual void Mark(uint32_t worker) = 0;
  virtual int64_t NowNs() = 0;
};

struct DealingCounts {
  uint64_t given = 0;  // put into a chute, and not taken back since
  uint64_t taken_back = 0;
};

class Dealing {
 public:
  static constexpr int64_t kStillNs = 10'000'000;
  static constexpr int64_t kNudgeNs = 100'000'000;

  struct Limits {
    uint32_t places = kWorkersMax;  // that there are
    uint32_t lying_max = 1;         // in one chute, from 1 to kLyingMax
  };

  // Area and kernel are borrowed. `policy`: prepared for kWorkersMax.
  Dealing(Area& area, ChuteKernel& kernel, std::unique_ptr<Policy> policy, Limits limits)
      : area_(area),
        kernel_(kernel),
        policy_(std::move(policy)),
        places_(limits.places),
        lying_max_(limits.lying_max) {}
  Dealing(const Dealing&) = delete;
  Dealing& operator=(const Dealing&) = delete;

  Policy& policy() { return *policy_; }

  // The connection is this object's from now on.
  void Hold(const Given& given) { held_.push_back(given); }
  // Deals what is held. `at_any_cost`: also to those who have no credit, and are late or marked,
  // for the end.
  void Deal(bool at_any_cost = false);
  // Whether somebody would get a connection now, as far as the policy wants it.
  bool HasRoom();
  // Whether a worker that there is says that it takes nothing.
  bool SomebodyTakesNothing();
  // Takes back what is to be taken back, and deals.
  void Look();
  // The worker has died. Whoever has the place next has nothing of it.
  void OnGone(uint32_t worker);
  // The place has another chute.
  void OnNewChute(uint32_t worker) { books_[worker] = {}; }

  bool IsRuined(uint32_t worker) const { return books_[worker].ruined; }
  size_t held() const { return held_.size(); }
  // Whether something lies in a chute.
  bool Lies();
  uint32_t LyingWith(uint32_t worker) { return Count(worker); }
  const DealingCounts& counts() const { return counts_; }
  // Hands what is held to the caller.
  std::vector<Given> TakeHeld() { return std::exchange(held_, {}); }

 private:
  struct Book {
    uint32_t lying = 0;  // at most; 0: nothing
    int64_t moved_at_ns = 0;
    bool ruined = false;
  };
  struct Found {
    uint32_t worker = 0;
    bool marked = false;
    bool late = false;
    bool waits = false;
    bool full = false;
  };

  bool Takes(uint32_t worker);
  bool IsToBeNudged(uint32_t worker);
  uint32_t Count(uint32_t worker);
  void Find();
  void AddCandidates(bool at_any_cost);
  bool DealOne(const Given& given, bool at_any_cost, bool& set_aside);
  void TakeBack(uint32_t worker);
  void NudgeThoseWhoTakeNothing(int64_t now_ns);

  Area& area_;
  ChuteKernel& kernel_;
  const std::unique_ptr<Policy> policy_;
  const uint32_t places_;
  const uint32_t lying_max_;
  std::vector<Given> held_;
  std::array<Book, kWorkersMax> books_;
  DealingCounts counts_;
  int64_t nudged_at_ns_ = 0;
  // Of one call.
  std::array<Found, kWorkersMax> found_;
  std::array<uint32_t, kWorkersMax> joined_;
  size_t found_count_ = 0;
  std::array<Candidate, kWorkersMax> candidates_;
  std::array<uint32_t, kWorkersMax> positions_;  // of each candidate: where in found_
  size_t candidates_count_ = 0;
};

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_DEALING_H_
