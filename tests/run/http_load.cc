// Clients of a web server on this machine, for servers.py. Each client asks for one page again and
// again: over one connection that stays (`stay`), or with a new connection each time (`churn`). All
// of them in one thread, closed loop. The last line of output is JSON.
//
//   http_load stay|churn PORT CLIENTS SECONDS PATH

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Client {
  int fd = -1;
  bool connected = false;
  std::string received;
  Clock::time_point since;
};

struct Totals {
  uint64_t answered = 0;
  uint64_t refused = 0;
  uint64_t reset = 0;
  uint64_t wrong = 0;  // answers that are none
  uint64_t late = 0;   // after a second
  std::vector<uint32_t> latencies_us;
};

// Whether a whole answer has been received. Bodies have a length or end with the connection.
bool Complete(const std::string& received, bool closed) {
  const size_t end = received.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  std::string head = received.substr(0, end);
  std::transform(head.begin(), head.end(), head.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const size_t at = head.find("content-length:");
  if (at != std::string::npos) {
    return received.size() >= end + 4 + std::strtoull(head.c_str() + at + 15, nullptr, 10);
  }
  if (head.find("chunked") != std::string::npos) {
    return received.size() >= 5 && received.compare(received.size() - 5, 5, "0\r\n\r\n") == 0;
  }
  return closed;
}

class Load {
 public:
  Load(bool stays, uint16_t port, size_t clients, const std::string& path)
      : stays_(stays), clients_(clients) {
    address_.sin_family = AF_INET;
    address_.sin_port = htons(port);
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    request_ = "GET " + path +
               " HTTP/1.1\r\nHost: localhost\r\nConnection: " + (stays ? "keep-alive" : "close") +
               "\r\n\r\n";
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  }

  // Opens all, one after the other where they stay.
  void Open() {
    for (size_t i = 0; i < clients_.size(); ++i) {
      Connect(i);
      if (stays_) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
  }

  void Run(double seconds) {
    const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                     std::chrono::duration<double>(seconds));
    std::vector<epoll_event> events(64);
    while (Clock::now() < end) {
      const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), 20);
      for (int i = 0; i < count; ++i) Handle(events[static_cast<size_t>(i)]);
    }
    const Clock::time_point now = Clock::now();
    for (const Client& client : clients_) {
      if (client.fd >= 0 && now - client.since > std::chrono::seconds(1)) ++totals_.late;
    }
  }

  void Print(double seconds) {
    std::vector<uint32_t>& all = totals_.latencies_us;
    std::sort(all.begin(), all.end());
    const auto quantile = [&](double q) {
      return all.empty() ? 0u
                         : all[std::min(all.size() - 1,
                                        static_cast<size_t>(q * static_cast<double>(all.size())))];
    };
    std::printf(
        "{\"requests_per_second\": %.0f, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u, "
        "\"answered\": %llu, \"refused\": %llu, \"reset\": %llu, \"wrong\": %llu, \"late\": "
        "%llu}\n",
        static_cast<double>(totals_.answered) / seconds, quantile(0.5), quantile(0.99),
        all.empty() ? 0u : all.back(), static_cast<unsigned long long>(totals_.answered),
        static_cast<unsigned long long>(totals_.refused),
        static_cast<unsigned long long>(totals_.reset),
        static_cast<unsigned long long>(totals_.wrong),
        static_cast<unsigned long long>(totals_.late));
  }

 private:
  void Connect(size_t index) {
    Client& client = clients_[index];
    client = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
              .since = Clock::now()};
    epoll_event event{.events = EPOLLOUT, .data = {.u64 = index}};
    if (connect(client.fd, reinterpret_cast<sockaddr*>(&address_), sizeof(address_)) != 0 &&
        errno != EINPROGRESS) {
      event.events = EPOLLOUT | EPOLLERR;
    }
    epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, client.fd, &event);
  }

  void Again(size_t index) {
    close(clients_[index].fd);
    Connect(index);
  }

  void Send(size_t index, bool first) {
    Client& client = clients_[index];
    if (!first) client.since = Clock::now();
    client.received.clear();
    send(client.fd, request_.data(), request_.size(), MSG_NOSIGNAL);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = index}};
    epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, client.fd, &event);
  }

  void Handle(const epoll_event& event) {
    const size_t index = event.data.u64;
    Client& client = clients_[index];
    if (!client.connected) {
      int error = 0;
      socklen_t length = sizeof(error);
      getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &length);
      if (error != 0) {
        ++(error == ECONNREFUSED ? totals_.refused : totals_.reset);
        return Again(index);
      }
      client.connected = true;
      return Send(index, /*first=*/true);
    }
    char buffer[16384];
    const ssize_t length = recv(client.fd, buffer, sizeof(buffer), 0);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length < 0) {
      ++totals_.reset;
      return Again(index);
    }
    client.received.append(buffer, static_cast<size_t>(length));
    if (Complete(client.received, length == 0)) {
      if (client.received.compare(0, 9, "HTTP/1.1 ") != 0 &&
          client.received.compare(0, 9, "HTTP/1.0 ") != 0) {
        ++totals_.wrong;
      } else if (client.received[9] != '2') {
        ++totals_.wrong;
      }
      ++totals_.answered;
      totals_.latencies_us.push_back(static_cast<uint32_t>(
          std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - client.since)
              .count()));
      if (stays_ && length > 0) return Send(index, /*first=*/false);
      return Again(index);
    }
    if (length == 0) {
      // A server may close a connection that stays, between two answers.
      if (!client.received.empty() || !stays_) ++totals_.reset;
      Again(index);
    }
  }

  const bool stays_;
  sockaddr_in address_{};
  std::string request_;
  int epoll_fd_ = -1;
  std::vector<Client> clients_;
  Totals totals_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "http_load stay|churn PORT CLIENTS SECONDS PATH\n");
    return 2;
  }
  Load load(std::strcmp(argv[1], "stay") == 0, static_cast<uint16_t>(std::atoi(argv[2])),
            static_cast<size_t>(std::atoi(argv[3])), argv[5]);
  const double seconds = std::strtod(argv[4], nullptr);
  load.Open();
  load.Run(seconds);
  load.Print(seconds);
  // The connections stay open while whoever has started this looks who has them.
  std::fflush(stdout);
  if (std::strcmp(argv[1], "stay") == 0) std::getchar();
}
