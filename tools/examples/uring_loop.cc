// Workers with io_uring loops: the doorbell is one completion among those of a worker's own ring.
//   c++ -std=c++20 uring_loop.cc -o uring_loop $(pkg-config --cflags --libs ringmaster liburing)
//   ./uring_loop 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <liburing.h>
#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <unistd.h>

#include <cstdio>
#include <thread>
#include <unordered_map>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

struct Client {  // one operation is under way: it receives, or sends back what it has received
  ringmaster::Connection connection;
  int sends = 0;  // bytes; 0: it receives
  char bytes[4096];
};

static void Work(ringmaster::Balancer& balancer, ringmaster::Source source) {
  io_uring ring;
  constexpr unsigned kFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (int e = io_uring_queue_init(256, &ring, kFlags)) Must(absl::ErrnoToStatus(-e, "io_uring"));
  std::unordered_map<uint64_t, Client> clients;  // by the user_data of their operations
  const auto start = [&](uint64_t number, int sends) {
    Client& it = clients[number];
    io_uring_sqe* sqe;
    while (!(sqe = io_uring_get_sqe(&ring))) io_uring_submit(&ring);  // the queue was full
    (it.sends = sends) > 0
        ? io_uring_prep_send(sqe, it.connection.fd(), it.bytes, sends, MSG_NOSIGNAL | MSG_WAITALL)
        : io_uring_prep_recv(sqe, it.connection.fd(), it.bytes, sizeof(it.bytes), 0);
    io_uring_sqe_set_data64(sqe, number);
  };
  auto port = balancer.AddWorker({.ring_fd = ring.ring_fd, .tag = 0});
  const absl::Status joined = port.ok() ? source.Join(*port) : port.status();
  if (!joined.ok()) return (void)puts(joined.ToString().c_str());  // maybe it was ended already
  for (uint64_t number = 0; !port->ended() || !clients.empty();) {
    __kernel_timespec quiet{0, 50'000'000}, *patience = port->draining() ? &quiet : nullptr;
    io_uring_cqe* cqe;  // a signal ends the wait early
    const int waited = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, patience, nullptr);
    for (; io_uring_peek_cqe(&ring, &cqe) == 0; io_uring_cqe_seen(&ring, cqe)) {
      if (cqe->user_data == 0)  // the doorbell
        port->Claim([&](ringmaster::Connection claimed) {
          clients[++number].connection = std::move(claimed);
          start(number, 0);
        });
      else if (int& sends = clients[cqe->user_data].sends; cqe->res > 0 && cqe->res >= sends)
        start(cqe->user_data, sends > 0 ? 0 : cqe->res);
      else
        clients.erase(cqe->user_data);  // the client is gone, or does not take its answers
    }
    for (auto& [key, client] : clients)  // after 50 ms of quiet; what has arrived is answered
      if (waited == -ETIME || port->ended())
        shutdown(client.connection.fd(), port->ended() ? SHUT_RDWR : SHUT_RD);
  }
  port->Leave(), io_uring_queue_exit(&ring);
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
  for (std::jthread& worker : workers) worker = std::jthread(Work, std::ref(**balancer), source);
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
