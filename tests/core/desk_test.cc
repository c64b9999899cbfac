// Desk and permits (core/desk.h). Method: the test is the kernel and the workers; what the kernel
// is asked can do something else in between, as other threads would.

#include "core/desk.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/inbox.h"
#include "core/permits.h"
#include "core/port_state.h"
#include "fake_sights.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::core {
namespace {

TEST(Permits, AreClaimedFinishedAndTakenBack) {
  Permits permits;
  EXPECT_FALSE(permits.Claim());
  permits.Issue();
  permits.Issue();
  ASSERT_TRUE(permits.Claim());
  EXPECT_EQ(permits.Read().claimable, 1U);
  EXPECT_EQ(permits.Read().redeeming, 1U);
  EXPECT_EQ(permits.Withdraw(), 1U);
  EXPECT_EQ(permits.Withdraw(), 0U);
  EXPECT_FALSE(permits.Claim());
  permits.Finish();
  EXPECT_EQ(permits.Read().out(), 0U);
}

TEST(Permits, WhoFindsNothingGivesAllBack) {
  Permits permits;
  for (int i = 0; i < 3; ++i) permits.Issue();
  ASSERT_TRUE(permits.Claim());
  permits.GiveUp();
  EXPECT_EQ(permits.Read().out(), 0U);
  EXPECT_EQ(permits.TakeGivenBack(), 3U);
  EXPECT_EQ(permits.TakeGivenBack(), 0U);
}

TEST(IndexSet, TakesWhatWasSetOnce) {
  IndexSet<1024> set;
  EXPECT_FALSE(set.Any());
  for (const uint32_t index : {0U, 63U, 64U, 1023U, 64U}) set.Set(index);
  std::vector<uint32_t> taken;
  set.Take([&](uint32_t index) { taken.push_back(index); });
  EXPECT_EQ(taken, (std::vector<uint32_t>{0, 63, 64, 1023}));
  EXPECT_FALSE(set.Any());
  set.Take([&](uint32_t) { FAIL(); });
}

TEST(IndexSet, WhatIsRemovedIsThereNoMore) {
  IndexSet<1024> set;
  for (const uint32_t index : {5U, 6U, 700U}) set.Set(index);
  set.Remove(5);
  set.Remove(700);
  std::vector<uint32_t> left;
  set.ForEach([&](uint32_t index) { left.push_back(index); });
  EXPECT_EQ(left, std::vector<uint32_t>{6});
  set.Set(5);
  set.Take([&](uint32_t index) { left.push_back(index); });
  EXPECT_EQ(left, (std::vector<uint32_t>{6, 5, 6}));
}

TEST(IndexSet, WhatIsSetWhileItIsTakenStays) {
  IndexSet<128> set;
  set.Set(5);
  set.Take([&](uint32_t index) { set.Set(index); });
  EXPECT_TRUE(set.Any());
}

// One worker, as the test moves it.
struct FakeWorker {
  FakeWorker() { state.SayWaiting(); }

  sim::MemoryWorker memory{1};
  Inbox& inbox = memory.inbox();
  PortState& state = memory.state();
  WorkerPermits permits;
};

class DeskTest : public testing::Test {
 protected:
  static constexpr uint32_t kSource = 70;

  // Round-robin, which remembers who was recalled from.
  class Turns final : public Policy {
   public:
    explicit Turns(DeskTest* test) : test_(test), policy_(RoundRobin()) {}
    std::string name() const override { return "turns"; }
    void Prepare(uint32_t slots) override { policy_->Prepare(slots); }
    size_t Pick(const Arrival& arrival, const View& view) override {
      if (test_->throws_) throw std::runtime_error("no idea");
      if (test_->nobody_) return kNobodyNow;
      if (test_->beyond_) return view.candidates.size();
      return policy_->Pick(arrival, view);
    }
    void OnRecall(uint32_t worker) override {
      test_->recalled_.push_back(worker);
      policy_->OnRecall(worker);
    }

   private:
    DeskTest* const test_;
    const std::unique_ptr<Policy> policy_;
  };

  void AddWorkers(uint32_t count, uint32_t capacity = UINT32_MAX) {
    policy_.Prepare(count);
    desk_.Reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      workers_.push_back(std::make_unique<FakeWorker>());
      FakeWorker& worker = *workers_.back();
      worker.state.places = capacity;
      desk_.seats().push_back({.worker = i,
                               .state = &worker.state,
                               .inbox = &worker.inbox,
                               .permits = &worker.permits,
                               .sight = static_cast<int>(i),
                               .capacity = capacity});
    }
  }
  void Open() {
    desk_.Open({.source = kSource,
                .policy = &policy_,
                .sights = &kernel_,
                .hungry = &hungry_,
                .gate = gate_.limited() ? &gate_ : nullptr,
                .topology = &topology_});
  }

  Permits& PermitsOf(uint32_t worker) { return workers_[worker]->permits.of_source[kSource]; }
  uint32_t Claimable(uint32_t worker) { return PermitsOf(worker).Read().claimable; }
  // The worker that has the only permit.
  uint32_t Stands() {
    uint32_t stands = UINT32_MAX;
    for (uint32_t i = 0; i < workers_.size(); ++i) {
      if (Claimable(i) == 0) continue;
      EXPECT_EQ(Claimable(i), 1U);
      EXPECT_EQ(stands, UINT32_MAX) << "at two workers";
      stands = i;
    }
    EXPECT_EQ(kernel_.shown, (std::set<int>{static_cast<int>(stands)}));
    return stands;
  }

  // A connection comes; the worker that has the permit accepts it and goes on with `then`.
  uint32_t Serve() {
    const uint32_t worker = Stands();
    ++kernel_.waiting;
    Accept(worker);
    return worker;
  }
  void Accept(uint32_t worker) {
    ASSERT_TRUE(PermitsOf(worker).Claim()) << worker;
    workers_[worker]->state.SayBusy();
    if (kernel_.waiting == 0) {
      PermitsOf(worker).GiveUp();
    } else {
      --kernel_.waiting;
      PermitsOf(worker).CountAccepted();
      PermitsOf(worker).Finish();
    }
    desk_.Visit();
  }
  // It comes back to its wait.
  void Wait(uint32_t worker) {
    workers_[worker]->state.SayWaiting();
    hungry_.Take([&](uint32_t source) {
      EXPECT_EQ(source, kSource);
      desk_.Visit();
    });
  }

  FakeSights kernel_;
  Gate gate_;
  SourceSet hungry_;
  const CpuTopology topology_{};
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::vector<uint32_t> recalled_;
  bool throws_ = false;
  bool nobody_ = false;
  bool beyond_ = false;
  Turns policy_{this};
  Desk desk_;
};

TEST_F(DeskTest, OnePermitStandsWhereNothingWaits) {
  AddWorkers(3);
  EXPECT_TRUE(desk_.closed());
  Open();
  EXPECT_FALSE(desk_.closed());
  EXPECT_EQ(Stands(), 0U);
  EXPECT_TRUE(workers_[0]->permits.pending.Any());
  EXPECT_EQ(workers_[0]->state.open, 0U) << "a permit holds no place";
  desk_.Visit();
  EXPECT_EQ(Stands(), 0U) << "and no second one beside it";
}

TEST_F(DeskTest, TurnsAreExactAndOnlyTheNextOneIsShown) {
  AddWorkers(4);
  Open();
  for (uint32_t i = 0; i < 40; ++i) {
    EXPECT_EQ(Serve(), i % 4);
    Wait(i % 4);
  }
  EXPECT_TRUE(recalled_.empty());
  EXPECT_EQ(desk_.Accepted(), 40U);
}

TEST_F(DeskTest, AsManyPermitsAsWait) {
  AddWorkers(4);
  Open();
  kernel_.waiting = 6;
  desk_.Visit();
  uint32_t out = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_GE(Claimable(i), 1U);
    out += Claimable(i);
  }
  EXPECT_EQ(out, 6U);
  EXPECT_EQ(kernel_.shown.size(), 4U);
}

TEST_F(DeskTest, WhatIsBeingRedeemedNeedsNoOtherPermit) {
  AddWorkers(2);
  Open();
  kernel_.waiting = 1;
  ASSERT_TRUE(PermitsOf(0).Claim());
  desk_.Visit();
  EXPECT_EQ(Claimable(0) + Claimable(1), 0U);
  kernel_.waiting = 2;
  desk_.Visit();
  EXPECT_EQ(Claimable(0) + Claimable(1), 1U);
}

TEST_F(DeskTest, MoreThanItsWidthIsTheMasters) {
  AddWorkers(2);
  kernel_.waiting = 2 * Desk::kWidth;
  Open();
  EXPECT_EQ(Claimable(0) + Claimable(1), 2 * Desk::kWidth);
  ++kernel_.waiting;
  desk_.Visit();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kFull);
  EXPECT_EQ(kernel_.calls, 1);
  EXPECT_EQ(Claimable(0) + Claimable(1), 0U);
}

// With many workers, too: one thread at a time issues permits.
TEST_F(DeskTest, ItsWidthHasALimit) {
  AddWorkers(16);
  kernel_.waiting = Desk::kWidthMax;
  Open();
  EXPECT_FALSE(desk_.closed());
  ++kernel_.waiting;
  desk_.Visit();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kFull);
}

TEST_F(DeskTest, WhoFindsNothingHandsTheTurnOn) {
  AddWorkers(3);
  Open();
  Accept(0);  // nothing waits
  EXPECT_EQ(Stands(), 1U);
  EXPECT_EQ(recalled_, (std::vector<uint32_t>{0}));
  Wait(0);
  EXPECT_EQ(Serve(), 1U);
  EXPECT_EQ(Stands(), 0U) << "the turn that found nothing is owed";
}

// Its mailbox was emptied just as the permit came.
TEST_F(DeskTest, ATurnThatWasGivenBackIsOwed) {
  AddWorkers(2);
  Open();
  workers_[0]->state.SayBusy();
  ASSERT_TRUE(PermitsOf(0).GiveBack());
  EXPECT_FALSE(PermitsOf(0).GiveBack());
  desk_.Visit();
  EXPECT_EQ(Stands(), 1U);
  EXPECT_EQ(recalled_, (std::vector<uint32_t>{0}));
}

TEST_F(DeskTest, TurnsThatWereGivenUpAreOwedWhenItIsClosed) {
  AddWorkers(2);
  kernel_.waiting = 4;
  Open();
  ASSERT_TRUE(PermitsOf(0).Claim());
  PermitsOf(0).GiveUp();
  desk_.Close();
  EXPECT_EQ(recalled_, (std::vector<uint32_t>{0, 0, 1, 1}));
}

TEST_F(DeskTest, AStandingPermitLeavesAWorkerThatDoesNotWait) {
  AddWorkers(3);
  Open();
  workers_[0]->state.SayBusy();
  desk_.Visit();
  EXPECT_EQ(Stands(), 1U);
  EXPECT_EQ(recalled_, (std::vector<uint32_t>{0}));
  Wait(0);
  EXPECT_EQ(Serve(), 1U);
  EXPECT_EQ(Stands(), 0U) << "who was recalled from is owed the turn";
}

TEST_F(DeskTest, WhoeverWaitsFirstGetsThePermitOfABusyOne) {
  AddWorkers(3);
  Open();
  for (const auto& worker : workers_) worker->state.SayBusy();
  desk_.Visit();
  const uint32_t at = Stands();
  EXPECT_TRUE(hungry_.Any());
  const uint32_t other = (at + 1) % 3;
  Wait(other);
  EXPECT_EQ(Stands(), other);
}

TEST_F(DeskTest, AWorkerThatBeganToWaitJustBeforeTheFlagIsSeen) {
  AddWorkers(2);
  Open();
  workers_[0]->state.SayBusy();
  workers_[1]->state.SayBusy();
  // It waits after the holder has looked at it, and before the flag is up.
  kernel_.on_waiting = [&] { Wait(1); };
  desk_.Visit();
  EXPECT_EQ(Stands(), 1U);
}

TEST_F(DeskTest, AWorkerThatWakesWhileItGetsThePermitIsSeen) {
  AddWorkers(2);
  kernel_.on_show = [&] { workers_[0]->state.SayBusy(); };
  Open();
  EXPECT_EQ(Stands(), 1U);
}

TEST_F(DeskTest, AMarkedWorkerGetsNoneUntilItMoves) {
  AddWorkers(2);
  Open();
  kernel_.waiting = 1;
  workers_[0]->inbox.Ring();
  desk_.Visit();
  EXPECT_EQ(Stands(), 1U);
  Accept(1);
  EXPECT_EQ(Stands(), 1U);
  workers_[0]->inbox.Begin();
  desk_.Visit();
  EXPECT_EQ(Stands(), 0U);
}

TEST_F(DeskTest, WhatAMarkedWorkerRedeemsIsGivenToAnother) {
  AddWorkers(2);
  Open();
  kernel_.waiting = 1;
  ASSERT_TRUE(PermitsOf(0).Claim());  // and freezes
  workers_[0]->inbox.Ring();
  desk_.Visit();
  EXPECT_EQ(Stands(), 1U);
}

TEST_F(DeskTest, AFullWorkerGetsNone) {
  AddWorkers(2, /*capacity=*/1);
  workers_[0]->state.open = 1;
  Open();
  EXPECT_EQ(Stands(), 1U);
}

TEST_F(DeskTest, IfNobodyHasAPlaceTheMasterGetsIt) {
  AddWorkers(2, /*capacity=*/1);
  Open();
  workers_[0]->state.open = workers_[1]->state.open = 1;
  desk_.Visit();
  EXPECT_TRUE(desk_.closed());
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kNoPlace);
  EXPECT_EQ(kernel_.calls, 1);
  EXPECT_TRUE(kernel_.shown.empty());
  EXPECT_EQ(Claimable(0) + Claimable(1), 0U);
  desk_.Visit();
  EXPECT_EQ(kernel_.calls, 1);
}

TEST_F(DeskTest, IfTheSourceIsFullTheMasterGetsIt) {
  gate_.Limit(1);
  ASSERT_TRUE(gate_.Reserve());
  AddWorkers(2);
  Open();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kNoPlace);
}

TEST_F(DeskTest, ASightThatCannotShowTheSourceGivesItToTheMaster) {
  AddWorkers(2);
  kernel_.show_fails = ENOSPC;
  kernel_.on_show = [&] { kernel_.shown.clear(); };
  Open();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kTrouble);
  EXPECT_EQ(desk_.error(), ENOSPC);
  EXPECT_EQ(Claimable(0) + Claimable(1), 0U);
  EXPECT_EQ(recalled_, (std::vector<uint32_t>{0}));
}

TEST_F(DeskTest, AWorkerThatCannotAcceptGivesItToTheMaster) {
  AddWorkers(2);
  Open();
  ASSERT_TRUE(PermitsOf(0).Claim());
  PermitsOf(0).GiveUp();
  desk_.VisitInTrouble(EMFILE);
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kTrouble);
  EXPECT_EQ(desk_.error(), EMFILE);
  EXPECT_TRUE(kernel_.shown.empty());
}

TEST_F(DeskTest, WhatCannotBeCountedIsTheMasters) {
  AddWorkers(2);
  kernel_.waiting = -1;
  Open();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kUncounted);
}

TEST_F(DeskTest, APolicyThatPicksNobodyOrFailsGivesItToTheMaster) {
  AddWorkers(2);
  nobody_ = true;
  Open();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kPolicy);
  EXPECT_EQ(desk_.policy_fault(), "");
  nobody_ = false;
  throws_ = true;
  Open();
  EXPECT_EQ(desk_.policy_fault(), "policy turns threw \"no idea\" in Pick");
  throws_ = false;
  beyond_ = true;
  Open();
  EXPECT_EQ(desk_.policy_fault(), "policy turns picked position 2 of 2 candidates");
  beyond_ = false;
  Open();
  EXPECT_EQ(Stands(), 0U);
}

TEST_F(DeskTest, ANoteMakesTheHolderLookAgain) {
  AddWorkers(2);
  Open();
  const int looks = kernel_.looks;
  kernel_.on_waiting = [&] { desk_.Visit(); };
  desk_.Visit();
  EXPECT_EQ(kernel_.looks, looks + 2);
}

// Otherwise whoever is woken, and runs at once, finds the desk held.
TEST_F(DeskTest, WhoeverIsWokenFindsTheDeskFree) {
  AddWorkers(3);
  Open();
  kernel_.waiting = 2;
  std::vector<int> woken;
  kernel_.on_wake = [&](int sight) {
    woken.push_back(sight);
    const int looks = kernel_.looks;
    Accept(static_cast<uint32_t>(sight));
    EXPECT_EQ(kernel_.looks, looks + 1) << "its own look, at once";
  };
  ASSERT_TRUE(PermitsOf(0).Claim());
  workers_[0]->state.SayBusy();
  PermitsOf(0).CountAccepted();
  PermitsOf(0).Finish();
  desk_.Visit();
  EXPECT_EQ(woken, (std::vector<int>{1, 2}));
  EXPECT_EQ(kernel_.waiting, 0);
  EXPECT_TRUE(kernel_.asleep.empty());
}

// It may run before the holder goes on.
TEST_F(DeskTest, AWorkerKnowsThatASourceIsShownBeforeItIs) {
  AddWorkers(2);
  uint32_t shown = 0;
  kernel_.on_show = [&] { shown = workers_[0]->permits.shown; };
  Open();
  EXPECT_EQ(shown, 1U);
  desk_.Close();
  EXPECT_EQ(workers_[0]->permits.shown, 0U);
  kernel_.show_fails = ENOSPC;
  kernel_.on_show = [&] { kernel_.shown.clear(); };
  Open();
  EXPECT_EQ(workers_[0]->permits.shown, 0U);
}

TEST_F(DeskTest, NobodyIsWokenWhereNothingWaits) {
  AddWorkers(2);
  kernel_.on_wake = [&](int) { FAIL(); };
  Open();
  EXPECT_EQ(Serve(), 0U);
  EXPECT_TRUE(kernel_.asleep.empty());
}

// The desk may be anybody's before a holder that has left it wakes.
TEST_F(DeskTest, WhatIsHiddenBeforeItIsWokenStaysHidden) {
  AddWorkers(2);
  Open();
  kernel_.waiting = 2;
  std::vector<int> woken;
  kernel_.on_wake = [&](int sight) {
    woken.push_back(sight);
    // The other one gets on without being woken.
    Accept(static_cast<uint32_t>(1 - sight));
  };
  workers_[0]->state.SayBusy();
  desk_.Visit();
  EXPECT_EQ(woken.size(), 1U);
  EXPECT_EQ(kernel_.waiting, 1);
}

TEST_F(DeskTest, NobodyIsWokenOnceItIsClosed) {
  AddWorkers(2);
  Open();
  kernel_.waiting = 2;
  kernel_.on_wake = [&](int) { FAIL(); };
  // In the second look, which follows because of the note.
  kernel_.on_waiting = [&] { desk_.VisitInTrouble(EMFILE); };
  desk_.Visit();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kTrouble);
  EXPECT_TRUE(kernel_.shown.empty());
  kernel_.on_wake = nullptr;
  desk_.Close();  // and nobody is waited for
}

// Afterwards the master may close the descriptors.
TEST_F(DeskTest, ClosingWaitsForWhoeverIsAboutToWake) {
  AddWorkers(2);
  Open();
  kernel_.waiting = 2;
  std::mutex mutex;
  mutex.lock();
  std::atomic<bool> wakes{false};
  std::atomic<bool> woken{false};
  kernel_.on_wake = [&](int) {
    wakes = true;
    std::lock_guard lock(mutex);
    woken = true;
  };
  std::thread visitor([&] { desk_.Visit(); });
  while (!wakes) std::this_thread::yield();
  bool waited = false;
  kernel_.on_yield = [&] {
    if (!std::exchange(waited, true)) mutex.unlock();
  };
  desk_.Close();
  EXPECT_TRUE(waited);
  EXPECT_TRUE(woken);
  if (!waited) mutex.unlock();
  visitor.join();
}

TEST_F(DeskTest, TheMasterTakesItBackAndOpensItAgain) {
  AddWorkers(2);
  Open();
  desk_.Close();
  EXPECT_TRUE(desk_.closed());
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kByMaster);
  EXPECT_TRUE(kernel_.shown.empty());
  EXPECT_EQ(Claimable(0) + Claimable(1), 0U);
  EXPECT_EQ(recalled_, (std::vector<uint32_t>{0}));
  desk_.Close();
  Open();
  EXPECT_EQ(Stands(), 0U);
}

// Threads that claim, accept and visit, and a master that takes the desk back again and again: each
// connection is accepted once, and somebody comes for the last one as well.
TEST_F(DeskTest, ThreadsLoseNothing) {
  constexpr int kConnections = 20'000;
  struct Kernel final : public Sights {
    int Show(int sight, bool) override {
      const std::lock_guard lock(mutex);
      shown[sight] = true;
      return 0;
    }
    int ShowAsleep(int sight, bool) override {
      const std::lock_guard lock(mutex);
      shown[sight] = false;
      return 0;
    }
    int Listener() const override { return 0; }
    void Wake(int sight, int) override {
      const std::lock_guard lock(mutex);
      if (const auto found = shown.find(sight); found != shown.end()) found->second = true;
    }
    void Hide(int sight) override {
      const std::lock_guard lock(mutex);
      shown.erase(sight);
    }
    int Waiting() override { return waiting; }
    void Yield() override { std::this_thread::yield(); }
    void CallMaster() override {}
    bool Shows(int sight) {
      const std::lock_guard lock(mutex);
      const auto found = shown.find(sight);
      return waiting > 0 && found != shown.end() && found->second;
    }
    bool Accept() {
      int now = waiting;
      while (now > 0 && !waiting.compare_exchange_weak(now, now - 1)) continue;
      return now > 0;
    }
    std::mutex mutex;
    std::map<int, bool> shown;  // and whether the sight is awake
    std::atomic<int> waiting{0};
  } kernel;
  AddWorkers(3);
  const Desk::Config config{.source = kSource,
                            .policy = &policy_,
                            .sights = &kernel,
                            .hungry = &hungry_,
                            .topology = &topology_};
  desk_.Open(config);
  std::atomic<int> accepted{0};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      FakeWorker& worker = *workers_[i];
      while (accepted < kConnections) {
        worker.state.SayWaiting();
        hungry_.Take([&](uint32_t) { desk_.Visit(); });
        if (!kernel.Shows(static_cast<int>(i)) && !worker.permits.pending.Any()) {
          std::this_thread::yield();
          continue;
        }
        worker.permits.pending.Take([](uint32_t) {});
        bool found = true;
        while (found && PermitsOf(i).Claim()) {
          worker.state.SayBusy();
          found = kernel.Accept();
          if (found) {
            ++accepted;
            PermitsOf(i).CountAccepted();
            PermitsOf(i).Finish();
          } else {
            PermitsOf(i).GiveUp();
          }
          desk_.Visit();
        }
        worker.state.SayBusy();
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < kConnections; ++i) {
      while (kernel.waiting >= static_cast<int>(3 * Desk::kWidth)) std::this_thread::yield();
      ++kernel.waiting;
      if (i % 16 == 0) std::this_thread::yield();
    }
  });
  while (accepted < kConnections) {
    desk_.Close();
    ASSERT_NE(desk_.closed_for(), Desk::Closed::kPolicy) << desk_.policy_fault();
    desk_.Open(config);
    for (int i = 0; i < 100; ++i) std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(accepted, kConnections);
  EXPECT_EQ(desk_.Accepted(), static_cast<uint64_t>(kConnections));
  desk_.Close();
  EXPECT_TRUE(kernel.shown.empty());
}

}  // namespace
}  // namespace ringmaster::core
