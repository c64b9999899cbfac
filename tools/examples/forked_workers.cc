// An echo server whose workers are processes, forked before anybody connects. Each watches its
// sight: when that is readable, the policy has given it a connection. One that dies is replaced.
//   c++ -std=c++20 forked_workers.cc -o forked_workers $(pkg-config --cflags --libs ringmaster)
//   ./forked_workers 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/processes.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
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

static void Work(absl::StatusOr<ringmaster::ProcessPort> joined) {
  ringmaster::ProcessPort& port = (Must(joined.status()), *joined);
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC), sight = port.sight();
  const auto watch = [&](int fd, int op = EPOLL_CTL_ADD) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(epoll_fd, op, fd, &event) == 0;
  };
  watch(sight);
  std::unordered_map<int, ringmaster::ProcessConnection> connections;
  while (port.joined() || !connections.empty()) {
    epoll_event events[64];
    port.BeforeWait();  // hints: the kernel wakes one of those that wait
    const int ready = epoll_wait(epoll_fd, events, 64, port.joined() ? -1 : 50);
    port.AfterWait();
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      if (fd == sight)
        port.Claim([&](ringmaster::ProcessConnection claimed) {
          if (watch(claimed.fd())) connections[claimed.fd()] = std::move(claimed);
        });
      else if (!Echo(fd))
        connections.erase(fd);  // closes it; the policy counts one less
    }
    if (port.parent_gone()) Must(absl::AbortedError("the parent was killed"));
    if (port.draining() && port.joined())  // nothing new; ten seconds for what is open
      watch(sight, EPOLL_CTL_DEL), port.Leave(), alarm(10);
    for (auto& it : connections)  // after 50 ms of quiet: nothing is on its way any more
      if (ready == 0) shutdown(it.first, SHUT_RD);  // what has come is answered, then recv is 0
  }
}

int main(int argc, char** argv) {
  sigset_t signals;  // blocked, also in the workers; the parent takes them by sigwaitinfo
  sigemptyset(&signals), sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGCHLD), sigprocmask(SIG_BLOCK, &signals, nullptr);
  const int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(argc > 1 ? std::atoi(argv[1]) : 7777), {}, {}};
  if (listen_fd < 0 || setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(listen_fd, (const sockaddr*)&address, sizeof(address)) || listen(listen_fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  auto workers = ringmaster::WorkerProcesses::Create({.policy = "least-loaded"});
  Must(workers.ok() ? (*workers)->AddListener(listen_fd) : workers.status());
  close(listen_fd);  // parent and workers have duplicates
  int signal = SIGCHLD, running = 0;
  for (; signal == SIGCHLD; signal = TEMP_FAILURE_RETRY(sigwaitinfo(&signals, nullptr))) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) --running;
    for (; running < 4; ++running)
      if (fork() == 0) Work((*workers)->Join()), _exit(0);
  }
  psignal(signal, "no new connections because of");
  (*workers)->BeginShutdown();  // each worker is told by its sight
  while (wait(nullptr) > 0) continue;
}
