// What is handed over as completions. Method: the test is the kernel that reports failures, and the
// worker that says how many it took, in memory.

#include "core/sending.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/ledger.h"
#include "core/port_state.h"

namespace ringmaster::core {
namespace {

constexpr uint32_t kNoTicket = Sending::kNoTicket;
using Sources = std::vector<uint32_t>;

// --- One worker ----------------------------------------------------------------------------------

class SendingTest : public ::testing::Test {
 protected:
  SendingTest() { sending_.Reserve(8); }

  void Send(const Sources& tickets) {
    for (const uint32_t ticket : tickets) sending_.Send(ticket);
  }
  // The tickets among the oldest `count`.
  Sources ForgetOldest(size_t count) {
    Sources forgotten;
    sending_.ForgetOldest(count, [&](uint32_t source) { forgotten.push_back(source); });
    return forgotten;
  }

  Tally tally_;
  Sending sending_{&tally_};
};

TEST_F(SendingTest, IsNotUsedForAWorkerWithAnInboxWhichMayHaveTokensAllTheSame) {
  Sending sending;
  EXPECT_FALSE(sending.used());
  EXPECT_EQ(sending.untaken(), 0u);
  sending.SetToken(2, 7);
  EXPECT_EQ(sending.token(2), 7u);
}

TEST_F(SendingTest, CountsWhatIsUntaken) {
  EXPECT_TRUE(sending_.used());
  Send({kNoTicket, kNoTicket, kNoTicket});
  EXPECT_EQ(sending_.untaken(), 3u);
  EXPECT_EQ(tally_.Untaken(), 3u);
  EXPECT_EQ(sending_.NewlyTaken(), 0u);
  tally_.Take(2);
  EXPECT_EQ(sending_.untaken(), 3u);  // as far as was looked
  EXPECT_EQ(sending_.NewlyTaken(), 2u);
  EXPECT_EQ(sending_.NewlyTaken(), 0u);
  EXPECT_EQ(sending_.untaken(), 1u);
}

TEST_F(SendingTest, WhatIsTakenIsTheOldest) {
  Send({5, kNoTicket, 6, 7});
  EXPECT_EQ(ForgetOldest(3), (Sources{5, 6}));
  EXPECT_EQ(ForgetOldest(SIZE_MAX), Sources{7});
  EXPECT_EQ(ForgetOldest(1), Sources{});
}

TEST_F(SendingTest, WhatFailsIsTheNewestOfItsSource) {
  Send({5, 6, 5, kNoTicket});
  EXPECT_TRUE(sending_.ForgetNewest(5));
  EXPECT_FALSE(sending_.ForgetNewest(8));
  EXPECT_EQ(ForgetOldest(2), (Sources{5, 6}));
  EXPECT_TRUE(sending_.ForgetNewest(kNoTicket));
  EXPECT_FALSE(sending_.ForgetNewest(kNoTicket));
}

TEST_F(SendingTest, TicketsThatAreGivenUpStillFillUpTheWindow) {
  Send({5, 6, kNoTicket, 5});
  Sources asked;
  sending_.GiveUpTickets([&](uint32_t source) {
    asked.push_back(source);
    return source == 5;
  });
  EXPECT_EQ(asked, (Sources{5, 6, 5}));
  EXPECT_EQ(sending_.untaken(), 4u);
  EXPECT_EQ(ForgetOldest(4), Sources{6});
}

TEST_F(SendingTest, AFailureSaysWhoseThePlaceIs) {
  Send({kNoTicket, kNoTicket, kNoTicket});
  EXPECT_EQ(sending_.Unsend(), Tally::Unsent::kPlaceIsFree);
  EXPECT_EQ(sending_.untaken(), 2u);
  ASSERT_TRUE(tally_.Lease());
  ASSERT_TRUE(tally_.Lease());
  EXPECT_EQ(sending_.Unsend(), Tally::Unsent::kLeaseHasIt);
  EXPECT_EQ(sending_.untaken(), 1u);
}

// A worker may say that it took what is only on its way.
TEST_F(SendingTest, WhatIsTakenAndFailsStaysTaken) {
  Send({kNoTicket});
  tally_.Take(1);
  EXPECT_EQ(sending_.Unsend(), Tally::Unsent::kTaken);
  EXPECT_EQ(sending_.untaken(), 1u);
  EXPECT_EQ(sending_.NewlyTaken(), 1u);
  EXPECT_EQ(sending_.untaken(), 0u);
}

// --- All workers together ------------------------------------------------------------------------

class UnsettledTest : public ::testing::Test {
 protected:
  std::vector<ArrivalId> SettleAll() {
    std::vector<ArrivalId> ids;
    unsettled_.SettleAll([&](ArrivalId id) { ids.push_back(id); });
    return ids;
  }

  Unsettled unsettled_;
};

TEST_F(UnsettledTest, IsNeverFullWhereNothingIsSent) {
  unsettled_.Reserve(0);
  EXPECT_FALSE(unsettled_.full());
  EXPECT_EQ(unsettled_.ids_max(), 0u);
}

TEST_F(UnsettledTest, IsFullAtTwoWindowsAndHasRoomForAThird) {
  unsettled_.WindowsChange(2);
  unsettled_.Reserve(0);
  for (ArrivalId id = 0; id < 4; ++id) {
    EXPECT_FALSE(unsettled_.full());
    unsettled_.Sent(id);
  }
  EXPECT_TRUE(unsettled_.full());
  EXPECT_EQ(unsettled_.ids_max(), 6u);
  unsettled_.WindowsChange(-1);
  unsettled_.WindowsChange(2);
  unsettled_.Reserve(0);
  EXPECT_FALSE(unsettled_.full());
}

TEST_F(UnsettledTest, WhatHasNotFailedIsSettledInItsOrder) {
  for (const ArrivalId id : {3u, 4u, 5u}) unsettled_.Sent(id);
  unsettled_.Forget(4);
  EXPECT_EQ(unsettled_.size(), 2u);
  EXPECT_EQ(SettleAll(), (std::vector<ArrivalId>{3, 5}));
  EXPECT_TRUE(unsettled_.empty());
}

TEST_F(UnsettledTest, TellsTheYoungestFailureFirst) {
  unsettled_.Failed(3, 11);
  unsettled_.Failed(4, 12);
  Unsettled::Failure failure;
  ASSERT_TRUE(unsettled_.NextFailure(failure));
  EXPECT_EQ(failure.id, 4u);
  EXPECT_EQ(failure.error, 12);
  ASSERT_TRUE(unsettled_.NextFailure(failure));
  EXPECT_EQ(failure.id, 3u);
  EXPECT_FALSE(unsettled_.NextFailure(failure));
}

}  // namespace
}  // namespace ringmaster::core
