// A thread of the library's own, which takes none of the program's signals.

#ifndef RINGMASTER_SRC_RING_QUIET_THREAD_H_
#define RINGMASTER_SRC_RING_QUIET_THREAD_H_

#include <pthread.h>

namespace ringmaster::ring {

// Starts a thread that blocks all signals, because these are for the program's own threads to take.
// `name`: as `top -H` shows it, at most 15 characters. Returns 0, or the errno for which there is
// no thread. The caller joins it.
int StartQuietThread(pthread_t& thread, const char* name, void* (*run)(void*), void* argument);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_QUIET_THREAD_H_
