#include "run/keeper.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "processes/desk.h"
#include "run/kernel.h"

namespace ringmaster::run {
namespace {

using processes::kNone;
using processes::kSightsMax;
using processes::kSourcesMax;
using processes::kWorkersMax;
using processes::Mode;
using processes::Pair;
using processes::Source;
using processes::Worker;

// While connections come, a look for sources that do not move; and after so long without one the
// next connection wakes the keeper instead.
constexpr int64_t kLookMs = 5;
constexpr int64_t kQuietMs = 1'000;
// A worker that was marked because the machine was busy may sleep on without being asked again. So
// a mark ends by itself; the next one lasts twice as long if it comes soon.
constexpr int64_t kMarkMs = 50;
constexpr int64_t kMarkMsMax = 5'000;
// So long a process may take between meeting a listener and watching it.
constexpr int64_t kMeetMs = 2'000;

// Signals that are the server's.
constexpr std::array<int, 12> kPassedOn = {SIGTERM,  SIGINT,  SIGHUP,  SIGQUIT, SIGUSR1, SIGUSR2,
                                           SIGWINCH, SIGTTIN, SIGTTOU, SIGALRM, SIGCONT, SIGTSTP};

enum class Tag : uint64_t { kSocket, kBell, kSignals, kProcess, kListener };
uint64_t Tagged(Tag tag, uint64_t number = 0) { return static_cast<uint64_t>(tag) << 32 | number; }

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000 + now.tv_nsec / 1'000'000;
}

pid_t PidOf(uint64_t owner) { return static_cast<pid_t>(owner >> 32); }

absl::Status Failed(const char* what) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what));
}

std::string AddressOf(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "";
  return std::string(reinterpret_cast<const char*>(&address), length);
}

}  // namespace

Keeper::Keeper(Options options) : options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<Keeper>> Keeper::Create(Options options) {
  std::unique_ptr<Keeper> keeper(new Keeper(std::move(options)));
  if (absl::Status status = keeper->SetUp(); !status.ok()) return status;
  return keeper;
}

Keeper::~Keeper() {
  for (const auto& [pid, fd] : processes_) close(fd);
  for (const int fd : {epoll_fd_, socket_, signals_, life_}) {
    if (fd >= 0) close(fd);
  }
  if (memory_ != nullptr) munmap(memory_, sizeof(*memory_));
  for (int i = 0; numbers_.first >= 0 && i < Numbers::kCount; ++i) close(numbers_.first + i);
}

absl::Status Keeper::SetUp() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return Failed("ask for the limit of descriptors");
  const auto descriptors_max = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 65'536));
  if (descriptors_max < 2 * Numbers::kCount) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a process may have ", descriptors_max, " descriptors, and ", Numbers::kCount,
                     " are needed beside the server's own: raise the limit (ulimit -n 1024)"));
  }
  numbers_.first = descriptors_max - Numbers::kCount;

  // Moves a new descriptor to the number that all processes have it under.
  const auto place = [](int fd, int number) {
    if (fd < 0) return false;
    const bool placed = dup3(fd, number, O_CLOEXEC) >= 0;
    close(fd);
    return placed;
  };
  const int memory = memfd_create("ringmaster-run", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0 || ftruncate(memory, sizeof(Memory)) != 0 ||
      fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
      !place(memory, numbers_.Memory())) {
    return Failed("make the memory that the processes share");
  }
  void* const mapped =
      mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED, numbers_.Memory(), 0);
  if (mapped == MAP_FAILED) return Failed("map the memory that the processes share");
  memory_ = new (mapped) Memory{.policy = options_.policy};
  std::array<int, 2> life{-1, -1};
  if (pipe2(life.data(), O_CLOEXEC) != 0 || !place(life[0], numbers_.Keeper())) {
    return Failed("make a pipe");
  }
  life_ = life[1];
  if (!place(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), numbers_.Bell()))
    return Failed("make an eventfd");
  for (uint32_t i = 0; i < kSightsMax; ++i) {
    if (!place(epoll_create1(EPOLL_CLOEXEC), numbers_.Sight(i))) return Failed("make an epoll set");
    epoll_event hangs_up{.events = EPOLLHUP, .data = {.u64 = 0}};
    if (epoll_ctl(numbers_.Sight(i), EPOLL_CTL_ADD, numbers_.Keeper(), &hangs_up) != 0) {
      return Failed("watch a pipe");
    }
  }

  std::array<uint64_t, 2> random{};
  if (getrandom(random.data(), sizeof(random), 0) != sizeof(random))
    return Failed("get random bytes");
  secret_ = random[0];
  const std::string name = absl::StrFormat("ringmaster-run-%d-%08x", getpid(), random[1] >> 32);
  variable_ = absl::StrFormat("%s:%x:%d", name, secret_, numbers_.first);
  socket_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address{.sun_family = AF_UNIX};
  std::copy(name.begin(), name.end(), address.sun_path + 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (socket_ < 0 || bind(socket_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(socket_, 128) != 0) {
    return Failed("make the socket where processes ask");
  }

  sigset_t taken;
  sigemptyset(&taken);
  sigaddset(&taken, SIGCHLD);
  for (const int signal : kPassedOn) sigaddset(&taken, signal);
  if (sigprocmask(SIG_BLOCK, &taken, nullptr) != 0) return Failed("block signals");
  signals_ = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (signals_ < 0 || epoll_fd_ < 0) return Failed("watch for signals");
  // So that a server which goes into the background stays ours.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Watch(socket_, Tagged(Tag::kSocket));
  Watch(numbers_.Bell(), Tagged(Tag::kBell));
  Watch(signals_, Tagged(Tag::kSignals));
  return absl::OkStatus();
}

void Keeper::Watch(int fd, uint64_t tag) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = tag}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
}

void Keeper::Unwatch(int fd) { epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr); }

void Keeper::Remark(std::string text) {
  if (std::find(remarks_.begin(), remarks_.end(), text) == remarks_.end()) {
    std::fprintf(stderr, "ringmaster-run: %s\n", text.c_str());
    remarks_.push_back(std::move(text));
  }
}

// --- Answers -------------------------------------------------------------------------------------

// One request, one answer. Whoever asks has sent already, or is left alone: nobody can hold the
// keeper up.
void Keeper::Answer(int socket) {
  const int fd = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) return;
  timeval patience{.tv_sec = 0, .tv_usec = 200'000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  Request request;
  iovec in{.iov_base = &request, .iov_len = sizeof(request)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * (kSightsMax + 3))> control{};
  msghdr message{.msg_iov = &in,
                 .msg_iovlen = 1,
                 .msg_control = control.data(),
                 .msg_controllen = CMSG_SPACE(sizeof(int))};
  const ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  int came = -1;
  cmsghdr* header = length < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    std::memcpy(&came, CMSG_DATA(header), sizeof(came));
  }
  run::Answer answer;
  std::vector<int> brings;
  if (length != static_cast<ssize_t>(sizeof(request)) || request.magic != Request::kMagic ||
      request.secret != secret_) {
    answer.error = EPERM;
  } else if (request.kind == Request::Kind::kHello) {
    ++hellos_;
    // What the process was before has ended with exec, though its number lives on.
    ucred peer{};
    socklen_t peer_length = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_length) == 0) Died(peer.pid);
    brings = {numbers_.Memory(), numbers_.Bell(), numbers_.Keeper()};
    for (uint32_t i = 0; i < kSightsMax; ++i) brings.push_back(numbers_.Sight(i));
  } else if (request.kind == Request::Kind::kListener && came >= 0) {
    answer.source = AddListener(came);
    if (answer.source == kNone) answer.error = ENOSPC;
  } else {
    answer.error = EINVAL;
  }
  iovec out{.iov_base = &answer, .iov_len = sizeof(answer)};
  message = {.msg_iov = &out, .msg_iovlen = 1};
  if (!brings.empty()) {
    const size_t bytes = brings.size() * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(bytes);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(header), brings.data(), bytes);
  }
  [[maybe_unused]] const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  if (came >= 0) close(came);
  close(fd);
}

uint32_t Keeper::AddListener(int fd) {
  uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  int listens = 0;
  socklen_t listens_length = sizeof(listens);
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0 || cookie == 0 ||
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_length) != 0 || listens == 0) {
    return kNone;
  }
  uint32_t free = kNone;
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    const Source& source = area().sources[i];
    const bool is_free = source.mode.load() == Mode::kFree;
    if (!is_free && source.cookie.load() == cookie) return i;  // another process was faster
    if (is_free && free == kNone) free = i;
    if (!is_free && AddressOf(numbers_.Listener(i)) == AddressOf(fd)) {
      Remark(
          "workers have a listener each at the same address (SO_REUSEPORT), so the kernel decides "
          "between them and no policy is asked: switch that off in the server (nginx: no "
          "\"reuseport\"; gunicorn: no --reuse-port; Apache: no ListenCoresBucketsRatio)");
    }
  }
  if (free == kNone) {
    Remark(absl::StrCat("the server has more than ", kSourcesMax,
                        " listeners: the others go on as without us"));
    return kNone;
  }
  if (dup3(fd, numbers_.Listener(free), O_CLOEXEC) < 0) return kNone;
  Source& source = area().sources[free];
  source.joined.store(0);
  source.hungry.store(0);
  for (std::atomic<uint64_t>& word : source.memory) word.store(0);
  source.cookie.store(cookie);
  source.mode.store(Mode::kPlain);
  motions_[free] = {.met_at_ms = NowMs()};
  return free;
}

// --- Workers -------------------------------------------------------------------------------------

// The bell has rung: workers have come or gone, or no longer have a listener.
void Keeper::LookForChanges() {
  uint64_t rung = 0;
  [[maybe_unused]] const ssize_t taken = read(numbers_.Bell(), &rung, sizeof(rung));
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    const uint64_t owner = area().workers[i].owner.load();
    if (owner == known_[i].owner) continue;
    known_[i] = {.owner = owner, .report = reports_.size()};
    if (owner == 0) continue;
    const pid_t pid = PidOf(owner);
    reports_.push_back({.pid = pid, .lives = true});
    if (processes_.contains(pid)) continue;
    const auto fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (fd < 0) {
      Died(pid);
      continue;
    }
    processes_.emplace(pid, fd);
    Watch(fd, Tagged(Tag::kProcess, static_cast<uint32_t>(pid)));
  }
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    Source& source = area().sources[i];
    if (source.mode.load() == Mode::kFree) continue;
    if (source.mode.load() == Mode::kLeft && !std::exchange(motions_[i].abandoned, true)) {
      Abandon(i);
    }
    const auto has = [&] {
      return std::any_of(area().workers.begin(), area().workers.end(),
                         [&](const Worker& it) { return it.of_source[i].has.load() != 0; });
    };
    if (has()) {
      motions_[i].was_had = true;
      continue;
    }
    // Whoever has just met it says so soon.
    if (!motions_[i].was_had && NowMs() - motions_[i].met_at_ms < kMeetMs) continue;
    // Nobody has it any more, so its clients are to be refused. A process that meets it at this
    // moment says that it has it, and then looks whether it is still there.
    const Mode before = source.mode.exchange(Mode::kFree);
    if (has()) {
      source.mode.store(before);
      continue;
    }
    source.cookie.store(0);
    EpollKernel(numbers_, i).HideFromAll();
    if (std::exchange(motions_[i].quiet, false)) Unwatch(numbers_.Listener(i));
    close(numbers_.Listener(i));
  }
}

void Keeper::Died(pid_t pid) {
  const auto process = processes_.find(pid);
  if (process != processes_.end()) {
    Unwatch(process->second);
    close(process->second);
    processes_.erase(process);
  }
  std::vector<uint32_t> gone;
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    Worker& worker = area().workers[i];
    if (worker.owner.load() == 0 || PidOf(worker.owner.load()) != pid) continue;
    gone.push_back(i);
    WorkerReport& report = reports_[std::min(known_[i].report, reports_.size() - 1)];
    report.accepted = worker.accepted.load();
    report.lives = false;
    for (Source& source : area().sources) source.joined.fetch_and(~(uint64_t{1} << i));
    for (Pair& pair : worker.of_source) pair.permits.Clear();
    worker.waits.store(0);
    worker.open.store(0);
  }
  // Rule "dead": first everything is renewed, whoever held a desk; then the numbers are free again.
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    if (area().sources[i].mode.load() == Mode::kAimed) Repair(i);
  }
  for (const uint32_t worker : gone) FreeWorker(worker);
  if (!gone.empty()) LookForChanges();
}

void Keeper::FreeWorker(uint32_t index) {
  Worker& worker = area().workers[index];
  for (Pair& pair : worker.of_source) {
    const uint32_t sight = pair.sight.exchange(kNone);
    if (sight < kSightsMax) area().sights.fetch_and(~(uint64_t{1} << sight));
    pair.permits.Clear();
    pair.permits.Reset();
    pair.shown.store(0);
    pair.has.store(0);
  }
  worker.open.store(0);
  worker.marked.store(0);
  worker.accepted.store(0);
  worker.cpu.store(-1);
  known_[index] = {};
  worker.owner.store(0);
}

// --- Sources -------------------------------------------------------------------------------------

void Keeper::Repair(uint32_t source) {
  if (options_.prepared == nullptr) return;
  EpollKernel kernel(numbers_, source);
  processes::Desk desk(area(), source, kNone, *options_.prepared, kernel);
  if (!desk.Repair() && !std::exchange(motions_[source].abandoned, true)) Abandon(source);
}

void Keeper::Abandon(uint32_t source) {
  if (options_.prepared == nullptr) return;
  EpollKernel kernel(numbers_, source);
  processes::Desk(area(), source, kNone, *options_.prepared, kernel).Abandon();
  const bool workers_full =
      std::all_of(area().workers.begin(), area().workers.end(),
                  [](const Worker& worker) { return worker.owner.load() != 0; });
  if (workers_full || ~area().sights.load() == 0) {
    Remark(absl::StrCat("the server has more than ", kWorkersMax,
                        " workers (for several listeners each counts several times), which is "
                        "too many: the kernel decides between them"));
  } else {
    Remark("a listener could not be watched as it is needed: its connections go on as without us");
  }
}

int Keeper::LookAfterSources(int64_t now_ms) {
  bool looks = false;
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    Worker& worker = area().workers[i];
    if (worker.marked.load() != 0 && now_ms >= marks_[i].ends_at_ms) worker.marked.store(0);
  }
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    if (area().sources[i].mode.load() != Mode::kAimed) continue;
    Motion& motion = motions_[i];
    uint64_t accepted = 0;
    for (const Worker& worker : area().workers) accepted += worker.of_source[i].permits.accepted();
    const int waiting = EpollKernel(numbers_, i).Waiting();
    const bool moved = accepted != motion.accepted;
    motion.accepted = accepted;
    if (moved || waiting > 0) motion.moved_at_ms = now_ms;
    if (motion.waited && waiting > 0 && !moved) {
      // Rule "frozen".
      for (uint32_t index = 0; index < kWorkersMax; ++index) {
        Worker& worker = area().workers[index];
        if (worker.of_source[i].permits.Read().out() == 0) continue;
        Mark& mark = marks_[index];
        mark.lasts_ms =
            now_ms < mark.forgotten_at_ms ? std::min(2 * mark.lasts_ms, kMarkMsMax) : kMarkMs;
        mark.ends_at_ms = now_ms + mark.lasts_ms;
        mark.forgotten_at_ms = mark.ends_at_ms + 2 * mark.lasts_ms;
        worker.marked.store(1);
      }
      Repair(i);
    }
    motion.waited = waiting > 0;
    if (now_ms - motion.moved_at_ms < kQuietMs) {
      looks = true;
    } else if (!std::exchange(motion.quiet, true)) {
      epoll_event event{.events = EPOLLIN | EPOLLONESHOT,
                        .data = {.u64 = Tagged(Tag::kListener, i)}};
      epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, numbers_.Listener(i), &event);
    }
  }
  return looks ? static_cast<int>(kLookMs) : -1;
}

// --- The server ----------------------------------------------------------------------------------

void Keeper::TakeSignals() {
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof(info)) == sizeof(info)) {
    const auto signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD) continue;
    const auto pass_on = [&](pid_t process) {
      // What the terminal says, it has said to everybody in its foreground.
      if (info.ssi_code == SI_KERNEL && getpgid(process) == getpgrp()) return;
      kill(process, signal);
    };
    if (!server_ended_) {
      pass_on(server_);
      continue;
    }
    // It has gone into the background: to whatever it has left.
    if (FILE* const list =
            std::fopen(absl::StrCat("/proc/self/task/", getpid(), "/children").c_str(), "r")) {
      int child = 0;
      while (std::fscanf(list, "%d", &child) == 1) pass_on(child);
      std::fclose(list);
    }
  }
}

// False: no child is left.
bool Keeper::ReapChildren() {
  while (true) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG | WUNTRACED);
    if (pid == 0) return true;
    if (pid < 0) return errno == EINTR;
    if (pid != server_) continue;
    if (WIFSTOPPED(status)) {
      // By job control: then the shell waits until this process stops, too.
      const int by = WSTOPSIG(status);
      if (by == SIGTSTP || by == SIGTTIN || by == SIGTTOU) kill(getpid(), SIGSTOP);
      continue;
    }
    server_ended_ = true;
    status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
}

int Keeper::Run(pid_t server) {
  server_ = server;
  signal(SIGPIPE, SIG_IGN);  // nobody may read what is said here
  int64_t stats_at = NowMs();
  const auto every_ms = static_cast<int64_t>(options_.stats_seconds * 1'000);
  while (true) {
    int wait = LookAfterSources(NowMs());
    if (every_ms > 0) {
      const int64_t left = std::max<int64_t>(0, stats_at + every_ms - NowMs());
      wait = wait < 0 ? static_cast<int>(left) : std::min(wait, static_cast<int>(left));
    }
    std::array<epoll_event, 32> events;
    const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), wait);
    bool ended = false;
    for (int i = 0; i < count; ++i) {
      const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
      const auto number = static_cast<uint32_t>(tag);
      switch (static_cast<Tag>(tag >> 32)) {
        case Tag::kSocket:
          Answer(socket_);
          break;
        case Tag::kBell:
          LookForChanges();
          break;
        case Tag::kSignals:
          TakeSignals();
          ended |= !ReapChildren();
          break;
        case Tag::kProcess:
          Died(static_cast<pid_t>(number));
          break;
        case Tag::kListener: {
          Motion& motion = motions_[number];
          if (std::exchange(motion.quiet, false)) Unwatch(numbers_.Listener(number));
          motion.moved_at_ms = NowMs();
          break;
        }
      }
    }
    if (ended) return status_;
    if (every_ms > 0 && NowMs() >= stats_at + every_ms) {
      stats_at = NowMs();
      PrintStats();
    }
  }
}

std::vector<WorkerReport> Keeper::Report() {
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    if (known_[i].owner == 0 || area().workers[i].owner.load() != known_[i].owner) continue;
    WorkerReport& report = reports_[known_[i].report];
    report.accepted = area().workers[i].accepted.load();
    report.open = area().workers[i].open.load();
  }
  return reports_;
}

void Keeper::PrintStats() {
  std::string line = "ringmaster-run:";
  for (const WorkerReport& worker : Report()) {
    if (!worker.lives) continue;
    absl::StrAppend(&line, " ", worker.pid, ": ", worker.accepted, " accepted, ", worker.open,
                    " open;");
  }
  if (line.back() == ';') line.pop_back();
  std::fprintf(stderr, "%s\n", line.c_str());
}

}  // namespace ringmaster::run
