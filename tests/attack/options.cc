// Options of every kind, among them such as the headers refuse.

#include "attack/world.h"

namespace ringmaster::attack {

BalancerOptions DrawBalancerOptions(World& world, Random& random, bool& refused) {
  BalancerOptions options;
  options.host = world.config.host;
  options.masters = world.config.masters;
  options.recall_after = absl::Microseconds(random.Of({100, 1000, 3000, 10000}));
  if (random.OneIn(4)) options.capacity = random.Between(1, 20);
  options.restrict_ring = !random.OneIn(4);
  options.completion_entries = random.Of({64u, 64u, 256u, 4096u});
  options.close_after_fork = random.OneIn(8);
  if (random.OneIn(4)) options.thread_name = "attacked";
  if (options.host == Host::kThread && random.OneIn(8)) options.cpu = 0;
  if (options.masters > 1) options.cpu = -1;
  if (!random.OneIn(8)) options.on_event = [&world](const Event& event) { world.OnEvent(event); };

  refused = random.OneIn(4);
  Note("capacity %u, completion_entries %u, restrict_ring %d, close_after_fork %d, recall %d us",
       options.capacity, options.completion_entries, options.restrict_ring,
       options.close_after_fork, static_cast<int>(absl::ToInt64Microseconds(options.recall_after)));
  if (!refused) return options;
  switch (random.Below(7)) {
    case 0:
      options.masters = random.Of({0u, 17u, UINT32_MAX});
      break;
    case 1:
      options.recall_after =
          random.Of({absl::ZeroDuration(), absl::Microseconds(99), absl::Minutes(2),
                     absl::InfiniteDuration(), -absl::InfiniteDuration()});
      break;
    case 2:
      options.capacity = 0;
      break;
    case 3:
      options.completion_entries = random.Of({0u, 63u, 65537u, UINT32_MAX});
      break;
    case 4:
      options.thread_name = "a name of 16 let";
      break;
    case 5:
      options.cpu = random.Of({-2, 1 << 20});
      break;
    default:
      if (options.host == Host::kThread) {
        options.cpu = 1 << 20;
      } else {
        options.masters = 2;
      }
  }
  return options;
}

}  // namespace ringmaster::attack
