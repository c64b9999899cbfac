// How many accepts are asked for at a time. Method: the test says what the last ones have found.

#include "core/pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace ringmaster::core {
namespace {

class PaceTest : public ::testing::Test {
 protected:
  // Asks for as many as are wanted, of which so many find a connection and the others the end.
  void Ask(uint32_t connections) {
    const uint32_t asked = pace_.wanted();
    pace_.Ask(asked);
    for (uint32_t i = 0; i < asked; ++i) {
      pace_.Complete();
      if (i < connections) {
        pace_.Found();
      } else {
        pace_.FoundEnd();
      }
    }
    pace_.Learn();
  }

  Pace pace_;
};

TEST_F(PaceTest, BeginsWithOneThatFindsAndOneThatFindsNoMore) {
  EXPECT_EQ(pace_.wanted(), 2u);
  Ask(1);
  EXPECT_EQ(pace_.wanted(), 2u);
  Ask(0);
  EXPECT_EQ(pace_.wanted(), 2u);
}

TEST_F(PaceTest, DoublesWhileAllFindSomethingUpToALimit) {
  for (uint32_t wanted = kAcceptsPerBatchMin; wanted < 4 * kAcceptsPerBatchMax; wanted *= 2) {
    EXPECT_EQ(pace_.wanted(), std::min(wanted, kAcceptsPerBatchMax));
    Ask(kAcceptsPerBatchMax);
  }
}

TEST_F(PaceTest, AsksForOneMoreThanThereWereWhenTheEndWasFound) {
  for (int i = 0; i < 4; ++i) Ask(kAcceptsPerBatchMax);
  Ask(7);
  EXPECT_EQ(pace_.wanted(), 8u);
}

TEST_F(PaceTest, LearnsNothingWhileSomeAreUnderWay) {
  pace_.Ask(2);
  pace_.Complete();
  pace_.Found();
  pace_.Learn();
  pace_.Complete();
  pace_.Found();
  pace_.Learn();
  EXPECT_EQ(pace_.wanted(), 4u);
}

TEST_F(PaceTest, ABatchWithoutAcceptsTeachesNothing) {
  Ask(kAcceptsPerBatchMax);
  pace_.Learn();
  EXPECT_EQ(pace_.wanted(), 4u);
}

TEST_F(PaceTest, BeginsAnewAfterAPause) {
  for (int i = 0; i < 4; ++i) Ask(kAcceptsPerBatchMax);
  pace_.BeginAnew();
  EXPECT_EQ(pace_.wanted(), kAcceptsPerBatchMin);
}

TEST_F(PaceTest, ForgetsWhatWillNeverComplete) {
  pace_.Ask(5);
  EXPECT_EQ(pace_.Forget(), 5u);
  EXPECT_EQ(pace_.under_way(), 0u);
  EXPECT_EQ(pace_.Forget(), 0u);
}

}  // namespace
}  // namespace ringmaster::core
