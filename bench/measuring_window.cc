#include "bench/measuring_window.h"

#include "bench/clock.h"

namespace ringmaster::bench {

void MeasuringWindow::Start(int64_t now_ns) {
  begin_ns_ = now_ns + options_.warm_up_ns;
  end_ns_ = begin_ns_ + options_.duration_ns;
}

bool MeasuringWindow::Cross(int64_t now_ns, LoadResult& result) {
  if (!begun_ && now_ns >= begin_ns_) {
    begun_ = true;
    began_ns_ = now_ns;
    cpu_at_begin_ns_ = ThreadCpuNs();
    if (options_.on_window) options_.on_window(true);
  }
  if (ended_ || now_ns < end_ns_) return false;
  ended_ = true;
  result.window_ns = now_ns - began_ns_;
  result.cpu_ns = ThreadCpuNs() - cpu_at_begin_ns_;
  if (options_.on_window) options_.on_window(false);
  return true;
}

}  // namespace ringmaster::bench
