// A small io_uring for the tests in C99, which cannot include <liburing.h>.

#ifndef RINGMASTER_TESTS_C_RING_H_
#define RINGMASTER_TESTS_C_RING_H_

#include <stdint.h>

struct io_uring_cqe;
struct io_uring_sqe;

typedef struct test_ring test_ring;

test_ring* RingMake(void);
void RingFree(test_ring* ring);
int RingFd(const test_ring* ring);
// Waits for a completion, submits what there is to submit, and consumes the completion.
void RingWait(test_ring* ring, uint64_t* user_data, int* result);
// The same without consuming it.
const struct io_uring_cqe* RingPeek(test_ring* ring);
void RingSeen(test_ring* ring);
// As ringmaster_ring_loan wants them; the context is the ring.
struct io_uring_sqe* RingGetSqe(void* context);
int RingSubmit(void* context);
// A table of so many slots for descriptors.
void RingRegisterTable(test_ring* ring, unsigned slots);
// Arms a multishot poll for reading.
void RingPoll(test_ring* ring, int fd, uint64_t user_data);

#endif  // RINGMASTER_TESTS_C_RING_H_
