// Workers with coroutines on io_uring loops: who waits for connections is one, so is each client.
//   c++ -std=c++20 coroutine_loop.cc -o server $(pkg-config --cflags --libs ringmaster liburing)
//   ./server 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/adapters/coroutine.h>
#include <ringmaster/balancer.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static thread_local std::set<int> clients;  // of this worker

static ringmaster::Detached Serve(ringmaster::AwaitablePort& port, ringmaster::Connection claimed) {
  const int fd = *clients.insert(claimed.fd()).first;
  char bytes[4096];
  for (int size = 1, sent = size; sent == size;) {
    ringmaster::AwaitableRequest receive{port.Entry()}, send;
    io_uring_prep_recv(receive.sqe, fd, bytes, sizeof(bytes), 0);
    if ((size = co_await receive) <= 0) break;
    io_uring_prep_send(send.sqe = port.Entry(), fd, bytes, size, MSG_NOSIGNAL | MSG_WAITALL);
    sent = co_await send;
  }
  clients.erase(fd);
}

static ringmaster::Detached Accept(ringmaster::AwaitablePort& port) {
  while (auto connection = co_await port.Next()) Serve(port, *std::move(connection));
}

static void Work(ringmaster::Balancer* balancer, ringmaster::Source source) {
  io_uring ring;
  constexpr unsigned kFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (int e = io_uring_queue_init(256, &ring, kFlags)) Must(absl::ErrnoToStatus(-e, "io_uring"));
  auto added = balancer->AddWorker({.ring_fd = ring.ring_fd, .tag = 0});
  const absl::Status joined = added.ok() ? source.Join(*added) : added.status();
  if (!joined.ok()) return (void)puts(joined.ToString().c_str());  // maybe it was ended already
  ringmaster::AwaitablePort port(*std::move(added), ring, 0);
  for (Accept(port); !port.port().ended() || !clients.empty();) {
    __kernel_timespec quiet{0, 50'000'000};
    const int waited = port.Turn(port.port().draining() ? &quiet : nullptr);
    for (const int fd : clients)  // after 50 ms of quiet; what has arrived is answered
      if (waited == -ETIME || port.port().ended())
        shutdown(fd, port.port().ended() ? SHUT_RDWR : SHUT_RD);
  }
  port.Leave(), io_uring_queue_exit(&ring);
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
  ringmaster::SourceOptions options = {.start_workers = 4};
  options.policy = ringmaster::PolicyByName(argc > 2 ? argv[2] : "least-loaded").value();
  auto source = (*balancer)->AddSource(listen_fd, std::move(options)).value();
  std::jthread workers[4];
  for (std::jthread& worker : workers) worker = std::jthread(Work, balancer->get(), source);
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  const auto end = (*balancer)->Shutdown(
      {.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
  for (const auto& it : end.stats.workers) std::printf("worker %u: %lu\n", it.worker, it.claimed);
}
