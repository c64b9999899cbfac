// Balancers that a loop of the program drives: by a descriptor, and by a ring that the loop lends.
// The loop is the worker, too.

#include <poll.h>

#include "check.h"
#include "ring.h"

static ringmaster_balancer* Create(int host) {
  ringmaster_balancer* balancer = NULL;
  ringmaster_balancer_options options;
  MUST(ringmaster_balancer_options_init(&options, sizeof(options)));
  options.host = host;
  MUST(ringmaster_balancer_create(&options, &balancer));
  return balancer;
}

static ringmaster_port* AddHost(ringmaster_balancer* balancer, ringmaster_source* source) {
  ringmaster_port* port = NULL;
  ringmaster_worker_options options;
  MUST(ringmaster_worker_options_init(&options, sizeof(options)));
  options.on_host = 1;
  MUST(ringmaster_balancer_add_worker(balancer, NULL, &options, &port));
  MUST(ringmaster_source_join(source, port, 9));
  return port;
}

static void Answer(ringmaster_connection* connection, int client) {
  char byte = 0;
  EXPECT(connection->token == 9 && write(connection->fd, "h", 1) == 1);
  MUST(ringmaster_connection_close(connection));
  EXPECT(read(client, &byte, 1) == 1 && byte == 'h');
  close(client);
}

// Nobody but the master uses the ring.
static void Pass(const struct io_uring_cqe* cqe, test_ring* ring, ringmaster_balancer* balancer) {
  EXPECT(ringmaster_balancer_on_completion(balancer, cqe) == 1);
  RingSeen(ring);
}

// `ring`: the one that was lent, or null.
static void End(ringmaster_balancer* balancer, ringmaster_source* source, ringmaster_port* port,
                test_ring* ring) {
  ringmaster_shutdown_report report;
  MUST(ringmaster_balancer_begin_shutdown(balancer, NULL));
  // It may have ended when this looks, and then refuses.
  while (ringmaster_balancer_ended(balancer, NULL, NULL) == 0) {
    if (ring != NULL) Pass(RingPeek(ring), ring, balancer);
    ringmaster_balancer_run_once(balancer);
  }
  report.struct_size = sizeof(report);
  EXPECT(ringmaster_balancer_ended(balancer, &report, NULL) == 1 && report.open == 0);
  EXPECT(ringmaster_port_ended(port) == 1);
  MUST(ringmaster_port_free(port));
  MUST(ringmaster_source_free(source));
  MUST(ringmaster_balancer_free(balancer));
}

static void ADescriptorSaysWhenToRun(void) {
  ringmaster_source* source = NULL;
  ringmaster_connection connection;
  ringmaster_ring_loan loan;
  struct pollfd readable;
  int i;
  ringmaster_balancer* const balancer = Create(RINGMASTER_HOST_LOOP);
  const int listen_fd = Listen();
  MUST(ringmaster_balancer_add_source(balancer, listen_fd, NULL, NULL, &source));
  ringmaster_port* const port = AddHost(balancer, source);
  EXPECT_ERROR(ringmaster_port_watch_sight(port), EBUSY, "on the host");
  MUST(ringmaster_ring_loan_init(&loan, sizeof(loan)));
  EXPECT(loan.ring_fd == -1);
  EXPECT_ERROR(ringmaster_balancer_lend(balancer, &loan), EBUSY, "");
  readable.fd = (int)MUST(ringmaster_balancer_fd(balancer));
  readable.events = POLLIN;
  for (i = 0; i < 20; ++i) {
    const int client = Connect(listen_fd);
    do {
      EXPECT(poll(&readable, 1, 20000) == 1);
      MUST(ringmaster_balancer_run_once(balancer));
    } while (MUST(ringmaster_port_claim_one(port, &connection, NULL)) == 0);
    Answer(&connection, client);
  }
  End(balancer, source, port, NULL);
  close(listen_fd);
}

static void ALoopLendsItsRing(void) {
  ringmaster_source* source = NULL;
  ringmaster_connection connection;
  ringmaster_ring_loan loan;
  int i;
  ringmaster_balancer* const balancer = Create(RINGMASTER_HOST_RING);
  test_ring* const ring = RingMake();
  const int listen_fd = Listen();
  MUST(ringmaster_ring_loan_init(&loan, sizeof(loan)));
  EXPECT_ERROR(ringmaster_balancer_lend(balancer, NULL), EINVAL, "loan is null");
  loan.reserved = 1;
  EXPECT_ERROR(ringmaster_balancer_lend(balancer, &loan), EINVAL, "reserved is 1");
  loan.reserved = 0;
  loan.struct_size = 8;
  EXPECT_ERROR(ringmaster_balancer_lend(balancer, &loan), EINVAL, "ringmaster_ring_loan is 8");
  loan.struct_size = sizeof(loan);
  loan.ring_fd = RingFd(ring);
  loan.context = ring;
  loan.user_data_mask = UINT64_C(1) << 63;
  loan.user_data_value = UINT64_C(1) << 63;
  EXPECT_ERROR(ringmaster_balancer_lend(balancer, &loan), EINVAL, "get_sqe");
  loan.get_sqe = RingGetSqe;
  loan.submit = RingSubmit;
  MUST(ringmaster_balancer_lend(balancer, &loan));
  EXPECT_ERROR(ringmaster_balancer_fd(balancer), EBUSY, "no descriptor to watch");
  EXPECT_ERROR(ringmaster_balancer_on_completion(balancer, NULL), EINVAL, "cqe is null");
  MUST(ringmaster_balancer_add_source(balancer, listen_fd, NULL, NULL, &source));
  ringmaster_port* const port = AddHost(balancer, source);
  MUST(ringmaster_balancer_run_once(balancer));
  for (i = 0; i < 20; ++i) {
    const int client = Connect(listen_fd);
    while (MUST(ringmaster_port_claim_one(port, &connection, NULL)) == 0) {
      Pass(RingPeek(ring), ring, balancer);
      MUST(ringmaster_balancer_run_once(balancer));
    }
    Answer(&connection, client);
  }
  End(balancer, source, port, ring);
  RingFree(ring);
  close(listen_fd);
}

static void RefusesWithoutAHost(void) {
  ringmaster_balancer* const balancer = Create(RINGMASTER_HOST_THREAD);
  EXPECT_ERROR(ringmaster_balancer_run_once(balancer), EBUSY, "");
  EXPECT_ERROR(ringmaster_balancer_fd(balancer), EBUSY, "no descriptor to watch");
  MUST(ringmaster_balancer_free(balancer));
}

int main(void) {
  if (!HasIoUring()) return kSkipped;
  ADescriptorSaysWhenToRun();
  ALoopLendsItsRing();
  RefusesWithoutAHost();
  return 0;
}
