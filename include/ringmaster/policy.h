// A policy decides which worker gets an arrival. This header is pure: it makes no system call,
// reads no clock and starts no thread. So a policy can be tested, simulated and benchmarked alone.
//
//   Policy            the interface: one decision, `Pick`
//   Arrival           what a policy may know about the connection that it places
//   Candidate, View   what it may know about the workers, and Activity what one of them does
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
// Some policies must not give an arrival to just anybody, for instance because each client belongs
// to one worker. Such a policy answers kNobodyNow while that worker is not among the candidates:
//
//     for (size_t i = 0; i < view.candidates.size(); ++i)
//       if (view.candidates[i].worker == WorkerFor(arrival.peer)) return i;
//     return kNobodyNow;
//
// A policy that remembers workers does so by their indexes, in memory that `Prepare` allocates, and
// forgets them in `OnLeave`. A policy may replace another one while the source runs. It is prepared
// in the same way then. It finds workers in `joined` that it has not met, and may be told of
// recalls of offers that it did not pick.

#ifndef RINGMASTER_POLICY_H_
#define RINGMASTER_POLICY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "ringmaster/span.h"

namespace ringmaster {

// Which facts a policy needs about each arrival. A fact costs a system call for every connection,
// so it is read only when the policy of the source declares it.
struct FactsNeeded {
  bool incoming_cpu = false;  // SO_INCOMING_CPU: the CPU that processed the connection's packets
  bool peer = false;          // getpeername, and SO_PEERCRED for a Unix socket: who connects
};

// Who is at the other end of a connection.
struct Peer {
  enum class Kind : uint8_t {
    kUnknown,  // not declared, or the kernel does not tell (any more)
    kIpv4,     // also when an IPv4 client comes to an IPv6 listener (::ffff:0:0/96)
    kIpv6,
    kUnix,
  };
  Kind kind = Kind::kUnknown;
  uint16_t port = 0;  // kIpv4, kIpv6
  // kIpv4: 4 bytes in network order; kIpv6: 16 bytes. kUnix: process, user and group of the client
  // when it connected, 4 bytes each in the byte order of this machine. The rest is zeros.
  std::array<uint8_t, 16> address{};
};

// One arrival: the facts that the policy declared. A declared fact may still be unknown, for two
// reasons. The kernel may not have it. Or the connection was accepted under an earlier policy that
// had not declared it.
struct Arrival {
  int32_t incoming_cpu = -1;  // -1: unknown
  Peer peer = {};
  // It was passed on with a request that waits (PassOnOptions::request_waits). Such a connection is
  // dealt among the candidates that wait, if there are any: Pick is shown them alone. If it picks
  // nobody of them, it is asked once more and shown all.
  bool request_waits = false;
};

// What a worker does now, as far as is known. The number is what each connection of such a worker
// weighs in a policy that goes by load: its own, and the one that it would get. So those of a
// worker that is busy count twice, and of equally loaded workers one that is idle comes first.
enum class Activity : uint16_t {
  // It waits, and has nothing unclaimed. Of a worker that gives hints (Port::BeforeWait) this is a
  // fact. Of any other it is presumed: it has consumed its doorbell and is not inside Port::Claim.
  // What such a worker does after Claim cannot be seen, so an offer to it may wait for its next
  // Claim, or for the recall.
  kIdle = 256,
  // It is inside Port::Claim, or has something to claim and has not said that it is busy.
  kClaiming = 257,
  // It gives hints, and has said that it does not wait: it does something, and comes to new offers
  // later. A worker that gives no hints is never busy.
  kBusy = 513,
};

// A worker that has credit now.
struct Candidate {
  uint32_t worker = 0;     // stable index of the worker within the balancer
  uint32_t open = 0;       // connections it serves or has been offered: leases not yet released
  uint32_t unclaimed = 0;  // of these, offers of this master that it has not claimed yet
  uint32_t credit = 0;     // how many more it may be offered now; at least 1
  int32_t cpu = -1;        // the CPU on which it last claimed, or to which it is bound; -1: unknown
  // How long it has not moved (claimed an offer, or begun to claim) although offers wait for it, in
  // nanoseconds; 0 when no offer waits.
  int64_t still_ns = 0;
  Activity activity = Activity::kClaiming;
  // The worker drives the master (Host::kLoop, Host::kRing). So it is awake now, and what it is
  // offered needs no wake-up.
  bool on_host = false;

  // Short for comparing `activity`.
  bool idle() const { return activity == Activity::kIdle; }
  bool busy() const { return activity == Activity::kBusy; }
};

// Which CPUs share what. Entry i describes CPU i; CPUs with equal numbers share the thing. Empty:
// nothing is known. -1: this one is not known.
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
  // The workers with credit, by ascending index; never empty.
  Span<const Candidate> candidates = {};
  // All workers that have joined the source, by ascending index. It includes those without credit,
  // so that a turn or a hash stays stable.
  Span<const uint32_t> joined = {};
  const CpuTopology* topology = nullptr;  // never null
};

// Picks a worker for each arrival of one source. The balancer owns its policies. It calls them on
// the master's thread only, unless AnyThread says otherwise, never concurrently and never
// re-entrantly. A policy must not call the balancer.
//
// `Pick` and `OnRecall` must not allocate, block or throw. They have no failure to report. A policy
// is asked only when some worker has credit, and may answer that nobody shall have the arrival now.
//
// If one of these, `MayMove` or `OnLeave` throws, or `Pick` answers anything else beyond the
// candidates, nothing is lost: the first candidate gets the arrival. The balancer reports it once
// (Event::Kind::kPolicyFailed) and counts it each time (SourceStats::policy_faults). If `Prepare`
// throws, the process ends with a sentence.
class Policy {
 public:
  virtual ~Policy() = default;

  // The name that `PolicyByName` takes, parameters included.
  virtual std::string name() const = 0;

  // What it wants to know of each arrival.
  virtual FactsNeeded facts() const { return {}; }

  // Whether other threads than the master's may ask it, too: those of workers, and those that
  // release leases. Still never two at a time, and each call sees what the one before has written.
  // Then a source can be decided on before its connections come, so that the worker that gets one
  // is woken by the kernel, without the master between them (Port::WatchSight). It is shown workers
  // that wait then, if any do. So a policy whose shares must be kept although a worker is busy says
  // no. Needs facts() to be empty. The built-in policies without facts say yes, but for two.
  // `exclusive`: who was woken last, and is awake still, is not known before an arrival.
  // `weighted-round-robin`: the heaviest worker waits least.
  virtual bool AnyThread() const { return false; }

  // Set-up: every worker index is below `worker_slots` from now on. Called before the first `Pick`,
  // and again whenever the number grows. Allocate memory here.
  virtual void Prepare(uint32_t worker_slots) { (void)worker_slots; }

  // What `Pick` returns to set the arrival aside. The built-in policies never do.
  //
  // An arrival that is set aside keeps its place in the order in which arrivals came. It holds up
  // neither those behind it nor other sources, because it has no credit at any worker. The policy
  // is asked about it again:
  //  * when a worker becomes a candidate, or a candidate has fewer open connections or unclaimed
  //    offers than before, has become idle, or is busy no more;
  //  * when a worker has joined or left, and when another policy takes over;
  //  * otherwise after 5 to 100 ms, for policies that go by something of their own. The longer
  //    nothing changes, the longer this takes.
  //
  // A source sets aside no more arrivals than SourceOptions::hold, and no more than 1,024. At that
  // limit nothing more is taken in. What came with the last of them is held without being asked
  // about, until the policy picks a worker for one that is set aside. The limit is reported once
  // (Event::Kind::kSetAside), and so is an arrival that was set aside for a second. SourceStats
  // counts them. No other worker gets such an arrival, however long that takes. It ends only as
  // other held arrivals do: by age_max, when the last worker of a removed source leaves, or at the
  // deadline of a shutdown. A ticket ends with its source, or with the intake.
  //
  // A connection that is set aside is open, so it counts in the capacities of the source and of the
  // balancer. Tickets are set aside like connections, but have no facts to decide by.
  //
  // While anything is set aside, each worker of the master wakes it when it makes credit, as when
  // nobody has credit. An offer may be recalled from a worker that does not move as soon as another
  // one has credit. If the policy then picks nobody, the arrival waits until its own worker has
  // moved; SourceOptions::recall switches that off.
  static constexpr size_t kNobodyNow = SIZE_MAX;

  // A connection that a worker has passed on (Source::PassOn) is shown without that worker: neither
  // in `candidates` nor in `joined`.
  //
  // Returns a position in `view.candidates`, or kNobodyNow.
  virtual size_t Pick(const Arrival& arrival, const View& view) = 0;

  // An offer that was picked for `worker` was recalled because the worker did not move or is busy,
  // or could not be handed to it. Another `Pick` is about to place it among other workers.
  virtual void OnRecall(uint32_t worker) { (void)worker; }

  // An offer that was picked for `from` lies there, and `from` has said that it is busy; `to` waits
  // and has nothing unclaimed. Whether the policy would have taken either. If so, the offer is
  // recalled (OnRecall), and Pick is asked to place it among such workers as `to`; they alone are
  // in View::candidates then. An offer is moved once at most. By default nothing is moved, and what
  // lies with a busy worker waits for that, or for recall_after.
  virtual bool MayMove(const Arrival& arrival, const Candidate& from, const Candidate& to) const {
    (void)arrival, (void)from, (void)to;
    return false;
  }

  // `worker` has left the source. Its index may be given to another worker at once. That worker
  // must not inherit anything.
  virtual void OnLeave(uint32_t worker) { (void)worker; }

  // Where workers are processes, each of them has a policy object of its own, and is asked in turn.
  // What the policy remembers goes from one to the next as plain numbers in memory that they share:
  // whoever is about to be asked loads what the one before has saved. `words` has kMemoryWords and
  // one for each worker slot. Neither may allocate. False: this policy cannot be moved, and workers
  // that are processes cannot have it. The built-in ones of AnyThread can.
  static constexpr size_t kMemoryWords = 4;
  virtual bool Save(Span<uint64_t> words) const {
    (void)words;
    return false;
  }
  // Whatever the words are, the policy is sound afterwards: another process may have been killed
  // while it wrote them, or may have written nonsense. Zeros make it as new. So does what it cannot
  // have saved.
  virtual bool Load(Span<const uint64_t> words) {
    (void)words;
    return false;
  }
};

// Some policies prefer one that waits among workers of which they would take either: see
// Activity::kBusy, which only workers that give hints can be. Each says so below.

// Every worker in turn. A worker that lacks credit at its turn, or whose offer was recalled, is
// owed that turn. It gets the turn as soon as it has credit. Turns are exact, so it does not matter
// who waits.
std::unique_ptr<Policy> RoundRobin();

// The largest weight of a worker.
inline constexpr uint32_t kWeightMax = 1000;

struct WeightedRoundRobinOptions {
  // By worker index, each from 1 to kWeightMax. Workers beyond the list have 1.
  std::vector<uint32_t> weights = {};
};

// Every worker in turn, in proportion to its weight. The turns of heavy workers are spread out.
// Turns are owed, and exact, as in round-robin. InvalidArgument names a weight that is out of
// range.
absl::StatusOr<std::unique_ptr<Policy>> WeightedRoundRobin(WeightedRoundRobinOptions options = {});

// The order in which waiting workers are woken.
enum class WakeOrder : uint8_t {
  kLifo,  // the one that was woken last: few workers stay hot, the others sleep
  kFifo,  // the one that was woken longest ago
};

// Picks one worker that is idle, in this order; while all are busy, the one with the fewest
// unclaimed offers. With kLifo, arrivals that come together wake a single worker: up to four
// offers, within 200 microseconds.
std::unique_ptr<Policy> Exclusive(WakeOrder order = WakeOrder::kLifo);

// How far from evenly loaded `AffinityCpu` may go for the sake of locality.
struct AffinityCpuOptions {
  uint32_t slack = 5;  // open connections above the least loaded candidate
};

// The worker nearest to the CPU on which the connection came in: the same CPU, else the same core,
// else the same cache, else the same node. Among equally near ones it decides like least-loaded.
// Needs the fact incoming_cpu.
std::unique_ptr<Policy> AffinityCpu(AffinityCpuOptions options = {});

// The same worker for the same client. A client is known by its address without the port; at a Unix
// socket by its process, user and group. Each client has an order of workers of its own: while the
// first lacks credit, the next gets the connection. A worker that joins or leaves moves only the
// clients that it wins or loses. Needs the fact peer.
std::unique_ptr<Policy> AffinityHash();

struct LeastLoadedOptions {
  // Equals take turns. Otherwise the one with the lowest index gets the connection, so at light
  // load few workers are awake and the others sleep.
  bool rotate_ties = true;
};

// The worker with the fewest open connections; those of a busy one count twice.
std::unique_ptr<Policy> LeastLoaded(LeastLoadedOptions options = {});

struct TwoChoicesOptions {
  uint64_t seed = 0;  // the same seed and the same history give the same picks
};

// Draws two workers at random, and picks the one with fewer open connections; those of a busy one
// count twice.
std::unique_ptr<Policy> TwoChoices(TwoChoicesOptions options = {});

struct HermesOptions {
  // A worker that has not moved for longer than this, although offers wait for it, gets no more.
  uint32_t still_ms_max = 5;
};

// Turns among the workers that pass three tests: they move, and have neither many more open
// connections nor many more unclaimed offers than the average. Of these, among the ones that are
// not busy, if there are any.
std::unique_ptr<Policy> Hermes(HermesOptions options = {});

// Makes a policy from a name: "round-robin", "weighted-round-robin:WEIGHT,…", "exclusive",
// "exclusive-fifo", "affinity-cpu:SLACK", "affinity-hash", "least-loaded:first",
// "two-choices:SEED", "hermes:STILL_MS". A colon and what follows it may be left out; then the
// options have their defaults. InvalidArgument says what is wrong, and which names there are.
absl::StatusOr<std::unique_ptr<Policy>> PolicyByName(std::string_view name);

// The names that `PolicyByName` takes, without parameters, in the order to show them.
Span<const std::string_view> PolicyNames();

}  // namespace ringmaster

#endif  // RINGMASTER_POLICY_H_
