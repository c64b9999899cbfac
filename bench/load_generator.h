// The clients: one connection for each request. Each connects and sends a small payload that no
// other connection sends. It reads the answer, compares it and sees by whom it was served
// (request.h). Then it closes, at once or after it has held the connection for some time. One
// thread, one epoll set.
//
// Two kinds of load, which answer different questions:
//
//   OpenLoop    starts follow a schedule that is fixed before the run, as users do who know nothing
//               of each other. Latency counts from the *intended* start: a server, or a generator,
//               that falls behind cannot hide it (no coordinated omission). This is the kind to
//               quote latency from.
//   ClosedLoop  a fixed number of clients, each of which waits for its answer, thinks and goes on.
//               A slow answer delays the next question, so latency flatters the server and is
//               labelled so. It measures throughput well, and how the work is divided.
//
// TCP clients take turns at the addresses of 127.1.0.0/16. The side that closes first keeps the
// pair of addresses and ports in TIME_WAIT for a minute, and one address has some 28,000 ports
// only.

#ifndef RINGMASTER_BENCH_LOAD_GENERATOR_H_
#define RINGMASTER_BENCH_LOAD_GENERATOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/books.h"
#include "bench/clock.h"
#include "bench/histogram.h"
#include "bench/target.h"

namespace ringmaster::bench {

struct OpenLoop {
  std::vector<int64_t> starts_ns;   // since the beginning of the run, ascending
  uint32_t connections_max = 4096;  // at most so many at once; later starts wait, on their clock
  int64_t hold_ns = 0;              // as in ClosedLoop
};

struct ClosedLoop {
  uint32_t clients = 1;
  int64_t think_ns = 0;  // between the end of one connection and the start of the next
  // How long a connection stays open after its answer; at most until the window ends. One that the
  // server ends before is a reset.
  int64_t hold_ns = 0;
};

// Clients that stay, see staying_clients.h.
struct StayingClients {
  uint32_t clients = 64;
  int64_t opening_ns = 3 * kMillisecond;  // from one client's first connection to the next one's;
                                          // 0: all come at once
  // Between the answer to a request and the next request, on the average. It is drawn for each
  // request from an exponential distribution, cut at five times the average. The first request
  // comes so long after the last client has come. They open first, as a pool of connections does.
  int64_t think_ns = 20 * kMillisecond;
  // Requests follow a schedule that waits for no answer, with gaps drawn as above. Latency counts
  // from the intended start. What comes meanwhile waits in its connection.
  bool open_loop = false;
  // Some clients ask much more often than others, and some stay much longer. Both follow a Pareto
  // distribution with index 1.2, cut at 1/8 and 8 times the average. A client whose time is over
  // closes, and another takes its place after one opening.
  bool unequal = false;
  int64_t stay_ns = 0;  // unequal: how long a connection lives, on the average
  uint64_t seed = 0;
  // Clients beside them that come with one request and go, each on a connection of its own.
  std::optional<OpenLoop> newcomers;
};

// One start every 1/rate seconds.
std::vector<int64_t> EvenSchedule(double connections_per_second, int64_t duration_ns);

// Starts that are independent of each other (a Poisson process), the same for the same seed.
std::vector<int64_t> PoissonSchedule(double connections_per_second, int64_t duration_ns,
                                     uint64_t seed);

using Load = std::variant<ClosedLoop, OpenLoop, StayingClients>;

inline constexpr uint32_t kPayloadBytesMin = 16;
// Fits into any socket buffer, so a send is whole.
inline constexpr uint32_t kPayloadBytesMax = 4096;

struct LoadOptions {
  Target target;
  Load load;
  int64_t warm_up_ns = 0;         // served, not counted
  int64_t duration_ns = kSecond;  // the window: counted
  int64_t grace_ns = kSecond;     // for what is under way when the window ends
  uint32_t payload_bytes = 64;    // kPayloadBytesMin to kPayloadBytesMax
  // How much a worker has to compute for a connection, by its number, in units (request.h); nothing
  // by default.
  std::function<uint32_t(uint64_t number)> work;
  bool log_answers = false;
  // Called on the generator's thread when the window begins (true) and when it ends (false).
  std::function<void(bool)> on_window;
};

// One connection of the window that was rightly answered.
struct Answer {
  uint64_t number = 0;  // in the order of the starts of the whole run
  int32_t worker = -1;  // that served it; -1: it did not say
  int64_t latency_ns = 0;
};

struct LoadResult {
  // Of the connections that were to start within the window, and got the right answer.
  Histogram latency_ns;
  bool open_loop = false;

  // Connections that were to start within the window, and what became of them.
  // started = answered + refused + reset + wrong + failed + unanswered.
  uint64_t started = 0;
  uint64_t answered = 0;
  uint64_t refused = 0;     // not let in
  uint64_t reset = 0;       // let in, then closed or reset without a whole answer
  uint64_t wrong = 0;       // the answer was not the question
  uint64_t failed = 0;      // the client itself could not: no descriptor, no port
  uint64_t unanswered = 0;  // nothing for the whole grace
  int failure = 0;          // errno of the first that failed

  uint64_t answered_in_window = 0;  // whenever they started
  int64_t window_ns = 0;            // how long the window really was
  int64_t cpu_ns = 0;               // what the generator computed during the window
  Histogram lag_ns;                 // open loop: how much later than intended it acted

  std::array<uint64_t, kWorkersMax> answered_by{};  // of `answered`, by worker
  std::vector<Answer> answers;                      // in the order of their ends, if asked for

  // Of clients that stay everything above counts requests, not connections. How many connections
  // each worker had, as its answers say: every 50 ms from the beginning of the run to the end of
  // the window.
  bool staying = false;
  struct Sample {
    int64_t at_ns = 0;  // since the window's beginning; negative in the warm-up
    std::array<uint32_t, kWorkersMax> connections{};
  };
  std::vector<Sample> samples;
  std::vector<LoadResult> newcomers;  // one, if there were any

  // Connections without the right answer.
  uint64_t lost() const { return started - answered; }
  double offered_per_second() const;
  double achieved_per_second() const;

  // Whether the generator computed nearly all the time: then it is what limits the throughput, and
  // connections per second say little about the server. Where both share the processors, the
  // machine can be the limit before either is.
  bool generator_limited() const;

  // Whether the latency may be quoted at all. Something must have been measured. In an open loop,
  // at least 99 % of what was offered must have been achieved. Below that the queue grows while the
  // run lasts, and percentiles say how long the run was. Besides, what 25 ms offer may be missing.
  // In a short window it is more than 1 %, and a hiccup just before the window's end is no growing
  // queue. That forgives what was answered late; what was turned away is in no queue and is
  // LatencyNs' to judge.
  bool latency_valid() const;

  // The latency that a part `quantile` (0 to 1) of all that was started did not exceed. What was
  // lost has waited for ever. So there is none when more was lost than the percentile leaves out,
  // or when no latency may be quoted. There is no longest latency when anything was lost.
  std::optional<uint64_t> LatencyNs(double quantile) const;
};

// A non-blocking socket for connection `number`, bound to the address whose turn it is; or -errno.
int ClientSocket(Transport transport, uint64_t number);

// Whether this process may have as many descriptors as the clients of `load` use at once. With
// fewer it would be another load, so ResourceExhausted says what limit would do.
absl::Status CheckDescriptors(const Load& load);

// Runs the load on the calling thread and returns when it is over. Fails only if it cannot begin.
absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_LOAD_GENERATOR_H_
