// One claim of a permit (core/permit_claim.h). Method: one step at a time, and after each what
// others see.

#include "core/permit_claim.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "fake_sights.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::core {
namespace {

using Next = PermitClaim::Next;

class PermitClaimTest : public testing::Test {
 protected:
  // A worker with one permit, at a desk for it alone.
  PermitClaimTest() {
    policy_->Prepare(1);
    state_.SayWaiting();
    desk_.Reserve(1);
    desk_.seats().push_back({.worker = 0,
                             .state = &state_,
                             .inbox = &memory_.inbox(),
                             .permits = &permits_,
                             .sight = 0,
                             .capacity = 2});
    state_.places = 2;
    of_source_.Limit(1);
    of_all_.Limit(1);
    desk_.Open(
        {.policy = policy_.get(), .sights = &kernel_, .hungry = &hungry_, .topology = &topology_});
  }

  Permits::Count Count() const { return permits_.of_source[0].Read(); }
  // Goes on until `until` is next, as a caller whose accept ends with `error`. Returns whether it
  // has knocked.
  bool GoOnUntil(PermitClaim& claim, Next until, int error = 0) {
    bool knocked = false;
    while (claim.next() != until) {
      switch (claim.next()) {
        case Next::kStart:
          claim.Started(&desk_, &of_source_, &of_all_);
          break;
        case Next::kAccept:
          claim.Accepted(error);
          break;
        case Next::kKnock:
          knocked = true;
          claim.Knocked();
          break;
        case Next::kOver:
          ADD_FAILURE() << "over too early";
          return knocked;
        default:
          claim.Advance();
      }
    }
    return knocked;
  }
  // Whatever was taken for the claim is as before.
  void ExpectNothingLeft() {
    EXPECT_EQ(state_.redeeming, 0U);
    EXPECT_EQ(state_.open, 0U);
    EXPECT_EQ(of_source_.used(), 0U);
    EXPECT_EQ(of_all_.used(), 0U);
    EXPECT_EQ(Count().redeeming, 0U);
  }

  sim::MemoryWorker memory_{1};
  PortState& state_ = memory_.state();
  WorkerPermits permits_;
  Gate of_source_;
  Gate of_all_;
  FakeSights kernel_;
  SourceSet hungry_;
  const CpuTopology topology_;
  const std::unique_ptr<Policy> policy_ = RoundRobin();
  Desk desk_;
};

TEST_F(PermitClaimTest, KeepsThePlacesOfWhatItHasAccepted) {
  PermitClaim claim(&state_, &permits_.of_source[0]);
  GoOnUntil(claim, Next::kAccept);
  EXPECT_EQ(Count().claimable, 0U);
  EXPECT_EQ(Count().redeeming, 1U);
  EXPECT_EQ(state_.redeeming, 1U);
  EXPECT_FALSE(GoOnUntil(claim, Next::kOver));
  EXPECT_TRUE(claim.accepted());
  EXPECT_EQ(permits_.of_source[0].accepted(), 1U);
  EXPECT_EQ(state_.open, 1U);
  EXPECT_EQ(of_source_.used(), 1U);
  EXPECT_EQ(of_all_.used(), 1U);
  EXPECT_EQ(state_.redeeming, 0U);
  EXPECT_EQ(Count().claimable, 1U) << "the desk was visited";
}

TEST_F(PermitClaimTest, ThatFindsNothingGivesAllBackAndKnocks) {
  permits_.of_source[0].Issue();  // another one, which goes back, too
  const int looks = kernel_.looks;
  PermitClaim claim(&state_, &permits_.of_source[0]);
  EXPECT_TRUE(GoOnUntil(claim, Next::kVisit, EAGAIN));
  EXPECT_EQ(Count().out(), 0U);
  GoOnUntil(claim, Next::kOver);
  EXPECT_FALSE(claim.accepted());
  EXPECT_GT(kernel_.looks, looks);
  EXPECT_EQ(permits_.of_source[0].accepted(), 0U);
  ExpectNothingLeft();
}

TEST_F(PermitClaimTest, ThatFindsNoPlaceOfTheBalancerGivesTheOthersBackAndKnocks) {
  of_all_.ForceReserve();
  PermitClaim claim(&state_, &permits_.of_source[0]);
  GoOnUntil(claim, Next::kGiveBack);
  EXPECT_EQ(state_.open, 1U);
  EXPECT_EQ(of_source_.used(), 1U);
  EXPECT_TRUE(GoOnUntil(claim, Next::kOver));
  of_all_.GiveBack();
  ExpectNothingLeft();
}

TEST_F(PermitClaimTest, OfAWorkerWithoutAPlaceKnocksAtNobody) {
  state_.ForceReserve();
  state_.ForceReserve();
  PermitClaim claim(&state_, &permits_.of_source[0]);
  EXPECT_FALSE(GoOnUntil(claim, Next::kOver));
  state_.Release(2);
  ExpectNothingLeft();
  EXPECT_TRUE(desk_.closed()) << "nobody has a place, so the master deals";
}

TEST_F(PermitClaimTest, ThatCannotAcceptSaysWhyAtTheDesk) {
  PermitClaim claim(&state_, &permits_.of_source[0]);
  GoOnUntil(claim, Next::kOver, EMFILE);
  ExpectNothingLeft();
  EXPECT_EQ(desk_.closed_for(), Desk::Closed::kTrouble);
  EXPECT_EQ(desk_.error(), EMFILE);
}

TEST_F(PermitClaimTest, WithoutAPermitIsOverAtOnce) {
  permits_.of_source[0].Withdraw();
  PermitClaim claim(&state_, &permits_.of_source[0]);
  claim.Advance();
  EXPECT_EQ(claim.next(), Next::kOver);
  ExpectNothingLeft();
}

TEST_F(PermitClaimTest, LeavesNothingBehindWhereverItIsAbandoned) {
  for (const int error : {0, EAGAIN}) {
    for (int steps = 0; steps < 12; ++steps) {
      permits_.of_source[0].Withdraw();
      permits_.of_source[0].Issue();
      PermitClaim claim(&state_, &permits_.of_source[0]);
      for (int i = 0; i < steps && claim.next() != Next::kOver; ++i) {
        if (claim.next() == Next::kStart) {
          claim.Started(&desk_, &of_source_, &of_all_);
        } else if (claim.next() == Next::kAccept) {
          claim.Accepted(error);
        } else if (claim.next() == Next::kKnock) {
          claim.Knocked();
        } else {
          claim.Advance();
        }
      }
      claim.Abandon();
      if (claim.accepted()) {
        state_.Release();
        of_source_.GiveBack();
        of_all_.GiveBack();
      }
      SCOPED_TRACE(steps);
      ExpectNothingLeft();
    }
  }
}

}  // namespace
}  // namespace ringmaster::core
