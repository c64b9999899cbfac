// The part of a run that counts: it begins after the warm-up and lasts as long as was asked for.

#ifndef RINGMASTER_BENCH_MEASURING_WINDOW_H_
#define RINGMASTER_BENCH_MEASURING_WINDOW_H_

#include <cstdint>

#include "bench/load_generator.h"

namespace ringmaster::bench {

// Used by one thread, the one whose computing is measured.
class MeasuringWindow {
 public:
  // `options` must outlive it.
  explicit MeasuringWindow(const LoadOptions& options) : options_(options) {}

  // The run begins now.
  void Start(int64_t now_ns);

  // Call it on each turn. When the time has come it begins or ends the window, and tells
  // LoadOptions::on_window. At the end it writes down how long the window really was and what the
  // thread has computed in it. Returns whether the window has ended by this call.
  bool Cross(int64_t now_ns, LoadResult& result);

  bool ended() const { return ended_; }
  int64_t begin_ns() const { return begin_ns_; }
  int64_t end_ns() const { return end_ns_; }

  // Whether a moment lies in it.
  bool Holds(int64_t at_ns) const { return at_ns >= begin_ns_ && at_ns < end_ns_; }

  // Whether it has ended, and the grace for what was under way is over as well.
  bool GraceIsOver(int64_t now_ns) const { return ended_ && now_ns >= end_ns_ + options_.grace_ns; }

  // When the next of these comes: the beginning, the end, the end of the grace.
  int64_t NextEdgeNs() const {
    return ended_ ? end_ns_ + options_.grace_ns : begun_ ? end_ns_ : begin_ns_;
  }

 private:
  const LoadOptions& options_;
  int64_t begin_ns_ = 0;  // as planned
  int64_t end_ns_ = 0;
  bool begun_ = false;
  bool ended_ = false;
  int64_t began_ns_ = 0;  // really
  int64_t cpu_at_begin_ns_ = 0;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MEASURING_WINDOW_H_
