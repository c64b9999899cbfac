// BackOff: the books of one source's intake when accepting fails: errors in a row, the pause after
// them, and whether descriptors are short. They are the same for all intakes, whoever accepts. What
// the master or the kernel accepts the master hears of at once; of what a worker accepts by a
// ticket it is told.
//
//  * A shortage (EMFILE, ENFILE, ENOMEM, ENOBUFS) makes the intake pause. So does a source that has
//    become blocking. The pause doubles while such failures follow each other, and begins anew
//    after a success.
//  * A connection that went wrong before it was accepted makes no pause, unless that happens to
//    many in a row.
//  * A descriptor that may have become free ends any pause early.
//  * At the limit of descriptors accepting succeeds and fails by turns, so a success alone does not
//    end a shortage. A shortage ends when nothing is left to accept. It also ends when no accept
//    has failed by it for kDescriptorsCalmNs and descriptors have been seen to be there: something
//    was accepted since, or a connection went wrong, or the kernel was told to accept and has found
//    nothing wrong. (An accept gets its descriptor before it looks at the connection, so one that
//    went wrong shows that descriptors were there.)
//
// Everything that these rules decide is decided here: which failure pauses, for how long, what ends
// the pause, and what of it is reported. Receiver says what has happened, and does what it is told.

#ifndef RINGMASTER_SRC_CORE_BACK_OFF_H_
#define RINGMASTER_SRC_CORE_BACK_OFF_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/deadline.h"

namespace ringmaster::core {

inline constexpr int64_t kBackOffNsMin = 5'000'000;
inline constexpr int64_t kBackOffNsMax = 200'000'000;
inline constexpr uint32_t kAcceptErrorsInRowMax = 16;
// A shortage may be over when none was met for so long.
inline constexpr int64_t kDescriptorsCalmNs = 1'000'000'000;

class BackOff {
 public:
  // --- What happens ----------------------------------------------------------------------------

  // Something was accepted.
  void Succeed() {
    works_ = true;
    pauses_ = false;
    pause_ns_ = 0;
    errors_in_row_ = 0;
  }

  // An accept has found nothing. Returns whether that ends a shortage.
  bool FindNothing() {
    errors_in_row_ = 0;
    return std::exchange(short_, false);
  }

  // Descriptors seem to be there: the kernel was told to accept whatever comes, or there is nothing
  // to accept, or an accept came as far as the connection. So they are taken to be there until a
  // shortage is met again.
  void Try(int64_t now_ns) {
    if (works_) return;
    works_ = true;
    calm_from_ns_ = now_ns;
  }

  // What has gone wrong.
  enum class Failure : uint8_t {
    kShortage,  // of an accept: descriptors or memory are short
    kNoMemory,  // something could not be armed, because memory is short
    kBlocks,    // the source has become blocking, and whoever accepts from it might wait
    // An accept came as far as the connection, and that went wrong. So it is with an accept that
    // fails as if there were no listener, if there is one.
    kConnection,
  };
  struct Verdict {
    bool pauses = false;  // a pause begins with this
    bool say = false;     // it is to be reported
  };
  Verdict Fail(Failure failure, int64_t now_ns) {
    switch (failure) {
      case Failure::kShortage:
        works_ = false;
        calm_from_ns_ = now_ns;
        return {.pauses = Pause(now_ns), .say = !std::exchange(short_, true)};
      case Failure::kNoMemory:
        return {.pauses = Pause(now_ns)};
      case Failure::kBlocks: {
        const bool say = now_ns >= say_blocks_from_ns_;
        say_blocks_from_ns_ = After(now_ns, kDescriptorsCalmNs);
        return {.pauses = Pause(now_ns), .say = say};
      }
      case Failure::kConnection:
        Try(now_ns);  // by then it had all that is short in a shortage
        break;
    }
    if (errors_in_row_ < kAcceptErrorsInRowMax) ++errors_in_row_;
    return {.pauses = errors_in_row_ == kAcceptErrorsInRowMax && Pause(now_ns)};
  }

  // --- The end of a pause ----------------------------------------------------------------------

  bool pauses() const { return pauses_; }
  // Ends the pause if it is over by now: the next attempt may be made. Returns whether it has.
  bool Resume(int64_t now_ns) { return now_ns >= retry_at_ns_ && std::exchange(pauses_, false); }
  // The same because a descriptor may have become free.
  bool ResumeEarly() { return std::exchange(pauses_, false); }

  // --- The end of a shortage -------------------------------------------------------------------

  // Whether a success would change these books. If so, a worker that accepts by a ticket is to say
  // so.
  bool waits_for_success() const { return errors_in_row_ > 0 || (short_ && !works_); }
  // Whether a shortage has ended by now.
  bool EndsShortage(int64_t now_ns) {
    if (now_ns < calm_at_ns()) return false;
    short_ = false;
    return true;
  }

  // When Resume or EndsShortage is to be asked; kWaitForever: neither.
  int64_t due_at_ns() const { return pauses_ ? retry_at_ns_ : calm_at_ns(); }

 private:
  // False when there is a pause already: what comes within it does not make it longer.
  bool Pause(int64_t now_ns) {
    if (pauses_) return false;
    pauses_ = true;
    pause_ns_ = std::clamp(pause_ns_ * 2, kBackOffNsMin, kBackOffNsMax);
    retry_at_ns_ = After(now_ns, pause_ns_);
    return true;
  }
  int64_t calm_at_ns() const {
    return short_ && works_ && !pauses_ ? After(calm_from_ns_, kDescriptorsCalmNs) : kWaitForever;
  }

  bool pauses_ = false;
  bool short_ = false;  // its beginning was reported
  bool works_ = false;  // since a shortage was last met, descriptors seem to be there
  uint32_t errors_in_row_ = 0;
  int64_t pause_ns_ = 0;
  int64_t retry_at_ns_ = 0;
  int64_t calm_from_ns_ = 0;  // since when no shortage was met
  int64_t say_blocks_from_ns_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_BACK_OFF_H_
