#include "processes/shared.h"

#include <fcntl.h>
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
constexpr uint64_t kVersion = 1;

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
    for (const int fd : {descriptors_.keeper, end_}) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      if (epoll_ctl(descriptors_.sights[i], EPOLL_CTL_ADD, fd, &event) != 0) {
        return CannotMake("an entry in an epoll set (fs.epoll.max_user_watches)");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ProcessShared::Add(int listen_fd, uint64_t token) {
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
                     " blocks, and a worker that finds nothing there would hang: set O_NONBLOCK"));
  }
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

uint64_t ProcessShared::OwnerOf(pid_t pid) const {
  // The mixing of SplitMix64 (Steele, Lea and Flood, 2014).
  uint64_t mixed = secret_ + static_cast<uint32_t>(pid);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return static_cast<uint64_t>(static_cast<uint32_t>(pid)) << 32 |
         static_cast<uint32_t>(mixed >> 32);
}

void ProcessShared::CloseListeners() {
  for (int& fd : descriptors_.listeners) {
    if (fd >= 0) close(std::exchange(fd, -1));
  }
}

void ProcessShared::CloseDescriptors() {
  CloseListeners();
  for (int& fd : descriptors_.sights) {
    if (fd >= 0) close(std::exchange(fd, -1));
  }
  for (int* const fd : {&descriptors_.memory, &descriptors_.bell, &descriptors_.keeper, &end_}) {
    if (*fd >= 0) close(std::exchange(*fd, -1));
  }
}

// --- From one program to the next ----------------------------------------------------------------

std::string ProcessShared::Variable() const {
  struct stat memory {};
  fstat(descriptors_.memory, &memory);
  std::string value =
      absl::StrCat(kVersion, ",", sizeof(Area), ",", static_cast<uint64_t>(memory.st_ino), ",",
                   parent_, ",", static_cast<uint32_t>(choice_.kind), ",", choice_.parameter, ",",
                   descriptors_.memory, ",", descriptors_.bell, ",", descriptors_.keeper, ",", end_,
                   ",", workers_max_, ",", sources_, ",", secret_);
  for (uint32_t i = 0; i < workers_max_; ++i) absl::StrAppend(&value, ",", descriptors_.sights[i]);
  for (uint32_t i = 0; i < sources_; ++i) {
    absl::StrAppend(&value, ",", descriptors_.listeners[i], ",", cookies_[i], ",", tokens_[i]);
  }
  return value;
}

bool ProcessShared::Parse(const std::string& value, uint64_t& memory_number) {
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
  constexpr size_t kFirst = 13;
  if (words.size() < kFirst || words[0] != kVersion || words[1] != sizeof(Area)) return false;
  if (words[10] == 0 || words[10] > kSightsMax || words[11] > kSourcesMax) return false;
  workers_max_ = static_cast<uint32_t>(words[10]);
  sources_ = static_cast<uint32_t>(words[11]);
  if (words.size() != kFirst + workers_max_ + size_t{3} * sources_) return false;
  const auto number = [&](size_t i) { return static_cast<int>(words[i]); };
  memory_number = words[2];
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
  return true;
}

// That the descriptors are still what they were: another program may have closed some of them, and
// opened others by their numbers.
absl::Status ProcessShared::Check(uint64_t memory_number) const {
  const auto missing = [](int fd, const char* what) {
    return absl::FailedPreconditionError(
        absl::StrCat("descriptor ", fd, " is not ", what, " that ", kVariable,
                     " says it is: call KeepAcrossExec between fork and exec, and close nothing "
                     "before Inherit"));
  };
  struct stat memory {};
  const int seals = fcntl(descriptors_.memory, F_GET_SEALS);
  if (fstat(descriptors_.memory, &memory) != 0 || memory.st_ino != memory_number ||
      memory.st_size != static_cast<off_t>(sizeof(Area)) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return missing(descriptors_.memory, "the shared memory");
  }
  for (const int fd : {descriptors_.bell, end_}) {
    if (fcntl(fd, F_GETFD) < 0) return missing(fd, "the eventfd");
  }
  for (uint32_t i = 0; i < workers_max_; ++i) {
    for (const int fd : {descriptors_.keeper, end_}) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      // One whose worker has seen the end does not show it any more.
      if (epoll_ctl(descriptors_.sights[i], EPOLL_CTL_MOD, fd, &event) != 0 && errno != ENOENT) {
        return missing(descriptors_.sights[i], "the epoll set");
      }
    }
  }
  for (uint32_t i = 0; i < sources_; ++i) {
    if (CookieOf(descriptors_.listeners[i]) != cookies_[i]) {
      return missing(descriptors_.listeners[i], "the listener");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ProcessShared>> ProcessShared::FromVariable(
    const std::string& value) {
  std::shared_ptr<ProcessShared> shared(new ProcessShared);
  uint64_t memory_number = 0;
  const bool parsed = shared->Parse(value, memory_number);
  absl::Status status =
      parsed ? shared->Check(memory_number)
             : absl::FailedPreconditionError(absl::StrCat(
                   kVariable,
                   " is not what this version of the library writes: parent and worker "
                   "must be built with the same one"));
  if (!status.ok()) {
    // They may be somebody else's.
    shared->descriptors_ = {};
    shared->end_ = -1;
    return status;
  }
  shared->ForEachDescriptor([](int fd) { fcntl(fd, F_SETFD, FD_CLOEXEC); });
  if (status = shared->Map(); !status.ok()) return status;
  return shared;
}

}  // namespace ringmaster::internal
