// The queues of what sources hold. Method: the test owns the records and says in which queue each
// belongs.

#include "core/held.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/arrival.h"

namespace ringmaster::core {
namespace {

class HeldTest : public ::testing::Test {
 protected:
  HeldTest() { held_.Reserve(/*sources=*/2, /*workers=*/2); }

  // Its number is its id.
  ArrivalId Add(uint32_t source, uint32_t giver = kNoGiver, bool aside = false) {
    const auto id = static_cast<ArrivalId>(records_.size());
    records_.push_back({.where = Where::kHeld,
                        .aside = aside,
                        .source = SourceIndex(source),
                        .giver = giver,
                        .number = id,
                        .aside_at_ns = aside ? int64_t{100} - id : kNotAside});
    held_.Append(id);
    return id;
  }
  // Empties what waits.
  std::vector<ArrivalId> Waiting(uint32_t source) {
    std::vector<ArrivalId> ids;
    for (ArrivalId id; (id = held_.First(source)) != kNoArrival; ids.push_back(id)) {
      held_.PopFirst(id);
    }
    return ids;
  }

  std::vector<ArrivalRecord> records_;
  Held held_{records_};
};

using Ids = std::vector<ArrivalId>;

TEST_F(HeldTest, EachSourceHasItsOwnOrder) {
  const ArrivalId first = Add(0);
  const ArrivalId other = Add(1);
  const ArrivalId second = Add(0);
  EXPECT_EQ(Waiting(0), (Ids{first, second}));
  EXPECT_EQ(Waiting(1), Ids{other});
  EXPECT_EQ(held_.First(0), kNoArrival);
}

TEST_F(HeldTest, WhatIsTakenBackComesFirst) {
  const ArrivalId first = Add(0);
  const ArrivalId second = Add(0);
  held_.PopFirst(first);
  held_.PopFirst(second);
  held_.PushFirst(second);
  held_.PushFirst(first);
  EXPECT_EQ(Waiting(0), (Ids{first, second}));
}

TEST_F(HeldTest, WhatIsTakenUpHasItsPlaceByItsNumber) {
  const ArrivalId a = Add(0, kNoGiver, true);
  const ArrivalId b = Add(0);
  const ArrivalId c = Add(0, kNoGiver, true);
  const ArrivalId d = Add(0);
  EXPECT_EQ(held_.FirstAside(0), a);
  EXPECT_EQ(held_.OldestAside(0), 100 - int64_t{c});
  uint32_t taken_up = 0;
  held_.TakeUp(0, [&](const ArrivalRecord& record) {
    EXPECT_FALSE(record.aside);
    ++taken_up;
  });
  EXPECT_EQ(taken_up, 2u);
  EXPECT_EQ(held_.FirstAside(0), kNoArrival);
  EXPECT_EQ(held_.OldestAside(0), kNotAside);
  EXPECT_EQ(Waiting(0), (Ids{a, b, c, d}));
}

TEST_F(HeldTest, WhatWasPassedOnIsInTheQueueOfItsGiver) {
  const ArrivalId by_one = Add(0, 1);
  const ArrivalId by_zero = Add(0, 0);
  EXPECT_EQ(held_.First(0), kNoArrival);
  EXPECT_EQ(held_.FirstOf(SourceIndex(0), 0), by_zero);
  EXPECT_EQ(held_.FirstPassedOn(SourceIndex(0), kNoGiver), by_one);
  EXPECT_EQ(held_.FirstPassedOn(SourceIndex(0), 1), by_zero);
  EXPECT_EQ(held_.FirstPassedOn(SourceIndex(1), kNoGiver), kNoArrival);
}

TEST_F(HeldTest, AGiversQueueMergesByNumber) {
  const ArrivalId a = Add(0, 1);
  const ArrivalId b = Add(0);
  const ArrivalId c = Add(0, 1);
  EXPECT_EQ(held_.Merge(SourceIndex(0), 1), 2u);
  records_[a].giver = records_[c].giver = kNoGiver;
  EXPECT_EQ(held_.FirstOf(SourceIndex(0), 1), kNoArrival);
  const Held::Sizes sizes = held_.Check(SourceIndex(0));
  EXPECT_EQ(sizes.waiting, 3u);
  EXPECT_EQ(sizes.with_givers, 0u);
  EXPECT_EQ(Waiting(0), (Ids{a, b, c}));
}

}  // namespace
}  // namespace ringmaster::core
