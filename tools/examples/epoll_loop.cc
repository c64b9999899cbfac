// An echo server whose workers are epoll loops. A worker watches one more descriptor, its mailbox:
// when that is readable, the balancer has connections for it, and the worker claims them.
//   c++ -std=c++20 epoll_loop.cc -o epoll_loop $(pkg-config --cflags --libs ringmaster) -pthread
//   ./epoll_loop 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>
#include <unordered_map>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static bool Echo(int fd) {  // false: the client is gone, or does not read its answers
  char bytes[4096];
  const ssize_t size = recv(fd, bytes, sizeof(bytes), 0);
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  return size > 0 && send(fd, bytes, size, MSG_NOSIGNAL) == size;
}

static void Work(ringmaster::Port port, ringmaster::Mailbox mailbox) {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [&](int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
  };
  if (!watch(mailbox.fd())) Must(absl::ErrnoToStatus(errno, "cannot watch the mailbox"));
  std::unordered_map<int, ringmaster::Connection> connections;
  const auto serve = [&](ringmaster::Connection claimed) {
    if (watch(claimed.fd())) connections.emplace(claimed.fd(), std::move(claimed));
  };
  while (!port.ended()) {
    epoll_event events[64];
    port.BeforeWait();  // hints: the balancer knows who waits, and the kernel wakes one of those
    const int ready = epoll_wait(epoll_fd, events, 64, port.draining() ? 50 : -1);  // -1: a signal
    if (port.AfterWait()) port.Claim(serve);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      if (fd == mailbox.fd())
        port.Claim(serve);
      else if (!Echo(fd))
        connections.erase(fd);  // closes it; the balancer counts one less
    }
    for (auto& it : connections)  // after 50 ms of quiet: nothing is on its way any more
      if (ready == 0) shutdown(it.first, SHUT_RD);  // what has come is answered, then recv is 0
  }
  close(epoll_fd);
}

int main(int argc, char** argv) {
  sigset_t ends;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&ends), sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  const int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(argc > 1 ? std::atoi(argv[1]) : 7777), {}, {}};
  if (listen_fd < 0 || setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(listen_fd, (const sockaddr*)&address, sizeof(address)) || listen(listen_fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  auto balancer = ringmaster::Balancer::Create();
  Must(balancer.status());
  auto source = (*balancer)->AddSource(listen_fd, {.start_workers = 4}).value();
  std::jthread workers[4];
  for (std::jthread& worker : workers) {
    auto mailbox = ringmaster::Mailbox::Create().value();
    auto port = (*balancer)->AddWorker(mailbox).value();
    Must(source.Join(port));
    worker = std::jthread(Work, std::move(port), std::move(mailbox));
  }
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
