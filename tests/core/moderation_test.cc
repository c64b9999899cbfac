// When the master lets arrivals wait for one another, and when it does not.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/moderation.h"
#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kMicrosecond = 1'000;
constexpr int64_t kMillisecond = 1'000'000;

class ModerationTest : public EngineTest {
 protected:
  void SetUp() override {
    AddSource();
    AddWorker({.window = 64});
    Batch();
  }

  // One batch of so many, served at once, so that the next may come; how long to gather then.
  int64_t AfterArrivals(uint32_t count, int64_t gap_ns) {
    now_ns_ += gap_ns * count;
    std::vector<Completion> arrivals(count, Arrival(9));
    Batch(arrivals);
    Claim(0);
    Batch();
    return engine_.Gather(now_ns_);
  }
};

TEST_F(ModerationTest, NeverAtLightLoad) {
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(AfterArrivals(1, 280 * kMicrosecond), 0) << i;
  }
}

// Four clients that pause for a millisecond and come back together; on a slow machine, too.
TEST_F(ModerationTest, NeverBecauseOfAFewThatComeTogether) {
  engine_.SetTurnCost(20 * kMicrosecond);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(AfterArrivals(1, kMillisecond), 0) << i;
    ASSERT_EQ(AfterArrivals(1, 12 * kMicrosecond), 0) << i;
    ASSERT_EQ(AfterArrivals(2, 12 * kMicrosecond), 0) << i;
  }
}

TEST_F(ModerationTest, UnderLoadForSomeTurnsOfTheMaster) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 20 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherTurns * kTurnCostNs);
  // The same load in larger batches is the same load.
  for (int i = 0; i < 100; ++i) AfterArrivals(4, 20 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherTurns * kTurnCostNs);
  for (int i = 0; i < 100; ++i) AfterArrivals(4, 40 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
}

// What is much for a slow machine is little for a fast one.
TEST_F(ModerationTest, LoadIsMeasuredByWhatATurnCosts) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 60 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  engine_.SetTurnCost(15 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherTurns * 15 * kMicrosecond);
  engine_.SetTurnCost(100 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherNsMax);
  engine_.SetTurnCost(kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
}

TEST_F(ModerationTest, SwitchesItselfOnAndOffWithinAFewArrivals) {
  int arrivals = 0;
  while (AfterArrivals(1, 10 * kMicrosecond) == 0) ASSERT_LT(++arrivals, 48);
  arrivals = 0;
  while (AfterArrivals(1, 280 * kMicrosecond) > 0) ASSERT_LT(++arrivals, 4);
}

TEST_F(ModerationTest, NeverLongerThanTheNextLookAtAges) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 20 * kMicrosecond);
  ASSERT_GT(engine_.Gather(now_ns_), 0);
  Batch({Arrival(9)});
  now_ns_ += kRecallAfter - 5 * kMicrosecond;
  EXPECT_LE(engine_.Gather(now_ns_), engine_.WaitMax(now_ns_));
  EXPECT_LE(engine_.Gather(now_ns_), 5 * kMicrosecond);
}

TEST_F(ModerationTest, NeverWhileAcceptsAreAskedForOrTheEndIsNear) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 10 * kMicrosecond);
  AddSource({.multishot_accept = false});
  engine_.Join(SourceIndex(1), 0);
  Batch();
  ASSERT_GT(engine_.Gather(now_ns_), 0);
  Batch({Edge(1)});
  ASSERT_GT(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  std::vector<Completion> none(Count(OpKind::kAccept), Accepted(-EAGAIN, 1));
  Batch(none);
  EXPECT_GT(engine_.Gather(now_ns_), 0);
  engine_.StopIntake();
  Batch();
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
}

// A worker that made room would idle until its knock is heard.
TEST_F(ModerationTest, NeverWhileWorkWaitsForCredit) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 10 * kMicrosecond);
  ASSERT_GT(engine_.Gather(now_ns_), 0);
  engine_.SetWindow(0, 1);
  Batch({Arrival(9), Arrival(9)});
  ASSERT_EQ(Held(), 1u);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  Claim(0);
  Batch({Knock()});
  ASSERT_EQ(Held(), 0u);
  EXPECT_GT(engine_.Gather(now_ns_), 0);
}

// --- Whether gathering pays: the comparison, without an engine -----------------------------------

constexpr int64_t kTurnCost = 20 * kMicrosecond;

// Clients that arrive at whoever gathers or does not. Returns how many of 100 arrivals came while
// it gathered.
class ComparisonTest : public ::testing::Test {
 protected:
  ComparisonTest() { moderation_.SetTurnCost(kTurnCost); }

  void Arrive(uint32_t count, int64_t after_ns) {
    now_ns_ += after_ns;
    moderation_.NoteArrivals(count, now_ns_);
    (moderation_.GatherNs() > 0 ? gathered_ : not_gathered_) += count;
  }

  // So many clients, each back at once with its next connection. Without gathering they are served
  // one by one; with it, all that are there together after each wait, at a little less each.
  void ClosedLoop(uint32_t clients, uint32_t arrivals) {
    for (uint32_t done = 0; done < arrivals;) {
      const int64_t gather_ns = moderation_.GatherNs();
      const int64_t alone_ns = 40 * kMicrosecond;
      const int64_t shared_ns = 30 * kMicrosecond;
      // While it gathers, the workers serve those that came before.
      const int64_t all_ns = std::max(gather_ns, shared_ns * clients);
      if (gather_ns == 0) {
        Arrive(1, alone_ns);
        ++done;
      } else {
        Arrive(clients, all_ns);
        done += clients;
      }
    }
  }

  // Clients that come whether or not anybody was answered; `swing` of 100 more or less at random.
  void OpenLoad(int64_t from_ns, int64_t to_ns, uint32_t swing, uint32_t arrivals) {
    for (uint32_t done = 0; done < arrivals; ++done) {
      const int64_t mean_ns = from_ns + (to_ns - from_ns) * done / arrivals;
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      // One swing for 64 arrivals in a row, as what disturbs a machine lasts longer than a gap.
      if (done % 64 == 0) {
        percent_ = 100 + static_cast<int64_t>(random_ >> 33) % (2 * swing + 1) - swing;
      }
      Arrive(1, mean_ns * percent_ / 100);
    }
  }

  // Of the arrivals since it was last asked.
  uint32_t GatheredPercent() {
    const uint32_t gathered = std::exchange(gathered_, 0);
    const uint32_t all = gathered + std::exchange(not_gathered_, 0);
    return all == 0 ? 0 : 100 * gathered / all;
  }

  Moderation moderation_;
  int64_t now_ns_ = 1'000'000'000;
  int64_t percent_ = 100;
  uint64_t random_ = 1;
  uint32_t gathered_ = 0;
  uint32_t not_gathered_ = 0;
};

TEST_F(ComparisonTest, DoesNotWaitForThoseWhoCannotCome) {
  ClosedLoop(4, 3 * 256 * kPeriodsToEarlyTrial);
  GatheredPercent();
  ClosedLoop(4, 20'000);
  // But for the trials.
  EXPECT_LE(GatheredPercent(), 10u);
}

TEST_F(ComparisonTest, GathersWhereManyAreAbout) {
  ClosedLoop(64, 20'000);
  GatheredPercent();
  ClosedLoop(64, 50'000);
  EXPECT_GE(GatheredPercent(), 90u);
}

TEST_F(ComparisonTest, FindsOutWhenThatChanges) {
  ClosedLoop(4, 20'000);
  ClosedLoop(64, 20'000);
  GatheredPercent();
  ClosedLoop(64, 20'000);
  EXPECT_GE(GatheredPercent(), 90u);
  ClosedLoop(4, 20'000);
  GatheredPercent();
  ClosedLoop(4, 20'000);
  EXPECT_LE(GatheredPercent(), 10u);
}

// It brings the same either way, and gathering saves turns.
TEST_F(ComparisonTest, GathersAnOpenLoadAlsoWhereItIsUnsteady) {
  OpenLoad(20 * kMicrosecond, 20 * kMicrosecond, 0, 20'000);
  EXPECT_GE(GatheredPercent(), 90u);
  OpenLoad(20 * kMicrosecond, 20 * kMicrosecond, 25, 200'000);
  EXPECT_GE(GatheredPercent(), 80u);
}

TEST_F(ComparisonTest, ALoadThatRisesOrFallsFavoursNeither) {
  OpenLoad(50 * kMicrosecond, 10 * kMicrosecond, 0, 40'000);
  EXPECT_GE(GatheredPercent(), 90u);
  OpenLoad(10 * kMicrosecond, 50 * kMicrosecond, 0, 40'000);
  EXPECT_GE(GatheredPercent(), 90u);
}

TEST_F(ComparisonTest, APauseIsNotCompared) {
  for (int i = 0; i < 200; ++i) {
    OpenLoad(20 * kMicrosecond, 20 * kMicrosecond, 0, 700);
    now_ns_ += 2 * kPauseNs;
  }
  EXPECT_EQ(moderation_.worth(), kEven);
}

}  // namespace
}  // namespace ringmaster::core
