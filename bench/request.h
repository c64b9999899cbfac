// What a client sends and a worker answers: the same bytes, but for the first, in which the worker
// writes its index. So a client knows by whom it was served, without asking anybody's books.
//
//   byte 0       kUnmarked, in the answer the index of the worker
//   bytes 1-4    how much the worker has to compute, 7 bits in each
//   the others   depend on the number of the connection and on their place, so that neither an
//                answer to somebody else nor one whose parts are out of order passes for right
//
// No byte but the first has its highest bit set. So a worker that reads a request in parts cannot
// mistake another byte for the first.

#ifndef RINGMASTER_BENCH_REQUEST_H_
#define RINGMASTER_BENCH_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace ringmaster::bench {

inline constexpr char kUnmarked = static_cast<char>(0xff);
inline constexpr size_t kRequestHeaderBytes = 5;
inline constexpr uint32_t kWorkMax = (1u << 28) - 1;

// `request` is at least kRequestHeaderBytes long, `work` at most kWorkMax units.
void WriteRequest(uint64_t number, uint32_t work, std::span<char> request);

// The units of work that a request asks for; 0 if `bytes` do not begin one.
uint32_t WorkOf(std::span<const char> bytes);

// Computes so many units, about a microsecond each (a chain of 256 dependent steps of arithmetic).
// The amount is fixed and not the time, so a worker that is preempted has not worked meanwhile.
void Compute(uint32_t units);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_REQUEST_H_
