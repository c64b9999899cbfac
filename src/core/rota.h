// Rota: in which order sources are dealt.
//
// Rule "turns". Sources take turns at credit that is contended. They are dealt in the order in
// which they were last served, who was longest ago first, and what is held takes part in the same
// order as what is asked for. Whoever is served goes behind those who were not. An ask for an
// accept, or for a count, keeps credit for what it may bring (core/asker.h). Nobody else is offered
// it. What the ask finds has it whatever the order. It is free again when the ask has found
// nothing, or when what was found went to somebody else or could not be dealt.
//
// So a source that wants credit meets, each time it is asked, all that is free and not taken by
// those before it. They go behind it with that, and what they keep is part of their turn. Hence
// between two turns of a source each other one has at most one turn at credit that it could have
// had. Credit that becomes free in the middle of dealing is for the next round, which begins with
// the first again. All that is kept is free in the end, because what keeps it is under way: it
// never waits for a worker, and its completion brings a batch.
//
// Masters do not take turns with each other.

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

  // Set-up: for as many sources as there are; and a source has an index that none had before.
  void Reserve() {
    core::Reserve(turns_, books_.sources.size());
    core::Reserve(served_, books_.sources.size());
  }
  void Add(uint32_t source) { turns_.push_back(source); }

  // One round: each source is dealt, and asks for more.
  void Deal();

 private:
  Books& books_;
  Dealer& dealer_;
  Asker& asker_;
  std::vector<uint32_t> turns_;   // all sources, who was served longest ago first
  std::vector<uint32_t> served_;  // within Deal
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ROTA_H_
