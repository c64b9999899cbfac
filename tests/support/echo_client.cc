#include "support/echo_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string_view>
#include <utility>

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPieceBytes = size_t{64} * 1024;

// The payloads are stretches of one long noise that begin with the connection's number. A prime
// length keeps stretches that were exchanged or repeated from looking alike at any round distance.
constexpr size_t kNoiseBytes = 1'048'573;
constexpr size_t kNumberBytes = sizeof(uint32_t);

// The finaliser of SplitMix64: equal inputs give equal outputs, similar ones do not give similar.
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

const std::vector<char>& Noise() {
  static const auto* const kNoise = [] {
    auto* const noise = new std::vector<char>(kNoiseBytes);
    for (size_t i = 0; i < kNoiseBytes; ++i) (*noise)[i] = static_cast<char>(Mix(i) >> 56);
    return noise;
  }();
  return *kNoise;
}

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;
};

// Returns 0 or -errno.
int ParseAddress(const std::string& text, Address& address) {
  constexpr std::string_view kUnix = "unix:";
  if (text.starts_with(kUnix)) {
    auto& unix_address = reinterpret_cast<sockaddr_un&>(address.storage);
    const std::string path = text.substr(kUnix.size());
    if (path.size() >= sizeof(unix_address.sun_path)) return -ENAMETOOLONG;
    unix_address.sun_family = AF_UNIX;
    std::copy(path.begin(), path.end(), unix_address.sun_path);
    address.size = sizeof(sockaddr_un);
    return 0;
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return -EINVAL;
  const auto port = static_cast<uint16_t>(std::strtoul(text.c_str() + colon + 1, nullptr, 10));
  if (text.front() == '[') {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    address.size = sizeof(v6);
    return inet_pton(AF_INET6, text.substr(1, colon - 2).c_str(), &v6.sin6_addr) == 1 ? 0 : -EINVAL;
  }
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  address.size = sizeof(v4);
  return inet_pton(AF_INET, text.substr(0, colon).c_str(), &v4.sin_addr) == 1 ? 0 : -EINVAL;
}

// A connection that waits for its end keeps its port for a minute. 200 addresses have five million.
constexpr uint32_t kSourceAddresses = 200;

void BindSource(int fd, uint32_t number) {
  const int on = 1;
  // The port is chosen at connect, when it has to be unique only together with the destination.
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
  sockaddr_in source = {};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(EchoSourceAddress(number));
  // Not fatal: the connection then comes from the usual address.
  static_cast<void>(bind(fd, reinterpret_cast<const sockaddr*>(&source), sizeof(source)));
}

bool IsLoopbackV4(const Address& address) {
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address.storage);
  return v4.sin_family == AF_INET && ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

// One connection at work.
struct Exchange {
  int fd = -1;
  uint32_t number = 0;
  bool all_sent = false;
  size_t size = 0;
  size_t sent = 0;
  size_t received = 0;
  Clock::time_point start;
};

class Client {
 public:
  explicit Client(const EchoClientOptions& options) : options_(options) {}
  ~Client() {
    for (Exchange& exchange : exchanges_) {
      if (exchange.fd >= 0) close(exchange.fd);
    }
    if (epoll_ >= 0) close(epoll_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  EchoReport Run();

 private:
  bool Start(uint32_t slot);
  void Work(uint32_t slot);
  bool Send(Exchange& exchange, uint32_t slot);
  bool Receive(Exchange& exchange, uint32_t slot);
  void End(uint32_t slot, uint32_t& count, const char* problem, int error = 0);
  void Fail(uint32_t slot, const char* doing, int error);

  const EchoClientOptions& options_;
  EchoReport report_;
  Address address_;
  bool rotate_sources_ = false;
  int epoll_ = -1;
  uint32_t next_number_ = 0;
  uint32_t open_ = 0;
  std::vector<Exchange> exchanges_;
  std::deque<uint32_t> idle_;  // slots without a connection
  std::vector<char> expected_ = std::vector<char>(kPieceBytes);
  std::vector<char> actual_ = std::vector<char>(kPieceBytes);
};

EchoReport Client::Run() {
  const Clock::time_point begin = Clock::now();
  const Clock::time_point deadline = begin + options_.deadline;
  const int parsed = ParseAddress(options_.address, address_);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (parsed < 0 || epoll_ < 0) {
    report_.refused = options_.connections;
    report_.first_problem = "cannot use the address " + options_.address;
    return std::move(report_);
  }
  rotate_sources_ = IsLoopbackV4(address_);
  exchanges_.resize(std::max(1U, std::min(options_.parallel, options_.connections)));
  for (uint32_t slot = 0; slot < exchanges_.size(); ++slot) idle_.push_back(slot);

  std::array<epoll_event, 256> events;
  for (;;) {
    bool queue_full = false;
    while (!queue_full && !idle_.empty() && next_number_ < options_.connections) {
      const uint32_t slot = idle_.front();
      idle_.pop_front();
      queue_full = !Start(slot);
    }
    const Clock::time_point now = Clock::now();
    if ((open_ == 0 && next_number_ >= options_.connections) || now >= deadline) break;
    // A full queue of a Unix listener has no event that says when there is room again.
    const int64_t wait_ms =
        queue_full
            ? 1
            : std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now).count() + 1;
    const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()),
                                 static_cast<int>(std::min<int64_t>(wait_ms, 1000)));
    for (int i = 0; i < count; ++i) Work(events[i].data.u32);
  }

  report_.timed_out = open_ + (options_.connections - next_number_);
  if (report_.timed_out > 0 && report_.first_problem.empty()) {
    report_.first_problem = std::to_string(open_) + " connections had not ended and " +
                            std::to_string(options_.connections - next_number_) +
                            " not begun at the deadline";
  }
  report_.elapsed = Clock::now() - begin;
  return std::move(report_);
}

// Begins the next connection. Returns false, and leaves it to be begun again, when the queue of a
// Unix listener is full.
bool Client::Start(uint32_t slot) {
  Exchange& exchange = exchanges_[slot];
  exchange = {};
  exchange.number = next_number_;
  exchange.size =
      options_.payload_bytes_min +
      Mix(exchange.number) % (options_.payload_bytes_max - options_.payload_bytes_min + 1);
  exchange.start = Clock::now();
  exchange.fd = socket(address_.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (exchange.fd >= 0 && rotate_sources_) BindSource(exchange.fd, exchange.number);
  const int error = exchange.fd < 0 ? errno
                    : connect(exchange.fd, reinterpret_cast<const sockaddr*>(&address_.storage),
                              address_.size) == 0
                        ? 0
                        : errno;
  if (error == EAGAIN) {
    close(std::exchange(exchange.fd, -1));
    idle_.push_front(slot);
    return false;
  }
  ++next_number_;
  ++open_;
  if (error != 0 && error != EINPROGRESS) {
    Fail(slot, "connect", error);
    return true;
  }
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u32 = slot;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, exchange.fd, &event);
  return true;
}

// Edge-triggered: sends and receives until neither is possible.
void Client::Work(uint32_t slot) {
  Exchange& exchange = exchanges_[slot];
  if (exchange.fd < 0) return;
  while (Send(exchange, slot) || Receive(exchange, slot)) {
    if (exchange.fd < 0) return;
  }
}

// Sends one piece. Returns whether it is worth calling again.
bool Client::Send(Exchange& exchange, uint32_t slot) {
  if (exchange.fd < 0 || exchange.all_sent) return false;
  while (exchange.sent < exchange.size) {
    const size_t piece = std::min(kPieceBytes, exchange.size - exchange.sent);
    FillPayload(exchange.number, exchange.sent, expected_.data(), piece);
    const ssize_t sent = send(exchange.fd, expected_.data(), piece, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno != EAGAIN) Fail(slot, "send", errno);
      return false;
    }
    exchange.sent += static_cast<size_t>(sent);
    // The echo is read as soon as there is some: a server may rightly stop receiving from a client
    // that does not read.
    if (exchange.sent < exchange.size) {
      Receive(exchange, slot);
      return true;
    }
  }
  exchange.all_sent = true;
  if (options_.end == EchoEnd::kHalfClose) shutdown(exchange.fd, SHUT_WR);
  return false;
}

// Receives one piece and compares it. Returns whether it is worth calling again.
bool Client::Receive(Exchange& exchange, uint32_t slot) {
  if (exchange.fd < 0) return false;
  const ssize_t received = recv(exchange.fd, actual_.data(), kPieceBytes, 0);
  if (received < 0) {
    if (errno != EAGAIN) Fail(slot, "receive", errno);
    return false;
  }
  if (received == 0) {
    if (exchange.received == exchange.size && exchange.all_sent) {
      End(slot, report_.echoed, nullptr);
    } else {
      End(slot, report_.wrong, "the stream ended before the whole payload had come back");
    }
    return false;
  }
  const auto piece = static_cast<size_t>(received);
  if (piece > exchange.sent - exchange.received) {
    End(slot, report_.wrong, "more came back than was sent");
    return false;
  }
  FillPayload(exchange.number, exchange.received, expected_.data(), piece);
  if (std::memcmp(expected_.data(), actual_.data(), piece) != 0) {
    End(slot, report_.wrong, "other bytes came back than were sent");
    return false;
  }
  exchange.received += piece;
  if (options_.end == EchoEnd::kClose && exchange.received == exchange.size) {
    End(slot, report_.echoed, nullptr);
    return false;
  }
  return true;
}

void Client::Fail(uint32_t slot, const char* doing, int error) {
  // A non-blocking connect that is refused says so at the first attempt to send.
  const bool reset = error == ECONNRESET || error == EPIPE;
  End(slot, reset ? report_.reset : report_.refused, doing, error);
}

// Counts the connection and closes it. `problem` is null when it was echoed.
void Client::End(uint32_t slot, uint32_t& count, const char* problem, int error) {
  Exchange& exchange = exchanges_[slot];
  ++count;
  if (problem == nullptr && options_.record_latencies) {
    report_.latencies.push_back(Clock::now() - exchange.start);
  }
  if (problem != nullptr && report_.first_problem.empty()) {
    report_.first_problem = "connection " + std::to_string(exchange.number) + " (" +
                            std::to_string(exchange.sent) + " of " + std::to_string(exchange.size) +
                            " bytes sent, " + std::to_string(exchange.received) +
                            " received): " + problem +
                            (error != 0 ? std::string(": ") + std::strerror(error) : "");
  }
  if (exchange.fd >= 0) close(std::exchange(exchange.fd, -1));
  idle_.push_back(slot);
  --open_;
}

}  // namespace

EchoReport RunEchoClient(const EchoClientOptions& options) { return Client(options).Run(); }

uint32_t EchoSourceAddress(uint32_t number) {
  return INADDR_LOOPBACK + 0x100 + number % kSourceAddresses;
}

int ConnectTo(const std::string& address_text, std::chrono::milliseconds timeout) {
  Address address;
  if (const int parsed = ParseAddress(address_text, address); parsed < 0) return parsed;
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(timeout).count();
  timeval limit = {};
  limit.tv_sec = us / 1'000'000;
  limit.tv_usec = us % 1'000'000;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) < 0) {
    const int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

void FillPayload(uint32_t number, size_t offset, char* data, size_t size) {
  std::array<char, kNumberBytes> head;
  // Times an odd number: no two connections have the same.
  const uint32_t mixed = number * 2654435761U;
  std::memcpy(head.data(), &mixed, head.size());
  while (size > 0 && offset < head.size()) {
    *data++ = head[offset++];
    --size;
  }
  const std::vector<char>& noise = Noise();
  size_t position = (Mix(~uint64_t{number}) + offset) % kNoiseBytes;
  while (size > 0) {
    const size_t piece = std::min(size, kNoiseBytes - position);
    std::memcpy(data, noise.data() + position, piece);
    data += piece;
    size -= piece;
    position = 0;
  }
}

}  // namespace ringmaster::testing
