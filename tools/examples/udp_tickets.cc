// UDP: one socket, several workers, and for each burst of datagrams a ticket for one of them. The
// worker that has it receives until nothing is left, or gives it back after some for the others.
//   c++ -std=c++20 udp_tickets.cc -o udp_tickets $(pkg-config --cflags --libs ringmaster) -pthread
//   ./udp_tickets 7777     then: nc -u 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <poll.h>
#include <ringmaster/balancer.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static void Serve(const ringmaster::Ticket& ticket, uint32_t worker) {
  for (int i = 0; i < 64; ++i) {
    char bytes[65536];
    sockaddr_storage peer;
    socklen_t peer_size = sizeof(peer);
    const ssize_t size =
        recvfrom(ticket.fd(), bytes, sizeof(bytes), 0, (sockaddr*)&peer, &peer_size);
    if (size < 0 && (errno == EINTR || errno == ECONNREFUSED)) continue;  // of an answer before
    if (size < 0) return ticket.Again(errno);                             // EAGAIN: nothing is left
    const std::string answer = "worker " + std::to_string(worker) + ": " + std::string(bytes, size);
    sendto(ticket.fd(), answer.data(), answer.size(), 0, (const sockaddr*)&peer, peer_size);
  }
  ticket.Again();
}

static void Work(ringmaster::Port port, ringmaster::Mailbox mailbox) {
  while (!port.ended()) {
    pollfd bell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
    poll(&bell, 1, -1);  // a signal ends it early
    port.Claim([](ringmaster::Connection) {},
               [&](ringmaster::Ticket ticket) { Serve(ticket, port.worker()); });
  }
}

int main(int argc, char** argv) {
  sigset_t ends;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&ends), sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  const int udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  // Without SO_REUSEADDR: of datagram sockets it would let a second server take the port away.
  const sockaddr_in address = {AF_INET, htons(argc > 1 ? std::atoi(argv[1]) : 7777), {}, {}};
  if (udp_fd < 0 || bind(udp_fd, (const sockaddr*)&address, sizeof(address)))
    Must(absl::ErrnoToStatus(errno, "cannot bind to the port"));
  auto balancer = ringmaster::Balancer::Create();
  Must(balancer.status());
  auto source = (*balancer)
                    ->AddSource(udp_fd, {.policy = ringmaster::RoundRobin(),
                                         .intake = ringmaster::Intake::kReadiness,
                                         .start_workers = 4})
                    .value();
  std::jthread workers[4];
  for (std::jthread& worker : workers) {
    auto mailbox = ringmaster::Mailbox::Create().value();
    auto port = (*balancer)->AddWorker(mailbox).value();
    Must(source.Join(port));
    worker = std::jthread(Work, std::move(port), std::move(mailbox));
  }
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no more datagrams because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(udp_fd); }});
}
