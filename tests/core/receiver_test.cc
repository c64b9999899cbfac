// What completions say of sources when something goes wrong. Method: as in engine_fixture.h.

#include "core/receiver.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>

#include "back_off_times.h"
#include "core/back_off.h"
#include "core/op.h"
#include "core/port_state.h"
#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

class ReceiverTest : public EngineTest {
 protected:
  // Accepting from the source fails now, as often as this was called: for how long it pauses.
  int64_t PauseNs() { return pauses_.Next(); }

 private:
  Pauses pauses_;
};

TEST_F(ReceiverTest, BacksOffWithoutDescriptorsAndTriesAgainAtAKnock) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Accepted(-EMFILE), Accepted(-EMFILE)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), PauseNs());
  EXPECT_TRUE(workers_[0]->Claim(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);  // a claim closes nothing
  workers_[0]->state().ForceReserve();
  EXPECT_TRUE(workers_[0]->Release(hunger_));
  Batch({Knock()});
  EXPECT_GT(Count(OpKind::kAccept), 0u);
  Batch({Accepted(10), Accepted(-EMFILE)});
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);  // still the same shortage
}

TEST_F(ReceiverTest, TriesAgainAfterEachBackOffWithoutAKnock) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  for (int i = 0; i < 10; ++i) {
    Batch({Accepted(-ENFILE)});
    EXPECT_EQ(Count(OpKind::kAccept), 0u);
    const int64_t wait_ns = engine_.WaitMax(now_ns_);
    EXPECT_EQ(wait_ns, PauseNs());
    now_ns_ += wait_ns;
    Batch();
    EXPECT_EQ(Count(OpKind::kAccept), 1u);
  }
}

TEST_F(ReceiverTest, BacksOffWithAMultishotAcceptToo) {
  AddSource();
  AddWorker();
  Batch();
  Batch({End(-EMFILE)});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  workers_[0]->state().ForceReserve();
  EXPECT_TRUE(workers_[0]->Release(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
}

// Whether a multishot accept meets a shortage it says at once; nothing else need come.
TEST_F(ReceiverTest, SaysThatAShortageOfAMultishotAcceptIsOverThoughNothingArrives) {
  AddSource();
  AddWorker();
  Batch();
  Batch({End(-EMFILE)});
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  now_ns_ += PauseNs();
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kDescriptorsCalmNs);
  now_ns_ += kDescriptorsCalmNs;
  Batch();
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(ReceiverTest, SaysNothingOfAShortageThatGoesOn) {
  AddSource();
  AddWorker();
  Batch();
  for (int i = 0; i < 20; ++i) {
    Batch({End(-EMFILE)});
    now_ns_ += PauseNs();
    Batch();
    EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  }
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 0u);
}

// An accept gets its descriptor before it looks at the connection.
TEST_F(ReceiverTest, AConnectionThatWentWrongShowsThatThereAreDescriptors) {
  for (const int32_t error : {ECONNABORTED, EOPNOTSUPP}) {
    const uint32_t source = AddSource({.multishot_accept = false});
    if (source == 0) AddWorker({.window = 1});
    if (source > 0) engine_.Join(SourceIndex(source), 0);
    Batch();
    Batch({Edge(source)});
    Batch({Accepted(-EMFILE, source)});
    now_ns_ += engine_.WaitMax(now_ns_);
    Batch();
    Batch({Accepted(-error, source)});
    if (Count(OpKind::kState) > 0) Batch({State(kListens, source)});
    engine_.ClearEvents();
    now_ns_ += kDescriptorsCalmNs;
    Batch();
    EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u) << error;
    Batch({Accepted(-EAGAIN, source)});
  }
}

TEST_F(ReceiverTest, GoesOnAfterAConnectionThatWentWrong) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  Batch({Accepted(-ECONNABORTED)});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  EXPECT_EQ(engine_.events().size(), 0u);
}

TEST_F(ReceiverTest, DoesNotSpinWhenNothingButErrorsComes) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  for (uint32_t i = 0; i < ErrorsUntilPause(); ++i) Batch({Accepted(-EPERM)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), PauseNs());
}

TEST_F(ReceiverTest, TriesAgainLaterWhenAPollCannotBeArmedForLackOfMemory) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({End(-ENOMEM)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 0u);
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  const int64_t pause_ns = PauseNs();
  EXPECT_EQ(engine_.WaitMax(now_ns_), pause_ns);
  now_ns_ += pause_ns;
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 1u);
}

TEST_F(ReceiverTest, GivesASourceUpThatCannotBeAcceptedFromAndSaysSoOnce) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 2});
  Batch();
  Batch({Edge()});
  Batch({Accepted(-EINVAL), Accepted(-EINVAL)});
  EXPECT_EQ(Only(OpKind::kState).fd, kListenFd);
  EXPECT_EQ(Count(OpKind::kAccept), 0u);  // not before it is known
  Batch({State(0)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 1u);
  EXPECT_EQ(engine_.events()[0].error, EINVAL);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(ops_.empty());
}

}  // namespace
}  // namespace ringmaster::core
