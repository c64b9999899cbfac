// A policy decides which worker gets an arrival. This header is pure: it makes no system call,
// reads no clock and starts no thread, so a policy can be tested, simulated and benchmarked alone.
//
//   Policy            the interface: one decision, `Pick`
//   Arrival           what a policy may know about the connection that it places
//   Candidate, View   what it may know about the workers
//   RoundRobin() …    the built-in policies, each with its source and when not to use it
//   PolicyByName      the same by the names that command lines use
//
// A policy of your own is a class like this one, which fills the first worker before it wakes the
// second, and a source that is given it, `{.policy = std::make_unique<FillFirst>(100)}`:
//
//   class FillFirst final : public ringmaster::Policy {
//    public:
//     explicit FillFirst(uint32_t open_max) : open_max_(open_max) {}
//     std::string name() const override { return "fill-first"; }
//     size_t Pick(const ringmaster::Arrival&, const ringmaster::View& view) override {
//       for (size_t i = 0; i < view.candidates.size(); ++i)
//         if (view.candidates[i].open < open_max_) return i;
//       return view.candidates.size() - 1;  // all are full; any position is right
//     }
//
//    private:
//     const uint32_t open_max_;
//   };
//
// What it remembers of workers it keeps by their indexes, in memory that `Prepare` allocates, and
// forgets in `OnLeave`. When it is put in the place of another policy while the source runs, it is
// prepared in the same way, finds workers in `joined` that it has not met, and may be told of
// recalls of offers that it did not pick.

#ifndef RINGMASTER_POLICY_H_
#define RINGMASTER_POLICY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ringmaster {

// What a policy needs to know about each arrival. A fact costs a system call for every connection,
// so it is read only when the policy of the source declares it.
struct FactsNeeded {
  bool incoming_cpu = false;  // SO_INCOMING_CPU: the CPU that processed the connection's packets
  bool peer = false;          // getpeername, and SO_PEERCRED for a Unix socket: who connects
};

// Who is at the other end of a connection.
struct Peer {
  enum class Kind : uint8_t {
    kUnknown,  // not declared, or the kernel does not tell (any more)
    kIpv4,     // also of an IPv6 listener that takes IPv4 (::ffff:0:0/96)
    kIpv6,
    kUnix,
  };
  Kind kind = Kind::kUnknown;
  uint16_t port = 0;  // kIpv4, kIpv6
  // kIpv4: 4 bytes in network order; kIpv6: 16 bytes. kUnix: process, user and group of the client
  // when it connected, 4 bytes each in the order of this machine. Zeros after that.
  std::array<uint8_t, 16> address{};
};

// One arrival, as far as the declared facts go. A fact may be unknown although it was declared:
// the kernel may not have it, and what was accepted before a policy was switched was not asked.
struct Arrival {
  int32_t incoming_cpu = -1;  // -1: unknown
  Peer peer = {};
};

// A worker that has credit now.
struct Candidate {
  uint32_t worker = 0;     // stable index of the worker within the balancer
  uint32_t open = 0;       // connections it serves or has been offered: leases not yet released
  uint32_t unclaimed = 0;  // of these, offers that it has not claimed yet
  uint32_t credit = 0;     // how many more it may be offered now; at least 1
  int32_t cpu = -1;        // the CPU on which it last claimed, or to which it is bound; -1: unknown
  // For how long it has not moved (claimed an offer or begun to claim) although offers wait for
  // it, in nanoseconds; 0 when none does.
  int64_t still_ns = 0;
  // Presumed to wait: nothing unclaimed, doorbell consumed, not inside Port::Claim. What a worker
  // does after Claim is not seen; an offer made then waits for its next Claim or for the recall.
  bool idle = false;
  // It drives the master (Host::kLoop, Host::kRing), so it is awake now and what it is offered
  // needs no wake-up.
  bool on_host = false;
};

// Which CPUs share what. Entry i describes CPU i; equal ids share. Empty: nothing is known.
struct CpuTopology {
  struct Cpu {
    int32_t core = -1;   // hardware threads of one core
    int32_t cache = -1;  // last-level cache
    int32_t node = -1;   // memory node
  };
  std::vector<Cpu> cpus = {};
};

// The workers of a source at the moment of a decision. Earlier picks of the same batch are already
// counted. The spans are valid during the call only.
struct View {
  // Those with credit, by ascending index; never empty.
  std::span<const Candidate> candidates = {};
  // All of the source, by ascending index: with those that lack credit now, so that a turn or a
  // hash stays stable.
  std::span<const uint32_t> joined = {};
  const CpuTopology* topology = nullptr;  // never null
};

// Picks a worker for each arrival of one source. The balancer owns its policies and calls them on
// the master's thread only, never concurrently, and never re-entrantly. `Pick` and `OnRecall` must
// not allocate, block or throw; they have no failure to report, because a policy is asked only when
// there is a worker that can take the arrival. If one of them or `OnLeave` throws, or `Pick`
// answers beyond the candidates, nothing is lost: the first candidate gets the arrival, the
// balancer says so once (Event::Kind::kPolicyFailed) and counts it (SourceStats::policy_faults). If
// `Prepare` throws, the process ends with a sentence. None of them may call the balancer.
class Policy {
 public:
  virtual ~Policy() = default;

  // The name that `PolicyByName` takes, parameters included.
  virtual std::string name() const = 0;

  virtual FactsNeeded facts() const { return {}; }

  // Set-up: every worker index is below `worker_slots` from now on. Called before the first `Pick`
  // and again whenever the number grows; allocate here.
  virtual void Prepare(uint32_t worker_slots) { (void)worker_slots; }

  // Returns a position in `view.candidates`.
  virtual size_t Pick(const Arrival& arrival, const View& view) = 0;

  // An offer picked for `worker` was taken back because the worker did not move, or could not be
  // handed to it; it is about to be placed again, by another `Pick`, among other workers.
  virtual void OnRecall(uint32_t worker) { (void)worker; }

  // `worker` has left the source. Its index may be given to another worker at once, which must not
  // inherit anything.
  virtual void OnLeave(uint32_t worker) { (void)worker; }
};

// Every worker in turn. A worker that lacks credit at its turn, or whose offer was recalled, is
// owed the turn and gets it as soon as it can take it.
std::unique_ptr<Policy> RoundRobin();

// The largest weight of a worker.
inline constexpr uint32_t kWeightMax = 1000;

struct WeightedRoundRobinOptions {
  // By worker index, each from 1 to kWeightMax. Workers beyond the list have 1.
  std::vector<uint32_t> weights = {};
};

// Every worker in turn, in proportion to its weight; the turns of the heavy ones are spread. Turns
// are owed as in round-robin. InvalidArgument names a weight that is out of range.
absl::StatusOr<std::unique_ptr<Policy>> WeightedRoundRobin(WeightedRoundRobinOptions options = {});

// The order in which waiting workers are woken.
enum class WakeOrder : uint8_t {
  kLifo,  // the one that was woken last: few workers stay hot, the others sleep
  kFifo,  // the one that was woken longest ago
};

// Wakes one worker that waits; while all are busy, the one with the fewest unclaimed offers. With
// kLifo arrivals that come together wake one worker: up to four offers, within 200 microseconds.
std::unique_ptr<Policy> Exclusive(WakeOrder order = WakeOrder::kLifo);

// How far from evenly loaded `AffinityCpu` may go for the sake of locality.
struct AffinityCpuOptions {
  uint32_t slack = 5;  // open connections above the least loaded candidate
};

// The worker nearest to the CPU on which the connection came in: same CPU, same core, same cache,
// same node. Needs SO_INCOMING_CPU.
std::unique_ptr<Policy> AffinityCpu(AffinityCpuOptions options = {});

// The same client, the same worker: by its address without the port, for a Unix socket by its
// process, user and group. While that worker lacks credit, the next in the client's own order. A
// worker that joins or leaves moves only those that it wins or loses. Needs the peer.
std::unique_ptr<Policy> AffinityHash();

// The worker with the fewest open connections; ties rotate.
std::unique_ptr<Policy> LeastLoaded();

struct TwoChoicesOptions {
  uint64_t seed = 0;  // the same seed and history: the same picks
};

// The one of two workers drawn at random that has fewer open connections.
std::unique_ptr<Policy> TwoChoices(TwoChoicesOptions options = {});

struct HermesOptions {
  uint32_t still_ms_max = 5;  // who has not moved for longer, with offers waiting, gets no more
};

// Turns among the workers that move and have neither many more open connections than the average
// nor many more unclaimed offers.
std::unique_ptr<Policy> Hermes(HermesOptions options = {});

// Makes a policy from a name: "round-robin", "weighted-round-robin:WEIGHT,…", "exclusive",
// "exclusive-fifo", "affinity-cpu:SLACK", "affinity-hash", "least-loaded", "two-choices:SEED",
// "hermes:STILL_MS". What follows a colon may be left out with it; then the options are the
// defaults. InvalidArgument says what is wrong and which names there are.
absl::StatusOr<std::unique_ptr<Policy>> PolicyByName(std::string_view name);

// The names that `PolicyByName` takes, without parameters, in the order to show them.
std::span<const std::string_view> PolicyNames();

}  // namespace ringmaster

#endif  // RINGMASTER_POLICY_H_
