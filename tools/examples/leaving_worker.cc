// Workers that leave while they serve: the others go on with their clients, who notice nothing.
//   c++ -std=c++20 leaving_worker.cc -o leaving $(pkg-config --cflags --libs ringmaster) -pthread
//   ./leaving 7777     then: nc 127.0.0.1 7777, and kill -USR1 its pid while you type

#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>
#include <unordered_map>
#include <vector>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static bool Echo(int fd) {  // false: the client is gone, or does not read its answers
  char bytes[4096];
  const ssize_t size = recv(fd, bytes, sizeof(bytes), 0);
  return size < 0 ? errno == EAGAIN : size > 0 && send(fd, bytes, size, MSG_NOSIGNAL) == size;
}

static void Work(std::stop_token leave, ringmaster::Balancer& balancer, ringmaster::Source source) {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [&](int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
  };
  const auto mailbox = ringmaster::Mailbox::Create().value();
  if (!watch(mailbox.fd())) Must(absl::ErrnoToStatus(errno, "cannot watch the mailbox"));
  auto port = balancer.AddWorker(mailbox);
  const absl::Status joined = port.ok() ? source.Join(*port) : port.status();
  if (!joined.ok()) return (void)puts(joined.ToString().c_str());  // maybe it was ended already
  std::unordered_map<int, ringmaster::Connection> connections;
  while (!port->ended() && !(leave.stop_requested() && connections.empty())) {
    epoll_event event;
    const int ready = epoll_wait(epoll_fd, &event, 1, 50);  // not longer, as it may have to leave
    if (ready == 1 && event.data.fd == mailbox.fd())
      port->Claim([&](ringmaster::Connection claimed) {
        if (watch(claimed.fd())) connections.emplace(claimed.fd(), std::move(claimed));
      });
    else if (ready == 1 && !Echo(event.data.fd))
      connections.erase(event.data.fd);
    if (leave.stop_requested()) source.Leave(*port).IgnoreError();  // nothing new comes
    size_t pass_on = leave.stop_requested() ? connections.size() : ready == 0 ? port->Surplus() : 0;
    for (auto it = connections.begin(); pass_on > 0 && it != connections.end(); --pass_on) {
      epoll_ctl(epoll_fd, EPOLL_CTL_DEL, it->first, nullptr);  // all that was read is answered
      if (!source.PassOn(std::move(it->second)).ok() && watch(it->first)) break;  // it stays here
      it = connections.erase(it);
    }
    for (auto& [fd, connection] : connections)  // at the end, after 50 ms of quiet
      if (ready == 0 && port->draining()) shutdown(fd, SHUT_RD);
  }
  close(epoll_fd);
}

int main(int argc, char** argv) {
  sigset_t set;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&set), sigaddset(&set, SIGINT), sigaddset(&set, SIGTERM), sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(argc > 1 ? std::atoi(argv[1]) : 7777), {}, {}};
  if (listen_fd < 0 || setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(listen_fd, (const sockaddr*)&address, sizeof(address)) || listen(listen_fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  auto balancer = ringmaster::Balancer::Create();
  Must(balancer.status());
  auto source = (*balancer)->AddSource(listen_fd, {.start_workers = 4}).value();
  std::vector<std::jthread> workers(4);
  for (std::jthread& worker : workers) worker = std::jthread(Work, std::ref(**balancer), source);
  int signal;
  while ((signal = TEMP_FAILURE_RETRY(sigwaitinfo(&set, nullptr))) == SIGUSR1)
    if (workers.size() > 1) workers.pop_back();  // asks it to leave, and waits until it has
  psignal(signal, "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
