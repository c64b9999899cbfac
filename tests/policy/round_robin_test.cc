// Round-robin, first by exact sequences for each rule. Then come random credit, recalls and
// members, after which the shares must be even to within one turn.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

// How many turns a worker may be owed at most; beyond it they are forgiven.
constexpr uint32_t kTurnsOwedMax = 1024;

TEST(RoundRobin, GivesEveryWorkerItsTurnInTheOrderOfIndexes) {
  Crew crew(3);
  auto policy = Ready(RoundRobin(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 7), (Workers{0, 1, 2, 0, 1, 2, 0}));
}

TEST(RoundRobin, OwesATurnToAWorkerWithoutCreditAndPaysItFirst) {
  Crew crew(4);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({0, 2, 3});
  EXPECT_EQ(crew.PickMany(*policy, 5), (Workers{0, 2, 3, 0, 2}));
  crew.CreditForAll();
  // Worker 1 was passed twice; then the rotation goes on where it stood.
  EXPECT_EQ(crew.PickMany(*policy, 7), (Workers{1, 1, 3, 0, 1, 2, 3}));
}

TEST(RoundRobin, TakesTurnsAmongThoseThatAreOwed) {
  Crew crew(4);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({3});
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{3, 3}));
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 9), (Workers{0, 1, 2, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(crew.Pick(*policy), 3u);
}

TEST(RoundRobin, PaysADebtAsSoonAsItsWorkerIsACandidateAndNotBefore) {
  Crew crew(4);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({0});
  crew.PickMany(*policy, 2);  // 1, 2 and 3 are owed one turn each
  crew.OnlyCreditFor({0, 2});
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{2, 2}));  // its debt, then its turn
  crew.OnlyCreditFor({1, 2, 3});
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{3, 1, 1}));
}

TEST(RoundRobin, OwesATurnForARecall) {
  Crew crew(3);
  auto policy = Ready(RoundRobin(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 1}));
  policy->OnRecall(1);
  crew.OnlyCreditFor({0, 2});
  EXPECT_EQ(crew.Pick(*policy), 2u);  // the recalled arrival, placed again
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{1, 0, 1, 2}));
}

TEST(RoundRobin, ForgivesTurnsBeyondTheBound) {
  Crew crew(2);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({0});
  crew.PickMany(*policy, 10 * kTurnsOwedMax);
  policy->OnRecall(1);
  crew.CreditForAll();
  const Workers picks = crew.PickMany(*policy, kTurnsOwedMax + 4);
  const auto debt_end = std::find(picks.begin(), picks.end(), 0u);
  // The last pick of worker 0 was its own turn, so a turn of worker 1 follows its debt.
  EXPECT_EQ(debt_end - picks.begin(), kTurnsOwedMax + 1);
  EXPECT_EQ(Workers(debt_end, picks.end()), (Workers{0, 1, 0}));
}

TEST(RoundRobin, OwesNothingToAWorkerThatLeft) {
  Crew crew(3);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({0, 2});
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 2, 0, 2}));
  crew.SetJoined(1, false);
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 2}));
  crew.SetJoined(1, true);  // the index is used anew
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 1, 2, 0}));
}

TEST(RoundRobin, OwesNothingForARecallFromAWorkerThatLeft) {
  Crew crew(3);
  auto policy = Ready(RoundRobin(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
  crew.SetJoined(1, false);
  policy->OnRecall(1);  // its offers are recalled because it leaves
  EXPECT_EQ(crew.Pick(*policy), 0u);
  policy->OnRecall(1);  // and once more, when a pick has seen that it is gone
  EXPECT_EQ(crew.Pick(*policy), 2u);
  crew.SetJoined(1, true);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
}

TEST(RoundRobin, KeepsTheDebtsOfOthersWhenAWorkerLeaves) {
  Crew crew(4);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({0, 3});
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 3}));  // 1 and 2 are owed a turn each
  crew.SetJoined(1, false);
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{2, 0, 2, 3}));
}

TEST(RoundRobin, AWorkerThatTakesOverAnIndexBetweenTwoPicksInheritsNoDebt) {
  Crew crew(3);
  auto policy = Ready(RoundRobin(), crew);
  crew.OnlyCreditFor({0, 2});
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 2}));  // 1 is owed a turn
  policy->OnLeave(1);  // and another worker joins at its index before the next pick
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
}

TEST(RoundRobin, TakesInAWorkerThatJoinsWithoutDebtAtItsIndex) {
  Crew crew(4);
  crew.SetJoined(1, false);
  auto policy = Ready(RoundRobin(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 2, 3, 0}));
  crew.SetJoined(1, true);
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{1, 2, 3, 0, 1, 2}));
}

TEST(RoundRobin, KeepsTurnsAndDebtsWhenTheNumberOfWorkersGrows) {
  Crew small(2);
  auto policy = Ready(RoundRobin(), small);
  small.OnlyCreditFor({0});
  EXPECT_EQ(small.PickMany(*policy, 3), (Workers{0, 0, 0}));  // 1 is owed two turns
  Crew grown(200);
  policy->Prepare(200);
  EXPECT_EQ(grown.PickMany(*policy, 5), (Workers{1, 1, 1, 2, 3}));
}

// Counts what each worker was assigned while chance gives and takes credit and recalls.
class RoundRobinRun {
 public:
  RoundRobinRun(uint64_t seed, uint32_t workers)
      : chance_(seed), crew_(workers), policy_(Ready(RoundRobin(), crew_)), net_(workers) {}

  // `steps` picks under random credit. Fewer than kTurnsOwedMax, so that no turn is forgiven.
  void Disturb(size_t steps) { testing::Disturb(crew_, *policy_, chance_, steps, net_); }

  // Pays all debts.
  void Settle() {
    crew_.CreditForAll();
    for (size_t i = 0; i < size_t{crew_.size()} * kTurnsOwedMax; ++i) ++net_[crew_.Pick(*policy_)];
  }

  // Offers that were not recalled, largest less smallest.
  int64_t Spread() const {
    const auto [least, most] = std::minmax_element(net_.begin(), net_.end());
    return *most - *least;
  }

  Crew& crew() { return crew_; }
  Policy& policy() { return *policy_; }

 private:
  Chance chance_;
  Crew crew_;
  std::unique_ptr<Policy> policy_;
  std::vector<int64_t> net_;
};

TEST(RoundRobin, IsEvenToWithinOneTurnOnceDebtsArePaidWhateverTheCredit) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 100; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    RoundRobinRun run(seed, 1 + static_cast<uint32_t>(seed % 9));
    for (int phase = 0; phase < 4; ++phase) {
      run.Disturb(200);
      run.Settle();
      ASSERT_LE(run.Spread(), 1);
      // Nothing is owed any more: the rotation is pure.
      const uint32_t count = run.crew().size();
      const Workers round = run.crew().PickMany(run.policy(), count);
      for (uint32_t i = 1; i < count; ++i) ASSERT_EQ(round[i], (round[0] + i) % count);
    }
  }
}

// Debts are counted by a second book that knows only the rule: a turn is taken, owed or, beyond the
// bound, forgiven. While debts are open, shares differ by no more than those and the recalls.
TEST(RoundRobin, DiffersByNoMoreThanOneTurnAndWhatIsOwedAtEveryMoment) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 50; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    const uint32_t count = 2 + chance.Below(7);
    Crew crew(count);
    auto policy = Ready(RoundRobin(), crew);
    struct Book {
      int64_t assigned = 0, recalled = 0, owed = 0, forgiven = 0;
      int64_t turns() const { return assigned + owed + forgiven - recalled; }
    };
    std::vector<Book> books(count);
    const auto owe = [&](uint32_t worker) {
      Book& book = books[worker];
      ++(book.owed < kTurnsOwedMax ? book.owed : book.forgiven);
    };
    uint32_t turn = 0;
    for (int step = 0; step < 3000; ++step) {
      // Credit that seldom changes makes debts that reach the bound.
      for (uint32_t worker = 0; worker < count; ++worker) {
        if (chance.OneIn(300)) crew.facts(worker).credit = chance.Below(2);
      }
      if (!crew.HasCandidate()) continue;
      bool someone_is_owed = false;
      for (uint32_t worker = 0; worker < count; ++worker) {
        someone_is_owed |= crew.facts(worker).credit > 0 && books[worker].owed > 0;
      }
      const uint32_t worker = crew.Pick(*policy);
      if (someone_is_owed) {
        ASSERT_GT(books[worker].owed, 0) << "the rotation went on over a debt";
        --books[worker].owed;
      } else {
        for (; turn != worker; turn = (turn + 1) % count) {
          ASSERT_EQ(crew.facts(turn).credit, 0u) << "worker " << turn << " lost its turn";
          owe(turn);
        }
        turn = (turn + 1) % count;
      }
      ++books[worker].assigned;
      if (chance.OneIn(10)) {
        policy->OnRecall(worker);
        ++books[worker].recalled;
        owe(worker);
      }
      const auto [least, most] =
          std::minmax_element(books.begin(), books.end(),
                              [](const Book& a, const Book& b) { return a.turns() < b.turns(); });
      ASSERT_LE(most->turns() - least->turns(), 1);
    }
  }
}

TEST(RoundRobin, StarvesNoWorkerThatKeepsCredit) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 20; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    constexpr uint32_t kWorkers = 5;
    Crew crew(kWorkers);
    auto policy = Ready(RoundRobin(), crew);
    size_t waited = 0;
    for (int step = 0; step < 5000; ++step) {
      // Worker 0 always has credit; the others lose and regain it, in long stretches.
      for (uint32_t worker = 1; worker < kWorkers; ++worker) {
        if (chance.OneIn(400)) crew.facts(worker).credit = chance.Below(2);
      }
      waited = crew.Pick(*policy) == 0 ? 0 : waited + 1;
      ASSERT_LE(waited, (kWorkers - 1) * (kTurnsOwedMax + 1));
    }
  }
}

}  // namespace
}  // namespace ringmaster::testing
