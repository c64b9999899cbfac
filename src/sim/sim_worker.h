// A worker on the simulated machine. It goes through a claim in the same steps as the port of the
// library and with the library's own inbox, but each step is an event of its own, so that batches
// of the master come between any two of them, and faults strike between any two of them.
//
//   waiting → begin (serving = 1, Inbox::Begin) → take (Inbox::Take) → callback → take → … →
//   end (serving = 0) → knock (Hunger::TakeKnock) → begin again if some are left, or wait
//
// The end of a lease: close the descriptor → PortState::Release → knock, as events of their own.

#ifndef RINGMASTER_SRC_SIM_SIM_WORKER_H_
#define RINGMASTER_SRC_SIM_SIM_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "core/inbox.h"
#include "core/port_state.h"
#include "sim/config.h"

namespace ringmaster::sim {

class World;

class SimWorker {
 public:
  // `id` is its number among all workers of the run, the engine's index is another thing.
  SimWorker(World* world, uint32_t id, const SimWorkerConfig& config);

  // A doorbell has reached its ring.
  void OnDoorbell();
  // The next step is due.
  void Step();
  // The master has taken it out of its books.
  void OnLeft() { state_ = State::kGone; }

  // A lease of it ends: the steps after the descriptor was closed.
  void Release();
  void KnockAfterRelease();

  uint32_t id() const { return id_; }
  const SimWorkerConfig& config() const { return config_; }
  core::Inbox& inbox() { return inbox_; }
  core::PortState& port_state() { return port_state_; }
  const std::byte* words() const { return storage_.get() + core::Inbox::BytesFor(0); }

  bool dead() const { return state_ == State::kDead; }
  bool gone() const { return state_ == State::kGone; }
  bool leaving() const { return state_ == State::kLeaving; }
  bool waiting() const { return state_ == State::kWaiting; }

  uint32_t engine_index = 0;

 private:
  enum class State : uint8_t {
    kWaiting,  // for a doorbell
    kBegin,
    kTake,
    kCallback,
    kEnd,
    kKnock,
    kNext,
    kLeaving,  // has asked the master and waits for the answer
    kGone,
    kDead,
  };

  struct FreeAligned {
    void operator()(std::byte* storage) const {
      ::operator delete[](storage, std::align_val_t{core::kCacheLine});
    }
  };

  static std::byte* Allocate(uint32_t words);

  void Begin();
  void Take();
  void EndCallback();
  void KnockIfHungry();
  void Next();
  void Go(State state, int64_t after_ns);

  World* const world_;
  const uint32_t id_;
  const SimWorkerConfig config_;
  std::unique_ptr<std::byte[], FreeAligned> storage_;
  core::Inbox inbox_;
  core::PortState port_state_;
  State state_ = State::kWaiting;
  uint32_t doorbells_ = 0;         // completions in its ring, not consumed
  uint32_t connections_left_ = 0;  // of this claim
  bool bounded_ = false;           // this claim stops early
  bool claimed_any_ = false;
  uint32_t serving_ = UINT32_MAX;  // connection in the callback
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SIM_WORKER_H_
