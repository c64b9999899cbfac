// What the interface refuses, and how it says so: no argument ends the process. The first argument
// may name the errno with which this process's io_uring is refused; then that is looked at.

#include "check.h"

// --- Null pointers -------------------------------------------------------------------------------

static void RefusesNullPointers(void) {
  size_t size = 64;
  ringmaster_connection connection;
  ringmaster_hand_over* hand_over = NULL;
  const ringmaster_offered_listener offered = {-1, NULL};
  EXPECT_ERROR(ringmaster_balancer_options_init(NULL, size), EINVAL, "options is null");
  EXPECT_ERROR(ringmaster_ring_loan_init(NULL, size), EINVAL, "loan is null");
  EXPECT_ERROR(ringmaster_policy_functions_init(NULL, size), EINVAL, "functions is null");
  EXPECT_ERROR(ringmaster_source_options_init(NULL, size), EINVAL, "options is null");
  EXPECT_ERROR(ringmaster_worker_options_init(NULL, size), EINVAL, "options is null");
  EXPECT_ERROR(ringmaster_shutdown_options_init(NULL, size), EINVAL, "options is null");
  EXPECT_ERROR(ringmaster_service_listeners_options_init(NULL, size), EINVAL, "options is null");
  EXPECT_ERROR(ringmaster_hand_over_options_init(NULL, size), EINVAL, "options is null");
  EXPECT_ERROR(ringmaster_service_state_init(NULL, size), EINVAL, "state is null");

  EXPECT_ERROR(ringmaster_lease_release(NULL), EINVAL, "lease is null");
  EXPECT_ERROR(ringmaster_lease_held(NULL), EINVAL, "lease is null");
  EXPECT_ERROR(ringmaster_connection_close(NULL), EINVAL, "connection is null");

  EXPECT_ERROR(ringmaster_balancer_create(NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_fd(NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_run_once(NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_lend(NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_on_completion(NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_stats(NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_shutdown(NULL, NULL, NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_begin_shutdown(NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_ended(NULL, NULL, NULL), EINVAL, "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_add_source(NULL, 0, NULL, NULL, NULL), EINVAL,
               "balancer is null");
  EXPECT_ERROR(ringmaster_balancer_add_worker(NULL, NULL, NULL, NULL), EINVAL, "balancer is null");

  EXPECT_ERROR(ringmaster_policy_by_name(NULL, NULL), EINVAL, "name is null");
  EXPECT_ERROR(ringmaster_policy_by_name("exclusive", NULL), EINVAL, "policy is null");
  EXPECT_ERROR(ringmaster_policy_create(NULL, NULL), EINVAL, "functions is null");

  EXPECT_ERROR(ringmaster_source_join(NULL, NULL, 0), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_leave(NULL, NULL), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_pause(NULL), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_resume(NULL), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_set_policy(NULL, NULL), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_again(NULL, 0), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_pass_on(NULL, 0, NULL, 0), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_remove(NULL), EINVAL, "source is null");
  EXPECT_ERROR(ringmaster_source_index(NULL), EINVAL, "source is null");

  EXPECT_ERROR(ringmaster_mailbox_create(NULL), EINVAL, "mailbox is null");
  EXPECT_ERROR(ringmaster_mailbox_fd(NULL), EINVAL, "mailbox is null");
  EXPECT_ERROR(ringmaster_port_claim(NULL, NULL, NULL, NULL, 1), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_claim_one(NULL, &connection, NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_took(NULL, 1), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_adopt(NULL, NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_before_wait(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_after_wait(NULL, 0), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_watch_sight(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_surplus(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_to_pass_on(NULL, 2), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_set_capacity(NULL, 1), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_set_window(NULL, 1), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_leave(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_draining(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_ended(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_joined(NULL), EINVAL, "port is null");
  EXPECT_ERROR(ringmaster_port_worker(NULL), EINVAL, "port is null");

  EXPECT_ERROR(ringmaster_ticket_fd(NULL), EINVAL, "ticket is null");
  EXPECT(ringmaster_ticket_token(NULL) == 0 && ringmaster_ticket_events(NULL) == 0);
  EXPECT_ERROR(ringmaster_ticket_accept(NULL, NULL), EINVAL, "ticket is null");
  EXPECT_ERROR(ringmaster_ticket_again(NULL, 0), EINVAL, "ticket is null");

  EXPECT_ERROR(ringmaster_stats_totals(NULL, NULL), EINVAL, "stats is null");
  EXPECT_ERROR(ringmaster_stats_source_count(NULL), EINVAL, "stats is null");
  EXPECT_ERROR(ringmaster_stats_source(NULL, 0, NULL), EINVAL, "stats is null");
  EXPECT_ERROR(ringmaster_stats_worker_count(NULL), EINVAL, "stats is null");
  EXPECT_ERROR(ringmaster_stats_worker(NULL, 0, NULL), EINVAL, "stats is null");
  EXPECT_ERROR(ringmaster_stats_departed(NULL, NULL), EINVAL, "stats is null");

  EXPECT_ERROR(ringmaster_listeners_of_service(NULL, NULL), EINVAL, "listeners is null");
  EXPECT_ERROR(ringmaster_take_over(NULL, 1, NULL), EINVAL, "path is null");
  EXPECT_ERROR(ringmaster_listeners_count(NULL), EINVAL, "listeners is null");
  EXPECT_ERROR(ringmaster_listeners_fd(NULL, 0), EINVAL, "listeners is null");
  EXPECT_ERROR(ringmaster_listeners_take_fd(NULL, 0), EINVAL, "listeners is null");
  EXPECT_ERROR(ringmaster_listeners_predecessor(NULL), EINVAL, "listeners is null");
  EXPECT(ringmaster_listeners_name(NULL, 0) == NULL && ringmaster_policy_name(NULL) == NULL);
  EXPECT_ERROR(ringmaster_hand_over_serve(NULL, NULL, 0, NULL, NULL, NULL), EINVAL, "path is null");
  // More than there may be are not looked at.
  EXPECT_ERROR(ringmaster_hand_over_serve("/", &offered, SIZE_MAX, NULL, NULL, &hand_over), ENOBUFS,
               "at most 253");
  EXPECT_ERROR(ringmaster_hand_over_stop(NULL), EINVAL, "hand_over is null");
  EXPECT_ERROR(ringmaster_notify_service(NULL), EINVAL, "state is null");
  EXPECT_ERROR(ringmaster_watchdog_interval(NULL), EINVAL, "interval_ns is null");

  // There is nothing to free.
  EXPECT(ringmaster_balancer_free(NULL) == 0 && ringmaster_source_free(NULL) == 0);
  EXPECT(ringmaster_port_free(NULL) == 0 && ringmaster_ticket_free(NULL) == 0);
  EXPECT(ringmaster_mailbox_free(NULL) == 0 && ringmaster_policy_free(NULL) == 0);
  EXPECT(ringmaster_stats_free(NULL) == 0 && ringmaster_listeners_free(NULL) == 0);
  EXPECT(ringmaster_hand_over_free(NULL) == 0);
}

// --- Structs of other sizes ----------------------------------------------------------------------

static void TakesStructsOfEarlierVersions(void) {
  ringmaster_policy_functions functions;
  ringmaster_policy* policy = NULL;
  // One that ends behind `name` knows no `pick`, which has no default.
  const size_t early = offsetof(ringmaster_policy_functions, context);
  memset(&functions, 0xff, sizeof(functions));
  MUST(ringmaster_policy_functions_init(&functions, early));
  EXPECT(functions.struct_size == early && strcmp(functions.name, "own") == 0);
  const char* behind = (const char*)&functions + early;
  EXPECT(*behind == (char)0xff);  // nothing is written there
  EXPECT_ERROR(ringmaster_policy_create(&functions, &policy), EINVAL, "pick is null");
}

static void RefusesWhatLaterVersionsSay(void) {
  struct {
    ringmaster_service_state state;
    uint64_t later[2];
  } longer;
  memset(&longer, 0xff, sizeof(longer));
  MUST(ringmaster_service_state_init(&longer.state, sizeof(longer)));
  EXPECT(longer.later[0] == 0 && longer.later[1] == 0);
  MUST(ringmaster_notify_service(&longer.state));
  longer.later[1] = 1;
  EXPECT_ERROR(ringmaster_notify_service(&longer.state), EINVAL, "for a later version than 0.");
}

static void RefusesSizesThatNoVersionHas(void) {
  ringmaster_balancer_options options;
  ringmaster_balancer* balancer = NULL;
  EXPECT_ERROR(ringmaster_balancer_options_init(&options, sizeof(ringmaster_balancer_options*)),
               EINVAL, "struct_size of ringmaster_balancer_options is 8");
  MUST(ringmaster_balancer_options_init(&options, sizeof(options)));
  options.struct_size = 0;
  EXPECT_ERROR(ringmaster_balancer_create(&options, &balancer), EINVAL, "is 0, which no version");
  // It would end in the middle of a pointer.
  options.struct_size = offsetof(ringmaster_balancer_options, on_event) + 4;
  EXPECT_ERROR(ringmaster_balancer_create(&options, &balancer), EINVAL, "which no version");
  EXPECT_ERROR(ringmaster_balancer_options_init(&options, options.struct_size), EINVAL, "which no");
  options.struct_size = SIZE_MAX;
  EXPECT_ERROR(ringmaster_balancer_create(&options, &balancer), EINVAL, "which no version");
  EXPECT(balancer == NULL);
}

// As the header says them.
static void FillsInDefaults(void) {
  ringmaster_balancer_options balancer;
  ringmaster_source_options source;
  ringmaster_worker_options worker;
  ringmaster_shutdown_options end;
  ringmaster_service_listeners_options service;
  ringmaster_hand_over_options hand_over;
  MUST(ringmaster_balancer_options_init(&balancer, sizeof(balancer)));
  EXPECT(balancer.struct_size == sizeof(balancer) && balancer.host == RINGMASTER_HOST_THREAD);
  EXPECT(balancer.masters == 1 && balancer.thread_name == NULL && balancer.cpu == -1);
  EXPECT(balancer.capacity == UINT32_MAX && balancer.recall_after_ns == 10000000);
  EXPECT(balancer.restrict_ring == 1 && balancer.close_after_fork == 0);
  EXPECT(balancer.completion_entries == 4096 && balancer.on_event == NULL);
  MUST(ringmaster_source_options_init(&source, sizeof(source)));
  EXPECT(source.struct_size == sizeof(source) && source.master == -1);
  EXPECT(source.intake == RINGMASTER_INTAKE_POLL_ACCEPT && source.start_workers == 1);
  EXPECT(source.hold == 128 && source.capacity == UINT32_MAX && source.recall == 1);
  EXPECT(source.age_max_ns == RINGMASTER_FOREVER && source.permits == 1);
  EXPECT(source.nonblocking == 1 && source.close_on_exec == 1);
  MUST(ringmaster_worker_options_init(&worker, sizeof(worker)));
  EXPECT(worker.struct_size == sizeof(worker) && worker.on_host == 0 && worker.ring_fd == -1);
  EXPECT(worker.handoff == RINGMASTER_HANDOFF_INBOX && worker.tag == 0);
  EXPECT(worker.capacity == UINT32_MAX && worker.window == 32 && worker.cpu == -1);
  MUST(ringmaster_shutdown_options_init(&end, sizeof(end)));
  EXPECT(end.struct_size == sizeof(end) && end.drain_ns == 0 && end.on_ended == NULL);
  MUST(ringmaster_service_listeners_options_init(&service, sizeof(service)));
  EXPECT(service.name == NULL && service.unset_environment == 1);
  MUST(ringmaster_hand_over_options_init(&hand_over, sizeof(hand_over)));
  EXPECT(hand_over.start_max_ns == INT64_C(60000000000) && hand_over.on_failed == NULL);
}

// --- Values --------------------------------------------------------------------------------------

// Each is asked for alone; what the C++ library checks is seen to arrive there.
#define EXPECT_REFUSED(change, words)                                             \
  do {                                                                            \
    MUST(ringmaster_balancer_options_init(&options, sizeof(options)));            \
    options.change;                                                               \
    EXPECT_ERROR(ringmaster_balancer_create(&options, &balancer), EINVAL, words); \
  } while (0)

static void RefusesBalancersOutOfRange(void) {
  ringmaster_balancer_options options;
  ringmaster_balancer* balancer = NULL;
  EXPECT_REFUSED(host = 256, "host is 256, which is not one of RINGMASTER_HOST_THREAD");
  EXPECT_REFUSED(host = -1, "host is -1");
  EXPECT_REFUSED(masters = 17, "masters is 17");
  EXPECT_REFUSED(thread_name = "sixteen letters!", "thread_name \"sixteen letters!\"");
  EXPECT_REFUSED(cpu = -2, "cpu -2 does not exist");
  EXPECT_REFUSED(capacity = 0, "capacity of the balancer is 0");
  EXPECT_REFUSED(recall_after_ns = 1, "recall_after is 1ns");
  EXPECT_REFUSED(recall_after_ns = RINGMASTER_FOREVER, "recall_after is inf");
  EXPECT_REFUSED(restrict_ring = 2, "restrict_ring is 2; it must be 1 (yes) or 0 (no)");
  EXPECT_REFUSED(close_after_fork = -1, "close_after_fork is -1");
  EXPECT_REFUSED(completion_entries = 63, "completion_entries is 63");
  EXPECT_REFUSED(reserved = 1, "reserved is 1; it must be 0");
  EXPECT(balancer == NULL);
}

static size_t PickFirst(void* context, const ringmaster_arrival* arrival,
                        const ringmaster_view* view) {
  (void)context, (void)arrival, (void)view;
  return 0;
}
static int LoadNothing(void* context, const uint64_t* words, size_t word_count) {
  (void)context, (void)words, (void)word_count;
  return 1;
}

static void RefusesPoliciesThatCannotBe(void) {
  ringmaster_policy_functions functions;
  ringmaster_policy* policy = NULL;
  EXPECT_ERROR(ringmaster_policy_by_name("rand", &policy), EINVAL, "least-loaded");
  MUST(ringmaster_policy_functions_init(&functions, sizeof(functions)));
  EXPECT_ERROR(ringmaster_policy_create(&functions, NULL), EINVAL, "policy is null");
  EXPECT_ERROR(ringmaster_policy_create(&functions, &policy), EINVAL, "pick is null");
  functions.pick = PickFirst;
  functions.any_thread = functions.needs_peer = 1;
  EXPECT_ERROR(ringmaster_policy_create(&functions, &policy), EINVAL, "any_thread is set beside");
  functions.any_thread = 2;
  EXPECT_ERROR(ringmaster_policy_create(&functions, &policy), EINVAL, "any_thread is 2");
  functions.any_thread = 0;
  functions.load = LoadNothing;
  EXPECT_ERROR(ringmaster_policy_create(&functions, &policy), EINVAL, "of save and load one alone");
  functions.load = NULL;
  functions.reserved = 7;
  EXPECT_ERROR(ringmaster_policy_create(&functions, &policy), EINVAL, "reserved is 7");
  EXPECT(policy == NULL);
}

// Where io_uring is refused, the errno and the text say so, and nothing was made.
static void SaysThatIoUringIsRefused(int error) {
  ringmaster_balancer* balancer = NULL;
  ringmaster_mailbox* mailbox = NULL;
  EXPECT_ERROR(ringmaster_balancer_create(NULL, &balancer), error, "io_uring");
  EXPECT_ERROR(ringmaster_mailbox_create(&mailbox), error, "io_uring");
  EXPECT(balancer == NULL && mailbox == NULL);
}

int main(int argc, char** argv) {
  EXPECT(strcmp(ringmaster_last_error(), "") == 0);
  RefusesNullPointers();
  TakesStructsOfEarlierVersions();
  RefusesWhatLaterVersionsSay();
  RefusesSizesThatNoVersionHas();
  FillsInDefaults();
  RefusesBalancersOutOfRange();
  RefusesPoliciesThatCannotBe();
  if (argc > 1) SaysThatIoUringIsRefused(strcmp(argv[1], "EPERM") == 0 ? EPERM : ENOSYS);
  return 0;
}
