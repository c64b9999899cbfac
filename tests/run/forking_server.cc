// A server that knows nothing of Ringmaster, in the ways in which real ones accept. It answers each
// line with its process, and with --threads its thread as well.
//
//   forking_server [OPTIONS] PORT...     several ports: several listeners
//     --workers N          4 if it is not said
//     --start HOW          fork: workers inherit the listeners. exec: they are programs that get
//     them
//                          under the same numbers, and call listen themselves. pass: programs that
//                          get them by a Unix socket, under other numbers. threads: with an epoll
//                          set each.
//     --wait CALL          wait, pwait or pwait2 of epoll; poll, ppoll, poll_chk, ppoll_chk, select
//     or
//                          pselect; nothing: accepts and serves one connection after the other
//     --take HOW           one: accepts once for each event. all: until there is no more
//     --edge --exclusive   flags of epoll
//     --again N            takes the listener out of its set and adds it anew after N connections
//     --late-listen        only binds before workers start
//     --blocking           the listener blocks
//     --close-ranges       closes every descriptor above 2 that is not its own, as daemons do
//     --raw-close          closes connections and listeners by the system call
//     --one-name           the same epoll data for all listeners, which are then all tried
//     --once               asks for one event of a listener at a time (EPOLLONESHOT)
//     --sets N             makes and closes so many epoll sets with the listeners first
//     --limit N            sets its limit of descriptors, as su does
//     --clean              starts workers by exec with an empty environment
//     --duplicate          accepts from a duplicate of what it watches (F_DUPFD_CLOEXEC)
//     --handler            first closes duplicates of the listener in a signal handler
//     --leave              workers go to an empty root folder, and then are nobody (root only)
//
// At a `c` a worker starts a thread that waits in accept, and cancels it there.
//
// SIGUSR1 makes a worker start itself anew by exec, as the same process. SIGTERM ends it. SIGHUP
// replaces the workers; the old ones close the listener and serve what they have.

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

struct Options {
  int workers = 4;
  std::string start = "fork";
  std::string wait = "wait";
  bool takes_all = false;
  unsigned flags = 0;
  int again = 0;
  bool late_listen = false;
  bool blocking = false;
  bool close_ranges = false;
  bool raw_close = false;
  bool one_name = false;
  int sets = 0;
  bool once = false;
  bool clean = false;
  bool duplicate = false;
  bool handler = false;
  bool leave = false;
  std::vector<int> ports;
  std::vector<int> listeners;  // in a worker that was started by exec
  int passed_by = -1;
};

volatile sig_atomic_t ends = 0;
volatile sig_atomic_t reloads = 0;
volatile sig_atomic_t renewals = 0;

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::_Exit(1);
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto next = [&] { return std::string(argv[++i]); };
    if (word == "--workers") {
      options.workers = std::stoi(next());
    } else if (word == "--start") {
      options.start = next();
    } else if (word == "--wait") {
      options.wait = next();
    } else if (word == "--take") {
      options.takes_all = next() == "all";
    } else if (word == "--edge") {
      options.flags |= EPOLLET;
    } else if (word == "--exclusive") {
      options.flags |= EPOLLEXCLUSIVE;
    } else if (word == "--again") {
      options.again = std::stoi(next());
    } else if (word == "--late-listen") {
      options.late_listen = true;
    } else if (word == "--blocking") {
      options.blocking = true;
    } else if (word == "--close-ranges") {
      options.close_ranges = true;
    } else if (word == "--raw-close") {
      options.raw_close = true;
    } else if (word == "--one-name") {
      options.one_name = true;
    } else if (word == "--once") {
      options.once = true;
      options.flags |= EPOLLONESHOT;
    } else if (word == "--sets") {
      options.sets = std::stoi(next());
    } else if (word == "--limit") {
      rlimit limit{};
      getrlimit(RLIMIT_NOFILE, &limit);
      limit.rlim_cur = static_cast<rlim_t>(std::stoi(next()));
      setrlimit(RLIMIT_NOFILE, &limit);
    } else if (word == "--clean") {
      options.clean = true;
    } else if (word == "--duplicate") {
      options.duplicate = true;
    } else if (word == "--handler") {
      options.handler = true;
    } else if (word == "--leave") {
      options.leave = true;
    } else if (word == "--listener") {
      options.listeners.push_back(std::stoi(next()));
    } else if (word == "--passed-by") {
      options.passed_by = std::stoi(next());
    } else {
      options.ports.push_back(std::stoi(word));
    }
  }
  return options;
}

int Listen(int port, const Options& options) {
  const int type = SOCK_STREAM | (options.blocking ? 0 : SOCK_NONBLOCK);
  const int fd = socket(AF_INET, type, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Fail("bind");
  if (!options.late_listen && listen(fd, 1024) != 0) Fail("listen");
  return fd;
}

bool Polls(const Options& options) { return options.wait.find("wait") == std::string::npos; }

// The same by calls that are told each time what to wait for.
int Poll(const std::string& how, const std::vector<int>& watched, epoll_event* events) {
  int found = 0;
  const auto find = [&](int fd) {
    events[found] = {};
    events[found++].data.fd = fd;
  };
  if (how == "select") {
    fd_set reads;
    FD_ZERO(&reads);
    for (const int fd : watched) FD_SET(fd, &reads);
    const int below = *std::max_element(watched.begin(), watched.end()) + 1;
    const int came = select(below, &reads, nullptr, nullptr, nullptr);
    if (came < 0) return came;
    for (const int fd : watched) {
      if (FD_ISSET(fd, &reads) && found < 64) find(fd);
    }
    return found;
  }
  std::vector<pollfd> fds;
  for (const int fd : watched) fds.push_back({fd, POLLIN, 0});
  const int came = poll(fds.data(), fds.size(), -1);
  if (came < 0) return came;
  for (size_t i = 0; i < fds.size(); ++i) {
    if (fds[i].revents != 0 && found < 64) find(watched[i]);
  }
  return found;
}

int Wait(const Options& options, int set, const std::vector<int>& watched, epoll_event* events,
         int count) {
  if (Polls(options)) return Poll(options.wait, watched, events);
  if (options.wait == "pwait") return epoll_pwait(set, events, count, -1, nullptr);
  if (options.wait == "pwait2") return epoll_pwait2(set, events, count, nullptr, nullptr);
  return epoll_wait(set, events, count, -1);
}

void Close(const Options& options, int fd) {
  if (options.raw_close) {
    syscall(SYS_close, fd);
  } else {
    close(fd);
  }
}

[[noreturn]] void Renew(const Options& options, const std::vector<int>& listeners) {
  std::vector<std::string> words = {"forking_server", "--wait", options.wait, "--take",
                                    options.takes_all ? "all" : "one"};
  for (const int fd : listeners) {
    fcntl(fd, F_SETFD, 0);
    words.insert(words.end(), {"--listener", std::to_string(fd)});
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv("/proc/self/exe", arguments.data());
  Fail("execv");
}

// A thread waits in accept, and is cancelled there. The listener blocks.
void CancelInAccept(int listener) {
  std::thread accepts([listener] {
    const int client = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client >= 0) close(client);
  });
  // Until it sleeps. If it was woken for a connection, that one is closed.
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  pthread_cancel(accepts.native_handle());
  accepts.join();
}

volatile sig_atomic_t handled = 0;
volatile sig_atomic_t duplicated = -1;

// The handler interrupts this thread at all kinds of places, in epoll_ctl above all, and closes
// what it is about.
void CloseInHandler(int set, int listener) {
  struct sigaction action {};
  action.sa_handler = [](int) {
    if (duplicated < 0) return;
    close(duplicated);
    duplicated = -1;
    handled = handled + 1;
  };
  sigaction(SIGALRM, &action, nullptr);
  const itimerval often{{0, 50}, {0, 50}};
  const itimerval never{};
  setitimer(ITIMER_REAL, &often, nullptr);
  while (handled < 300) {
    const int fd = dup(listener);
    duplicated = fd;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    while (duplicated >= 0) {
      epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
      epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr);
    }
  }
  setitimer(ITIMER_REAL, &never, nullptr);
}

// Serves one connection after the other, and never waits for events.
void ServeInTurn(const Options& options, int listener) {
  const std::string who = std::to_string(getpid()) + "\n";
  while (ends == 0) {
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0 && errno == EAGAIN) {
      pollfd ready{listener, POLLIN, 0};
      poll(&ready, 1, -1);
    }
    if (client < 0) continue;
    char text[1024];
    while (recv(client, text, sizeof(text), 0) > 0)
      send(client, who.data(), who.size(), MSG_NOSIGNAL);
    Close(options, client);
  }
}

void LeaveRoot() {
  char folder[] = "/tmp/forking-server-XXXXXX";
  if (mkdtemp(folder) == nullptr || chdir(folder) != 0 || rmdir(folder) != 0 || chroot(".") != 0) {
    Fail("chroot");
  }
  if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0) Fail("setuid");
}

void Serve(const Options& options, const std::vector<int>& listeners) {
  if (options.leave) LeaveRoot();
  if (options.wait == "nothing") return ServeInTurn(options, listeners[0]);
  int set = epoll_create1(EPOLL_CLOEXEC);
  std::vector<int> watched;
  const auto control = [&](int op, int fd, unsigned flags) {
    if (Polls(options)) {
      if (op == EPOLL_CTL_ADD) watched.push_back(fd);
      return;
    }
    const bool listens = std::find(listeners.begin(), listeners.end(), fd) != listeners.end();
    epoll_event event{};
    event.events = EPOLLIN | flags;
    event.data.fd = listens && options.one_name ? listeners[0] : fd;
    if (epoll_ctl(set, op, fd, &event) != 0) Fail("epoll_ctl");
  };
  const auto remove = [&](int fd) {
    epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr);
    watched.erase(std::remove(watched.begin(), watched.end(), fd), watched.end());
  };
  const auto add = [&](int fd, unsigned flags) { control(EPOLL_CTL_ADD, fd, flags); };
  for (int i = 0; i < options.sets; ++i) {
    for (const int listener : listeners) add(listener, options.flags);
    close(set);
    set = epoll_create1(EPOLL_CLOEXEC);
  }
  if (options.handler) CloseInHandler(set, listeners[0]);
  for (const int listener : listeners) {
    if (options.late_listen && listen(listener, 1024) != 0) Fail("listen");
    add(listener, options.flags);
  }
  const int duplicate = options.duplicate ? fcntl(listeners[0], F_DUPFD_CLOEXEC, 100) : -1;
  int accepted = 0;
  int open = 0;
  bool listens = true;
  std::string who = std::to_string(getpid());
  if (options.start == "threads") who += ":" + std::to_string(syscall(SYS_gettid));
  who += "\n";
  while (ends == 0 || open > 0) {
    if (ends != 0 && listens) {
      listens = false;
      for (const int listener : listeners) {
        remove(listener);
        Close(options, listener);
      }
      if (open == 0) break;
    }
    if (renewals != 0) Renew(options, listeners);
    epoll_event events[64];
    const int count = Wait(options, set, watched, events, 64);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (std::find(listeners.begin(), listeners.end(), fd) != listeners.end()) {
        if (!listens) continue;
        if (!Polls(options) &&
            (epoll_ctl(set, EPOLL_CTL_ADD, fd, &events[i]) == 0 || errno != EEXIST)) {
          Fail("what is watched can be added");
        }
        for (const int listener : listeners) {
          if (listener != fd && !options.one_name) continue;
          do {
            const int client = accept4(options.duplicate ? duplicate : listener, nullptr, nullptr,
                                       SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (client < 0) break;
            ++open;
            add(client, 0);
            if (options.again > 0 && ++accepted % options.again == 0) {
              epoll_ctl(set, EPOLL_CTL_DEL, listener, nullptr);
              add(listener, options.flags);
            }
          } while (options.takes_all);
          if (options.once) control(EPOLL_CTL_MOD, listener, options.flags);
        }
        continue;
      }
      char text[1024];
      const ssize_t length = recv(fd, text, sizeof(text), 0);
      if (length <= 0 && errno == EAGAIN && length != 0) continue;
      if (length <= 0) {
        remove(fd);
        Close(options, fd);
        --open;
        continue;
      }
      for (ssize_t at = 0; at < length; ++at) {
        if (text[at] == 'c') CancelInAccept(listeners[0]);
        if (text[at] == '\n') send(fd, who.data(), who.size(), MSG_NOSIGNAL);
      }
    }
  }
}

void CatchSignals() {
  struct sigaction action {};
  action.sa_handler = [](int signal) {
    (signal == SIGHUP ? reloads : signal == SIGUSR1 ? renewals : ends) = 1;
  };
  sigaction(SIGUSR1, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void CloseRanges(const std::vector<int>& listeners) {
  // A range behind what it needs, and each one up to the limit.
  close_range(static_cast<unsigned>(*std::max_element(listeners.begin(), listeners.end())) + 1, ~0U,
              0);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  for (int fd = 3; fd < static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 16)); ++fd) {
    if (std::find(listeners.begin(), listeners.end(), fd) == listeners.end()) close(fd);
  }
}

std::vector<int> ReceiveListeners(int socket) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 16)];
  char byte = 0;
  iovec in{&byte, 1};
  msghdr message{};
  message.msg_iov = &in;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (recvmsg(socket, &message, 0) != 1) Fail("recvmsg");
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  std::vector<int> listeners((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  std::memcpy(listeners.data(), CMSG_DATA(header), listeners.size() * sizeof(int));
  return listeners;
}

pid_t StartByExec(const Options& options, char** argv, const std::vector<int>& listeners) {
  std::vector<std::string> words = {argv[0], "--wait", options.wait, "--take",
                                    options.takes_all ? "all" : "one"};
  if (options.late_listen) words.emplace_back("--late-listen");
  int pair[2] = {-1, -1};
  if (options.start == "pass") {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) Fail("socketpair");
    words.insert(words.end(), {"--passed-by", std::to_string(pair[1])});
  } else {
    for (const int fd : listeners) {
      fcntl(fd, F_SETFD, 0);
      words.insert(words.end(), {"--listener", std::to_string(fd)});
    }
  }
  const pid_t pid = vfork();
  if (pid == 0) {
    if (options.close_ranges) close_range(100, ~0U, 0);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    char* nothing[] = {nullptr};
    execve("/proc/self/exe", arguments.data(), options.clean ? nothing : environ);
    _exit(127);
  }
  if (options.start != "pass") return pid;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 16)] = {};
  char byte = 0;
  iovec out{&byte, 1};
  msghdr message{};
  message.msg_iov = &out;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * listeners.size());
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * listeners.size());
  std::memcpy(CMSG_DATA(header), listeners.data(), listeners.size() * sizeof(int));
  if (sendmsg(pair[0], &message, 0) != 1) Fail("sendmsg");
  close(pair[0]);
  close(pair[1]);
  return pid;
}

int Main(int argc, char** argv) {
  Options options = Parse(argc, argv);
  CatchSignals();
  if (!options.listeners.empty() || options.passed_by >= 0) {
    Serve(options,
          options.passed_by >= 0 ? ReceiveListeners(options.passed_by) : options.listeners);
    return 0;
  }
  std::vector<int> listeners;
  for (const int port : options.ports) listeners.push_back(Listen(port, options));
  if (options.start == "threads") {
    std::vector<std::thread> threads;
    for (int i = 1; i < options.workers; ++i) {
      threads.emplace_back([&] { Serve(options, listeners); });
      threads.back().detach();
    }
    Serve(options, listeners);
    std::_Exit(0);
  }
  std::vector<pid_t> workers;
  const auto start = [&] {
    for (int i = 0; i < options.workers; ++i) {
      if (options.start != "fork") {
        workers.push_back(StartByExec(options, argv, listeners));
        continue;
      }
      const pid_t pid = fork();
      if (pid == 0) {
        if (options.close_ranges) CloseRanges(listeners);
        Serve(options, listeners);
        std::_Exit(0);
      }
      workers.push_back(pid);
    }
  };
  start();
  std::printf("started\n");
  std::fflush(stdout);
  while (ends == 0) {
    int status = 0;
    const pid_t gone = wait(&status);
    if (gone > 0) {
      const auto it = std::find(workers.begin(), workers.end(), gone);
      if (it != workers.end()) {
        workers.erase(it);
        // One that has died is replaced.
        if (ends == 0 && WIFSIGNALED(status)) {
          const int wanted = std::exchange(options.workers, 1);
          start();
          options.workers = wanted;
        }
      }
    }
    if (gone < 0 && errno == ECHILD) break;
    if (std::exchange(reloads, 0) != 0) {
      const std::vector<pid_t> old = std::exchange(workers, {});
      start();
      for (const pid_t pid : old) kill(pid, SIGTERM);
    }
  }
  for (const int listener : listeners) close(listener);
  for (const pid_t pid : workers) kill(pid, SIGTERM);
  while (wait(nullptr) > 0 || errno == EINTR) continue;
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return Main(argc, argv); }
