// The engine: what the master decides. Pure: completions and the time go in, operations come out.
// One engine drives one ring; it is called by one thread.
//
// Each batch runs through the same steps, which are one page (OnBatch):
//   completions → read the inboxes → recall what is overdue → deal → move → ring → arm
//
// The engine decides by means of its parts. Those that keep books are values of one source
// (core/source.h), of one worker (core/worker.h), or of all together (core/books.h). Those that act
// share the books, and each is one of the steps:
//
//   Receiver    what completions and tickets say of sources
//   Delivery    how an arrival gets to a worker, and what becomes of what was sent
//   Reader      what inboxes and tallies say of the workers
//   Recaller    what is taken back from workers
//   Mover       what goes from workers that are busy to workers that wait
//   Closer      what is closed unserved
//   Rota        in which order sources are dealt
//   Dealer      who gets what, as the policy says
//   Asker       what is asked of the kernel: accepts, counts; and tickets
//   Bells       doorbells
//   Armer       what is armed
//   Aimer       which sources are aimed: their workers accept, the master looks after them
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

#include "core/aimer.h"
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

  // Takes in what has completed, and replaces the contents of `ops` by what the ring is to do next.
  // The vector is the caller's, so nothing that is done to the engine meanwhile changes it. The
  // first batch after set-up allocates what it needs. `all_reported` is what the ring says of the
  // turn, see Ring::AllReported.
  void OnBatch(std::span<const Completion> completions, int64_t now_ns, std::vector<Op>& ops,
               bool all_reported = true);

  // A worker says something of `source`, which has readiness intake, by giving a ticket back.
  // `error` is 0: the source may have more. EAGAIN: the worker has found nothing. Any other errno:
  // it could not accept from the source. An edge in the batch that follows may be younger than
  // that, so nothing that is said here clears one. The caller leaves out late tickets, whose source
  // has gone (GivenBack::Hear). Call it between two batches; a batch must follow.
  void GiveBack(uint32_t source, int32_t error) { books_.sources[source].tickets.GiveBack(error); }
  void GiveBack(uint32_t source, const GivenBack::News& news);
  // A worker has accepted something from `source` by a ticket. It need not say so each time, only
  // while that would change the books of the source: see WaitsForSuccess.
  void Redeemed(uint32_t source) { books_.sources[source].tickets.Redeem(); }

  // Takes note of `overflows`, which is what kOverflows would complete with now. For whoever has
  // asked the kernel between two batches.
  void NoteOverflows(uint32_t source, int32_t overflows) {
    receiver_.NoteOverflows(books_.sources[source], overflows);
  }

  // How long the ring may wait after the last batch: 0, a time, or kWaitForever.
  int64_t WaitMax(int64_t now_ns) const;

  // How long the ring is to gather completions before it looks at them, at most WaitMax: see
  // Moderation.
  int64_t Gather(int64_t now_ns) const;
  // What Gather goes by: the CPU time that a turn with its batch has taken of late.
  void SetTurnCost(int64_t cpu_ns) { moderation_.SetTurnCost(cpu_ns); }

  // Forgets what `events` has said.
  void ClearEvents() { books_.events.clear(); }

  // Takes note of what the workers have done since the last batch, so that counts are current.
  void CatchUp(int64_t now_ns);

  // Whether this engine has given back places of workers, or of the balancer's gate, since the last
  // call. Then other masters that are hungry are to be woken: by the rule "freed places" of
  // core/places.h.
  bool PlacesFreed() { return books_.places.TakeFreed(); }
  // Since this was asked last: whether a worker that waits has got a place by this master.
  bool WaiterGotPlace() { return books_.places.TakeFreedAtWaiter(); }

  // --- Set-up: between two batches, followed by one. May allocate. -----------------------------

  uint32_t AddSource(SourceConfig config) { return AddSource(NextSource(), std::move(config)); }
  // The same at a certain index, which NextSource has returned. A lower one may have become free
  // since, by what workers have done.
  uint32_t AddSource(uint32_t index, SourceConfig config) {
    registry_.AddSource(SourceIndex(index), std::move(config));
    return index;
  }
  uint32_t AddWorker(const WorkerConfig& config) { return registry_.AddWorker(config); }

  // Takes in what workers have passed on, by the rule "passed on" of core/dealer.h. The index of
  // each still is that of the source that is meant: the source has not been removed, or not long
  // ago.
  void PassOn(std::span<const PassedOn> passed_on, int64_t now_ns) {
    registry_.PassOn(passed_on, now_ns);
  }
  // Counts one connection that was passed on and that the caller closes instead.
  void RefuseAtOnce(uint32_t source) {
    books_.ledger.RefuseAtOnce(source);
    books_.places.GiveBack(source);
  }

  // Makes more room in the ledger. To be called when WantsRoom says so, which is rare: bursts have
  // brought more than the sources may hold, and it is still held. The memory at least doubles, so
  // it is allocated some twenty times at most.
  void MakeRoom() { registry_.MakeRoom(); }

  // The lowest index that is free for a source. It stays free until it is given to one.
  uint32_t NextSource() { return registry_.NextSource(); }

  // Removes the source. Nothing more is taken in from it, and no worker joins it any more; what it
  // has accepted is still dealt to those who have joined. Its descriptor may be closed as soon as
  // IntakeEnded.
  void RemoveSource(uint32_t source) { registry_.RemoveSource(source); }

  // Gives the source another policy, and returns the one that it had. What has been accepted before
  // has the facts that the earlier policy asked for.
  std::unique_ptr<Policy> SetPolicy(uint32_t source, std::unique_ptr<Policy> policy) {
    return registry_.SetPolicy(source, std::move(policy));
  }

  // Changes how much a worker may have. If it has more than that already, it gets nothing until it
  // has less. `window_max` is at most half of the worker's inbox.
  void SetCapacity(uint32_t worker, uint32_t capacity) { registry_.SetCapacity(worker, capacity); }
  void SetWindow(uint32_t worker, uint32_t window_max) { registry_.SetWindow(worker, window_max); }

  // The worker leaves the balancer and all sources. All that it has not claimed is recalled at
  // once. Afterwards the engine no longer refers to what the worker's config borrowed.
  void RemoveWorker(uint32_t worker) { registry_.RemoveWorker(worker); }

  // `token` is the user_data of what is handed over to this worker as completions.
  void Join(SourceIndex source, WorkerIndex worker, uint64_t token = 0) {
    registry_.Join(source, worker, token);
  }
  void Leave(SourceIndex source, WorkerIndex worker) { registry_.Leave(source, worker); }
  void Pause(uint32_t source) {
    aimer_.Close(books_.sources[source]);
    books_.sources[source].paused = true;
  }
  // From now on the worker watches a sight, by which it may get permits; both are borrowed. -1: it
  // watches none any more.
  void SetSight(uint32_t worker, int sight, WorkerPermits* permits) {
    aimer_.CloseAllOf(worker);
    books_.workers[worker].config.sight = sight;
    books_.workers[worker].config.permits = permits;
  }
  // Also starts a source that still waits for its workers, however few have joined.
  void Resume(uint32_t source) {
    books_.sources[source].paused = false;
    books_.sources[source].starts_with = 1;
  }

  // Rest: nobody drives the master for a while. From the next batch on it ends what is armed, arms
  // and asks for nothing more, and deals nothing; it holds what has been accepted. Set-up goes on
  // meanwhile. GoOn: somebody drives it again.
  void Rest() {
    aimer_.CloseAll();
    books_.resting = true;
  }
  void GoOn();
  // The master rests, and its ring is out of reach: what was armed or under way there will never
  // complete, or not here.
  void ForgetRing() { armer_.ForgetRing(); }

  // Ends all intake for good. What has been accepted is still dealt. From now on `hungry` stays
  // raised, so that every claim and every end of a lease wakes the master. Workers are told.
  void StopIntake();
  // Tells the workers that the intake has stopped, or that the master ends: rings all of them in
  // the next batch, see Bells::RingAll.
  void TellWorkers() { bells_.RingAll(); }
  // After StopIntake: closes everything that is held or offered, a bounded number in each batch.
  void RefuseAll();

  // --- For tests and the simulator. ------------------------------------------------------------

  // Whether the master is hungry for nothing but this.
  bool WaitsOnlyFor(Waits::For what) const { return hungry_ && waits_.OnlyFor(what); }
  // Asserts what the rules say of the books. `nothing_under_way`: also what they say of a time at
  // which nothing is left to be done at once. `ring_keeps_its_word`: also that there is room for
  // every accept under way, which is so while the ring brings no more than it said it could.
  void CheckAll(bool nothing_under_way, bool ring_keeps_its_word = true);

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
  Aimer aimer_{books_, policies_, bells_};
  Registry registry_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ENGINE_H_
