#include "support/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "ring/features.h"

namespace ringmaster::testing {
namespace {

constexpr uint64_t kDoorbell = 1;
constexpr uint64_t kStop = 2;
constexpr uint64_t kDie = 3;
constexpr uint64_t kPoke = 4;

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "test support: %s: %s\n", what, std::strerror(errno));
  std::abort();
}

}  // namespace

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
// If a test forks, the child may set up a balancer of its own, which starts threads.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }
#endif
#endif

std::string WhyNoIoUring() {
  const absl::StatusOr<ring::Features> features = ring::ProbeFeatures();
  return features.ok() ? "" : std::string(features.status().message());
}

Listener Listener::Tcp(int backlog) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  Require(fd >= 0, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  Require(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0, "bind");
  Require(listen(fd, backlog) == 0, "listen");
  return Listener(fd);
}

Listener Listener::Unix(int backlog) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  Require(fd >= 0, "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Require(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) == 0, "bind");
  Require(listen(fd, backlog) == 0, "listen");
  return Listener(fd);
}

Listener::Listener(Listener&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Listener::~Listener() {
  if (fd_ >= 0) close(fd_);
}

int Listener::Connect() const { return Connect(0); }

int Listener::ConnectWithoutWaiting() const { return Connect(SOCK_NONBLOCK); }

int Listener::Connect(int flags) const {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (getsockname(fd_, generic, &size) != 0) return -errno;
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) return -errno;
  if (connect(fd, generic, size) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

Worker::Worker(SetUp set_up, Serve serve) : serve_(std::move(serve)) {
  thread_ = std::thread([this, set_up = std::move(set_up)] { Run(set_up); });
  ready_.wait(false);
}

Worker::~Worker() {
  Stop();
  io_uring_queue_exit(&ring_);
}

void Worker::Stop() {
  if (std::exchange(stopped_, true)) return;
  Send(kStop);
  thread_.join();
}

void Worker::Die() {
  if (std::exchange(stopped_, true)) return;
  Send(kDie);
  thread_.join();
}

void Worker::Poke() { Send(kPoke); }

void Worker::Send(uint64_t tag) {
  told_.fetch_add(1);
  io_uring ring;
  Require(io_uring_queue_init(2, &ring, 0) == 0, "io_uring_queue_init");
  io_uring_prep_msg_ring(io_uring_get_sqe(&ring), ring_.ring_fd, 0, tag, 0);
  io_uring_submit_and_wait(&ring, 1);
  io_uring_queue_exit(&ring);
}

void Worker::Run(const SetUp& set_up) {
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  Require(io_uring_queue_init_params(64, &ring_, &params) == 0, "io_uring_queue_init_params");
  absl::StatusOr<Port> port = set_up(ring_.ring_fd, kDoorbell);
  if (!port.ok()) {
    std::fprintf(stderr, "test support: %s\n", port.status().ToString().c_str());
    std::abort();
  }
  port_ = *std::move(port);
  index_ = port_.worker();
  handed_.reserve(2 * params.cq_entries);  // so that serving allocates nothing
  ready_.store(true);
  ready_.notify_all();
  const auto serve = [this](Connection connection) {
    claimed_.fetch_add(1);
    serve_(index_, std::move(connection));
  };
  while (true) {
    io_uring_submit_and_wait(&ring_, 1);
    told_.load();
    wakes_.fetch_add(1);
    bool rung = false;
    uint64_t command = 0;
    unsigned head = 0;
    unsigned count = 0;
    handed_.clear();
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++count;
      if (cqe->user_data >= kTokens) handed_.emplace_back(cqe->res, cqe->user_data);
      rung |= cqe->user_data == kDoorbell || cqe->user_data == kPoke;
      if (cqe->user_data == kStop || cqe->user_data == kDie) command = cqe->user_data;
    }
    io_uring_cq_advance(&ring_, count);
    if (command == kDie) return;
    for (const auto& [fd, token] : handed_) serve(port_.Adopt(fd, token));
    if (!handed_.empty()) port_.Took(handed_.size());
    while (rung && port_.Claim(serve)) {
    }
    if (command == kStop) {
      port_.Leave();
      ServeWhatIsLeft(serve);
      return;
    }
  }
}

// What was handed over before the port left still belongs to the worker.
void Worker::ServeWhatIsLeft(const std::function<void(Connection)>& serve) {
  io_uring_get_events(&ring_);
  for (io_uring_cqe* cqe; io_uring_peek_cqe(&ring_, &cqe) == 0; io_uring_cqe_seen(&ring_, cqe)) {
    if (cqe->user_data >= kTokens) serve(port_.Adopt(cqe->res, cqe->user_data));
    io_uring_get_events(&ring_);
  }
}

void ServeIndex(uint32_t worker, Connection connection) {
  const auto byte = static_cast<unsigned char>(worker);
  Require(write(connection.fd(), &byte, 1) == 1, "write");
}

int AskWhoServes(const Listener& listener) {
  const int fd = listener.Connect();
  if (fd < 0) return fd;
  unsigned char bytes[2];
  ssize_t size = read(fd, bytes, sizeof(bytes));
  const int result = size == 1 ? bytes[0] : size == 0 ? -EPIPE : size < 0 ? -errno : -EPROTO;
  close(fd);
  return result;
}

}  // namespace ringmaster::testing
