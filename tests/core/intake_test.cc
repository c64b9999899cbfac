// What a source's intake arms. Method: the test says what its polls show and what bars it.

#include "core/intake.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>

#include "core/op.h"

namespace ringmaster::core {
namespace {

constexpr int32_t kHup = 0x10;  // POLLHUP

SourceIntake Make(const SourceIntake::Traits& traits) { return {traits, Arming()}; }

TEST(IntakeTest, KindsDifferInWhatTheyArmAndAskFor) {
  SourceIntake polled = Make({.kind = IntakeKind::kPollAccept});
  SourceIntake each = Make({.kind = IntakeKind::kAccept});
  SourceIntake tickets = Make({.kind = IntakeKind::kReadiness});
  EXPECT_TRUE(polled.accepts_singly() && !polled.accepts_each() && !polled.tickets());
  EXPECT_TRUE(!each.accepts_singly() && each.accepts_each() && !each.tickets());
  EXPECT_TRUE(!tickets.accepts_singly() && !tickets.accepts_each() && tickets.tickets());
  EXPECT_EQ(polled.Arm(0, 1).kind, OpKind::kPoll);
  EXPECT_EQ(each.Arm(0, 1).kind, OpKind::kAcceptEach);
  EXPECT_EQ(tickets.Arm(0, 1).kind, OpKind::kPoll);
  EXPECT_EQ(polled.EndArming().kind, OpKind::kPollEnd);
  EXPECT_EQ(each.EndArming().kind, OpKind::kAcceptEnd);
}

// Disarming it earlier would cost two operations whenever credit runs out for a moment.
TEST(IntakeTest, APollThatStarvesIsArmedUntilTheNextEdge) {
  SourceIntake intake = Make({.kind = IntakeKind::kPollAccept});
  EXPECT_TRUE(intake.WantsArm({.starves = true}));
  intake.Polled(kReadableMask);
  EXPECT_FALSE(intake.WantsArm({.starves = true}));
  EXPECT_TRUE(intake.WantsArm({}));
  EXPECT_TRUE(intake.WantsArm({.full = true}));
}

TEST(IntakeTest, AMultishotAcceptIsArmedWithoutCreditButNotWithoutRoom) {
  const SourceIntake intake = Make({.kind = IntakeKind::kAccept});
  EXPECT_TRUE(intake.WantsArm({.starves = true}));
  EXPECT_FALSE(intake.WantsArm({.full = true}));
}

TEST(IntakeTest, NothingIsArmedThatIsClosedOrGivenUp) {
  SourceIntake intake = Make({.kind = IntakeKind::kPollAccept});
  EXPECT_FALSE(intake.WantsArm({.closed = true}));
  intake.listening().GiveUp();
  EXPECT_FALSE(intake.WantsArm({}));
}

TEST(IntakeTest, OtherFactsEndAMultishotAccept) {
  SourceIntake each = Make({.kind = IntakeKind::kAccept});
  EXPECT_TRUE(each.WantsArm({.facts = kFactPeer}));
  each.Arm(kFactPeer, 0);
  EXPECT_TRUE(each.WantsArm({.facts = kFactPeer}));
  EXPECT_FALSE(each.WantsArm({.facts = 0}));
  SourceIntake polled = Make({.kind = IntakeKind::kPollAccept});
  polled.Arm(kFactPeer, 0);
  EXPECT_TRUE(polled.WantsArm({.facts = 0}));
}

TEST(IntakeTest, ADoubtedMultishotAcceptIsNotArmedBeforeTheAnswer) {
  SourceIntake intake = Make({.kind = IntakeKind::kAccept});
  intake.listening().Doubt(EINVAL);
  EXPECT_FALSE(intake.WantsArm({}));
  EXPECT_TRUE(intake.listening().AskNow());
  EXPECT_TRUE(intake.Answer(kListens, false).went_wrong);
  EXPECT_TRUE(intake.WantsArm({}));
}

// An accept finds out whether something is left; where workers accept, nobody says so.
TEST(IntakeTest, AHangUpIsAskedAboutAtOnceOnlyForTickets) {
  SourceIntake polled = Make({.kind = IntakeKind::kPollAccept});
  polled.Polled(kReadableMask | kHup);
  EXPECT_FALSE(polled.listening().asks());
  SourceIntake tickets = Make({.kind = IntakeKind::kReadiness});
  tickets.Polled(kReadableMask | kHup);
  EXPECT_TRUE(tickets.listening().asks());
  EXPECT_TRUE(tickets.edges().ready());
}

TEST(IntakeTest, OfWhatIsNoListenerAHangUpIsForATicket) {
  SourceIntake intake = Make({.kind = IntakeKind::kReadiness, .listens = false});
  intake.Polled(kReadableMask | kHup);
  EXPECT_FALSE(intake.listening().hung_up());
  EXPECT_TRUE(intake.edges().has_untold_end());
}

TEST(IntakeTest, WatchesTheEndOfWhatHidesIt) {
  SourceIntake plain = Make({.kind = IntakeKind::kAccept});
  plain.Arm(0, 0);
  EXPECT_FALSE(plain.WatchIsDue());
  SourceIntake hides = Make({.kind = IntakeKind::kAccept, .hides_end = true});
  const OpKey key = hides.Arm(0, 0);
  EXPECT_TRUE(hides.WatchIsDue());
  hides.arming().Watch(0, 0);
  hides.arming().WatchCompletes();
  hides.listening().WatchShows(hides.arming().armed());
  EXPECT_FALSE(hides.WatchIsDue());
  EXPECT_FALSE(hides.WantsArm({}));
  hides.EndArming();
  hides.Complete(key.generation, -ECANCELED);
  EXPECT_TRUE(hides.listening().asks());
}

}  // namespace
}  // namespace ringmaster::core
