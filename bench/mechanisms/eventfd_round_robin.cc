// One thread accepts and gives the connections to the workers in turn, through a queue and an
// eventfd for each.
//
// What its real-world counterparts do: memcached's dispatcher thread, Netty's boss with its default
// chooser, folly's AsyncServerSocket, brpc and many programs on libevent or Asio. HAProxy with
// `tune.listener.multi-queue fair` gives connections out in turn as well, but whichever thread has
// accepted does, for every thread polls the listener. The spread is even by count and blind to
// load. A worker that is slow goes on being given its part, and what is in its queue waits for it.
// Both folly and this pass a worker over once its queue of a thousand is full.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/eventfd_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

std::optional<uint32_t> Next(const std::vector<QueueView>& workers, uint32_t last) {
  const auto count = static_cast<uint32_t>(workers.size());
  for (uint32_t i = 1; i <= count; ++i) {
    if (const uint32_t worker = (last + i) % count; workers[worker].room) return worker;
  }
  return std::nullopt;
}

class EventfdRoundRobin : public Mechanism {
 public:
  std::string name() const override { return "eventfd-round-robin"; }
  std::string summary() const override {
    return "a thread accepts and gives to the workers in turn, by queue and eventfd";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartEventfdServer(options, Next);
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEventfdRoundRobin() { return std::make_unique<EventfdRoundRobin>(); }

}  // namespace ringmaster::bench
