// A worker that is broken or hostile writes what it likes over what the processes share, all the
// time, and rings the keeper's bell. Method: it does so as fast as it can while clients come. Every
// one of them must be answered by the other workers, and the parent must stay as it is. How long
// they wait then is only printed. Where its parent gives connections, a worker does to its chute
// what it can besides.

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "process_server.h"
#include "processes/area.h"
#include "ringmaster/processes.h"
#include "support/split_mix.h"
#include "worker_processes_fixture.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

// What this process shares, as words.
std::span<std::atomic<uint32_t>> SharedMemory() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:ringmaster") == std::string::npos) continue;
    uintptr_t begin = 0;
    uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2) continue;
    return {reinterpret_cast<std::atomic<uint32_t>*>(begin), (end - begin) / sizeof(uint32_t)};
  }
  return {};
}

enum class What : uint8_t { kRandom, kHarmful, kZeros, kOnes, kByTurns, kPermits, kJoined };

// Never returns.
void Scribble(What what, int bell) {
  const std::span<std::atomic<uint32_t>> words = SharedMemory();
  if (words.size_bytes() < sizeof(processes::Area)) _exit(1);
  auto& area = *reinterpret_cast<processes::Area*>(words.data());
  SplitMix random(1);
  const uint64_t one = 1;
  for (uint64_t round = 0;; ++round) {
    if (what < What::kPermits) static_cast<void>(write(bell, &one, sizeof(one)));
    const auto now = what == What::kByTurns ? static_cast<What>(round / 1'000 % 4) : what;
    switch (now) {
      case What::kRandom:
      case What::kHarmful:
        for (int i = 0; i < 1'000; ++i) {
          const uint64_t drawn = random.Next();
          const auto value = static_cast<uint32_t>(drawn >> 32);
          // Small numbers and those at the ends harm more than most others.
          words[drawn % words.size()].store(now == What::kRandom ? value
                                            : value % 2 == 0     ? value >> 25
                                                                 : UINT32_MAX - (value >> 30));
        }
        break;
      case What::kZeros:
      case What::kOnes:
      case What::kByTurns:
        for (std::atomic<uint32_t>& word : words) {
          word.store(now == What::kZeros ? 0 : UINT32_MAX, std::memory_order_relaxed);
        }
        break;
      // What nobody but its worker could know to be wrong.
      case What::kPermits:
        for (processes::Worker& worker : area.workers) worker.of_source[0].permits.Clear();
        break;
      case What::kJoined:
        area.sources[0].joined.store(0);
        break;
    }
  }
}

class HostileWorkerTest : public WorkerProcessesTest, public ::testing::WithParamInterface<What> {};

TEST_P(HostileWorkerTest, EverybodyElseServesOnAndNothingIsLost) {
  Create({.workers_max = 5});
  StartWorkers(3);
  if (HasFatalFailure()) return;
  ClientLoad load(listener_, 200);
  load.RunUntil(Clock::now() + milliseconds(200));
  ASSERT_TRUE(load.Finish(kSoon));
  const size_t descriptors = OpenDescriptors();
  const size_t kilobytes = ResidentKilobytes();
  const auto cpu_before = std::clock();
  const pid_t hostile = Fork([&] {
    load.CloseInChild();
    close(listener_.fd());
    const int bell = workers_->Descriptors()[1];
    const auto port = workers_->Join();
    if (!port.ok()) _exit(1);
    raise(SIGSTOP);
    Scribble(GetParam(), bell);
  });
  ASSERT_TRUE(HaveJoined(4));
  int status = 0;
  ASSERT_EQ(waitpid(hostile, &status, WUNTRACED), hostile);
  kill(hostile, SIGCONT);
  const auto begun = Clock::now();
  const uint64_t answered_before = load.answered();
  load.RunUntil(begun + (GetParam() == What::kRandom ? LongTime() : LongTime() / 3));
  EXPECT_TRUE(load.Finish(kSoon)) << load.waiting() << " wait";
  const uint64_t answered = load.answered() - answered_before;
  // The parent lives on as before, but for the hostile worker.
  const std::chrono::duration<double> seconds = Clock::now() - begun;
  const double cpu = static_cast<double>(std::clock() - cpu_before) / CLOCKS_PER_SEC;
  const size_t descriptors_then = OpenDescriptors();
  const size_t kilobytes_then = ResidentKilobytes();
  EXPECT_LE(descriptors_then, descriptors + 1);
  EXPECT_LT(kilobytes_then, kilobytes + 4'096);
  for (int i = 0; i < 10; ++i) EXPECT_NE(AskOnce(listener_).pid, hostile);
  // Nonsense that it has left behind is put right.
  Kill(hostile);
  ASSERT_TRUE(HaveJoined(3));
  StartWorker();
  ASSERT_TRUE(HaveJoined(4));
  ExpectPutRight();
  std::printf(
      "%.1f s: %llu answered, %llu lost, %llu refused; the longest waited %lld ms; parent and "
      "clients used %.0f %% of a CPU; descriptors %zu -> %zu, resident kB %zu -> %zu\n",
      seconds.count(), static_cast<unsigned long long>(answered),
      static_cast<unsigned long long>(load.lost()), static_cast<unsigned long long>(load.refused()),
      static_cast<long long>(load.longest().count()), 100 * cpu / seconds.count(), descriptors,
      descriptors_then, kilobytes, kilobytes_then);
  EXPECT_GT(answered, 0u);
  EXPECT_EQ(load.lost(), 0u);
  EXPECT_EQ(load.refused(), 0u);
  for (const pid_t pid : pids_) EXPECT_EQ(kill(pid, 0), 0);
}

// --- A worker to which its parent gives ----------------------------------------------------------

// What it does with its chute, and with all that it shares.
enum class Harm : uint8_t { kScribbles, kShutsDown, kFilters, kAsksForMore, kPeeks, kTakesOnly };

// Never returns.
void DoHarm(Harm harm, uint32_t worker, int bell) {
  int chute = -1;
  for (int fd = 0; fd < 1'024; ++fd) {
    int type = 0;
    socklen_t length = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET) {
      chute = fd;
    }
  }
  if (chute < 0) _exit(1);
  const int on = 1;
  const int off = 0;
  sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{.len = 1, .filter = drop};
  char byte = 0;
  iovec part{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[64];
  auto& area = *reinterpret_cast<processes::Area*>(SharedMemory().data());
  switch (harm) {
    case Harm::kScribbles:
      Scribble(What::kByTurns, bell);
      break;
    case Harm::kShutsDown:
      shutdown(chute, SHUT_RDWR);
      break;
    case Harm::kFilters:
      setsockopt(chute, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
      setsockopt(chute, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on));
      break;
    case Harm::kAsksForMore:
      setsockopt(chute, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
      setsockopt(chute, SOL_SOCKET, 76 /* SO_PASSPIDFD */, &on, sizeof(on));
      setsockopt(chute, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &off, sizeof(off));
      break;
    case Harm::kPeeks:
    case Harm::kTakesOnly:
      break;
  }
  while (true) {
    // As one that waits, and has nothing to do, so that it is given more than anybody else.
    area.workers[worker].waits.store(1);
    area.workers[worker].marked.store(0);
    area.workers[worker].open.store(0);
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const int flags = harm == Harm::kPeeks ? MSG_PEEK : 0;
    if (harm < Harm::kPeeks || recvmsg(chute, &message, MSG_DONTWAIT | flags) < 0) {
      usleep(1'000);
    } else if (const cmsghdr* const header = CMSG_FIRSTHDR(&message); header != nullptr) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      close(fd);
    }
  }
}

class HostileTakerTest : public WorkerProcessesTest, public ::testing::WithParamInterface<Harm> {};

TEST_P(HostileTakerTest, HurtsOnlyWhatItWasGiven) {
  const Harm harm = GetParam();
  Create({.workers_max = 5, .given_max = 4});
  StartWorkers(3);
  if (HasFatalFailure()) return;
  ClientLoad load(listener_, 500);
  load.RunUntil(Clock::now() + milliseconds(200));
  ASSERT_TRUE(load.Finish(kSoon));
  const size_t descriptors = OpenDescriptors();
  const size_t kilobytes = ResidentKilobytes();
  const auto cpu_before = std::clock();
  // Once the keeper knows it, it does harm.
  const auto start = [&] {
    const pid_t pid = Fork([&] {
      load.CloseInChild();
      close(listener_.fd());
      const int bell = workers_->Descriptors()[1];
      const auto port = workers_->Join();
      if (!port.ok()) _exit(1);
      raise(SIGSTOP);
      DoHarm(harm, port->worker(), bell);
    });
    EXPECT_TRUE(HaveJoined(4));
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, WUNTRACED), pid);
    kill(pid, SIGCONT);
    return pid;
  };
  const auto begun = Clock::now();
  pid_t hostile = start();
  load.RunUntil(begun + LongTime() / 3);
  EXPECT_TRUE(load.Finish(kSoon)) << load.waiting() << " wait";
  const std::chrono::duration<double> seconds = Clock::now() - begun;
  const double cpu = static_cast<double>(std::clock() - cpu_before) / CLOCKS_PER_SEC;
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors + 1; }))
      << descriptors << " -> " << OpenDescriptors();
  EXPECT_LT(ResidentKilobytes(), kilobytes + 4'096);
  // Those that it was given it may have thrown away, and nobody else's.
  const WorkerProcessesStats stats = workers_->Stats();
  std::printf(
      "%.1f s: %llu answered, %llu lost, %llu refused, %llu came back; the longest waited %lld ms; "
      "parent and clients used %.0f %% of a CPU\n",
      seconds.count(), static_cast<unsigned long long>(load.answered()),
      static_cast<unsigned long long>(load.lost()), static_cast<unsigned long long>(load.refused()),
      static_cast<unsigned long long>(stats.taken_back),
      static_cast<long long>(load.longest().count()), 100 * cpu / seconds.count());
  const bool may_lose =
      harm == Harm::kFilters || harm == Harm::kTakesOnly || harm == Harm::kAsksForMore;
  EXPECT_EQ(load.refused(), 0u);
  if (!may_lose) {
    EXPECT_EQ(load.lost(), 0u);
  }
  // Whoever has its place next is served as everybody else is, again and again.
  for (int i = 0; i < 3; ++i) {
    Kill(hostile);
    ASSERT_TRUE(HaveJoined(3));
    const pid_t heir = StartWorker();
    ASSERT_TRUE(HaveJoined(4));
    EXPECT_TRUE(Becomes([&] { return AskOnce(listener_).pid == heir; }));
    Kill(heir);
    ASSERT_TRUE(HaveJoined(3));
    hostile = start();
  }
  Kill(hostile);
  ASSERT_TRUE(HaveJoined(3));
  StartWorker();
  ASSERT_TRUE(HaveJoined(4));
  // Nonsense that it has left behind is put right while connections come.
  ExpectPutRight();
  // The last one that was answered may be about to be closed here.
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors + 1 + clients_.size(); }));
  for (const pid_t pid : pids_) EXPECT_EQ(kill(pid, 0), 0);
}

std::string NameOfHarm(const ::testing::TestParamInfo<Harm>& instance) {
  constexpr const char* kNames[] = {"scribbles",     "shuts_down", "filters",
                                    "asks_for_more", "peeks",      "takes_only"};
  return kNames[static_cast<size_t>(instance.param)];
}

INSTANTIATE_TEST_SUITE_P(Chute, HostileTakerTest,
                         ::testing::Values(Harm::kScribbles, Harm::kShutsDown, Harm::kFilters,
                                           Harm::kAsksForMore, Harm::kPeeks, Harm::kTakesOnly),
                         NameOfHarm);

std::string NameOf(const ::testing::TestParamInfo<What>& instance) {
  constexpr const char* kNames[] = {"random",   "harmful", "zeros", "ones",
                                    "by_turns", "permits", "joined"};
  return kNames[static_cast<size_t>(instance.param)];
}

INSTANTIATE_TEST_SUITE_P(Words, HostileWorkerTest,
                         ::testing::Values(What::kRandom, What::kHarmful, What::kZeros, What::kOnes,
                                           What::kByTurns, What::kPermits, What::kJoined),
                         NameOf);

}  // namespace
}  // namespace ringmaster::testing
