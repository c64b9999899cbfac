// A turn makes no heap allocation: operator new is replaced by one that counts.

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <new>
#include <vector>

#include "ring/features.h"
#include "ring/uring_ring.h"
#include "sockets.h"
#include "support/allocation_count.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::Op;
using core::OpKind;

TEST(Allocation, IsCounted) {
  const size_t before = testing::AllocationCount();
  // Called as a function: clang drops what a new-expression or a container would allocate here.
  ::operator delete(::operator new(100));
  EXPECT_EQ(testing::AllocationCount(), before + 1);
}

TEST(Allocation, IsNotMadeByATurn) {
  const absl::StatusOr<Features> probed = ProbeFeatures();
  if (!probed.ok()) GTEST_SKIP() << probed.status().ToString();
  for (const bool dontwait : {true, false}) {
    Features features = *probed;
    features.accept_dontwait = features.accept_dontwait && dontwait;
    // Small queues, so that the operations go in several crossings and the completions overflow.
    absl::StatusOr<std::unique_ptr<UringRing>> made =
        UringRing::Create({.submission_entries = 4, .completion_entries = 8, .features = features});
    ASSERT_TRUE(made.ok()) << made.status();
    UringRing& ring = **made;
    ASSERT_EQ(ring.Enable(), 0);

    const Listener listener(AF_INET);
    const Fd event(eventfd(0, EFD_CLOEXEC));
    std::vector<Fd> clients;
    for (int i = 0; i < 20; ++i) clients.push_back(listener.Connect());
    std::vector<Op> ops = {{.key = {.kind = OpKind::kPoll}, .fd = listener.fd()},
                           {.key = {.kind = OpKind::kWatch}, .fd = event.get()},
                           {.key = {.kind = OpKind::kDoorbell}, .fd = event.get()},
                           {.key = {.kind = OpKind::kClose}, .fd = -1}};
    for (int i = 0; i < 15; ++i) {
      ops.push_back(
          {.key = {.kind = OpKind::kAccept, .facts = core::kFactIncomingCpu}, .fd = listener.fd()});
    }
    ops.push_back({.key = {.kind = OpKind::kAcceptEach}, .fd = listener.fd()});
    ops.push_back({.key = {.kind = OpKind::kPollEnd}});
    ops.push_back({.key = {.kind = OpKind::kPollEnd}});
    std::vector<Completion> completions;
    completions.reserve(16);
    std::vector<int> accepted;
    accepted.reserve(20);

    const size_t before = testing::AllocationCount();
    int error = ring.Turn(ops, core::kWaitForever, completions);
    while (error == 0 && !completions.empty()) {
      for (const Completion& completion : completions) {
        const bool accept =
            completion.key.kind == OpKind::kAccept || completion.key.kind == OpKind::kAcceptEach;
        if (accept && completion.result >= 0) accepted.push_back(completion.result);
      }
      error = ring.Turn({}, 1'000'000, completions);
    }
    EXPECT_EQ(testing::AllocationCount(), before);
    EXPECT_EQ(error, 0);
    EXPECT_GE(accepted.size(), 15u);
    for (const int fd : accepted) close(fd);
  }
}

}  // namespace
}  // namespace ringmaster::ring
