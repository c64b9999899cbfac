// Method: operator new is counted for the whole process, clients included, while connections are
// served; the counter must not move.

#include <gtest/gtest.h>

#include <tuple>

#include "support/allocation_count.h"
#include "support/server.h"

namespace ringmaster {
namespace {

using Way = std::tuple<Intake, Handoff>;

class NoAllocation : public ::testing::TestWithParam<Way> {};

TEST_P(NoAllocation, PerArrivalAfterSetUpUnderAnyPolicy) {
  if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  const Intake intake = std::get<Intake>(GetParam());
  const Handoff handoff = std::get<Handoff>(GetParam());
  for (const std::string_view policy : PolicyNames()) {
    auto balancer = Balancer::Create().value();
    const testing::Listener listener = testing::Listener::Tcp();
    Source source =
        balancer
            ->AddSource(listener.fd(), {.policy = PolicyByName(policy).value(), .intake = intake})
            .value();
    const auto join = [&](int ring_fd, uint64_t tag) {
      absl::StatusOr<Port> port =
          balancer->AddWorker({.ring_fd = ring_fd, .handoff = handoff, .tag = tag});
      if (port.ok()) source.Join(*port, {.token = testing::Worker::kTokens}).IgnoreError();
      return port;
    };
    testing::Worker first(join, testing::ServeIndex);
    testing::Worker second(join, testing::ServeIndex);
    ASSERT_GE(testing::AskWhoServes(listener), 0);
    const size_t before = testing::AllocationCount();
    for (int i = 0; i < 1000; ++i) ASSERT_GE(testing::AskWhoServes(listener), 0);
    EXPECT_EQ(testing::AllocationCount(), before) << policy;
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, NoAllocation,
                         ::testing::Combine(::testing::Values(Intake::kPollAccept, Intake::kAccept),
                                            ::testing::Values(Handoff::kInbox,
                                                              Handoff::kCompletion)));

}  // namespace
}  // namespace ringmaster
