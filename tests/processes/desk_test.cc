// Rules of the desk that processes share, one by one, on a kernel that is made up.

#include "processes/desk.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "fake_kernel.h"
#include "processes/area.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {
namespace {

class Killed {};

class DeskTest : public ::testing::Test {
 protected:
  DeskTest() : area_(std::make_unique<Area>()) {
    policy_->Prepare(kWorkersMax);
    source().mode = Mode::kAimed;
    source().cookie = 1;
  }

  // Workers from 0 on, all of which wait.
  void Begin(uint32_t workers, std::unique_ptr<Policy> policy = LeastLoaded()) {
    policy_ = std::move(policy);
    policy_->Prepare(kWorkersMax);
    for (uint32_t i = 0; i < workers; ++i) {
      worker(i).owner = i + 1;
      worker(i).waits = 1;
      pair(i).sight = i;
      source().joined |= uint64_t{1} << i;
    }
    Visit(0);
  }
  Worker& worker(uint32_t index) { return area_->workers[index]; }
  Pair& pair(uint32_t index) { return worker(index).of_source[0]; }
  Source& source() { return area_->sources[0]; }
  bool Visit(uint32_t me) { return Desk(*area_, 0, me, *policy_, kernel_).Visit(); }
  bool Repair() { return Desk(*area_, 0, kNone, *policy_, kernel_).Repair(); }
  uint32_t Claimable(uint32_t index) { return pair(index).permits.Read().claimable; }
  uint32_t Out() {
    uint32_t out = 0;
    for (uint32_t i = 0; i < kWorkersMax; ++i) out += pair(i).permits.Read().out();
    return out;
  }
  // The worker that would be woken by a connection; kNone. No two would be.
  uint32_t Woken() {
    uint32_t woken = kNone;
    for (uint32_t i = 0; i < kWorkersMax; ++i) {
      if (!kernel_.Wakes(i)) continue;
      EXPECT_EQ(woken, kNone);
      woken = i;
    }
    return woken;
  }
  // One connection comes, and whoever is woken takes it. Returns who.
  uint32_t ServeOne() {
    ++kernel_.waiting;
    const uint32_t who = Woken();
    if (who == kNone || !pair(who).permits.Claim()) return kNone;
    --kernel_.waiting;
    ++worker(who).open;
    pair(who).permits.CountAccepted();
    pair(who).permits.Finish();
    EXPECT_TRUE(Visit(who));
    return who;
  }

  std::unique_ptr<Area> area_;
  std::unique_ptr<Policy> policy_ = LeastLoaded();
  FakeKernel kernel_;
};

TEST_F(DeskTest, OnePermitStandsAndConnectionsGoRound) {
  Begin(4);
  EXPECT_EQ(Out(), 1u);
  std::vector<uint32_t> served(4);
  for (int i = 0; i < 64; ++i) {
    const uint32_t who = ServeOne();
    ASSERT_LT(who, 4u) << i;
    ++served[who];
    ASSERT_EQ(Out(), 1u);
  }
  for (const uint32_t count : served) EXPECT_EQ(count, 16u);
}

TEST_F(DeskTest, AsManyPermitsAsConnectionsWaitButNoMoreThanTheWidth) {
  Begin(2);
  kernel_.waiting = 5;
  Visit(0);
  EXPECT_EQ(Out(), 5u);
  kernel_.waiting = 500;
  Visit(0);
  EXPECT_EQ(Out(), 2 * Desk::kWidth);
}

TEST_F(DeskTest, WhoeverFindsItHeldLeavesANoteAndTheHolderLooksAgain) {
  Begin(2);
  bool came = false;
  kernel_.before = [&] {
    if (std::exchange(came, true)) return;
    kernel_.waiting = 3;  // it comes after the holder has begun
    FakeKernel other;
    other.waiting = 3;
    EXPECT_TRUE(Desk(*area_, 0, 1, *policy_, other).Visit());
  };
  kernel_.waiting = 0;
  Visit(0);
  EXPECT_EQ(Out(), 3u);
}

// One that is broken, or hostile.
TEST_F(DeskTest, WhoeverLeavesNotesWithoutEndDoesNotHoldTheHolder) {
  Begin(2);
  kernel_.waiting = 1;
  int calls = 0;
  kernel_.before = [&] {
    uint64_t held = 0;
    if (++calls > 1'000'000) throw Killed();
    EXPECT_FALSE(source().word.TryHold(2, held));
  };
  EXPECT_NO_THROW(Visit(0));
  EXPECT_EQ(NamedWord::HolderOf(source().word.Read()), 0u);
  EXPECT_EQ(source().hungry, 1u);
}

TEST_F(DeskTest, ASightIsWokenOnlyWhenTheDeskIsFree) {
  Begin(2);
  kernel_.waiting = 2;
  bool woke_while_held = false;
  kernel_.before = [&] {
    for (const auto shows : kernel_.sights) {
      woke_while_held |= shows == FakeKernel::Shows::kSource &&
                         NamedWord::HolderOf(source().word.Read()) != 0 && kernel_.waiting == 2 &&
                         Out() == 2;
    }
  };
  pair(0).permits.Withdraw();
  pair(1).permits.Withdraw();
  kernel_.HideFromAll();
  Visit(0);
  EXPECT_FALSE(woke_while_held);
  EXPECT_TRUE(kernel_.Wakes(0));
  EXPECT_TRUE(kernel_.Wakes(1));
}

TEST_F(DeskTest, ABusyWorkerIsAskedAsWellUnlessItIsLate) {
  Begin(2);
  worker(0).open = 9;
  worker(1).open = 3;
  worker(1).waits = 0;
  worker(1).woke_at_ns = kernel_.now_ns;
  pair(0).permits.Withdraw();
  pair(1).permits.Withdraw();
  Visit(0);
  EXPECT_EQ(Claimable(1), 1u);
  EXPECT_EQ(source().hungry, Source::kHungryForIdle);
  kernel_.now_ns += Desk::kLateNs + 1;
  Visit(0);
  EXPECT_EQ(Claimable(1), 0u);
  EXPECT_EQ(Claimable(0), 1u);
}

// Else connections wait for a busy worker while another one sleeps.
TEST_F(DeskTest, WhoeverHasNothingToDoGetsWhatABusyOneWouldClaimLater) {
  for (const bool round_robin : {false, true}) {
    SCOPED_TRACE(round_robin);
    area_ = std::make_unique<Area>();
    kernel_ = {};
    source().mode = Mode::kAimed;
    Begin(2, round_robin ? RoundRobin() : LeastLoaded());
    for (const uint32_t i : {0u, 1u}) {
      pair(i).permits.Withdraw();
      worker(i).open = 1;
      worker(i).waits = 0;
      worker(i).woke_at_ns = kernel_.now_ns;
    }
    kernel_.waiting = 1;
    Visit(0);
    ASSERT_EQ(Out(), 1u);
    const uint32_t busy = Claimable(0) == 1 ? 0 : 1;
    const uint32_t other = 1 - busy;
    // It comes to wait, and has a connection.
    worker(other).waits = 1;
    EXPECT_FALSE(source().TakeHungry(worker(other).open));
    Visit(other);
    EXPECT_EQ(Claimable(busy), 1u);
    worker(other).open = 0;
    EXPECT_TRUE(source().TakeHungry(worker(other).open));
    Visit(other);
    EXPECT_EQ(Claimable(busy), 0u);
    EXPECT_EQ(Claimable(other), 1u);
    EXPECT_TRUE(kernel_.Wakes(other));
  }
}

// Whoever begins to wait just before the desk is hungry has not read it.
TEST_F(DeskTest, WhoeverHasNothingToDoIsSeenThoughItCameMeanwhile) {
  Begin(2);
  for (const uint32_t i : {0u, 1u}) {
    pair(i).permits.Withdraw();
    worker(i).open = i;
    worker(i).waits = 0;
    worker(i).woke_at_ns = kernel_.now_ns;
  }
  worker(0).open = 2;
  kernel_.waiting = 1;
  int calls = 0;
  kernel_.before = [&] {
    // The permit is out, and its sight is about to be shown.
    if (Claimable(1) == 0 || std::exchange(calls, 1) != 0) return;
    worker(0).open = 0;
    worker(0).waits = 1;
    EXPECT_FALSE(source().TakeHungry(worker(0).open));
  };
  Visit(1);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(Claimable(0), 1u);
  EXPECT_EQ(Claimable(1), 0u);
}

TEST_F(DeskTest, IsHungryWhereAPermitStaysAtALateWorker) {
  Begin(1);
  worker(0).waits = 0;
  worker(0).woke_at_ns = 0;
  Visit(0);
  EXPECT_EQ(Claimable(0), 1u);
  EXPECT_EQ(source().hungry, 1u);
}

TEST_F(DeskTest, AMarkedWorkerLosesItsPermitAndIsWoken) {
  Begin(2);
  const uint32_t frozen = Claimable(0) == 1 ? 0 : 1;
  kernel_.waiting = 1;
  worker(frozen).marked = 1;
  Repair();
  EXPECT_EQ(Claimable(frozen), 0u);
  EXPECT_EQ(Claimable(1 - frozen), 1u);
  EXPECT_EQ(kernel_.sights[frozen], FakeKernel::Shows::kSource);  // the doorbell of its mark
  // It moves, finds no permit, and visits.
  worker(frozen).Moved();
  pair(frozen).shown = 1;
  Visit(frozen);
  EXPECT_EQ(kernel_.sights[frozen], FakeKernel::Shows::kNothing);
}

TEST_F(DeskTest, IfAllAreMarkedMarksDoNotCount) {
  Begin(2);
  kernel_.waiting = 1;
  worker(0).marked = worker(1).marked = 1;
  Repair();
  EXPECT_EQ(Out(), 1u);
}

TEST_F(DeskTest, AStraySightIsHidden) {
  Begin(2);
  const uint32_t other = Claimable(0) == 1 ? 1 : 0;
  kernel_.sights[other] = FakeKernel::Shows::kSource;
  pair(other).shown = 1;
  Visit(other);
  EXPECT_EQ(kernel_.sights[other], FakeKernel::Shows::kNothing);
}

TEST_F(DeskTest, AHolderThatDiedIsDeposedAndEverythingIsMadeAnew) {
  for (int at = 1; at < 40; ++at) {
    SCOPED_TRACE(at);
    area_ = std::make_unique<Area>();
    kernel_ = {};
    source().mode = Mode::kAimed;
    Begin(3);
    kernel_.waiting = 2;
    int calls = 0;
    kernel_.before = [&] {
      if (++calls == at) throw Killed();
    };
    bool died = false;
    try {
      Visit(0);
    } catch (const Killed&) {
      died = true;
    }
    kernel_.before = nullptr;
    // As the keeper does it.
    source().joined &= ~uint64_t{1};
    pair(0).permits.Clear();
    EXPECT_TRUE(Repair());
    EXPECT_EQ(NamedWord::HolderOf(source().word.Read()), 0u);
    EXPECT_EQ(Out(), 2u);
    EXPECT_TRUE(kernel_.Wakes(1) || kernel_.Wakes(2));
    EXPECT_EQ(kernel_.sights[0], FakeKernel::Shows::kNothing);
    if (!died) return;
  }
  FAIL() << "it makes more calls than were tried";
}

// A holder is frozen before each of its calls. Meanwhile it is deposed, and others serve; then it
// goes on.
TEST_F(DeskTest, AHolderThatWasDeposedDoesNoHarm) {
  for (int at = 1; at < 40; ++at) {
    SCOPED_TRACE(at);
    area_ = std::make_unique<Area>();
    kernel_ = {};
    source().mode = Mode::kAimed;
    Begin(3);
    kernel_.waiting = 2;
    int calls = 0;
    bool froze = false;
    kernel_.before = [&] {
      if (++calls != at) return;
      froze = true;
      auto before = std::exchange(kernel_.before, nullptr);
      worker(0).marked = 1;
      EXPECT_TRUE(Repair());
      kernel_.before = before;
    };
    Visit(0);
    kernel_.before = nullptr;
    worker(0).Moved();
    Visit(0);
    EXPECT_EQ(NamedWord::HolderOf(source().word.Read()), 0u);
    EXPECT_EQ(source().torn, 0u);
    EXPECT_EQ(Out(), 2u);
    bool somebody = false;
    for (uint32_t i = 0; i < 3; ++i) {
      somebody |= kernel_.Wakes(i);
      if (kernel_.Wakes(i)) {
        EXPECT_GT(Claimable(i), 0u) << i;
      }
    }
    EXPECT_TRUE(somebody);
    if (!froze) return;
  }
  FAIL() << "it makes more calls than were tried";
}

TEST_F(DeskTest, WhereTheKernelDoesNotHelpEverybodyIsWokenAndItSaysSo) {
  Begin(3);
  kernel_.waiting = -1;
  EXPECT_FALSE(Visit(0));
  EXPECT_EQ(source().mode, Mode::kLeft);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(kernel_.sights[i], FakeKernel::Shows::kSource);
  EXPECT_EQ(NamedWord::HolderOf(source().word.Read()), 0u);
  EXPECT_TRUE(Visit(1));  // there is nothing more to do
}

TEST_F(DeskTest, TurnsThatWereGivenBackAreOwed) {
  Begin(3, RoundRobin());
  const uint32_t first = Claimable(0) == 1 ? 0 : Claimable(1) == 1 ? 1 : 2;
  ASSERT_TRUE(pair(first).permits.Claim());
  pair(first).permits.GiveUp();
  Visit(first);
  EXPECT_EQ(Claimable(first), 1u);
}

TEST_F(DeskTest, IfTheKeeperAbandonsItEverybodyIsAwakeWhoeverHeldIt) {
  Begin(3);
  uint64_t held = 0;
  ASSERT_TRUE(source().word.TryHold(1, held));
  Desk(*area_, 0, kNone, *policy_, kernel_).Abandon();
  EXPECT_EQ(source().mode, Mode::kLeft);
  EXPECT_FALSE(source().word.Holds(held));
  kernel_.waiting = 1;
  for (uint32_t i = 0; i < 3; ++i) EXPECT_TRUE(kernel_.Wakes(i)) << i;
}

}  // namespace
}  // namespace ringmaster::processes
