// The functions of the C library that the shim replaces, so that a server which was not written for
// it accepts by permits. Each asks the process (run/process.h) whether a descriptor is ours; if it
// is not, and wherever anything is missing, the call goes on as it came.
//
// Descriptors of our own stay hidden: they are above what a server has, they do not survive an
// exec, and whoever closes ranges does not close them.

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "run/process.h"

// A pointer to a function of the C library forgets that function's attributes.
#pragma GCC diagnostic ignored "-Wignored-attributes"

namespace ringmaster::run {
namespace {

// The function that this one stands before.
template <typename Function>
Function* Next(std::atomic<Function*>& known, const char* name) {
  Function* next = known.load(std::memory_order_acquire);
  if (next == nullptr) {
    next = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
    known.store(next, std::memory_order_release);
  }
  return next;
}
#define RINGMASTER_NEXT(name)                         \
  static std::atomic<decltype(::name)*> known_##name; \
  auto* const next = Next(known_##name, #name)

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000 + now.tv_nsec / 1'000'000;
}

// Calls it. If the thread is cancelled inside, calls `ends` instead of returning. A destructor
// would not do: it needs a C++ runtime that the server may have another one of.
template <typename Call, typename Ends>
int CallUnlessCancelled(Call call, Ends ends) {
  volatile int result = -1;
  pthread_cleanup_push([](void* of) { (*static_cast<Ends*>(of))(); }, &ends);
  result = call();
  pthread_cleanup_pop(0);
  return result;
}

// `wait(timeout)` is the call; a negative timeout waits for ever. If all that it brings was taken
// out again, it waits for the rest of its time.
template <typename Wait>
int WaitFor(int epoll_fd, epoll_event* events, int64_t timeout_ms, Wait wait) {
  Process& process = Process::Get();
  Set* const set = process.active() ? process.SetOf(epoll_fd) : nullptr;
  if (set == nullptr) return wait(timeout_ms);
  const int64_t until = timeout_ms > 0 ? NowMs() + timeout_ms : 0;
  while (true) {
    process.BeforeWait(*set, timeout_ms != 0);
    const int came =
        CallUnlessCancelled([&] { return wait(timeout_ms); }, [&] { process.WaitEnds(*set); });
    const int left = process.AfterWait(*set, events, came);
    if (came <= 0 || left > 0 || timeout_ms == 0) return left;
    if (timeout_ms > 0) timeout_ms = std::max<int64_t>(0, until - NowMs());
  }
}

template <typename Accept>
int AcceptFor(int fd, Accept accept) {
  Process& process = Process::Get();
  if (!process.active()) return accept();
  if (!process.IsSource(fd)) {
    const int accepted = accept();
    if (accepted >= 0) process.AcceptedFrom(fd);
    return accepted;
  }
  const Process::Accepting accepting = process.BeforeAccept(fd);
  if (accepting.way == Process::Way::kNoPermit) {
    errno = EAGAIN;
    return -1;
  }
  const int accepted = CallUnlessCancelled(accept, [&] { process.AfterAccept(accepting, -1); });
  process.AfterAccept(accepting, accepted);
  return accepted;
}

int DescriptorFor(const char* name, std::atomic<decltype(::fcntl)*>& known, int fd, int command,
                  void* argument) {
  const int result = Next(known, name)(fd, command, argument);
  Process& process = Process::Get();
  if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0 && process.active()) {
    process.Duplicated(fd, result);
  }
  return result;
}

// A program that is started with an environment of its own (nginx is, for its upgrade) takes the
// shim along. What else it is to load (LD_PRELOAD) comes after it.
constexpr size_t kEnvironmentMax = 4096;
struct Environment {
  char* const* entries;
  char* with[kEnvironmentMax + 3];
  char loads[8192];

  explicit Environment(char* const* given) : entries(given) {
    const Process& process = Process::Get();
    if (!process.active() || given == nullptr) return;
    size_t count = 0;
    bool preloads = false;
    bool named = false;
    for (; given[count] != nullptr; ++count) {
      if (count == kEnvironmentMax) return;
      char* const entry = given[count];
      with[count] = entry;
      named |= std::strncmp(entry, "RINGMASTER_RUN=", 15) == 0;
      if (std::strncmp(entry, "LD_PRELOAD=", 11) != 0) continue;
      preloads = true;
      if (Loads(entry + 11, process.path())) continue;
      const int length =
          std::snprintf(loads, sizeof(loads), "LD_PRELOAD=%s:%s", process.path(), entry + 11);
      if (length < 0 || static_cast<size_t>(length) >= sizeof(loads)) return;
      with[count] = loads;
    }
    if (!preloads) with[count++] = const_cast<char*>(process.preload());
    if (!named) with[count++] = const_cast<char*>(process.variable());
    with[count] = nullptr;
    entries = with;
  }

  // Whether it is among the words of what is to be loaded.
  static bool Loads(const char* words, const char* path) {
    const size_t length = std::strlen(path);
    while (*words != '\0') {
      const size_t word = std::strcspn(words, ": ");
      if (word == length && std::strncmp(words, path, length) == 0) return true;
      words += word;
      words += std::strspn(words, ": ");
    }
    return false;
  }
};

// The words of a call that has them one by one, the last of which is null.
size_t CountWords(va_list rest) {
  va_list all;
  va_copy(all, rest);
  size_t count = 1;
  while (va_arg(all, char*) != nullptr) ++count;
  va_end(all);
  return count;
}
void TakeWords(char** words, size_t count, const char* first, va_list rest) {
  words[0] = const_cast<char*>(first);
  for (size_t i = 1; i <= count; ++i) words[i] = va_arg(rest, char*);
}

__attribute__((constructor)) void Load() {
  Process& process = Process::Get();
  process.Start();
  if (process.active()) pthread_atfork(nullptr, nullptr, [] { Process::Get().AfterFork(); });
}

}  // namespace
}  // namespace ringmaster::run

using ringmaster::run::AcceptFor;
using ringmaster::run::CountWords;
using ringmaster::run::DescriptorFor;
using ringmaster::run::Environment;
using ringmaster::run::Next;
using ringmaster::run::Process;
using ringmaster::run::TakeWords;
using ringmaster::run::WaitFor;

#pragma GCC visibility push(default)
extern "C" {

// --- epoll ---------------------------------------------------------------------------------------

int epoll_ctl(int epoll_fd, int op, int fd, epoll_event* event) noexcept {
  RINGMASTER_NEXT(epoll_ctl);
  Process& process = Process::Get();
  int result = -1;
  if (process.active() && process.Control(epoll_fd, op, fd, event, result)) return result;
  return next(epoll_fd, op, fd, event);
}

int epoll_wait(int epoll_fd, epoll_event* events, int events_max, int timeout) {
  RINGMASTER_NEXT(epoll_wait);
  return WaitFor(epoll_fd, events, timeout, [&](int64_t left) {
    return next(epoll_fd, events, events_max, static_cast<int>(left));
  });
}

int epoll_pwait(int epoll_fd, epoll_event* events, int events_max, int timeout,
                const sigset_t* mask) {
  RINGMASTER_NEXT(epoll_pwait);
  return WaitFor(epoll_fd, events, timeout, [&](int64_t left) {
    return next(epoll_fd, events, events_max, static_cast<int>(left), mask);
  });
}

int epoll_pwait2(int epoll_fd, epoll_event* events, int events_max, const timespec* timeout,
                 const sigset_t* mask) {
  RINGMASTER_NEXT(epoll_pwait2);
  int64_t timeout_ms = -1;
  if (timeout != nullptr) {
    timeout_ms = int64_t{timeout->tv_sec} * 1'000 + (timeout->tv_nsec + 999'999) / 1'000'000;
  }
  bool first = true;
  return WaitFor(epoll_fd, events, timeout_ms, [&](int64_t left) {
    const timespec rest{.tv_sec = left / 1'000, .tv_nsec = left % 1'000 * 1'000'000};
    const timespec* const now = timeout == nullptr || std::exchange(first, false) ? timeout : &rest;
    return next(epoll_fd, events, events_max, now, mask);
  });
}

// --- accept --------------------------------------------------------------------------------------

int listen(int fd, int backlog) noexcept {
  RINGMASTER_NEXT(listen);
  const int result = next(fd, backlog);
  Process& process = Process::Get();
  if (result == 0 && process.active()) process.Listens(fd);
  return result;
}

int accept(int fd, sockaddr* address, socklen_t* length) {
  RINGMASTER_NEXT(accept);
  return AcceptFor(fd, [&] { return next(fd, address, length); });
}

int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  RINGMASTER_NEXT(accept4);
  return AcceptFor(fd, [&] { return next(fd, address, length, flags); });
}

// --- Descriptors ---------------------------------------------------------------------------------

int close(int fd) {
  RINGMASTER_NEXT(close);
  Process& process = Process::Get();
  if (process.active()) {
    if (process.numbers().Has(fd)) {
      errno = EBADF;
      return -1;
    }
    process.Closed(fd);
  }
  return next(fd);
}

int dup(int fd) noexcept {
  RINGMASTER_NEXT(dup);
  const int duplicate = next(fd);
  Process& process = Process::Get();
  if (process.active() && duplicate >= 0) process.Duplicated(fd, duplicate);
  return duplicate;
}

int dup2(int fd, int to) noexcept {
  RINGMASTER_NEXT(dup2);
  Process& process = Process::Get();
  if (process.active() && process.numbers().Has(to)) {
    errno = EBADF;
    return -1;
  }
  if (process.active() && fd != to) process.Closed(to);
  const int duplicate = next(fd, to);
  if (process.active() && duplicate >= 0 && fd != to) process.Duplicated(fd, to);
  return duplicate;
}

int dup3(int fd, int to, int flags) noexcept {
  RINGMASTER_NEXT(dup3);
  Process& process = Process::Get();
  if (process.active() && process.numbers().Has(to)) {
    errno = EBADF;
    return -1;
  }
  if (process.active() && fd != to) process.Closed(to);
  const int duplicate = next(fd, to, flags);
  if (process.active() && duplicate >= 0) process.Duplicated(fd, to);
  return duplicate;
}

// By their names in the C library, because a header may call the one by the name of the other.
int ringmaster_fcntl(int fd, int command, ...) __asm__("fcntl");
int ringmaster_fcntl(int fd, int command, ...) {
  static std::atomic<decltype(::fcntl)*> known;
  va_list rest;
  va_start(rest, command);
  void* const argument = va_arg(rest, void*);
  va_end(rest);
  return DescriptorFor("fcntl", known, fd, command, argument);
}

int ringmaster_fcntl64(int fd, int command, ...) __asm__("fcntl64");
int ringmaster_fcntl64(int fd, int command, ...) {
  static std::atomic<decltype(::fcntl)*> known;
  va_list rest;
  va_start(rest, command);
  void* const argument = va_arg(rest, void*);
  va_end(rest);
  return DescriptorFor("fcntl64", known, fd, command, argument);
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
  RINGMASTER_NEXT(close_range);
  Process& process = Process::Get();
  constexpr auto kOnExec = static_cast<int>(CLOSE_RANGE_CLOEXEC);
  if (!process.active() || first > last || (flags & kOnExec) != 0) return next(first, last, flags);
  process.ClosedRange(first, last);
  const auto ours = static_cast<unsigned>(process.numbers().first);
  const unsigned behind = ours + ringmaster::run::Numbers::kCount;
  if (last < ours || first >= behind) return next(first, last, flags);
  if (first < ours && next(first, ours - 1, flags) != 0) return -1;
  return last >= behind ? next(behind, last, flags) : 0;
}

void closefrom(int first) noexcept {
  close_range(static_cast<unsigned>(std::max(first, 0)), ~0U, 0);
}

// --- exec ----------------------------------------------------------------------------------------

int execve(const char* path, char* const arguments[], char* const environment[]) noexcept {
  RINGMASTER_NEXT(execve);
  const Environment with(environment);
  return next(path, arguments, with.entries);
}

int execvpe(const char* file, char* const arguments[], char* const environment[]) noexcept {
  RINGMASTER_NEXT(execvpe);
  const Environment with(environment);
  return next(file, arguments, with.entries);
}

// With the environment of this process, which may have been emptied (env -i).
int execv(const char* path, char* const arguments[]) noexcept {
  char* nothing[] = {nullptr};
  return execve(path, arguments, environ != nullptr ? environ : nothing);
}

int execvp(const char* file, char* const arguments[]) noexcept {
  char* nothing[] = {nullptr};
  return execvpe(file, arguments, environ != nullptr ? environ : nothing);
}

int fexecve(int fd, char* const arguments[], char* const environment[]) noexcept {
  RINGMASTER_NEXT(fexecve);
  const Environment with(environment);
  return next(fd, arguments, with.entries);
}

int execveat(int folder, const char* path, char* const arguments[], char* const environment[],
             int flags) noexcept {
  RINGMASTER_NEXT(execveat);
  const Environment with(environment);
  return next(folder, path, arguments, with.entries, flags);
}

// These three call none of the others where the C library has them.
int execl(const char* path, const char* word, ...) noexcept {
  va_list rest;
  va_start(rest, word);
  const size_t count = CountWords(rest);
  auto** const words = static_cast<char**>(__builtin_alloca((count + 1) * sizeof(char*)));
  TakeWords(words, count, word, rest);
  va_end(rest);
  return execv(path, words);
}

int execlp(const char* file, const char* word, ...) noexcept {
  va_list rest;
  va_start(rest, word);
  const size_t count = CountWords(rest);
  auto** const words = static_cast<char**>(__builtin_alloca((count + 1) * sizeof(char*)));
  TakeWords(words, count, word, rest);
  va_end(rest);
  return execvp(file, words);
}

int execle(const char* path, const char* word, ...) noexcept {
  va_list rest;
  va_start(rest, word);
  const size_t count = CountWords(rest);
  auto** const words = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
  TakeWords(words, count + 1, word, rest);  // the last one is the environment
  va_end(rest);
  return execve(path, words, reinterpret_cast<char**>(words[count + 1]));
}

int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const arguments[],
                char* const environment[]) {
  RINGMASTER_NEXT(posix_spawn);
  const Environment with(environment);
  return next(pid, path, actions, attributes, arguments, with.entries);
}

int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const arguments[],
                 char* const environment[]) {
  RINGMASTER_NEXT(posix_spawnp);
  const Environment with(environment);
  return next(pid, file, actions, attributes, arguments, with.entries);
}

}  // extern "C"
#pragma GCC visibility pop
