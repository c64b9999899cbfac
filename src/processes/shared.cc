#include "processes/shared.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "processes/keeper.h"

namespace ringmaster::internal {
namespace {

using processes::Area;
using processes::CannotMake;
using processes::kSightsMax;
using processes::kSourcesMax;
using processes::Mode;
using processes::PolicyChoice;
using processes::Source;

// What the variable begins with: how the rest is written, and what the memory looks like.
constexpr uint64_t kVersion = 2;

// How a descriptor stands in the sights. The bell stands there only to be known again (Check).
epoll_event EventOf(int fd, const processes::Descriptors& descriptors) {
  return {.events = fd == descriptors.bell ? 0u : uint32_t{EPOLLIN}, .data = {.fd = fd}};
}

bool Readable(int fd) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&one, 1, 0) == 1 && (one.revents & POLLIN) != 0;
}

// FNV-1a (Fowler, Noll and Vo, 1991). Tells a value that was damaged.
uint64_t SumOf(std::string_view text) {
  uint64_t sum = 0xcbf29ce484222325;
  for (const char byte : text) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return sum;
}

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

}  // namespace

absl::StatusOr<std::shared_ptr<ProcessShared>> ProcessShared::Create(const PolicyChoice& choice,
                                                                     uint32_t workers_max) {
  std::shared_ptr<ProcessShared> shared(new ProcessShared);
  shared->choice_ = choice;
  shared->workers_max_ = workers_max;
  shared->parent_ = getpid();
  if (absl::Status status = shared->SetUp(); !status.ok()) return status;
  return shared;
}

ProcessShared::~ProcessShared() {
  CloseDescriptors();
  if (area_ != nullptr) munmap(area_, sizeof(*area_));
}

absl::Status ProcessShared::Map() {
  void* const mapped =
      mmap(nullptr, sizeof(Area), PROT_READ | PROT_WRITE, MAP_SHARED, descriptors_.memory, 0);
  if (mapped == MAP_FAILED) return absl::ErrnoToStatus(errno, "cannot map the shared memory");
  area_ = static_cast<Area*>(mapped);
  return absl::OkStatus();
}

absl::Status ProcessShared::SetUp() {
  descriptors_.memory = memfd_create("ringmaster", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptors_.memory < 0 || ftruncate(descriptors_.memory, sizeof(Area)) != 0 ||
      fcntl(descriptors_.memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return CannotMake("shared memory");
  }
  struct stat memory {};
  fstat(descriptors_.memory, &memory);
  memory_number_ = memory.st_ino;
  if (absl::Status status = Map(); !status.ok()) return status;
  new (area_) Area;
  if (getrandom(&secret_, sizeof(secret_), 0) != sizeof(secret_))
    return CannotMake("a random number");
  descriptors_.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  end_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptors_.bell < 0 || end_ < 0) return CannotMake("an eventfd");
  descriptors_.keeper = static_cast<int>(syscall(SYS_pidfd_open, parent_, 0));
  if (descriptors_.keeper < 0) {
    return errno == ENOSYS || errno == EPERM
               ? absl::UnimplementedError(
                     "pidfd_open is missing: Linux 5.3 has it; a seccomp profile may forbid it "
                     "(containers of before 2021 do)")
               : CannotMake("a descriptor of this process");
  }
  for (uint32_t i = 0; i < workers_max_; ++i) {
    descriptors_.sights[i] = epoll_create1(EPOLL_CLOEXEC);
    if (descriptors_.sights[i] < 0) return CannotMake("an epoll set for each worker");
    for (const int fd : {descriptors_.keeper, end_, descriptors_.bell}) {
      epoll_event event = EventOf(fd, descriptors_);
      if (epoll_ctl(descriptors_.sights[i], EPOLL_CTL_ADD, fd, &event) != 0) {
        return CannotMake("an entry in an epoll set (fs.epoll.max_user_watches)");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ProcessShared::CheckListener(int listen_fd) {
  const int flags = fcntl(listen_fd, F_GETFL);
  if (flags < 0) {
    return absl::InvalidArgumentError(absl::StrCat(listen_fd, " is no open descriptor"));
  }
  if (Option(listen_fd, SO_ACCEPTCONN) != 1 || Option(listen_fd, SO_TYPE) != SOCK_STREAM) {
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor ", listen_fd,
                     " is no listener: it must be a stream socket on which listen() was called"));
  }
  if ((flags & O_NONBLOCK) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("listener ", listen_fd,
                     " blocks, and whoever finds nothing there would hang: set O_NONBLOCK"));
  }
  return absl::OkStatus();
}

absl::Status ProcessShared::Add(int listen_fd, uint64_t token) {
  if (absl::Status status = CheckListener(listen_fd); !status.ok()) return status;
  const uint64_t cookie = CookieOf(listen_fd);
  for (uint32_t i = 0; i < sources_; ++i) {
    if (cookies_[i] == cookie) {
      return absl::AlreadyExistsError(
          absl::StrCat("listener ", listen_fd, " was added before, perhaps by another number"));
    }
  }
  if (sources_ == kSourcesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are ", kSourcesMax, " listeners, and no more are possible"));
  }
  const int duplicate = fcntl(listen_fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) return CannotMake("a duplicate of the listener");
  descriptors_.listeners[sources_] = duplicate;
  cookies_[sources_] = cookie;
  tokens_[sources_] = token;
  Source& source = area_->sources[sources_];
  source.cookie.store(cookie);
  source.mode.store(Mode::kAimed);
  ++sources_;
  return absl::OkStatus();
}

uint64_t ProcessShared::OwnerOf(pid_t pid, uint32_t sources) const {
  // The mixing of SplitMix64 (Steele, Lea and Flood, 2014).
  uint64_t mixed = secret_ + static_cast<uint32_t>(pid);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  const uint64_t number = (mixed >> 32) / kSourcesBound * kSourcesBound + sources;
  return static_cast<uint64_t>(static_cast<uint32_t>(pid)) << 32 | number;
}

void ProcessShared::CloseListeners() {
  for (int& fd : descriptors_.listeners) {
    if (fd >= 0) close(std::exchange(fd, -1));
  }
}

void ProcessShared::SetChute(uint32_t place, int out) {
  has_chutes_ = true;
  chutes_[place] = out;
  chute_numbers_[place] = CookieOf(out);
}

// Workers that were forked before have the old one under this number. Their sights must not show
// it, because it is at its end.
void ProcessShared::ReplaceChute(uint32_t place, int out) {
  epoll_ctl(descriptors_.sights[place], EPOLL_CTL_DEL, chutes_[place], nullptr);
  dup3(out, chutes_[place], O_CLOEXEC);
  close(out);
  chute_numbers_[place] = CookieOf(chutes_[place]);
}

void ProcessShared::KeepOnlyChute(uint32_t place) {
  // The one that it has, which may be an older one than its parent's.
  chute_numbers_[place] = CookieOf(chutes_[place]);
  for (uint32_t i = 0; i < workers_max_; ++i) {
    if (i != place && chutes_[i] >= 0) close(std::exchange(chutes_[i], -1));
  }
}

void ProcessShared::CloseDescriptors() {
  CloseListeners();
  for (int& fd : chutes_) {
    if (fd >= 0) close(std::exchange(fd, -1));
  }
  for (int& fd : descriptors_.sights) {
    if (fd >= 0) close(std::exchange(fd, -1));
  }
  for (int* const fd : {&descriptors_.memory, &descriptors_.bell, &descriptors_.keeper, &end_}) {
    if (*fd >= 0) close(std::exchange(*fd, -1));
  }
}

void ProcessShared::Forget() {
  descriptors_ = {};
  end_ = -1;
  chutes_.fill(-1);
}

void ProcessShared::CloseOnExec() const {
  ForEachDescriptor([](int fd) { fcntl(fd, F_SETFD, FD_CLOEXEC); });
}

// --- From one program to the next ----------------------------------------------------------------

std::string ProcessShared::Variable() const {
  std::string value =
      absl::StrCat(kVersion, ",", sizeof(Area), ",", memory_number_, ",", parent_, ",",
                   static_cast<uint32_t>(choice_.kind), ",", choice_.parameter, ",",
                   descriptors_.memory, ",", descriptors_.bell, ",", descriptors_.keeper, ",", end_,
                   ",", workers_max_, ",", sources_, ",", secret_, ",", has_chutes_ ? 1 : 0);
  for (uint32_t i = 0; i < workers_max_; ++i) absl::StrAppend(&value, ",", descriptors_.sights[i]);
  for (uint32_t i = 0; i < sources_; ++i) {
    // -1 after the end.
    absl::StrAppend(&value, ",", static_cast<uint32_t>(descriptors_.listeners[i]), ",", cookies_[i],
                    ",", tokens_[i]);
  }
  for (uint32_t i = 0; has_chutes_ && i < workers_max_; ++i) {
    absl::StrAppend(&value, ",", chutes_[i]);
  }
  absl::StrAppend(&value, ",", SumOf(value));
  return value;
}

bool ProcessShared::Parse(const std::string& value) {
  std::vector<uint64_t> words;
  const char* at = value.data();
  const char* const end = at + value.size();
  while (true) {
    uint64_t word = 0;
    const std::from_chars_result parsed = std::from_chars(at, end, word);
    if (parsed.ec != std::errc{}) return false;
    words.push_back(word);
    if (parsed.ptr == end) break;
    if (*parsed.ptr != ',') return false;
    at = parsed.ptr + 1;
  }
  if (words.back() != SumOf(value.substr(0, value.rfind(',')))) return false;
  words.pop_back();
  constexpr size_t kFirst = 14;
  if (words.size() < kFirst || words[0] != kVersion || words[1] != sizeof(Area)) return false;
  if (words[10] == 0 || words[10] > kSightsMax || words[11] > kSourcesMax) return false;
  workers_max_ = static_cast<uint32_t>(words[10]);
  sources_ = static_cast<uint32_t>(words[11]);
  has_chutes_ = words[13] != 0;
  const size_t first_chute = kFirst + workers_max_ + size_t{3} * sources_;
  if (words.size() != first_chute + (has_chutes_ ? workers_max_ : 0)) return false;
  const auto number = [&](size_t i) { return static_cast<int>(words[i]); };
  memory_number_ = words[2];
  secret_ = words[12];
  parent_ = number(3);
  choice_ = {.kind = static_cast<processes::PolicyKind>(words[4]), .parameter = words[5]};
  descriptors_.memory = number(6);
  descriptors_.bell = number(7);
  descriptors_.keeper = number(8);
  end_ = number(9);
  for (uint32_t i = 0; i < workers_max_; ++i) descriptors_.sights[i] = number(kFirst + i);
  for (uint32_t i = 0; i < sources_; ++i) {
    const size_t first = kFirst + workers_max_ + size_t{3} * i;
    descriptors_.listeners[i] = number(first);
    cookies_[i] = words[first + 1];
    tokens_[i] = words[first + 2];
  }
  for (uint32_t i = 0; has_chutes_ && i < workers_max_; ++i) chutes_[i] = number(first_chute + i);
  return true;
}

absl::Status ProcessShared::Changed(int fd, const char* what) const {
  return absl::FailedPreconditionError(
      inherited_ ? absl::StrCat("descriptor ", fd, " is not ", what, " that ", kVariable,
                                " says it is: call KeepAcrossExec between fork and exec, and "
                                "close nothing before Inherit")
                 : absl::StrCat("descriptor ", fd, " is not ", what,
                                " any more that it was in the parent: close nothing between fork "
                                "and Join but what is yours"));
}

absl::Status ProcessShared::Check() const {
  if (descriptors_.memory < 0) {
    return absl::FailedPreconditionError(
        "the group's descriptors were closed by a port that has left, in this process or in one "
        "that it was forked from: fork workers from the parent");
  }
  struct stat memory {};
  const int seals = fcntl(descriptors_.memory, F_GET_SEALS);
  if (fstat(descriptors_.memory, &memory) != 0 || memory.st_ino != memory_number_ ||
      memory.st_size != static_cast<off_t>(sizeof(Area)) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return Changed(descriptors_.memory, "the shared memory");
  }
  if (absl::Status status = CheckSights(); !status.ok()) return status;
  for (uint32_t i = 0; i < sources_; ++i) {
    if (CookieOf(descriptors_.listeners[i]) != cookies_[i]) {
      return Changed(descriptors_.listeners[i], "the listener");
    }
  }
  for (uint32_t i = 0; has_chutes_ && i < workers_max_; ++i) {
    if (!inherited_ && chutes_[i] < 0) {
      return absl::FailedPreconditionError(
          "this process was forked from a worker, which has closed what others are given: fork "
          "workers from the parent");
    }
    // What the variable says of it may be older than the chute.
    if (Option(chutes_[i], SO_TYPE) != SOCK_SEQPACKET ||
        (!inherited_ && CookieOf(chutes_[i]) != chute_numbers_[i])) {
      return Changed(chutes_[i], "the socket");
    }
  }
  return absl::OkStatus();
}

// An epoll set has an entry for a file under its number, or has none. So what stands in the sights
// is what it was, and a sight in which anything stands is one, too.
absl::Status ProcessShared::CheckSights() const {
  bool end_stands = false;
  bool keeper_stands = false;
  for (uint32_t i = 0; i < workers_max_; ++i) {
    const auto stands = [&](int fd) {
      epoll_event event = EventOf(fd, descriptors_);
      return epoll_ctl(descriptors_.sights[i], EPOLL_CTL_MOD, fd, &event) == 0;
    };
    const bool bell = stands(descriptors_.bell);
    const bool end = stands(end_);
    const bool keeper = stands(descriptors_.keeper);
    if (!bell && !end && !keeper) return Changed(descriptors_.sights[i], "the epoll set");
    if (!bell) return Changed(descriptors_.bell, "the eventfd");
    end_stands |= end;
    keeper_stands |= keeper;
  }
  // A worker that has seen one of these two has taken it out.
  if (!end_stands && !Readable(end_)) return Changed(end_, "the eventfd");
  if (Readable(end_)) {
    return absl::FailedPreconditionError(
        "the parent has called BeginShutdown, so nobody joins any more");
  }
  if (!keeper_stands && !Readable(descriptors_.keeper)) {
    return Changed(descriptors_.keeper, "the descriptor of the parent");
  }
  if (Readable(descriptors_.keeper)) {
    return absl::FailedPreconditionError(
        "the parent has ended, and nobody looks after workers: start the server anew");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ProcessShared>> ProcessShared::FromVariable(
    const std::string& value) {
  std::shared_ptr<ProcessShared> shared(new ProcessShared);
  shared->inherited_ = true;
  absl::Status status =
      shared->Parse(value)
          ? shared->Check()
          : absl::FailedPreconditionError(
                absl::StrCat(kVariable,
                             " is not what this version of the library writes: parent and worker "
                             "must be built with the same one, and nothing may change the value"));
  if (status.ok()) status = shared->Map();
  if (!status.ok()) {
    shared->Forget();
    return status;
  }
  return shared;
}

}  // namespace ringmaster::internal
