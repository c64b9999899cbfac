// No thread for the balancer: the io_uring loop of the first worker lends its ring (Host::kRing),
// and the balancer's operations travel with its own. Each client is told who serves it.
//   c++ -std=c++20 hosted_on_ring.cc -o on_ring $(pkg-config --cflags --libs ringmaster liburing)
//   ./on_ring 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <liburing.h>
#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static void Work(ringmaster::Balancer& balancer, ringmaster::Source source, bool hosts) {
  constexpr uint64_t kMasters = uint64_t{1} << 56;  // in the user_data of the balancer's operations
  constexpr unsigned kFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  io_uring ring;
  const int made = io_uring_queue_init(256, &ring, kFlags);
  if (made < 0) Must(absl::ErrnoToStatus(-made, "io_uring_queue_init"));
  absl::Status joined;
  if (hosts)
    joined = balancer.Lend({.ring_fd = ring.ring_fd,
                            .get_sqe = [&ring] { return io_uring_get_sqe(&ring); },
                            .submit = [&ring] { return io_uring_submit(&ring); },
                            .user_data_mask = kMasters,
                            .user_data_value = kMasters});
  if (hosts && joined.ok()) joined = balancer.RunOnce();
  auto port = hosts ? balancer.AddWorker({.on_host = true})
                    : balancer.AddWorker({.ring_fd = ring.ring_fd, .tag = 0});
  if (joined.ok()) joined = port.ok() ? source.Join(*port) : port.status();
  if (!joined.ok()) return (void)puts(joined.ToString().c_str());  // maybe it was ended already
  const auto serve = [&](ringmaster::Connection connection) {
    const std::string text = "served by worker " + std::to_string(port->worker()) + "\n";
    send(connection.fd(), text.data(), text.size(), MSG_NOSIGNAL);
    char unread[4096];  // whoever closes with something unread resets the connection
    while (recv(connection.fd(), unread, sizeof(unread), 0) > 0) continue;
  };
  while (!port->ended()) {
    io_uring_submit_and_wait(&ring, 1);  // a signal ends it early
    for (io_uring_cqe* cqe; io_uring_peek_cqe(&ring, &cqe) == 0; io_uring_cqe_seen(&ring, cqe)) {
      if (hosts && balancer.OnCompletion(*cqe)) continue;
      // Here come this worker's doorbell (0), and operations of its own.
    }
    if (hosts) balancer.RunOnce().IgnoreError();
    while (port->Claim(serve)) continue;
  }
  port->Leave();
  io_uring_queue_exit(&ring);
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
  auto balancer = ringmaster::Balancer::Create({.host = ringmaster::Host::kRing});
  Must(balancer.status());
  auto source = (*balancer)->AddSource(listen_fd, {.start_workers = 4}).value();
  std::jthread workers[4];
  for (std::jthread& worker : workers)
    worker = std::jthread(Work, std::ref(**balancer), source, &worker == workers);
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
