// A worker that claims offers out of its inboxes, one from each master. It takes the steps of
// core/claim.h, as Port::Claim does, and what Port::Claim does between them:
//
//   waiting → begin → take → look the token up → callback → take → … → end → knock
//   (Hunger::HearKnock) → begin again if some are left, or wait
//
// One that gives hints says before its wait that it waits, reads the flag of those who want to
// know, and says after it that it woke. It may have other things to do then, before it begins.
//
// One that watches a sight accepts by its permits before it begins a claim of offers, and visits
// desks, as Port::AfterWait, Port::Claim and Port::BeforeWait do:
//
//   waiting → has it a permit, and does its sight show anything? then accept → begin → …
//           → otherwise it says that it woke → visit the desks of its permits → begin → …
//   … → it says that it waits → visit the desks that want to hear of it → wait
//
// What is claimed may be a ticket. Then there is an accept between the look-up and the callback; if
// it finds nothing, there is no callback.

#ifndef RINGMASTER_SRC_SIM_INBOX_WORKER_H_
#define RINGMASTER_SRC_SIM_INBOX_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/claim.h"
#include "core/inbox.h"
#include "sim/memory_worker.h"
#include "sim/permit_user.h"
#include "sim/sim_worker.h"

namespace ringmaster::sim {

class InboxWorker final : public SimWorker {
 public:
  InboxWorker(World* world, uint32_t id, const SimWorkerConfig& config);

  void Introduce(uint32_t master, core::WorkerConfig& engine, CheckedBox& checked) override;
  void OnWake() override;
  void OnDriven() override;
  bool Oversleeps() const override;
  PermitUser* permits() override { return permits_.has_value() ? &*permits_ : nullptr; }
  void OnSight() override;
  bool MayStepInBatch() const override;
  bool ChangesMind() const override {
    return next_ == Next::kLookAgain || next_ == Next::kLookBeforeOffers;
  }

 private:
  enum class Next : uint8_t {
    kWoke,
    kLookAtSight,
    kSayBusy,
    kLookAgain,
    kVisitOwn,
    kLookBeforeOffers,
    kVisitBeforeOffers,
    kPermits,
    kPermitCallback,
    kBeginClaim,
    kEmpty,
    kLookForMore,
    kVisitAfter,
    kVisitHungry,
    kBegin,
    kBeginOne,
    kTake,
    kLookUp,
    kAccept,
    kCallback,
    kEnd,
    kKnock,
    kMore,
    kSayWaiting,
    kTellThatItWaits
  };

  void Advance() override;
  bool WasOffered() const override;
  void WakeUp() override { Go(GivesHints() ? Next::kWoke : Next::kBegin, WakeCost()); }
  int64_t WakeCost() const;
  // It has asked to leave between two claims, so it has nothing of its own.
  void GoOnAlone() override {}

  void Wake();
  void Begin();
  void BeginClaim();
  void AcceptByPermit();
  void StartClaim();
  void EndOfOffers();
  bool SightWakes();
  void BeginOne();
  void Take();
  void LookUp();
  void Accept();
  void EndCallback();
  void End();
  void More();
  void Go(Next next, int64_t after_ns);

  std::vector<std::unique_ptr<MemoryInbox>> boxes_;  // by master
  std::optional<core::Claimer> claimer_;
  std::optional<PermitUser> permits_;  // if it watches a sight
  bool claimed_by_permit_ = false;     // in this claim
  bool more_permits_ = false;          // there may be, after it
  bool had_doorbells_ = false;         // when it began to claim offers
  uint32_t begun_ = 0;                 // boxes of this claim
  uint32_t from_ = 0;                  // the master of what was claimed
  Next next_ = Next::kBegin;
  uint32_t doorbells_ = 0;             // completions in its ring, not consumed
  uint32_t connections_left_ = 0;      // of this claim
  bool bounded_ = false;               // this claim stops early
  uint64_t word_ = 0;                  // claimed, its token not looked up
  uint32_t serving_ = Checker::kNone;  // connection in the callback
  bool ticket_ = false;                // what was claimed is one
  uint32_t source_ = 0;                // of the ticket
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_INBOX_WORKER_H_
