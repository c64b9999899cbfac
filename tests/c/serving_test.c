// Connections and tickets through all functions of balancers, sources, ports, leases and
// statistics: with callbacks and without. One thread, which is the worker's and the clients' at
// once; it waits for what the balancer's thread does by the descriptors that say so.

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "check.h"
#include "ring.h"

static void WaitFor(int fd) {
  struct pollfd readable = {fd, POLLIN, 0};
  int ready;
  do {
    ready = poll(&readable, 1, 20000);
  } while (ready < 0 && errno == EINTR);
  EXPECT(ready == 1);
}

typedef struct served {
  int count;
  ringmaster_connection last;
  ringmaster_ticket* ticket;
  ringmaster_port* to_leave;
} served;

static void Serve(void* context, const ringmaster_connection* connection) {
  served* to = context;
  ++to->count;
  to->last = *connection;
  if (to->to_leave != NULL) MUST(ringmaster_port_free(to->to_leave));
}

static void Redeem(void* context, ringmaster_ticket* ticket) {
  served* to = context;
  ++to->count;
  to->ticket = ticket;
}

// A balancer, a listener that is its source, and a worker with a mailbox that has joined.
typedef struct server {
  ringmaster_balancer* balancer;
  int listen_fd;
  ringmaster_source* source;
  ringmaster_mailbox* mailbox;
  ringmaster_port* port;
} server;

static void Start(server* it, ringmaster_policy* policy, const ringmaster_source_options* options) {
  it->listen_fd = Listen();
  MUST(ringmaster_balancer_create(NULL, &it->balancer));
  MUST(ringmaster_balancer_add_source(it->balancer, it->listen_fd, policy, options, &it->source));
  MUST(ringmaster_mailbox_create(&it->mailbox));
  MUST(ringmaster_balancer_add_worker(it->balancer, it->mailbox, NULL, &it->port));
  MUST(ringmaster_source_join(it->source, it->port, 77));
}

static void Stop(server* it) {
  MUST(ringmaster_source_free(it->source));
  MUST(ringmaster_port_free(it->port));
  MUST(ringmaster_mailbox_free(it->mailbox));
  MUST(ringmaster_balancer_free(it->balancer));
  close(it->listen_fd);
}

// Waits until something can be claimed, and claims it.
static void ClaimOne(ringmaster_port* port, const ringmaster_mailbox* mailbox,
                     ringmaster_connection* connection, ringmaster_ticket** ticket) {
  do {
    WaitFor((int)MUST(ringmaster_mailbox_fd(mailbox)));
  } while (MUST(ringmaster_port_claim_one(port, connection, ticket)) == 0);
}

static void ExpectAnswer(int client, char expected) {
  char byte = 0;
  EXPECT(read(client, &byte, 1) == 1 && byte == expected);
}

static ringmaster_worker_stats StatsOfFirstWorker(const ringmaster_balancer* balancer) {
  ringmaster_stats* stats = NULL;
  ringmaster_worker_stats worker;
  worker.struct_size = sizeof(worker);
  MUST(ringmaster_balancer_stats(balancer, &stats));
  MUST(ringmaster_stats_worker(stats, 0, &worker));
  MUST(ringmaster_stats_free(stats));
  return worker;
}

static void ClaimsWithAndWithoutACallback(void) {
  server it;
  served by_callback;
  ringmaster_connection connection;
  ringmaster_lease copy;
  Start(&it, NULL, NULL);
  EXPECT(ringmaster_port_joined(it.port) == 1 && ringmaster_port_worker(it.port) == 0);
  EXPECT(ringmaster_source_index(it.source) == 0);
  EXPECT(ringmaster_port_draining(it.port) == 0 && ringmaster_port_ended(it.port) == 0);
  EXPECT(ringmaster_port_claim_one(it.port, &connection, NULL) == 0 && connection.fd == -1);

  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  EXPECT(connection.fd >= 0 && connection.token == 77);
  EXPECT(ringmaster_lease_held(&connection.lease) == 1);
  EXPECT(StatsOfFirstWorker(it.balancer).open == 1);
  EXPECT(write(connection.fd, "a", 1) == 1);
  ExpectAnswer(client, 'a');
  // A lease is its bytes.
  memcpy(&copy, &connection.lease, sizeof(copy));
  memset(&connection.lease, 0, sizeof(connection.lease));
  EXPECT(ringmaster_lease_held(&connection.lease) == 0);
  MUST(ringmaster_lease_release(&connection.lease));
  EXPECT(StatsOfFirstWorker(it.balancer).open == 1);
  close(connection.fd);
  MUST(ringmaster_lease_release(&copy));
  EXPECT(ringmaster_lease_held(&copy) == 0 && StatsOfFirstWorker(it.balancer).open == 0);
  close(client);

  memset(&by_callback, 0, sizeof(by_callback));
  const int clients[2] = {Connect(it.listen_fd), Connect(it.listen_fd)};
  EXPECT_ERROR(ringmaster_port_claim(it.port, NULL, NULL, NULL, 1), EINVAL, "serve is null");
  EXPECT(ringmaster_port_claim(it.port, Serve, NULL, &by_callback, 0) >= 0);
  EXPECT(by_callback.count == 0);
  while (by_callback.count < 2) {
    WaitFor((int)MUST(ringmaster_mailbox_fd(it.mailbox)));
    const int before = by_callback.count;
    MUST(ringmaster_port_claim(it.port, Serve, NULL, &by_callback, 1));
    EXPECT(by_callback.count <= before + 1);
    if (by_callback.count > before) MUST(ringmaster_connection_close(&by_callback.last));
  }
  EXPECT(by_callback.last.fd == -1 && ringmaster_lease_held(&by_callback.last.lease) == 0);
  close(clients[0]), close(clients[1]);

  // A callback may free the port that claims.
  const int last = Connect(it.listen_fd);
  by_callback.to_leave = it.port;
  WaitFor((int)MUST(ringmaster_mailbox_fd(it.mailbox)));
  EXPECT(ringmaster_port_claim(it.port, Serve, NULL, &by_callback, SIZE_MAX) == 0);
  EXPECT(by_callback.count == 3);
  it.port = NULL;
  MUST(ringmaster_connection_close(&by_callback.last));
  close(last);
  Stop(&it);
}

static void PassesOnAndGivesHints(void) {
  server it;
  ringmaster_mailbox* mailbox = NULL;
  ringmaster_port* other = NULL;
  ringmaster_connection connection;
  ringmaster_lease lease;
  ringmaster_worker_options options;
  ringmaster_policy* policy = NULL;
  MUST(ringmaster_policy_by_name("round-robin", &policy));
  Start(&it, policy, NULL);
  MUST(ringmaster_worker_options_init(&options, sizeof(options)));
  MUST(ringmaster_mailbox_create(&mailbox));
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, it.mailbox, NULL, &other), EBUSY,
               "the mailbox serves another port");
  options.handoff = 3;
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, &other), EINVAL,
               "handoff is 3");
  options.handoff = RINGMASTER_HANDOFF_INBOX;
  options.on_host = 2;
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, &other), EINVAL,
               "on_host is 2");
  options.on_host = 0;
  options.window = 0;
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, &other), EINVAL,
               "window is 0");
  options.window = 8;
  options.capacity = 0;
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, &other), EINVAL,
               "capacity is 0");
  options.capacity = 1000;
  options.cpu = -2;
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, &other), EINVAL,
               "cpu -2");
  options.cpu = 0;
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, NULL, &options, &other), EINVAL, "ring");
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, NULL), EINVAL,
               "port is null");
  MUST(ringmaster_balancer_add_worker(it.balancer, mailbox, &options, &other));
  EXPECT(ringmaster_port_worker(other) == 1);
  EXPECT_ERROR(ringmaster_port_set_window(other, 9), EINVAL, "window");
  MUST(ringmaster_port_set_window(other, 7));
  EXPECT_ERROR(ringmaster_port_set_capacity(other, 0), EINVAL, "capacity is 0");
  MUST(ringmaster_port_set_capacity(other, 100));
  EXPECT_ERROR(ringmaster_source_join(it.source, NULL, 0), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_source_join(it.source, it.port, 0), EEXIST, "joined");
  MUST(ringmaster_source_join(it.source, other, 78));
  MUST(ringmaster_source_leave(it.source, other));
  EXPECT_ERROR(ringmaster_source_leave(it.source, NULL), EINVAL, "port is null");

  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  EXPECT_ERROR(ringmaster_source_pass_on(it.source, connection.fd, &connection.lease, 0), EBUSY,
               "no other worker");
  EXPECT(ringmaster_lease_held(&connection.lease) == 1);
  MUST(ringmaster_source_join(it.source, other, 78));
  EXPECT_ERROR(ringmaster_source_pass_on(it.source, connection.fd, &connection.lease, 6), EINVAL,
               "flags is 6");
  EXPECT_ERROR(ringmaster_source_pass_on(it.source, -1, &connection.lease, 0), EINVAL,
               "no open connection");
  EXPECT_ERROR(ringmaster_source_pass_on(it.source, connection.fd, NULL, 0), EINVAL,
               "lease is null");
  MUST(ringmaster_source_pass_on(it.source, connection.fd, &connection.lease,
                                 RINGMASTER_PASS_ON_REQUEST_WAITS));
  EXPECT(ringmaster_lease_held(&connection.lease) == 0);
  MUST(ringmaster_port_before_wait(other));
  WaitFor((int)MUST(ringmaster_mailbox_fd(mailbox)));
  EXPECT_ERROR(ringmaster_port_after_wait(other, 2), EINVAL, "by_port is 2");
  EXPECT(ringmaster_port_after_wait(other, 1) == 1);
  ClaimOne(other, mailbox, &connection, NULL);
  EXPECT(connection.token == 78);
  EXPECT(write(connection.fd, "b", 1) == 1);
  ExpectAnswer(client, 'b');
  // The worker has two, and the other none.
  MUST(ringmaster_port_adopt(other, &lease));
  EXPECT(ringmaster_port_surplus(other) == 1 && ringmaster_port_surplus(it.port) == 0);
  EXPECT(ringmaster_port_to_pass_on(other, 2) == 0);
  EXPECT_ERROR(ringmaster_port_to_pass_on(other, SIZE_MAX), EINVAL, "ready is more than");
  EXPECT_ERROR(ringmaster_port_adopt(other, NULL), EINVAL, "lease is null");
  MUST(ringmaster_lease_release(&lease));
  MUST(ringmaster_connection_close(&connection));
  close(client);

  EXPECT(ringmaster_port_watch_sight(other) == ringmaster_mailbox_fd(mailbox));
  MUST(ringmaster_port_took(other, 0));
  MUST(ringmaster_port_leave(other));
  MUST(ringmaster_port_leave(other));
  EXPECT(ringmaster_port_joined(other) == 0 && ringmaster_port_draining(other) == 1);
  EXPECT(ringmaster_port_ended(other) == 1 && ringmaster_port_surplus(other) == 0);
  EXPECT_ERROR(ringmaster_port_adopt(other, &lease), EBUSY, "the port has left");
  EXPECT_ERROR(ringmaster_port_watch_sight(other), EBUSY, "the port has left");
  EXPECT_ERROR(ringmaster_port_set_window(other, 1), EBUSY, "the port has left");
  EXPECT_ERROR(ringmaster_port_set_capacity(other, 1), EBUSY, "the port has left");
  EXPECT_ERROR(ringmaster_source_join(it.source, other, 0), EINVAL, "the port has left");
  EXPECT(ringmaster_port_after_wait(other, 0) == 0);
  MUST(ringmaster_port_free(other));
  MUST(ringmaster_mailbox_free(mailbox));
  Stop(&it);
}

// --- Policies ------------------------------------------------------------------------------------

typedef struct own_policy {
  server* of;
  int picks;
  uint32_t slots;
  int left;
  int destroyed;
  int aside;  // so many arrivals are still set aside
} own_policy;

static size_t Pick(void* context, const ringmaster_arrival* arrival, const ringmaster_view* view) {
  own_policy* policy = context;
  ringmaster_stats* stats = NULL;
  ++policy->picks;
  EXPECT(arrival->struct_size == sizeof(*arrival) && view->struct_size == sizeof(*view));
  EXPECT(view->candidate_count == 1 && view->joined_count == 1 && view->joined[0] == 0);
  EXPECT(view->candidates[0].worker == 0 && view->candidates[0].credit >= 1);
  EXPECT(view->cpu_count == 0 || view->cpus != NULL);
  EXPECT(arrival->peer_kind == RINGMASTER_PEER_IPV4 && arrival->peer_port != 0);
  EXPECT(memcmp(arrival->peer_address, "\x7f\x00\x00\x01", 5) == 0);
  EXPECT(arrival->request_waits == 0);
  // The master would wait for itself.
  EXPECT_ERROR(ringmaster_balancer_free(policy->of->balancer), EBUSY, "cannot free it");
  EXPECT_ERROR(ringmaster_balancer_stats(policy->of->balancer, &stats), EBUSY, "policy");
  EXPECT_ERROR(ringmaster_source_pause(policy->of->source), EBUSY, "policy");
  if (policy->aside > 0) {
    --policy->aside;
    return RINGMASTER_NOBODY_NOW;
  }
  return 0;
}
static void Prepare(void* context, uint32_t worker_slots) {
  ((own_policy*)context)->slots = worker_slots;
}
static void OnRecall(void* context, uint32_t worker) { (void)context, (void)worker; }
static int MayMove(void* context, const ringmaster_arrival* arrival,
                   const ringmaster_candidate* from, const ringmaster_candidate* to) {
  (void)context, (void)arrival, (void)from, (void)to;
  return 1;
}
static void OnLeave(void* context, uint32_t worker) {
  EXPECT(worker == 0);
  ++((own_policy*)context)->left;
}
static int Save(void* context, uint64_t* words, size_t word_count) {
  (void)context, (void)words, (void)word_count;
  return 1;
}
static int Load(void* context, const uint64_t* words, size_t word_count) {
  (void)context, (void)words, (void)word_count;
  return 1;
}
static void Destroy(void* context) { ++((own_policy*)context)->destroyed; }

static ringmaster_policy* MakePolicy(own_policy* own) {
  ringmaster_policy_functions functions;
  ringmaster_policy* policy = NULL;
  MUST(ringmaster_policy_functions_init(&functions, sizeof(functions)));
  functions.name = "mine";
  functions.context = own;
  functions.needs_peer = 1;
  functions.pick = Pick;
  functions.prepare = Prepare;
  functions.on_recall = OnRecall;
  functions.may_move = MayMove;
  functions.on_leave = OnLeave;
  functions.save = Save;
  functions.load = Load;
  functions.destroy = Destroy;
  MUST(ringmaster_policy_create(&functions, &policy));
  return policy;
}

static void DecidesByAPolicyOfTheProgram(void) {
  server it;
  own_policy first = {&it, 0, 0, 0, 0, 1}, second = {&it, 0, 0, 0, 0, 0}, unused = second;
  ringmaster_connection connection;
  ringmaster_policy* policy = MakePolicy(&first);
  EXPECT(strcmp(ringmaster_policy_name(policy), "mine") == 0);
  Start(&it, policy, NULL);
  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  EXPECT(first.picks == 2 && first.slots > 0);
  MUST(ringmaster_connection_close(&connection));
  close(client);

  EXPECT_ERROR(ringmaster_source_set_policy(it.source, NULL), EINVAL, "policy is null");
  MUST(ringmaster_source_set_policy(it.source, MakePolicy(&second)));
  EXPECT(first.destroyed == 1);
  const int next = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  EXPECT(second.picks == 1 && first.picks == 2);
  MUST(ringmaster_connection_close(&connection));
  close(next);
  MUST(ringmaster_source_leave(it.source, it.port));
  EXPECT(second.left == 1);

  // A policy is taken by a call that fails, too.
  EXPECT_ERROR(ringmaster_balancer_add_source(it.balancer, -1, MakePolicy(&unused), NULL, NULL),
               EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_set_policy(NULL, MakePolicy(&unused)), EINVAL, "source is null");
  MUST(ringmaster_policy_free(MakePolicy(&unused)));
  EXPECT(unused.destroyed == 3);
  Stop(&it);
  EXPECT(second.destroyed == 1);
}

static void NamesPolicies(void) {
  size_t count = 0;
  const char* name;
  for (; (name = ringmaster_policy_names(count)) != NULL; ++count) {
    ringmaster_policy* policy = NULL;
    MUST(ringmaster_policy_by_name(name, &policy));
    EXPECT(strncmp(ringmaster_policy_name(policy), name, strlen(name)) == 0);
    MUST(ringmaster_policy_free(policy));
  }
  EXPECT(count >= 9 && ringmaster_policy_names(SIZE_MAX) == NULL);
}

// --- Sources -------------------------------------------------------------------------------------

static void RefusesSourcesOutOfRange(void) {
  server it;
  ringmaster_source* source = NULL;
  ringmaster_source_options options;
  const int fd = Listen();
  Start(&it, NULL, NULL);
#define EXPECT_SOURCE_REFUSED(change, words)                                                       \
  do {                                                                                             \
    MUST(ringmaster_source_options_init(&options, sizeof(options)));                               \
    options.change;                                                                                \
    EXPECT_ERROR(ringmaster_balancer_add_source(it.balancer, fd, NULL, &options, &source), EINVAL, \
                 words);                                                                           \
  } while (0)
  EXPECT_SOURCE_REFUSED(intake = 3, "intake is 3, which is not one of RINGMASTER_INTAKE_");
  EXPECT_SOURCE_REFUSED(master = 1, "master is 1");
  EXPECT_SOURCE_REFUSED(start_workers = 0, "start_workers is 0");
  EXPECT_SOURCE_REFUSED(capacity = 0, "capacity of the source is 0");
  EXPECT_SOURCE_REFUSED(age_max_ns = 10, "age_max is 10ns");
  EXPECT_SOURCE_REFUSED(recall = 3, "recall is 3");
  EXPECT_SOURCE_REFUSED(permits = 3, "permits is 3");
  EXPECT_SOURCE_REFUSED(nonblocking = 3, "nonblocking is 3");
  EXPECT_SOURCE_REFUSED(close_on_exec = 3, "close_on_exec is 3");
  EXPECT_SOURCE_REFUSED(reserved = 3, "reserved is 3");
  EXPECT_SOURCE_REFUSED(struct_size = 3, "struct_size of ringmaster_source_options is 3");
  options.intake = RINGMASTER_INTAKE_ACCEPT;
  options.struct_size = sizeof(options);
  options.hold = 0;
  EXPECT_ERROR(ringmaster_balancer_add_source(it.balancer, fd, NULL, &options, &source), EINVAL,
               "hold is 0");
  EXPECT_ERROR(ringmaster_balancer_add_source(it.balancer, it.listen_fd, NULL, NULL, &source),
               EEXIST, "source");
  EXPECT(source == NULL);
  close(fd);

  MUST(ringmaster_source_pause(it.source));
  MUST(ringmaster_source_resume(it.source));
  MUST(ringmaster_source_remove(it.source));
  EXPECT_ERROR(ringmaster_source_remove(it.source), EBUSY, "removed");
  EXPECT_ERROR(ringmaster_source_pause(it.source), EBUSY, "removed");
  EXPECT_ERROR(ringmaster_source_resume(it.source), EBUSY, "removed");
  EXPECT_ERROR(ringmaster_source_again(it.source, 0), EBUSY, "removed");
  Stop(&it);
}

// What is accepted is as the source says.
static void AcceptsAsTheSourceSays(void) {
  int as_asked;
  for (as_asked = 0; as_asked <= 1; ++as_asked) {
    server it;
    ringmaster_source_options options;
    ringmaster_connection connection;
    MUST(ringmaster_source_options_init(&options, sizeof(options)));
    options.nonblocking = as_asked;
    options.close_on_exec = !as_asked;
    Start(&it, NULL, &options);
    const int client = Connect(it.listen_fd);
    ClaimOne(it.port, it.mailbox, &connection, NULL);
    EXPECT(((fcntl(connection.fd, F_GETFL) & O_NONBLOCK) != 0) == as_asked);
    EXPECT(((fcntl(connection.fd, F_GETFD) & FD_CLOEXEC) != 0) == !as_asked);
    MUST(ringmaster_connection_close(&connection));
    close(client);
    Stop(&it);
  }
}

// A worker that gives hints accepts by itself, unless the source says no.
static void DecidesBeforehandIfTheSourceSaysSo(void) {
  int permits, i;
  for (permits = 0; permits <= 1; ++permits) {
    server it;
    ringmaster_source_options options;
    ringmaster_connection connection;
    MUST(ringmaster_source_options_init(&options, sizeof(options)));
    options.permits = permits;
    Start(&it, NULL, &options);
    for (i = 0; i < 1000; ++i) {
      MUST(ringmaster_port_before_wait(it.port));
      const int client = Connect(it.listen_fd);
      do {
        WaitFor((int)MUST(ringmaster_mailbox_fd(it.mailbox)));
        MUST(ringmaster_port_after_wait(it.port, 1));
      } while (MUST(ringmaster_port_claim_one(it.port, &connection, NULL)) == 0);
      MUST(ringmaster_connection_close(&connection));
      close(client);
      if (i >= 20 && (!permits || StatsOfFirstWorker(it.balancer).by_permit > 0)) break;
    }
    EXPECT((StatsOfFirstWorker(it.balancer).by_permit > 0) == permits);
    Stop(&it);
  }
}

// --- Tickets -------------------------------------------------------------------------------------

static void RedeemsTickets(void) {
  server it;
  served by_callback;
  ringmaster_source_options options;
  ringmaster_source* events = NULL;
  ringmaster_connection connection;
  ringmaster_ticket* ticket = NULL;
  uint64_t number = 1;
  const int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  memset(&by_callback, 0, sizeof(by_callback));
  MUST(ringmaster_source_options_init(&options, sizeof(options)));
  options.intake = RINGMASTER_INTAKE_READINESS;
  Start(&it, NULL, &options);
  MUST(ringmaster_balancer_add_source(it.balancer, event_fd, NULL, &options, &events));
  MUST(ringmaster_source_join(events, it.port, 5));

  // An event, through both ways to claim.
  EXPECT(write(event_fd, &number, sizeof(number)) == sizeof(number));
  ClaimOne(it.port, it.mailbox, &connection, &ticket);
  EXPECT(connection.fd == -1 && ticket != NULL);
  EXPECT(ringmaster_ticket_fd(ticket) == event_fd && ringmaster_ticket_token(ticket) == 5);
  EXPECT((ringmaster_ticket_events(ticket) & POLLIN) != 0);
  EXPECT(read(event_fd, &number, sizeof(number)) == sizeof(number));
  MUST(ringmaster_ticket_again(ticket, EAGAIN));
  MUST(ringmaster_ticket_free(ticket));
  EXPECT(write(event_fd, &number, sizeof(number)) == sizeof(number));
  while (by_callback.ticket == NULL) {
    WaitFor((int)MUST(ringmaster_mailbox_fd(it.mailbox)));
    MUST(ringmaster_port_claim(it.port, Serve, Redeem, &by_callback, SIZE_MAX));
  }
  EXPECT(read(event_fd, &number, sizeof(number)) == sizeof(number));
  MUST(ringmaster_ticket_free(by_callback.ticket));
  MUST(ringmaster_source_again(events, EAGAIN));

  // A listener's ticket, redeemed by the program and then by the library.
  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, &ticket);
  EXPECT(ticket != NULL && ringmaster_ticket_fd(ticket) == it.listen_fd);
  EXPECT_ERROR(ringmaster_ticket_accept(ticket, NULL), EINVAL, "connection is null");
  EXPECT(ringmaster_ticket_accept(ticket, &connection) == 1 && connection.token == 77);
  EXPECT(write(connection.fd, "c", 1) == 1);
  ExpectAnswer(client, 'c');
  MUST(ringmaster_connection_close(&connection));
  EXPECT(ringmaster_ticket_accept(ticket, &connection) == 0 && connection.fd == -1);
  MUST(ringmaster_ticket_free(ticket));
  close(client);
  const int next = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  EXPECT(connection.fd >= 0 && connection.token == 77);
  MUST(ringmaster_connection_close(&connection));
  close(next);
  MUST(ringmaster_source_free(events));
  Stop(&it);
  close(event_fd);
}

// --- Workers with rings --------------------------------------------------------------------------

static void HandsOverAsCompletions(void) {
  enum { kDoorbell = 1, kSight = 2, kToken = 3 };
  ringmaster_balancer* balancer = NULL;
  ringmaster_source* source = NULL;
  ringmaster_port* port = NULL;
  ringmaster_worker_options options;
  ringmaster_lease lease;
  ringmaster_connection connection;
  uint64_t user_data;
  int result, client, handoff;
  const int listen_fd = Listen();
  test_ring* ring = RingMake();
  RingRegisterTable(ring, 8);
  MUST(ringmaster_balancer_create(NULL, &balancer));
  MUST(ringmaster_balancer_add_source(balancer, listen_fd, NULL, NULL, &source));
  MUST(ringmaster_worker_options_init(&options, sizeof(options)));
  options.ring_fd = RingFd(ring);
  for (handoff = RINGMASTER_HANDOFF_COMPLETION; handoff <= RINGMASTER_HANDOFF_DIRECT; ++handoff) {
    options.handoff = handoff;
    if (ringmaster_balancer_add_worker(balancer, NULL, &options, &port) != 0) {
      // The kernel cannot install files in another ring's table.
      EXPECT(handoff == RINGMASTER_HANDOFF_DIRECT);
      printf("not tried: %s\n", ringmaster_last_error());
      continue;
    }
    EXPECT_ERROR(ringmaster_port_watch_sight(port), EBUSY, "sight");
    MUST(ringmaster_source_join(source, port, kToken));
    client = Connect(listen_fd);
    RingWait(ring, &user_data, &result);
    EXPECT(user_data == kToken && result >= 0);
    MUST(ringmaster_port_adopt(port, &lease));
    MUST(ringmaster_port_took(port, 1));
    EXPECT(StatsOfFirstWorker(balancer).open == 1);
    if (handoff == RINGMASTER_HANDOFF_COMPLETION) {
      EXPECT(write(result, "d", 1) == 1);
      ExpectAnswer(client, 'd');
      close(result);
    }
    MUST(ringmaster_lease_release(&lease));
    EXPECT(StatsOfFirstWorker(balancer).open == 0);
    MUST(ringmaster_port_free(port));
    close(client);
  }
  RingFree(ring);

  // A doorbell, or the sight, says when to claim.
  ring = RingMake();
  options.ring_fd = RingFd(ring);
  options.handoff = RINGMASTER_HANDOFF_INBOX;
  options.tag = kDoorbell;
  MUST(ringmaster_balancer_add_worker(balancer, NULL, &options, &port));
  RingPoll(ring, (int)MUST(ringmaster_port_watch_sight(port)), kSight);
  MUST(ringmaster_source_join(source, port, kToken));
  client = Connect(listen_fd);
  do {
    MUST(ringmaster_port_before_wait(port));
    RingWait(ring, &user_data, &result);
    EXPECT(user_data == kDoorbell || user_data == kSight);
    MUST(ringmaster_port_after_wait(port, user_data == kSight));
  } while (MUST(ringmaster_port_claim_one(port, &connection, NULL)) == 0);
  EXPECT(connection.token == kToken);
  MUST(ringmaster_connection_close(&connection));
  close(client);
  MUST(ringmaster_port_free(port));
  MUST(ringmaster_source_free(source));
  MUST(ringmaster_balancer_free(balancer));
  RingFree(ring);
  close(listen_fd);
}

// --- Statistics, events and the end --------------------------------------------------------------

static void TellsNumbers(void) {
  server it;
  ringmaster_stats* stats = NULL;
  ringmaster_totals totals;
  ringmaster_source_stats source;
  ringmaster_worker_stats worker;
  ringmaster_connection connection;
  Start(&it, NULL, NULL);
  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  EXPECT_ERROR(ringmaster_balancer_stats(it.balancer, NULL), EINVAL, "stats is null");
  MUST(ringmaster_balancer_stats(it.balancer, &stats));
  totals.struct_size = sizeof(totals);
  source.struct_size = sizeof(source);
  worker.struct_size = sizeof(worker);
  MUST(ringmaster_stats_totals(stats, &totals));
  EXPECT(totals.struct_size == sizeof(totals) && totals.accepted == 1 && totals.refused == 0);
  EXPECT(totals.master_wakes > 0 && totals.held == 0 && totals.dropped == 0 && totals.gone == 0);
  EXPECT(ringmaster_stats_source_count(stats) == 1 && ringmaster_stats_worker_count(stats) == 1);
  MUST(ringmaster_stats_source(stats, 0, &source));
  EXPECT(source.source == 0 && source.accepted == 1 && source.claimed == 1);
  EXPECT(source.backlog == 0 && source.backlog_limit == 4096 && source.backlog_overflows == 0);
  MUST(ringmaster_stats_worker(stats, 0, &worker));
  EXPECT(worker.worker == 0 && worker.claimed == 1 && worker.open == 1 && worker.unclaimed == 0);
  MUST(ringmaster_stats_departed(stats, &worker));
  EXPECT(worker.claimed == 0);
  EXPECT_ERROR(ringmaster_stats_source(stats, 1, &source), EINVAL,
               "position is 1, but there are 1");
  EXPECT_ERROR(ringmaster_stats_worker(stats, 1, &worker), EINVAL,
               "position is 1, but there are 1");
  EXPECT_ERROR(ringmaster_stats_totals(stats, NULL), EINVAL, "totals is null");
  EXPECT_ERROR(ringmaster_stats_source(stats, 0, NULL), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_stats_worker(stats, 0, NULL), EINVAL, "worker is null");
  EXPECT_ERROR(ringmaster_stats_departed(stats, NULL), EINVAL, "sums is null");
  // A struct of an earlier version gets what it has room for.
  memset(&totals, 0xff, sizeof(totals));
  totals.struct_size = offsetof(ringmaster_totals, passed_on);
  MUST(ringmaster_stats_totals(stats, &totals));
  EXPECT(totals.accepted == 1 && totals.passed_on == UINT64_MAX);
  totals.struct_size = 0;
  EXPECT_ERROR(ringmaster_stats_totals(stats, &totals), EINVAL, "ringmaster_totals is 0");
  MUST(ringmaster_stats_free(stats));
  MUST(ringmaster_connection_close(&connection));
  close(client);
  Stop(&it);
}

typedef struct told {
  server* of;
  int intake_ended;
  int ended;
  uint64_t refused;
  uint64_t accepted;
} told;

static void OnIntakeEnded(void* context) { ++((told*)context)->intake_ended; }

static void OnEnded(void* context, const ringmaster_shutdown_report* report,
                    const ringmaster_stats* stats) {
  told* to = context;
  ringmaster_totals totals;
  totals.struct_size = sizeof(totals);
  MUST(ringmaster_stats_totals(stats, &totals));
  EXPECT(report->struct_size == sizeof(*report));
  ++to->ended;
  to->refused = report->refused;
  to->accepted = totals.accepted;
  EXPECT_ERROR(ringmaster_stats_free((ringmaster_stats*)stats), EBUSY, "were lent");
  EXPECT_ERROR(ringmaster_balancer_free(to->of->balancer), EBUSY, "cannot free it");
  EXPECT_ERROR(ringmaster_balancer_shutdown(to->of->balancer, NULL, NULL, NULL), EBUSY, "callback");
}

static void EndsWithAReport(void) {
  server it;
  told to = {&it, 0, 0, 0, 0};
  ringmaster_shutdown_options options;
  ringmaster_shutdown_report report;
  ringmaster_stats* stats = NULL;
  ringmaster_connection connection, nothing;
  ringmaster_source* source = NULL;
  ringmaster_port* port = NULL;
  Start(&it, NULL, NULL);
  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  report.struct_size = sizeof(report);
  EXPECT(ringmaster_balancer_ended(it.balancer, &report, &stats) == 0 && stats == NULL);
  MUST(ringmaster_shutdown_options_init(&options, sizeof(options)));
  options.drain_ns = -1;
  EXPECT_ERROR(ringmaster_balancer_begin_shutdown(it.balancer, &options), EINVAL,
               "drain_ns is neg");
  EXPECT_ERROR(ringmaster_balancer_shutdown(it.balancer, &options, NULL, NULL), EINVAL, "drain_ns");
  report.struct_size = 1;
  EXPECT_ERROR(ringmaster_balancer_shutdown(it.balancer, NULL, &report, NULL), EINVAL,
               "is 1, which");
  EXPECT_ERROR(ringmaster_balancer_ended(it.balancer, &report, NULL), EINVAL, "is 1, which");
  report.struct_size = sizeof(report);
  EXPECT(ringmaster_port_draining(it.port) == 0);

  options.drain_ns = RINGMASTER_FOREVER;
  options.on_intake_ended = OnIntakeEnded;
  options.on_ended = OnEnded;
  options.context = &to;
  MUST(ringmaster_balancer_begin_shutdown(it.balancer, &options));
  WaitFor((int)MUST(ringmaster_mailbox_fd(it.mailbox)));
  EXPECT(ringmaster_port_claim_one(it.port, &nothing, NULL) == 0);
  EXPECT(ringmaster_port_draining(it.port) == 1);
  // The connection is left to the worker: it is open still, so the drain ends by a new deadline.
  options.drain_ns = 0;
  options.on_intake_ended = NULL;
  options.on_ended = NULL;
  MUST(ringmaster_balancer_shutdown(it.balancer, &options, &report, &stats));
  EXPECT(report.drained == 0 && report.refused == 0 && report.open == 1);
  EXPECT(ringmaster_stats_source_count(stats) >= 0);
  MUST(ringmaster_stats_free(stats));
  EXPECT(to.intake_ended == 1 && to.ended == 1 && to.refused == 0 && to.accepted == 1);
  EXPECT(ringmaster_balancer_ended(it.balancer, &report, &stats) == 1 && report.open == 1);
  MUST(ringmaster_stats_free(stats));
  EXPECT(ringmaster_port_ended(it.port) == 1);
  EXPECT_ERROR(ringmaster_balancer_add_source(it.balancer, it.listen_fd, NULL, NULL, &source),
               EBUSY, "shut down");
  EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, NULL, NULL, &port), EINVAL, "");
  EXPECT_ERROR(ringmaster_source_join(it.source, it.port, 0), EBUSY, "shut down");
  // A lease may be released after its balancer has ended.
  MUST(ringmaster_connection_close(&connection));
  close(client);
  Stop(&it);
}

// The balancer tells by an event that the number of a source that was closed is another file's.
static int events_seen;
static void OnEvent(void* context, const ringmaster_event* event) {
  EXPECT(event->struct_size == sizeof(*event) && event->text != NULL);
  EXPECT_ERROR(ringmaster_balancer_free(*(ringmaster_balancer**)context), EBUSY, "cannot free it");
  if (event->kind == RINGMASTER_EVENT_SOURCE_FAILED) {
    EXPECT(event->source == 0 && strlen(event->text) > 0);
    __atomic_add_fetch(&events_seen, 1, __ATOMIC_RELEASE);
  }
}

static void TellsEvents(void) {
  ringmaster_balancer_options options;
  ringmaster_balancer* balancer = NULL;
  ringmaster_source* source = NULL;
  ringmaster_mailbox* mailbox = NULL;
  ringmaster_port* port = NULL;
  ringmaster_shutdown_options end;
  ringmaster_shutdown_report report;
  const int listen_fd = Listen();
  MUST(ringmaster_balancer_options_init(&options, sizeof(options)));
  options.thread_name = "told";
  options.on_event = OnEvent;
  options.context = &balancer;
  MUST(ringmaster_balancer_create(&options, &balancer));
  MUST(ringmaster_balancer_add_source(balancer, listen_fd, NULL, NULL, &source));
  MUST(ringmaster_mailbox_create(&mailbox));
  MUST(ringmaster_balancer_add_worker(balancer, mailbox, NULL, &port));
  MUST(ringmaster_source_join(source, port, 0));
  EXPECT(shutdown(listen_fd, SHUT_RDWR) == 0);
  // Each of these goes through the master.
  while (!__atomic_load_n(&events_seen, __ATOMIC_ACQUIRE)) {
    ringmaster_stats* stats = NULL;
    MUST(ringmaster_balancer_stats(balancer, &stats));
    MUST(ringmaster_stats_free(stats));
  }
  report.struct_size = sizeof(report);
  MUST(ringmaster_shutdown_options_init(&end, sizeof(end)));
  end.drain_ns = INT64_C(20000000000);
  MUST(ringmaster_balancer_shutdown(balancer, &end, &report, NULL));
  EXPECT(events_seen == 1);
  EXPECT(report.drained == 1);
  MUST(ringmaster_port_free(port));
  MUST(ringmaster_mailbox_free(mailbox));
  MUST(ringmaster_source_free(source));
  MUST(ringmaster_balancer_free(balancer));
  close(listen_fd);
}

// --- fork ----------------------------------------------------------------------------------------

static void RefusesInAForkedChild(void) {
  server it;
  int status = -1;
  Start(&it, NULL, NULL);
  const pid_t child = fork();
  if (child == 0) {
    ringmaster_stats* stats = NULL;
    ringmaster_connection connection;
    ringmaster_port* port = NULL;
    ringmaster_source* source = NULL;
    EXPECT_ERROR(ringmaster_balancer_stats(it.balancer, &stats), EBUSY, "forked");
    EXPECT_ERROR(ringmaster_balancer_shutdown(it.balancer, NULL, NULL, NULL), EBUSY, "forked");
    EXPECT_ERROR(ringmaster_balancer_begin_shutdown(it.balancer, NULL), EBUSY, "forked");
    EXPECT_ERROR(ringmaster_balancer_run_once(it.balancer), EBUSY, "");
    EXPECT_ERROR(ringmaster_balancer_add_source(it.balancer, it.listen_fd, NULL, NULL, &source),
                 EBUSY, "forked");
    EXPECT_ERROR(ringmaster_balancer_add_worker(it.balancer, it.mailbox, NULL, &port), EBUSY,
                 "forked");
    EXPECT_ERROR(ringmaster_source_pause(it.source), EBUSY, "forked");
    EXPECT(ringmaster_port_claim_one(it.port, &connection, NULL) == 0);
    EXPECT(ringmaster_port_ended(it.port) == 1);
    ringmaster_after_fork_in_child();
    EXPECT_ERROR(ringmaster_mailbox_fd(it.mailbox), EBUSY, "forked");
    Stop(&it);
    _exit(0);
  }
  EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
  // The parent goes on.
  ringmaster_connection connection;
  const int client = Connect(it.listen_fd);
  ClaimOne(it.port, it.mailbox, &connection, NULL);
  MUST(ringmaster_connection_close(&connection));
  close(client);
  Stop(&it);
}

// In a child, because a handler of forks is there for good.
static void ClosesByItselfAfterForks(void) {
  int status = -1;
  const pid_t child = fork();
  if (child == 0) {
    ringmaster_balancer_options options;
    ringmaster_balancer* balancer = NULL;
    ringmaster_mailbox* mailbox = NULL;
    MUST(ringmaster_balancer_options_init(&options, sizeof(options)));
    options.close_after_fork = 1;
    MUST(ringmaster_balancer_create(&options, &balancer));
    MUST(ringmaster_mailbox_create(&mailbox));
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      EXPECT_ERROR(ringmaster_mailbox_fd(mailbox), EBUSY, "forked");
      _exit(0);
    }
    EXPECT(grandchild > 0 && waitpid(grandchild, &status, 0) == grandchild && status == 0);
    MUST(ringmaster_mailbox_free(mailbox));
    MUST(ringmaster_balancer_free(balancer));
    _exit(0);
  }
  EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void SaysWhichVersionItIs(void) {
  char version[32];
  snprintf(version, sizeof(version), "%d.%d.%d", RINGMASTER_VERSION_MAJOR, RINGMASTER_VERSION_MINOR,
           RINGMASTER_VERSION_PATCH);
  EXPECT(strcmp(version, RINGMASTER_VERSION_STRING) == 0);
  EXPECT(strcmp(version, ringmaster_version()) == 0);
  EXPECT(strcmp(version, RINGMASTER_TEST_PROJECT_VERSION) == 0);
  EXPECT(RINGMASTER_VERSION_NUMBER == RINGMASTER_VERSION_MAJOR * 1000000 +
                                          RINGMASTER_VERSION_MINOR * 1000 +
                                          RINGMASTER_VERSION_PATCH);
  EXPECT(ringmaster_version_number() == RINGMASTER_VERSION_NUMBER);
}

int main(void) {
  SaysWhichVersionItIs();
  NamesPolicies();
  if (!HasIoUring()) return kSkipped;
  ClaimsWithAndWithoutACallback();
  PassesOnAndGivesHints();
  DecidesByAPolicyOfTheProgram();
  RefusesSourcesOutOfRange();
  AcceptsAsTheSourceSays();
  DecidesBeforehandIfTheSourceSaysSo();
  RedeemsTickets();
  HandsOverAsCompletions();
  TellsNumbers();
  EndsWithAReport();
  TellsEvents();
  RefusesInAForkedChild();
  ClosesByItselfAfterForks();
  return 0;
}
