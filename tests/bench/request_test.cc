#include "bench/request.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace ringmaster::bench {
namespace {

using Bytes = std::array<char, 64>;

Bytes Written(uint64_t number, uint32_t work = 0) {
  Bytes bytes;
  WriteRequest(number, work, bytes);
  return bytes;
}

TEST(Request, CarriesTheWorkThatItAsksFor) {
  for (const uint32_t work : {0u, 1u, 127u, 128u, 20'000u, 1u << 20, kWorkMax}) {
    EXPECT_EQ(WorkOf(Written(3, work)), work);
  }
}

TEST(Request, AsksForNothingIfItIsNoBeginningOfOne) {
  const Bytes bytes = Written(3, 1000);
  EXPECT_EQ(WorkOf({bytes.data(), kRequestHeaderBytes - 1}), 0u);
  EXPECT_EQ(WorkOf({bytes.data() + 1, bytes.size() - 1}), 0u);
  EXPECT_EQ(WorkOf({}), 0u);
}

// A worker that reads the rest of a request must not take it for another one.
TEST(Request, HasOneByteOnlyWithTheHighestBit) {
  for (uint64_t number = 0; number < 1000; ++number) {
    const Bytes bytes = Written(number, kWorkMax);
    EXPECT_EQ(bytes[0], kUnmarked);
    EXPECT_EQ(std::count_if(bytes.begin(), bytes.end(),
                            [](char c) { return static_cast<signed char>(c) < 0; }),
              1);
  }
}

TEST(Request, IsAnotherForEveryConnectionAndTheSameForTheSameOne) {
  EXPECT_EQ(Written(5), Written(5));
  for (uint64_t number = 1; number < 1000; ++number) {
    EXPECT_NE(Written(number), Written(number - 1));
  }
}

// Parts that change places are noticed.
TEST(Request, HasNoTwoEqualParts) {
  const Bytes bytes = Written(9);
  for (size_t a = 8; a < bytes.size(); a += 8) {
    for (size_t b = a + 8; b < bytes.size(); b += 8) {
      EXPECT_FALSE(std::equal(&bytes[a], &bytes[a] + 8, &bytes[b])) << a << " " << b;
    }
  }
}

}  // namespace
}  // namespace ringmaster::bench
