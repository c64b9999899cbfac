// Sources of which the workers get tickets (Intake::kReadiness), on the real ring. They are
// listeners, whose tickets are redeemed by an accept, and everything else that can be polled.
// Method: many events, each with a number of its own; every number must come out exactly once,
// whoever reads it.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/descriptor_limit.h"
#include "support/server.h"

namespace ringmaster {
namespace {

#ifdef RINGMASTER_TEST_SANITIZED
constexpr uint64_t kEvents = 100'000;
#else
constexpr uint64_t kEvents = 1'000'000;
#endif
constexpr uint32_t kWorkers = 4;

// A worker that watches a mailbox and redeems its tickets itself.
class TicketWorker {
 public:
  using Redeem = std::function<void(uint32_t worker, Ticket ticket)>;

  TicketWorker(Balancer& balancer, Source source, Redeem redeem, WorkerOptions options = {})
      : mailbox_(Mailbox::Create().value()),
        port_(balancer.AddWorker(mailbox_, options).value()),
        redeem_(std::move(redeem)) {
    EXPECT_TRUE(source.Join(port_, {.token = 7}).ok());
    thread_ = std::thread([this] { Run(); });
  }
  ~TicketWorker() {
    stop_ = true;
    eventfd_write(stop_fd_, 1);
    thread_.join();
    close(stop_fd_);
  }
  uint64_t tickets() const { return tickets_; }

 private:
  void Run() {
    while (!stop_) {
      pollfd fds[] = {{.fd = mailbox_.fd(), .events = POLLIN, .revents = 0},
                      {.fd = stop_fd_, .events = POLLIN, .revents = 0}};
      poll(fds, 2, -1);
      port_.Claim([](Connection) { ADD_FAILURE() << "a ticket came as a connection"; },
                  [&](Ticket ticket) {
                    EXPECT_EQ(ticket.token(), 7u);
                    ++tickets_;
                    redeem_(port_.worker(), std::move(ticket));
                  });
    }
    port_.Leave();
  }

  Mailbox mailbox_;
  Port port_;
  const Redeem redeem_;
  const int stop_fd_ = eventfd(0, EFD_NONBLOCK);
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> tickets_{0};
  std::thread thread_;
};

class ReadinessTest : public BalancerTest {
 protected:
  Source AddTickets(int fd, std::unique_ptr<Policy> policy = LeastLoaded()) {
    return balancer_->AddSource(fd, {.policy = std::move(policy), .intake = Intake::kReadiness})
        .value();
  }
  std::vector<std::unique_ptr<TicketWorker>> AddTicketWorkers(Source source,
                                                              const TicketWorker::Redeem& redeem) {
    std::vector<std::unique_ptr<TicketWorker>> workers;
    for (uint32_t i = 0; i < kWorkers; ++i) {
      workers.push_back(std::make_unique<TicketWorker>(*balancer_, source, redeem));
    }
    return workers;
  }
  std::string Refusal(int fd, SourceOptions options = {}) {
    options.intake = Intake::kReadiness;
    const absl::StatusOr<Source> source = balancer_->AddSource(fd, std::move(options));
    EXPECT_FALSE(source.ok());
    return source.ok() ? "" : std::string(source.status().message());
  }
};

// O_NONBLOCK belongs to the open file, so whoever shares it can clear it.
TEST_F(ReadinessTest, NeverWaitsForAConnectionAlthoughTheListenerHasBecomeBlocking) {
  const Listener listener = Listener::Tcp();
  const int flags = fcntl(listener.fd(), F_GETFL);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(AddTickets(listener.fd()).Join(port).ok());
  const auto readable = [&mailbox] {
    pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
    return poll(&entry, 1, 0) == 1;
  };
  const int taken = listener.Connect();
  ASSERT_TRUE(Eventually(readable));
  close(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_EQ(fcntl(listener.fd(), F_SETFL, flags & ~O_NONBLOCK), 0);
  int served = 0;
  const auto claim = [&] { port.Claim([&served](const Connection&) { ++served; }); };
  claim();  // which would wait for the next one
  EXPECT_EQ(served, 0);
  EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kSourceBlocks); }));
  ASSERT_EQ(fcntl(listener.fd(), F_SETFL, flags), 0);
  const int client = listener.Connect();
  EXPECT_TRUE(Eventually([&] {
    claim();
    return served == 1;
  }));
  close(taken);
  close(client);
}

bool Says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Each of `kEvents` numbers once.
class Numbers {
 public:
  void Saw(uint64_t number) {
    ASSERT_LT(number, kEvents);
    EXPECT_FALSE(seen_[number].exchange(true)) << number << " came twice";
    ++count_;
  }
  uint64_t count() const { return count_; }

 private:
  std::vector<std::atomic<bool>> seen_ = std::vector<std::atomic<bool>>(kEvents);
  std::atomic<uint64_t> count_{0};
};

// Waits as long as there is progress.
bool AllSeen(const std::atomic<uint64_t>& count, uint64_t all) {
  uint64_t before = UINT64_MAX;
  while (count < all && count != before) {
    before = count;
    if (Eventually([&] { return count >= all; })) return true;
  }
  return count >= all;
}

// --- Listeners -----------------------------------------------------------------------------------

class Listeners : public ReadinessTest, public ::testing::WithParamInterface<bool> {
 protected:
  static Listener Make() { return GetParam() ? Listener::Unix() : Listener::Tcp(); }
};
INSTANTIATE_TEST_SUITE_P(Kinds, Listeners, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "Unix" : "Tcp"; });

TEST_P(Listeners, ABurstIsServedByWorkersThatKnowNothingOfTickets) {
  const Listener listener = Make();
  Source source =
      balancer_->AddSource(listener.fd(), {.policy = RoundRobin(), .intake = Intake::kReadiness})
          .value();
  constexpr int kBurst = 1000;
  std::vector<int> clients;
  for (int i = 0; i < kBurst; ++i) clients.push_back(listener.Connect());
  std::vector<std::unique_ptr<Worker>> workers;
  for (uint32_t i = 0; i < kWorkers; ++i) workers.push_back(AddWorker({source}));
  ExpectAnswers(clients);
  // And the ones after the burst, one by one.
  for (int i = 0; i < 100; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  EXPECT_TRUE(Eventually([&] {
    uint64_t open = 0;
    for (const WorkerStats& worker : balancer_->Stats().workers) open += worker.open;
    return open == 0;
  }));
}

TEST_P(Listeners, NeverExceedsTheCapacityOfItsWorkers) {
  const Listener listener = Make();
  Source source = balancer_->AddSource(listener.fd(), {.intake = Intake::kReadiness}).value();
  std::mutex mutex;
  std::vector<Connection> open;
  std::atomic<size_t> most{0};
  const auto keep = [&](uint32_t, Connection connection) {
    std::lock_guard lock(mutex);
    open.push_back(std::move(connection));
    most = std::max(most.load(), open.size());
  };
  const auto first = AddWorker({source}, keep, {.capacity = 3});
  const auto second = AddWorker({source}, keep, {.capacity = 2});
  std::vector<int> clients;
  for (int i = 0; i < 50; ++i) clients.push_back(listener.Connect());
  for (size_t served = 0; served < 50;) {
    ASSERT_TRUE(Eventually([&] {
      std::lock_guard lock(mutex);
      return !open.empty();
    })) << served;
    std::vector<Connection> leaving;
    {
      std::lock_guard lock(mutex);
      leaving.swap(open);
    }
    served += leaving.size();
  }
  EXPECT_LE(most, 5u);
  for (const int client : clients) close(client);
}

// The worker runs out of descriptors, not the balancer.
TEST_P(Listeners, WhatAWorkerHasNoDescriptorForIsServedLater) {
  const Listener listener = Make();
  Source source = balancer_->AddSource(listener.fd(), {.intake = Intake::kReadiness}).value();
  constexpr int kClients = 20;
  std::vector<int> clients;
  std::mutex mutex;
  std::vector<Connection> open;
  const auto worker = AddWorker({source}, [&](uint32_t, Connection connection) {
    std::lock_guard lock(mutex);
    open.push_back(std::move(connection));
  });
  EXPECT_TRUE(source.Pause().ok());
  for (int i = 0; i < kClients; ++i) clients.push_back(listener.Connect());
  // Room for three of them.
  const DescriptorLimit limit(clients.back() + 4);
  EXPECT_TRUE(source.Resume().ok());
  EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kOutOfDescriptors); }));
  const uint64_t wakes = balancer_->Stats().master_wakes;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LT(balancer_->Stats().master_wakes - wakes, 60u) << "it spins";
  size_t served = 0;
  while (served < kClients) {
    std::vector<Connection> leaving;
    ASSERT_TRUE(Eventually([&] {
      std::lock_guard lock(mutex);
      return !open.empty();
    })) << served;
    {
      std::lock_guard lock(mutex);
      leaving.swap(open);
    }
    served += leaving.size();
  }
  for (const int client : clients) close(client);
}

TEST_P(Listeners, TicketsComeAsCompletionsOfTheWorkersOwnRing) {
  const Listener listener = Make();
  Source source = balancer_->AddSource(listener.fd(), {.intake = Intake::kReadiness}).value();
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(64, &ring, 0), 0);
  Port port =
      balancer_->AddWorker({.ring_fd = ring.ring_fd, .handoff = Handoff::kCompletion}).value();
  ASSERT_TRUE(source.Join(port, {.token = 5}).ok());
  constexpr int kClients = 50;
  std::vector<int> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(listener.Connect());
  for (int served = 0; served < kClients;) {
    io_uring_cqe* cqe = nullptr;
    ASSERT_EQ(io_uring_wait_cqe(&ring, &cqe), 0);
    EXPECT_EQ(cqe->user_data, 5u);
    EXPECT_NE(cqe->res & POLLIN, 0);
    io_uring_cqe_seen(&ring, cqe);
    for (int fd; (fd = accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0; ++served) {
      const Connection connection = port.Adopt(fd);
    }
    port.Took();
  }
  port.Leave();
  io_uring_queue_exit(&ring);
  for (const int client : clients) close(client);
}

TEST_P(Listeners, LeavesToOthersWhatItsWorkersHaveNotClaimed) {
  const Listener listener = Make();
  Source source = balancer_->AddSource(listener.fd(), {.intake = Intake::kReadiness}).value();
  auto worker = AddWorker({source});
  EXPECT_EQ(AskWhoServes(listener), static_cast<int>(worker->index()));
  ASSERT_TRUE(source.Remove().ok());
  worker.reset();
  const int client = listener.Connect();
  Source again = balancer_->AddSource(listener.fd(), {}).value();
  const auto other = AddWorker({again});
  char who = 0;
  EXPECT_EQ(read(client, &who, 1), 1);
  close(client);
}

// --- Others that wait at the same listener -------------------------------------------------------

// Each kind waits for one more connection and says so.
class OtherWaiter {
 public:
  enum class Kind { kEdgeTriggeredEpoll, kPoll, kSelect };
  OtherWaiter(Kind kind, int fd) : kind_(kind), fd_(fd), epoll_fd_(epoll_create1(0)) {
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
    epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  }
  ~OtherWaiter() { close(epoll_fd_); }
  bool Wait(int ms) {
    switch (kind_) {
      case Kind::kEdgeTriggeredEpoll: {
        epoll_event event;
        return epoll_wait(epoll_fd_, &event, 1, ms) == 1;
      }
      case Kind::kPoll: {
        pollfd one{.fd = fd_, .events = POLLIN, .revents = 0};
        return poll(&one, 1, ms) == 1;
      }
      case Kind::kSelect: {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd_, &set);
        timeval time{.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
        return select(fd_ + 1, &set, nullptr, nullptr, &time) == 1;
      }
    }
    return false;
  }

 private:
  const Kind kind_;
  const int fd_;
  const int epoll_fd_;
};

// Puts all threads of this process, and those that they make, on one of the CPUs that it may use.
class AllOnOneCpu {
 public:
  AllOnOneCpu() {
    EXPECT_EQ(sched_getaffinity(0, sizeof(before_), &before_), 0);
    int first = 0;
    while (!CPU_ISSET(first, &before_)) ++first;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    Apply(one);
  }
  ~AllOnOneCpu() { Apply(before_); }

 private:
  static void Apply(const cpu_set_t& set) {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      // A thread may have ended since it was listed.
      (void)sched_setaffinity(std::stoi(task.path().filename()), sizeof(set), &set);
    }
  }
  cpu_set_t before_;
};

class Waiters : public ReadinessTest,
                public ::testing::WithParamInterface<std::tuple<Intake, OtherWaiter::Kind>> {};
std::string NameOfWaiter(
    const ::testing::TestParamInfo<std::tuple<Intake, OtherWaiter::Kind>>& instance) {
  constexpr const char* kKinds[] = {"Epoll", "Poll", "Select"};
  const auto& [intake, kind] = instance.param;
  return std::string(intake == Intake::kReadiness ? "Readiness" : "PollAccept") +
         kKinds[static_cast<size_t>(kind)];
}
INSTANTIATE_TEST_SUITE_P(
    All, Waiters,
    ::testing::Combine(::testing::Values(Intake::kPollAccept, Intake::kReadiness),
                       ::testing::Values(OtherWaiter::Kind::kEdgeTriggeredEpoll,
                                         OtherWaiter::Kind::kPoll, OtherWaiter::Kind::kSelect)),
    NameOfWaiter);

// What is admitted is held back by a capacity of 1 until the waiter has reported. It does report,
// because we do not take the event from it.
TEST_P(Waiters, SeeEveryConnectionThatIsHeldBack) {
  const Listener listener = Listener::Tcp();
  Source source = balancer_->AddSource(listener.fd(), {.intake = std::get<0>(GetParam())}).value();
  std::mutex mutex;
  std::vector<Connection> open;
  const auto worker = AddWorker({source},
                                [&](uint32_t, Connection connection) {
                                  std::lock_guard lock(mutex);
                                  open.push_back(std::move(connection));
                                },
                                {.capacity = 1});
  const auto is_open = [&] {
    std::lock_guard lock(mutex);
    return !open.empty();
  };
  std::vector<int> clients{listener.Connect()};
  ASSERT_TRUE(Eventually(is_open));
  OtherWaiter waiter(std::get<1>(GetParam()), listener.fd());
  int seen = 0;
  constexpr int kRounds = 100;
  for (int i = 0; i < kRounds; ++i) {
    clients.push_back(listener.Connect());
    seen += waiter.Wait(5000);
    std::vector<Connection> leaving;
    {
      std::lock_guard lock(mutex);
      leaving.swap(open);
    }
    leaving.clear();
    ASSERT_TRUE(Eventually(is_open));
  }
  EXPECT_EQ(seen, kRounds);
  for (const int client : clients) close(client);
}

// Running freely, whoever accepts first may leave nothing to see: as beside any other epoll set.
// With several CPUs that is decided by where the scheduler has put the threads, and it may decide
// the same way for hundreds of connections. On one CPU it is decided by the order in which they
// were woken. So everybody is on one, and each side has many turns, taken alternately, with a
// waiter of its own in each.
TEST_F(ReadinessTest, AWaiterSeesNoFewerConnectionsThanBesideAnotherEpollSet) {
  const AllOnOneCpu pinned;
  constexpr int kTurns = 30;
  constexpr int kRoundsMax = 6;
  constexpr int kConnections = 20;
  const auto seen_in_a_turn = [&](const Listener& listener) {
    std::atomic<bool> stop{false};
    std::atomic<int> seen{0};
    OtherWaiter waiter(OtherWaiter::Kind::kEdgeTriggeredEpoll, listener.fd());
    std::thread thread([&] {
      while (!stop) seen += waiter.Wait(20);
    });
    for (int i = 0; i < kConnections; ++i) EXPECT_GE(AskWhoServes(listener), 0);
    stop = true;
    thread.join();
    return seen.load();
  };
  const Listener beside_epoll = Listener::Tcp();
  OtherWaiter epoll_set(OtherWaiter::Kind::kEdgeTriggeredEpoll, beside_epoll.fd());
  std::atomic<bool> stop{false};
  std::thread server([&] {
    while (!stop) {
      if (!epoll_set.Wait(20)) continue;
      for (int fd; (fd = accept4(beside_epoll.fd(), nullptr, nullptr, 0)) >= 0; close(fd)) {
        EXPECT_EQ(write(fd, "", 1), 1);
      }
    }
  });
  for (const Intake intake : {Intake::kPollAccept, Intake::kReadiness}) {
    const Listener listener = Listener::Tcp();
    Source source = balancer_->AddSource(listener.fd(), {.intake = intake}).value();
    std::vector<std::unique_ptr<Worker>> workers;
    for (uint32_t i = 0; i < 2; ++i) workers.push_back(AddWorker({source}));
    // Beside a busy neighbour the two differ by a factor of four by chance, either way. A waiter
    // that really sees fewer does so in every round.
    bool no_fewer = false;
    for (int round = 0; round < kRoundsMax && !no_fewer; ++round) {
      int seen = 0;
      int reference = 0;
      for (int turn = 0; turn < kTurns; ++turn) {
        reference += seen_in_a_turn(beside_epoll);
        seen += seen_in_a_turn(listener);
      }
      std::printf(
          "of %d connections an edge-triggered waiter saw %d beside %s, %d beside an "
          "ordinary epoll set\n",
          kTurns * kConnections, seen, intake == Intake::kReadiness ? "kReadiness" : "kPollAccept",
          reference);
      no_fewer = seen >= reference * 3 / 4;
    }
    EXPECT_TRUE(no_fewer);
    // Before its listener is closed, whose number the next one gets.
    EXPECT_TRUE(source.Remove().ok());
  }
  stop = true;
  server.join();
}

// --- Anything else -------------------------------------------------------------------------------

TEST_F(ReadinessTest, EveryEventOfAnEventfdIsReadOnce) {
  const int fd = eventfd(0, EFD_NONBLOCK);
  Source source = AddTickets(fd, RoundRobin());
  std::atomic<uint64_t> sum{0};
  {
    const auto workers = AddTicketWorkers(source, [&](uint32_t, Ticket ticket) {
      for (eventfd_t value; eventfd_read(ticket.fd(), &value) == 0;) sum += value;
    });
    for (uint64_t i = 0; i < kEvents; ++i) ASSERT_EQ(eventfd_write(fd, 1), 0);
    EXPECT_TRUE(AllSeen(sum, kEvents)) << sum;
  }
  EXPECT_EQ(sum, kEvents);
  ASSERT_TRUE(source.Remove().ok());
  close(fd);
}

TEST_F(ReadinessTest, EveryRecordOfAPipeIsReadOnce) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  Source source = AddTickets(ends[0], RoundRobin());
  Numbers numbers;
  std::atomic<uint64_t> count{0};
  {
    const auto workers = AddTicketWorkers(source, [&](uint32_t, Ticket ticket) {
      std::array<uint64_t, 512> records;
      for (ssize_t size; (size = read(ticket.fd(), records.data(), sizeof(records))) > 0;) {
        ASSERT_EQ(static_cast<size_t>(size) % sizeof(uint64_t), 0u);
        for (size_t i = 0; i < static_cast<size_t>(size) / sizeof(uint64_t); ++i) {
          numbers.Saw(records[i]);
        }
        count += static_cast<size_t>(size) / sizeof(uint64_t);
      }
    });
    for (uint64_t i = 0; i < kEvents;) {
      if (write(ends[1], &i, sizeof(i)) == sizeof(i)) {
        ++i;
      } else {
        ASSERT_EQ(errno, EAGAIN);
        std::this_thread::yield();
      }
    }
    EXPECT_TRUE(AllSeen(count, kEvents)) << count;
  }
  EXPECT_EQ(numbers.count(), kEvents);
  ASSERT_TRUE(source.Remove().ok());
  close(ends[0]);
  close(ends[1]);
}

// The sender waits for the readers, lest the kernel drop what does not fit.
TEST_F(ReadinessTest, EveryDatagramIsReadOnce) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  sockaddr_in address{.sin_family = AF_INET,
                      .sin_port = 0,
                      .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
                      .sin_zero = {}};
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int sender = socket(AF_INET, SOCK_DGRAM, 0);
  ASSERT_EQ(connect(sender, reinterpret_cast<sockaddr*>(&address), size), 0);
  Source source = AddTickets(fd, RoundRobin());
  Numbers numbers;
  std::atomic<uint64_t> count{0};
  {
    const auto workers = AddTicketWorkers(source, [&](uint32_t, Ticket ticket) {
      for (uint64_t number; recv(ticket.fd(), &number, sizeof(number), 0) == sizeof(number);
           ++count) {
        numbers.Saw(number);
      }
    });
    for (uint64_t i = 0; i < kEvents; ++i) {
      while (i - count >= 64) std::this_thread::yield();
      ASSERT_EQ(send(sender, &i, sizeof(i), 0), static_cast<ssize_t>(sizeof(i)));
    }
    EXPECT_TRUE(AllSeen(count, kEvents)) << count;
  }
  EXPECT_EQ(numbers.count(), kEvents);
  ASSERT_TRUE(source.Remove().ok());
  close(sender);
  close(fd);
}

// A worker that takes one event of several and gives the ticket back.
TEST_F(ReadinessTest, WhatIsGivenBackGoesRound) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  Source source = AddTickets(ends[0], RoundRobin());
  std::array<std::atomic<uint64_t>, kWorkers> taken{};
  std::atomic<uint64_t> count{0};
  constexpr uint64_t kRecords = 1000;
  for (uint64_t i = 0; i < kRecords; ++i) ASSERT_EQ(write(ends[1], &i, sizeof(i)), 8);
  auto workers = AddTicketWorkers(source, [&](uint32_t worker, Ticket ticket) {
    uint64_t record = 0;
    if (read(ticket.fd(), &record, sizeof(record)) != sizeof(record)) return;
    ++taken[worker];
    ++count;
    ticket.Again();
  });
  EXPECT_TRUE(AllSeen(count, kRecords)) << count;
  for (const auto& of_worker : taken) EXPECT_GT(of_worker, 0u);
  ASSERT_TRUE(source.Remove().ok());
  workers.clear();  // none of them reads any more
  close(ends[0]);
  close(ends[1]);
}

TEST_F(ReadinessTest, TimersSignalsDirectoriesAndDevicesAreSources) {
  std::atomic<int> reads{0};
  const TicketWorker::Redeem read_it = [&](uint32_t, Ticket ticket) {
    char buffer[4096];
    while (read(ticket.fd(), buffer, sizeof(buffer)) > 0) ++reads;
  };
  const auto comes = [&](int fd, const std::function<void()>& cause) {
    reads = 0;
    Source source = AddTickets(fd);
    {
      const auto workers = AddTicketWorkers(source, read_it);
      cause();
      EXPECT_TRUE(Eventually([&] { return reads > 0; }));
    }
    EXPECT_TRUE(source.Remove().ok());
    close(fd);
  };
  {
    SCOPED_TRACE("timer");
    const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    comes(fd, [&] {
      const itimerspec once{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 1000}};
      timerfd_settime(fd, 0, &once, nullptr);
    });
  }
  {
    SCOPED_TRACE("signal");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    comes(signalfd(-1, &set, SFD_NONBLOCK), [] { kill(getpid(), SIGUSR2); });
  }
  {
    SCOPED_TRACE("inotify");
    char directory[] = "/tmp/ringmaster-test-XXXXXX";
    ASSERT_NE(mkdtemp(directory), nullptr);
    const int fd = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(fd, directory, IN_CREATE);
    const std::string file = std::string(directory) + "/file";
    comes(fd, [&] { close(open(file.c_str(), O_CREAT | O_WRONLY, 0600)); });
    unlink(file.c_str());
    rmdir(directory);
  }
  {
    SCOPED_TRACE("terminal");
    const int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    ASSERT_EQ(grantpt(master), 0);
    ASSERT_EQ(unlockpt(master), 0);
    const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_NONBLOCK);
    comes(terminal, [&] { EXPECT_EQ(write(master, "line\n", 5), 5); });
    close(master);
  }
}

// --- What is refused -----------------------------------------------------------------------------

TEST_F(ReadinessTest, RefusesWhatCannotBePolled) {
  const int file = open("/proc/self/exe", O_RDONLY);
  EXPECT_PRED2(Says, Refusal(file), "always ready");
  close(file);
  const int directory = open("/tmp", O_RDONLY | O_DIRECTORY);
  EXPECT_PRED2(Says, Refusal(directory), "always ready");
  close(directory);
  EXPECT_PRED2(Says, Refusal(directory), "not an open descriptor");
}

TEST_F(ReadinessTest, RefusesTheSameEventsTwiceAndTakesThoseThatOnlyLookAlike) {
  const int fd = eventfd(0, EFD_NONBLOCK);
  const int same = dup(fd);
  const int another = eventfd(0, EFD_NONBLOCK);
  Source source = AddTickets(fd);
  EXPECT_PRED2(Says, Refusal(fd), "watched only once");
  EXPECT_PRED2(Says, Refusal(same), "watched only once");
  EXPECT_TRUE(balancer_->AddSource(another, {.intake = Intake::kReadiness}).ok());
  for (const int each : {fd, same, another}) close(each);
}

TEST_F(ReadinessTest, RefusesOptionsThatTicketsCannotKeep) {
  const Listener listener = Listener::Tcp();
  EXPECT_PRED2(Says, Refusal(listener.fd(), {.policy = AffinityHash()}),
               "a ticket is dealt before");
  EXPECT_PRED2(Says, Refusal(listener.fd(), {.age_max = absl::Seconds(1)}), "age_max");
  fcntl(listener.fd(), F_SETFL, 0);
  EXPECT_PRED2(Says, Refusal(listener.fd()), "O_NONBLOCK");
  fcntl(listener.fd(), F_SETFL, O_NONBLOCK);
  Source source = AddTickets(listener.fd());
  EXPECT_FALSE(source.SetPolicy(AffinityCpu()).ok());
  EXPECT_TRUE(source.SetPolicy(RoundRobin()).ok());
}

// A worker that takes connections only has nothing to do with a ticket of anything else.
TEST_F(ReadinessTest, AWorkerThatDoesNotRedeemLeavesTheTicketToOthers) {
  const int fd = eventfd(0, EFD_NONBLOCK);
  Source source = AddTickets(fd, RoundRobin());
  const auto idle = AddWorker({source});
  std::atomic<uint64_t> sum{0};
  auto workers = AddTicketWorkers(source, [&](uint32_t, Ticket ticket) {
    for (eventfd_t value; eventfd_read(ticket.fd(), &value) == 0;) sum += value;
  });
  for (uint64_t i = 1; i <= 10; ++i) {
    eventfd_write(fd, 1);
    EXPECT_TRUE(Eventually([&] { return sum == i; }));
  }
  ASSERT_TRUE(source.Remove().ok());
  workers.clear();  // none of them reads any more
  close(fd);
}

// --- Identity ------------------------------------------------------------------------------------

// A worker on the test's own thread that keeps the ticket that it claims. Meanwhile its source is
// removed, and its index and its number are given to another one.
class LateTicket : public ReadinessTest {
 protected:
  void KeepOne(SourceOptions options = {}) {
    options.intake = Intake::kReadiness;
    gone_ = AddSource(first_, std::move(options));
    ASSERT_TRUE(gone_.Join(port_).ok());
    client_ = first_.Connect();
    ASSERT_TRUE(Eventually([&] {
      port_.Claim([](Connection) {}, [&](Ticket ticket) { late_.push_back(std::move(ticket)); });
      return !late_.empty();
    }));
    ASSERT_TRUE(gone_.Remove().ok());
  }
  // The number of the first listener is the second one's afterwards.
  Source AddNext(SourceOptions options = {}) {
    EXPECT_EQ(dup2(second_.fd(), first_.fd()), first_.fd());
    options.intake = Intake::kReadiness;
    Source next = balancer_->AddSource(first_.fd(), std::move(options)).value();
    EXPECT_EQ(next.index(), gone_.index());
    EXPECT_TRUE(next.Join(port_, {.token = 8}).ok());
    return next;
  }
  // A connection that the second listener gets is served.
  void ServesNext() {
    const int client = second_.Connect();
    int served = 0;
    EXPECT_TRUE(Eventually([&] {
      port_.Claim([&](Connection connection) {
        EXPECT_EQ(connection.token(), 8u);
        ++served;
      });
      return served > 0;
    }));
    EXPECT_EQ(served, 1);
    EXPECT_FALSE(SawEvent(Event::Kind::kSourceFailed));
    close(client);
  }
  void TearDown() override {
    if (client_ >= 0) close(client_);
  }

  const Listener first_ = Listener::Tcp();
  const Listener second_ = Listener::Tcp();
  Mailbox mailbox_ = Mailbox::Create().value_or(Mailbox());
  Port port_;
  Source gone_;
  std::vector<Ticket> late_;
  int client_ = -1;

  void SetUp() override {
    ReadinessTest::SetUp();
    if (IsSkipped()) return;
    port_ = balancer_->AddWorker(mailbox_).value();
  }
};

TEST_F(LateTicket, AcceptsNothingFromWhoeverHasTheNumberNow) {
  KeepOne();
  Source next = AddNext();
  const int client = second_.Connect();
  EXPECT_EQ(late_[0].Accept().fd(), -1);
  int served = 0;
  EXPECT_TRUE(Eventually([&] {
    port_.Claim([&](Connection) { ++served; });
    return served == 1;
  }));
  close(client);
  ServesNext();
}

TEST_F(LateTicket, SaysNothingOfTheNextSource) {
  KeepOne();
  Source next = AddNext();
  late_[0].Again(EBADF);
  late_[0].Again(EMFILE);
  ServesNext();
  EXPECT_FALSE(SawEvent(Event::Kind::kOutOfDescriptors));
  EXPECT_EQ(balancer_->Stats().sources[0].errors, 0u);
}

// Its place belongs to the source that has gone.
TEST_F(LateTicket, KeepsAPlaceOfItsOwnSourceAndTakesNoneOfTheNext) {
  KeepOne({.capacity = 1});
  EXPECT_EQ(balancer_->Stats().workers[0].open, 1u);
  SourceOptions options{.intake = Intake::kReadiness, .capacity = 1};
  Source next = balancer_->AddSource(second_.fd(), std::move(options)).value();
  EXPECT_NE(next.index(), gone_.index());  // the books of the old one are still in use
  ASSERT_TRUE(next.Join(port_, {.token = 8}).ok());
  EXPECT_EQ(late_[0].Accept().fd(), -1);
  ServesNext();
  late_.clear();
  EXPECT_EQ(balancer_->Stats().workers[0].open, 0u);
  ServesNext();
}

TEST_F(LateTicket, AcceptsNothingAfterTheBalancerHasEnded) {
  Source source = AddSource(first_, {.intake = Intake::kReadiness});
  ASSERT_TRUE(source.Join(port_).ok());
  client_ = first_.Connect();
  ASSERT_TRUE(Eventually([&] {
    port_.Claim([](Connection) {}, [&](Ticket ticket) { late_.push_back(std::move(ticket)); });
    return !late_.empty();
  }));
  balancer_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(late_[0].Accept().fd(), -1);
  EXPECT_EQ(source.Again().code(), absl::StatusCode::kFailedPrecondition);
  balancer_.reset();
  EXPECT_EQ(source.Again().code(), absl::StatusCode::kFailedPrecondition);
  late_[0].Again();
}

TEST_F(LateTicket, AnOldHandleIsRefusedWhateverIsAskedOfIt) {
  KeepOne();
  Source next = AddNext();
  const auto refused = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(gone_.Again(EBADF).code(), refused);
  EXPECT_EQ(gone_.Again().code(), refused);
  EXPECT_EQ(gone_.Join(port_).code(), refused);
  EXPECT_EQ(gone_.Leave(port_).code(), refused);
  EXPECT_EQ(gone_.Pause().code(), refused);
  EXPECT_EQ(gone_.Resume().code(), refused);
  EXPECT_EQ(gone_.SetPolicy(RoundRobin()).code(), refused);
  EXPECT_EQ(gone_.Remove().code(), refused);
  ServesNext();
}

// Removing waits for whoever has begun to redeem, so the number may be used for something else.
TEST_F(LateTicket, NobodyAcceptsByANumberThatWasGivenBack) {
  std::atomic<int> wrong{0};
  for (int round = 0; round < 50; ++round) {
    Listener listener = Listener::Unix();
    Source source = AddSource(listener, {.intake = Intake::kReadiness});
    std::atomic<bool> stop{false};
    std::atomic<bool> redeems{false};
    ASSERT_TRUE(source.Join(port_).ok());
    const int client = listener.Connect();
    std::vector<Ticket> tickets;
    ASSERT_TRUE(Eventually([&] {
      port_.Claim([](Connection) {}, [&](Ticket ticket) { tickets.push_back(std::move(ticket)); });
      return !tickets.empty();
    }));
    close(tickets[0].Accept().TakeFd());  // nothing waits from now on
    std::thread redeemer([&] {
      while (!stop) {
        if (tickets[0].Accept().fd() >= 0) ++wrong;
        redeems = true;
      }
    });
    ASSERT_TRUE(Eventually([&] { return redeems.load(); }));
    ASSERT_TRUE(source.Remove().ok());
    // A listener for which somebody waits, under that number.
    const Listener other = Listener::Unix();
    const int waits = other.Connect();
    ASSERT_EQ(dup2(other.fd(), listener.fd()), listener.fd());
    redeems = false;
    ASSERT_TRUE(Eventually([&] { return redeems.load(); }));
    stop = true;
    redeemer.join();
    close(waits);
    close(client);
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace ringmaster
