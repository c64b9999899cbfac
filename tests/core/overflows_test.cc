// What the kernel has discarded. Method: the test is the kernel that counts, and says what comes.

#include "core/overflows.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "core/op.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kNow = 1'000'000'000;
constexpr bool kArmed = true;
constexpr bool kIdle = false;

TEST(OverflowsTest, ASourceThatCannotBeAskedIsNot) {
  Overflows overflows(false, 0);
  overflows.Came();
  EXPECT_FALSE(overflows.Due(kNow, kIdle));
}

TEST(OverflowsTest, AnArmedSourceIsAskedOnlyWhenSomethingHasCome) {
  Overflows overflows(true, 0);
  EXPECT_FALSE(overflows.Due(kNow, kArmed));
  EXPECT_TRUE(overflows.Due(kNow, kIdle));
  overflows.Came();
  EXPECT_TRUE(overflows.Due(kNow, kArmed));
}

TEST(OverflowsTest, IsAskedOnceAtATimeAndNotTooOften) {
  Overflows overflows(true, 0);
  overflows.Came();
  overflows.Ask(kNow);
  EXPECT_TRUE(overflows.asking());
  EXPECT_FALSE(overflows.Due(kNow + kOverflowLookNs, kIdle));
  overflows.Answered();
  EXPECT_FALSE(overflows.Due(kNow + kOverflowLookNs - 1, kIdle));
  EXPECT_TRUE(overflows.Due(kNow + kOverflowLookNs, kIdle));
  EXPECT_FALSE(overflows.Due(kNow + kOverflowLookNs, kArmed));  // nothing has come since
}

TEST(OverflowsTest, CountsWhatIsNew) {
  Overflows overflows(true, 7);
  EXPECT_EQ(overflows.Note(7, kNow).discarded, 0u);
  EXPECT_EQ(overflows.Note(9, kNow).discarded, 2u);
  EXPECT_EQ(overflows.Note(9, kNow).discarded, 0u);
  EXPECT_EQ(overflows.Note(-5, kNow).discarded, 0u);  // an errno
  EXPECT_EQ(overflows.Note(10, kNow).discarded, 1u);
}

TEST(OverflowsTest, TheKernelsCountBeginsAnew) {
  Overflows overflows(true, kOverflowsMask - 1);
  EXPECT_EQ(overflows.Note(2, kNow).discarded, 4u);
}

TEST(OverflowsTest, AnEpisodeBeginsAfterACalmTime) {
  Overflows overflows(true, 0);
  EXPECT_TRUE(overflows.Note(1, kNow).begins);
  EXPECT_FALSE(overflows.Note(2, kNow + kOverflowCalmNs - 1).begins);
  EXPECT_FALSE(overflows.Note(2, kNow + 9 * kOverflowCalmNs).begins);  // nothing new
  EXPECT_TRUE(overflows.Note(3, kNow + 2 * kOverflowCalmNs).begins);
}

TEST(OverflowsTest, TheFirstBeginsAnEpisodeHoweverYoungTheClock) {
  Overflows overflows(true, 0);
  EXPECT_TRUE(overflows.Note(1, 0).begins);
}

}  // namespace
}  // namespace ringmaster::core
