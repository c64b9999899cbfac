// Workers with Asio: each waits for its mailbox beside the sockets of its connections.
//   c++ -std=c++20 asio_loop.cc -o asio_loop $(pkg-config --cflags --libs ringmaster) -pthread
//   ./asio_loop 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/adapters/asio.h>
#include <unistd.h>

#include <asio.hpp>
#include <csignal>
#include <cstdio>
#include <list>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

using Socket = asio::ip::tcp::socket;
struct Client {
  ringmaster::Lease lease;  // ends when the socket is closed
  Socket socket;
  char bytes[4096];
};

static void Echo(std::list<Client>& clients, std::list<Client>::iterator it) {
  it->socket.async_read_some(asio::buffer(it->bytes), [&, it](asio::error_code end, size_t size) {
    if (end) return (void)clients.erase(it);
    const auto next = [&, it](auto e, size_t) { e ? (void)clients.erase(it) : Echo(clients, it); };
    asio::async_write(it->socket, asio::buffer(it->bytes, size), next);
  });
}

static void Work(ringmaster::Balancer* balancer, ringmaster::Source source) {
  asio::io_context context(1);
  std::list<Client> clients;
  asio::steady_timer quiet(context);
  asio::error_code ignored;
  const auto shut = [&](auto how) {
    for (Client& client : clients) client.socket.shutdown(how, ignored);
  };
  ringmaster::WorkerHandlers handlers;
  handlers.serve = [&](ringmaster::Connection claimed) {
    const auto it = clients.insert(clients.end(), Client{{}, Socket(context), {}});
    it->lease = ringmaster::AssignTo(it->socket, asio::ip::tcp::v4(), std::move(claimed));
    Echo(clients, it);
  };
  handlers.drain = [&] {  // what has arrived is answered, then a read tells of the end
    quiet.expires_after(std::chrono::milliseconds(50));
    quiet.async_wait([&](auto cancelled) { cancelled ? void() : shut(Socket::shutdown_receive); });
  };
  handlers.end = [&] { quiet.cancel(), shut(Socket::shutdown_both); };
  auto worker = ringmaster::AsioWorker::Create(context, *balancer, std::move(handlers));
  const absl::Status joined = worker.ok() ? source.Join(worker->port()) : worker.status();
  if (!joined.ok()) return (void)puts(joined.ToString().c_str());  // maybe it was ended already
  worker->Run();  // until the balancer has ended, and every client is gone
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
