#include "bench/request.h"

#include <algorithm>
#include <cstring>

#include "bench/random.h"

namespace ringmaster::bench {
namespace {

constexpr uint64_t kLowSevenBits = 0x7f7f7f7f7f7f7f7f;
constexpr uint32_t kStepsPerUnit = 256;

}  // namespace

void WriteRequest(uint64_t number, uint32_t work, std::span<char> request) {
  Random random(number);
  for (size_t at = 0; at < request.size(); at += sizeof(uint64_t)) {
    const uint64_t word = random.Next() & kLowSevenBits;
    std::memcpy(request.data() + at, &word, std::min(sizeof(word), request.size() - at));
  }
  request[0] = kUnmarked;
  for (uint32_t i = 1; i < kRequestHeaderBytes; ++i) {
    request[i] = static_cast<char>(work & 0x7f);
    work >>= 7;
  }
}

uint32_t WorkOf(std::span<const char> bytes) {
  if (bytes.size() < kRequestHeaderBytes || bytes[0] != kUnmarked) return 0;
  uint32_t work = 0;
  for (size_t i = kRequestHeaderBytes - 1; i > 0; --i) {
    work = work << 7 | static_cast<unsigned char>(bytes[i]);
  }
  return work;
}

void Compute(uint32_t units) {
  uint64_t value = units;
  for (uint64_t step = 0; step < uint64_t{units} * kStepsPerUnit; ++step) {
    value = (value ^ (value >> 29)) * 0x9e3779b97f4a7c15;
  }
  // So that the compiler cannot leave it out.
  volatile uint64_t sink = value;
  (void)sink;
}

}  // namespace ringmaster::bench
