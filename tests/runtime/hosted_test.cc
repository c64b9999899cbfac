// A balancer without a thread, driven by a loop of the program's own (Host::kLoop). Method: one
// thread waits for the balancer's descriptor and nothing else, so whatever happens has made that
// readable. Other tests are programs of a single thread.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "errands.h"
#include "ringmaster/balancer.h"
#include "support/allocation_count.h"
#include "support/server.h"

namespace ringmaster {
namespace {

bool Readable(int fd, int ms = 0) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&one, 1, ms) == 1;
}

// A thread that drives the balancer and, if it is given one, claims from a port of its own.
class HostThread {
 public:
  explicit HostThread(Balancer& balancer, Port port = {}, const Mailbox* mailbox = nullptr)
      : balancer_(balancer), port_(std::move(port)), mailbox_(mailbox) {
    thread_ = std::thread([this] { Run(); });
  }
  ~HostThread() { Stop(); }
  void Stop() {
    if (!thread_.joinable()) return;
    errands_.Stop();
    thread_.join();
  }
  // Runs on the host's thread, between two calls of RunOnce.
  void Do(std::function<void()> job) { errands_.Do(std::move(job)); }
  uint64_t served() const { return served_; }

 private:
  void Run() {
    const int epoll_fd = epoll_create1(0);
    const auto watch = [&](int fd) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      EXPECT_EQ(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
    };
    EXPECT_TRUE(balancer_.RunOnce().ok());
    watch(balancer_.fd());
    watch(errands_.fd());
    if (mailbox_ != nullptr) watch(mailbox_->fd());
    while (!errands_.stopped()) {
      epoll_event event;
      if (epoll_wait(epoll_fd, &event, 1, -1) != 1) continue;  // EINTR: task work of the ring
      if (event.data.fd == errands_.fd()) {
        errands_.OnReadable();
      } else if (event.data.fd == balancer_.fd()) {
        balancer_.RunOnce().IgnoreError();
      }
      port_.Claim([&](Connection connection) {
        ++served_;
        ServeIndex(port_.worker(), std::move(connection));
      });
    }
    port_.Leave();
    close(epoll_fd);
  }

  Balancer& balancer_;
  Port port_;
  const Mailbox* const mailbox_;
  Errands errands_;
  std::atomic<uint64_t> served_{0};
  std::thread thread_;
};

// The descriptors of this process.
size_t Descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

class HostedTest : public BalancerTest {
 protected:
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped()) return;
    Create({.host = Host::kLoop});
  }

  // A worker whose thread is that of the test.
  Port AddPort(const Mailbox& mailbox, Source source) {
    Port port = balancer_->AddWorker(mailbox).value();
    EXPECT_TRUE(source.Join(port).ok());
    return port;
  }
};

TEST_F(HostedTest, ALoopDrivesItAndServesBesideOtherWorkers) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  HostThread host(*balancer_, std::move(port), &mailbox);
  std::array<std::unique_ptr<Worker>, 3> workers;
  for (auto& worker : workers) worker = AddWorker({source});
  const uint64_t served = AskUntil(listener, 2000, [&] {
    return host.served() > 0 && std::all_of(workers.begin(), workers.end(), [](const auto& worker) {
             return worker->claimed() > 0;
           });
  });
  EXPECT_EQ(balancer_->Stats().accepted, served);
}

TEST_F(HostedTest, EveryIntakeAndHandoffWorks) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept, Intake::kReadiness}) {
    for (const Handoff handoff : {Handoff::kInbox, Handoff::kCompletion}) {
      if (intake == Intake::kReadiness && handoff == Handoff::kCompletion) continue;
      Create({.host = Host::kLoop});
      const Listener listener = Listener::Unix();
      Source source = AddSource(listener, {.intake = intake});
      HostThread host(*balancer_);
      const auto worker = AddWorker({source}, ServeIndex, {.handoff = handoff});
      for (int i = 0; i < 200; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
    }
  }
}

// Nobody but the clock makes the descriptor readable.
TEST_F(HostedTest, DeadlinesMakeTheDescriptorReadable) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  const Mailbox mailbox = Mailbox::Create().value();
  Port stuck = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(stuck).ok());
  HostThread host(*balancer_);
  const auto worker = AddWorker({source});
  // Every other one is offered to the worker that does not move, until that is noticed.
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(AskWhoServes(listener), static_cast<int>(worker->index()));
  }
  EXPECT_GT(balancer_->Stats().recalled, 0u);
  stuck.Leave();
}

TEST_F(HostedTest, AProgramOfOneThreadNeedsNobodyElse) {
  const Listener listener = Listener::Tcp();
  EXPECT_TRUE(balancer_->RunOnce().ok());
  Source source = AddSource(listener);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(port, {.token = 3}).ok());
  int served = 0;
  for (int i = 0; i < 100; ++i) {
    const int client = listener.Connect();
    while (served == i) {
      ASSERT_TRUE(Readable(balancer_->fd(), 10'000)) << i;
      ASSERT_TRUE(balancer_->RunOnce().ok());
      port.Claim([&](Connection connection) {
        EXPECT_EQ(connection.token(), 3u);
        ++served;
      });
    }
    close(client);
  }
  EXPECT_EQ(balancer_->Stats().accepted, 100u);
  ASSERT_TRUE(source.Pause().ok());
  ASSERT_TRUE(source.Resume().ok());
  ASSERT_TRUE(source.SetPolicy(RoundRobin()).ok());
  ASSERT_TRUE(source.Remove().ok());
  port.Leave();
  EXPECT_TRUE(balancer_->Shutdown(absl::Seconds(10)).drained);
  EXPECT_FALSE(balancer_->RunOnce().ok());
}

// It has neither ring nor mailbox: it claims after each RunOnce.
TEST_F(HostedTest, AWorkerOnTheHostNeedsNoDoorbell) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  Port port = balancer_->AddWorker({.on_host = true}).value();
  ASSERT_TRUE(source.Join(port).ok());
  HostThread host(*balancer_, std::move(port));
  {
    const auto worker = AddWorker({source});
    AskUntil(listener, 500, [&] { return worker->claimed() > 0 && host.served() > 200; });
  }
  EXPECT_EQ(balancer_->Stats().workers[0].doorbells, 0u);
  for (int i = 0; i < 100; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
}

// It is awake already: what comes one at a time wakes nobody else.
TEST_F(HostedTest, UnderExclusiveTheHostServesWhatComesWhileItIsIdle) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = Exclusive(WakeOrder::kLifo), .recall = false});
  Port port = balancer_->AddWorker({.on_host = true}).value();
  ASSERT_TRUE(source.Join(port).ok());
  HostThread host(*balancer_, std::move(port));
  const auto worker = AddWorker({source});
  for (int i = 0; i < 500; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
  EXPECT_EQ(host.served(), 500u);
}

// While the host is in the middle of a claim, between two of its callbacks, the others get what has
// come since.
TEST_F(HostedTest, AClaimOfTheHostLooksAfterTheMasterBetweenItsCallbacks) {
  const Listener listener = Listener::Tcp();
  ASSERT_TRUE(balancer_->RunOnce().ok());
  Source source = AddSource(listener, {.policy = RoundRobin(), .recall = false});
  Port port = balancer_->AddWorker({.on_host = true}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients = {listener.Connect(), listener.Connect()};
  ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
  while (balancer_->Stats().workers[0].unclaimed < 2) ASSERT_TRUE(balancer_->RunOnce().ok());
  const Mailbox mailbox = Mailbox::Create().value();
  Port other = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(other).ok());
  int served = 0;
  const auto serve = [&](Connection) {
    if (++served > 1) return;
    // The first callback takes as long as four more connections need to come.
    for (int i = 0; i < 4; ++i) clients.push_back(listener.Connect());
    ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
  };
  bool left = port.Claim(serve);
  EXPECT_EQ(served, 2);
  // The other worker has its doorbell, and the host is told that there is more for itself.
  pollfd doorbell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&doorbell, 1, 10'000), 1);
  EXPECT_TRUE(left);
  int others = 0;
  while (served + others < 6) {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    left = port.Claim(serve);
    other.Claim([&](Connection) { ++others; });
  }
  EXPECT_GT(served, 2);
  EXPECT_GT(others, 0);
  other.Leave();
  for (const int client : clients) close(client);
}

// A master that waits for a place is not woken by the claims of its own host, which comes after
// each of its turns.
TEST_F(HostedTest, AHungryMasterAndItsHostDoNotWakeEachOther) {
  const Listener listener = Listener::Tcp();
  ASSERT_TRUE(balancer_->RunOnce().ok());
  Source source = AddSource(listener);
  Port port = balancer_->AddWorker({.on_host = true, .capacity = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  const std::vector<int> clients = {listener.Connect(), listener.Connect()};
  Connection open;
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(balancer_->RunOnce().ok());
    port.Claim([&](Connection connection) { open = std::move(connection); });
    return open.fd() >= 0;
  }));
  int turns = 0;
  for (; turns < 100 && Readable(balancer_->fd(), 30); ++turns) {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    port.Claim([](Connection) {});
  }
  EXPECT_LT(turns, 10);
  open = Connection();
  EXPECT_TRUE(Readable(balancer_->fd(), 10'000));
  port.Leave();
  for (const int client : clients) close(client);
}

TEST_F(HostedTest, OnlyAHostedBalancerHasWorkersOnTheHost) {
  const absl::Status with_ring = balancer_->AddWorker({.on_host = true, .ring_fd = 0}).status();
  EXPECT_NE(with_ring.message().find("leave ring_fd"), std::string::npos) << with_ring;
  Create({});
  const absl::Status refused = balancer_->AddWorker({.on_host = true}).status();
  EXPECT_NE(refused.message().find("Host::kLoop"), std::string::npos) << refused;
}

TEST_F(HostedTest, HasNoThreadToBind) {
  const absl::Status refused = Balancer::Create({.host = Host::kLoop, .cpu = 0}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("no thread"), std::string::npos) << refused;
}

TEST_F(HostedTest, IsNotReadableWhileThereIsNothingToDo) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  ASSERT_TRUE(balancer_->RunOnce().ok());
  EXPECT_FALSE(Readable(balancer_->fd()));
  const int client = listener.Connect();
  EXPECT_TRUE(Readable(balancer_->fd(), 10'000));
  int served = 0;
  while (served == 0) {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    port.Claim([&](Connection) { ++served; });
  }
  // The look at the age of the offer may still come, in vain, and then nothing any more.
  while (Readable(balancer_->fd(), 50)) ASSERT_TRUE(balancer_->RunOnce().ok());
  close(client);
}

TEST_F(HostedTest, CallsFromOtherThreadsWaitForTheHost) {
  HostThread host(*balancer_);
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().master_wakes > 0; }));
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  {
    const auto worker = AddWorker({source});
    for (int i = 0; i < 50; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  }
  EXPECT_TRUE(source.Remove().ok());
  EXPECT_EQ(balancer_->Stats().accepted, 50u);
}

TEST_F(HostedTest, CallsOnTheThreadOfTheHostWorkAtOnce) {
  const Listener listener = Listener::Tcp();
  HostThread host(*balancer_);
  const auto made = std::make_shared<Source>();
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().master_wakes > 0; }));
  host.Do([&] { *made = AddSource(listener); });
  const auto worker = AddWorker({*made});
  EXPECT_GE(AskWhoServes(listener), 0);
  host.Do([&] { EXPECT_TRUE(made->Remove().ok()); });
}

// It stops after a bounded number of steps with doorbells of the last batch still to be sent. What
// is set up then, on its own thread, must find nothing pending and move nothing that is.
TEST_F(HostedTest, SetUpWhileMoreIsToBeDoneThanOneCallDoes) {
  constexpr int kClients = 1000;
  const Listener listener = Listener::Tcp(kClients);
  ASSERT_TRUE(balancer_->RunOnce().ok());
  Source source = AddSource(listener, {.policy = RoundRobin()});
  std::array<Mailbox, 6> mailboxes;
  for (Mailbox& mailbox : mailboxes) mailbox = Mailbox::Create().value();
  std::vector<Port> ports;
  const auto add = [&](const Mailbox& mailbox) {
    ports.push_back(balancer_->AddWorker(mailbox, {.window = 1024}).value());
    ASSERT_TRUE(source.Join(ports.back()).ok());
  };
  add(mailboxes[0]);
  add(mailboxes[1]);
  std::vector<int> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(listener.Connect());
  int served = 0;
  const auto serve = [&](Connection) { ++served; };
  for (size_t i = 2; i < mailboxes.size(); ++i) {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    add(mailboxes[i]);
    const Listener other = Listener::Unix();
    Source more = AddSource(other);
    ASSERT_TRUE(more.Join(ports.back()).ok());
    ASSERT_TRUE(balancer_->RunOnce().ok());
    ASSERT_TRUE(more.Remove().ok());
    ports.front().Claim(serve);
    ports.erase(ports.begin());  // leaves, and its ring's number is free
  }
  while (served < kClients) {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    for (Port& port : ports) port.Claim(serve);
  }
  for (Port& port : ports) port.Leave();
  for (const int client : clients) close(client);
}

// What a policy asks of the balancer that asks it would be done in the middle of something.
class AskingPolicy : public Policy {
 public:
  AskingPolicy(Balancer** balancer, absl::Status* answer) : balancer_(balancer), answer_(answer) {}
  std::string name() const override { return "asking"; }
  void Prepare(uint32_t) override {
    *answer_ = (*balancer_)->AddWorker({.on_host = true}).status();
  }
  size_t Pick(const Arrival&, const View&) override { return 0; }

 private:
  Balancer** const balancer_;
  absl::Status* const answer_;
};

TEST_F(HostedTest, RefusesACallFromItsPolicy) {
  const Listener listener = Listener::Tcp();
  const Listener other = Listener::Tcp();
  Balancer* balancer = balancer_.get();
  absl::Status before;
  absl::Status within;
  AddSource(listener, {.policy = std::make_unique<AskingPolicy>(&balancer, &before)});
  EXPECT_NE(before.message().find("event callback"), std::string::npos) << before;
  ASSERT_TRUE(balancer_->RunOnce().ok());
  AddSource(other, {.policy = std::make_unique<AskingPolicy>(&balancer, &within)});
  EXPECT_NE(within.message().find("event callback"), std::string::npos) << within;
}

class ThrowingPolicy : public Policy {
 public:
  std::string name() const override { return "throwing"; }
  void Prepare(uint32_t) override { throw 1; }
  size_t Pick(const Arrival&, const View&) override { return 0; }
};

TEST_F(HostedTest, AnExceptionOfAPolicyEndsTheProcessWithASentence) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Listener listener = Listener::Tcp();
  const auto serve = [&] {
    Create({.host = Host::kLoop});  // the child's own
    Source source = AddSource(listener, {.policy = std::make_unique<ThrowingPolicy>()});
    Port port = balancer_->AddWorker({.on_host = true}).value();
    source.Join(port).IgnoreError();
    const int client = listener.Connect();
    for (int i = 0; i < 1000; ++i) balancer_->RunOnce().IgnoreError();
    close(client);
  };
  EXPECT_DEATH(serve(), "polic.*must not throw");
}

// --- Whatever the order --------------------------------------------------------------------------

// What must have been done before anybody is served, in every order that is allowed. The loop waits
// before it calls RunOnce, and begins at any moment; a client comes before or after.
TEST_F(HostedTest, ALoopThatWaitsFirstIsWokenWhateverTheOrderOfSetUp) {
  for (const bool worker_first : {false, true}) {
    for (int begins_after = 0; begins_after <= 3; ++begins_after) {
      for (const bool on_host : {false, true}) {
        for (const bool client_first : {false, true}) {
          Create({.host = Host::kLoop});
          const Listener listener = Listener::Tcp();
          const Mailbox mailbox = Mailbox::Create().value();
          int client = client_first ? listener.Connect() : -1;
          Source source;
          Port port;
          std::atomic<int> done{0};
          std::atomic<bool> stop{false};
          const auto set_up = [&](int step) {
            if (step == 2) {
              EXPECT_TRUE(source.Join(port).ok());
            } else if ((step == 0) == worker_first) {
              port = balancer_->AddWorker(mailbox).value();
            } else {
              source = balancer_->AddSource(listener.fd()).value();
            }
            ++done;
          };
          for (int step = 0; step < begins_after && !on_host; ++step) set_up(step);
          std::thread loop([&] {
            for (int step = 0; step < begins_after && on_host; ++step) set_up(step);
            while (!stop) {
              ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
              ASSERT_TRUE(balancer_->RunOnce().ok());
              for (int step = done; step < 3 && on_host; ++step) set_up(step);
            }
          });
          for (int step = begins_after; step < 3 && !on_host; ++step) set_up(step);
          EXPECT_TRUE(Eventually([&] { return done == 3; }));
          if (client < 0) client = listener.Connect();
          pollfd doorbell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
          EXPECT_EQ(poll(&doorbell, 1, 10'000), 1)
              << worker_first << begins_after << on_host << client_first;
          int served = 0;
          port.Claim([&](Connection) { ++served; });
          EXPECT_EQ(served, 1);
          stop = true;
          balancer_->Stats();  // wakes it
          loop.join();
          close(client);
        }
      }
    }
  }
}

// --- The end of the host's thread ----------------------------------------------------------------

// A host that does as it is told, step by step, and ends.
void OnAThread(const std::function<void()>& job) { std::thread(job).join(); }

TEST_F(HostedTest, OthersWaitWhileItIsSaidThatTheHostIsGone) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  std::unique_ptr<Balancer> balancer;
  Source source;
  Port port;
  std::thread other;
  std::thread heir;
  std::atomic<bool> changed{false};
  std::atomic<bool> drives{false};
  bool said = false;  // of the first host
  bool changed_meanwhile = false;
  bool drove_meanwhile = false;
  size_t workers = 0;
  BalancerOptions options{.host = Host::kLoop};
  options.on_event = [&](const Event& event) {
    if (event.kind != Event::Kind::kHostGone || std::exchange(said, true)) return;
    other = std::thread([&] {
      EXPECT_TRUE(source.Pause().ok());
      changed = true;
    });
    heir = std::thread([&] {
      EXPECT_TRUE(balancer->RunOnce().ok());
      drives = true;
      EXPECT_TRUE(Eventually([&] { return changed.load(); }));
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    workers = balancer->Stats().workers.size();
    changed_meanwhile = changed;
    drove_meanwhile = drives;
    port.Leave();
  };
  balancer = Balancer::Create(std::move(options)).value();
  source = balancer->AddSource(listener.fd()).value();
  port = balancer->AddWorker(mailbox).value();
  OnAThread([&] { EXPECT_TRUE(balancer->RunOnce().ok()); });
  other.join();
  heir.join();
  EXPECT_FALSE(changed_meanwhile);
  EXPECT_FALSE(drove_meanwhile);
  EXPECT_EQ(workers, 1u);
  EXPECT_TRUE(balancer->Stats().workers.empty());
}

TEST_F(HostedTest, AnotherThreadGoesOnWhenTheHostHasEnded) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept, Intake::kReadiness}) {
    Create({.host = Host::kLoop});
    const Listener listener = Listener::Tcp();
    const Listener later = Listener::Tcp();
    Source source = AddSource(listener, {.intake = intake});
    const auto worker = AddWorker({source});
    // Each of them gets the pthread_t of the one before, as a rule.
    for (int host = 0; host < 3; ++host) {
      HostThread thread(*balancer_);
      EXPECT_GE(AskWhoServes(listener), 0);
      thread.Stop();
      EXPECT_TRUE(SawEvent(Event::Kind::kHostGone));
      EXPECT_EQ(balancer_->Stats().accepted, static_cast<uint64_t>(2 * host + 1));
      const int client = listener.Connect();
      // Set-up works meanwhile, and means what it says.
      Source other = AddSource(later);
      EXPECT_TRUE(other.Join(worker->port()).ok());
      EXPECT_TRUE(other.Remove().ok());
      ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
      HostThread next(*balancer_);
      char who = 0;
      EXPECT_EQ(read(client, &who, 1), 1);
      close(client);
    }
  }
}

TEST_F(HostedTest, WhatHadBeenAcceptedWaitsForTheNextHost) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.intake = Intake::kAccept});
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox, {.window = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  OnAThread([&] {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    for (int i = 0; i < 20; ++i) clients.push_back(listener.Connect());
    ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
  });
  int served = 0;
  while (served < 20) {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    port.Claim([&](Connection) { ++served; });
  }
  EXPECT_EQ(balancer_->Stats().accepted, 20u);
  for (const int client : clients) close(client);
}

// A call and a shutdown of other threads wait for a host that ends without coming round again.
TEST_F(HostedTest, WhoeverWaitsForAHostThatEndsGetsAnAnswer) {
  const Listener listener = Listener::Tcp();
  const Listener other = Listener::Tcp();
  Source source = AddSource(listener);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  const int client = listener.Connect();
  absl::Status added;
  std::thread caller;
  OnAThread([&] {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    while (Readable(balancer_->fd())) ASSERT_TRUE(balancer_->RunOnce().ok());
    caller = std::thread([&] { added = balancer_->AddSource(other.fd()).status(); });
    EXPECT_TRUE(Readable(balancer_->fd(), 10'000));  // it is asked for something
  });
  caller.join();
  EXPECT_TRUE(added.ok()) << added;
  ShutdownReport report;
  OnAThread([&] {
    ASSERT_TRUE(balancer_->RunOnce().ok());
    while (Readable(balancer_->fd())) ASSERT_TRUE(balancer_->RunOnce().ok());
    caller = std::thread([&] { report = balancer_->Shutdown(absl::Hours(1)); });
    EXPECT_TRUE(Readable(balancer_->fd(), 10'000));
    ASSERT_TRUE(balancer_->RunOnce().ok());  // the drain begins
  });
  caller.join();
  EXPECT_FALSE(report.drained);
  EXPECT_EQ(report.refused, 1u);
  // The first report, whoever asks: the one that was the host, a new thread, this one.
  EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).refused, 1u);
  OnAThread([&] { EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).refused, 1u); });
  char byte;
  EXPECT_EQ(read(client, &byte, 1), 0);
  close(client);
}

TEST_F(HostedTest, ALaterShutdownOnTheHostHasTheFirstReport) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Port port = balancer_->AddWorker({.on_host = true}).value();
  ASSERT_TRUE(source.Join(port).ok());
  const int client = listener.Connect();
  while (balancer_->Stats().accepted == 0) ASSERT_TRUE(balancer_->RunOnce().ok());
  EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).refused, 1u);
  EXPECT_EQ(balancer_->Shutdown(absl::Seconds(1)).refused, 1u);
  OnAThread([&] { EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).refused, 1u); });
  close(client);
}

// Nobody reads any more what the kernel has accepted for a host that has ended, or that is there
// and drives it no more.
TEST_F(HostedTest, ADestroyedBalancerLeavesNoConnectionOpen) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    for (const bool ends : {false, true}) {
      balancer_.reset();
      const size_t before = Descriptors();
      Create({.host = Host::kLoop});
      std::optional<Listener> listener(Listener::Tcp());
      Source source = AddSource(*listener, {.intake = intake});
      Port port = balancer_->AddWorker({.on_host = true, .window = 4}).value();
      ASSERT_TRUE(source.Join(port).ok());
      std::vector<int> clients;
      Gate stays;
      Gate may_end;
      std::thread host([&] {
        ASSERT_TRUE(balancer_->RunOnce().ok());
        for (int i = 0; i < 20; ++i) clients.push_back(listener->Connect());
        ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
        stays.Open();
        may_end.Wait();
      });
      stays.Wait();
      if (ends) {
        may_end.Open();
        host.join();
      }
      balancer_.reset();
      port.Leave();
      source = {};
      may_end.Open();
      if (!ends) host.join();
      listener.reset();
      for (const int client : clients) {
        EXPECT_TRUE(Readable(client, 10'000));  // its end, or the reset of one in the backlog
        close(client);
      }
      EXPECT_TRUE(Eventually([&] { return Descriptors() <= before; })) << ends;
    }
  }
}

// A child has the lock as its parent's thread had it at the moment of the fork: for ever.
class ForkingPolicy : public Policy {
 public:
  explicit ForkingPolicy(std::function<int()> child) : child_(std::move(child)) {}
  std::string name() const override { return "forking"; }
  void Prepare(uint32_t) override {
    const pid_t child = fork();
    if (child == 0) _exit(child_());
    waitpid(child, &status_, 0);
    EXPECT_EQ(status_, 0);
  }
  size_t Pick(const Arrival&, const View&) override { return 0; }

 private:
  const std::function<int()> child_;
  int status_ = -1;
};

TEST_F(HostedTest, AChildAsksForTheProcessBeforeAnyLock) {
  const Listener listener = Listener::Tcp();
  const Listener other = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Source source = AddSource(other);
  Port port = AddPort(mailbox, source);
  const auto child = [&] {
    alarm(20);
    int wrong = 0;
    const auto refuses = [&](const absl::Status& status) {
      wrong |= status.code() == absl::StatusCode::kFailedPrecondition ? 0 : 1;
    };
    refuses(balancer_->RunOnce());
    refuses(balancer_->AddSource(listener.fd()).status());
    refuses(balancer_->AddWorker({.on_host = true}).status());
    refuses(source.Join(port));
    refuses(source.Remove());
    balancer_->Stats();
    balancer_->Shutdown(absl::Hours(1));
    port.Leave();
    balancer_.reset();
    return wrong;
  };
  AddSource(listener, {.policy = std::make_unique<ForkingPolicy>(child)});
  ASSERT_TRUE(balancer_->RunOnce().ok());
  const Listener third = Listener::Tcp();
  AddSource(third, {.policy = std::make_unique<ForkingPolicy>(child)});
}

TEST_F(HostedTest, OnlyItsHostMayDriveIt) {
  HostThread host(*balancer_);
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().master_wakes > 0; }));
  const absl::Status refused = balancer_->RunOnce();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.message().find("another thread"), std::string::npos) << refused;
}

TEST_F(HostedTest, ABalancerWithAThreadIsNotDriven) {
  Create({});
  EXPECT_EQ(balancer_->fd(), -1);
  const absl::Status refused = balancer_->RunOnce();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.message().find("Host::kLoop"), std::string::npos) << refused;
}

TEST_F(HostedTest, RefusesACallFromItsEventCallback) {
  absl::Status status;
  Balancer* hosted = nullptr;
  BalancerOptions options{.host = Host::kLoop};
  options.on_event = [&](const Event&) { status = hosted->RunOnce(); };
  const auto balancer = Balancer::Create(std::move(options)).value();
  hosted = balancer.get();
  const Listener listener = Listener::Tcp();
  Source source = balancer->AddSource(listener.fd(), {}).value();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(port).ok());
  ASSERT_TRUE(balancer->RunOnce().ok());
  shutdown(listener.fd(), SHUT_RDWR);  // an event: the source has failed
  while (status.ok()) {
    ASSERT_TRUE(Readable(balancer->fd(), 10'000));
    ASSERT_TRUE(balancer->RunOnce().ok());
  }
  EXPECT_NE(status.message().find("event callback"), std::string::npos) << status;
}

TEST_F(HostedTest, WhatCameWhileTheHostWasStuckIsServedAfterwards) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  HostThread host(*balancer_);
  const auto worker = AddWorker({source});
  EXPECT_GE(AskWhoServes(listener), 0);
  std::vector<int> clients;
  host.Do([&] {
    for (int i = 0; i < 100; ++i) clients.push_back(listener.Connect());
    // Nobody accepts meanwhile.
    EXPECT_FALSE(Readable(clients.back(), 20));
  });
  ExpectAnswers(clients);
}

TEST_F(HostedTest, ADrainFromAnotherThreadGoesOnWhileTheHostServes) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  std::vector<int> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(listener.Connect());
  HostThread host(*balancer_, std::move(port), &mailbox);
  ASSERT_TRUE(Eventually([&] { return host.served() == 20; }));
  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.stats.accepted, 20u);
  for (const int client : clients) close(client);
}

// A loop that goes on watching the descriptor is not kept busy.
TEST_F(HostedTest, AfterTheEndItsDescriptorComesToRest) {
  const Listener listener = Listener::Tcp();
  ASSERT_TRUE(balancer_->RunOnce().ok());
  Source source = AddSource(listener);
  Port port = balancer_->AddWorker({.on_host = true, .capacity = 1, .window = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  const int client = listener.Connect();
  std::atomic<bool> ended{false};
  std::thread other([&] {
    balancer_->Shutdown(absl::Milliseconds(10));
    ended = true;
  });
  while (!ended) {
    if (!Readable(balancer_->fd(), 1)) continue;
    balancer_->RunOnce().IgnoreError();
    port.Claim([](Connection) {});
  }
  other.join();
  port.Claim([](Connection) {});
  int turns = 0;
  while (turns < 1000 && Readable(balancer_->fd(), 20)) {
    EXPECT_FALSE(balancer_->RunOnce().ok());
    ++turns;
  }
  EXPECT_LT(turns, 10);
  close(client);
}

// A loop that was about to become the host, or to follow one, and comes too late.
TEST_F(HostedTest, AnEndWithoutAHostIsToldToALoopThatComesLate) {
  for (const bool host_before : {false, true}) {
    Create({.host = Host::kLoop});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener);
    if (host_before) HostThread(*balancer_).Stop();
    Port port = balancer_->AddWorker({.on_host = true}).value();
    ASSERT_TRUE(source.Join(port).ok());
    balancer_->Shutdown(absl::Minutes(1));
    std::thread loop([&] {
      ASSERT_TRUE(Readable(balancer_->fd(), 10'000));
      EXPECT_EQ(balancer_->RunOnce().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_TRUE(port.ended());
      EXPECT_FALSE(Readable(balancer_->fd()));  // so it may also go on watching
    });
    loop.join();
  }
}

// The loop has looked whether its port has ended, and will hear of nothing more.
TEST_F(HostedTest, ALoopThatComesWhileItEndsWithoutAHostWaitsForThat) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Port port = balancer_->AddWorker({.on_host = true}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::thread loop;
  balancer_->Shutdown({.on_intake_ended = [&] {
    std::atomic<bool> runs{false};
    loop = std::thread([&] {
      EXPECT_TRUE(Readable(balancer_->fd(), 10'000));
      runs = true;
      EXPECT_EQ(balancer_->RunOnce().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_TRUE(port.ended());
    });
    while (!runs) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }});
  loop.join();
}

TEST_F(HostedTest, MayBeDestroyedWithoutEverHavingBeenDriven) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  const auto worker = AddWorker({source});
  balancer_.reset();
  EXPECT_FALSE(source.Pause().ok());
}

TEST_F(HostedTest, MayBeDestroyedAfterItsHostHasEnded) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  const auto worker = AddWorker({source});
  HostThread host(*balancer_);
  EXPECT_GE(AskWhoServes(listener), 0);
  host.Stop();
  balancer_.reset();
  // It does not listen to the source any more: another one may.
  Create({});
  Source again = AddSource(listener);
  const auto other = AddWorker({again});
  EXPECT_GE(AskWhoServes(listener), 0);
}

TEST_F(HostedTest, DrivingItAllocatesNothing) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  std::vector<int> clients;
  clients.reserve(300);
  const auto serve = [&](int count) {
    for (int i = 0; i < count; ++i) {
      clients.push_back(listener.Connect());
      for (bool served = false; !served;) {
        balancer_->RunOnce().IgnoreError();
        port.Claim([&](Connection) { served = true; });
      }
    }
  };
  serve(10);
  const size_t before = testing::AllocationCount();
  serve(200);
  EXPECT_EQ(testing::AllocationCount(), before);
  for (const int client : clients) close(client);
}

}  // namespace
}  // namespace ringmaster
