#include "ring.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>

#include "check.h"

struct test_ring {
  struct io_uring ring;
};

test_ring* RingMake(void) {
  test_ring* ring = malloc(sizeof(*ring));
  EXPECT(ring != NULL && io_uring_queue_init(64, &ring->ring, 0) == 0);
  return ring;
}

void RingFree(test_ring* ring) {
  io_uring_queue_exit(&ring->ring);
  free(ring);
}

int RingFd(const test_ring* ring) { return ring->ring.ring_fd; }

const struct io_uring_cqe* RingPeek(test_ring* ring) {
  struct io_uring_cqe* cqe = NULL;
  int error;
  do {
    io_uring_submit(&ring->ring);
    error = io_uring_wait_cqe(&ring->ring, &cqe);
  } while (error == -EINTR);
  EXPECT(error == 0);
  return cqe;
}

void RingSeen(test_ring* ring) { io_uring_cq_advance(&ring->ring, 1); }

void RingWait(test_ring* ring, uint64_t* user_data, int* result) {
  const struct io_uring_cqe* cqe = RingPeek(ring);
  *user_data = cqe->user_data;
  *result = cqe->res;
  RingSeen(ring);
}

struct io_uring_sqe* RingGetSqe(void* context) {
  return io_uring_get_sqe(&((test_ring*)context)->ring);
}

int RingSubmit(void* context) { return io_uring_submit(&((test_ring*)context)->ring); }

void RingRegisterTable(test_ring* ring, unsigned slots) {
  EXPECT(io_uring_register_files_sparse(&ring->ring, slots) == 0);
}

void RingPoll(test_ring* ring, int fd, uint64_t user_data) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(&ring->ring);
  EXPECT(sqe != NULL);
  io_uring_prep_poll_multishot(sqe, fd, POLLIN);
  sqe->user_data = user_data;
}
