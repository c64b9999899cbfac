// Asker: what is asked of the kernel for one source, and when: single accepts, counts of a backlog,
// and whether a multishot accept may be armed. It issues tickets, too.
//
// Rules:
//  * Place first. Credit that was there when an accept was asked for may be gone when the
//    connection is there. So a single accept, and a count, is asked for only with room in the
//    ledger (core/room.h), a place at the gates, kept credit, and a promise where all workers are
//    limited (core/places.h). No connection is accepted that has none.
//  * Tickets. The arrivals of a source with readiness intake are tickets. Of a listener whose
//    backlog can be counted, no more tickets are unclaimed than connections were waiting at the
//    last count. Of anything else at most one is, into which newer edges merge. A ticket that is
//    unclaimed when its source is removed or intake stops is withdrawn.
//  * Yielding. A multishot accept cannot ask first, and takes places at the gates without credit,
//    for as many as come. Somebody before it (core/rota.h) who waits for credit might never find
//    both. So where the balancer is limited it is not armed without credit while that one waits.
//    Nor is it armed with credit, once the limit has ended it, while that one waits for a worker
//    who has been offered as much as it may have, and not for long. For a worker whose capacity is
//    used up it does not wait so: its leases may last for ever. So a source whose workers are
//    limited can wait long at the balancer's limit beside a flooded multishot accept that has other
//    workers, too.

#ifndef RINGMASTER_SRC_CORE_ASKER_H_
#define RINGMASTER_SRC_CORE_ASKER_H_

#include <cstdint>
#include <vector>

#include "core/books.h"
#include "core/dealer.h"
#include "core/reader.h"
#include "core/reserve.h"
#include "core/waits.h"

namespace ringmaster::core {

// Who waits for credit of those that were served longer ago; only at the balancer's limit.
enum class Ahead : uint8_t { kNobody, kStarves, kGetsCreditSoon };

class Asker {
 public:
  Asker(Books& books, Reader& reader, Dealer& dealer, const Waits& waits)
      : books_(books), reader_(reader), dealer_(dealer), waits_(waits) {}

  // Set-up: for as many workers as there are.
  void Reserve() { core::Reserve(credits_, books_.workers.size()); }

  // Asks for more of the source, as its intake does. Returns whether it has asked for a connection,
  // or had its turn otherwise.
  bool AskForMore(Source& source, Ahead ahead);

  // Whether it has no credit, and it may be assumed that a worker will make some: that one has been
  // offered as much as it may have, not long ago.
  bool GetsCreditSoon(const Source& source) const;

 private:
  bool AskForAccepts(Source& source);
  bool MayArmEach(Source& source, bool held_back, Ahead ahead);
  bool IssueTickets(Source& source);
  bool CountBacklog(Source& source);
  uint32_t Admit(Source& source, uint32_t wanted);

  Books& books_;
  Reader& reader_;
  Dealer& dealer_;
  const Waits& waits_;
  std::vector<uint32_t> credits_;  // of the source that asks, as it has joined
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ASKER_H_
