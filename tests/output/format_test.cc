#include "output/format.h"

#include <gtest/gtest.h>

#include <optional>

namespace ringmaster::output {
namespace {

TEST(Format, WritesDurationsWithThreeDigitsAndTheUnitThatSuits) {
  EXPECT_EQ(FormatUs(0), "0.00 µs");
  EXPECT_EQ(FormatUs(9.994), "9.99 µs");
  EXPECT_EQ(FormatUs(9.996), "10.0 µs");
  EXPECT_EQ(FormatUs(88.12), "88.1 µs");
  EXPECT_EQ(FormatUs(999.4), "999 µs");
  EXPECT_EQ(FormatUs(999.6), "1.00 ms");
  EXPECT_EQ(FormatUs(20'400), "20.4 ms");
  EXPECT_EQ(FormatUs(2e6), "2.00 s");
}

TEST(Format, WritesCountsWithCommas) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999.4), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567.5), "1,234,568");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
}

TEST(Format, WritesTheRest) {
  EXPECT_EQ(FormatShare(0.254), "25 %");
  EXPECT_EQ(FormatMinutes(65'400'000'000), "1:05");
  EXPECT_EQ(FormatFigure(std::optional<double>(), FormatUs), "–");
}

}  // namespace
}  // namespace ringmaster::output
