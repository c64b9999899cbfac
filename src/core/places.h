// Places: how many connections may be open, and what is reserved for those that are still to come.
// There is one for an engine. It knows no arrival, only how many there are.
//
// There are two kinds of limits, and every connection needs a place by each:
//  * Gates: those of a source and of the whole balancer. A place is reserved before an accept is
//    asked for or a ticket issued. It goes with the arrival until that is refused or dropped, or
//    its lease ends. A count reserves one, too, for the ticket that its answer may need.
//  * Capacities of workers. An arrival takes a place when it is offered.
//
// At a worker two things are reserved before an arrival is offered, because a worker has two
// limits:
//  * A promise: a place below its capacity, which nobody else may have, not even another master.
//    Only polled sources have promises, and only at workers that are limited. When the arrival is
//    offered to a worker at which its source has a promise, it takes the promised place; otherwise
//    the promise is set free. What comes back from a worker keeps its place as a promise.
//  * Kept credit: a part of its window, which no other source of this master may have. What an
//    accept or a count has asked for is kept until it has completed and was dealt.
//
// Rule "freed places". Several masters may serve the same workers. They share PortState and the
// balancer's gate. So a place that this engine gives back may be what another master waits for.
// That one is to be woken then: TakeFreed says that there was such a place.
//
// Owned and called by one engine. Only set-up allocates. Gates and PortState are shared with other
// masters, workers and leases; all else is the engine's own.

#ifndef RINGMASTER_SRC_CORE_PLACES_H_
#define RINGMASTER_SRC_CORE_PLACES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/index.h"
#include "core/port_state.h"

namespace ringmaster::core {

class Places {
 public:
  static constexpr uint32_t kUnlimited = UINT32_MAX;

  // Borrows the balancer's gate; null: there is none.
  explicit Places(Gate* gate) : gate_(gate) {}

  // --- Set-up ----------------------------------------------------------------------------------

  // A source is new at its index. Borrows its gate; null: it has none. `promises`: its accepts are
  // asked for one by one, so it may have promises.
  void SetSource(uint32_t source, Gate* gate, bool promises);
  // A worker is new at its index. Borrows its state.
  void SetWorker(uint32_t worker, PortState* state, uint32_t capacity);
  void SetCapacity(uint32_t worker, uint32_t capacity) { workers_[worker].capacity = capacity; }
  // The worker leaves the source: nothing is promised to the source or kept for it there any more.
  void Leaves(SourceIndex source, WorkerIndex worker);

  // --- Gates -----------------------------------------------------------------------------------

  // Reserves a place at both gates, or takes over the one that a count has. False, and nothing
  // reserved, when there is none.
  bool Reserve(uint32_t source);
  // Gives a place back at both gates.
  void GiveBack(uint32_t source);
  // Reserves one whatever the limits, for a connection that is there without having been asked for.
  void ForceReserve(uint32_t source);
  bool Full(uint32_t source) const;
  // The same at the balancer's gate alone.
  void ForceReserveShared() {
    if (gate_ != nullptr) gate_->ForceReserve();
  }
  void GiveBackShared();

  // A count is under way, and has the place at the gates that was reserved last.
  void LeaveToCount(uint32_t source) { sources_[source].count_has_place = true; }
  bool CountHasPlace(uint32_t source) const { return sources_[source].count_has_place; }
  // The count needs its place no more. Returns whether it had one.
  bool TakeFromCount(uint32_t source);

  // --- Capacities and promises -----------------------------------------------------------------

  // How many places the source could have at the worker, those that are promised to it included.
  uint32_t At(WorkerIndex worker, SourceIndex source) const {
    const Worker& at = workers_[worker];
    const uint32_t promised = Promised(source, worker);
    const uint32_t open = at.state->open.load(std::memory_order_seq_cst);
    const uint32_t others = open - std::min(open, promised);
    // What was promised is there also when the capacity has been lowered since. Two that had
    // accepted by then would otherwise wait for each other's place.
    return std::max(promised, at.capacity - std::min(others, at.capacity));
  }
  // How many connections are open at the worker, without what is promised to this source.
  uint32_t Open(WorkerIndex worker, SourceIndex source) const {
    const uint32_t open = workers_[worker].state->open.load(std::memory_order_relaxed);
    return open - std::min(open, Promised(source, worker));
  }
  uint32_t Promised(SourceIndex source, WorkerIndex worker) const {
    const Source& of = sources_[source];
    return of.promises == 0 ? 0 : of.promised[worker];
  }
  uint32_t promises(uint32_t source) const { return sources_[source].promises; }

  // An arrival is offered to the worker: takes the promised place for it, or a new one, and uses
  // credit that was kept for it. False, and nothing taken: another master has taken the last place.
  bool Take(WorkerIndex worker, SourceIndex source);
  // An arrival comes back from the worker. Its place is promised to the source.
  void TakeBack(WorkerIndex worker, SourceIndex source);
  // A place of the worker becomes free.
  void Release(uint32_t worker) {
    freed_at_waiter_ |= workers_[worker].state->Release();
    freed_ = true;
  }

  // --- Kept credit -----------------------------------------------------------------------------

  // How much credit this source keeps at the worker; and all sources together.
  uint32_t Kept(SourceIndex source, WorkerIndex worker) const {
    const Source& of = sources_[source];
    return of.keeps == 0 ? 0 : of.kept[worker];
  }
  uint32_t KeptAt(uint32_t worker) const { return workers_[worker].kept; }
  uint32_t keeps(uint32_t source) const { return sources_[source].keeps; }

  // Keeps credit for one more arrival. `credits` are those of the workers `joined`; it is kept at
  // the worker that has the most, because that hinders the policies of other sources the least, and
  // lowers that one's entry. Where all workers are limited, a place is promised with it. False:
  // there is no credit, or no place.
  bool Keep(SourceIndex source, std::span<const uint32_t> joined, std::span<uint32_t> credits);

  // Lets go of kept credit and of promises beyond so many. Returns whether others may have got any.
  bool LetGo(SourceIndex source, uint64_t credit, uint64_t promises) {
    const Source& of = sources_[source];
    if (of.keeps <= credit && of.promises <= promises) return false;
    return LetGoOfSurplus(source, credit, promises);
  }

  // --- For other masters -----------------------------------------------------------------------

  // Whether places have become free since this was asked last, other than by workers and leases.
  bool TakeFreed() { return std::exchange(freed_, false); }
  void NoteFreed() { freed_ = true; }
  // Whether one of these was of a worker that waits and had none.
  bool TakeFreedAtWaiter() { return std::exchange(freed_at_waiter_, false); }

  // Asserts that the counts agree.
  void CheckAll() const;

 private:
  struct Source {
    Gate* gate = nullptr;
    bool may_promise = false;
    bool count_has_place = false;
    uint32_t promises = 0;  // all together
    uint32_t keeps = 0;
    std::vector<uint32_t> promised;  // by worker
    std::vector<uint32_t> kept;
  };
  struct Worker {
    PortState* state = nullptr;
    uint32_t capacity = kUnlimited;
    uint32_t kept = 0;  // by all sources
  };

  bool LetGoOfSurplus(SourceIndex source, uint64_t credit, uint64_t promises);
  bool Limited(uint32_t worker) const { return workers_[worker].capacity != kUnlimited; }
  void Promise(Source& source, uint32_t worker) {
    ++source.promised[worker];
    ++source.promises;
  }
  void UsePromise(Source& source, uint32_t worker) {
    --source.promised[worker];
    --source.promises;
  }
  void Use(Source& source, uint32_t worker, uint32_t count) {
    source.kept[worker] -= count;
    source.keeps -= count;
    workers_[worker].kept -= count;
  }

  Gate* const gate_;
  std::vector<Source> sources_;
  std::vector<Worker> workers_;
  bool freed_ = false;
  bool freed_at_waiter_ = false;
};

inline void Places::GiveBack(uint32_t index) {
  if (Gate* const own = sources_[index].gate; own != nullptr) own->GiveBack();
  GiveBackShared();
}

inline void Places::GiveBackShared() {
  if (gate_ == nullptr) return;
  gate_->GiveBack();
  freed_ = true;
}

inline void Places::ForceReserve(uint32_t index) {
  if (Gate* const own = sources_[index].gate; own != nullptr) own->ForceReserve();
  ForceReserveShared();
}

inline bool Places::Take(WorkerIndex worker, SourceIndex index) {
  Source& source = sources_[index];
  if (Promised(index, worker) > 0) {
    UsePromise(source, worker);
  } else if (!workers_[worker].state->Reserve(workers_[worker].capacity)) {
    return false;
  }
  if (Kept(index, worker) > 0) Use(source, worker, 1);
  return true;
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_PLACES_H_
