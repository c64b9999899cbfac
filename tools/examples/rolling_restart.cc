// Two generations, one listener: SIGHUP starts the program's file anew and hands the listener over.
// When the successor accepts, it ends this process, which first serves what it has let in.
//   c++ -std=c++20 rolling_restart.cc -o rolling $(pkg-config --cflags --libs ringmaster) -pthread
//   ./rolling 7777     then: nc -d 127.0.0.1 7777; kill -HUP; SIGTERM or Ctrl-C ends it

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <ringmaster/balancer.h>
#include <spawn.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

static int Listen(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(port), {}, {}};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
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

static void StartSuccessor(char** argv, int listen_fd) {
  std::string listener = std::to_string(listen_fd), self = std::to_string(getpid());
  char* const arguments[] = {argv[0], argv[1], listener.data(), self.data(), nullptr};
  posix_spawn_file_actions_t inherit;
  posix_spawn_file_actions_init(&inherit);
  posix_spawn_file_actions_adddup2(&inherit, listen_fd, listen_fd);  // close-on-exec no more
  const int error = posix_spawnp(nullptr, argv[0], &inherit, nullptr, arguments, environ);
  if (error != 0) errno = error, perror("no successor");
  posix_spawn_file_actions_destroy(&inherit);
}

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: %s PORT\n", argv[0]), 2;
  signal(SIGPIPE, SIG_IGN), signal(SIGCHLD, SIG_IGN);  // a successor that fails leaves no zombie
  sigset_t signals;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&signals), sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int listen_fd = argc > 3 ? std::atoi(argv[2]) : Listen(std::atoi(argv[1]));
  fcntl(listen_fd, F_SETFD, FD_CLOEXEC);
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
  if (argc > 3 && getppid() == std::atoi(argv[3])) kill(getppid(), SIGTERM);
  int signal;
  while ((signal = TEMP_FAILURE_RETRY(sigwaitinfo(&signals, nullptr))) == SIGHUP)
    StartSuccessor(argv, listen_fd);
  psignal(signal, "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
