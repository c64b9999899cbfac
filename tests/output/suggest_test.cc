// Misspells names.

#include "output/suggest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ringmaster::output {
namespace {

TEST(EditDistance, CountsWhatMustBeChanged) {
  EXPECT_EQ(EditDistance("light", "light"), 0u);
  EXPECT_EQ(EditDistance("", "light"), 5u);
  EXPECT_EQ(EditDistance("light", "lihgt"), 1u);
  EXPECT_EQ(EditDistance("light", "ligt"), 1u);
  EXPECT_EQ(EditDistance("light", "flight"), 1u);
  EXPECT_EQ(EditDistance("light", "night"), 1u);
  EXPECT_EQ(EditDistance("abc", "xyz"), 3u);
}

TEST(DidYouMean, NamesTheNearest) {
  const std::vector<std::string> known = {"light", "saturated", "slow-worker",
                                          "slow-worker-closed"};
  EXPECT_EQ(DidYouMean("slowworker", known), "; did you mean slow-worker?");
  EXPECT_EQ(DidYouMean("staurated", known), "; did you mean saturated?");
}

TEST(DidYouMean, SaysNothingWhenNothingIsNear) {
  const std::vector<std::string> known = {"light", "saturated"};
  EXPECT_EQ(DidYouMean("pigeon", known), "");
  EXPECT_EQ(DidYouMean("", known), "");
  EXPECT_EQ(DidYouMean("light", {}), "");
}

}  // namespace
}  // namespace ringmaster::output
