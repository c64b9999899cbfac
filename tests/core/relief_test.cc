// What a worker does better to pass on, with exact figures.

#include "core/relief.h"

#include <gtest/gtest.h>

namespace ringmaster::core {
namespace {

constexpr int64_t kMs = 1'000'000;

// A relief that knows that each takes so long.
Relief Knowing(int64_t each_ns) {
  Relief relief;
  relief.Begin(2, 0);
  relief.End(2 * each_ns);
  EXPECT_EQ(relief.each_ns(), each_ns);
  return relief;
}

TEST(ReliefTest, PassesNothingOnBeforeItKnowsHowLongEachTakes) {
  Relief relief;
  EXPECT_FALSE(relief.measuring());
  EXPECT_EQ(relief.Begin(100, 0), 0u);
  EXPECT_TRUE(relief.measuring());
  EXPECT_EQ(relief.each_ns(), 0);
  relief.End(100 * kMs);
  EXPECT_FALSE(relief.measuring());
  EXPECT_EQ(relief.each_ns(), kMs);
}

TEST(ReliefTest, WhatWouldWaitForHalfAMillisecondIsBetterPassedOn) {
  const struct {
    int64_t each_ns;
    size_t late_of_10;
  } kCases[] = {
      {5 * kMs, 9},            // the second waits for 5 ms
      {kReliefNs, 9},          // for as long as that exactly
      {kReliefNs - 1, 8},      // almost; the third for twice as long
      {kReliefNs / 2, 8},      // the third for as long as that exactly
      {kReliefNs / 2 - 1, 7},  //
      {kReliefNs / 9, 0},      // the tenth almost
      {kReliefNs / 9 + 1, 1},  // the tenth
      {1, 0},
  };
  for (const auto& [each_ns, late] : kCases) {
    Relief relief = Knowing(each_ns);
    EXPECT_EQ(relief.Begin(10, 0), late) << each_ns;
    EXPECT_EQ(Knowing(each_ns).Begin(1, 0), 0u) << each_ns;
  }
}

TEST(ReliefTest, MeasuresFromOneToTheNext) {
  Relief relief;
  relief.Begin(3, 0);
  relief.Begin(2, 3 * kMs);
  EXPECT_EQ(relief.each_ns(), 3 * kMs);
  // An eighth of the difference.
  relief.Begin(1, 3 * kMs + 5 * kMs);
  EXPECT_EQ(relief.each_ns(), 3 * kMs + kMs / 4);
  relief.End(8 * kMs + 3 * kMs + kMs / 4);
  EXPECT_EQ(relief.each_ns(), 3 * kMs + kMs / 4);
  relief.Begin(2, 100 * kMs);
  relief.End(100 * kMs + 2 * (kMs + kMs / 4));
  EXPECT_EQ(relief.each_ns(), 3 * kMs);
}

// A thread that is preempted for once does not take its requests for long ones.
TEST(ReliefTest, TakesOneThatTookVeryLongForTwiceTheAverageAndALittle) {
  Relief relief = Knowing(10'000);
  relief.Begin(2, 0);
  relief.End(2 * 100 * kMs);
  EXPECT_EQ(relief.each_ns(), 10'000 + (10'000 + 50'000) / 8);
  EXPECT_EQ(relief.Begin(10, 0), 0u);
  // If all take longer, that is known soon.
  int samples = 0;
  for (; relief.each_ns() < kMs; ++samples) {
    relief.Begin(2, 0);
    relief.End(2 * 2 * kMs);
  }
  EXPECT_EQ(samples, 24);
}

TEST(ReliefTest, WhatWasPassedOnTakesNoTime) {
  Relief relief;
  relief.Begin(10, 0);
  relief.PassedOn(6);
  relief.Begin(2, 4 * kMs);  // two of four
  EXPECT_EQ(relief.each_ns(), 2 * kMs);
  relief.PassedOn(2);  // more than it was told to
  EXPECT_FALSE(relief.measuring());
  relief.End(100 * kMs);
  EXPECT_EQ(relief.each_ns(), 2 * kMs);
}

// Nobody says how many of the first were done.
TEST(ReliefTest, LearnsNothingFromMoreThatBecameReadyMeanwhile) {
  Relief relief;
  relief.Begin(2, 0);
  relief.Begin(2, kMs);
  relief.Begin(5, 2 * kMs);
  EXPECT_EQ(relief.each_ns(), 0);
  relief.Begin(4, 3 * kMs);
  EXPECT_EQ(relief.each_ns(), kMs);
}

TEST(ReliefTest, DoesNotMeasureWhatElseIsDone) {
  Relief relief;
  relief.Begin(2, 0);
  relief.Interrupt(100 * kMs);
  EXPECT_FALSE(relief.measuring());
  EXPECT_EQ(relief.each_ns(), 0);
  relief.Begin(1, 0);  // the last is done when something else is begun
  relief.Interrupt(kMs);
  EXPECT_EQ(relief.each_ns(), kMs);
  relief.Interrupt(100 * kMs);
  EXPECT_EQ(relief.each_ns(), kMs);
}

TEST(ReliefTest, ForgetsWhatWasLongAgo) {
  Relief relief = Knowing(80 * kMs);
  for (int i = 0; i < 200; ++i) {
    relief.Begin(2, 0);
    relief.End(2);
  }
  EXPECT_LT(relief.each_ns(), 10);
  EXPECT_GT(relief.each_ns(), 0);
}

}  // namespace
}  // namespace ringmaster::core
