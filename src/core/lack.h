// Lack: what one source lacked when it was last dealt. The dealer and the asker say so here. What
// the source waits for (core/waits.h) and whether it is armed (core/intake.h) depend on it.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_LACK_H_
#define RINGMASTER_SRC_CORE_LACK_H_

#include <utility>

namespace ringmaster::core {

class Lack {
 public:
  void BeginRound() { credit_ = others_ = false; }
  // Credit: the source holds something or is ready, and there was no candidate.
  void LackCredit() { credit_ = true; }
  bool credit() const { return credit_; }
  // Others: the source holds something for which only the giver has credit, who has passed it on.
  void LackOthers() { others_ = true; }
  bool others() const { return others_; }

  // Place: no multishot accept is armed, because there is no place at the gates or no room; or
  // because it `yields` the place that there is, by the rule "yielding" of core/intake_accept.cc.
  // Returns whether it lacked a place before.
  bool Set(bool place, bool yields) {
    yields_ = yields;
    return std::exchange(place_, place || yields);
  }
  bool place() const { return place_; }
  bool yields() const { return yields_; }

 private:
  bool credit_ = false;
  bool others_ = false;
  bool place_ = false;
  bool yields_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_LACK_H_
