// Connections that come into the file table of the worker's own ring (Handoff::kDirect), on the
// real ring. The worker is the test itself: it takes from its ring when it wants to, and every
// request goes by the slot. Each test runs with a plain ring, into which the kernel installs within
// the master's call, and with a deferring one, into which it installs on the worker's own thread.

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr uint64_t kAccepted = 77;
constexpr uint64_t kOwn = 78;  // what the worker asks of its ring

struct Ring {
  const char* name;
  unsigned flags;
};

size_t OpenDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

class DirectTest : public BalancerTest, public ::testing::WithParamInterface<Ring> {
 protected:
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped()) return;
    // The worker takes when the test wants it to, and the machine may be slow: nobody counts as
    // stuck meanwhile.
    Create({.recall_after = absl::Seconds(60)});
    MakeRing(ring_);
    ring_made_ = true;
    // Asks whether this kernel can do it.
    const auto port = AddDirect(1);
    if (absl::IsUnimplemented(port.status())) GTEST_SKIP() << port.status();
    ASSERT_TRUE(port.ok()) << port.status();
    ASSERT_EQ(io_uring_unregister_files(&ring_), 0);
  }
  void TearDown() override {
    port_.Leave();
    leases_.clear();
    if (ring_made_) io_uring_queue_exit(&ring_);
    for (const int fd : clients_) close(fd);
  }

  static void MakeRing(io_uring& ring) {
    ASSERT_EQ(io_uring_queue_init(64, &ring, GetParam().flags), 0);
  }

  absl::StatusOr<Port> AddDirect(unsigned slots, WorkerOptions options = {}) {
    if (slots > 0) {
      EXPECT_EQ(io_uring_register_files_sparse(&ring_, slots), 0);
    }
    options.ring_fd = ring_.ring_fd;
    options.handoff = Handoff::kDirect;
    return balancer_->AddWorker(options);
  }
  Source Join(const Listener& listener, unsigned slots, WorkerOptions options = {},
              SourceOptions source_options = {}) {
    port_ = AddDirect(slots, options).value();
    Source source = AddSource(listener, std::move(source_options));
    EXPECT_TRUE(source.Join(port_, {.token = kAccepted}).ok());
    return source;
  }

  void ConnectMany(const Listener& listener, int count) {
    for (int i = 0; i < count; ++i) clients_.push_back(listener.Connect());
  }

  // How many completions the worker could take now.
  unsigned Ready() {
    io_uring_get_events(&ring_);
    return io_uring_cq_ready(&ring_) + static_cast<unsigned>(came_.size());
  }
  // The result of the next completion of a connection; waits for it.
  int Next() {
    if (!came_.empty()) {
      const int slot = came_.front();
      came_.erase(came_.begin());
      return slot;
    }
    io_uring_cqe* cqe = nullptr;
    int waited = -EINTR;
    while (waited == -EINTR) waited = io_uring_wait_cqe(&ring_, &cqe);
    EXPECT_EQ(waited, 0);
    EXPECT_EQ(cqe->user_data, kAccepted);
    EXPECT_EQ(cqe->flags, 0u);
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    return result;
  }
  // Takes one, and counts it as open.
  int TakeOne() {
    const int slot = Next();
    EXPECT_GE(slot, 0);
    leases_.push_back(port_.AdoptSlot());
    port_.Took();
    return slot;
  }
  // Asks something of the ring, and waits for the answer.
  int Ask(io_uring_sqe* sqe) {
    sqe->user_data = kOwn;
    io_uring_submit(&ring_);
    std::vector<int> came;
    io_uring_cqe* cqe = nullptr;
    int result = 0;
    for (bool answered = false; !answered;) {
      if (io_uring_wait_cqe(&ring_, &cqe) != 0) continue;
      answered = cqe->user_data == kOwn;
      if (answered) {
        result = cqe->res;
      } else {
        came_.push_back(cqe->res);
      }
      io_uring_cqe_seen(&ring_, cqe);
    }
    return result;
  }
  int Write(int slot, const char* text, unsigned size) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_send(sqe, slot, text, size, MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE;
    return Ask(sqe);
  }
  int CloseSlot(int slot) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_close_direct(sqe, static_cast<unsigned>(slot));
    return Ask(sqe);
  }

  // Returns when the master has tried everything that was possible before. Each question is
  // answered in another turn: one that tries, one in which the kernel does it, and one that hears
  // of it. In between this thread enters the kernel, which is when a deferring ring installs.
  void LetItTry() {
    for (int turns = 0; turns < 6; ++turns) {
      StatsOf();
      io_uring_get_events(&ring_);
    }
  }

  WorkerStats StatsOf(uint32_t position = 0) { return balancer_->Stats().workers[position]; }

  io_uring ring_{};
  bool ring_made_ = false;
  Port port_;
  std::vector<int> clients_;
  std::vector<Lease> leases_;
  std::vector<int> came_;  // slots of connections that came while something was asked
};

INSTANTIATE_TEST_SUITE_P(Rings, DirectTest,
                         ::testing::Values(Ring{"Plain", 0},
                                           Ring{"Deferring", IORING_SETUP_SINGLE_ISSUER |
                                                                 IORING_SETUP_DEFER_TASKRUN}),
                         [](const auto& test) { return test.param.name; });

TEST_P(DirectTest, ACompletionCarriesASlotOfTheWorkersTable) {
  const Listener listener = Listener::Tcp();
  Join(listener, 4);
  ConnectMany(listener, 1);
  const int slot = TakeOne();
  EXPECT_EQ(StatsOf().open, 1u);
  EXPECT_EQ(Write(slot, "x", 1), 1);
  ExpectAnswers({std::exchange(clients_[0], dup(clients_[0]))});
  leases_.clear();
  EXPECT_EQ(StatsOf().open, 0u);
}

// If the master kept anything of it, the client would see no end.
TEST_P(DirectTest, TheClientSeesTheEndWhenTheWorkerClosesTheSlot) {
  const Listener listener = Listener::Tcp();
  Join(listener, 4);
  for (int i = 0; i < 50; ++i) {
    ConnectMany(listener, 1);
    EXPECT_EQ(CloseSlot(TakeOne()), 0);
    leases_.clear();
    ExpectEnds({clients_.back()});
    clients_.pop_back();
  }
  EXPECT_EQ(StatsOf().claimed, 50u);
}

TEST_P(DirectTest, KeepsNoDescriptorOfWhatIsInstalled) {
  const Listener listener = Listener::Tcp();
  Join(listener, 32, {.window = 32});
  const size_t before = OpenDescriptors();
  ConnectMany(listener, 20);
  for (int i = 0; i < 20; ++i) TakeOne();
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() == before + 20; }));  // the clients
}

TEST_P(DirectTest, SendsNoMoreThanTheWindowUntilTheWorkerTook) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    const Listener listener = Listener::Tcp();
    Source source = Join(listener, 16, {.window = 3}, {.intake = intake});
    ConnectMany(listener, 10);
    for (const unsigned wave : {3u, 3u, 3u, 1u}) {
      EXPECT_TRUE(Eventually([&] { return Ready() == wave; }));
      for (unsigned i = 0; i < wave; ++i) EXPECT_GE(Next(), 0);
      EXPECT_EQ(Ready(), 0u);
      port_.Took(wave);
    }
    EXPECT_TRUE(Eventually([&] { return StatsOf().unclaimed == 0; }));
    EXPECT_EQ(StatsOf().claimed, 10u);
    EXPECT_EQ(StatsOf().open, 0u);
    EXPECT_EQ(StatsOf().table_full, 0u);
    EXPECT_TRUE(source.Remove().ok());
    port_.Leave();
    EXPECT_EQ(io_uring_unregister_files(&ring_), 0);
  }
}

TEST_P(DirectTest, WhatDoesNotFitWaitsUntilALeaseEnds) {
  const Listener listener = Listener::Tcp();
  Join(listener, 2);
  ConnectMany(listener, 6);
  std::vector<int> slots = {TakeOne(), TakeOne()};
  ASSERT_TRUE(Eventually([&] { return StatsOf().table_full > 0; }));
  EXPECT_TRUE(SawEvent(Event::Kind::kTableFull));
  LetItTry();
  // Each look at the statistics is a turn of the master, and none of them tries again.
  const uint64_t fulls = StatsOf().table_full;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(StatsOf().table_full, fulls);
  EXPECT_EQ(Ready(), 0u);
  for (int served = 2; served < 6; ++served) {
    EXPECT_EQ(CloseSlot(slots.front()), 0);
    slots.erase(slots.begin());
    leases_.erase(leases_.begin());
    slots.push_back(TakeOne());
  }
  EXPECT_EQ(StatsOf().claimed, 6u);
  EXPECT_EQ(StatsOf().open, 2u);
  EXPECT_EQ(balancer_->Stats().dropped, 0u);
}

TEST_P(DirectTest, AWorkerThatAdoptsNothingSaysByTookThatThereIsRoom) {
  const Listener listener = Listener::Tcp();
  Join(listener, 1);
  ConnectMany(listener, 2);
  const int slot = Next();
  port_.Took();
  ASSERT_TRUE(Eventually([&] { return StatsOf().table_full > 0; }));
  LetItTry();
  EXPECT_EQ(CloseSlot(slot), 0);
  LetItTry();
  EXPECT_EQ(Ready(), 0u);
  port_.Took(0);
  EXPECT_EQ(Next(), slot);
  port_.Took();
}

TEST_P(DirectTest, WhatDoesNotFitGoesToSomebodyElse) {
  const Listener listener = Listener::Tcp();
  Source source = Join(listener, 1, {}, {.policy = RoundRobin()});
  auto other = AddWorker({source});
  std::vector<int> answers;
  for (int i = 0; i < 20; ++i) {
    const int client = listener.Connect();
    clients_.push_back(client);
    if (i == 0) continue;  // this one is for the table
    char byte = 0;
    EXPECT_EQ(read(client, &byte, 1), 1);
  }
  EXPECT_GE(Next(), 0);
  EXPECT_EQ(Ready(), 0u);
  EXPECT_GT(StatsOf().table_full, 0u);
}

TEST_P(DirectTest, WhatIsInTheTableOfAWorkerThatLeavesIsItsOwn) {
  const Listener listener = Listener::Tcp();
  Join(listener, 8);
  ConnectMany(listener, 5);
  EXPECT_TRUE(Eventually([&] { return StatsOf().claimed == 5; }));
  port_.Leave();
  EXPECT_EQ(balancer_->Stats().departed.claimed, 5u);
  // Everything is there when Leave has returned.
  ASSERT_EQ(Ready(), 5u);
  std::vector<int> slots;
  for (int i = 0; i < 5; ++i) slots.push_back(Next());
  for (const int slot : slots) {
    EXPECT_EQ(Write(slot, "x", 1), 1);
    EXPECT_FALSE(port_.AdoptSlot().held());
  }
  ExpectAnswers(std::exchange(clients_, {}));
}

TEST_P(DirectTest, NeverExceedsTheCapacity) {
  const Listener listener = Listener::Tcp();
  Join(listener, 2, {.capacity = 2});
  ConnectMany(listener, 6);
  std::vector<int> slots;
  for (int i = 0; i < 6; ++i) {
    slots.push_back(TakeOne());
    EXPECT_LE(StatsOf().open, 2u);
    if (slots.size() < 2) continue;
    EXPECT_EQ(CloseSlot(slots.front()), 0);
    slots.erase(slots.begin());
    leases_.erase(leases_.begin());
  }
  EXPECT_EQ(StatsOf().table_full, 0u);
}

TEST_P(DirectTest, AShutdownWaitsForLeasesAndClosesWhatDidNotFit) {
  const Listener listener = Listener::Tcp();
  Join(listener, 1);
  ConnectMany(listener, 2);
  const int slot = TakeOne();
  ASSERT_TRUE(Eventually([&] { return StatsOf().table_full > 0; }));
  LetItTry();
  const ShutdownReport report = balancer_->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(report.drained);
  EXPECT_EQ(report.open, 1u);
  EXPECT_EQ(report.refused, 1u);
  EXPECT_EQ(report.stats.workers[0].table_full, StatsOf().table_full);
  EXPECT_EQ(Write(slot, "x", 1), 1);
  // A deferring ring has the last of a batch first.
  ssize_t answers = 0;
  for (const int client : clients_) {
    char byte = 0;
    answers += read(client, &byte, 1);
  }
  EXPECT_EQ(answers, 1);
}

TEST_P(DirectTest, ADrainEndsWhenTheLastLeaseDoes) {
  const Listener listener = Listener::Tcp();
  Join(listener, 4);
  ConnectMany(listener, 1);
  EXPECT_EQ(CloseSlot(TakeOne()), 0);
  ASSERT_TRUE(balancer_->BeginShutdown({.drain = absl::Minutes(1)}).ok());
  leases_.clear();
  EXPECT_TRUE(Eventually([&] { return balancer_->Ended().has_value(); }));
  EXPECT_TRUE(balancer_->Ended()->drained);
}

TEST_P(DirectTest, AMasterOnALoopInstallsAsWell) {
  Create({.host = Host::kLoop, .recall_after = absl::Seconds(60)});
  const Listener listener = Listener::Tcp();
  Join(listener, 2);
  ConnectMany(listener, 4);
  std::vector<int> slots;
  const auto turn = [&] {
    EXPECT_TRUE(balancer_->RunOnce().ok());
    while (Ready() > 0) {
      slots.push_back(TakeOne());
      EXPECT_EQ(Write(slots.back(), "x", 1), 1);
    }
  };
  EXPECT_TRUE(Eventually([&] { return turn(), slots.size() == 2 && StatsOf().table_full > 0; }));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(CloseSlot(slots[static_cast<size_t>(i)]), 0);
  leases_.clear();
  EXPECT_TRUE(Eventually([&] { return turn(), slots.size() == 4; }));
  ExpectAnswers(std::exchange(clients_, {}));
  port_.Leave();
}

TEST_P(DirectTest, SaysWhyAWorkerCannotHaveIt) {
  EXPECT_EQ(AddDirect(0).status().code(), absl::StatusCode::kFailedPrecondition);  // no table
  const Listener listener = Listener::Tcp();
  const Source limited = AddSource(listener, {.capacity = 3});
  port_ = AddDirect(1).value();
  EXPECT_EQ(Source(limited).Join(port_).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(port_.WatchSight().status().code(), absl::StatusCode::kFailedPrecondition);
  port_.Leave();
  Create({.host = Host::kRing});
  EXPECT_EQ(AddDirect(0).status().code(), absl::StatusCode::kFailedPrecondition);
}

// The limit of descriptors does not leave room for a table.
TEST_P(DirectTest, SaysWhyAMasterWithoutATableCannotInstall) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_EQ(io_uring_register_files_sparse(&ring_, 1), 0);
  const rlimit low{.rlim_cur = 15, .rlim_max = before.rlim_max};
  std::vector<int> held;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  const auto balancer = Balancer::Create();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  if (!balancer.ok()) GTEST_SKIP() << "no descriptors left: " << balancer.status();
  const auto port = (*balancer)->AddWorker({.ring_fd = ring_.ring_fd, .handoff = Handoff::kDirect});
  EXPECT_EQ(port.status().code(), absl::StatusCode::kFailedPrecondition) << port.status();
}

}  // namespace
}  // namespace ringmaster
