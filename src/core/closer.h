// Closer: closes connections that nobody will ever serve. These are the ones that have grown too
// old (core/ages.h), what a removed source holds when no worker is joined any more, and all of them
// after the deadline of a shutdown. Tickets that nobody has claimed are withdrawn instead, because
// they are no connections. No more than kRefusalsPerBatchMax are closed in a batch for each of
// these reasons.

#ifndef RINGMASTER_SRC_CORE_CLOSER_H_
#define RINGMASTER_SRC_CORE_CLOSER_H_

#include <cstdint>

#include "core/bells.h"
#include "core/books.h"
#include "core/reader.h"
#include "core/recaller.h"

namespace ringmaster::core {

inline constexpr uint32_t kRefusalsPerBatchMax = 64;

class Closer {
 public:
  Closer(Books& books, Bells& bells, Reader& reader, Recaller& recaller)
      : books_(books), bells_(bells), reader_(reader), recaller_(recaller) {}

  void BeginBatch() { expired_ = 0; }

  // Closes what has grown too old before anybody has claimed it. Its client has given up by then,
  // or would not be pleased.
  void Expire();
  // Whether the arrival is too old.
  bool IsOver(const ArrivalRecord& record) {
    const int64_t age_max_ns = books_.sources[record.source].config.age_max_ns;
    return books_.ages.IsOver(record.came_at_ns, age_max_ns, books_.now_ns);
  }
  // Closes the first arrival that the source holds, or has set aside, as too old. False: no more
  // are closed in this batch.
  bool CloseExpired(const Source& source, ArrivalId id);

  // Closes what a removed source holds, and after the deadline of a shutdown everything; withdraws
  // tickets that are held.
  void Refuse();

  // Withdraws all tickets of the source that nobody has claimed. What they stand for stays with the
  // source.
  void WithdrawTickets(const Source& source);

 private:
  void ExpireOffered(uint32_t worker);
  void ExpireHeld(const Source& source);
  void WithdrawHeld(const Source& source);

  Books& books_;
  Bells& bells_;
  Reader& reader_;
  Recaller& recaller_;
  uint32_t expired_ = 0;  // closed in this batch because they had grown too old
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_CLOSER_H_
