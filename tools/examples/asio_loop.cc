// Workers with Asio: each waits for its mailbox beside the sockets of its connections.
//   c++ -std=c++20 asio_loop.cc -o asio_loop $(pkg-config --cflags --libs ringmaster) -pthread
//   ./asio_loop 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <unistd.h>

#include <asio.hpp>
#include <csignal>
#include <cstdio>
#include <functional>
#include <list>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

struct Client {
  ringmaster::Lease lease;  // ends when the socket is closed
  asio::ip::tcp::socket socket;
  char bytes[4096];
};
using Clients = std::list<Client>;

static void Echo(Clients& clients, Clients::iterator it) {
  it->socket.async_read_some(asio::buffer(it->bytes), [&, it](asio::error_code end, size_t size) {
    if (end) return (void)clients.erase(it);
    const auto next = [&, it](auto e, size_t) { e ? (void)clients.erase(it) : Echo(clients, it); };
    asio::async_write(it->socket, asio::buffer(it->bytes, size), next);
  });
}

static void Work(ringmaster::Port port, ringmaster::Mailbox mailbox) {
  asio::io_context context;
  asio::posix::stream_descriptor bell(context, mailbox.fd());
  Clients clients;
  const std::function<void(asio::error_code)> on_bell = [&](asio::error_code) {
    port.Claim([&](ringmaster::Connection claimed) {
      asio::ip::tcp::socket socket(context, asio::ip::tcp::v4(), claimed.TakeFd());
      clients.push_front({claimed.TakeLease(), std::move(socket), {}});
      Echo(clients, clients.begin());
    });
    bell.async_wait(bell.wait_read, on_bell);
  };
  bell.async_wait(bell.wait_read, on_bell);
  while (!port.ended()) {
    const bool quiet = context.run_one_for(std::chrono::milliseconds(50)) == 0;
    asio::error_code ignored;
    for (Client& client : clients)  // what has arrived is answered, then a read tells of the end
      if (quiet && port.draining()) client.socket.shutdown(client.socket.shutdown_receive, ignored);
  }
  bell.release();  // the mailbox closes it
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
