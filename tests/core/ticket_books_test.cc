// The books of one source's tickets. Method: the test is the kernel that counts, and the workers
// that take tickets and give them back.

#include "core/tickets.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "core/op.h"
#include "core/port_state.h"

namespace ringmaster::core {
namespace {

TEST(TicketBooksTest, ACountIsUsedOnce) {
  Tickets tickets;
  tickets.AskCount();
  EXPECT_TRUE(tickets.counting());
  EXPECT_FALSE(tickets.counted());
  tickets.Count(3);
  EXPECT_FALSE(tickets.counting());
  EXPECT_TRUE(tickets.counted());
  EXPECT_EQ(tickets.backlog(), 3u);
  EXPECT_TRUE(tickets.UseCount());
  EXPECT_FALSE(tickets.counted());
  EXPECT_FALSE(tickets.UseCount());
}

TEST(TicketBooksTest, AQuestionMayBeForgotten) {
  Tickets tickets;
  EXPECT_FALSE(tickets.ForgetCount());
  tickets.AskCount();
  EXPECT_TRUE(tickets.ForgetCount());
  EXPECT_FALSE(tickets.counting());
}

TEST(TicketBooksTest, TheLastThatIsTakenIsASuccess) {
  Tickets tickets;
  tickets.Send();
  tickets.Send();
  EXPECT_EQ(tickets.untaken(), 2u);
  EXPECT_FALSE(tickets.Forget());
  EXPECT_TRUE(tickets.Forget());
  EXPECT_EQ(tickets.untaken(), 0u);
}

TEST(TicketBooksTest, UnlessOneOfThemHasFailed) {
  Tickets tickets;
  tickets.Send();
  tickets.Send();
  tickets.Fail();
  EXPECT_FALSE(tickets.Forget());
  EXPECT_FALSE(tickets.Forget());
  tickets.Send();  // the failure says nothing of this one
  EXPECT_TRUE(tickets.Forget());
}

TEST(TicketBooksTest, AFailureIsForgottenWhenTheSourceTriesAgainAndNothingIsUntaken) {
  Tickets tickets;
  tickets.Fail();
  tickets.TryAgain();
  tickets.Send();
  EXPECT_TRUE(tickets.Forget());
  tickets.Send();
  tickets.Fail();
  tickets.TryAgain();
  EXPECT_FALSE(tickets.Forget());
}

TEST(TicketBooksTest, RemembersEachKindOfNewsOnce) {
  Tickets tickets;
  tickets.GiveBack(0);
  tickets.GiveBack(EAGAIN);
  tickets.GiveBack(EMFILE);
  tickets.GiveBack(ENFILE);
  tickets.Redeem();
  const GivenBack::News news = tickets.TakeNews();
  EXPECT_TRUE(news.more && news.nothing && news.redeemed);
  EXPECT_EQ(news.error, EMFILE);  // the first of those that are equally grave
  const GivenBack::News none = tickets.TakeNews();
  EXPECT_FALSE(none.more || none.nothing || none.redeemed);
  EXPECT_EQ(none.error, 0);
}

// In which order they were said is not known.
TEST(TicketBooksTest, KeepsTheGravestOfSeveralErrors) {
  const int32_t by_gravity[] = {ECONNABORTED, EMFILE, kWouldWait, EBADF, kOtherFile};
  for (size_t i = 0; i + 1 < std::size(by_gravity); ++i) {
    for (const bool gravest_last : {true, false}) {
      Tickets tickets;
      tickets.GiveBack(by_gravity[gravest_last ? i : i + 1]);
      tickets.GiveBack(by_gravity[gravest_last ? i + 1 : i]);
      EXPECT_EQ(tickets.TakeNews().error, by_gravity[i + 1]) << i << gravest_last;
    }
  }
}

}  // namespace
}  // namespace ringmaster::core
