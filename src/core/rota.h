// Rota: in which order sources are dealt.
//
// Rule "longest ago first". Sources that compete for credit are dealt in the order in which they
// last advanced, the one that advanced longest ago first. A source advances when something that it
// holds is dealt, or when it asks the kernel for a connection or a count. Then it goes behind all
// those that have not advanced.
//
// An ask for an accept or a count keeps credit for what it may bring (core/asker.h). Nobody else is
// offered that credit, and what the ask finds has it, whatever the order is by then. The credit is
// free again when the ask has found nothing, or when what was found went to another worker or could
// not be dealt.
//
// So whenever a source wants credit, it finds all that is free and that no source before it has
// taken. Those before it then go behind it, together with what they keep. Hence, from one time that
// a source advances to the next, each other source advances at most once with credit that it could
// have had. Credit that becomes free in the middle of a round is for the next round, which begins
// with the first source again. All kept credit becomes free in the end. What keeps it is under way:
// it never waits for a worker, and its completion brings a batch.
//
// There is no order among masters.

#ifndef RINGMASTER_SRC_CORE_ROTA_H_
#define RINGMASTER_SRC_CORE_ROTA_H_

#include <cstdint>
#include <vector>

#include "core/asker.h"
#include "core/books.h"
#include "core/dealer.h"
#include "core/reserve.h"

namespace ringmaster::core {

class Rota {
 public:
  Rota(Books& books, Dealer& dealer, Asker& asker)
      : books_(books), dealer_(dealer), asker_(asker) {}

  // Set-up: for as many sources as there are.
  void Reserve() {
    core::Reserve(order_, books_.sources.size());
    core::Reserve(advanced_, books_.sources.size());
  }
  // Set-up: a source has an index that none had before.
  void Add(uint32_t source) { order_.push_back(source); }

  // One round: each source is dealt, and asks for more.
  void Deal();

 private:
  Books& books_;
  Dealer& dealer_;
  Asker& asker_;
  std::vector<uint32_t> order_;     // all sources, the one that advanced longest ago first
  std::vector<uint32_t> advanced_;  // within Deal
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ROTA_H_
