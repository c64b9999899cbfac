#include "runtime/apart.h"

#include <pthread.h>
#include <signal.h>

#include "ring/errors.h"

namespace ringmaster::internal {
namespace {

struct Work {
  absl::FunctionRef<absl::Status()> run;
  absl::Status result;
};

void* Run(void* work) {
  Work& it = *static_cast<Work*>(work);
  it.result = it.run();
  return nullptr;
}

}  // namespace

absl::Status RunApart(absl::FunctionRef<absl::Status()> run) {
  Work work{.run = run};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  sigset_t all;
  sigfillset(&all);
  pthread_attr_setsigmask_np(&attributes, &all);
  pthread_t thread{};
  const int error = pthread_create(&thread, &attributes, Run, &work);
  pthread_attr_destroy(&attributes);
  if (error != 0) return ring::ErrorStatus(ring::Operation::kStartThread, error);
  pthread_join(thread, nullptr);
  return work.result;
}

}  // namespace ringmaster::internal
