// One thread accepts and gives each connection to the worker with the fewest, through a queue and
// an eventfd for each. A connection counts from the moment at which it is given, so a burst is
// spread, until it is closed; ties go round.
//
// What its real-world counterparts do: Redis 8 with io-threads, Seastar's default, and Envoy with
// `exact_balance`. Envoy has no thread for it and scans under a lock that the workers share. A
// worker that is slow is avoided as soon as it has more than the others. What it was given before
// waits for it, because none of them takes a connection back.
//
// HAProxy hands over, too, but has no thread that only accepts: every thread polls the listener.
// The one that accepts compares two others with itself, and keeps the connection when that is as
// good. So it often saves the hop, which this never does, and looks at three of the workers where
// this looks at all.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/eventfd_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

std::optional<uint32_t> Least(const std::vector<QueueView>& workers, uint32_t last) {
  const auto count = static_cast<uint32_t>(workers.size());
  std::optional<uint32_t> least;
  for (uint32_t i = 1; i <= count; ++i) {
    const uint32_t worker = (last + i) % count;
    if (!workers[worker].room) continue;
    if (!least.has_value() || workers[worker].open < workers[*least].open) least = worker;
  }
  return least;
}

class EventfdLeastLoaded : public Mechanism {
 public:
  std::string name() const override { return "eventfd-least-loaded"; }
  std::string summary() const override {
    return "a thread accepts and gives to the worker with the fewest, by queue and eventfd";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartEventfdServer(options, Least);
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEventfdLeastLoaded() {
  return std::make_unique<EventfdLeastLoaded>();
}

}  // namespace ringmaster::bench
