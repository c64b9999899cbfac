// One world: a balancer, the threads that attack it, and what they share.
//
//   host      drives the master where it has none of its own; its threads end and others go on
//   workers   claim, and change their own ports in every way
//   setters   call the set-up side, often what is wrong
//   clients   connect, flood, reset, hang up; and check what they are answered
//   limits    lowers RLIMIT_NOFILE for a moment
//   hogs      keep the CPUs busy
//
// First everybody draws from the seed (safety: nothing crashes or hangs, every answer is one that
// the headers name). Then, in most worlds, all that was spoilt on purpose is mended, and everything
// must be served (liveness). Then the balancer ends in one of several ways, and nothing is left.

#ifndef RINGMASTER_TESTS_ATTACK_WORLD_H_
#define RINGMASTER_TESTS_ATTACK_WORLD_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "attack/clients.h"
#include "attack/random.h"
#include "attack/things.h"
#include "attack/trace.h"
#include "ringmaster/balancer.h"

namespace ringmaster::attack {

// How the balancer ends.
enum class End : uint8_t {
  kShutdown,           // by Shutdown, from a thread that is neither host nor worker
  kTwoShutdowns,       // from two threads at once
  kBeginShutdown,      // by BeginShutdown, then Ended
  kDestroyed,          // by the destructor alone; with a host on the host's thread
  kHostGoneDestroyed,  // the same when the host has ended
};

// What the seed decides before anything happens.
struct Config {
  Host host = Host::kThread;
  uint32_t masters = 1;
  uint32_t workers = 1;
  uint32_t setters = 1;
  uint32_t duration_ms = 100;
  int backlog = 4096;
  bool hostile_policies = false;
  bool lowers_limits = false;
  uint32_t hogs = 0;
  bool aims = false;  // much that can be aimed, and little set-up meanwhile
  bool forks = false;
  bool hosts_end = false;
  bool spoils_files = false;  // listeners are shut down, closed or made blocking under the balancer
  bool ends_early = false;    // somebody may shut down while the others still attack
  bool checks_liveness = true;
  End end = End::kShutdown;

  static Config Draw(Random& random);
  std::string Text() const;
};

class World;

// Who calls: a thread of the world with its own stream of draws.
struct Actor {
  World& world;
  Random random;
  bool is_host = false;
  bool is_worker = false;
  bool may_end = false;  // its thread may be cancelled
};

// The balancer, kept from being destroyed while it is used. Null when it was.
class BalancerUse {
 public:
  explicit BalancerUse(World& world);
  explicit operator bool() const { return balancer_ != nullptr; }
  Balancer* operator->() const { return balancer_; }
  Balancer* get() const { return balancer_; }

 private:
  std::shared_lock<std::shared_mutex> lock_;
  Balancer* balancer_;
};

class World {
 public:
  explicit World(uint64_t seed);
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void Run();

  // --- Shared by the actors.

  const uint64_t seed;
  Random random;
  const Config config;

  std::atomic<bool> stop_setters{false};
  std::atomic<bool> calm{false};  // workers mend their ports and only serve from now on
  std::atomic<bool> stop_workers{false};
  std::atomic<bool> stop_host{false};
  std::atomic<bool> destroy_on_host{false};
  std::atomic<bool> ending{false};  // somebody has asked for the end
  std::atomic<bool> master_failed{false};
  std::atomic<uint32_t> calm_workers{0};  // that have mended their ports
  std::atomic<bool> calm_host{false};     // the same of a host

  // Whether a thread is the host for certain: its lock is held shared by whoever relies on it.
  std::shared_mutex hosting_lock;
  bool hosting = false;

  std::shared_mutex balancer_lock;
  std::unique_ptr<Balancer> balancer;
  std::atomic<Balancer*> for_callbacks{nullptr};

  Clients clients;

  // Sources.
  std::shared_ptr<SourceRecord> NewRecord();
  // Those that Balancer::AddSource has taken, also when they were removed since.
  std::shared_ptr<SourceRecord> AnySource(Random& random);
  std::shared_ptr<SourceRecord> SourceById(uint32_t id);
  std::vector<std::shared_ptr<SourceRecord>> Sources();
  size_t CountSources();  // that were not removed
  void Publish(std::shared_ptr<SourceRecord> record);

  // Ports that other threads may join to sources.
  uint64_t NewSerial() { return next_serial_.fetch_add(1) & 0xffffff; }
  void Publish(std::shared_ptr<PortBox> box);
  void Forget(const PortBox& box);
  std::shared_ptr<PortBox> AnyPort(Random& random);

  // What a worker does with a connection, and with a ticket. `token` tells the source.
  void Serve(Random& random, Connection connection);
  void PassOn(SourceRecord& record, Connection connection);
  // One that was put aside goes to its own source, or to another one.
  void PassOneOn(Random& random);
  void Redeem(Random& random, Ticket ticket);
  // The same for what came as a completion. `port` is null when it is gone.
  void ServeHandedOver(Random& random, Port* port, const io_uring_cqe& cqe);
  // Whether what comes under this token is a ticket.
  bool BringsTickets(uint64_t token) { return SourceOf(token)->intake == Intake::kReadiness; }
  // A token that a port of this serial was joined with; anything else ends the program.
  std::shared_ptr<SourceRecord> SourceOf(uint64_t token);

  // Things that were put aside and that any thread finishes: leases, connections, tickets, ports
  // that nobody claims from.
  void FinishOne(Random& random);
  void FinishAll();
  void PutAside(Port port);
  Port TakeSparePort(Random& random);

  // Shutdowns: each of the callbacks is due once.
  ShutdownOptions DrawShutdown(Random& random, absl::Duration drain_max);

  void OnEvent(const Event& event);

  // Waits until `done()`, at most `seconds`; fails with `what` otherwise.
  template <class Done>
  void WaitFor(double seconds, const std::string& what, Done done) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(
                                               std::chrono::duration<double>(seconds));
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) Fail("%s", what.c_str());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  struct Due {
    std::atomic<int> intake_ended{0};
    std::atomic<int> ended{0};
    bool wants_intake_ended = false;
    bool wants_ended = false;
  };

  bool CreateBalancer();
  void MendAndCheckLiveness();
  void Mend();
  void JoinEverything();
  void CheckThatEverythingIsServed();
  void CheckThatNothingIsOpen();
  void EndBalancer();
  void CheckDue();

  std::mutex sources_mutex_;
  std::vector<std::shared_ptr<SourceRecord>> sources_;
  std::atomic<uint32_t> next_source_{1};

  std::mutex ports_mutex_;
  std::vector<std::shared_ptr<PortBox>> ports_;
  std::atomic<uint64_t> next_serial_{1};

  std::mutex aside_mutex_;
  std::vector<Lease> leases_;
  std::vector<Connection> connections_;
  std::vector<Ticket> tickets_;
  std::vector<Port> spare_ports_;

  std::mutex due_mutex_;
  std::vector<std::shared_ptr<Due>> due_;

  std::atomic<bool> in_event_{false};
  Random event_random_;
};

// The actors; each returns when the world stops it.
void RunHost(World& world);
void RunWorker(World& world, uint32_t number);
void RunSetter(World& world, uint32_t number);
void RunLimits(World& world);
void RunHog(const World& world);

// One call of the set-up side, drawn; with everything that is wrong now and then.
void CallSomething(Actor& actor);

// What a worker may say of a ticket of this source that it gives back.
int DrawError(Random& random, const SourceRecord& record);

// Options and policies, also such as are refused (`refused` says so).
BalancerOptions DrawBalancerOptions(World& world, Random& random, bool& refused);
std::unique_ptr<Policy> DrawPolicy(World& world, Random& random);

// Forks; the child calls what its parent has, and must be refused everywhere. `port` and `ticket`
// are the calling thread's, or null.
void ForkAndCheck(Actor& actor, Port* port);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_WORLD_H_
