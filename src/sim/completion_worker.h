// A worker to whom connections are handed over as completions of its own ring. It uses of the
// library what Port::Took and Port::Adopt do:
//
//   waiting → begin → take a completion out of the ring → adopt, or not → callback → take → … →
//   took (the tally) → release the places → knock → begin again if there is more, or wait
//
// or, with took_first, one by one: take → took → release → knock → adopt → callback → take.
//
// What it takes out may be a ticket. Then it accepts from the source, once or until nothing more is
// found. Each connection has its callback. It gives the ticket back if it leaves some. Took comes
// before all this, or at any time after it.
//
// With a file table it gets slots instead of descriptors, and says when there may be room. Tickets
// come as ever.
//
// What is in its ring when it has left belongs to the worker. It serves that, and is gone then.

#ifndef RINGMASTER_SRC_SIM_COMPLETION_WORKER_H_
#define RINGMASTER_SRC_SIM_COMPLETION_WORKER_H_

#include <cstdint>
#include <deque>

#include "sim/sim_worker.h"

namespace ringmaster::sim {

class CompletionWorker final : public SimWorker {
 public:
  CompletionWorker(World* world, uint32_t id, const SimWorkerConfig& config);

  void Introduce(uint32_t master, core::WorkerConfig& engine, CheckedBox& checked) override;
  void OnWake() override;
  bool Oversleeps() const override { return waiting_ && !ring_.empty(); }

  uint32_t places_in_hand() const override { return released_; }

  // The kernel puts a completion into its ring: the descriptor of a connection, or a ticket.
  void OnSent(int32_t fd) { ring_.push_back({.fd = fd}); }
  void OnTicketSent(uint32_t source) { ring_.push_back({.source = source}); }
  // The kernel installs a connection in its file table, which is not full, and says so; or it does
  // not say so. And the worker closes one.
  bool table_full() const { return slots_used_ == config_.table; }
  void OnInstalled(uint32_t connection) {
    ++slots_used_;
    ring_.push_back({.connection = connection});
  }
  // It does not lose all of its slots, or nothing could ever be served.
  bool may_lose_slot() const { return slots_lost_ + 1 < config_.table; }
  void LoseSlot() {
    ++slots_used_;
    ++slots_lost_;
  }
  void CloseSlot() { --slots_used_; }
  // Something that the master has given up is not in its table after all.
  void LosePlace(uint32_t master);
  // It has left. What is in its ring does not count any more.
  void KeepRing();

 private:
  enum class Next : uint8_t {
    kWoke,
    kBegin,
    kTake,
    kServe,
    kRedeem,
    kCallback,
    kTook,
    kRelease,
    kKnock,
    kMore,
    kSayWaiting,
    kTellThatItWaits
  };
  struct Entry {
    int32_t fd = -1;
    uint32_t source = Checker::kNone;      // of a ticket
    uint32_t connection = Checker::kNone;  // in a slot
  };

  void Advance() override;
  void WakeUp() override;
  void GoOnAlone() override;

  void Begin();
  void Take();
  void Serve();
  void Redeem();
  void EndTicket(int32_t result);
  void Adopt();
  void Took();
  void ReleasePlaces();
  void More();
  void Go(Next next, int64_t after_ns);

  uint32_t Untaken() const;

  std::deque<core::Tally> tallies_;  // by master
  uint32_t next_tally_ = 0;          // Took begins there
  std::deque<Entry> ring_;
  uint32_t slots_used_ = 0;  // of its file table
  uint32_t slots_lost_ = 0;  // of these, to connections that it does not know
  Next next_ = Next::kBegin;
  uint32_t batch_left_ = 0;
  uint32_t taken_ = 0;     // out of the ring, and not said yet
  uint32_t released_ = 0;  // places that this Took gives back
  uint32_t serving_ = Checker::kNone;
  uint32_t ticket_ = Checker::kNone;  // source of the one that it redeems
  uint32_t accepts_left_ = 0;         // of it
  bool adopts_ = false;               // what it serves
  bool late_ = false;                 // it has put Took off once
  bool serves_next_ = false;          // after the knock, with took_first
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_COMPLETION_WORKER_H_
