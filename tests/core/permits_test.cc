// The words that a desk and a worker share (core/permits.h).

#include "core/permits.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace ringmaster::core {
namespace {

using Indexes = std::vector<uint32_t>;

class IndexSetTest : public testing::Test {
 protected:
  Indexes From(uint32_t first) const {
    Indexes found;
    set_->ForEach([&](uint32_t index) { found.push_back(index); }, first);
    return found;
  }

  const std::unique_ptr<SourceSet> set_ = std::make_unique<SourceSet>();
};

TEST_F(IndexSetTest, BringsEachIndexOnceFromTheFirstOn) {
  const Indexes all{0, 1, 63, 64, 65, 200, 1023};
  for (const uint32_t index : all) set_->Set(index);
  EXPECT_EQ(From(0), all);
  EXPECT_EQ(From(1), (Indexes{1, 63, 64, 65, 200, 1023, 0}));
  EXPECT_EQ(From(64), (Indexes{64, 65, 200, 1023, 0, 1, 63}));
  EXPECT_EQ(From(65), (Indexes{65, 200, 1023, 0, 1, 63, 64}));
  EXPECT_EQ(From(1023), (Indexes{1023, 0, 1, 63, 64, 65, 200}));
}

TEST_F(IndexSetTest, WhatIsRemovedIsGone) {
  for (const uint32_t index : {3u, 5u}) set_->Set(index);
  set_->Remove(3);
  EXPECT_EQ(From(0), (Indexes{5}));
  Indexes taken;
  set_->Take([&](uint32_t index) { taken.push_back(index); });
  EXPECT_EQ(taken, (Indexes{5}));
  EXPECT_FALSE(set_->Any());
}

}  // namespace
}  // namespace ringmaster::core
