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

namespace ringmaster::run {
namespace {

using processes::kNone;
using processes::kSightsMax;
using processes::kSourcesMax;
using processes::kWorkersMax;
using processes::Mode;
using processes::Source;
using processes::Worker;

// So long a process may take between meeting a listener and watching it.
constexpr int64_t kMeetMs = 2'000;
// Whoever makes and ends workers for ever does not make the report grow for ever.
constexpr size_t kReportsMax = 10'000;

// Signals that are the server's.
constexpr std::array<int, 12> kPassedOn = {SIGTERM,  SIGINT,  SIGHUP,  SIGQUIT, SIGUSR1, SIGUSR2,
                                           SIGWINCH, SIGTTIN, SIGTTOU, SIGALRM, SIGCONT, SIGTSTP};

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000 + now.tv_nsec / 1'000'000;
}

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
  keeper_.reset();
  for (const int fd : {epoll_fd_, socket_, signals_}) {
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
  descriptors_ = numbers_.All();

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
  if (!place(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)), numbers_.Keeper())) {
    return Failed("make a descriptor of this process");
  }
  if (!place(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), numbers_.Bell()))
    return Failed("make an eventfd");
  for (uint32_t i = 0; i < kSightsMax; ++i) {
    if (!place(epoll_create1(EPOLL_CLOEXEC), numbers_.Sight(i))) return Failed("make an epoll set");
    epoll_event dies{.events = EPOLLIN, .data = {.u64 = 0}};
    if (epoll_ctl(numbers_.Sight(i), EPOLL_CTL_ADD, numbers_.Keeper(), &dies) != 0) {
      return Failed("watch this process");
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
  keeper_ = std::make_unique<processes::Keeper>(
      area(), descriptors_,
      options_.policy.kind == processes::PolicyKind::kNoPolicy ? nullptr
                                                               : MakePolicy(options_.policy),
      static_cast<processes::KeeperEvents&>(*this));
  if (absl::Status status = keeper_->SetUp(); !status.ok()) return status;
  Watch(socket_, Tag::kSocket);
  Watch(keeper_->fd(), Tag::kKeeper);
  Watch(signals_, Tag::kSignals);
  return absl::OkStatus();
}

void Keeper::Watch(int fd, Tag tag) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = static_cast<uint64_t>(tag)}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
}

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
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_length) == 0) keeper_->Died(peer.pid);
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
  was_had_[free] = false;
  keeper_->Begin(free);
  return free;
}

// --- Workers -------------------------------------------------------------------------------------

void Keeper::OnCame(uint32_t worker, pid_t pid) {
  report_of_[worker] = std::min(reports_.size(), kReportsMax - 1);
  if (reports_.size() < kReportsMax) reports_.emplace_back();
  reports_[report_of_[worker]] = {.pid = pid, .lives = true};
}

void Keeper::OnGone(uint32_t worker) {
  WorkerReport& report = reports_[report_of_[worker]];
  report.accepted = area().workers[worker].accepted.load();
  report.lives = false;
}

void Keeper::OnBell() {
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    Source& source = area().sources[i];
    if (source.mode.load() == Mode::kFree) continue;
    if (source.mode.load() == Mode::kLeft) keeper_->Abandon(i);
    const auto has = [&] {
      return std::any_of(area().workers.begin(), area().workers.end(),
                         [&](const Worker& it) { return it.of_source[i].has.load() != 0; });
    };
    if (has()) {
      was_had_[i] = true;
      continue;
    }
    // Whoever has just met it says so soon.
    if (!was_had_[i] && keeper_->AgeMs(i) < kMeetMs) continue;
    // Nobody has it any more, so its clients are to be refused. A process that meets it at this
    // moment says that it has it, and then looks whether it is still there.
    const Mode before = source.mode.exchange(Mode::kFree);
    if (has()) {
      source.mode.store(before);
      continue;
    }
    source.cookie.store(0);
    keeper_->End(i);
    close(numbers_.Listener(i));
  }
}

void Keeper::OnLeft(uint32_t) {
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
    int wait = -1;
    if (every_ms > 0) {
      wait = static_cast<int>(std::max<int64_t>(0, stats_at + every_ms - NowMs()));
    }
    std::array<epoll_event, 32> events;
    const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), wait);
    bool ended = false;
    for (int i = 0; i < count; ++i) {
      switch (static_cast<Tag>(events[static_cast<size_t>(i)].data.u64)) {
        case Tag::kSocket:
          Answer(socket_);
          break;
        case Tag::kSignals:
          TakeSignals();
          ended |= !ReapChildren();
          break;
        case Tag::kKeeper:
          keeper_->RunOnce();
          break;
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
    if (keeper_->OwnerOf(i) == 0) continue;
    WorkerReport& report = reports_[report_of_[i]];
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
