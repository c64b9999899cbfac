// The ring of one master over the simulated kernel: Linux's rules for the operations of core/op.h,
// as far as they can surprise a master. Each rule was observed on Linux 6.18. What the runtime does
// in one call of Ring::Turn is two calls here, because the time between them belongs to the world.
//
//  * A multishot poll is edge-triggered: several arrivals before the master looks may be one
//    completion, and arming reports at once what is there already.
//  * A multishot accept makes one completion for each connection. It ends on any error, which
//    leaves the connection in the backlog where there is still one.
//  * When the completion queue is full, a multishot operation ends: its last completion does not
//    say `more` and is good otherwise (an accept's carries a descriptor). Other completions wait on
//    the kernel's overflow list; none is lost.
//  * When a client came and whether it has hung up is read when the completion of its accept is.
//  * A single accept never waits. Either it happens when it is submitted, or (as before Linux 6.10)
//    when its completion is read.
//  * A count is made when it is submitted, and so is the answer to how many a full backlog has
//    dropped.
//  * Ending a poll or an accept makes a last completion, ECANCELED, possibly after others.
//  * A doorbell or a connection that is sent succeeds also when the target's queue is full. It is
//    in the target's ring when the call that submits it returns. Only failures complete.
//  * What is installed in the file table of a worker's ring is told one by one, success as well. It
//    may be told much later.
//  * The kernel may take only a part of what is submitted while there is something to return.
//  * Nobody reads the master's eventfd, so arming the watch reports at once after the first knock.

#ifndef RINGMASTER_SRC_SIM_SIM_RING_H_
#define RINGMASTER_SRC_SIM_SIM_RING_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/op.h"
#include "sim/checker.h"

namespace ringmaster::sim {

class World;

class SimRing {
 public:
  SimRing(World* world, uint32_t master, uint32_t completion_entries)
      : world_(world), master_(master), completion_entries_(completion_entries) {}

  // A turn begins: the kernel takes `ops`.
  void Enter(std::span<const core::Op> ops);
  // It ends: what has completed is read. If the world's ring keeps back, no more than `accepts_max`
  // connections of multishot accepts are returned. What follows them for the same sources stays
  // behind them.
  void Leave(std::vector<core::Completion>& completions, uint32_t accepts_max);

  bool AllReported() const { return queue_.empty() && submissions_.empty(); }
  // Reads what has completed, and hands nothing over.
  void TakeRemaining(std::vector<core::Completion>& completions, uint32_t accepts_max) {
    Reap(completions, accepts_max);
  }
  // The ring is out of reach: what was armed is forgotten, and what was not taken is returned.
  std::vector<core::Op> Lose();
  bool KeepsBack() const { return !kept_.empty(); }

  // The world's side: there is one more source (of any master), a connection has come, a listener
  // was shut down, somebody has written to the master's eventfd.
  void OnListen() { sources_.emplace_back(); }
  void OnArrival(uint32_t source);
  void OnShutDown(uint32_t source);
  void OnKnock();
  // The kernel has done a kInstall.
  void OnInstallDone(const core::Op& op, int32_t result, uint32_t worker);

  // Whether the kernel still holds a completion for the master, or an operation of it.
  bool HasSomething() const { return !queue_.empty() || !work_.empty() || !submissions_.empty(); }

  bool polled(uint32_t source) const { return sources_[source].poll.armed; }
  bool accepted_from(uint32_t source) const { return sources_[source].accept.armed; }
  bool end_watched(uint32_t source) const { return sources_[source].hang_up.armed; }

 private:
  struct Multishot {
    core::OpKey key;
    bool armed = false;
    bool pending = false;  // task work is queued for it
    bool ending = false;   // it has been told to end and goes on until the end of the turn
  };
  struct SourceRing {
    Multishot poll;
    Multishot accept;
    Multishot hang_up;  // completes once
  };
  // Task work: what a wake-up leaves to the master's own thread.
  struct Work {
    core::OpKind kind = core::OpKind::kWatch;  // of the multishot
    uint32_t source = 0;
  };
  struct Queued {
    core::Completion completion;
    uint32_t source = 0;
    bool accepts = false;    // a single accept that happens when this is read
    int32_t unsent_fd = -1;  // what could not be handed over
    uint32_t unsent_to = 0;  // worker
    uint32_t unsent_ticket_of = Checker::kNone;
  };

  void Take(size_t count);
  void Submit(const core::Op& op);
  void Send(const core::Op& op);
  int32_t Count(uint32_t source);
  int32_t Overflows(uint32_t source);
  int32_t State(uint32_t source);
  bool HungUp(uint32_t source) const;
  uint32_t SourceOf(const core::Op& op) const;
  void Arm(Multishot& multishot, const core::Op& op);
  void End(const core::Op& op, core::OpKind kind);
  void Wake(Multishot& multishot, core::OpKind kind, uint32_t source);
  void RunWork();
  int32_t PollMask(uint32_t source) const;
  void AcceptEach(uint32_t source);
  void Post(const core::OpKey& key, int32_t result);
  bool PostMultishot(Multishot& multishot, int32_t result, bool last, const Arrival& facts = {});
  core::Completion Accept(const core::OpKey& key, uint32_t source);
  void ReadFacts(core::Completion& completion);
  void MakeSpuriousEdge();
  void Reap(std::vector<core::Completion>& completions, uint32_t accepts_max);

  World* const world_;
  const uint32_t master_;
  const uint32_t completion_entries_;
  std::vector<SourceRing> sources_;
  Multishot watch_;
  bool knocked_ = false;               // the eventfd is not zero
  std::deque<core::Op> submissions_;   // not taken by the kernel yet
  std::deque<Queued> queue_;           // the completion queue, and what overflowed behind it
  std::deque<core::Completion> kept_;  // of multishot accepts, read and not returned
  std::vector<Work> work_;
  std::vector<Work> working_;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SIM_RING_H_
