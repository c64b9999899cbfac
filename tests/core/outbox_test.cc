// The master's half of an inbox. Method: a worker in memory claims, the test looks and recalls.

#include "core/outbox.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/inbox.h"
#include "core/ledger.h"
#include "sim/memory_worker.h"

namespace ringmaster::core {
namespace {

using sim::MemoryWorker;

constexpr uint32_t kWindow = 4;

// An arrival is offered under its own id as descriptor.
Offer OfferOf(ArrivalId id) { return {.source = 0, .fd = static_cast<int32_t>(id)}; }

class OutboxTest : public ::testing::Test {
 protected:
  void Put(std::vector<ArrivalId> ids) {
    for (const ArrivalId id : ids) outbox_.Put(id, OfferOf(id));
  }
  void OfferAll(std::vector<ArrivalId> ids) {
    Put(ids);
    outbox_.Publish();
    outbox_.Ring();
  }

  std::vector<ArrivalId> Oldest() const {
    std::vector<ArrivalId> ids;
    for (const Outbox::Entry entry : outbox_.oldest_first()) ids.push_back(entry.id);
    return ids;
  }
  std::vector<ArrivalId> Newest() const {
    std::vector<ArrivalId> ids;
    for (const Outbox::Entry entry : outbox_.newest_first()) ids.push_back(entry.id);
    return ids;
  }
  // What the worker has claimed in its turn.
  std::vector<ArrivalId> Claimed() {
    std::vector<ArrivalId> ids;
    for (ArrivalId id; (id = outbox_.NextClaimed()) != kNoArrival;) ids.push_back(id);
    return ids;
  }
  bool Recall(ArrivalId id) {
    for (const Outbox::Entry entry : outbox_.newest_first()) {
      if (entry.id == id) return outbox_.Recall(entry, OfferOf(id));
    }
    return false;
  }

  using Ids = std::vector<ArrivalId>;

  Hunger hunger_;
  MemoryWorker worker_{kWindow};
  Outbox outbox_{&worker_.inbox()};
};

TEST_F(OutboxTest, OfAWorkerWithoutAnInboxIsAlwaysEmpty) {
  Outbox outbox;
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.size(), 0u);
  EXPECT_EQ(outbox.free(), 0u);
  EXPECT_FALSE(outbox.unpublished());
  EXPECT_FALSE(outbox.rung());
  EXPECT_FALSE(outbox.SkipHoles());
}

TEST_F(OutboxTest, WhatIsPutIsSeenByTheWorkerWhenItIsPublished) {
  Put({7, 8});
  EXPECT_TRUE(outbox_.unpublished());
  EXPECT_EQ(outbox_.free(), outbox_.size() - 2);
  std::vector<int32_t> fds;
  worker_.Claim(hunger_, &fds);
  EXPECT_TRUE(fds.empty());
  outbox_.Publish();
  EXPECT_FALSE(outbox_.unpublished());
  worker_.Claim(hunger_, &fds);
  EXPECT_EQ(fds, (std::vector<int32_t>{7, 8}));
}

TEST_F(OutboxTest, IsWalkedInBothDirections) {
  EXPECT_EQ(Oldest(), Ids{});
  EXPECT_EQ(Newest(), Ids{});
  OfferAll({7, 8, 9});
  EXPECT_EQ(Oldest(), (Ids{7, 8, 9}));
  EXPECT_EQ(Newest(), (Ids{9, 8, 7}));
}

TEST_F(OutboxTest, FindsWhatTheWorkerHasClaimedInItsTurn) {
  OfferAll({7, 8, 9});
  EXPECT_EQ(Claimed(), Ids{});
  worker_.Claim(hunger_, nullptr, 2);
  EXPECT_EQ(Claimed(), (Ids{7, 8}));
  EXPECT_EQ(Claimed(), Ids{});
  EXPECT_EQ(Oldest(), Ids{9});
  EXPECT_FALSE(outbox_.empty());
  worker_.Claim(hunger_);
  EXPECT_EQ(Claimed(), Ids{9});
  EXPECT_TRUE(outbox_.empty());
  EXPECT_EQ(outbox_.free(), outbox_.size());
}

TEST_F(OutboxTest, ARecallLeavesAHoleThatIsNoRoomBeforeItIsPassed) {
  OfferAll({7, 8, 9});
  EXPECT_TRUE(Recall(8));
  EXPECT_EQ(Oldest(), (Ids{7, 9}));
  EXPECT_EQ(Newest(), (Ids{9, 7}));
  EXPECT_TRUE(outbox_.SkipHoles());
  EXPECT_EQ(outbox_.free(), outbox_.size() - 3);
  EXPECT_TRUE(Recall(7));
  EXPECT_TRUE(outbox_.SkipHoles());
  EXPECT_EQ(outbox_.free(), outbox_.size() - 1);
  EXPECT_TRUE(Recall(9));
  EXPECT_FALSE(outbox_.SkipHoles());
  EXPECT_TRUE(outbox_.empty());
}

TEST_F(OutboxTest, AWalkMayRecallItsCurrentEntry) {
  OfferAll({6, 7, 8, 9});
  Ids recalled;
  for (const Outbox::Entry entry : outbox_.newest_first()) {
    if (entry.id % 2 == 0) continue;
    EXPECT_TRUE(outbox_.Recall(entry, OfferOf(entry.id)));
    recalled.push_back(entry.id);
  }
  EXPECT_EQ(recalled, (Ids{9, 7}));
  EXPECT_EQ(Oldest(), (Ids{6, 8}));
}

TEST_F(OutboxTest, WhatTheWorkerHasClaimedCannotBeRecalledAndIsFoundLater) {
  OfferAll({7, 8});
  worker_.Claim(hunger_, nullptr, 1);
  EXPECT_FALSE(Recall(7));
  EXPECT_TRUE(Recall(8));
  EXPECT_EQ(Oldest(), Ids{7});
  EXPECT_EQ(Claimed(), Ids{7});
  EXPECT_TRUE(outbox_.empty());
}

// A worker that is inside a claim stands on a hole, and finds an offer of the next lap in it.
TEST_F(OutboxTest, AClaimBeforeItsTurnIsFoundByAWalk) {
  OfferAll({1, 2, 3, 4, 5, 6, 7, 8});
  ASSERT_EQ(outbox_.free(), 0u);
  worker_.inbox().Begin();
  EXPECT_TRUE(Recall(1));
  EXPECT_TRUE(outbox_.SkipHoles());
  Put({9});
  ASSERT_EQ(Offer::FromWord(worker_.inbox().Claim()).fd, 9);
  EXPECT_EQ(Claimed(), Ids{});
  for (const Outbox::Entry entry : outbox_.oldest_first()) {
    EXPECT_EQ(outbox_.Claimed(entry), entry.id == 9) << entry.id;
  }
  EXPECT_EQ(Newest(), (Ids{8, 7, 6, 5, 4, 3, 2}));
}

TEST_F(OutboxTest, KnowsWhetherTheWorkerHasLookedSinceItWasRung) {
  EXPECT_FALSE(outbox_.Heard());
  EXPECT_TRUE(outbox_.Ring());
  EXPECT_FALSE(outbox_.Ring());  // it is rung already
  EXPECT_TRUE(outbox_.rung());
  EXPECT_FALSE(outbox_.Heard());
  worker_.Claim(hunger_);
  EXPECT_TRUE(outbox_.rung());  // as far as the master knows
  EXPECT_TRUE(outbox_.Heard());
  EXPECT_FALSE(outbox_.Heard());
  EXPECT_FALSE(outbox_.rung());
}

TEST_F(OutboxTest, GoesRoundManyTimes) {
  ArrivalId next = 1;
  for (uint32_t lap = 0; lap < 100; ++lap) {
    OfferAll({next, next + 1, next + 2});
    EXPECT_TRUE(Recall(next + 1));
    worker_.Claim(hunger_);
    EXPECT_EQ(Claimed(), (Ids{next, next + 2}));
    EXPECT_TRUE(outbox_.empty());
    next += 3;
  }
}

}  // namespace
}  // namespace ringmaster::core
