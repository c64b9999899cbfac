// A worker that claims offers out of its inboxes, one from each master, as Port::Claim does:
//
//   waiting → begin (serving = 1, Inbox::Begin of each) → take (Inbox::Take, in turn) → look the
//   token up → callback → take → … → end (serving = 0) → knock (Hunger::TakeKnock) → begin again if
//   some are left, or wait
//
// What is claimed may be a ticket; between the look-up and the callback there is an accept then,
// and perhaps no callback.

#ifndef RINGMASTER_SRC_SIM_INBOX_WORKER_H_
#define RINGMASTER_SRC_SIM_INBOX_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "core/inbox.h"
#include "sim/sim_worker.h"

namespace ringmaster::sim {

class InboxWorker final : public SimWorker {
 public:
  InboxWorker(World* world, uint32_t id, const SimWorkerConfig& config);

  void Introduce(uint32_t master, core::WorkerConfig& engine, CheckedBox& checked) override;
  void OnWake() override;
  void OnDriven() override;
  bool Oversleeps() const override;

 private:
  enum class Next : uint8_t {
    kBegin,
    kBeginOne,
    kTake,
    kLookUp,
    kAccept,
    kCallback,
    kEnd,
    kKnock,
    kMore
  };

  struct FreeAligned {
    void operator()(std::byte* storage) const {
      ::operator delete[](storage, std::align_val_t{core::kCacheLine});
    }
  };
  static std::byte* Allocate(uint32_t words);
  struct Box {
    explicit Box(uint32_t words) : storage(Allocate(words)), inbox(storage.get(), words) {}
    const std::unique_ptr<std::byte[], FreeAligned> storage;
    core::Inbox inbox;
  };

  void Advance() override;
  // It has asked between two claims, so there is nothing of its own.
  void GoOnAlone() override {}

  void Begin();
  void BeginOne();
  void Take();
  void LookUp();
  void Accept();
  void EndCallback();
  void End();
  void More();
  void Go(Next next, int64_t after_ns);

  std::vector<std::unique_ptr<Box>> boxes_;  // by master
  uint32_t box_ = 0;                         // begun next, taken from next
  uint32_t empty_ = 0;                       // boxes in which nothing was found, in a row
  uint32_t from_ = 0;                        // the master of what was claimed
  Next next_ = Next::kBegin;
  uint32_t doorbells_ = 0;         // completions in its ring, not consumed
  uint32_t connections_left_ = 0;  // of this claim
  bool bounded_ = false;           // this claim stops early
  bool claimed_any_ = false;
  bool moved_ = false;                 // since the last knock
  uint64_t word_ = 0;                  // claimed, its token not looked up
  uint32_t serving_ = Checker::kNone;  // connection in the callback
  bool ticket_ = false;                // what was claimed is one
  uint32_t source_ = 0;                // of the ticket
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_INBOX_WORKER_H_
