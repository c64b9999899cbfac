#include "attack/clients.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "attack/trace.h"

namespace ringmaster::attack {
namespace {

constexpr size_t kWaitingMax = 200;
constexpr uint64_t kClientsMax = 3000;

int Connect(const Address& address) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0 ||
      errno == EINPROGRESS)
    return fd;
  const int error = errno;
  close(fd);
  errno = error;  // refused; or, of a Unix listener, EAGAIN: its backlog is full
  return -1;
}

void Reset(int fd) {
  const linger at_once = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

bool IsConnected(int fd) {
  sockaddr_storage peer;
  socklen_t size = sizeof(peer);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

}  // namespace

void Clients::Begin(uint64_t seed) {
  thread_ = std::thread([this, seed] {
    NameThread("client");
    Run(Random(seed, 1000));
  });
}

void Clients::Add(const Address& address) {
  const std::lock_guard lock(mutex_);
  addresses_.push_back(address);
}

void Clients::Stop() {
  stop_.store(true);
  thread_.join();
}

void Clients::Run(Random random) {
  while (!stop_.load()) {
    Address address;
    {
      const std::lock_guard lock(mutex_);
      // Often the latest, which is there for certain.
      if (!addresses_.empty())
        address =
            addresses_[random.OneIn(3) ? addresses_.size() - 1 : random.Below(addresses_.size())];
    }
    const uint32_t burst = random.OneIn(8) ? random.Between(10, 60) : random.Between(1, 4);
    if (address.size > 0 && begun_ < kClientsMax)
      for (uint32_t i = 0; i < burst; ++i) ConnectOne(address, random);
    LookAtAll();
    std::this_thread::sleep_for(std::chrono::microseconds(random.Below(3000)));
  }
}

void Clients::ConnectOne(const Address& address, Random& random) {
  if (clients_.size() >= kWaitingMax) return;
  const int fd = Connect(address);
  if (fd < 0) return;
  ++begun_;
  const char text[8] = "hello";
  switch (random.Below(8)) {
    case 0:
      return (void)close(fd);  // before it is accepted, as likely as not
    case 1:
      return Reset(fd);
    case 2:
      shutdown(fd, SHUT_WR);
      break;
    case 3:  // says nothing
      break;
    default:
      (void)!send(fd, text, sizeof(text), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  clients_.push_back({.fd = fd});
}

void Clients::Look(Client& client) {
  char answer[16];
  while (true) {
    const ssize_t size = recv(client.fd, answer, sizeof(answer), MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) {
      client.connected = client.connected || IsConnected(client.fd);
      return;
    }
    if (size <= 0) {
      client.ended = true;
      return;
    }
    if (!std::all_of(answer, answer + size, [](char byte) { return byte == kAnswerByte; }))
      Fail("a client was answered what nobody says: %.*s", static_cast<int>(size), answer);
    client.bytes += static_cast<uint32_t>(size);
    if (client.bytes > 1) Fail("a client was served twice");
  }
}

void Clients::LookAtAll() {
  for (Client& client : clients_) Look(client);
  std::erase_if(clients_, [this](const Client& client) {
    if (client.ended) {
      served_ += client.bytes;
      close(client.fd);
    }
    return client.ended;
  });
}

void Clients::CheckAllHaveEnded() {
  // A client whose last packet of the handshake was dropped takes itself for connected until it
  // says something. One that is not connected tries again, and is not judged.
  for (const Client& client : clients_) (void)!send(client.fd, "?", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  for (int i = 0; i < 5000; ++i) {
    LookAtAll();
    if (std::none_of(clients_.begin(), clients_.end(),
                     [](const Client& client) { return IsConnected(client.fd); }))
      break;
    if (i == 4999) Fail("a client was left in silence: its listener and its servers are gone");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (const Client& client : clients_) close(client.fd);
  clients_.clear();
}

uint32_t AskManyToBeServed(const Address& address, uint32_t count, double seconds) {
  std::vector<pollfd> clients;
  for (int i = 0; i < seconds * 1000 && clients.size() < count; ++i) {
    const int fd = Connect(address);
    if (fd >= 0) {
      clients.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the backlog is full
    }
  }
  uint32_t ended = 0;
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  while (ended < count && std::chrono::steady_clock::now() < deadline) {
    poll(clients.data(), clients.size(), 100);
    for (pollfd& client : clients) {
      if (client.fd < 0 || client.revents == 0) continue;
      close(std::exchange(client.fd, -1));
      ++ended;
    }
  }
  for (const pollfd& client : clients)
    if (client.fd >= 0) close(client.fd);
  return ended;
}

bool NobodyElseAccepts(int listener, const Address& address, uint32_t count) {
  std::vector<int> clients;
  for (uint32_t i = 0; i < count; ++i) {
    const int fd = Connect(address);
    if (fd >= 0) clients.push_back(fd);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  bool all = true;
  for (size_t i = 0; i < clients.size(); ++i) {
    // A client may still be on its way.
    pollfd look = {.fd = listener, .events = POLLIN, .revents = 0};
    if (poll(&look, 1, 2000) != 1) {
      all = false;
      break;
    }
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    // Others may leave no descriptor for a moment.
    for (int again = 0; fd < 0 && errno == EMFILE && again < 2000; ++again) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    }
    all = all && fd >= 0;
    if (fd >= 0) close(fd);
  }
  for (const int fd : clients) close(fd);
  return all;
}

Outcome AskToBeServed(const Address& address, double seconds) {
  int fd = -1;
  for (int i = 0; i < seconds * 1000 && fd < 0; ++i) {
    fd = Connect(address);
    if (fd >= 0) break;
    if (errno != EAGAIN) return Outcome::kEnded;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the backlog is full
  }
  if (fd < 0) return Outcome::kSilence;
  pollfd look = {.fd = fd, .events = POLLIN};
  const int ready = poll(&look, 1, static_cast<int>(seconds * 1000));
  char answer = 0;
  const ssize_t size = ready == 1 ? recv(fd, &answer, 1, MSG_DONTWAIT) : 0;
  close(fd);
  if (ready == 0) return Outcome::kSilence;
  return size == 1 && answer == kAnswerByte ? Outcome::kServed : Outcome::kEnded;
}

}  // namespace ringmaster::attack
