#include "ring/quiet_thread.h"

#include <signal.h>

namespace ringmaster::ring {

int StartQuietThread(pthread_t& thread, const char* name, void* (*run)(void*), void* argument) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  sigset_t all;
  sigfillset(&all);
  pthread_attr_setsigmask_np(&attributes, &all);
  const int error = pthread_create(&thread, &attributes, run, argument);
  pthread_attr_destroy(&attributes);
  if (error == 0) pthread_setname_np(thread, name);
  return error;
}

}  // namespace ringmaster::ring
