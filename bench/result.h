// What was measured: figures of one run, their summary over repetitions, and the context in which
// they are true. Plain data, without a clock or a system call, so that reports can be tested.

#ifndef RINGMASTER_BENCH_RESULT_H_
#define RINGMASTER_BENCH_RESULT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ringmaster::bench {

// Missing: does not apply to the mechanism, or must not be quoted (see LoadResult::LatencyNs).
using Figure = std::optional<double>;

// A cost per connection is that of the whole server over the connections that its workers took.
struct Figures {
  Figure connections_per_second;  // answered within the window
  Figure offered_per_second;      // open loop only
  Figure p50_us;
  Figure p99_us;
  Figure p999_us;
  Figure max_us;
  // Of clients that stay: what stands above is then of newcomers beside them, or missing.
  Figure requests_per_second;  // answered within the window
  Figure request_p50_us;       // from the intended start of a request to its answer
  Figure request_p99_us;
  Figure request_p999_us;
  Figure new_p50_us;  // from a newcomer's intended connect to its answer
  Figure new_p99_us;
  Figure jain;                          // by worker: 1 is even, 1/workers is one has all
  Figure max_over_mean;                 // the busiest worker's connections over the mean
  Figure worker_wakes_per_connection;   // returns from a worker's blocking wait
  Figure empty_wakes_per_connection;    // of those, the ones that found nothing to do
  Figure arrival_wakes_per_connection;  // of those, the ones that an arrival caused
  Figure master_wakes_per_connection;  // of the thread that accepts for the others, if there is one
  Figure doorbells_per_connection;     // messages that tell a worker to look
  Figure context_switches_per_connection;
  Figure system_calls_per_connection;
  Figure cpu_us_per_connection;
  Figure cpu_us_per_request;
  Figure generator_cpu_share;  // of one CPU, during the window
  Figure server_cpu_share;     // of one CPU, during the window
  Figure recalled;             // offers taken back, the whole run
  Figure lost;                 // connections without the right answer
  Figure reset;                // of those: let in, then closed without a whole answer
  Figure refused;              // of those: not let in
  // What single workloads ask.
  Figure idle_worker_share;  // of the trials, those that left a worker without any connection
  Figure resume_ms;          // from when it could go on until a connection was answered again
  Figure over_cap;           // connections open at once beyond what was allowed

  // Whether it was offered more than it achieved, see LoadResult::latency_valid.
  bool fell_behind() const {
    return offered_per_second.has_value() && !p99_us.has_value() && !request_p99_us.has_value();
  }
};

// A name for each figure, as JSON writes it.
struct FigureName {
  const char* name;
  Figure Figures::*figure;
};
std::span<const FigureName> FigureNames();

// Whether it is one of the latencies, which are missing where a mechanism fell behind.
bool IsPercentile(Figure Figures::*figure);

// Jain's fairness index, (Σx)² / (n Σx²); 1 for no values or only zeros.
double JainIndex(std::span<const double> values);

// The largest value over the mean; 1 for no values or only zeros.
double MaxOverMean(std::span<const double> values);

// How many connections each worker had.
struct ConnectionsAt {
  double seconds = 0;  // since the window's beginning; negative: in the warm-up
  std::vector<uint32_t> by_worker;
};

// One run.
struct RunResult {
  Figures figures;
  std::vector<double> shares;  // of the connections in the window, by worker; sum 1, or none
  std::vector<ConnectionsAt> over_time;  // of clients that stay
  std::vector<uint32_t> order;     // the worker of each connection, where a workload asks for it
  bool generator_limited = false;  // the load generator was the bottleneck, not the server
};

// All repetitions of one mechanism under one workload.
struct Series {
  std::string mechanism;
  std::string workload;
  std::string transport;
  bool pinned = false;
  uint32_t workers = 0;
  double seconds = 0;           // one window
  std::string skipped;          // why it cannot run here; then there are no runs
  std::vector<RunResult> runs;  // by repetition: those with the same index ran side by side
};

// One mechanism under one workload.
struct Result {
  std::string mechanism;
  std::string workload;
  std::string transport;
  bool pinned = false;
  uint32_t workers = 0;
  uint32_t repetitions = 0;
  double seconds = 0;   // one window, which may be longer than Context::seconds
  std::string skipped;  // why there are no figures; empty: there are
  // Each figure by itself. A percentile that is missing counts as longer than any. So the
  // repetitions in which the mechanism kept up do not speak for all. Another figure is missing if
  // it is missing in half the repetitions.
  Figures median;
  Figures low;  // least and largest of the repetitions that have it
  Figures high;
  // Over epoll-exclusive, repetition by repetition: whatever drifts during a measurement is in both
  // sides of a pair. Missing where there is no such pair, or where its other side is zero. Of
  // percentiles, one that is missing on one side only counts as longer than any here, too.
  Figures ratio;  // the median of the pairs
  Figures ratio_low;
  Figures ratio_high;
  std::vector<Figures> runs;  // by repetition
  // By worker, of the repetition whose Jain index is the median one. A mean over repetitions would
  // look even when each of them favours another worker.
  std::vector<double> shares;
  std::vector<uint32_t> order;           // of the same repetition
  std::vector<ConnectionsAt> over_time;  // the same
  uint32_t generator_limited_count = 0;  // repetitions in which the generator was the bottleneck
  uint32_t fell_behind_count = 0;        // repetitions that achieved too little for percentiles

  // Whether its throughput says more about the generator than about the server.
  bool generator_limited() const {
    return generator_limited_count * 2 >= repetitions && repetitions > 0;
  }
};

// The mechanism that the others are compared with.
inline constexpr char kReference[] = "epoll-exclusive";

// The results of `all`, in their order.
std::vector<Result> Summarize(std::span<const Series> all);

// What a workload is there to answer.
enum class Question : uint8_t {
  kShare,       // who serves when anybody could, and what that costs
  kThroughput,  // how much is served when there is more than enough
  kTail,        // who waits when a worker is slow
  kLoss,        // who is turned away, or let in and then forgotten
  kStaying,     // how those are served whose connections stay
};

struct WorkloadText {
  std::string name;
  std::string title;
  std::string description;
  Question question = Question::kShare;
  bool open_loop = false;
  std::vector<uint32_t> slow_workers;
};

struct Context {
  std::string program;  // name and version
  std::string date;     // UTC
  std::string kernel;   // X.Y.Z, without a distribution's or a host's suffix
  uint32_t cpus = 0;
  uint32_t cpus_allowed = 0;  // of those, the ones that this process may run on; 0: unknown
  std::string cpu_model;
  std::string governor;     // of the CPU's frequency
  std::string mitigations;  // of the CPU's vulnerabilities
  std::string liburing;
  std::string ring_flags;  // what the kernel grants of what is asked for
  std::string compiler;
  std::string build_flags;
  std::string commit;   // "unknown" where there is no clone
  std::string command;  // that repeats the measurement
  uint64_t seed = 0;
  double seconds = 0;  // one window, where a workload needs no longer one
  double warm_up_seconds = 0;
  uint32_t hogs = 0;       // processes that were busy meanwhile, as was asked for
  double load_before = 0;  // load average of the last minute when the measurement began

  uint32_t usable_cpus() const { return cpus_allowed > 0 ? cpus_allowed : cpus; }

  // Whether other work had so much of the machine that the figures need a warning.
  bool busy() const { return load_before > 0.5 * usable_cpus(); }
};

struct MechanismText {
  std::string name;
  std::string summary;  // one sentence
};

struct Report {
  Context context;
  std::vector<MechanismText> mechanisms;
  std::vector<WorkloadText> workloads;
  std::vector<Result> results;  // grouped by workload, mechanisms in the order asked for

  // Those of one workload.
  std::vector<const Result*> Of(const std::string& workload) const;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_RESULT_H_
