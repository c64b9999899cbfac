// Two generations, two listeners on one port by SO_REUSEPORT. The successor ends its predecessor,
// which sends new clients on, serves those that are in its backlog, and only then closes it.
//   c++ -std=c++20 rolling_reuseport.cc -o reuseport $(pkg-config --cflags --libs ringmaster)
//   ./reuseport 7777 &     ./reuseport 7777 $!     then: nc -d 127.0.0.1 7777

#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <ringmaster/balancer.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static int Listen(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(port), {}, {}};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) ||
      bind(fd, (const sockaddr*)&address, sizeof(address)) || listen(fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  return fd;
}

static void Work(ringmaster::Port port, ringmaster::Mailbox mailbox) {
  while (!port.ended()) {
    pollfd bell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
    poll(&bell, 1, -1);  // a signal ends it early
    port.Claim([](ringmaster::Connection connection) {
      dprintf(connection.fd(), "served by process %d\n", getpid());
    });
  }
}

// In the order in which the sockets of the group began to listen, this one is 0, its successor 1.
static void SendNewClientsToSuccessor(int listen_fd) {
  sock_filter pick = {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 1};
  const sock_fprog program = {.len = 1, .filter = &pick};
  if (setsockopt(listen_fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)))
    perror("who waits in the backlog will be reset");
}

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: %s PORT [PREDECESSOR]\n", argv[0]), 2;
  signal(SIGPIPE, SIG_IGN);
  sigset_t ends;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&ends), sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  const int listen_fd = Listen(std::atoi(argv[1]));
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
  if (argc > 2 && kill(std::atoi(argv[2]), SIGTERM) != 0) perror("no predecessor");
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  SendNewClientsToSuccessor(listen_fd);
  poll(nullptr, 0, 200);  // handshakes that have begun here end here
  while ((*balancer)->Stats().sources[0].backlog.value_or(0) > 0) poll(nullptr, 0, 1);
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
