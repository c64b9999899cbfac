// The engine: what the master decides. Pure: completions and the time go in, operations come out.
// One engine drives one ring; it is called by one thread.
//
// Each batch runs through the same steps, which are one page (OnBatch):
//   completions → look at the inboxes → recall what is overdue → deal → move → ring → arm
//
// The engine decides by means of its parts. Those that keep books are values of one source
// (core/source.h), of one worker (core/worker.h), or of all together (core/books.h). Those that act
// share the books, and each is one of the steps:
//
//   Receiver    what completions and tickets say of sources
//   Delivery    how an arrival gets to a worker, and what becomes of what was sent
//   Reader      the looks at inboxes and tallies
//   Recaller    what is taken back
//   Mover       what goes from those who are busy to those who wait
//   Closer      what is closed unserved
//   Rota        in which order sources are dealt
//   Dealer      who gets what, as the policy says
//   Asker       what is asked of the kernel: accepts, counts; and tickets
//   Bells       doorbells
//   Armer       what is armed
//   Waits       what is waited for
//   Registry    set-up
//
// Each rule has a name, and stands in the header of the part that it binds.

#ifndef RINGMASTER_SRC_CORE_ENGINE_H_
#define RINGMASTER_SRC_CORE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/armer.h"
#include "core/asker.h"
#include "core/bells.h"
#include "core/closer.h"
#include "core/dealer.h"
#include "core/delivery.h"
#include "core/engine_config.h"
#include "core/moderation.h"
#include "core/mover.h"
#include "core/op.h"
#include "core/policy_calls.h"
#include "core/port_state.h"
#include "core/questions.h"
#include "core/reader.h"
#include "core/recaller.h"
#include "core/receiver.h"
#include "core/registry.h"
#include "core/ring.h"
#include "core/rota.h"
#include "core/waits.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

class Engine : public Questions {
 public:
  // Borrows `hunger`, which it raises when it waits for credit.
  Engine(const EngineConfig& config, Hunger* hunger);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // --- The accept path: never allocates. -------------------------------------------------------

  // Takes in what has completed and replaces the contents of `ops` by what to do next. The vector
  // is the caller's, so nothing that is done to the engine meanwhile changes it; the first batch
  // after set-up sees to its room. `all_reported` is what the ring says of the turn, see
  // Ring::AllReported.
  void OnBatch(std::span<const Completion> completions, int64_t now_ns, std::vector<Op>& ops,
               bool all_reported = true);

  // A worker says that `source`, with readiness intake, may have more; with EAGAIN, that it has
  // found nothing; with another errno, that it could not accept from it. An edge in the
  // batch that follows may be younger than what is said here, so this never clears it. The caller
  // has left out late tickets, whose source has gone (GivenBack::Hear). Between two batches,
  // followed by one.
  void GiveBack(uint32_t source, int32_t error) { books_.sources[source].tickets.GiveBack(error); }
  void GiveBack(uint32_t source, const GivenBack::News& news);
  // The same of a worker that has accepted something. It need not say so each time, only when that
  // would change the books of the source: see WaitsForSuccess.
  void Redeemed(uint32_t source) { books_.sources[source].tickets.Redeem(); }

  // What kOverflows would complete with now, for whoever asks between two batches.
  void NoteOverflows(uint32_t source, int32_t overflows) {
    receiver_.NoteOverflows(books_.sources[source], overflows);
  }

  // How long the ring may wait after the last batch: 0, a time, or kWaitForever.
  int64_t WaitMax(int64_t now_ns) const;

  // How long the ring is to gather completions first, no longer than WaitMax: see Moderation.
  int64_t Gather(int64_t now_ns) const;
  // For it: the CPU time that a turn with its batch has taken of late.
  void SetTurnCost(int64_t cpu_ns) { moderation_.SetTurnCost(cpu_ns); }

  // Forgets what `events` has said.
  void ClearEvents() { books_.events.clear(); }

  // Takes note of what the workers have done since the last batch, so that counts are current.
  void CatchUp(int64_t now_ns);

  // Whether places of workers or of the balancer's gate were given back since the last call, other
  // than by workers and leases. Then other masters that are hungry are to be woken.
  bool PlacesFreed() { return books_.places.TakeFreed(); }

  // --- Set-up: between two batches, followed by one. May allocate. -----------------------------

  uint32_t AddSource(SourceConfig config) { return AddSource(NextSource(), std::move(config)); }
  // At an index that NextSource has given for it. Workers may have made a lower one free since.
  uint32_t AddSource(uint32_t index, SourceConfig config) {
    registry_.AddSource(SourceIndex(index), std::move(config));
    return index;
  }
  uint32_t AddWorker(const WorkerConfig& config) { return registry_.AddWorker(config); }

  // What workers have passed on of sources that have not been removed, or not long ago: the index
  // still is that of the source that is meant. See the rule "passed on" in core/dealer.h.
  void PassOn(std::span<const PassedOn> passed_on, int64_t now_ns) {
    registry_.PassOn(passed_on, now_ns);
  }
  // The same of one that is closed instead, by whoever calls.
  void RefuseAtOnce(uint32_t source) {
    books_.ledger.RefuseAtOnce(source);
    books_.places.GiveBack(source);
  }

  // When WantsRoom says so. Rare: bursts have brought more than the sources may hold, and it is
  // still held. The memory at least doubles, so it is allocated some twenty times at most.
  void MakeRoom() { registry_.MakeRoom(); }

  // The lowest index that is free for a source. It stays free until it is given to one.
  uint32_t NextSource() { return registry_.NextSource(); }

  // No worker joins it any more. Its descriptor may be closed as soon as IntakeEnded.
  void RemoveSource(uint32_t source) { registry_.RemoveSource(source); }

  // Puts `policy` in the place of the source's. What has been accepted before has the facts that
  // the old one asked for. Returns the old one.
  std::unique_ptr<Policy> SetPolicy(uint32_t source, std::unique_ptr<Policy> policy) {
    return registry_.SetPolicy(source, std::move(policy));
  }

  // Changes what a worker may have. Where that is less than it has, it gets nothing before it has
  // less. `window_max` is at most half of its inbox.
  void SetCapacity(uint32_t worker, uint32_t capacity) {
    books_.places.SetCapacity(worker, capacity);
  }
  void SetWindow(uint32_t worker, uint32_t window_max) { registry_.SetWindow(worker, window_max); }

  // The worker leaves everything: all that it has not claimed is recalled at once. Afterwards the
  // engine no longer refers to what its config borrowed.
  void RemoveWorker(uint32_t worker) { registry_.RemoveWorker(worker); }

  // `token` goes with what is handed over as a completion.
  void Join(SourceIndex source, WorkerIndex worker, uint64_t token = 0) {
    registry_.Join(source, worker, token);
  }
  void Leave(SourceIndex source, WorkerIndex worker) { registry_.Leave(source, worker); }
  void Pause(uint32_t source) { books_.sources[source].paused = true; }
  // Also starts it, however few workers have joined.
  void Resume(uint32_t source) {
    books_.sources[source].paused = false;
    books_.sources[source].starts_with = 1;
  }

  // Nobody drives the master for a while: from the next batch on it ends what is armed, arms and
  // asks for nothing more, and deals nothing; what has been accepted is held. GoOn takes it up
  // again. Set-up goes on meanwhile.
  void Rest() { books_.resting = true; }
  void GoOn();
  // While it rests: the ring is out of reach, and what was armed or under way there will never
  // complete, or not here.
  void ForgetRing() { armer_.ForgetRing(); }

  // Ends all intake for good; what has been accepted is still dealt. From now on `hungry` stays
  // raised, so that every claim and every lease wakes the master. Tells the workers.
  void StopIntake();
  // Workers are told when the intake stops, and when the master ends: rings every worker in the
  // next batch, see Bells::RingAll.
  void TellWorkers() { bells_.RingAll(); }
  // After StopIntake: closes everything that is held or offered, a bounded number in each batch.
  void RefuseAll();

  // --- For tests and the simulator. ------------------------------------------------------------

  // Whether it asks to be woken for nothing but this.
  bool WaitsOnlyFor(Waits::For what) const { return hungry_ && waits_.OnlyFor(what); }
  // Asserts the rules that can be looked up; those about rest only where nothing is under way.
  // There is room for every accept under way, as long as the ring has brought no more than it said
  // it could.
  void CheckAll(bool at_rest, bool ring_keeps_its_word = true);

 private:
  void OnCompletion(const Completion& completion);
  bool ReadInboxes();

  Hunger* const hunger_;
  Moderation moderation_;
  bool hungry_ = false;

  PolicyCalls policies_{books_};
  Bells bells_{books_};
  Delivery delivery_{books_, policies_, bells_};
  Reader reader_{books_, delivery_};
  Recaller recaller_{books_, policies_, bells_, reader_};
  Closer closer_{books_, bells_, reader_, recaller_};
  Mover mover_{books_, policies_, reader_, recaller_, closer_, delivery_};
  Waits waits_{books_};
  Dealer dealer_{books_, policies_, delivery_, closer_};
  Asker asker_{books_, reader_, dealer_, waits_};
  Rota rota_{books_, dealer_, asker_};
  Receiver receiver_{books_};
  Armer armer_{books_, waits_};
  Registry registry_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ENGINE_H_
