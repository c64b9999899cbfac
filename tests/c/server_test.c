// A server in C and clients that check it: thousands of connections, each with a text of its own
// that must come back, and shares that are exact. The argument says which kind of workers serve.

#include <pthread.h>
#include <sys/epoll.h>

#include "check.h"
#include "server.h"

#ifdef RINGMASTER_TEST_SANITIZED
enum { kFloods = 3 };
#else
enum { kFloods = 20 };
#endif
// A worker that is kept from running is owed the turns that it misses, but no more than 1,024. So
// after each flood stragglers, one after the other, pay what is owed: so many at a time.
enum { kFlood = 400, kStragglers = 20, kRoundsMax = 500, kWorkers = 4, kClients = 8 };

// --- The worker on epoll -------------------------------------------------------------------------

// By descriptor; each worker has a table of its own.
static __thread ringmaster_lease leases[65536];

static void Watch(int epoll_fd, int fd) {
  struct epoll_event event;
  event.events = EPOLLIN;
  event.data.fd = fd;
  EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void Claim(ringmaster_port* port, int epoll_fd) {
  ringmaster_connection claimed;
  while (MUST(ringmaster_port_claim_one(port, &claimed, NULL)) == 1) {
    EXPECT(claimed.fd < 65536);
    leases[claimed.fd] = claimed.lease;
    Watch(epoll_fd, claimed.fd);
  }
}

static void Echo(int fd) {
  char bytes[1024];
  const ssize_t size = read(fd, bytes, sizeof(bytes));
  if (size < 0 && errno == EAGAIN) return;
  if (size > 0 && send(fd, bytes, (size_t)size, MSG_NOSIGNAL) == size) return;
  ringmaster_lease lease = leases[fd];
  close(fd);
  MUST(ringmaster_lease_release(&lease));
}

void* WorkOnEpoll(void* context) {
  const server_worker* worker = context;
  ringmaster_mailbox* mailbox = NULL;
  ringmaster_port* port = NULL;
  struct epoll_event events[64];
  int i;
  MUST(ringmaster_mailbox_create(&mailbox));
  MUST(ringmaster_balancer_add_worker(worker->balancer, mailbox, NULL, &port));
  const int mailbox_fd = (int)MUST(ringmaster_mailbox_fd(mailbox));
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  Watch(epoll_fd, mailbox_fd);
  MUST(ringmaster_source_join(worker->source, port, 0));
  while (!ringmaster_port_ended(port)) {
    MUST(ringmaster_port_before_wait(port));
    const int ready = epoll_wait(epoll_fd, events, 64, -1);
    EXPECT(ready >= 0 || errno == EINTR);
    if (MUST(ringmaster_port_after_wait(port, 0)) == 1) Claim(port, epoll_fd);
    for (i = 0; i < ready; ++i) {
      if (events[i].data.fd == mailbox_fd) {
        Claim(port, epoll_fd);
      } else {
        Echo(events[i].data.fd);
      }
    }
  }
  close(epoll_fd);
  MUST(ringmaster_port_free(port));
  MUST(ringmaster_mailbox_free(mailbox));
  return NULL;
}

// --- Clients -------------------------------------------------------------------------------------

typedef struct client {
  int listen_fd;
  unsigned first;
  unsigned count;
} client;

static void* Ask(void* context) {
  const client* it = context;
  unsigned number, i;
  for (number = it->first; number < it->first + it->count; ++number) {
    unsigned char text[512], answer[512];
    const size_t size = 1 + number * 7919 % sizeof(text);
    size_t got = 0;
    for (i = 0; i < size; ++i) text[i] = (unsigned char)(number * 31 + i * 17);
    const int fd = Connect(it->listen_fd);
    EXPECT(send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size);
    while (got < size) {
      const ssize_t more = recv(fd, answer + got, size - got, 0);
      EXPECT(more > 0);
      got += (size_t)more;
    }
    EXPECT(memcmp(text, answer, size) == 0);
    EXPECT(shutdown(fd, SHUT_WR) == 0 && recv(fd, answer, 1, 0) == 0);
    close(fd);
  }
  return NULL;
}

static void RunClients(int listen_fd, unsigned clients, unsigned count) {
  client all[kClients];
  pthread_t threads[kClients];
  unsigned i;
  for (i = 0; i < clients; ++i) {
    all[i].listen_fd = listen_fd;
    all[i].count = count / clients;
    all[i].first = i * all[i].count;
    EXPECT(pthread_create(&threads[i], NULL, Ask, &all[i]) == 0);
  }
  for (i = 0; i < clients; ++i) EXPECT(pthread_join(threads[i], NULL) == 0);
}

// --- The server ----------------------------------------------------------------------------------

static void OnIntakeEnded(void* context) { close(*(int*)context); }

static char shares[200];  // as last seen

// By how much, at most, after so many connections.
static uint64_t SharesDiffer(ringmaster_balancer* balancer, uint64_t connections) {
  ringmaster_stats* stats = NULL;
  uint64_t least = UINT64_MAX, most = 0, sum = 0;
  size_t i;
  shares[0] = '\0';
  MUST(ringmaster_balancer_stats(balancer, &stats));
  EXPECT(ringmaster_stats_worker_count(stats) == kWorkers);
  for (i = 0; i < kWorkers; ++i) {
    ringmaster_worker_stats of_worker;
    of_worker.struct_size = sizeof(of_worker);
    MUST(ringmaster_stats_worker(stats, i, &of_worker));
    snprintf(shares + strlen(shares), sizeof(shares) - strlen(shares), " %llu",
             (unsigned long long)of_worker.claimed);
    if (of_worker.claimed < least) least = of_worker.claimed;
    if (of_worker.claimed > most) most = of_worker.claimed;
    sum += of_worker.claimed;
  }
  MUST(ringmaster_stats_free(stats));
  EXPECT(sum == connections);
  return most - least;
}

static void EveryoneIsServedInTurn(void* (*work)(void*)) {
  server_worker worker;
  pthread_t workers[kWorkers];
  ringmaster_policy* policy = NULL;
  ringmaster_source_options options;
  ringmaster_shutdown_options end;
  ringmaster_shutdown_report report;
  int listen_fd = Listen(), flood;
  uint64_t asked = 0;
  size_t i;
  MUST(ringmaster_balancer_create(NULL, &worker.balancer));
  MUST(ringmaster_policy_by_name("round-robin", &policy));
  MUST(ringmaster_source_options_init(&options, sizeof(options)));
  options.start_workers = kWorkers;
  MUST(
      ringmaster_balancer_add_source(worker.balancer, listen_fd, policy, &options, &worker.source));
  for (i = 0; i < kWorkers; ++i) {
    EXPECT(pthread_create(&workers[i], NULL, work, &worker) == 0);
  }
  for (flood = 0; flood < kFloods; ++flood) {
    int rounds = 0;
    RunClients(listen_fd, kClients, kFlood);
    asked += kFlood;
    while (SharesDiffer(worker.balancer, asked) > 1) {
      if (++rounds > kRoundsMax) fprintf(stderr, "after flood %d:%s\n", flood, shares);
      EXPECT(rounds <= kRoundsMax);
      RunClients(listen_fd, 1, kStragglers);
      asked += kStragglers;
    }
  }
  printf("claimed by the workers:%s\n", shares);

  MUST(ringmaster_shutdown_options_init(&end, sizeof(end)));
  end.drain_ns = INT64_C(20000000000);
  end.on_intake_ended = OnIntakeEnded;
  end.context = &listen_fd;
  report.struct_size = sizeof(report);
  MUST(ringmaster_balancer_shutdown(worker.balancer, &end, &report, NULL));
  EXPECT(report.drained == 1 && report.refused == 0 && report.open == 0);
  for (i = 0; i < kWorkers; ++i) EXPECT(pthread_join(workers[i], NULL) == 0);
  MUST(ringmaster_source_free(worker.source));
  MUST(ringmaster_balancer_free(worker.balancer));
}

int main(int argc, char** argv) {
  if (!HasIoUring()) return kSkipped;
  EXPECT(argc == 2);
  EveryoneIsServedInTurn(strcmp(argv[1], "epoll") == 0 ? WorkOnEpoll : WorkOnRing);
  return 0;
}
