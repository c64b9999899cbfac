// The record of an arrival: what the ledger knows of each that is held, offered, or sent.

#ifndef RINGMASTER_SRC_CORE_ARRIVAL_H_
#define RINGMASTER_SRC_CORE_ARRIVAL_H_

#include <cstdint>

#include "core/index.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

using ArrivalId = uint32_t;
inline constexpr ArrivalId kNoArrival = UINT32_MAX;
inline constexpr int64_t kNotAside = -1;
inline constexpr uint32_t kNoGiver = UINT32_MAX;

// Where an arrival is.
enum class Where : uint8_t { kFree, kHeld, kOffered, kSent };

struct ArrivalRecord {
  Where where = Where::kFree;
  uint8_t doublings = 0;  // how often its recall limit has been doubled
  bool aside = false;     // kHeld: it is set aside
  bool passed_on = false;
  bool moved = false;  // from a busy worker to one that waits, see core/mover.h
  SourceIndex source;
  uint32_t worker = 0;             // kOffered, kSent: to whom
  uint32_t worker_generation = 0;  // kSent: which of those that have had the index
  int32_t fd = -1;                 // of a ticket: the poll mask
  int32_t slot = -1;               // kSent: that it is installed from, see core/slots.h
  uint32_t rooms = 0;              // kSent: what PortState::rooms said before it was
  Arrival facts;
  uint32_t giver = kNoGiver;  // who has passed it on, as long as that has joined its source
  uint64_t number = 0;        // in its source, in the order in which they came
  int64_t came_at_ns = 0;
  int64_t offered_at_ns = 0;        // kOffered
  int64_t aside_at_ns = kNotAside;  // when it was first set aside, since it was last offered
  ArrivalId next = kNoArrival;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ARRIVAL_H_
