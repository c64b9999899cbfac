// Listening: whether one source is a listener still, and when its socket is asked about that.
//
// Rules:
//  * Asked about its end. The errors of accept(2) do not prove that a listener has ended: those of
//    a connection that went wrong look the same. So an accept that fails as if there were no
//    listener, whoever says so, is only a doubt. Then the socket itself is asked (kState). While it
//    is asked about a doubt, nothing is accepted. The source is given up, and that is reported,
//    when the socket says that it takes no connections any more, or when the source's number is
//    another file's.
//  * A hang-up that a poll has shown is a doubt, too, but only when nothing is left to accept: a
//    Unix socket that was shut down keeps what had come before. A multishot accept of such a socket
//    never tells of its end. So a poll for the end stands beside it (core/arming.h).
//
// | event                       | then                                                           |
// |-----------------------------|----------------------------------------------------------------|
// | an accept fails so          | doubt; asked                                                   |
// | a poll shows a hang-up      | tickets: asked; otherwise when an accept finds nothing more    |
// | multishot accept ends for it| asked; ended by itself: armed again, and the hang-up shows anew|
// | answer: listens             | a doubt was a connection that went wrong                       |
// | answer: ends                | as above, if it was doubted; tickets go on until it is empty   |
// | answer: an error            | given up                                                       |
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_LISTENING_H_
#define RINGMASTER_SRC_CORE_LISTENING_H_

#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/op.h"

namespace ringmaster::core {

class Listening {
 public:
  // --- What makes it doubtful ------------------------------------------------------------------

  // An accept has failed as if there were no listener.
  void Doubt(int32_t error) {
    doubt_ = error;
    asks_ = true;
  }
  bool doubted() const { return doubt_ != 0; }

  // A poll has shown the end.
  void ShowEnd() { hung_up_ = true; }
  bool hung_up() const { return hung_up_; }
  // An accept has found nothing more; or the source has tickets, and the master will not find that
  // out.
  void FindNothing() { asks_ |= hung_up_; }
  // The watch of the end has completed. `armed`: the accept beside it is armed. If it is not, the
  // end is shown anew when both are armed again.
  void WatchShows(bool armed) { hung_up_ = armed; }
  // The multishot accept has ended. `as_told`: because it was told to, for the hang-up. Then
  // nothing was left to accept. If it had ended by itself, or because of a connection, something
  // may be left.
  void EachEnds(bool as_told) {
    if (!hung_up_) return;
    hung_up_ = as_told;
    asks_ |= as_told;
  }

  // --- Asking ----------------------------------------------------------------------------------

  bool asks() const { return asks_; }
  bool asking() const { return asking_; }
  // Whether to ask now; if so, it is asked.
  bool AskNow() {
    if (!asks_ || asking_) return false;
    asks_ = false;
    asking_ = true;
    return true;
  }

  // What the answer leads to. `went_wrong`: the doubt was about a connection that went wrong.
  // `error`: the source is given up because of that error; 0: it is not.
  struct Verdict {
    bool went_wrong = false;
    int32_t error = 0;
  };
  struct Traits {
    bool removed = false;    // nobody needs to hear
    bool listens = true;     // it was a listener ever
    bool tickets = false;    // workers take what is left
    bool one_by_one = true;  // an accept finds out that nothing more is left
  };
  Verdict Answer(int32_t result, const Traits& traits) {
    asking_ = false;
    const int32_t doubt = std::exchange(doubt_, 0);
    // What was doubted after the question is asked about next. Without a doubt of its own that
    // question would be about the end alone, while there may be something left to accept.
    if (asks_) doubt_ = doubt;
    const bool hung_up = std::exchange(hung_up_, false);
    if (traits.removed || (failed_ && doubt == 0)) return {};
    if (result == kListens || (result >= 0 && !traits.listens)) return {.went_wrong = doubt != 0};
    // Of what cannot be counted workers take what is left, as long as their tickets bring more.
    drains_ = result == kEnds && traits.tickets && !failed_;
    Verdict verdict = {.error = result < 0 ? -result : hung_up || doubt == 0 ? EINVAL : doubt};
    if (result == kEnds && doubt != 0 && !failed_) {
      verdict.went_wrong = true;
      // The accept that finds nothing more asks again; a multishot accept is told by its poll.
      hung_up_ = traits.one_by_one;
      if (!traits.tickets) verdict.error = 0;
    }
    return verdict;
  }

  // --- The end ---------------------------------------------------------------------------------

  // It is given up. Returns whether this is the first time, which is to be said.
  bool GiveUp() { return !std::exchange(failed_, true); }
  bool failed() const { return failed_; }
  // Given up, but its tickets go on until it is empty.
  bool drains() const { return drains_; }
  // Given up, and nothing is taken in from it any more.
  bool ended() const { return failed_ && !drains_; }

  // The ring is out of reach: no answer will come. What its polls have shown they show anew, of a
  // multishot accept (`each`).
  void Forget(bool each) {
    asks_ |= std::exchange(asking_, false);
    if (each && doubt_ == 0) hung_up_ = asks_ = false;
  }

 private:
  bool hung_up_ = false;  // a poll has shown it, and nobody was asked
  bool asks_ = false;     // a kState is due
  bool asking_ = false;   // one is under way
  bool failed_ = false;
  bool drains_ = false;
  int32_t doubt_ = 0;  // the errno of what is to be asked about
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_LISTENING_H_
