// The pictures of a report. Each has a row for every mechanism, in the same order and with the same
// names at the left. Rivals come first, ringmaster's below a heading. So an eye that has found a
// mechanism in one picture finds it in all. Rows are low enough for several dozen.

#ifndef RINGMASTER_BENCH_PICTURES_H_
#define RINGMASTER_BENCH_PICTURES_H_

#include <string>
#include <vector>

#include "bench/measures.h"
#include "bench/result.h"

namespace ringmaster::bench {

// What the pictures of one workload have in common. Only results with figures are drawn.
struct PictureOf {
  const WorkloadText& workload;
  const Names& names;
  std::vector<const Result*> results;
};

// By worker, from left to right, and beside it how many connections were served.
std::string SharesPicture(const PictureOf& of);

// The worker of each of the first connections; empty if nobody asked for it.
std::string OrderPicture(const PictureOf& of);

// Half, 99 % and 99.9 % of the connections on a logarithmic scale, and how far the repetitions were
// apart.
std::string LatencyPicture(const PictureOf& of);

// What a connection costs, or what went wrong: a column of bars for each figure that tells
// something. Empty if none does.
std::string CostsPicture(const PictureOf& of);

// Workers repeat this many colours.
inline constexpr size_t kWorkerColours = 4;

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_PICTURES_H_
