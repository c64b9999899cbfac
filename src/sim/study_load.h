// The load of a study: when requests come, what each of them needs, and on whose connection. It is
// drawn before anything is served, so every policy, and the ideal beside them, gets the very same.
//
// A connection has one request, which comes with it. With LoadKind::kLongLived it has several;
// these come at times of their own, whether the one before has been served or not.

#ifndef RINGMASTER_SRC_SIM_STUDY_LOAD_H_
#define RINGMASTER_SRC_SIM_STUDY_LOAD_H_

#include <cstdint>
#include <span>
#include <vector>

namespace ringmaster::sim {

enum class LoadKind : uint8_t {
  kPoisson,    // independent arrivals, exponential service times
  kBursts,     // the same in bursts: so many at once, and the bursts independent
  kHeavyTail,  // independent arrivals, service times by a bounded Pareto distribution
  kOneSlow,    // kPoisson, and worker 0 needs kSlowFactor times as long for everything
  kOneDead,    // kPoisson, and worker 0 takes nothing more after a part of the arrivals
  kLongLived,  // connections of many requests, which stay with their worker
};

// kHeavyTail: P(longer than x) falls with x to the power of -kTailShape. kTailSpread: the longest
// time as a multiple of the shortest.
inline constexpr double kTailShape = 1.5;
inline constexpr double kTailSpread = 1000;
inline constexpr double kSlowFactor = 10;
// kOneDead: the worker dies when this part of the load has come.
inline constexpr double kDiesAfter = 0.25;
// kLongLived: requests of a connection (geometric), and open connections for each worker, on
// average.
inline constexpr uint32_t kRequestsMean = 32;
inline constexpr uint32_t kOpenMean = 8;
// kBursts: connections of one burst for each worker.
inline constexpr double kBurstPerWorker = 0.5;
// How many different clients there are for each worker. They connect equally often.
inline constexpr uint32_t kClientsPerWorker = 16;

inline constexpr uint32_t kNoRequest = UINT32_MAX;
inline constexpr uint32_t kNoWorker = UINT32_MAX;

struct LoadRequest {
  int64_t at_ns = 0;
  int64_t service_ns = 1;  // of a worker that is not slow
  uint32_t connection = 0;
  uint32_t next = kNoRequest;  // of the same connection
};

struct LoadConnection {
  uint32_t first = kNoRequest;
  uint32_t client = 0;  // who connects
  uint32_t cpu = 0;     // where its packets come in: as many CPUs as workers
  uint32_t hash = 0;    // by which the kernel chooses one of several listeners
};

struct Load {
  uint32_t workers = 0;
  std::vector<LoadRequest> requests;  // by time
  std::vector<LoadConnection> connections;
  uint32_t slow_worker = kNoWorker;
  uint32_t dead_worker = kNoWorker;
  int64_t dies_at_ns = 0;  // from when the dead worker begins nothing more

  int64_t ServiceNs(uint32_t worker, const LoadRequest& request) const;
  bool Dead(uint32_t worker, int64_t now_ns) const {
    return worker == dead_worker && now_ns >= dies_at_ns;
  }
};

struct LoadOptions {
  LoadKind kind = LoadKind::kPoisson;
  uint32_t workers = 2;
  uint32_t requests = 1;         // how many; about as many in bursts
  double load = 0.8;             // of what all workers together can serve, the dead one left out
  int64_t service_ns = 1000000;  // mean
  uint64_t seed = 1;
};

// The same options draw the same load.
Load DrawLoad(const LoadOptions& options);

// One request of a recorded load.
struct TracedArrival {
  int64_t at_ns = 0;
  int64_t service_ns = 1;
};

// A recorded load, each request with a connection of its own. With `load` above zero, the times
// between arrivals are stretched or squeezed until they make that load. The options' kind, requests
// and service time are ignored.
Load LoadOfTrace(std::span<const TracedArrival> trace, const LoadOptions& options);

// What part of the workers' time the load needs: all service, divided by the time in which it
// comes.
double OfferedLoad(std::span<const TracedArrival> trace, uint32_t workers);

// The shortest service time of kHeavyTail for this mean.
double TailShortest(double mean);

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_STUDY_LOAD_H_
