// The successor's side of a hand-over.

#ifndef RINGMASTER_SRC_LISTENERS_TAKE_OVER_H_
#define RINGMASTER_SRC_LISTENERS_TAKE_OVER_H_

#include <sys/types.h>

#include <chrono>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "listeners/meeting_place.h"
#include "listeners/words.h"
#include "ring/process.h"

namespace ringmaster::internal {

using Clock = std::chrono::steady_clock;

// Longer than anybody waits; a duration beyond it would leave the clock's range.
inline constexpr absl::Duration kLongest = absl::Hours(24 * 365);

// What a successor has beside the listeners.
class Succession {
 public:
  ring::OwnDescriptor stream;  // to the predecessor
  MeetingPlace place;
  pid_t predecessor = 0;

  // Says that this process serves, and waits for the answer, for `answer_max` at most. On success
  // the predecessor asks nobody any more, or it has ended, or it does not move at present and will
  // read it then. Otherwise it goes on as if nothing had been.
  absl::Status SayServing(std::chrono::milliseconds answer_max);
};

// Hears the next word, and waits for it until then. Returns as HearWord does; EAGAIN when the time
// is up.
int AwaitWord(int fd, bool takes_fds, Clock::time_point until, Heard& heard);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_LISTENERS_TAKE_OVER_H_
