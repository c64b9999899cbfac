// Two echo servers in C, on epoll and on io_uring, as server_test.c starts them. Their workers
// serve until the balancer has ended.

#ifndef RINGMASTER_TESTS_C_SERVER_H_
#define RINGMASTER_TESTS_C_SERVER_H_

#include "ringmaster/ringmaster.h"

typedef struct server_worker {
  ringmaster_balancer* balancer;
  ringmaster_source* source;
} server_worker;

// For pthread_create; the context is a server_worker.
void* WorkOnEpoll(void* context);
void* WorkOnRing(void* context);

#endif  // RINGMASTER_TESTS_C_SERVER_H_
