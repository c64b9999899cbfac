// The intake of one source: how its arrivals are obtained, what is armed for that, what polls have
// shown, and whether it is a listener still. Three parts of it have headers of their own: Arming,
// Edges, Listening. So have Pace and Tickets, the books of what is asked of the kernel one by one.
//
// | intake      | is armed           | brings                            | asks for            |
// |-------------|--------------------|-----------------------------------|---------------------|
// | kPollAccept | a multishot poll   | edges                             | single accepts      |
// | kAccept     | a multishot accept | connections, unasked              | nothing             |
// | kReadiness  | a multishot poll   | edges                             | a count, or nothing |
//
// | event \ intake        | kPollAccept, kReadiness              | kAccept                      |
// |-----------------------|--------------------------------------|------------------------------|
// | nobody has credit     | armed until the next edge: then ready| armed                        |
// |                       | and disarmed                         |                              |
// | it holds much, or no  | -                                    | ended                        |
// | place or room is left |                                      |                              |
// | other facts are wanted| the next accepts ask for them        | ended, and armed anew        |
// | a doubt               | armed                                | not armed anew before the    |
// |                       |                                      | answer                       |
// | a hang-up             | as any edge                          | ended; when it has, the      |
// |                       |                                      | socket is asked              |
// | paused, backs off,    | ended                                | ended                        |
// | fails, no worker left |                                      |                              |
//
// A source without credit stays armed until the first edge that finds none. Disarming it earlier
// would cost two operations whenever credit runs out for a moment.
//
// What one intake differs in from the others is its IntakeType, which stands in a file of its own:
// core/intake_poll_accept.cc, core/intake_accept.cc and core/intake_readiness.cc. Everybody else
// asks for what it says, and nobody asks which intake it is. So another intake is another such
// file, and its lines in the list below, in the public enumeration, and in the build.
//
// SourceIntake is a value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_INTAKE_H_
#define RINGMASTER_SRC_CORE_INTAKE_H_

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "core/arming.h"
#include "core/edges.h"
#include "core/listening.h"
#include "core/op.h"

namespace ringmaster::core {

class Asker;
struct Asking;
struct Source;

// One that arms a new operation needs an OpKind, too (core/op.h).
struct IntakeType {
  const char* name = nullptr;  // as programs call it

  // What is armed, and what ends it.
  OpKind arms = OpKind::kPoll;
  OpKind ends = OpKind::kPollEnd;

  // What comes. What it may be combined with follows from these: who needs the connection itself,
  // as an age limit does, cannot do with tickets; and a limit cannot do with what comes unasked.
  bool accepts_each = false;    // connections come unasked, as long as it is armed
  bool accepts_singly = false;  // the master asks for each: it can have a place before
  bool tickets = false;         // arrivals are tickets: workers accept or read by themselves

  // Asks the kernel for more, or issues tickets. Returns whether the source has advanced by that
  // (core/rota.h).
  bool (*ask)(Asker& asker, const Asking& asking) = nullptr;
};

// --- The list of all intakes, in the order of Intake in the public interface ---------------------

enum class IntakeKind : uint8_t { kPollAccept, kAccept, kReadiness };
extern const IntakeType kIntakePollAccept;
extern const IntakeType kIntakeAccept;
extern const IntakeType kIntakeReadiness;
inline constexpr const IntakeType* kIntakes[] = {&kIntakePollAccept, &kIntakeAccept,
                                                 &kIntakeReadiness};

inline const IntakeType& TypeOf(IntakeKind kind) { return *kIntakes[static_cast<size_t>(kind)]; }

class SourceIntake {
 public:
  struct Traits {
    IntakeKind kind = IntakeKind::kPollAccept;
    bool listens = true;     // connections come from it; false: readiness of anything else
    bool hides_end = false;  // its multishot accept does not complete when it is shut down
  };

  SourceIntake() = default;
  // `last`: the arming of the source that had the index before.
  SourceIntake(const Traits& traits, const Arming& last)
      : traits_(traits), arming_(last.generation()) {}

  const IntakeType& type() const { return TypeOf(traits_.kind); }
  bool accepts_each() const { return type().accepts_each; }
  bool accepts_singly() const { return type().accepts_singly; }
  bool tickets() const { return type().tickets; }
  bool listens() const { return traits_.listens; }

  Arming& arming() { return arming_; }
  const Arming& arming() const { return arming_; }
  Edges& edges() { return edges_; }
  const Edges& edges() const { return edges_; }
  Listening& listening() { return listening_; }
  const Listening& listening() const { return listening_; }

  // --- What completes --------------------------------------------------------------------------

  // An edge: a mask, POLLHUP and POLLERR included.
  void Polled(int32_t mask) {
    if (!traits_.listens) return edges_.ComeOfOther(mask);
    // With single accepts, the one that finds nothing more asks about the end. With tickets it is
    // asked about at once. A ticket is issued nevertheless: only a worker takes out what is left.
    if ((mask & ~kReadableMask) != 0) listening_.ShowEnd();
    if (listening_.hung_up() && tickets()) listening_.FindNothing();
    edges_.Come(mask);
  }
  // The last completion of an arming.
  void Complete(uint16_t generation, int32_t result) {
    if (arming_.Complete(generation) && accepts_each()) listening_.EachEnds(result == -ECANCELED);
  }
  Listening::Verdict Answer(int32_t result, bool removed) {
    return listening_.Answer(result, {.removed = removed,
                                      .listens = traits_.listens,
                                      .tickets = tickets(),
                                      .one_by_one = !accepts_each()});
  }
  // The ring is out of reach.
  void Forget() {
    arming_.Forget();
    listening_.Forget(accepts_each());
  }

  // --- What is armed ---------------------------------------------------------------------------

  // Why the source may not be armed, beside what its intake knows itself.
  struct Bars {
    bool closed = false;   // by a set-up call, or a pause after errors
    bool full = false;     // no more may come unasked
    bool starves = false;  // nobody can have what is ready
    uint8_t facts = 0;     // those that are wanted: an arming with others is ended
  };
  bool WantsArm(const Bars& bars) const {
    if (bars.closed || listening_.failed()) return false;
    if (!accepts_each()) return !(edges_.ready() && bars.starves);
    if (arming_.armed() && arming_.facts() != bars.facts) return false;
    if (listening_.hung_up() || (arming_.idle() && listening_.doubted())) return false;
    return !bars.full;
  }
  OpKey Arm(uint8_t facts, uint32_t index) {
    edges_.Arm();
    return arming_.Arm(type().arms, facts, index);
  }
  OpKey EndArming() { return arming_.End(type().ends); }
  // Of a source that hides its end.
  bool WatchIsDue() const {
    return traits_.hides_end && !listening_.hung_up() && arming_.WatchIsDue();
  }

 private:
  Traits traits_;
  Arming arming_;
  Edges edges_;
  Listening listening_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_INTAKE_H_
