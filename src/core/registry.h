// Registry: sources and workers come and go, between two batches. Everything here may allocate, so
// that no batch has to.
//
// Rules:
//  * A removed source takes nothing more in, but what it has accepted is still dealt.
//  * An index is used again when nothing of its source is left, and no worker can still be looking
//    up an offer of it. A worker that has claimed an offer looks its token up before its callback
//    ends, and uses the books of the source while it redeems a ticket. So, after all offers have
//    been claimed, each worker that is seen outside of a claim and redeeming nothing is done with
//    the source: whatever it does later, it finds that its ticket is late.
//  * When a worker leaves, all that it has not claimed is recalled at once. It may have claimed a
//    ticket that it does not redeem any more, so its sources may have more.

#ifndef RINGMASTER_SRC_CORE_REGISTRY_H_
#define RINGMASTER_SRC_CORE_REGISTRY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/aimer.h"
#include "core/asker.h"
#include "core/bells.h"
#include "core/books.h"
#include "core/closer.h"
#include "core/dealer.h"
#include "core/delivery.h"
#include "core/mover.h"
#include "core/policy_calls.h"
#include "core/reader.h"
#include "core/recaller.h"
#include "core/rota.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

inline constexpr uint32_t kDealRoundsMax = 4;

class Registry {
 public:
  // The parts of the engine that set-up concerns.
  struct Parts {
    PolicyCalls& policies;
    Bells& bells;
    Delivery& delivery;
    Reader& reader;
    Recaller& recaller;
    Closer& closer;
    Mover& mover;
    Dealer& dealer;
    Asker& asker;
    Rota& rota;
    Aimer& aimer;
  };

  Registry(Books& books, const Parts& parts) : books_(books), parts_(parts) { ReserveShared(); }

  // --- Sources ---------------------------------------------------------------------------------

  uint32_t NextSource();
  void AddSource(SourceIndex index, SourceConfig config);
  void RemoveSource(uint32_t source);
  std::unique_ptr<Policy> SetPolicy(uint32_t source, std::unique_ptr<Policy> policy);

  void PassOn(std::span<const PassedOn> passed_on, int64_t now_ns);

  // --- Workers ---------------------------------------------------------------------------------

  uint32_t AddWorker(const WorkerConfig& config);
  void RemoveWorker(uint32_t worker);
  void SetCapacity(uint32_t worker, uint32_t capacity);
  void SetWindow(uint32_t worker, uint32_t window_max);
  void Join(SourceIndex source, WorkerIndex worker, uint64_t token);
  void Leave(SourceIndex source, WorkerIndex worker);

  // --- Room ------------------------------------------------------------------------------------

  void MakeRoom();
  // How many operations one batch asks for at most.
  size_t ops_max() const { return ops_max_; }

 private:
  bool IsFree(Source& source);
  void FoldPermits(SourceIndex index);
  void ReserveFor(Source& source);
  void ReserveShared();
  void MakeRoomFor(uint64_t arrivals, uint64_t records_max);
  void NoteWindow(Worker& worker, uint32_t before, uint32_t now);

  Books& books_;
  const Parts parts_;
  uint64_t serials_ = 0;  // of sources, given out
  size_t ops_max_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_REGISTRY_H_
