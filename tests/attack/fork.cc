// Forked children: whatever they call, they are refused, they disturb nobody, and they can close
// what they have copies of.

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "attack/world.h"

namespace ringmaster::attack {
namespace {

constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;

// What the parent's thread hands to its child.
struct Inherited {
  Balancer* balancer;
  Port* port;
  Source source;
  Random random;
  bool destroys;
  bool closes;
};

// The line of the check that fails ends the child: it has no trace of its own to write to.
#define CHECK_IN_CHILD(condition)      \
  do {                                 \
    if (!(condition)) return __LINE__; \
  } while (false)

int Refuses(const Inherited& inherited) {
  Balancer& balancer = *inherited.balancer;
  CHECK_IN_CHILD(balancer.AddSource(0).status().code() == kRefused);
  CHECK_IN_CHILD(balancer.AddWorker({.ring_fd = 0}).status().code() == kRefused);
  CHECK_IN_CHILD(balancer.RunOnce().code() == kRefused);
  CHECK_IN_CHILD(balancer.Lend({}).code() == kRefused);
  CHECK_IN_CHILD(balancer.BeginShutdown().code() == kRefused);
  CHECK_IN_CHILD(balancer.Shutdown(absl::Seconds(1)).status.code() == kRefused);
  CHECK_IN_CHILD(balancer.Stats().status.code() == kRefused);
  (void)balancer.Ended();
  Source source = inherited.source;
  CHECK_IN_CHILD(source.Pause().code() == kRefused);
  CHECK_IN_CHILD(source.Resume().code() == kRefused);
  CHECK_IN_CHILD(source.Again().code() == kRefused);
  CHECK_IN_CHILD(source.SetPolicy(RoundRobin()).code() == kRefused);
  CHECK_IN_CHILD(source.Remove().code() == kRefused);
  if (inherited.port == nullptr || !inherited.port->joined()) return 0;
  Port& port = *inherited.port;
  CHECK_IN_CHILD(source.Join(port).code() == kRefused);
  CHECK_IN_CHILD(source.Leave(port).code() == kRefused);
  bool claimed = false;
  CHECK_IN_CHILD(!port.Claim([&](Connection) { claimed = true; }));
  CHECK_IN_CHILD(!claimed);
  port.BeforeWait();
  CHECK_IN_CHILD(!port.AfterWait());
  CHECK_IN_CHILD(!port.Claim([&](Connection) { claimed = true; }) && !claimed);
  CHECK_IN_CHILD(port.WatchSight().status().code() == kRefused);
  CHECK_IN_CHILD(port.draining() && port.ended());
  port.Took();
  port.Leave();
  return 0;
}

// The allocator of AddressSanitizer may be locked by another thread at the fork, and stays so in
// the child.
#ifdef RINGMASTER_TEST_FORKS_NOBODY
constexpr bool kForks = false;
#else
constexpr bool kForks = true;
#endif

// How many rings another thread may be making or closing in the library at the moment of a fork,
// which are in no table then.
constexpr int kOnTheirWay = 4;

// How many rings are open that are not the program's own.
int StrangeRings() {
  int strange = 0;
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  while (const dirent* entry = readdir(directory)) {
    char target[64] = {};
    if (readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1) < 0) continue;
    const int fd = std::atoi(entry->d_name);
    if (std::strcmp(target, "anon_inode:[io_uring]") == 0 && !Rings().is_ring[fd]) ++strange;
  }
  closedir(directory);
  return strange;
}

int RunChild(Inherited& inherited) {
  alarm(15);
  if (inherited.random.OneIn(2)) {
    const int line = Refuses(inherited);
    if (line != 0) return line;
  }
  if (inherited.destroys) delete inherited.balancer;
  if (!inherited.closes) return 0;
  AfterForkInChild();
  AfterForkInChild();
  CHECK_IN_CHILD(StrangeRings() <= kOnTheirWay);
  // It lives on for a moment, and keeps nothing of its parent's.
  std::this_thread::sleep_for(std::chrono::milliseconds(inherited.random.Below(20)));
  return 0;
}

}  // namespace

void ForkAndCheck(Actor& actor, Port* port) {
  if (!kForks) return;
  World& world = actor.world;
  const auto record = world.AnySource(actor.random);
  const BalancerUse balancer(world);
  const std::unique_lock no_rings(Rings().lock, std::try_to_lock);
  if (!balancer || record == nullptr || !no_rings.owns_lock()) return;
  Inherited inherited = {.balancer = balancer.get(),
                         .port = port,
                         .source = record->handle,
                         .random = Random(actor.random.Next()),
                         .destroys = actor.random.OneIn(3),
                         .closes = actor.random.OneIn(2)};
  Call call("fork%s%s", inherited.destroys ? ", destroys" : "", inherited.closes ? ", closes" : "");
  const pid_t child = fork();
  if (child < 0) return call.Returns("%s", std::strerror(errno));
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);
    const int line = RunChild(inherited);
    if (line != 0) std::fprintf(stderr, "attack: a forked child fails in %s:%d\n", __FILE__, line);
    _exit(line == 0 ? 0 : 1);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  call.Returns("%d", status);
  if (status != 0) Fail("a forked child ended with status %x", static_cast<unsigned>(status));
}

}  // namespace ringmaster::attack
