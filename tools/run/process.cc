#include "run/process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "processes/desk.h"
#include "processes/epoll_kernel.h"
#include "ringmaster/policy.h"

namespace ringmaster::run {
namespace {

using processes::EpollKernel;
using processes::kNone;
using processes::kSightsMax;
using processes::kSourcesMax;
using processes::kWorkersMax;
using processes::Mode;
using processes::Pair;
using processes::Source;
using processes::Worker;

// System calls of our own. The functions of the C library are replaced by the shim.
int RawClose(int fd) { return static_cast<int>(syscall(SYS_close, fd)); }
int RawDup3(int from, int to) { return static_cast<int>(syscall(SYS_dup3, from, to, O_CLOEXEC)); }
int RawControl(int set, int op, int fd, epoll_event* event) {
  return static_cast<int>(syscall(SYS_epoll_ctl, set, op, fd, event));
}
pid_t RawPid() { return static_cast<pid_t>(syscall(SYS_getpid)); }

int Option(int fd, int option) {
  int value = 0;
  socklen_t length = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

uint64_t CookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

bool IsListener(int fd) {
  return Option(fd, SO_ACCEPTCONN) == 1 && Option(fd, SO_TYPE) == SOCK_STREAM;
}

// No signal handler runs on this thread meanwhile: one that closes a listener would wait for the
// thread that it has interrupted.
class Locked {
 public:
  explicit Locked(std::atomic_flag& flag) : flag_(flag) {
    const uint64_t all = ~uint64_t{0};
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, sizeof(all));
    while (flag_.test_and_set(std::memory_order_acquire)) sched_yield();
  }
  ~Locked() {
    flag_.clear(std::memory_order_release);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof(before_));
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  std::atomic_flag& flag_;
  uint64_t before_ = 0;
};

// Somebody may have set the limit of descriptors lower than our numbers (su does), or the server
// has. As far as it may be raised, it is for a moment.
class RoomForNumbers {
 public:
  RoomForNumbers(std::atomic_flag& flag, int first) : locked_(flag) {
    const auto wanted = static_cast<rlim_t>(first) + Numbers::kCount;
    if (getrlimit(RLIMIT_NOFILE, &before_) != 0 || before_.rlim_cur >= wanted) return;
    const rlimit raised{.rlim_cur = std::min(wanted, before_.rlim_max),
                        .rlim_max = before_.rlim_max};
    raised_ = setrlimit(RLIMIT_NOFILE, &raised) == 0;
  }
  ~RoomForNumbers() {
    if (raised_) setrlimit(RLIMIT_NOFILE, &before_);
  }
  RoomForNumbers(const RoomForNumbers&) = delete;
  RoomForNumbers& operator=(const RoomForNumbers&) = delete;

 private:
  const Locked locked_;
  rlimit before_{};
  bool raised_ = false;
};

// What the caller finds in errno is what its own call has left there.
class KeepErrno {
 public:
  KeepErrno() : errno_(errno) {}
  ~KeepErrno() { errno = errno_; }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  const int errno_;
};

// Each thread has policies of its own: what they remember is loaded each time.
Policy& PolicyOfThread(const processes::PolicyChoice& choice) {
  thread_local const std::unique_ptr<Policy> policy = processes::MakePolicy(choice);
  return *policy;
}

// The set for which this thread has waited last.
thread_local Set* waited_for = nullptr;

int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void SayBusy(Worker& worker) {
  if (worker.waits.load(std::memory_order_relaxed) == 0) return;
  worker.woke_at_ns.store(NowNs(), std::memory_order_relaxed);
  worker.waits.store(0, std::memory_order_seq_cst);
}

// A request of the keeper. Descriptors that come with the answer are in `fds`, `count` at most.
bool Ask(const sockaddr_un& address, socklen_t address_length, const Request& request, int with_fd,
         Answer& answer, int* fds, size_t& count) {
  const size_t room = count;
  count = 0;
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  bool answered = false;
  timeval patience{.tv_sec = 2, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), address_length) == 0) {
    iovec out{.iov_base = const_cast<Request*>(&request), .iov_len = sizeof(request)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 128)] = {};
    msghdr message{.msg_iov = &out, .msg_iovlen = 1};
    if (with_fd >= 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(sizeof(int));
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &with_fd, sizeof(int));
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(request))) {
      iovec in{.iov_base = &answer, .iov_len = sizeof(answer)};
      msghdr received{.msg_iov = &in,
                      .msg_iovlen = 1,
                      .msg_control = control,
                      .msg_controllen = sizeof(control)};
      ssize_t length = -1;
      do {
        length = recvmsg(fd, &received, MSG_CMSG_CLOEXEC);
      } while (length < 0 && errno == EINTR);
      answered = length == static_cast<ssize_t>(sizeof(answer)) && answer.magic == Request::kMagic;
      for (cmsghdr* header = length < 0 ? nullptr : CMSG_FIRSTHDR(&received); header != nullptr;
           header = CMSG_NXTHDR(&received, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const size_t came = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < came; ++i) {
          int got = -1;
          std::memcpy(&got, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
          if (count < room) {
            fds[count++] = got;
          } else {
            RawClose(got);
          }
        }
      }
    }
  }
  RawClose(fd);
  return answered;
}

}  // namespace

Process& Process::Get() {
  // In memory that begins as zeros, and so costs only what is used of it.
  alignas(Process) static std::byte memory[sizeof(Process)];
  static Process* const process = new (memory) Process;
  return *process;
}

bool Process::IsThisProcess() const { return RawPid() == pid_; }

// --- Start ---------------------------------------------------------------------------------------

void Process::Start() {
  const KeepErrno keep;
  const char* const variable = std::getenv(kVariable);
  const char* const preload = std::getenv(kPreload);
  if (variable == nullptr || preload == nullptr) return;
  const auto keep_entry = [](const char* name, const char* value, auto& entry) {
    const int length = std::snprintf(entry.data(), entry.size(), "%s=%s", name, value);
    return length > 0 && static_cast<size_t>(length) < entry.size();
  };
  if (!keep_entry(kVariable, variable, variable_) || !keep_entry(kPreload, preload, preload_))
    return;
  // The shim, as whoever is started anew finds it.
  Dl_info shim{};
  if (dladdr(reinterpret_cast<const void*>(&Process::Get), &shim) == 0) return;
  path_ = shim.dli_fname;
  // NAME:SECRET:FIRST
  const char* const end = variable + std::strlen(variable);
  const char* const colon = std::find(variable, end, ':');
  const char* const second = colon == end ? end : std::find(colon + 1, end, ':');
  if (second == end || static_cast<size_t>(colon - variable) + 1 >= name_.size()) return;
  name_length_ = static_cast<size_t>(colon - variable);
  std::copy(variable, colon, name_.begin());
  int first = -1;
  if (std::from_chars(colon + 1, second, secret_, 16).ptr != second ||
      std::from_chars(second + 1, end, first).ptr != end || first < 3) {
    return;
  }
  sockaddr_un address{.sun_family = AF_UNIX};
  std::copy(name_.begin(), name_.begin() + name_length_, address.sun_path + 1);
  const auto address_length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_length_);
  const RoomForNumbers room(changes_limit_, first);
  std::array<int, kSightsMax + 3> fds;
  size_t count = fds.size();
  Answer answer;
  const bool answered =
      Ask(address, address_length, {.secret = secret_}, -1, answer, fds.data(), count);
  if (answered && answer.error == 0 && count == fds.size()) {
    numbers_.first = first;
    shared_ = numbers_.All();
    // The memory, the bell, the keeper, and the sights.
    bool placed = RawDup3(fds[0], numbers_.Memory()) >= 0 &&
                  RawDup3(fds[1], numbers_.Bell()) >= 0 && RawDup3(fds[2], numbers_.Keeper()) >= 0;
    for (uint32_t i = 0; i < kSightsMax; ++i) {
      placed = placed && RawDup3(fds[3 + i], numbers_.Sight(i)) >= 0;
    }
    void* const mapped = placed ? mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED,
                                       numbers_.Memory(), 0)
                                : MAP_FAILED;
    void* const tables = mmap(nullptr, size_t{3} * kDescriptorsMax, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped != MAP_FAILED && tables != MAP_FAILED) {
      memory_ = static_cast<Memory*>(mapped);
      source_of_ = static_cast<std::atomic<uint8_t>*>(tables);
      set_of_ = source_of_ + kDescriptorsMax;
      counted_by_ = set_of_ + kDescriptorsMax;
      active_ = memory_->area.magic == processes::Area::kMagic;
    }
    if (!active_) {
      for (int i = 0; i < Numbers::kCount; ++i) RawClose(first + i);
      numbers_.first = -1;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (!numbers_.Has(fds[i])) RawClose(fds[i]);
  }
  pid_ = RawPid();
  for (auto& descriptor : descriptors_) descriptor = 0;
}

void Process::AfterFork() {
  if (!active_) return;
  pid_ = RawPid();
  changes_limit_.clear();
  const int highest = highest_.load();
  for (int fd = 0; fd <= highest; ++fd) {
    set_of_[fd].store(0);
    counted_by_[fd].store(0);
    // What its parent has made for others to accept from is shared.
    if (source_of_[fd].load() == kListensHere) source_of_[fd].store(kAccepted);
  }
  for (Set& set : sets_) {
    set.epoll_fd.store(-1);
    set.worker.store(kNone);
    set.locked.clear();
    for (Watch& watch : set.watches) {
      watch.how.store(Watch::How::kNot);
      watch.fd.store(-1);
    }
  }
  epoll_workers_.store(0);
  workers_full_.store(false);
  waited_for = nullptr;
}

void Process::RingBell() {
  const uint64_t one = 1;
  [[maybe_unused]] const long written = syscall(SYS_write, numbers_.Bell(), &one, sizeof(one));
}

// --- Sources -------------------------------------------------------------------------------------

uint32_t Process::SourceOf(int fd) const {
  if (fd < 0 || fd >= kDescriptorsMax) return kNone;
  const uint8_t source = source_of_[fd].load(std::memory_order_relaxed);
  return source == 0 || source > kSourcesMax ? kNone : source - 1;
}

void Process::Used(int fd) {
  for (int highest = highest_.load(); highest < fd;) highest_.compare_exchange_weak(highest, fd);
}

void Process::Listens(int fd) {
  if (fd < 0 || fd >= kDescriptorsMax || source_of_[fd].load() != 0 || !IsThisProcess()) return;
  source_of_[fd].store(kListensHere);
  Used(fd);
}

void Process::AcceptedFrom(int fd) {
  if (fd < 0 || fd >= kDescriptorsMax || source_of_[fd].load() == kNotOurs) return;
  source_of_[fd].store(kAccepted);
  Used(fd);
}

bool Process::IsSource(int fd) {
  if (SourceOf(fd) != kNone) return true;
  if (fd < 0 || fd >= kDescriptorsMax || source_of_[fd].load() != kAccepted || !IsThisProcess()) {
    return false;
  }
  const KeepErrno keep;
  if (IsListener(fd) && Meet(fd) != kNone) return true;
  source_of_[fd].store(kNotOurs);
  return false;
}

uint32_t Process::FindSource(uint64_t cookie) {
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    const Source& source = area().sources[i];
    if (source.cookie.load() == cookie && source.mode.load() != Mode::kFree) return i;
  }
  return kNone;
}

uint32_t Process::Meet(int fd) {
  if (fd < 0 || fd >= kDescriptorsMax) return kNone;
  const uint64_t cookie = CookieOf(fd);
  if (cookie == 0) return kNone;
  uint32_t source = FindSource(cookie);
  if (source == kNone) {
    sockaddr_un address{.sun_family = AF_UNIX};
    std::copy(name_.begin(), name_.begin() + name_length_, address.sun_path + 1);
    Answer answer;
    size_t none = 0;
    if (!Ask(address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_length_),
             {.secret = secret_, .kind = Request::Kind::kListener}, fd, answer, nullptr, none) ||
        answer.error != 0 || answer.source >= kSourcesMax) {
      return kNone;
    }
    source = answer.source;
  }
  if (known_[source].load() != cookie) {
    const RoomForNumbers room(changes_limit_, numbers_.first);
    if (RawDup3(fd, numbers_.Listener(source)) < 0) return kNone;
    known_[source].store(cookie);
    descriptors_[source].store(0);
  }
  auto& source_of = source_of_[fd];
  if (source_of.load() != source + 1) {
    // It had the number, and was closed by a way that nobody saw.
    if (source_of.load() != 0) ForgetListener(fd);
    descriptors_[source].fetch_add(1);
    source_of.store(static_cast<uint8_t>(source + 1));
    Used(fd);
  }
  return source;
}

// --- Workers -------------------------------------------------------------------------------------

// As things stand for this process.
Mode Process::ModeOf(uint32_t source) {
  const Mode mode = area().sources[source].mode.load(std::memory_order_relaxed);
  return mode == Mode::kAimed && alone_.load(std::memory_order_relaxed) ? Mode::kLeft : mode;
}

Pair& Process::PairOf(const Set& set, uint32_t source) {
  return area().workers[set.worker.load(std::memory_order_relaxed) % kWorkersMax].of_source[source];
}

Set* Process::SetOf(int epoll_fd) {
  if (epoll_fd < 0 || epoll_fd >= kDescriptorsMax) return nullptr;
  const uint8_t index = set_of_[epoll_fd].load(std::memory_order_acquire);
  return index == 0 ? nullptr : &sets_[index - 1];
}

void Process::NameSet(const Set& set, int epoll_fd) {
  set_of_[epoll_fd].store(static_cast<uint8_t>(&set - sets_.data() + 1));
  Used(epoll_fd);
}

// kNone: there is none left.
uint32_t Process::ClaimWorker() {
  static std::atomic<uint32_t> owners{0};
  const uint64_t owner = static_cast<uint64_t>(pid_) << 32 | (owners.fetch_add(1) + 1);
  for (uint32_t worker = 0; worker < kWorkersMax; ++worker) {
    uint64_t free = 0;
    if (area().workers[worker].owner.compare_exchange_strong(free, owner)) return worker;
  }
  return kNone;
}

Set* Process::MakeSet(int epoll_fd) {
  if (Set* const set = SetOf(epoll_fd); set != nullptr) return set;
  if (epoll_fd < 0 || epoll_fd >= kDescriptorsMax) return nullptr;
  // One that was released keeps its worker, for the next.
  for (Set& set : sets_) {
    int nobody = -1;
    if (!IsOwn(set) && set.worker.load() < kWorkersMax && set.epoll_fd.load() < 0 &&
        set.epoll_fd.compare_exchange_strong(nobody, epoll_fd)) {
      NameSet(set, epoll_fd);
      return &set;
    }
  }
  for (Set& set : sets_) {
    int nobody = -1;
    if (IsOwn(set) || !set.epoll_fd.compare_exchange_strong(nobody, epoll_fd)) continue;
    const uint32_t worker = ClaimWorker();
    if (worker == kNone) {
      set.epoll_fd.store(-1);
      return nullptr;
    }
    set.worker.store(worker);
    epoll_workers_.fetch_add(1);
    NameSet(set, epoll_fd);
    RingBell();
    return &set;
  }
  return nullptr;
}

// The process as a worker, which accepts from what no epoll set of it watches. Null: it is none. A
// process that has epoll sets accepts for them.
Set* Process::TakeOwnSet(uint32_t source, int fd) {
  if (epoll_workers_.load(std::memory_order_relaxed) > 0 ||
      workers_full_.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  Set& set = sets_.back();
  const Locked locked(set.locked);
  if (set.worker.load() >= kWorkersMax) {
    const uint32_t worker = ClaimWorker();
    if (worker == kNone) {
      workers_full_.store(true);
      return nullptr;
    }
    set.worker.store(worker);
    RingBell();
  }
  Watch& watch = set.watches[source];
  if (watch.how.load() != Watch::How::kNot) return &set;
  watch.fd = fd;
  return Has(set, source) ? &set : nullptr;
}

// The set watches the source from now on. False: the keeper has let go of the source meanwhile.
// Then the listener stays as it is.
bool Process::Has(Set& set, uint32_t source) {
  set.watches[source].how.store(Watch::How::kListener);
  PairOf(set, source).has.store(1);
  const Source& shared = area().sources[source];
  if (shared.mode.load() != Mode::kFree && shared.cookie.load() == known_[source].load()) {
    return true;
  }
  PairOf(set, source).has.store(0);
  set.watches[source].how.store(Watch::How::kNot);
  return false;
}

// The set is about to be closed, or was.
void Process::ReleaseSet(Set& set) {
  const uint32_t worker = set.worker.load();
  const int epoll_fd = set.epoll_fd.load();
  {
    const Locked locked(set.locked);
    for (uint32_t source = 0; source < kSourcesMax; ++source) {
      if (set.watches[source].how.load() != Watch::How::kNot) Delete(set, source);
    }
  }
  if (epoll_fd >= 0) set_of_[epoll_fd].store(0);
  if (worker < kWorkersMax) {
    Worker& gone = area().workers[worker];
    // Its connections live on, so it stays this process's.
    gone.waits.store(0);
    for (Pair& pair : gone.of_source) pair.has.store(0);
    RingBell();
  }
  set.epoll_fd.store(-1);
}

bool Process::Visit(const Set& set, uint32_t source) {
  const uint32_t worker = set.worker.load(std::memory_order_relaxed);
  if (worker >= kWorkersMax) return true;
  EpollKernel kernel(shared_, source);
  processes::Desk desk(area(), source, worker, PolicyOfThread(memory_->policy), kernel);
  if (desk.Visit()) return true;
  RingBell();
  return false;
}

void Process::Leave(uint32_t source) {
  const KeepErrno keep;
  if (only_counts()) return;
  std::atomic<Mode>& mode = area().sources[source].mode;
  Mode now = mode.load();
  while (now == Mode::kPlain || now == Mode::kAimed) {
    if (!mode.compare_exchange_weak(now, Mode::kLeft)) continue;
    RingBell();  // the keeper wakes the others
    return;
  }
}

// --- epoll_ctl -----------------------------------------------------------------------------------

bool Process::Control(int epoll_fd, int op, int fd, epoll_event* event, int& result) {
  if (fd < 0 || fd >= kDescriptorsMax || epoll_fd < 0) return false;
  Set* set = nullptr;
  uint32_t source = kNone;
  if (op == EPOLL_CTL_ADD && event != nullptr) {
    if (counted_by_[fd].load() != 0 || !IsListener(fd)) return false;
    if (!IsThisProcess()) return false;
    source = Meet(fd);
    if (source == kNone) return false;
    set = MakeSet(epoll_fd);
    if (set == nullptr) {
      Leave(source);
      return false;
    }
  } else {
    source = SourceOf(fd);
    set = SetOf(epoll_fd);
    if (op == EPOLL_CTL_DEL && set != nullptr && counted_by_[fd].load() != 0) {
      const uint32_t at = set->taken_out_count.fetch_add(1);
      set->taken_out[at % Set::kTakenOutMax].store(fd);
    }
    if (source == kNone || set == nullptr || !IsThisProcess()) return false;
  }
  const Locked locked(set->locked);
  const bool watched = set->watches[source].how.load() != Watch::How::kNot;
  if (op == EPOLL_CTL_ADD) {
    if (watched) {
      if (set->watches[source].fd.load() != fd) return false;
      errno = EEXIST;  // what the kernel says of a listener, though it may have a sight
      return true;
    }
    result = Add(*set, source, fd, *event);
  } else if (!watched) {
    return false;
  } else if (op == EPOLL_CTL_MOD && event != nullptr) {
    result = Modify(*set, source, *event);
  } else if (op == EPOLL_CTL_DEL) {
    result = Delete(*set, source);
  } else {
    return false;
  }
  return true;
}

int Process::Add(Set& set, uint32_t source, int fd, const epoll_event& event) {
  Watch& watch = set.watches[source];
  epoll_event copy = event;
  if (RawControl(set.epoll_fd.load(), EPOLL_CTL_ADD, fd, &copy) != 0) return -1;
  watch.fd = fd;
  watch.event = event;
  if (Has(set, source) && (event.events & EPOLLIN) != 0) Join(set, source);
  return 0;
}

void Process::Join(Set& set, uint32_t source) {
  const KeepErrno keep;
  Source& shared = area().sources[source];
  const uint32_t worker = set.worker.load();
  const uint64_t bit = uint64_t{1} << worker;
  const uint64_t before = shared.joined.fetch_or(bit);
  // With one worker there is nothing to decide.
  if (!only_counts() && (before & ~bit) != 0) {
    Mode plain = Mode::kPlain;
    if (shared.mode.compare_exchange_strong(plain, Mode::kAimed)) RingBell();
  }
  Follow(set, source);
}

void Process::Unjoin(Set& set, uint32_t source) {
  const KeepErrno keep;
  Source& shared = area().sources[source];
  shared.joined.fetch_and(~(uint64_t{1} << set.worker.load()));
  Pair& pair = PairOf(set, source);
  pair.permits.Withdraw();
  if (pair.sight.load() < kSightsMax) {
    EpollKernel(shared_, source).Hide(pair.sight.load());
    pair.shown.store(0);
  }
  Visit(set, source);
}

bool Process::UseSight(Set& set, uint32_t source, int op, const epoll_event& event) {
  Pair& pair = PairOf(set, source);
  uint32_t sight = pair.sight.load();
  if (sight >= kSightsMax) {
    for (sight = 0; sight < kSightsMax; ++sight) {
      const uint64_t bit = uint64_t{1} << sight;
      if ((area().sights.fetch_or(bit) & bit) == 0) break;
    }
    if (sight == kSightsMax) return false;
    pair.sight.store(sight);
  }
  epoll_event copy = event;
  copy.events &= ~static_cast<uint32_t>(EPOLLEXCLUSIVE);  // a set cannot be watched in that way
  return RawControl(set.epoll_fd.load(), op, numbers_.Sight(sight), &copy) == 0;
}

void Process::Follow(Set& set, uint32_t source) {
  const KeepErrno keep;
  Watch& watch = set.watches[source];
  const Mode mode = ModeOf(source);
  if (mode == Mode::kAimed && watch.how.load() == Watch::How::kListener) {
    if (!UseSight(set, source, EPOLL_CTL_ADD, watch.event)) {
      Leave(source);
      return;
    }
    RawControl(set.epoll_fd.load(), EPOLL_CTL_DEL, watch.fd, nullptr);
    watch.how.store(Watch::How::kSight);
    Visit(set, source);
  } else if (mode == Mode::kLeft && watch.how.load() == Watch::How::kSight) {
    if (RawControl(set.epoll_fd.load(), EPOLL_CTL_ADD, watch.fd, &watch.event) != 0) return;
    RawControl(set.epoll_fd.load(), EPOLL_CTL_DEL, numbers_.Sight(PairOf(set, source).sight.load()),
               nullptr);
    watch.how.store(Watch::How::kListener);
  }
}

int Process::Modify(Set& set, uint32_t source, const epoll_event& event) {
  Watch& watch = set.watches[source];
  epoll_event copy = event;
  if (watch.how.load() == Watch::How::kListener) {
    if (RawControl(set.epoll_fd.load(), EPOLL_CTL_MOD, watch.fd, &copy) != 0) return -1;
  } else if (!UseSight(set, source, EPOLL_CTL_MOD, event)) {
    return -1;
  }
  watch.event = event;
  const bool joined = area().sources[source].Joined(set.worker.load());
  const bool joins = (event.events & EPOLLIN) != 0;
  if (joins && !joined) Join(set, source);
  if (!joins && joined) Unjoin(set, source);
  return 0;
}

int Process::Delete(Set& set, uint32_t source) {
  Watch& watch = set.watches[source];
  const bool by_sight = watch.how.load() == Watch::How::kSight;
  const uint32_t sight = PairOf(set, source).sight.load();
  const int result =
      RawControl(set.epoll_fd.load(), EPOLL_CTL_DEL,
                 by_sight ? numbers_.Sight(sight % kSightsMax) : watch.fd.load(), nullptr);
  watch.how.store(Watch::How::kNot);
  Unjoin(set, source);
  if (by_sight && sight < kSightsMax) {
    // It is empty by now: Unjoin has taken the source out, and a holder that shows it anew finds
    // that this worker has not joined.
    PairOf(set, source).sight.store(kNone);
    area().sights.fetch_and(~(uint64_t{1} << sight));
  }
  return result;
}

// --- Waits ---------------------------------------------------------------------------------------

void Process::BeforeWait(Set& set, bool sleeps) {
  waited_for = &set;
  const uint32_t index = set.worker.load(std::memory_order_relaxed);
  if (index >= kWorkersMax) return;
  const KeepErrno keep;
  Worker& worker = area().workers[index];
  FindClosed(set);
  for (uint32_t source = 0; source < kSourcesMax; ++source) {
    const Watch::How how = set.watches[source].how.load(std::memory_order_relaxed);
    if (how == Watch::How::kNot) continue;
    const Mode mode = ModeOf(source);
    const bool follows = (mode == Mode::kAimed && how == Watch::How::kListener) ||
                         (mode == Mode::kLeft && how == Watch::How::kSight);
    if (!follows) continue;
    const Locked locked(set.locked);
    if (set.watches[source].how.load() == how) Follow(set, source);
  }
  if (!sleeps) return;
  if (worker.waits.load(std::memory_order_relaxed) == 0) {
    worker.waits.store(1, std::memory_order_seq_cst);
  }
  worker.Moved();
  for (uint32_t source = 0; source < kSourcesMax; ++source) {
    if (set.watches[source].how.load(std::memory_order_relaxed) != Watch::How::kSight) continue;
    if (area().sources[source].TakeHungry(worker.open.load(std::memory_order_relaxed))) {
      Visit(set, source);
    }
  }
}

void Process::WaitEnds(Set& set) {
  const uint32_t index = set.worker.load(std::memory_order_relaxed);
  if (index < kWorkersMax) SayBusy(area().workers[index]);
}

int Process::AfterWait(Set& set, epoll_event* events, int count) {
  const uint32_t index = set.worker.load(std::memory_order_relaxed);
  if (index >= kWorkersMax) return count;
  const KeepErrno keep;
  Worker& worker = area().workers[index];
  worker.Moved();
  // What was brought for each source, and whether anything else was.
  std::array<uint32_t, kSourcesMax> by_sight;
  size_t by_sight_count = 0;
  for (uint32_t source = 0; source < kSourcesMax; ++source) {
    if (set.watches[source].how.load(std::memory_order_relaxed) == Watch::How::kSight) {
      by_sight[by_sight_count++] = source;
    }
  }
  if (by_sight_count == 0) {
    SayBusy(worker);
    return count;
  }
  std::array<bool, kSourcesMax> brought{};
  bool does_other_things = count <= 0;
  for (int i = 0; i < count; ++i) {
    bool is_other = true;
    for (size_t at = 0; at < by_sight_count; ++at) {
      if (set.watches[by_sight[at]].event.data.u64 != events[i].data.u64) continue;
      brought[by_sight[at]] = true;
      is_other = false;
    }
    does_other_things |= is_other;
  }
  // Rule "first" of processes/desk.h.
  if (does_other_things) SayBusy(worker);
  std::array<bool, kSourcesMax> stray{};
  bool anything_stray = false;
  for (uint32_t source = 0; source < kSourcesMax; ++source) {
    if (!brought[source] || Brought(set, source)) continue;
    stray[source] = true;
    anything_stray = true;
  }
  if (!anything_stray) return count;
  // A server may call several listeners by one name. Then any of them may have a permit. And one
  // that wants to hear once has to hear, or it never asks again.
  const auto is_stray = [&](const epoll_event& event) {
    bool is = false;
    for (uint32_t source = 0; source < kSourcesMax; ++source) {
      if (set.watches[source].how.load(std::memory_order_relaxed) == Watch::How::kNot ||
          set.watches[source].event.data.u64 != event.data.u64) {
        continue;
      }
      if (!stray[source] || (set.watches[source].event.events & EPOLLONESHOT) != 0) return false;
      is = true;
    }
    return is;
  };
  return static_cast<int>(std::remove_if(events, events + count, is_stray) - events);
}

// A sight has brought the source. False: there is no permit.
bool Process::Brought(Set& set, uint32_t source) {
  Pair& pair = PairOf(set, source);
  if (pair.permits.Read().claimable > 0) return true;
  if (KeeperGone()) {
    const Locked locked(set.locked);
    Follow(set, source);
    return false;
  }
  pair.shown.store(1, std::memory_order_seq_cst);  // rule "stray"
  Visit(set, source);
  return pair.permits.Read().claimable > 0;
}

bool Process::KeeperGone() {
  if (alone_.load(std::memory_order_relaxed)) return true;
  pollfd keeper{.fd = numbers_.Keeper(), .events = POLLIN, .revents = 0};
  const timespec now{};
  if (syscall(SYS_ppoll, &keeper, 1, &now, nullptr, 0) != 1) return false;
  alone_.store(true);
  return true;
}

// --- accept --------------------------------------------------------------------------------------

Process::Accepting Process::BeforeAccept(int fd) {
  Accepting accepting;
  const uint32_t source = SourceOf(fd);
  if (source == kNone || !IsThisProcess()) return accepting;
  Set* set = waited_for;
  const auto watches = [&](const Set& it) {
    return it.watches[source].how.load(std::memory_order_relaxed) != Watch::How::kNot;
  };
  if (set == nullptr || !watches(*set)) {
    const auto it = std::find_if(sets_.begin(), sets_.end(), watches);
    set = it != sets_.end() ? &*it : TakeOwnSet(source, fd);
    if (set == nullptr) return accepting;
  }
  accepting.source = source;
  accepting.set = set;
  if (set->watches[source].how.load() != Watch::How::kSight || ModeOf(source) != Mode::kAimed) {
    return accepting;
  }
  if (PairOf(*set, source).permits.Claim()) {
    accepting.way = Way::kPermit;
    // Rule "first".
    SayBusy(area().workers[set->worker.load() % kWorkersMax]);
    return accepting;
  }
  // A listener that blocks: its caller waits in the kernel, as without us.
  const long flags = syscall(SYS_fcntl, fd, F_GETFL, 0);
  if ((flags & O_NONBLOCK) != 0) accepting.way = Way::kNoPermit;
  return accepting;
}

void Process::AfterAccept(const Accepting& accepting, int accepted) {
  if (accepting.set == nullptr) return;
  const KeepErrno keep;
  Set& set = *accepting.set;
  const uint32_t index = set.worker.load(std::memory_order_relaxed);
  if (index >= kWorkersMax) return;
  Worker& worker = area().workers[index];
  worker.Moved();
  if (accepted >= 0) {
    worker.accepted.fetch_add(1, std::memory_order_relaxed);
    worker.cpu.store(sched_getcpu(), std::memory_order_relaxed);
    if (accepted < kDescriptorsMax) {
      // If it is counted already, it was closed by a way that nobody saw.
      Closed(accepted);
      worker.open.fetch_add(1, std::memory_order_seq_cst);
      counted_by_[accepted].store(static_cast<uint8_t>(index + 1));
      Used(accepted);
    }
  }
  if (accepting.way == Way::kPermit) {
    core::Permits& permits = PairOf(set, accepting.source).permits;
    if (accepted >= 0) {
      permits.CountAccepted();
      permits.Finish();
    } else {
      permits.GiveUp();
    }
  }
  if (set.watches[accepting.source].how.load() == Watch::How::kSight) Visit(set, accepting.source);
}

// --- Descriptors ---------------------------------------------------------------------------------

void Process::Uncount(int fd) {
  const uint8_t worker = counted_by_[fd].exchange(0);
  if (worker == 0) return;
  std::atomic<uint32_t>& open = area().workers[worker - 1].open;
  uint32_t now = open.load();
  while (now > 0 && !open.compare_exchange_weak(now, now - 1)) continue;
}

bool Process::WasClosed(int listener, uint32_t source) {
  return SourceOf(listener) == source && CookieOf(listener) != known_[source].load();
}

void Process::FindClosed(Set& set) {
  for (uint32_t source = 0; source < kSourcesMax; ++source) {
    const Watch& watch = set.watches[source];
    const int fd = watch.fd.load(std::memory_order_relaxed);
    // One that is watched is asked when it brings something.
    if (fd >= 0 && watch.how.load(std::memory_order_relaxed) == Watch::How::kNot &&
        WasClosed(fd, source)) {
      Closed(fd);
    }
  }
  if (set.taken_out_count.load(std::memory_order_relaxed) == 0) return;
  set.taken_out_count.store(0);
  for (std::atomic<int>& taken_out : set.taken_out) {
    const int fd = taken_out.exchange(0);
    if (fd > 0 && counted_by_[fd].load() != 0 && Option(fd, SO_TYPE) < 0) Uncount(fd);
  }
}

void Process::ForgetListener(int fd) {
  const uint32_t source = source_of_[fd].exchange(0) - 1u;
  if (source >= kSourcesMax) return;
  for (Set& set : sets_) {
    const auto watches = [&] {
      return set.watches[source].how.load() != Watch::How::kNot && set.watches[source].fd == fd;
    };
    if (!watches()) continue;
    const Locked locked(set.locked);
    if (watches()) Delete(set, source);
  }
  if (descriptors_[source].fetch_sub(1) != 1) return;
  // The last one: nothing of this process may keep the listener open.
  known_[source].store(0);
  RawClose(numbers_.Listener(source));
  bool had = false;
  for (Set& set : sets_) {
    if (set.worker.load() < kWorkersMax) had |= PairOf(set, source).has.exchange(0) != 0;
  }
  if (had) RingBell();
}

void Process::Closed(int fd) {
  if (fd < 0 || fd >= kDescriptorsMax) return;
  if (counted_by_[fd].load(std::memory_order_relaxed) == 0 &&
      source_of_[fd].load(std::memory_order_relaxed) == 0 &&
      set_of_[fd].load(std::memory_order_relaxed) == 0) {
    return;
  }
  if (!IsThisProcess()) return;
  const KeepErrno keep;
  Uncount(fd);
  if (source_of_[fd].load() != 0) ForgetListener(fd);
  if (Set* const set = SetOf(fd); set != nullptr) ReleaseSet(*set);
}

void Process::ClosedRange(unsigned first, unsigned last) {
  if (!IsThisProcess()) return;
  const auto highest = static_cast<unsigned>(highest_.load());
  for (unsigned fd = first; fd <= std::min(last, highest); ++fd) Closed(static_cast<int>(fd));
}

void Process::Duplicated(int from, int to) {
  const uint32_t source = SourceOf(from);
  if (source == kNone || to < 0 || to >= kDescriptorsMax || !IsThisProcess()) return;
  descriptors_[source].fetch_add(1);
  source_of_[to].store(static_cast<uint8_t>(source + 1));
  Used(to);
}

}  // namespace ringmaster::run
