// Asker: what the engine asks the kernel for on behalf of one source, and when: single accepts, and
// counts of a backlog. It issues tickets, too, and says whether a multishot accept may be armed.
//
// Rules:
//  * Place first. An accept that was asked for brings a connection, whether or not a worker still
//    has credit by then. So a single accept, or a count, is asked for only when all that the
//    connection will need has been reserved for it: room in the ledger (core/room.h), a place at
//    the gates, credit, which is kept, and, where all workers are limited, a place at one of them,
//    which is promised (core/places.h). Otherwise the connection stays in the backlog.
//  * Tickets. The arrivals of a source with readiness intake are tickets. A ticket is pending from
//    when it is issued until a worker has claimed it. A listener whose backlog can be counted has
//    no more pending tickets than connections were waiting at the last count. Any other source has
//    at most one, and newer edges merge into it. When the source is removed or the intake stops,
//    pending tickets are withdrawn.
//  * Yielding. A multishot accept cannot ask first. While it is armed, it takes a place at the
//    gates for every connection that comes, whether or not anybody has credit. Another source,
//    which advanced longer ago (core/rota.h), may wait for credit at the same time. When that
//    gets credit, it needs a place at the balancer's gate as well, and beside a flooded multishot
//    accept it might never find both. So at a balancer with a limit a multishot accept yields to
//    such a source, in two ways:
//     - Without credit of its own it is not armed while the other one waits for credit.
//     - If the limit has ended it, it is not armed, not even with credit, while the other one gets
//       credit soon: a worker of that one has been offered as much as its window allows, and not
//       long ago.
//    The second does not hold for a source whose workers have used up their capacities, because
//    leases may last for ever. At the balancer's limit such a source can wait long beside a flooded
//    multishot accept that has other workers, too.

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

// Whether a source that advanced longer ago waits for credit, and whether it gets some soon. Only a
// balancer with a limit needs to know: by the rule "yielding".
enum class Ahead : uint8_t { kNobody, kStarves, kGetsCreditSoon };

class Asker {
 public:
  Asker(Books& books, Reader& reader, Dealer& dealer, const Waits& waits)
      : books_(books), reader_(reader), dealer_(dealer), waits_(waits) {}

  // Set-up: for as many workers as there are.
  void Reserve() { core::Reserve(credits_, books_.workers.size()); }

  // Asks for more of the source, in the way of its intake. Returns whether the source has advanced
  // by that (core/rota.h).
  bool AskForMore(Source& source, Ahead ahead);

  // Whether the source has no credit, but one of its workers will most likely make some: that one
  // has been offered as much as its window allows, and not long ago.
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
  // Within Admit: the credit that each worker of the source has, in the order of `joined`.
  std::vector<uint32_t> credits_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ASKER_H_
