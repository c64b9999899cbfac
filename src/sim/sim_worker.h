// A worker on the simulated machine: what both kinds have in common. InboxWorker claims offers,
// CompletionWorker takes completions out of its ring. Either goes through the steps of the
// library's port with the library's own shared state. But each step is an event of its own, so that
// batches of the master, and faults, can come between any two steps.
//
// The end of a lease: close the descriptor → PortState::Release → knock, as events of their own.

#ifndef RINGMASTER_SRC_SIM_SIM_WORKER_H_
#define RINGMASTER_SRC_SIM_SIM_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/engine.h"
#include "core/port_state.h"
#include "sim/checker.h"
#include "sim/config.h"

namespace ringmaster::sim {

class PermitUser;
class World;

class SimWorker {
 public:
  // `id` is its number among all workers of the run, the engine's index is another thing.
  SimWorker(World* world, uint32_t id, const SimWorkerConfig& config);
  virtual ~SimWorker() = default;
  SimWorker(const SimWorker&) = delete;
  SimWorker& operator=(const SimWorker&) = delete;

  // Adds what the engine of a master, and the checker, must know of this worker.
  virtual void Introduce(uint32_t master, core::WorkerConfig& engine, CheckedBox& checked) = 0;
  // Something has come into its ring: a doorbell, or the news of what OnSent has put there.
  virtual void OnWake() = 0;
  // The next step is due.
  void Step();
  // Something else than the balancer has work for it.
  void OnOwnWork();
  // Its time to leave has come: it leaves at once if it waits.
  void LeaveIfIdle();
  // The master has it in its books no more, and will not use its ring again.
  void OnLeft();
  // Whether it waits although there is something for it.
  virtual bool Oversleeps() const = 0;

  // --- If it watches a sight ---
  virtual PermitUser* permits() { return nullptr; }
  // The sight is ready.
  virtual void OnSight() {}
  // Whether its next step may come in the middle of a batch of a master.
  virtual bool MayStepInBatch() const { return false; }
  // Whether it has said that it does not wait, and is about to visit the desks of its permits.
  virtual bool ChangesMind() const { return false; }
  // Whether it is inside its wait, and nothing is on its way that will wake it.
  bool SleepsSoundly() const { return waiting_ && !forgot_ && !dead_ && !leaving_ && !left_; }

  // Places that it has given back in its own books and not yet in what it shares.
  virtual uint32_t places_in_hand() const { return 0; }

  // Before it joins: its own value for the source that has this index at this master.
  void SetToken(uint32_t master, uint32_t index, uint64_t token);

  // There may be room in its file table.
  void SayRoom();
  // A lease of it ends: the steps after the descriptor was closed. The first gives the place back,
  // and returns what PortState::Release says.
  bool Release();
  void KnockAfterRelease();
  // A ticket that it had kept has ended: the step after the ticket's place was given back.
  void KnockAfterTicket();

  uint32_t id() const { return id_; }
  const SimWorkerConfig& config() const { return config_; }
  core::PortState& port_state() { return port_state_; }

  // A host: whether its loop, or a call that it has made, can drive the master now.
  bool drives() const { return waiting_ || leaving_ || left_; }
  // A host: the master has had its turn.
  virtual void OnDriven() {}

  bool GivesHints() const;

  bool dead() const { return dead_; }
  bool leaving() const { return leaving_; }
  bool left() const { return left_; }

  uint32_t engine_index = 0;      // the same at every master
  std::vector<int32_t> ring_fds;  // by master: its number of the worker's ring

 protected:
  // Takes the next step.
  virtual void Advance() = 0;
  // Whether it can see that it was offered something.
  virtual bool WasOffered() const { return false; }
  // It wakes, and says so with its next step. Called while it waits.
  virtual void WakeUp() = 0;
  // It has left. What belongs to the worker alone goes on.
  virtual void GoOnAlone() = 0;

  void StepAfter(int64_t after_ns);
  void Wait();
  void AskToLeave();
  void KnockIfHungry();

  // The hints of Port::BeforeWait and Port::AfterWait, step by step: it says that it waits,
  // and it woke. In between it reads whether anybody wants to know. The last says how long it is
  // busy with other things before it looks what it was offered.
  void SayWaiting();
  void TellThatItWaits();
  int64_t Woke();
  // The same in two steps.
  void SayBusy();
  int64_t WorkFirst();

  World* const world_;
  const uint32_t id_;
  const SimWorkerConfig config_;
  core::PortState port_state_;
  std::vector<std::vector<uint64_t>> tokens_;  // by master, by index of the source
  bool waiting_ = true;
  bool forgot_ = false;  // has ended a claim early and not gone on

 private:
  bool has_own_work_ = false;
  bool dead_ = false;
  bool leaving_ = false;  // has asked the master and waits for the answer
  bool left_ = false;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SIM_WORKER_H_
