// Dealer: gives what a source holds to the workers that its policy picks. An arrival for which the
// policy picks nobody is set aside, by the rule of that name in core/aside.h.
//
// Rule "passed on". A worker may pass on a connection that it has claimed. Then the source holds
// the connection again:
//  * It goes to the end of its queue, and its age counts from then.
//  * It still has its place at the gates. It has no promise, because nobody has asked for it.
//  * Room for it is made when it is taken in, beyond kRecordsMax if need be, because its descriptor
//    is there already.
//  * Its giver is the worker that has passed it on, if that one has joined the source when the
//    connection is taken in. The giver may have left and joined again before; that makes no
//    difference. When the giver leaves the source, the connection has no giver any more.
//  * The giver does not get it back, as long as another worker has joined the source. The policy is
//    not shown the giver, neither as a candidate nor as one that has joined.
//  * If only the giver has credit, the connection waits. It holds up nothing that the giver may
//    have. The intake does not wait for it, and `hold` does not count it.
//  * It is not recalled from another worker for the giver.
//
// Rule "a request waits". What was passed on may have a request that nobody has read
// (Arrival::request_waits). It was passed on because others wait, who could begin with it at once.
// So its policy is shown those candidates alone who say that they wait and have nothing unclaimed.
// If there are none, or it picks none of them, it is shown all.

#ifndef RINGMASTER_SRC_CORE_DEALER_H_
#define RINGMASTER_SRC_CORE_DEALER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/books.h"
#include "core/candidates.h"
#include "core/closer.h"
#include "core/delivery.h"
#include "core/policy_calls.h"
#include "core/reserve.h"

namespace ringmaster::core {

class Dealer {
 public:
  Dealer(Books& books, PolicyCalls& policies, Delivery& delivery, Closer& closer)
      : books_(books),
        policies_(policies),
        delivery_(delivery),
        closer_(closer),
        candidates_(books) {}

  // Set-up: for as many workers as there are.
  void Reserve() {
    candidates_.Reserve();
    core::Reserve(others_, books_.workers.size());
    core::Reserve(waiters_, books_.workers.size());
  }

  // Deals what the source holds. Returns whether a worker was given anything.
  bool Deal(Source& source);

  // Whether there is a source that could not be dealt before and can be now. Either it had no
  // candidate, or none but a giver, and has one now. Or its policy picked nobody, and might pick
  // somebody now.
  bool AnyCanBeDealt();

 private:
  bool HasNews(const Source& source);
  void AskAgain(Source& source);
  ArrivalId NextToDeal(const Source& source) const;
  size_t Pick(Source& source, const ArrivalRecord& record);
  bool FindWaiters(uint32_t giver);
  bool OthersHaveCredit(const Source& source) const;

  Books& books_;
  PolicyCalls& policies_;
  Delivery& delivery_;
  Closer& closer_;
  Candidates candidates_;
  std::vector<uint32_t> others_;    // within Pick: who has joined, without the giver
  std::vector<Candidate> waiters_;  // within Pick: of the candidates those who wait
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_DEALER_H_
