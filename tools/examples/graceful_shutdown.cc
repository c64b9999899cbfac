// Keep-alive: at the end idle connections are closed soon, and who has asked is answered first.
//   c++ -std=c++20 graceful_shutdown.cc -o graceful $(pkg-config --cflags --libs ringmaster)
//   ./graceful 7777     then: curl http://127.0.0.1:7777/ http://127.0.0.1:7777/

#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <unordered_map>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

using Client = std::pair<ringmaster::Connection, std::string>;  // and what it has asked so far

static bool Serve(Client& client, bool last) {  // false: the connection is to be closed
  char bytes[4096];
  const ssize_t size = recv(client.first.fd(), bytes, sizeof(bytes), 0);
  if (size <= 0) return size < 0 && (errno == EAGAIN || errno == EINTR);
  client.second.append(bytes, size);
  if (!client.second.ends_with("\r\n\r\n")) return client.second.size() < 16384;
  client.second.clear();
  std::string out = last ? "HTTP/1.1 200 OK\r\nConnection: close\r\n" : "HTTP/1.1 200 OK\r\n";
  out += "Content-Length: 3\r\n\r\nhi\n";
  return send(client.first.fd(), out.data(), out.size(), MSG_NOSIGNAL) == (int)out.size() && !last;
}

static void Work(ringmaster::Port port, ringmaster::Mailbox mailbox) {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [&](int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
  };
  if (!watch(mailbox.fd())) Must(absl::ErrnoToStatus(errno, "cannot watch the mailbox"));
  std::unordered_map<int, Client> clients;
  while (!port.ended()) {
    epoll_event event;
    const int ready = epoll_wait(epoll_fd, &event, 1, port.draining() ? 50 : -1);  // -1: a signal
    if (ready == 1 && event.data.fd == mailbox.fd())
      port.Claim([&](ringmaster::Connection claimed) {
        if (watch(claimed.fd())) clients[claimed.fd()].first = std::move(claimed);
      });
    else if (ready == 1 && !Serve(clients[event.data.fd], port.draining()))
      clients.erase(event.data.fd);
    for (auto& [fd, client] : clients)  // after 50 ms of quiet; what comes now is still answered
      if (ready == 0 && client.second.empty()) shutdown(fd, SHUT_RD);
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
  pthread_sigmask(SIG_UNBLOCK, &ends, nullptr);  // a second signal ends it at once
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
