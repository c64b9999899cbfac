// Method: one thread plays both sides, step by step, so that every order of the protocol table can
// be tried. One test at the end runs them on two threads, for the thread sanitizer.

#include "core/inbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "sim/memory_worker.h"

namespace ringmaster::core {
namespace {

using sim::InboxStorage;

Offer OfferOf(int32_t fd, uint32_t source = 0) { return {.source = source, .fd = fd}; }

class InboxTest : public testing::Test {
 protected:
  static constexpr uint32_t kWords = 8;

  // The master offers `fd` and publishes it. Returns its position.
  uint64_t Put(int32_t fd) {
    inbox_.Write(tail_, OfferOf(fd));
    inbox_.Publish(++tail_);
    return tail_ - 1;
  }
  // The worker's next offer, -1 for none.
  int32_t TakeFd() {
    const uint64_t word = inbox_.Claim();
    return word == 0 ? -1 : Offer::FromWord(word).fd;
  }

  InboxStorage storage_{kWords};
  Inbox inbox_{storage_.data(), kWords};
  uint64_t tail_ = 0;
};

TEST(Offer, IsTheSameAfterItsWord) {
  for (const Offer offer : {OfferOf(0), OfferOf(1), OfferOf(INT32_MAX, Offer::kSourcesMax - 1)}) {
    const Offer copy = Offer::FromWord(offer.word());
    EXPECT_NE(offer.word(), 0u);
    EXPECT_EQ(copy.fd, offer.fd);
    EXPECT_EQ(copy.source, offer.source);
  }
}

TEST(Inbox, HasTwiceTheWindowInWordsRoundedUp) {
  EXPECT_EQ(Inbox::WordsFor(1), 2u);
  EXPECT_EQ(Inbox::WordsFor(3), 8u);
  EXPECT_EQ(Inbox::WordsFor(32), 64u);
  EXPECT_EQ(Inbox::WordsFor(Inbox::kWindowMax), 2 * Inbox::kWindowMax);
}

TEST_F(InboxTest, IsEmptyAtFirst) {
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), -1);
  EXPECT_FALSE(inbox_.Left());
  EXPECT_FALSE(inbox_.Rung());
}

TEST_F(InboxTest, GivesOffersInTheOrderOfTheirPositions) {
  for (const int32_t fd : {7, 5, 9}) Put(fd);
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 7);
  EXPECT_TRUE(inbox_.Left());
  EXPECT_EQ(TakeFd(), 5);
  EXPECT_EQ(TakeFd(), 9);
  EXPECT_EQ(TakeFd(), -1);
  EXPECT_FALSE(inbox_.Left());
}

TEST_F(InboxTest, HidesWhatIsNotPublished) {
  inbox_.Write(0, OfferOf(1));
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), -1);
  inbox_.Publish(1);
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 1);
}

TEST_F(InboxTest, OwesADoorbellOnlyWhenNoneIsOnItsWay) {
  EXPECT_TRUE(inbox_.Ring());
  EXPECT_FALSE(inbox_.Ring());
  EXPECT_TRUE(inbox_.Rung());
  inbox_.Begin();
  EXPECT_FALSE(inbox_.Rung());
  EXPECT_TRUE(inbox_.Ring());
}

TEST_F(InboxTest, LeavesWhatComesDuringAClaimToTheNextDoorbell) {
  Put(1);
  inbox_.Ring();
  inbox_.Begin();
  Put(2);
  EXPECT_TRUE(inbox_.Ring());  // hence a doorbell, which leads to another claim
  EXPECT_EQ(TakeFd(), 1);
  EXPECT_EQ(TakeFd(), -1);
  EXPECT_FALSE(inbox_.Left());
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 2);
}

TEST_F(InboxTest, TellsTheMasterWhatWasTaken) {
  const uint64_t first = Put(1);
  const uint64_t second = Put(2);
  inbox_.Begin();
  EXPECT_FALSE(inbox_.Empty(first));
  TakeFd();
  EXPECT_TRUE(inbox_.Empty(first));
  EXPECT_FALSE(inbox_.Empty(second));
}

TEST_F(InboxTest, GivesARecalledOfferToTheMasterAlone) {
  const uint64_t position = Put(1);
  EXPECT_TRUE(inbox_.Recall(position, OfferOf(1)));
  EXPECT_TRUE(inbox_.Empty(position));
  EXPECT_FALSE(inbox_.Recall(position, OfferOf(1)));
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), -1);
}

TEST_F(InboxTest, GivesAClaimedOfferToTheWorkerAlone) {
  const uint64_t position = Put(1);
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 1);
  EXPECT_FALSE(inbox_.Recall(position, OfferOf(1)));
}

TEST_F(InboxTest, RecallsBetweenTheTakesOfAClaim) {
  Put(1);
  const uint64_t second = Put(2);
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 1);
  EXPECT_TRUE(inbox_.Recall(second, OfferOf(2)));
  EXPECT_EQ(TakeFd(), -1);
}

TEST_F(InboxTest, PassesOverHoles) {
  std::vector<uint64_t> positions;
  for (int32_t fd = 0; fd < 6; ++fd) positions.push_back(Put(fd));
  for (const int32_t fd : {0, 2, 3, 5})
    inbox_.Recall(positions[static_cast<size_t>(fd)], OfferOf(fd));
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 1);
  EXPECT_EQ(TakeFd(), 4);
  EXPECT_TRUE(inbox_.Left());  // a hole: the worker cannot know
  EXPECT_EQ(TakeFd(), -1);
  EXPECT_FALSE(inbox_.Left());
}

TEST_F(InboxTest, FindsEverythingAfterMoreThanOneLapOfRecalls) {
  for (int32_t fd = 0; fd < 3 * static_cast<int32_t>(kWords) + 1; ++fd) {
    inbox_.Recall(Put(fd), OfferOf(fd));
  }
  Put(100);
  Put(101);
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 100);
  EXPECT_EQ(TakeFd(), 101);
  EXPECT_EQ(TakeFd(), -1);
}

TEST_F(InboxTest, SkipsAtMostOneLapInAClaim) {
  for (int32_t fd = 0; fd < 5 * static_cast<int32_t>(kWords); ++fd) {
    inbox_.Recall(Put(fd), OfferOf(fd));
  }
  for (uint32_t i = 0; i < kWords; ++i) Put(static_cast<int32_t>(200 + i));
  inbox_.Begin();
  for (uint32_t i = 0; i < kWords; ++i) EXPECT_EQ(TakeFd(), static_cast<int32_t>(200 + i));
  EXPECT_EQ(TakeFd(), -1);
  EXPECT_FALSE(inbox_.Left());
}

// The words come round under a cursor that stands on holes: the younger offer is found first, none
// is found twice, and none is missed.
TEST_F(InboxTest, GivesEachOfferOnceWhenTheWordsComeRoundDuringAClaim) {
  for (int32_t fd = 0; fd < 4; ++fd) Put(fd);
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), 0);
  for (int32_t fd = 1; fd < 4; ++fd) inbox_.Recall(static_cast<uint64_t>(fd), OfferOf(fd));
  for (int32_t fd = 4; fd < 10; ++fd) Put(fd);  // positions 8 and 9 are the words of 0 and 1
  inbox_.Ring();
  std::vector<int32_t> found;
  for (int32_t fd = TakeFd(); fd >= 0; fd = TakeFd()) found.push_back(fd);
  inbox_.Begin();
  for (int32_t fd = TakeFd(); fd >= 0; fd = TakeFd()) found.push_back(fd);
  EXPECT_EQ(found, (std::vector<int32_t>{9, 4, 5, 6, 7, 8}));
}

TEST_F(InboxTest, IsEmptyForTheWorkerWhenItsStorageWasWiped) {
  Put(1);
  Put(2);
  inbox_.Ring();
  storage_.Wipe();
  inbox_.Begin();
  EXPECT_EQ(TakeFd(), -1);
  EXPECT_FALSE(inbox_.Left());
}

TEST(PortState, ReservesUpToTheCapacity) {
  PortState state;
  EXPECT_TRUE(state.Reserve(2));
  EXPECT_TRUE(state.Reserve(2));
  EXPECT_FALSE(state.Reserve(2));
  EXPECT_EQ(state.open, 2u);
  state.Release();
  EXPECT_TRUE(state.Reserve(2));
}

TEST(Hunger, IsKnockedForOnce) {
  Hunger hunger;
  EXPECT_FALSE(hunger.HearKnock());
  hunger.Set();
  EXPECT_TRUE(hunger.HearKnock());
  EXPECT_FALSE(hunger.HearKnock());
  hunger.Set();
  hunger.Clear();
  EXPECT_FALSE(hunger.HearKnock());
  EXPECT_FALSE(hunger.HearKnockOfLease());
}

// Only the end of a lease helps against a shortage of descriptors.
TEST(Hunger, TellsWhetherALeaseHasEnded) {
  Hunger hunger;
  EXPECT_FALSE(hunger.Set(true));
  EXPECT_TRUE(hunger.HearKnock());
  EXPECT_FALSE(hunger.LeaseEnded());
  EXPECT_TRUE(hunger.HearKnockOfLease());  // although credit was announced already
  EXPECT_FALSE(hunger.HearKnockOfLease());
  EXPECT_TRUE(hunger.LeaseEnded());
  EXPECT_FALSE(hunger.LeaseEnded());  // is told once
  EXPECT_FALSE(hunger.Set(true));
  EXPECT_TRUE(hunger.HearKnockOfLease());
  EXPECT_TRUE(hunger.Set(true));
  EXPECT_FALSE(hunger.Set(false));
  EXPECT_TRUE(hunger.HearKnockOfLease());  // it makes credit, too
  EXPECT_FALSE(hunger.LeaseEnded());
}

// The master offers, and recalls every third offer that it finds unclaimed; the worker claims. Each
// offer must end on exactly one side. The doorbell is a counter, the window is half the words.
TEST(Inbox, GivesEachOfferToExactlyOneSideAcrossTwoThreads) {
  constexpr int32_t kOffers = 200'000;
  constexpr uint32_t kWindow = 4;
  constexpr uint32_t kWords = Inbox::WordsFor(kWindow);
  InboxStorage storage(kWords);
  Inbox inbox(storage.data(), kWords);
  std::atomic<uint64_t> doorbells{0};
  std::atomic<bool> over{false};
  std::vector<uint8_t> claimed(kOffers);
  std::vector<uint8_t> recalled(kOffers);

  std::thread worker([&] {
    uint64_t heard = 0;
    while (true) {
      const bool last = over.load();
      const uint64_t rung = doorbells.load();
      if (rung == heard) {
        if (last) return;
        std::this_thread::yield();
        continue;
      }
      heard = rung;
      do {
        inbox.Begin();
        for (uint64_t word = inbox.Claim(); word != 0; word = inbox.Claim()) {
          ++claimed[static_cast<size_t>(Offer::FromWord(word).fd)];
        }
      } while (inbox.Left());
    }
  });

  struct Out {
    uint64_t position;
    int32_t fd;
  };
  std::deque<Out> out;
  uint64_t tail = 0;
  int32_t next = 0;
  uint64_t looks = 0;
  const auto room = [&] {
    return out.size() < kWindow && (out.empty() || tail - out.front().position < kWords);
  };
  while (next < kOffers || !out.empty()) {
    while (!out.empty() && inbox.Empty(out.front().position)) out.pop_front();
    if (++looks % 3 == 0 && !out.empty()) {
      const Out last = out.back();
      if (inbox.Recall(last.position, OfferOf(last.fd))) {
        ++recalled[static_cast<size_t>(last.fd)];
        out.pop_back();
      }
    }
    bool wrote = false;
    while (next < kOffers && room()) {
      inbox.Write(tail, OfferOf(next));
      out.push_back({.position = tail, .fd = next});
      ++tail;
      ++next;
      wrote = true;
    }
    if (wrote) {
      inbox.Publish(tail);
      if (inbox.Ring()) doorbells.fetch_add(1);
    } else {
      std::this_thread::yield();
    }
  }
  over.store(true);
  worker.join();
  uint64_t claims = 0;
  for (int32_t fd = 0; fd < kOffers; ++fd) {
    const auto i = static_cast<size_t>(fd);
    ASSERT_EQ(claimed[i] + recalled[i], 1) << "offer " << fd;
    claims += claimed[i];
  }
  EXPECT_GT(claims, 0u);
  EXPECT_LT(claims, uint64_t{kOffers});
}

}  // namespace
}  // namespace ringmaster::core
