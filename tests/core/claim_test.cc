// Method: the test is the masters, each of which writes into an inbox of its own. It takes the
// steps of the claim one by one.

#include "core/claim.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/inbox.h"
#include "core/port_state.h"
#include "sim/memory_worker.h"

namespace ringmaster::core {
namespace {

constexpr uint32_t kWindow = 4;

class ClaimTest : public ::testing::Test {
 protected:
  explicit ClaimTest(uint32_t masters = 3) : tails_(masters) {
    std::vector<Inbox*> inboxes;
    for (uint32_t master = 0; master < masters; ++master) {
      boxes_.push_back(std::make_unique<sim::MemoryInbox>(kWindow));
      inboxes.push_back(&boxes_.back()->inbox);
    }
    claimer_ = std::make_unique<Claimer>(&state_, inboxes);
  }

  Inbox& inbox(uint32_t master) { return boxes_[master]->inbox; }
  // The master offers `fd` and tells the worker. Returns whether it had to.
  bool Offers(uint32_t master, int32_t fd) {
    inbox(master).Write(tails_[master], {.source = 0, .fd = fd});
    inbox(master).Publish(++tails_[master]);
    return inbox(master).Ring();
  }
  // Up to `max` descriptors, in the order in which they are taken.
  std::vector<int32_t> Take(size_t max = SIZE_MAX) {
    std::vector<int32_t> fds;
    while (fds.size() < max) {
      const Claimer::Taken taken = claimer_->Take();
      if (taken.word == 0) break;
      fds.push_back(Offer::FromWord(taken.word).fd);
      EXPECT_EQ(fds.back() / 10, taken.inbox);  // as the tests number them
    }
    return fds;
  }
  std::vector<int32_t> Claim(size_t max = SIZE_MAX) {
    claimer_->Begin(/*on_host=*/false);
    std::vector<int32_t> fds = Take(max);
    claimer_->End();
    return fds;
  }

  std::vector<std::unique_ptr<sim::MemoryInbox>> boxes_;
  std::vector<uint64_t> tails_;
  PortState state_;
  std::unique_ptr<Claimer> claimer_;
};

class HostsClaimTest : public ClaimTest {
 protected:
  HostsClaimTest() : ClaimTest(1) {}
};

TEST_F(ClaimTest, SaysThatItServesFromItsStartToItsEnd) {
  EXPECT_EQ(state_.serving, 0u);
  claimer_->Start(/*on_host=*/false);
  EXPECT_EQ(state_.serving, 1u);
  EXPECT_TRUE(claimer_->under_way());
  while (!claimer_->all_begun()) claimer_->BeginNext();
  EXPECT_TRUE(Take().empty());
  EXPECT_EQ(state_.serving, 1u);
  claimer_->End();
  EXPECT_EQ(state_.serving, 0u);
  EXPECT_FALSE(claimer_->under_way());
}

TEST_F(ClaimTest, BeginsEachInboxOnceAndSaysWhichWasRung) {
  Offers(1, 10);
  claimer_->Start(/*on_host=*/false);
  EXPECT_FALSE(claimer_->BeginNext());
  EXPECT_TRUE(claimer_->BeginNext());
  EXPECT_FALSE(claimer_->all_begun());
  EXPECT_FALSE(claimer_->BeginNext());
  EXPECT_TRUE(claimer_->all_begun());
  for (uint32_t master = 0; master < 3; ++master) EXPECT_FALSE(inbox(master).Rung());
}

TEST_F(ClaimTest, TakesOneOfEachInboxInTurn) {
  for (const int32_t fd : {0, 1, 2}) Offers(0, fd);
  for (const int32_t fd : {20, 21}) Offers(2, fd);
  EXPECT_EQ(Claim(), (std::vector<int32_t>{0, 20, 1, 21, 2}));
}

TEST_F(ClaimTest, GoesOnWithTheNextInboxInTheNextClaim) {
  Offers(0, 0);
  Offers(1, 10);
  Offers(2, 20);
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{0}));
  Offers(0, 1);
  EXPECT_EQ(Claim(), (std::vector<int32_t>{10, 20, 1}));
}

TEST_F(ClaimTest, TakesOnlyWhatWasThereWhenItBeganTheInbox) {
  Offers(0, 0);
  claimer_->Begin(/*on_host=*/false);
  EXPECT_TRUE(Offers(0, 1));
  EXPECT_EQ(Take(), (std::vector<int32_t>{0}));
  claimer_->End();
  EXPECT_FALSE(claimer_->Left());  // a doorbell announces it
  EXPECT_EQ(Claim(), (std::vector<int32_t>{1}));
}

TEST_F(ClaimTest, FindsNothingMoreAfterItsLast) {
  Offers(1, 10);
  claimer_->Begin(/*on_host=*/false);
  EXPECT_EQ(Take(), (std::vector<int32_t>{10}));
  EXPECT_TRUE(Take().empty());
  claimer_->End();
}

TEST_F(ClaimTest, SaysWhatItHasLeftBehind) {
  Offers(0, 0);
  Offers(2, 20);
  Claim(1);
  EXPECT_TRUE(claimer_->Left());
  Claim();
  EXPECT_FALSE(claimer_->Left());
}

TEST_F(ClaimTest, KnocksAfterEveryClaimOfAWorkerThatIsNoHost) {
  Claim();
  EXPECT_TRUE(claimer_->KnocksAtEnd());
}

TEST_F(HostsClaimTest, KnocksOnlyIfItHasMoved) {
  const auto claim = [this] {
    claimer_->Begin(/*on_host=*/true);
    Take();
    claimer_->End();
    return claimer_->KnocksAtEnd();
  };
  EXPECT_FALSE(claim());
  Offers(0, 0);
  EXPECT_TRUE(claim());
  EXPECT_FALSE(claim());
  inbox(0).Ring();  // and nothing to take: it was recalled
  EXPECT_TRUE(claim());
  EXPECT_FALSE(claim());
}

TEST_F(HostsClaimTest, LetsTheMasterHaveALookBetweenTwoOffers) {
  Offers(0, 0);
  Offers(0, 1);
  claimer_->Begin(/*on_host=*/true);
  EXPECT_FALSE(claimer_->MasterIsDue());  // its loop has just been there
  Take(1);
  EXPECT_TRUE(claimer_->MasterIsDue());
  Take(1);
  EXPECT_FALSE(claimer_->MasterIsDue());
  claimer_->End();
}

TEST_F(HostsClaimTest, SeesWhatTheMasterHasOfferedToItsHostMeanwhile) {
  claimer_->Begin(/*on_host=*/true);
  Offers(0, 0);
  Take();
  claimer_->End();
  EXPECT_TRUE(claimer_->OfferedToItself());
  EXPECT_FALSE(claimer_->Left());
  claimer_->Begin(/*on_host=*/true);
  EXPECT_EQ(Take(), (std::vector<int32_t>{0}));
  claimer_->End();
  EXPECT_FALSE(claimer_->OfferedToItself());
}

// Of any other worker a doorbell announces it.
TEST_F(ClaimTest, LeavesWhatIsOfferedMeanwhileToTheDoorbell) {
  claimer_->Begin(/*on_host=*/false);
  Offers(0, 0);
  claimer_->End();
  EXPECT_FALSE(claimer_->OfferedToItself());
}

}  // namespace
}  // namespace ringmaster::core
