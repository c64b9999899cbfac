// Which worker gets what its parent gives: the rules of processes/dealing.h, one by one, on chutes
// that are made up.

#include "processes/dealing.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "processes/area.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {
namespace {

class FakeChutes final : public ChuteKernel {
 public:
  int Put(uint32_t worker, const Given& given) override {
    if (errors[worker] != 0) return errors[worker];
    lying[worker].push_back(given);
    return 0;
  }
  int Take(uint32_t worker, Given& given) override {
    if (take_error != 0) return take_error;
    if (lying[worker].empty()) return EAGAIN;
    given = lying[worker].front();
    lying[worker].pop_front();
    return given.fd < 0 ? EBADMSG : 0;
  }
  uint32_t Lying(uint32_t worker) override { return static_cast<uint32_t>(lying[worker].size()); }
  uint64_t Number(uint32_t worker) override { return numbers[worker]; }
  void Nudge(uint32_t worker) override { nudged.push_back(worker); }
  void Mark(uint32_t worker) override { marked.push_back(worker); }
  int64_t NowNs() override { return now_ns; }

  std::array<std::deque<Given>, kWorkersMax> lying;
  std::array<uint64_t, kWorkersMax> numbers{};
  std::array<int, kWorkersMax> errors{};
  int take_error = 0;
  std::vector<uint32_t> nudged;
  std::vector<uint32_t> marked;
  int64_t now_ns = 1'000'000'000;
};

// By the first byte of the peer's address; nobody else will do.
class ByPeer final : public Policy {
 public:
  std::string name() const override { return "by-peer"; }
  FactsNeeded facts() const override { return {.peer = true}; }
  size_t Pick(const Arrival& arrival, const View& view) override {
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      if (view.candidates[i].worker == arrival.peer.address[0]) return i;
    }
    return kNobodyNow;
  }
};

class DealingTest : public ::testing::Test {
 protected:
  // Workers from 0 on, all of which wait.
  void Begin(uint32_t workers, uint32_t lying_max = 2,
             std::unique_ptr<Policy> policy = LeastLoaded()) {
    policy->Prepare(kWorkersMax);
    dealing_ = std::make_unique<Dealing>(*area_, chutes_, std::move(policy),
                                         Dealing::Limits{.places = 8, .lying_max = lying_max});
    for (uint32_t i = 0; i < workers; ++i) Come(i);
  }
  void Come(uint32_t index) {
    chutes_.numbers[index] = 100 + index;
    worker(index).takes = 100 + index;
    worker(index).waits = 1;
  }
  Worker& worker(uint32_t index) { return area_->workers[index]; }
  void Give(int fd, uint8_t peer = 0) {
    Given given{.fd = fd};
    given.facts.peer.address[0] = peer;
    dealing_->Hold(given);
    dealing_->Deal();
  }
  void GiveMany(int count) {
    for (int i = 0; i < count; ++i) Give(next_fd_++);
  }
  // The worker takes everything, and has it open.
  std::vector<int> TakeAll(uint32_t index) {
    std::vector<int> fds;
    for (Given given; chutes_.Take(index, given) == 0;) fds.push_back(given.fd);
    worker(index).open += static_cast<uint32_t>(fds.size());
    return fds;
  }
  std::vector<size_t> Lying() {
    std::vector<size_t> lying;
    for (uint32_t i = 0; i < 3; ++i) lying.push_back(chutes_.lying[i].size());
    return lying;
  }
  using Sizes = std::vector<size_t>;
  using Fds = std::vector<int>;

  std::unique_ptr<Area> area_ = std::make_unique<Area>();
  FakeChutes chutes_;
  std::unique_ptr<Dealing> dealing_;
  int next_fd_ = 0;
};

TEST_F(DealingTest, WhatLiesUnclaimedCountsAsOpen) {
  Begin(3);
  GiveMany(6);
  EXPECT_EQ(Lying(), (Sizes{2, 2, 2}));
  EXPECT_EQ(dealing_->counts().given, 6u);
}

TEST_F(DealingTest, WhatNobodyHasRoomForIsHeldInItsOrder) {
  Begin(2, 1);
  GiveMany(5);
  EXPECT_EQ(dealing_->held(), 3u);
  EXPECT_FALSE(dealing_->HasRoom());
  EXPECT_EQ(TakeAll(0), Fds{0});
  EXPECT_TRUE(dealing_->HasRoom());
  dealing_->Deal();
  EXPECT_EQ(TakeAll(1), Fds{1});
  dealing_->Deal();
  EXPECT_EQ(TakeAll(0), Fds{2});
  EXPECT_EQ(TakeAll(1), Fds{3});
  dealing_->Deal();
  EXPECT_EQ(dealing_->held(), 0u);
}

TEST_F(DealingTest, AFullChuteIsLackOfCreditAndItsWorkerGetsMoreLater) {
  Begin(2);
  chutes_.errors[0] = EAGAIN;
  GiveMany(3);
  EXPECT_EQ(Lying(), (Sizes{0, 2, 0}));
  EXPECT_EQ(dealing_->held(), 1u);
  chutes_.errors[0] = ETOOMANYREFS;
  dealing_->Deal();
  EXPECT_EQ(dealing_->held(), 1u);
  chutes_.errors[0] = 0;
  dealing_->Deal();
  EXPECT_EQ(Lying(), (Sizes{1, 2, 0}));
}

TEST_F(DealingTest, ARuinedChuteGetsNothingMoreUntilThereIsAnother) {
  Begin(2);
  GiveMany(2);
  chutes_.errors[0] = EPIPE;
  GiveMany(1);
  EXPECT_TRUE(dealing_->IsRuined(0));
  chutes_.errors[0] = 0;
  // What lies there goes to others.
  TakeAll(1);
  dealing_->Look();
  EXPECT_EQ(Lying(), (Sizes{0, 1, 0}));
  dealing_->OnGone(0);
  dealing_->OnNewChute(0);
  EXPECT_FALSE(dealing_->IsRuined(0));
  GiveMany(1);
  EXPECT_EQ(Lying(), (Sizes{1, 1, 0}));
}

TEST_F(DealingTest, WhatTheDeadHaveNotTakenComesBackBeforeEverythingElse) {
  Begin(2, 2);
  GiveMany(5);
  EXPECT_EQ(dealing_->held(), 1u);
  EXPECT_EQ(TakeAll(1), (Fds{1, 3}));
  dealing_->OnGone(0);
  chutes_.numbers[0] = 0;
  worker(0).takes = 0;
  EXPECT_EQ(dealing_->held(), 3u);
  EXPECT_EQ(dealing_->counts().taken_back, 2u);
  dealing_->Deal();
  EXPECT_EQ(TakeAll(1), (Fds{0, 2}));
  dealing_->Deal();
  EXPECT_EQ(TakeAll(1), Fds{4});
}

TEST_F(DealingTest, WhoTakesNothingMoreLosesWhatLies) {
  Begin(2);
  GiveMany(2);
  worker(0).takes = 0;
  dealing_->Look();
  EXPECT_EQ(Lying(), (Sizes{0, 2, 0}));
}

TEST_F(DealingTest, WhatDoesNotMoveGoesToAnotherAndItsWorkerIsMarked) {
  Begin(2);
  GiveMany(2);
  EXPECT_EQ(TakeAll(1), Fds{1});
  chutes_.now_ns += Dealing::kStillNs - 1;
  dealing_->Look();
  EXPECT_TRUE(chutes_.marked.empty());
  chutes_.now_ns += 1;
  // FakeChutes does not write what the keeper writes.
  worker(0).marked = 1;
  dealing_->Look();
  EXPECT_EQ(chutes_.marked, std::vector<uint32_t>{0});
  EXPECT_EQ(Lying(), (Sizes{0, 1, 0}));
}

TEST_F(DealingTest, WhoMovesKeepsTheRest) {
  Begin(2, 4);
  GiveMany(4);
  TakeAll(1);
  Given one;
  chutes_.now_ns += Dealing::kStillNs - 1;
  EXPECT_EQ(chutes_.Take(0, one), 0);
  dealing_->Look();
  chutes_.now_ns += Dealing::kStillNs - 1;
  dealing_->Look();
  EXPECT_TRUE(chutes_.marked.empty());
  EXPECT_EQ(Lying(), (Sizes{1, 0, 0}));
}

TEST_F(DealingTest, WhatDoesNotMoveStaysWhereNobodyElseCouldHaveIt) {
  Begin(2, 1);
  GiveMany(2);
  chutes_.now_ns += 2 * Dealing::kStillNs;
  dealing_->Look();
  EXPECT_EQ(Lying(), (Sizes{1, 1, 0}));
  EXPECT_TRUE(chutes_.marked.empty());
}

TEST_F(DealingTest, LateAndMarkedOnesGetSomethingOnlyWhereAllAreSo) {
  Begin(3);
  worker(0).waits = 0;  // and has not for long
  worker(1).marked = 1;
  GiveMany(2);
  EXPECT_EQ(Lying(), (Sizes{0, 0, 2}));
  GiveMany(1);
  EXPECT_EQ(dealing_->held(), 1u);
  for (uint32_t i = 0; i < 3; ++i) worker(i).waits = 0;
  worker(1).marked = 0;
  dealing_->Deal();
  EXPECT_EQ(dealing_->held(), 0u);
}

TEST_F(DealingTest, WhoDoesNotWaitGetsNothingWhileAnotherHasNothingToDo) {
  Begin(2, 2, RoundRobin());
  worker(0).waits = 0;
  worker(0).woke_at_ns = chutes_.now_ns;
  GiveMany(1);
  EXPECT_EQ(Lying(), (Sizes{0, 1, 0}));
  GiveMany(1);
  EXPECT_EQ(Lying(), (Sizes{1, 1, 0}));
  TakeAll(1);
  GiveMany(2);
  EXPECT_EQ(Lying(), (Sizes{2, 1, 0}));
}

TEST_F(DealingTest, AConnectionThatIsSetAsideHoldsNobodyUp) {
  Begin(2, 2, std::make_unique<ByPeer>());
  Give(10, 7);
  Give(11, 1);
  EXPECT_EQ(dealing_->held(), 1u);
  EXPECT_EQ(Lying(), (Sizes{0, 1, 0}));
  Come(7);
  dealing_->Deal();
  EXPECT_EQ(dealing_->held(), 0u);
  EXPECT_EQ(TakeAll(7), Fds{10});
}

TEST_F(DealingTest, FactsComeBackWithTheConnection) {
  Begin(2, 2, std::make_unique<ByPeer>());
  Give(10, 1);
  dealing_->OnGone(1);
  worker(1).takes = 0;
  dealing_->Deal();
  EXPECT_EQ(Lying(), (Sizes{0, 0, 0}));
  Come(1);
  dealing_->Deal();
  EXPECT_EQ(TakeAll(1), Fds{10});
}

TEST_F(DealingTest, AtTheEndWhoeverCanGetItGetsIt) {
  Begin(2, 1, std::make_unique<ByPeer>());
  worker(1).marked = 1;
  for (int fd = 0; fd < 6; ++fd) Give(fd, 7);
  EXPECT_EQ(dealing_->held(), 6u);
  dealing_->Deal(/*at_any_cost=*/true);
  EXPECT_EQ(dealing_->held(), 0u);
  EXPECT_TRUE(dealing_->Lies());
  TakeAll(0);
  TakeAll(1);
  EXPECT_FALSE(dealing_->Lies());
}

TEST_F(DealingTest, WithoutDescriptorsTheRestComesBackLater) {
  Begin(2, 2);
  GiveMany(2);
  chutes_.take_error = EMFILE;
  dealing_->OnGone(0);
  chutes_.numbers[0] = 0;
  EXPECT_TRUE(dealing_->Lies());
  chutes_.take_error = 0;
  dealing_->Look();
  EXPECT_EQ(Lying(), (Sizes{0, 2, 0}));
}

TEST_F(DealingTest, WhoSaysThatItTakesNothingIsNudgedOnceInAWhile) {
  Begin(2);
  worker(0).takes = 99;
  dealing_->Look();
  EXPECT_EQ(chutes_.nudged, std::vector<uint32_t>{0});
  dealing_->Look();
  EXPECT_EQ(chutes_.nudged.size(), 1u);
  chutes_.now_ns += Dealing::kNudgeNs;
  dealing_->Look();
  EXPECT_EQ(chutes_.nudged.size(), 2u);
}

TEST_F(DealingTest, NonsenseOfAWorkerSpoilsTheBalanceAlone) {
  Begin(2);
  for (const uint32_t nonsense : {UINT32_MAX, 0u, 1u << 31}) {
    worker(0).open = nonsense;
    worker(0).woke_at_ns = INT64_MIN;
    worker(0).given = nonsense;
    GiveMany(1);
    EXPECT_EQ(dealing_->held(), 0u);
    TakeAll(0);
    TakeAll(1);
  }
  // What is no connection and lies there is dropped.
  worker(0).open = worker(1).open = 0;
  GiveMany(2);
  chutes_.lying[0].push_front({});
  dealing_->OnGone(0);
  EXPECT_EQ(dealing_->held(), 1u);
}

}  // namespace
}  // namespace ringmaster::processes
