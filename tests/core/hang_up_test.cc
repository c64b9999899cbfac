// What ends: a listener that was shut down, or an accept that fails as if there were no listener.
// And whatever else a poll shows the end of. Somebody hears of each, and once.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "back_off_times.h"
#include "core/engine.h"
#include "core/op.h"
#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

constexpr int32_t kHungUp = 0x10;                        // POLLHUP
constexpr int32_t kError = 0x08;                         // POLLERR
constexpr int32_t kShut = kPoll | kHungUp | kEndedMask;  // of a Unix socket
constexpr TestSourceOptions kPolled = {.multishot_accept = false};
constexpr TestSourceOptions kEach = {.hides_end = true};
constexpr TestSourceOptions kTickets = {.readiness = true};  // of a Unix listener
constexpr TestSourceOptions kOther = {.readiness = true, .listens = false};

class HangUpTest : public EngineTest {
 protected:
  // One source, armed, and one worker.
  void Begin(const TestSourceOptions& options, const TestWorkerOptions& worker = {}) {
    AddSource(options);
    AddWorker(worker);
    Batch();
    engine_.ClearEvents();
  }
  Completion Shows(int32_t mask) const { return {.key = armed_[0], .result = mask, .more = true}; }
  static Completion Counted(int32_t count) {
    return {.key = {.kind = OpKind::kCount}, .result = count};
  }
  Completion WatchCompletes(int32_t result) const { return {.key = watch_, .result = result}; }
  // Remembers the poll for the end.
  void Watched() { watch_ = Only(OpKind::kHangUp).key; }
  size_t GivenUp() const { return CountEvents(EventKind::kSourceFailed); }
  uint64_t Issued() const { return engine_.ledger().source(0).arrivals; }

  OpKey watch_;
};

// --- A doubt is asked about ----------------------------------------------------------------------

TEST_F(HangUpTest, AnErrorThatItsSocketDeniesIsOneOfTheConnection) {
  for (const int32_t error : {EINVAL, EBADF, ENOTSOCK, EOPNOTSUPP}) {
    SCOPED_TRACE(error);
    const uint32_t source = AddSource(kPolled);
    if (source == 0) AddWorker();
    if (source > 0) engine_.Join(SourceIndex(source), 0);
    Batch();
    Batch({Edge(source)});
    Batch({Accepted(-error, source), Accepted(-EAGAIN, source)});
    EXPECT_EQ(Only(OpKind::kState).key.index, source);
    EXPECT_EQ(Count(OpKind::kAccept), 0u);  // not before it is known
    Batch({State(kListens, source)});
    EXPECT_EQ(Count(OpKind::kAccept), 2u);
    EXPECT_EQ(engine_.intake(source).errors, 1u);
    Batch({Accepted(-EAGAIN, source), Accepted(-EAGAIN, source)});
    EXPECT_EQ(Count(OpKind::kState), 0u);
  }
  EXPECT_EQ(GivenUp(), 0u);
}

// As the manual of accept(2) lists what may be pending on a new socket.
TEST_F(HangUpTest, ErrorsOfConnectionsAreRetriedWithoutAQuestion) {
  Begin(kPolled);
  Batch({Edge()});
  for (const int32_t error : {ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH,
                              ENETUNREACH, ECONNABORTED}) {
    Batch({Accepted(-error), Accepted(-EAGAIN)});
    EXPECT_EQ(Count(OpKind::kState), 0u) << error;
  }
  EXPECT_EQ(GivenUp(), 0u);
}

TEST_F(HangUpTest, DoesNotSpinWhenAllThatComesIsDenied) {
  Begin(kPolled, {.window = 1});
  Batch({Edge()});
  uint32_t rounds = 0;
  for (; rounds < 100 && engine_.WaitMax(now_ns_) == kWaitForever; ++rounds) {
    Batch({Accepted(-EOPNOTSUPP)});
    Batch({State(kListens)});
  }
  EXPECT_EQ(rounds, ErrorsUntilPause());
  EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
  EXPECT_EQ(GivenUp(), 0u);
}

TEST_F(HangUpTest, AMultishotAcceptIsArmedAgainWhenItIsKnown) {
  Begin({});
  Batch({End(-EOPNOTSUPP)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  Batch({State(kListens)});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  Batch({End(-EINVAL)});
  Batch({State(0)});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(engine_.events().back().error, EINVAL);
  engine_.CheckAll(true);
}

// A worker's word is no proof either, nor that its number is another file's, which only the ring
// knows.
TEST_F(HangUpTest, WhatAWorkerSaysIsAskedAbout) {
  Begin({.readiness = true, .countable = true});
  for (const int32_t error : {EINVAL, EBADF, ENOTSOCK, EOPNOTSUPP, kOtherFile}) {
    engine_.GiveBack(0, error);
    Batch({Knock()});
    EXPECT_EQ(Count(OpKind::kState), 1u) << error;
    EXPECT_EQ(Count(OpKind::kCount), 0u);
    Batch({State(kListens)});
    EXPECT_EQ(Count(OpKind::kCount), 1u);
    Batch({Counted(0)});
  }
  EXPECT_EQ(GivenUp(), 0u);
  engine_.GiveBack(0, EOPNOTSUPP);
  Batch({Knock()});
  Batch({State(-kOtherFile)});
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(engine_.events().back().error, kOtherFile);
  engine_.GiveBack(0, EINVAL);  // what comes late is nobody's concern
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kState), 0u);
  EXPECT_EQ(GivenUp(), 1u);
}

// What never listened cannot have ceased to.
TEST_F(HangUpTest, OfWhatIsNoListenerOnlyTheNumberIsAskedAbout) {
  Begin(kOther);
  engine_.GiveBack(0, EINVAL);
  Batch({Knock()});
  Batch({State(0)});
  EXPECT_EQ(GivenUp(), 0u);
  EXPECT_EQ(Issued(), 1u);
  engine_.GiveBack(0, EBADF);
  Batch({Knock()});
  Batch({State(-EBADF)});
  EXPECT_EQ(GivenUp(), 1u);
}

TEST_F(HangUpTest, AQuestionWaitsWhilePausedAndIsNotAskedOfWhatHasGone) {
  Begin({});
  engine_.Pause(0);
  Batch({End(-EINVAL)});
  EXPECT_EQ(Count(OpKind::kState), 0u);
  engine_.CheckAll(true);
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kState), 1u);
  EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  engine_.RemoveSource(0);
  EXPECT_FALSE(engine_.IntakeEnded(0));
  Batch({State(0)});
  EXPECT_TRUE(engine_.IntakeEnded(0));
  EXPECT_EQ(GivenUp(), 0u);
}

TEST_F(HangUpTest, AQuestionToARingThatIsGoneIsAskedOfTheNext) {
  Begin(kPolled);
  Batch({Edge()});
  Batch({Accepted(-EINVAL), Accepted(-EINVAL)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  engine_.Rest();
  Batch();
  EXPECT_FALSE(engine_.AtRest());
  engine_.ForgetRing();
  EXPECT_TRUE(engine_.AtRest());
  engine_.GoOn();
  Batch();
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({State(0)});
  EXPECT_EQ(GivenUp(), 1u);
}

// --- A listener is shut down ---------------------------------------------------------------------

// The accept of a Unix socket finds nothing, now and for ever.
TEST_F(HangUpTest, APolledSourceTakesWhatIsLeftAndIsGivenUp) {
  Begin(kPolled);
  Batch({Shows(kShut)});
  Batch({Accepted(10), Accepted(11)});
  EXPECT_EQ(Count(OpKind::kState), 0u);
  Batch({Accepted(12), Accepted(-EAGAIN), Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(engine_.events().back().error, EINVAL);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11, 12}));
  engine_.CheckAll(true);
}

TEST_F(HangUpTest, AHangUpThatHasPassedIsNoEnd) {
  Begin(kPolled);
  Batch({Shows(kShut)});
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  Batch({State(kListens)});
  Batch({Edge()});
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_EQ(Count(OpKind::kState), 0u);
  EXPECT_EQ(GivenUp(), 0u);
}

// An error of what was left when it was shut down is still one of that connection.
TEST_F(HangUpTest, ADoubtAboutWhatEndsDoesNotLoseWhatIsLeft) {
  Begin(kPolled);
  Batch({Edge()});
  Batch({Accepted(-EOPNOTSUPP), Accepted(-EAGAIN)});
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 0u);
  Batch({Accepted(10), Accepted(-EAGAIN)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 1u);
}

// Two accepts go wrong, one of them after the question. The next question is not about the end
// alone.
TEST_F(HangUpTest, ADoubtAfterTheQuestionDoesNotLoseWhatIsLeft) {
  Begin(kPolled);
  Batch({Edge()});
  Batch({Accepted(-EOPNOTSUPP)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({Accepted(-EINVAL)});
  Batch({State(kListens), Shows(kShut)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 0u);
  Batch({Accepted(10), Accepted(-EAGAIN)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(HangUpTest, AMultishotAcceptThatTellsNothingIsWatched) {
  Begin(kEach);
  Watched();
  Batch({Arrival(10), WatchCompletes(kHungUp | kEndedMask)});
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  EXPECT_EQ(Count(OpKind::kState), 0u);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  EXPECT_EQ(Count(OpKind::kAcceptEach) + Count(OpKind::kHangUp), 0u);
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  Batch();
  EXPECT_TRUE(ops_.empty());
  engine_.CheckAll(true);
}

// It may have left something: because the queue was full, or a connection went wrong.
TEST_F(HangUpTest, AMultishotAcceptThatEndedByItselfIsArmedOnceMore) {
  for (const int32_t last : {20, -ECONNABORTED}) {
    SCOPED_TRACE(last);
    const uint32_t source = AddSource(kEach);
    if (source == 0) AddWorker({.window = 8});
    if (source > 0) engine_.Join(SourceIndex(source), 0);
    Batch();
    const OpKey watch = Only(OpKind::kHangUp).key;
    Batch({{.key = watch, .result = kHungUp}});
    Batch({End(last, source)});
    EXPECT_EQ(Count(OpKind::kState), 0u);
    EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
    EXPECT_EQ(Count(OpKind::kHangUp), 1u);
  }
  EXPECT_EQ(GivenUp(), 0u);
}

TEST_F(HangUpTest, ItIsWatchedAsLongAsItIsArmed) {
  Begin(kEach);
  Watched();
  engine_.Pause(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  EXPECT_EQ(Count(OpKind::kHangUpEnd), 1u);
  // What shows now shows anew when it is armed again: something may be left then.
  Batch({WatchCompletes(kHungUp), End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kState), 0u);
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  EXPECT_EQ(Count(OpKind::kHangUp), 1u);
  engine_.RemoveSource(0);
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_FALSE(engine_.IntakeEnded(0));  // the poll has a reference to the socket
}

TEST_F(HangUpTest, ItIsLetGoOfWhenTheWatchHasEnded) {
  Begin(kEach);
  Watched();
  engine_.RemoveSource(0);
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_FALSE(engine_.IntakeEnded(0));
  Batch({WatchCompletes(-ECANCELED)});
  EXPECT_TRUE(engine_.IntakeEnded(0));
}

TEST_F(HangUpTest, AWatchThatCannotBeArmedIsTriedAgainLater) {
  Begin(kEach);
  Watched();
  Batch({WatchCompletes(-ENOMEM)});
  EXPECT_EQ(Count(OpKind::kHangUp), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
  Batch({End(-ECANCELED)});
  now_ns_ += FirstPauseNs();
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  EXPECT_EQ(Count(OpKind::kHangUp), 1u);
}

// The workers take out what is left: each ticket may bring another, until nothing is found.
TEST_F(HangUpTest, WhatWorkersAcceptFromIsGivenUpAtOnceAndDrained) {
  Begin(kTickets);
  Batch({Shows(kShut)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{kShut});
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  engine_.GiveBack(0, 0);
  Batch({End(-ECANCELED), Knock()});
  EXPECT_EQ(Issued(), 2u);
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  EXPECT_EQ(Claim(0).size(), 1u);
  engine_.GiveBack(0, EMFILE);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
  now_ns_ += FirstPauseNs();
  Batch();
  EXPECT_EQ(Issued(), 3u);
  Claim(0);
  engine_.GiveBack(0, EAGAIN);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 3u);
  EXPECT_EQ(GivenUp(), 1u);
  engine_.CheckAll(true);
}

// A socket that says once more that it has ended has nothing left.
TEST_F(HangUpTest, TheDrainEndsWithAnErrorThatIsConfirmed) {
  Begin(kTickets);
  Batch({Shows(kShut)});
  Batch({State(kEnds)});
  Claim(0);
  engine_.GiveBack(0, EINVAL);
  Batch({Knock()});
  Batch({State(kEnds)});
  EXPECT_EQ(GivenUp(), 1u);
  engine_.GiveBack(0, 0);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 1u);
}

TEST_F(HangUpTest, OfWhatCanBeCountedNothingIsLeft) {
  Begin({.readiness = true, .countable = true});
  Batch({Shows(kHungUp)});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({Counted(0), State(0)});
  EXPECT_EQ(GivenUp(), 1u);
  EXPECT_EQ(Issued(), 0u);
  Batch({End(-ECANCELED)});
  engine_.CheckAll(true);
}

// --- Anything else ends --------------------------------------------------------------------------

TEST_F(HangUpTest, ATicketSaysItAlsoWhenAnotherIsUnclaimed) {
  Begin(kOther);
  Batch({Edge()});
  Batch({Shows(kPoll | kHungUp)});
  Batch({Shows(kPoll | kHungUp)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{kPoll, kPoll | kHungUp}));
  EXPECT_EQ(Count(OpKind::kState), 0u);
  EXPECT_EQ(GivenUp(), 0u);
}

// With one worker that has room for one: it is disarmed while that has the ticket, and shows its
// end whenever it is armed again.
TEST_F(HangUpTest, TicketsOfAnEndDoNotGoRound) {
  for (const int32_t mask : {kHungUp, kHungUp | kError, kShut}) {
    SCOPED_TRACE(mask);
    const uint32_t source = AddSource(kOther);
    const uint32_t worker = AddWorker({.window = 1, .capacity = 1});
    Batch();
    const auto shows = [&] {
      return Completion{.key = armed_[source], .result = mask, .more = true};
    };
    Batch({shows()});
    EXPECT_EQ(Claim(worker), std::vector<int32_t>{mask | kPoll});
    Batch({shows()});
    EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
    Batch({End(-ECANCELED, source)});
    size_t tickets = 0;
    for (int i = 0; i < 20; ++i) {
      workers_[worker]->state().Release();
      Batch({Knock()});
      const bool armed = Count(OpKind::kPoll) > 0;
      const size_t claimed = Claim(worker).size();
      if (armed) Batch({shows()});
      if (Count(OpKind::kPollEnd) > 0) Batch({End(-ECANCELED, source)});
      tickets += claimed;
      if (claimed == 0) break;
    }
    EXPECT_EQ(tickets, 1u);  // of the edge that found no credit
    engine_.RemoveWorker(worker);
    engine_.RemoveSource(source);
    Batch();
    Batch({End(-ECANCELED, source)});
  }
}

// A pipe whose last writer has gone gets another one, and loses that as well.
TEST_F(HangUpTest, AnEndThatPassesIsNewsTheNextTime) {
  Begin(kOther);
  Batch({Shows(kHungUp)});
  EXPECT_EQ(Claim(0).size(), 1u);
  Batch({Edge()});
  EXPECT_EQ(Claim(0).size(), 1u);
  Batch({Shows(kHungUp)});
  EXPECT_EQ(Claim(0).size(), 1u);
}

TEST_F(HangUpTest, WhoeverGetsTheNextTicketOfAWorkerThatLeavesHearsOfTheEnd) {
  Begin(kOther);
  AddWorker();
  Batch({Shows(kHungUp)});
  EXPECT_EQ(Claim(0).size(), 1u);
  engine_.RemoveWorker(0);
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{kPoll | kHungUp});
}

}  // namespace
}  // namespace ringmaster::core
