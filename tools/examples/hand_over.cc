// Start it again to replace it: the new generation takes the listener over from the one that runs,
// which then serves what it has let in, and ends. The two need not be parent and child.
//   c++ -std=c++20 hand_over.cc -o hand_over $(pkg-config --cflags --libs ringmaster) -pthread
//   ./hand_over 7777 /tmp/hand-over &     again and again; nc -d 127.0.0.1 7777; kill ends it

#include <netinet/in.h>
#include <poll.h>
#include <ringmaster/balancer.h>
#include <ringmaster/listeners.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

using namespace ringmaster;

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static NamedListener Listen(int port) {
  NamedListener listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int fd = listener.fd(), on = 1;
  const sockaddr_in address = {AF_INET, htons(port), {}, {}};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(fd, (const sockaddr*)&address, sizeof(address)) || listen(fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  return listener;
}

static void Work(Port port, Mailbox mailbox) {
  while (!port.ended()) {
    pollfd bell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
    poll(&bell, 1, -1);  // a signal ends it early
    port.Claim([](Connection connection) {
      dprintf(connection.fd(), "served by process %d\n", getpid());
    });
  }
}

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: %s PORT [PATH]\n", argv[0]), 2;
  const std::string path = argc > 2 ? argv[2] : "/tmp/hand-over-" + std::string(argv[1]);
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&signals), sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  auto taken = TakeOver(path);
  if (absl::IsNotFound(taken.status())) taken = TakenOver();  // nobody serves yet
  Must(taken.status());
  auto& inherited = taken->listeners();
  NamedListener listener = inherited.empty() ? Listen(std::atoi(argv[1])) : std::move(inherited[0]);
  auto balancer = Balancer::Create();
  Must(balancer.status());
  auto source = (*balancer)->AddSource(listener.fd(), {.start_workers = 4}).value();
  std::jthread workers[4];
  for (std::jthread& worker : workers) {
    auto mailbox = Mailbox::Create().value();
    auto port = (*balancer)->AddWorker(mailbox).value();
    Must(source.Join(port));
    worker = std::jthread(Work, std::move(port), std::move(mailbox));
  }
  // From here on there is a moment at which both accept. Then the predecessor ends.
  auto hand_over = HandOver::Serve(path, {{.fd = listener.fd(), .name = "hello"}},
                                   {.on_handed_over = [](pid_t) { kill(getpid(), SIGTERM); }},
                                   *std::move(taken));
  Must(hand_over.status());
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&signals, nullptr)), "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] {
                           (*hand_over)->Stop();
                           listener = NamedListener();  // closes this process's descriptor
                         }});
}
