// Threads that call the set-up side, and one that lowers the limit of descriptors.

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "attack/checks.h"
#include "attack/world.h"

namespace ringmaster::attack {

void RunSetter(World& world, uint32_t number) {
  char name[12];
  std::snprintf(name, sizeof(name), "set%u", number);
  NameThread(name);
  Actor actor = {.world = world, .random = Random(world.seed, 10 + number)};
  while (!world.stop_setters) {
    CallSomething(actor);
    if (!actor.random.OneIn(4))
      std::this_thread::sleep_for(
          std::chrono::microseconds(actor.random.Below(world.config.aims ? 30000 : 2000)));
  }
}

void RunHog(const World& world) {
  while (!world.stop_setters) {
  }
}

void RunLimits(World& world) {
  NameThread("limits");
  Random random(world.seed, 900);
  rlimit normal;
  if (getrlimit(RLIMIT_NOFILE, &normal) != 0) return;
  while (!world.stop_setters) {
    std::this_thread::sleep_for(std::chrono::milliseconds(random.Between(1, 60)));
    rlimit low = normal;
    low.rlim_cur = Count().descriptors + random.Below(12);
    Note("RLIMIT_NOFILE is %llu", static_cast<unsigned long long>(low.rlim_cur));
    setrlimit(RLIMIT_NOFILE, &low);
    std::this_thread::sleep_for(std::chrono::milliseconds(random.Between(1, 25)));
    setrlimit(RLIMIT_NOFILE, &normal);
    Note("RLIMIT_NOFILE is normal");
  }
}

}  // namespace ringmaster::attack
