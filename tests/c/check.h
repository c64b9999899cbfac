// What the tests in C share: claims that end the test when they do not hold, listeners and clients
// on loopback. In C99.

#ifndef RINGMASTER_TESTS_C_CHECK_H_
#define RINGMASTER_TESTS_C_CHECK_H_

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "ringmaster/ringmaster.h"

// Ends the test unless the claim holds.
#define EXPECT(claim) Expect(claim, #claim, __FILE__, __LINE__)
// Ends the test unless the call has done what it says, that is returned no error.
#define MUST(call) Must(call, #call, __FILE__, __LINE__)
// Ends the test unless the call fails with this errno and a text that has these words.
#define EXPECT_ERROR(call, error, words) ExpectError(call, error, words, #call, __FILE__, __LINE__)

enum { kSkipped = 77 };

static inline void Expect(int holds, const char* claim, const char* file, int line) {
  if (holds) return;
  fprintf(stderr, "%s:%d: does not hold: %s (last error: %s)\n", file, line, claim,
          ringmaster_last_error());
  exit(1);
}

static inline int64_t Must(int64_t result, const char* call, const char* file, int line) {
  if (result >= 0) return result;
  fprintf(stderr, "%s:%d: %s: %s: %s\n", file, line, call, strerror((int)-result),
          ringmaster_last_error());
  exit(1);
}

static inline void ExpectError(int64_t result, int error, const char* words, const char* call,
                               const char* file, int line) {
  if (result == -error && strstr(ringmaster_last_error(), words) != NULL) return;
  fprintf(stderr, "%s:%d: %s: returned %lld instead of %d (%s), with the text: %s\n", file, line,
          call, (long long)result, -error, words, ringmaster_last_error());
  exit(1);
}

// A listener on 127.0.0.1 with a port that the kernel chooses.
static inline int Listen(void) {
  struct sockaddr_in address;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  memset(&address, 0, sizeof(address));
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT(fd >= 0 && bind(fd, (struct sockaddr*)&address, sizeof(address)) == 0);
  EXPECT(listen(fd, 4096) == 0);
  return fd;
}

// A client that is connected, blocks, and waits for 20 seconds at most.
static inline int Connect(int listen_fd) {
  struct sockaddr_in address;
  const struct timeval soon = {20, 0};
  socklen_t size = sizeof(address);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT(getsockname(listen_fd, (struct sockaddr*)&address, &size) == 0);
  EXPECT(fd >= 0 && connect(fd, (struct sockaddr*)&address, size) == 0);
  EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon)) == 0);
  return fd;
}

// Whether this process may use io_uring; if not, says why.
static inline int HasIoUring(void) {
  ringmaster_balancer* balancer = NULL;
  if (ringmaster_balancer_create(NULL, &balancer) == 0) {
    MUST(ringmaster_balancer_free(balancer));
    return 1;
  }
  printf("skipped: %s\n", ringmaster_last_error());
  return 0;
}

#endif  // RINGMASTER_TESTS_C_CHECK_H_
