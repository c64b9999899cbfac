// A policy of one's own: the clients of a range of addresses belong to worker 0, and to nobody
// else. While it is busy they wait. All others go to the least loaded of the other workers.
//   c++ -std=c++20 own_policy.cc -o own_policy $(pkg-config --cflags --libs ringmaster) -pthread
//   ./own_policy 7777 127.0.1.0 127.0.1.255     Ctrl-C or SIGTERM ends it
//   nc -d -s 127.0.1.9 127.0.0.1 7777     is served by worker 0

#include <arpa/inet.h>
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

struct ByRange final : ringmaster::Policy {
  ByRange(const char* first, const char* last)
      : first_(ntohl(inet_addr(first))), last_(ntohl(inet_addr(last))) {}
  std::string name() const override { return "by-range"; }
  ringmaster::FactsNeeded facts() const override { return {.peer = true}; }
  size_t Pick(const ringmaster::Arrival& arrival, const ringmaster::View& view) override {
    uint32_t client = 0;
    if (arrival.peer.kind == ringmaster::Peer::Kind::kIpv4)
      std::memcpy(&client, arrival.peer.address.data(), sizeof(client));
    const bool inside = first_ <= ntohl(client) && ntohl(client) <= last_;
    size_t best = kNobodyNow;
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      const ringmaster::Candidate& it = view.candidates[i];
      if ((it.worker == 0) != inside) continue;
      if (best == kNobodyNow || it.open < view.candidates[best].open) best = i;
    }
    return best;
  }
  const uint32_t first_, last_;
};

static void Work(ringmaster::Port port, ringmaster::Mailbox mailbox) {
  while (!port.ended()) {
    pollfd bell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
    poll(&bell, 1, -1);  // a signal ends it early
    port.Claim([&](ringmaster::Connection connection) {
      dprintf(connection.fd(), "served by worker %u\n", port.worker());
    });
  }
}

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: %s PORT FIRST LAST\n", argv[0]), 2;
  signal(SIGPIPE, SIG_IGN);
  sigset_t ends;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&ends), sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  const int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(std::atoi(argv[1])), {}, {}};
  if (listen_fd < 0 || setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(listen_fd, (const sockaddr*)&address, sizeof(address)) || listen(listen_fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  auto balancer = ringmaster::Balancer::Create();
  Must(balancer.status());
  auto policy = std::make_unique<ByRange>(argv[2], argv[3]);
  auto source =
      (*balancer)->AddSource(listen_fd, {.policy = std::move(policy), .start_workers = 4}).value();
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
