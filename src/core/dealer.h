// Dealer: gives what a source holds to the workers that its policy picks. What the policy picks
// nobody for is set aside, by the rule of that name in core/aside.h.
//
// Rule "passed on". A worker passes a connection on that it has claimed: another way in which one
// comes to be held. It goes to the end of the queue, its age counts from then, and it has its place
// at the gates still. No promise is for it, because nobody has asked for it. Room is made when it
// is taken in, beyond kRecordsMax if need be: its descriptor is there already.
//
// Its giver is who has passed it on, if it has joined its source when this is taken in, until it
// leaves. Whether it had left and joined anew before makes no difference: nobody looks.
//
// As long as it has a giver, and somebody else has joined, too, the giver does not get it. Its
// policy is shown neither the giver's candidacy nor that it has joined. If nobody else has credit
// it waits, and holds up nothing that the giver may have; nor does the intake wait for it, or
// `hold` count it. It is not recalled for the giver.

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
  }

  // Deals what the source holds. Returns whether a worker was given anything.
  bool Deal(Source& source);

  // Whether a source that found no candidate, or none but a giver, has one now, or one whose policy
  // has picked nobody might pick somebody by now.
  bool AnyCanBeDealt();

 private:
  bool HasNews(const Source& source);
  void AskAgain(Source& source);
  ArrivalId NextToDeal(const Source& source) const;
  size_t Pick(Source& source, const ArrivalRecord& record);
  bool OthersHaveCredit(const Source& source) const;

  Books& books_;
  PolicyCalls& policies_;
  Delivery& delivery_;
  Closer& closer_;
  Candidates candidates_;
  std::vector<uint32_t> others_;  // who has joined, but for a giver
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_DEALER_H_
