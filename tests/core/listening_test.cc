// Whether a source is a listener still. Method: the test is what the socket answers.

#include "core/listening.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "core/op.h"

namespace ringmaster::core {
namespace {

constexpr Listening::Traits kSingly = {};
constexpr Listening::Traits kEach = {.one_by_one = false};
constexpr Listening::Traits kTickets = {.tickets = true};

class ListeningTest : public ::testing::Test {
 protected:
  Listening::Verdict Answered(int32_t result, const Listening::Traits& traits = kSingly) {
    EXPECT_TRUE(listening_.AskNow());
    return listening_.Answer(result, traits);
  }

  Listening listening_;
};

TEST_F(ListeningTest, IsAskedOnceAboutADoubt) {
  EXPECT_FALSE(listening_.AskNow());
  listening_.Doubt(EINVAL);
  EXPECT_TRUE(listening_.doubted());
  EXPECT_TRUE(listening_.AskNow());
  EXPECT_TRUE(listening_.asking());
  EXPECT_FALSE(listening_.AskNow());
}

TEST_F(ListeningTest, ADoubtThatIsNotConfirmedWasAConnectionThatWentWrong) {
  listening_.Doubt(EINVAL);
  const Listening::Verdict verdict = Answered(kListens);
  EXPECT_TRUE(verdict.went_wrong);
  EXPECT_EQ(verdict.error, 0);
  EXPECT_FALSE(listening_.doubted());
}

TEST_F(ListeningTest, IsGivenUpWithTheErrorOfTheAnswerOrOfTheDoubt) {
  listening_.Doubt(EOPNOTSUPP);
  EXPECT_EQ(Answered(-ENOTSOCK).error, ENOTSOCK);
  EXPECT_TRUE(listening_.GiveUp());
  EXPECT_FALSE(listening_.GiveUp());
  EXPECT_TRUE(listening_.ended());
}

// What had come before the end can still be accepted.
TEST_F(ListeningTest, AcceptsOneByOneUntilNothingIsLeft) {
  listening_.Doubt(EINVAL);
  EXPECT_EQ(Answered(kEnds).error, 0);
  EXPECT_TRUE(listening_.hung_up());
  EXPECT_FALSE(listening_.asks());
  listening_.FindNothing();
  EXPECT_EQ(Answered(kEnds).error, EINVAL);
}

TEST_F(ListeningTest, AHangUpIsAskedAboutWhenNothingIsLeft) {
  listening_.FindNothing();
  EXPECT_FALSE(listening_.asks());
  listening_.ShowEnd();
  EXPECT_FALSE(listening_.asks());
  listening_.FindNothing();
  EXPECT_TRUE(listening_.asks());
}

TEST_F(ListeningTest, AMultishotAcceptThatEndsForItHasNothingLeft) {
  listening_.WatchShows(true);
  listening_.EachEnds(true);
  EXPECT_EQ(Answered(kEnds, kEach).error, EINVAL);
}

TEST_F(ListeningTest, AMultishotAcceptThatEndsByItselfIsArmedAgain) {
  listening_.WatchShows(true);
  listening_.EachEnds(false);
  EXPECT_FALSE(listening_.hung_up());
  EXPECT_FALSE(listening_.asks());
}

TEST_F(ListeningTest, TicketsGoOnUntilItIsEmpty) {
  listening_.ShowEnd();
  listening_.FindNothing();
  EXPECT_EQ(Answered(kEnds, kTickets).error, EINVAL);
  EXPECT_TRUE(listening_.GiveUp());
  EXPECT_TRUE(listening_.drains());
  EXPECT_FALSE(listening_.ended());
  // Then a ticket fails, which is asked about once more.
  listening_.Doubt(EINVAL);
  EXPECT_EQ(Answered(kEnds, kTickets).error, EINVAL);
  EXPECT_TRUE(listening_.ended());
}

// Without its doubt the next question would be about the end alone.
TEST_F(ListeningTest, ADoubtThatComesAfterTheQuestionIsAskedAboutNext) {
  listening_.Doubt(EINVAL);
  EXPECT_TRUE(listening_.AskNow());
  listening_.Doubt(EBADF);
  listening_.Answer(kListens, kSingly);
  EXPECT_TRUE(listening_.doubted());
  EXPECT_EQ(Answered(-EBADF).error, EBADF);
}

TEST_F(ListeningTest, OfWhatIsRemovedNobodyHears) {
  listening_.Doubt(EINVAL);
  const Listening::Verdict verdict = Answered(-EBADF, {.removed = true});
  EXPECT_FALSE(verdict.went_wrong);
  EXPECT_EQ(verdict.error, 0);
}

TEST_F(ListeningTest, AsksAgainWhatARingOutOfReachWasAsked) {
  listening_.Doubt(EINVAL);
  EXPECT_TRUE(listening_.AskNow());
  listening_.Forget(true);
  EXPECT_FALSE(listening_.asking());
  EXPECT_TRUE(listening_.asks());
}

// The watch of a multishot accept shows the end anew, a poll's edge does not come again.
TEST_F(ListeningTest, AHangUpOutOfReachShowsAnewForAMultishotAcceptOnly) {
  Listening polled;
  polled.ShowEnd();
  polled.Forget(false);
  EXPECT_TRUE(polled.hung_up());
  listening_.WatchShows(true);
  listening_.Forget(true);
  EXPECT_FALSE(listening_.hung_up());
}

}  // namespace
}  // namespace ringmaster::core
