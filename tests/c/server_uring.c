// A worker whose loop is an io_uring: it claims when the doorbell or its sight says so, and
// receives and sends by its ring.

#include <liburing.h>
#include <poll.h>

#include "check.h"
#include "server.h"

typedef struct connection {
  ringmaster_connection of;
  int sends;  // what is under way: sending, otherwise receiving
  int size;
  char bytes[1024];
} connection;

enum { kDoorbell = 1, kSight = 2 };

static void Receive(struct io_uring* ring, connection* it) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);
  EXPECT(sqe != NULL);
  io_uring_prep_recv(sqe, it->of.fd, it->bytes, sizeof(it->bytes), 0);
  sqe->user_data = (uintptr_t)it;
  it->sends = 0;
}

static void Send(struct io_uring* ring, connection* it) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);
  EXPECT(sqe != NULL);
  io_uring_prep_send(sqe, it->of.fd, it->bytes, (size_t)it->size, MSG_NOSIGNAL | MSG_WAITALL);
  sqe->user_data = (uintptr_t)it;
  it->sends = 1;
}

static void GoOn(struct io_uring* ring, connection* it, int result) {
  if (result == -EAGAIN || result == -EINTR) {
    it->sends ? Send(ring, it) : Receive(ring, it);
  } else if (result <= 0) {
    MUST(ringmaster_connection_close(&it->of));
    free(it);
  } else if (it->sends) {
    EXPECT(result == it->size);
    Receive(ring, it);
  } else {
    it->size = result;
    Send(ring, it);
  }
}

static void Watch(struct io_uring* ring, int fd) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);
  EXPECT(sqe != NULL);
  io_uring_prep_poll_multishot(sqe, fd, POLLIN);
  sqe->user_data = kSight;
}

void* WorkOnRing(void* context) {
  const server_worker* worker = context;
  struct io_uring ring;
  ringmaster_port* port = NULL;
  ringmaster_worker_options options;
  ringmaster_connection claimed;
  EXPECT(io_uring_queue_init(1024, &ring, 0) == 0);
  MUST(ringmaster_worker_options_init(&options, sizeof(options)));
  options.ring_fd = ring.ring_fd;
  options.tag = kDoorbell;
  MUST(ringmaster_balancer_add_worker(worker->balancer, NULL, &options, &port));
  const int sight = (int)MUST(ringmaster_port_watch_sight(port));
  Watch(&ring, sight);
  MUST(ringmaster_source_join(worker->source, port, 0));
  while (!ringmaster_port_ended(port)) {
    struct io_uring_cqe* cqe;
    unsigned head, seen = 0;
    int by_port = 0;
    MUST(ringmaster_port_before_wait(port));
    const int error = io_uring_submit_and_wait(&ring, 1);
    EXPECT(error >= 0 || error == -EINTR);
    io_uring_for_each_cqe(&ring, head, cqe) {
      by_port |= cqe->user_data == kDoorbell || cqe->user_data == kSight;
    }
    MUST(ringmaster_port_after_wait(port, by_port));
    io_uring_for_each_cqe(&ring, head, cqe) {
      ++seen;
      if (cqe->user_data == kSight && (cqe->flags & IORING_CQE_F_MORE) == 0) Watch(&ring, sight);
      if (cqe->user_data <= kSight) continue;
      GoOn(&ring, (connection*)(uintptr_t)cqe->user_data, cqe->res);
    }
    io_uring_cq_advance(&ring, seen);
    while (MUST(ringmaster_port_claim_one(port, &claimed, NULL)) == 1) {
      connection* it = malloc(sizeof(*it));
      EXPECT(it != NULL);
      it->of = claimed;
      Receive(&ring, it);
    }
  }
  MUST(ringmaster_port_free(port));
  io_uring_queue_exit(&ring);
  return NULL;
}
