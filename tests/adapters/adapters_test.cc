// The adapters for event loops, each in a loop of its library, with clients. A loop runs on the
// test's thread until it ends by itself, so one that does not end meets the time limit.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "ringmaster/adapters/coroutine.h"
#include "ringmaster/balancer.h"
#include "ringmaster/policy.h"
#ifdef RINGMASTER_TEST_LIBUV
#include "ringmaster/adapters/libuv.h"
#endif
#ifdef RINGMASTER_TEST_LIBEVENT
#include "ringmaster/adapters/libevent.h"
#endif
#ifdef RINGMASTER_TEST_BOOST_ASIO
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>

#include "ringmaster/adapters/boost_asio.h"
#endif

namespace ringmaster {
namespace {

constexpr auto kSoon = std::chrono::seconds(60);  // no estimate

ptrdiff_t OpenDescriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

// --- The loops: each runs to its end, and calls a function within --------------------------------

#ifdef RINGMASTER_TEST_LIBUV
struct UvLoop {
  static constexpr bool kHints = true;
  using Worker = UvWorker;
  UvLoop() { uv_loop_init(&loop); }
  ~UvLoop() { EXPECT_EQ(uv_loop_close(&loop), 0); }
  auto Make(Balancer& balancer, WorkerHandlers handlers) {
    return Worker::Create(&loop, balancer, std::move(handlers));
  }
  void Run(Worker*) { uv_run(&loop, UV_RUN_DEFAULT); }
  void Call(std::function<void()> call) {
    auto* const timer = new uv_timer_t;
    timer->data = new std::function<void()>(std::move(call));
    uv_timer_init(&loop, timer);
    uv_update_time(&loop);
    const auto time_up = [](uv_timer_t* it) {
      auto* const function = static_cast<std::function<void()>*>(it->data);
      (*function)();
      delete function;
      uv_close(reinterpret_cast<uv_handle_t*>(it),
               [](uv_handle_t* closed) { delete reinterpret_cast<uv_timer_t*>(closed); });
    };
    uv_timer_start(timer, time_up, 5, 0);
  }
  uv_loop_t loop;
};
#endif

#ifdef RINGMASTER_TEST_LIBEVENT
struct LibeventLoop {
  static constexpr bool kHints = LIBEVENT_VERSION_NUMBER >= 0x02020000;
  using Worker = LibeventWorker;
  ~LibeventLoop() { event_base_free(base); }
  auto Make(Balancer& balancer, WorkerHandlers handlers) {
    return Worker::Create(base, balancer, std::move(handlers));
  }
  void Run(Worker*) { event_base_dispatch(base); }
  void Call(std::function<void()> call) {
    const timeval soon = {0, 1000};
    const auto time_up = [](evutil_socket_t, short, void* function) {
      (*static_cast<std::function<void()>*>(function))();
      delete static_cast<std::function<void()>*>(function);
    };
    event_base_once(base, -1, EV_TIMEOUT, time_up, new std::function<void()>(std::move(call)),
                    &soon);
  }
  event_base* const base = event_base_new();
};
#endif

#ifdef RINGMASTER_TEST_BOOST_ASIO
struct AsioLoop {
  static constexpr bool kHints = false;
  using Worker = BoostAsioWorker;
  // Otherwise the first worker does, and what it needs for that stays with the context.
  AsioLoop() { boost::asio::posix::stream_descriptor prepares_the_context(context); }
  auto Make(Balancer& balancer, WorkerHandlers handlers) {
    return Worker::Create(context, balancer, std::move(handlers));
  }
  void Run(Worker*) { context.run(); }
  void Call(std::function<void()> call) { boost::asio::post(context, std::move(call)); }
  boost::asio::io_context context{1};
};
struct AsioLoopWithHints : AsioLoop {
  static constexpr bool kHints = true;
  void Run(Worker* worker) { worker != nullptr ? worker->Run() : AsioLoop::Run(nullptr); }
};
#endif

// --- What they have in common --------------------------------------------------------------------

// Remembers whether the worker had said that it was busy when it was last picked.
class Watching final : public Policy {
 public:
  explicit Watching(std::atomic<uint16_t>& seen) : seen_(seen) {}
  std::string name() const override { return "watching"; }
  size_t Pick(const Arrival&, const View& view) override {
    seen_ = static_cast<uint16_t>(view.candidates[0].activity);
    return 0;
  }

 private:
  std::atomic<uint16_t>& seen_;
};

class Served : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Balancer>> made = Balancer::Create();
    if (!made.ok()) GTEST_SKIP() << made.status();
    balancer_ = *std::move(made);
    listen_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address_);
    auto* const address = reinterpret_cast<sockaddr*>(&address_);
    ASSERT_EQ(bind(listen_fd_, address, size), 0);
    ASSERT_EQ(listen(listen_fd_, 64), 0);
    ASSERT_EQ(getsockname(listen_fd_, address, &size), 0);
    source_ =
        balancer_->AddSource(listen_fd_, {.policy = std::make_unique<Watching>(seen_)}).value();
  }
  void TearDown() override { close(listen_fd_); }

  // A client that nobody has answered yet.
  int Connect() const {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)), 0);
    return fd;
  }
  // What a client reads until its end.
  static std::string ReadAll(int fd) {
    std::string text;
    std::array<char, 64> bytes;
    for (ssize_t size; (size = recv(fd, bytes.data(), bytes.size(), 0)) > 0;) {
      text.append(bytes.data(), static_cast<size_t>(size));
    }
    close(fd);
    return text;
  }
  // Whether the worker is, or becomes, that in the eyes of the policy.
  bool Becomes(Activity activity) const {
    const auto until = std::chrono::steady_clock::now() + kSoon;
    while (seen_ != static_cast<uint16_t>(activity)) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::yield();
    }
    return true;
  }
  static void Answer(const Connection& connection) {
    EXPECT_EQ(send(connection.fd(), "hi", 2, MSG_NOSIGNAL), 2);
  }

  std::atomic<uint16_t> seen_ = 0;
  std::unique_ptr<Balancer> balancer_;
  Source source_;
  sockaddr_in address_{};
  int listen_fd_ = -1;
};

template <typename Loop>
class AdaptersTest : public Served {
 protected:
  using Worker = typename Loop::Worker;
  // Joins the source.
  void Make(WorkerHandlers handlers) {
    absl::StatusOr<Worker> made = loop_->Make(*balancer_, std::move(handlers));
    ASSERT_TRUE(made.ok()) << made.status();
    worker_.emplace(*std::move(made));
    ASSERT_TRUE(source_.Join(worker_->port()).ok());
  }
  void Run() { loop_->Run(worker_.has_value() ? &*worker_ : nullptr); }

  std::optional<Loop> loop_{std::in_place};
  std::optional<Worker> worker_;
};

TYPED_TEST_SUITE_P(AdaptersTest);

TYPED_TEST_P(AdaptersTest, ServesThenDrainsThenEndsAndSoDoesTheLoop) {
  const ptrdiff_t before = OpenDescriptors();
  std::string told;
  std::optional<Connection> kept;
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    told += 's';
    Served::Answer(connection);
    if (told == "s") kept = std::move(connection);
  };
  handlers.drain = [&] {
    told += 'd';
    EXPECT_TRUE(this->worker_->port().draining());
    kept.reset();  // an open connection would hold the end up
  };
  handlers.end = [&] { told += 'e'; };
  this->Make(std::move(handlers));
  std::thread clients([&] {
    const int first = this->Connect();
    for (int i = 1; i < 20; ++i) EXPECT_EQ(this->ReadAll(this->Connect()), "hi");
    EXPECT_TRUE(this->balancer_->Shutdown(absl::Minutes(1)).drained);
    EXPECT_EQ(this->ReadAll(first), "hi");
  });
  this->Run();
  clients.join();
  EXPECT_EQ(told, std::string(20, 's') + "de");
  EXPECT_FALSE(this->worker_->port().joined());
  this->worker_.reset();
  this->balancer_.reset();
  this->source_ = {};
  // Whoever closes what is not his any more closes one of these.
  const std::array<int, 3> others = {open("/dev/null", O_RDONLY), open("/dev/null", O_RDONLY),
                                     open("/dev/null", O_RDONLY)};
  this->loop_.reset();
  for (const int fd : others) EXPECT_EQ(close(fd), 0);
  EXPECT_LT(OpenDescriptors(), before);  // the balancer's are gone, and the loop's
}

TYPED_TEST_P(AdaptersTest, MayLeaveWhileItServes) {
  int served = 0;
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    ++served;
    Served::Answer(connection);
    this->worker_->Leave();
    this->worker_->Leave();
  };
  handlers.drain = handlers.end = [] { ADD_FAILURE() << "nobody has asked for an end"; };
  this->Make(std::move(handlers));
  const int first = this->Connect();
  const int second = this->Connect();
  this->Run();
  EXPECT_EQ(this->ReadAll(first), "hi");
  EXPECT_EQ(served, 1);
  const BalancerStats stats = this->balancer_->Stats();
  EXPECT_TRUE(stats.workers.empty());
  EXPECT_EQ(stats.departed.claimed, 1u);
  close(second);
}

TYPED_TEST_P(AdaptersTest, MayBeDestroyedWhileItServes) {
  const auto alive = std::make_shared<int>(0);
  WorkerHandlers handlers;
  handlers.serve = [this, alive](Connection connection) {
    Served::Answer(connection);
    this->worker_.reset();
    EXPECT_GE(alive.use_count(), 2);  // what is running stays
  };
  this->Make(std::move(handlers));
  const int client = this->Connect();
  this->loop_->Run(nullptr);
  EXPECT_EQ(this->ReadAll(client), "hi");
  this->loop_.reset();
  EXPECT_EQ(alive.use_count(), 1);  // and is gone then
}

TYPED_TEST_P(AdaptersTest, MayBeDestroyedWhenItEnds) {
  const auto alive = std::make_shared<int>(0);
  WorkerHandlers handlers;
  handlers.drain = [alive] {};
  handlers.end = [this, alive] { this->worker_.reset(); };
  this->Make(std::move(handlers));
  ASSERT_TRUE(this->balancer_->BeginShutdown().ok());
  this->loop_->Run(nullptr);
  EXPECT_FALSE(this->worker_.has_value());
  this->loop_.reset();
  EXPECT_EQ(alive.use_count(), 1);
}

TYPED_TEST_P(AdaptersTest, MayBeDestroyedBeforeTheLoopRunsAndBeReplaced) {
  const auto alive = std::make_shared<int>(0);
  WorkerHandlers handlers;
  handlers.serve = [alive](Connection) { ADD_FAILURE(); };
  this->Make(handlers);
  this->worker_.reset();
  this->Make(handlers);
  // By one that takes its place.
  handlers.serve = [&](Connection connection) {
    Served::Answer(connection);
    this->worker_->Leave();
  };
  auto other = this->loop_->Make(*this->balancer_, std::move(handlers));
  ASSERT_TRUE(other.ok()) << other.status();
  *this->worker_ = *std::move(other);
  ASSERT_TRUE(this->source_.Join(this->worker_->port()).ok());
  const int client = this->Connect();
  this->Run();
  EXPECT_EQ(this->ReadAll(client), "hi");
  this->worker_.reset();
  this->loop_.reset();
  EXPECT_EQ(alive.use_count(), 1);
}

TYPED_TEST_P(AdaptersTest, AWorkerThatCannotBeAddedLeavesNothingBehind) {
  this->balancer_->Shutdown(absl::ZeroDuration());
  const ptrdiff_t before = OpenDescriptors();
  EXPECT_FALSE(this->loop_->Make(*this->balancer_, {}).ok());
  EXPECT_EQ(OpenDescriptors(), before);
  this->Run();
}

// Without hints a worker outside of Port::Claim counts as idle, whatever it does.
TYPED_TEST_P(AdaptersTest, TheBalancerKnowsWhetherItWaits) {
  if (!TypeParam::kHints) GTEST_SKIP() << "this loop cannot be seen";
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) { Served::Answer(connection); };
  this->Make(std::move(handlers));
  int late = -1;
  this->loop_->Call([&] {
    late = this->Connect();
    EXPECT_TRUE(this->Becomes(Activity::kBusy));
  });
  std::thread clients([&] {
    EXPECT_TRUE(this->Becomes(Activity::kBusy));
    while (this->seen_ != static_cast<uint16_t>(Activity::kIdle)) {
      EXPECT_EQ(this->ReadAll(this->Connect()), "hi");
    }
    EXPECT_TRUE(this->balancer_->Shutdown(absl::Minutes(1)).drained);
  });
  this->Run();
  clients.join();
  EXPECT_EQ(this->ReadAll(late), "hi");
}

REGISTER_TYPED_TEST_SUITE_P(AdaptersTest, ServesThenDrainsThenEndsAndSoDoesTheLoop,
                            MayLeaveWhileItServes, MayBeDestroyedWhileItServes,
                            MayBeDestroyedWhenItEnds, MayBeDestroyedBeforeTheLoopRunsAndBeReplaced,
                            AWorkerThatCannotBeAddedLeavesNothingBehind,
                            TheBalancerKnowsWhetherItWaits);
#ifdef RINGMASTER_TEST_LIBUV
INSTANTIATE_TYPED_TEST_SUITE_P(Libuv, AdaptersTest, UvLoop);
#endif
#ifdef RINGMASTER_TEST_LIBEVENT
INSTANTIATE_TYPED_TEST_SUITE_P(Libevent, AdaptersTest, LibeventLoop);
#endif
#ifdef RINGMASTER_TEST_BOOST_ASIO
INSTANTIATE_TYPED_TEST_SUITE_P(Asio, AdaptersTest, AsioLoop);
INSTANTIATE_TYPED_TEST_SUITE_P(AsioWithHints, AdaptersTest, AsioLoopWithHints);
#endif
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AdaptersTest);

// --- What one of them has alone ------------------------------------------------------------------

#ifdef RINGMASTER_TEST_BOOST_ASIO
using AsioTest = AdaptersTest<AsioLoop>;

TEST_F(AsioTest, GoesOnAfterAnException) {
  int served = 0;
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    Answer(connection);
    if (++served == 1) throw std::runtime_error("one of the program's");
    worker_->Leave();
  };
  Make(std::move(handlers));
  const int first = Connect();
  EXPECT_THROW(Run(), std::runtime_error);
  const int second = Connect();
  Run();
  EXPECT_EQ(ReadAll(first), "hi");
  EXPECT_EQ(ReadAll(second), "hi");
}

TEST_F(AsioTest, ASocketTakesTheConnectionOver) {
  boost::asio::ip::tcp::socket socket(loop_->context);
  Lease lease;
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    Answer(connection);
    lease = AssignTo(socket, boost::asio::ip::tcp::v4(), std::move(connection));
    worker_->Leave();
  };
  Make(std::move(handlers));
  const int client = Connect();
  Run();
  EXPECT_TRUE(lease.held());
  EXPECT_TRUE(socket.is_open());
  socket.close();
  EXPECT_EQ(ReadAll(client), "hi");
}

TEST_F(AsioTest, ASocketThatIsOpenRefusesAConnectionWhichIsClosed) {
  boost::asio::ip::tcp::socket socket(loop_->context, boost::asio::ip::tcp::v4());
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    worker_->Leave();
    const auto assign = [&] {
      const Lease lease = AssignTo(socket, boost::asio::ip::tcp::v4(), std::move(connection));
    };
    EXPECT_ANY_THROW(assign());
  };
  Make(std::move(handlers));
  const int client = Connect();
  Run();
  EXPECT_EQ(ReadAll(client), "");
}

// Several threads are one worker.
TEST_F(AsioTest, ThreadsMayShareAContext) {
  std::atomic<int> inside = 0;
  std::atomic<int> served = 0;
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    EXPECT_EQ(inside++, 0);
    Answer(connection);
    ++served;
    --inside;
  };
  Make(std::move(handlers));
  std::thread clients([&] {
    for (int i = 0; i < 200; ++i) EXPECT_EQ(ReadAll(Connect()), "hi");
    EXPECT_TRUE(balancer_->Shutdown(absl::Minutes(1)).drained);
  });
  std::thread second([&] { loop_->context.run(); });
  Run();
  second.join();
  clients.join();
  EXPECT_EQ(served, 200);
}
#endif

#ifdef RINGMASTER_TEST_LIBUV
using UvTest = AdaptersTest<UvLoop>;

// A callback that runs before the check handle says that the worker is busy.
TEST_F(UvTest, ALongCallbackSaysFirstThatItHasBegun) {
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    Answer(connection);
    worker_->Leave();
  };
  Make(std::move(handlers));
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  int client = -1;
  std::function<void()> callback = [&] {
    worker_->AfterWait();
    client = Connect();
    EXPECT_TRUE(Becomes(Activity::kBusy));
  };
  uv_poll_t readable;
  readable.data = &callback;
  uv_poll_init(&loop_->loop, &readable, ends[0]);
  uv_poll_start(&readable, UV_READABLE, [](uv_poll_t* it, int, int) {
    (*static_cast<std::function<void()>*>(it->data))();
    uv_close(reinterpret_cast<uv_handle_t*>(it), nullptr);
  });
  Run();
  EXPECT_EQ(ReadAll(client), "hi");
  for (const int end : ends) close(end);
}

TEST_F(UvTest, AHandleTakesTheConnectionOver) {
  uv_tcp_t handle;
  uv_tcp_init(&loop_->loop, &handle);
  Lease lease;
  WorkerHandlers handlers;
  handlers.serve = [&](Connection connection) {
    Answer(connection);
    lease = UvOpen(&handle, std::move(connection)).value();
    Connection nothing;
    EXPECT_FALSE(UvOpen(&handle, std::move(nothing)).ok());
    worker_->Leave();
    uv_close(reinterpret_cast<uv_handle_t*>(&handle), nullptr);
  };
  Make(std::move(handlers));
  const int client = Connect();
  Run();
  EXPECT_TRUE(lease.held());
  EXPECT_EQ(ReadAll(client), "hi");
}
#endif

// --- Coroutines ----------------------------------------------------------------------------------

class CoroutineTest : public Served {
 protected:
  static constexpr uint64_t kDoorbell = 7;

  void SetUp() override {
    Served::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(io_uring_queue_init(8, &ring_, 0), 0);
    Port port = balancer_->AddWorker({.ring_fd = ring_.ring_fd, .tag = kDoorbell}).value();
    ASSERT_TRUE(source_.Join(port).ok());
    port_.emplace(std::move(port), ring_, kDoorbell);
  }
  void TearDown() override {
    if (port_.has_value()) {
      port_.reset();
      io_uring_queue_exit(&ring_);
    }
    Served::TearDown();
  }

  Detached Accept() {
    while (std::optional<Connection> connection = co_await port_->Next()) {
      Echo(*std::move(connection));
    }
    ended_ = true;
  }
  Detached Echo(Connection connection) {
    ++open_;
    std::array<char, 64> bytes;
    AwaitableRequest receive{port_->Entry()};
    io_uring_prep_recv(receive.sqe, connection.fd(), bytes.data(), bytes.size(), 0);
    const int size = co_await receive;
    if (size > 0) {
      AwaitableRequest answer{port_->Entry()};
      io_uring_prep_send(answer.sqe, connection.fd(), bytes.data(), static_cast<size_t>(size),
                         MSG_NOSIGNAL);
      EXPECT_EQ(co_await answer, size);
    }
    --open_;
  }

  io_uring ring_{};
  std::optional<AwaitablePort> port_;
  bool ended_ = false;
  int open_ = 0;
};

// More of them than the queue of the ring has entries.
TEST_F(CoroutineTest, EachClientIsOneAndSoIsWhoAccepts) {
  constexpr int kClients = 40;
  std::thread clients([&] {
    std::array<int, kClients> fds;
    for (int& fd : fds) fd = Connect();
    for (const int fd : fds) EXPECT_EQ(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
    for (const int fd : fds) EXPECT_EQ(ReadAll(fd), "hello");
    EXPECT_TRUE(balancer_->Shutdown(absl::Minutes(1)).drained);
  });
  for (Accept(); !ended_ || open_ > 0;) port_->Turn();
  clients.join();
  EXPECT_TRUE(port_->port().ended());
}

TEST_F(CoroutineTest, WhoeverWaitsIsToldThatThePortHasLeft) {
  Accept();
  EXPECT_FALSE(ended_);
  port_->Leave();
  EXPECT_TRUE(ended_);
  EXPECT_TRUE(balancer_->Stats().workers.empty());
}

TEST_F(CoroutineTest, WhatNobodyAsksForIsNotClaimed) {
  const std::array<int, 2> clients = {Connect(), Connect()};
  std::optional<Connection> only;
  const auto accept_one = [](AwaitablePort& port, std::optional<Connection>& to) -> Detached {
    to = co_await port.Next();
  };
  accept_one(*port_, only);
  while (!only.has_value()) port_->Turn();
  EXPECT_EQ(balancer_->Stats().workers.at(0).claimed, 1u);
  Answer(*only);
  only.reset();
  EXPECT_EQ(ReadAll(clients[0]), "hi");
  close(clients[1]);
}

TEST_F(CoroutineTest, OtherCompletionsAreNotThePorts) {
  io_uring_cqe cqe{};
  cqe.user_data = kDoorbell + 1;
  EXPECT_FALSE(port_->OnCompletion(cqe));
  cqe.user_data = kDoorbell;
  EXPECT_TRUE(port_->OnCompletion(cqe));
}

}  // namespace
}  // namespace ringmaster
