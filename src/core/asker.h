// Asker: what the engine asks the kernel for on behalf of one source, and when. In which way it is
// done is for the source's intake (IntakeType of core/intake.h); what all of them need stands here.
//
// Rule "place first". An accept that was asked for brings a connection, whether or not a worker
// still has credit by then. So a single accept, or a count, is asked for only when all that the
// connection will need has been reserved for it: room in the ledger (core/room.h), a place at the
// gates, credit, which is kept, and, where all workers are limited, a place at one of them, which
// is promised (core/places.h). Otherwise the connection stays in the backlog.

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
// balancer with a limit needs to know: by the rule "yielding" of core/intake_accept.cc.
enum class Ahead : uint8_t { kNobody, kStarves, kGetsCreditSoon };

// For whom more is asked.
struct Asking {
  Source& source;
  bool held_back = false;  // nothing may come now that was not asked for before
  Ahead ahead = Ahead::kNobody;
};

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

  // --- For the intakes -------------------------------------------------------------------------

  // Of one that polls: whether it may ask for something, or issue something, now.
  static bool MayAsk(const Asking& asking);
  // Rule "place first": for how many of `wanted` something may be asked for. If for none, the
  // source lacks credit.
  uint32_t Admit(Source& source, uint32_t wanted);

  Books& books() { return books_; }
  Reader& reader() { return reader_; }
  Dealer& dealer() { return dealer_; }
  const Waits& waits() const { return waits_; }

 private:
  Books& books_;
  Reader& reader_;
  Dealer& dealer_;
  const Waits& waits_;
  // Within Admit: the credit that each worker of the source has, in the order of `joined`.
  std::vector<uint32_t> credits_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ASKER_H_
