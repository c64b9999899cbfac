// An attack on the public headers: random sequences of every call that they have, on every host.
// Several threads call as their thread rules allow, and from the wrong ones where an error is
// promised. Meanwhile clients flood, reset and hang up, descriptors run out, hosts end and
// processes fork. Everything is drawn from a seed; how threads interleave is not.
//
//   ringmaster_attack --seconds 60               seeds 1, 2, 3 … for a minute
//   ringmaster_attack --seconds 60 --first 1000  the same from 1000 on
//   ringmaster_attack --seeds 17-40
//   ringmaster_attack --seed 17 --trace          prints every call
//   ringmaster_attack --seed 17 --lines 500      shows so many of the last calls if it fails
//   ringmaster_attack --seed 17 --here           in this process, for a debugger
//
// A process runs some worlds one after the other. The first one watches it, and prints the last
// calls of a world that fails or that hangs for 30 seconds. Exits with 0, with 1, or with 77 where
// io_uring cannot be used.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "attack/checks.h"
#include "attack/trace.h"
#include "attack/world.h"
#include "ring/features.h"

namespace ringmaster::attack {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kWorldsPerProcess = 16;
constexpr uint64_t kWorldsThatAim = 64;  // some of so many
constexpr auto kHangs = std::chrono::seconds(30);

struct Options {
  uint64_t first = 1;
  uint64_t last = UINT64_MAX;
  double seconds = 1e9;
  bool here = false;
  bool trace = false;
  size_t lines = 80;  // to show of a world that fails
};

void RunWorld(uint64_t seed) {
  BeginTrace(seed);
  NameThread("main");
  const Belongings before = Count();
  std::make_unique<World>(seed)->Run();
  CheckNothingIsLeft(before);
}

// Of a process: as many worlds as it may, up to `last`.
void RunWorlds(uint64_t first, uint64_t last, Clock::time_point until) {
  std::thread([] {}).join();  // a sanitizer may have one of its own from the first one on
  for (uint64_t seed = first; seed <= last && Clock::now() < until; ++seed) RunWorld(seed);
}

// Waits for the child. Whether all is well.
bool Watch(pid_t child, size_t lines) {
  uint64_t worlds = TracedWorlds();
  Clock::time_point moved = Clock::now();
  int status = 0;
  while (true) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) break;
    if (TracedWorlds() != worlds) {
      worlds = TracedWorlds();
      moved = Clock::now();
    }
    if (Clock::now() - moved > kHangs) {
      std::fprintf(stderr, "attack: seed %llu: hangs\n",
                   static_cast<unsigned long long>(TracedSeed()));
      PrintLastCalls(lines);
      kill(child, SIGABRT);
      waitpid(child, &status, 0);
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (status == 0) return true;
  std::fprintf(stderr, "attack: seed %llu: status %x; the last calls:\n",
               static_cast<unsigned long long>(TracedSeed()), static_cast<unsigned>(status));
  PrintLastCalls(lines);
  return false;
}

int Run(const Options& options) {
  const Clock::time_point until =
      Clock::now() +
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.seconds));
  uint64_t seed = options.first;
  if (options.here) {
    RunWorlds(seed, options.last, until);
    return 0;
  }
  while (seed <= options.last && Clock::now() < until) {
    const uint64_t last = std::min(options.last, seed + kWorldsPerProcess - 1);
    const pid_t child = fork();
    if (child < 0) return std::perror("fork"), 1;
    if (child == 0) {
      RunWorlds(seed, last, until);
      std::exit(0);  // so that leaks are looked for
    }
    if (!Watch(child, options.lines)) return 1;
    seed = last + 1;
  }
  std::printf("%llu worlds, seeds %llu to %llu, %llu accepted by permits\n",
              static_cast<unsigned long long>(TracedWorlds()),
              static_cast<unsigned long long>(options.first),
              static_cast<unsigned long long>(TracedSeed()),
              static_cast<unsigned long long>(TracedByPermit()));
  if (TracedWorlds() < kWorldsThatAim || TracedByPermit() > 0) return 0;
  std::fprintf(stderr, "attack: no source is aimed, so nothing of that was attacked\n");
  return 1;
}

int Usage() {
  std::fprintf(stderr,
               "usage: ringmaster_attack [--seed N | --seeds A-B | --first N] [--seconds S] "
               "[--lines N] [--trace] [--here]\n");
  return 2;
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--here") {
      options.here = true;
    } else if (name == "--trace") {
      options.trace = true;
    } else if (i + 1 == argc) {
      return Usage();
    } else if (name == "--seed") {
      options.first = options.last = std::strtoull(argv[++i], nullptr, 10);
    } else if (name == "--first") {
      options.first = std::strtoull(argv[++i], nullptr, 10);
    } else if (name == "--seeds") {
      char* end = nullptr;
      options.first = std::strtoull(argv[++i], &end, 10);
      options.last = *end == '-' ? std::strtoull(end + 1, nullptr, 10) : options.first;
    } else if (name == "--lines") {
      options.lines = std::strtoull(argv[++i], nullptr, 10);
    } else if (name == "--seconds") {
      options.seconds = std::strtod(argv[++i], nullptr);
    } else {
      return Usage();
    }
  }
  signal(SIGPIPE, SIG_IGN);
  PrepareTrace(options.trace);
  if (const auto features = ring::ProbeFeatures(); !features.ok()) {
    std::printf("skipped: %s\n", features.status().ToString().c_str());
    return 77;
  }
  return Run(options);
}

}  // namespace
}  // namespace ringmaster::attack

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
// The sanitizer follows descriptors by the calls that it intercepts. It does not see those that the
// kernel makes and closes by a ring. So a number seems to be used by two threads at once.
extern "C" const char* __tsan_default_options() {
  return "die_after_fork=0:ignore_interceptors_accesses=1";
}
// Also for runs by hand: what tests/thread_sanitizer.supp has for those of the suite, and why.
extern "C" const char* __tsan_default_suppressions() {
  return "race:^io_uring_\nrace:anon_inode:[io_uring]\n";
}
#endif
#endif

int main(int argc, char** argv) { return ringmaster::attack::Main(argc, argv); }
