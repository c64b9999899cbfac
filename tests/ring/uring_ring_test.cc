// The ring on the real kernel: every operation, and what the rest of the library relies on. Each
// test runs with all that the kernel offers and with less, as an older kernel would.

#include "ring/uring_ring.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/op.h"
#include "ring/features.h"
#include "ring/translate.h"
#include "sockets.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::kWaitForever;
using core::Op;
using core::OpKey;
using core::OpKind;

// So long that only something lost can take it: the tests fail then instead of hanging.
constexpr int64_t kPatienceNs = 20'000'000'000;

struct Variant {
  const char* name;
  bool defer;
  bool dontwait;

  friend void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }
};

// Whether the thread sleeps in the kernel, waiting for completions.
bool WaitsOnARing(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/syscall");
  long number = -1;
  return file >> number && number == __NR_io_uring_enter;
}

class UringRingTest : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    absl::StatusOr<Features> features = ProbeFeatures();
    if (!features.ok()) GTEST_SKIP() << features.status().ToString();
    features_ = *features;
    if (GetParam().defer && !features_.defer_taskrun) GTEST_SKIP() << "no DEFER_TASKRUN";
    if (GetParam().dontwait && !features_.accept_dontwait) GTEST_SKIP() << "no ACCEPT_DONTWAIT";
    features_.defer_taskrun = GetParam().defer;
    features_.single_issuer = GetParam().defer;
    features_.coop_taskrun = false;
    features_.accept_dontwait = GetParam().dontwait;
    completions_.reserve(1024);
    MakeRing(64, 1024);
  }

  void MakeRing(uint32_t submission_entries, uint32_t completion_entries) {
    absl::StatusOr<std::unique_ptr<UringRing>> ring =
        UringRing::Create({.submission_entries = submission_entries,
                           .completion_entries = completion_entries,
                           .features = features_});
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    ASSERT_EQ(ring_->Enable(), 0);
  }

  // Returns what completed.
  const std::vector<Completion>& Turn(std::vector<Op> ops, core::Wait wait = 0) {
    EXPECT_EQ(ring_->Turn(ops, wait, completions_), 0);
    return completions_;
  }

  static Op Make(OpKind kind, int fd, uint16_t generation = 1) {
    return {.key = {.kind = kind, .generation = generation, .index = 7},
            .fd = fd,
            .accept_flags = SOCK_CLOEXEC | SOCK_NONBLOCK};
  }

  // Accepts by kAccept until there is nothing left; returns how many there were.
  int AcceptAll(const Listener& listener) {
    for (int accepted = 0;; ++accepted) {
      const std::vector<Completion>& got =
          Turn({Make(OpKind::kAccept, listener.fd())}, kPatienceNs);
      int result = -ENODATA;
      for (const Completion& completion : got) {
        if (completion.key.kind == OpKind::kAccept) result = completion.result;
      }
      if (result == -EAGAIN) return accepted;
      EXPECT_GE(result, 0);
      if (result < 0) return -1;
      close(result);
    }
  }

  Features features_;
  std::unique_ptr<UringRing> ring_;
  std::vector<Completion> completions_;
};

INSTANTIATE_TEST_SUITE_P(Kernels, UringRingTest,
                         testing::Values(Variant{"Deferring", true, true},
                                         Variant{"Plain", false, true},
                                         Variant{"DeferringWithoutDontWait", true, false},
                                         Variant{"PlainWithoutDontWait", false, false}),
                         [](const auto& test) { return test.param.name; });

TEST_P(UringRingTest, PollMergesAHundredConnectionsAndAcceptDrainsThem) {
  for (const int family : {AF_INET, AF_UNIX}) {
    const Listener listener(family);
    ASSERT_TRUE(listener.ok());
    EXPECT_TRUE(Turn({Make(OpKind::kPoll, listener.fd())}).empty());
    std::vector<Fd> clients;
    for (int i = 0; i < 100; ++i) clients.push_back(listener.Connect());
    const std::vector<Completion> edges = Turn({}, kPatienceNs);
    ASSERT_GE(edges.size(), 1u);
    EXPECT_LE(edges.size(), 100u);
    if (GetParam().defer) {
      EXPECT_EQ(edges.size(), 1u);
    }
    EXPECT_EQ(edges[0].key.kind, OpKind::kPoll);
    EXPECT_EQ(edges[0].key.generation, 1);
    EXPECT_EQ(edges[0].key.index, 7u);
    EXPECT_TRUE(edges[0].result & POLLIN);
    EXPECT_TRUE(edges[0].more);
    EXPECT_EQ(AcceptAll(listener), 100);
    Turn({Make(OpKind::kPollEnd, listener.fd())}, kPatienceNs);
  }
}

TEST_P(UringRingTest, CountsWhatWaitsAtAListenerAndDoesNotWaitItself) {
  const Listener listener(AF_INET);
  std::vector<Fd> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  const auto count = [&](uint16_t expected_of) {
    const std::vector<Completion>& got =
        Turn({Make(OpKind::kCount, listener.fd(), expected_of)}, kWaitForever);
    EXPECT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].key.kind, OpKind::kCount);
    EXPECT_EQ(got[0].key.generation, expected_of);
    EXPECT_EQ(got[0].key.index, 7u);
    EXPECT_FALSE(got[0].more);
    return got[0].result;
  };
  EXPECT_EQ(count(1), 3);
  EXPECT_EQ(AcceptAll(listener), 3);
  EXPECT_EQ(count(2), 0);
  EXPECT_EQ(Turn({Make(OpKind::kCount, -1)}, kWaitForever)[0].result, -EBADF);
}

// A full queue takes one connection more than its limit. What comes then is dropped, and counts at
// this listener alone.
TEST_P(UringRingTest, TellsHowManyAFullQueueHasDropped) {
  constexpr int kLimit = 4;
  constexpr int kDropped = 3;
  const Listener listener(AF_INET);
  const Listener other(AF_INET);
  ASSERT_EQ(listen(listener.fd(), kLimit), 0);
  const auto asked = [&](const Listener& of) {
    const std::vector<Completion>& got = Turn({Make(OpKind::kOverflows, of.fd())}, kWaitForever);
    EXPECT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].key.kind, OpKind::kOverflows);
    EXPECT_FALSE(got[0].more);
    return got[0].result;
  };
  EXPECT_EQ(asked(listener), 0);
  std::vector<Fd> clients;
  for (int i = 0; i < kLimit + 1; ++i) clients.push_back(listener.Connect());
  EXPECT_EQ(asked(listener), 0);
  EXPECT_EQ(BacklogOf(listener.fd()).length, kLimit + 1);
  EXPECT_EQ(BacklogOf(listener.fd()).limit, uint32_t{kLimit});
  for (int i = 0; i < kDropped; ++i) clients.push_back(listener.ConnectWithoutWaiting());
  // Who was dropped tries again after a second, and counts again.
  EXPECT_GE(asked(listener), kDropped);
  EXPECT_EQ(asked(other), 0);
  EXPECT_EQ(AcceptAll(listener), kLimit + 1);
  EXPECT_GE(asked(listener), kDropped);
  EXPECT_EQ(Turn({Make(OpKind::kOverflows, -1)}, kWaitForever)[0].result, -EBADF);
}

// A TCP listener that was shut down listens no more. A Unix one says that it does; only its poll
// shows the difference.
TEST_P(UringRingTest, TellsWhetherConnectionsMayStillCome) {
  const auto state = [&](int fd) {
    const std::vector<Completion>& got = Turn({Make(OpKind::kState, fd)}, kWaitForever);
    EXPECT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].key.kind, OpKind::kState);
    EXPECT_FALSE(got[0].more);
    return got[0].result;
  };
  for (const int how : {SHUT_WR, SHUT_RD, SHUT_RDWR}) {
    const Listener tcp(AF_INET);
    const Listener local(AF_UNIX);
    const Fd client = local.Connect();
    EXPECT_EQ(state(tcp.fd()), core::kListens);
    EXPECT_EQ(state(local.fd()), core::kListens);
    ASSERT_EQ(shutdown(tcp.fd(), how), 0);
    ASSERT_EQ(shutdown(local.fd(), how), 0);
    EXPECT_EQ(state(tcp.fd()), how == SHUT_WR ? core::kListens : 0) << how;
    EXPECT_EQ(state(local.fd()), how == SHUT_WR ? core::kListens : core::kEnds) << how;
    EXPECT_EQ(AcceptAll(local), 1) << how;  // what had come can be accepted
  }
  const Fd none(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(state(none.get()), 0);
  const Fd event(eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(state(event.get()), 0);
  EXPECT_EQ(state(-1), -EBADF);
}

// Beside it a multishot accept takes what had come, and tells nothing of the end.
TEST_P(UringRingTest, ShowsAHangUpOnceAndNoConnection) {
  for (const bool before : {false, true}) {
    const Listener listener(AF_UNIX);
    const std::vector<Op> armed = {Make(OpKind::kAcceptEach, listener.fd()),
                                   Make(OpKind::kHangUp, listener.fd())};
    if (!before) {
      EXPECT_TRUE(Turn(armed).empty());
    }
    const Fd client = listener.Connect();
    if (!before) {
      ASSERT_EQ(Turn({}, kPatienceNs).size(), 1u);
      EXPECT_EQ(completions_[0].key.kind, OpKind::kAcceptEach);
      close(completions_[0].result);
      EXPECT_TRUE(Turn({}).empty());
    }
    ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);
    std::vector<Completion> got;
    std::vector<Op> ops;
    if (before) ops = armed;
    while (got.size() < (before ? 2u : 1u)) {
      Turn(ops, kPatienceNs);
      ASSERT_FALSE(completions_.empty());
      got.insert(got.end(), completions_.begin(), completions_.end());
      ops.clear();
    }
    if (before) {
      EXPECT_EQ(got[0].key.kind, OpKind::kAcceptEach);
      ASSERT_GE(got[0].result, 0);
      close(got[0].result);
    }
    EXPECT_EQ(got.back().key.kind, OpKind::kHangUp);
    EXPECT_TRUE(got.back().result & POLLHUP);
    EXPECT_FALSE(got.back().more);
    got = Turn({Make(OpKind::kAcceptEnd, listener.fd())}, kPatienceNs);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].result, -ECANCELED);
  }
}

TEST_P(UringRingTest, EndsTheWatchForAHangUp) {
  const Listener listener(AF_UNIX);
  EXPECT_TRUE(Turn({Make(OpKind::kHangUp, listener.fd(), 3)}).empty());
  const Fd client = listener.Connect();
  EXPECT_TRUE(Turn({}).empty());
  const std::vector<Completion> got =
      Turn({Make(OpKind::kHangUpEnd, listener.fd(), 3)}, kPatienceNs);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].key.kind, OpKind::kHangUp);
  EXPECT_EQ(got[0].result, -ECANCELED);
}

// For want of room among the completions.
TEST_P(UringRingTest, ReturnsACountWithTheNextTurn) {
  const Listener listener(AF_INET);
  std::vector<Completion> one;
  one.reserve(1);
  const std::vector<Op> two(2, Make(OpKind::kCount, listener.fd()));
  ASSERT_EQ(ring_->Turn(two, 0, one), 0);
  EXPECT_EQ(one.size(), 1u);
  EXPECT_FALSE(ring_->AllReported());
  ASSERT_EQ(ring_->Turn({}, 0, one), 0);
  EXPECT_EQ(one.size(), 1u);
  EXPECT_TRUE(ring_->AllReported());
  ASSERT_EQ(ring_->Turn({}, 0, one), 0);
  EXPECT_TRUE(one.empty());
}

// An edge that has happened and is not reported yet must not keep the poll from ending. A removal
// (POLL_REMOVE) answers EALREADY then and leaves it armed. A cancellation ends it (Linux 6.18).
TEST_P(UringRingTest, EndsAPollWhoseEdgeIsUnderWay) {
  const Listener listener(AF_INET);
  for (int i = 0; i < 50; ++i) {
    const auto generation = static_cast<uint16_t>(i + 1);
    Turn({Make(OpKind::kPoll, listener.fd(), generation)});
    const Fd client = listener.Connect();
    std::vector<Completion> got = Turn({Make(OpKind::kPollEnd, listener.fd(), generation)});
    for (int turns = 0; turns < 3 && (got.empty() || got.back().more); ++turns) {
      got = Turn({}, kPatienceNs);
    }
    ASSERT_FALSE(got.empty());
    ASSERT_FALSE(got.back().more);
    EXPECT_EQ(got.back().key.kind, OpKind::kPoll);
    EXPECT_EQ(got.back().key.generation, generation);
    EXPECT_EQ(AcceptAll(listener), 1);
  }
}

TEST_P(UringRingTest, ArmingReportsWhatIsAlreadyThere) {
  const Listener listener(AF_INET);
  const Fd client = listener.Connect();
  const std::vector<Completion>& edges = Turn({Make(OpKind::kPoll, listener.fd())}, kPatienceNs);
  ASSERT_EQ(edges.size(), 1u);
  EXPECT_TRUE(edges[0].result & POLLIN);
  EXPECT_TRUE(edges[0].more);
}

TEST_P(UringRingTest, AcceptAnswersAtOnceWhenThereIsNothing) {
  const Listener listener(AF_INET);
  const std::vector<Completion>& got = Turn({Make(OpKind::kAccept, listener.fd())}, kWaitForever);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].result, -EAGAIN);
  EXPECT_FALSE(got[0].more);
}

// One connection at a time, each made only when the one before has been closed. The game stops if
// an edge is missed, or is reported before an accept that did not find the connection.
TEST_P(UringRingTest, LosesNoEdgeBesideAcceptsThatFindNothing) {
  constexpr int kConnections = 2000;
  const Listener listener(AF_UNIX);
  std::thread clients([&listener] {
    for (int i = 0; i < kConnections; ++i) {
      const Fd client = listener.Connect();
      char byte;
      if (read(client.get(), &byte, 1) != 0) return;
    }
  });
  const Op accept = Make(OpKind::kAccept, listener.fd());
  std::vector<Op> ops = {Make(OpKind::kPoll, listener.fd())};
  int accepted = 0;
  while (accepted < kConnections) {
    const std::vector<Completion>& got = Turn(ops, kPatienceNs);
    if (got.empty()) break;
    ops.clear();
    bool ready = false;
    for (const Completion& completion : got) {
      if (completion.key.kind == OpKind::kPoll) {
        ready = true;
      } else if (completion.result >= 0) {
        close(completion.result);
        ++accepted;
        ready = true;
      } else {
        EXPECT_EQ(completion.result, -EAGAIN);
        ready = false;
      }
    }
    if (ready) ops.push_back(accept);
  }
  EXPECT_EQ(accepted, kConnections);
  shutdown(listener.fd(), SHUT_RDWR);
  // Only a failed run has clients left, which are let go by accepting them.
  while (accepted < kConnections) {
    const int fd = accept4(listener.fd(), nullptr, nullptr, 0);
    if (fd < 0) break;
    close(fd);
  }
  clients.join();
}

TEST_P(UringRingTest, AcceptEachReportsEveryConnection) {
  const Listener listener(AF_INET);
  EXPECT_TRUE(Turn({Make(OpKind::kAcceptEach, listener.fd())}).empty());
  std::vector<Fd> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(listener.Connect());
  int accepted = 0;
  while (accepted < 100) {
    const std::vector<Completion>& got = Turn({}, kPatienceNs);
    ASSERT_FALSE(got.empty());
    for (const Completion& completion : got) {
      EXPECT_EQ(completion.key.kind, OpKind::kAcceptEach);
      EXPECT_TRUE(completion.more);
      ASSERT_GE(completion.result, 0);
      close(completion.result);
      ++accepted;
    }
  }
  EXPECT_EQ(accepted, 100);
}

TEST_P(UringRingTest, GivesAcceptedSocketsTheFlagsAskedFor) {
  const Listener listener(AF_INET);
  for (const OpKind kind : {OpKind::kAccept, OpKind::kAcceptEach}) {
    for (const unsigned flags : {0u, unsigned{SOCK_NONBLOCK}, unsigned{SOCK_CLOEXEC},
                                 unsigned{SOCK_NONBLOCK | SOCK_CLOEXEC}}) {
      const Fd client = listener.Connect();
      Op op = Make(kind, listener.fd());
      op.accept_flags = flags;
      const std::vector<Completion> got = Turn({op}, kPatienceNs);
      ASSERT_EQ(got.size(), 1u);
      ASSERT_GE(got[0].result, 0);
      const Fd accepted(got[0].result);
      EXPECT_EQ((fcntl(accepted.get(), F_GETFL) & O_NONBLOCK) != 0, (flags & SOCK_NONBLOCK) != 0);
      EXPECT_EQ((fcntl(accepted.get(), F_GETFD) & FD_CLOEXEC) != 0, (flags & SOCK_CLOEXEC) != 0);
      if (kind == OpKind::kAcceptEach) Turn({Make(OpKind::kAcceptEnd, -1)}, kPatienceNs);
    }
  }
}

TEST_P(UringRingTest, ReadsTheIncomingCpuWhenAskedTo) {
  const Listener listener(AF_INET);
  for (const OpKind kind : {OpKind::kAccept, OpKind::kAcceptEach}) {
    for (const uint8_t facts : {uint8_t{0}, core::kFactIncomingCpu}) {
      const Fd client = listener.Connect();
      Op op = Make(kind, listener.fd());
      op.key.facts = facts;
      const std::vector<Completion> got = Turn({op}, kPatienceNs);
      ASSERT_EQ(got.size(), 1u);
      ASSERT_GE(got[0].result, 0);
      const Fd accepted(got[0].result);
      EXPECT_EQ(got[0].key.facts, facts);
      EXPECT_EQ(got[0].facts.incoming_cpu >= 0, facts != 0);
      if (kind == OpKind::kAcceptEach) {
        Op end = Make(OpKind::kAcceptEnd, -1);
        end.key.facts = facts;
        Turn({end}, kPatienceNs);
      }
    }
  }
}

TEST_P(UringRingTest, ReadsThePeerWhenAskedTo) {
  const auto peer_of = [&](const Listener& listener, uint8_t facts) {
    const Fd client = listener.Connect();
    Op op = Make(OpKind::kAccept, listener.fd());
    op.key.facts = facts;
    const std::vector<Completion> got = Turn({op}, kPatienceNs);
    EXPECT_EQ(got.size(), 1u);
    if (got.size() != 1) return Peer{};
    const Fd accepted(got[0].result);
    if (got[0].facts.peer.kind == Peer::Kind::kIpv4) {
      sockaddr_in own{};
      socklen_t length = sizeof(own);
      getsockname(client.get(), reinterpret_cast<sockaddr*>(&own), &length);
      EXPECT_EQ(got[0].facts.peer.port, ntohs(own.sin_port));
    }
    return got[0].facts.peer;
  };
  const Listener tcp(AF_INET);
  EXPECT_EQ(peer_of(tcp, 0).kind, Peer::Kind::kUnknown);
  const Peer ipv4 = peer_of(tcp, core::kFactPeer);
  EXPECT_EQ(ipv4.kind, Peer::Kind::kIpv4);
  EXPECT_EQ(ipv4.address, (std::array<uint8_t, 16>{127, 0, 0, 1}));

  const Listener local(AF_UNIX);
  const Peer unix_peer = peer_of(local, core::kFactPeer);
  EXPECT_EQ(unix_peer.kind, Peer::Kind::kUnix);
  uint32_t credentials[3];
  std::memcpy(credentials, unix_peer.address.data(), sizeof(credentials));
  EXPECT_EQ(credentials[0], static_cast<uint32_t>(getpid()));
  EXPECT_EQ(credentials[1], getuid());
  EXPECT_EQ(credentials[2], getgid());
}

// What a client may do while it waits to be accepted.
enum class Waiting : uint8_t {
  kWaits,
  kSends,
  kEndsItsSide,
  kSendsAndEndsItsSide,
  kCloses,
  kSendsAndCloses,
  kResets,
  kSendsAndResets,
  kSendsEndsItsSideAndResets,
};
constexpr Waiting kAllWaiting[] = {Waiting::kWaits,
                                   Waiting::kSends,
                                   Waiting::kEndsItsSide,
                                   Waiting::kSendsAndEndsItsSide,
                                   Waiting::kCloses,
                                   Waiting::kSendsAndCloses,
                                   Waiting::kResets,
                                   Waiting::kSendsAndResets,
                                   Waiting::kSendsEndsItsSideAndResets};

void Wait(Fd& client, Waiting what) {
  const auto one_of = [&](std::initializer_list<Waiting> these) {
    return std::find(these.begin(), these.end(), what) != these.end();
  };
  using enum Waiting;
  if (one_of({kSends, kSendsAndEndsItsSide, kSendsAndCloses, kSendsAndResets,
              kSendsEndsItsSideAndResets})) {
    ASSERT_EQ(send(client.get(), "x", 1, 0), 1);
  }
  if (one_of({kEndsItsSide, kSendsAndEndsItsSide, kSendsEndsItsSideAndResets})) {
    ASSERT_EQ(shutdown(client.get(), SHUT_WR), 0);
  }
  if (one_of({kResets, kSendsAndResets, kSendsEndsItsSideAndResets})) {
    const linger reset{.l_onoff = 1, .l_linger = 0};
    setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  }
  if (!one_of({kWaits, kSends, kEndsItsSide, kSendsAndEndsItsSide})) client.Close();
}

// Whoever has left something to read, and has not reset the connection, is there. A Unix socket has
// no resets.
TEST_P(UringRingTest, TellsWhoHasGone) {
  for (const int family : {AF_INET, AF_UNIX}) {
    const Listener listener(family);
    const uint8_t fact = family == AF_INET ? core::kFactCame : core::kFactGone;
    for (const OpKind kind : {OpKind::kAccept, OpKind::kAcceptEach}) {
      for (const Waiting what : kAllWaiting) {
        for (const uint8_t facts : {uint8_t{0}, fact}) {
          Fd client = listener.Connect();
          Wait(client, what);
          Op op = Make(kind, listener.fd());
          op.key.facts = facts;
          const std::vector<Completion> got = Turn({op}, kPatienceNs);
          ASSERT_EQ(got.size(), 1u);
          ASSERT_GE(got[0].result, 0);
          const Fd accepted(got[0].result);
          const bool nothing_left =
              what == Waiting::kEndsItsSide || what == Waiting::kCloses || what == Waiting::kResets;
          const bool reset = family == AF_INET && what >= Waiting::kResets;
          EXPECT_EQ(got[0].gone, facts != 0 && (nothing_left || reset))
              << "family " << family << ", client " << static_cast<int>(what);
          if (kind == OpKind::kAccept) continue;
          op.key.kind = OpKind::kAcceptEnd;
          Turn({op}, kPatienceNs);
        }
      }
    }
  }
}

// Method: what a client does while it waits must not count as its coming. A machine that is busy
// may be late with everything, so it has several tries.
TEST_P(UringRingTest, TellsWhenAClientCame) {
  constexpr int64_t kMs = 1'000'000;
  const Listener listener(AF_INET);
  bool right = false;
  for (int tries = 0; tries < 20 && !right; ++tries) {
    right = true;
    std::vector<Fd> clients;
    std::vector<std::pair<int64_t, int64_t>> came;  // not before, not after
    for (size_t i = 0; i < std::size(kAllWaiting); ++i) {
      const int64_t before_ns = NowNs();
      clients.push_back(listener.Connect());
      came.emplace_back(before_ns, NowNs());
      poll(nullptr, 0, 2);
    }
    poll(nullptr, 0, 40);
    for (size_t i = 0; i < clients.size(); ++i) Wait(clients[i], kAllWaiting[i]);
    poll(nullptr, 0, 10);
    for (const auto& [earliest_ns, latest_ns] : came) {
      Op op = Make(OpKind::kAccept, listener.fd());
      op.key.facts = core::kFactCame;
      const std::vector<Completion> got = Turn({op}, kPatienceNs);
      ASSERT_EQ(got.size(), 1u);
      const Fd accepted(got[0].result);
      right &= got[0].came_at_ns >= earliest_ns &&
               got[0].came_at_ns <= latest_ns + 2 * features_.tick_ns + kMs;
    }
  }
  EXPECT_TRUE(right);
  // Of a Unix socket it is not known.
  const Listener local(AF_UNIX);
  const Fd client = local.Connect();
  Op op = Make(OpKind::kAccept, local.fd());
  op.key.facts = core::kFactCame | core::kFactGone;
  const std::vector<Completion> got = Turn({op}, kPatienceNs);
  ASSERT_EQ(got.size(), 1u);
  const Fd accepted(got[0].result);
  EXPECT_EQ(got[0].came_at_ns, 0);
}

// An empty message is there to be read.
TEST_P(UringRingTest, TakesNobodyForGoneWhoHasSentAnEmptyMessage) {
  const Fd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = ""};
  socklen_t length = sizeof(sa_family_t);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener.get(), 4), 0);
  length = sizeof(address);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  const Fd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(send(client.get(), "", 0, 0), 0);
  Op op = Make(OpKind::kAccept, listener.get());
  op.key.facts = core::kFactGone;
  const std::vector<Completion> got = Turn({op}, kPatienceNs);
  ASSERT_EQ(got.size(), 1u);
  const Fd accepted(got[0].result);
  EXPECT_FALSE(got[0].gone);
}

TEST_P(UringRingTest, ReportsAnIpv4ClientOfAnIpv6ListenerAsIpv4) {
  const Fd listener(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (listener.get() < 0) GTEST_SKIP() << "no IPv6 here";
  const int off = 0;
  setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  sockaddr_in6 any{.sin6_family = AF_INET6};
  socklen_t length = sizeof(any);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
  ASSERT_EQ(listen(listener.get(), 8), 0);
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&any), &length);
  const auto peer_of = [&](const Fd& client) {
    Op op = Make(OpKind::kAccept, listener.get());
    op.key.facts = core::kFactPeer;
    const std::vector<Completion> got = Turn({op}, kPatienceNs);
    EXPECT_EQ(got.size(), 1u);
    if (got.size() != 1) return Peer{};
    const Fd accepted(got[0].result);
    EXPECT_GE(client.get(), 0);
    return got[0].facts.peer;
  };

  const Fd ipv4(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to_ipv4{.sin_family = AF_INET, .sin_port = any.sin6_port};
  to_ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(ipv4.get(), reinterpret_cast<sockaddr*>(&to_ipv4), sizeof(to_ipv4)), 0);
  const Peer mapped = peer_of(ipv4);
  EXPECT_EQ(mapped.kind, Peer::Kind::kIpv4);
  EXPECT_EQ(mapped.address, (std::array<uint8_t, 16>{127, 0, 0, 1}));

  const Fd ipv6(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 to_ipv6{.sin6_family = AF_INET6, .sin6_port = any.sin6_port};
  to_ipv6.sin6_addr = in6addr_loopback;
  if (connect(ipv6.get(), reinterpret_cast<sockaddr*>(&to_ipv6), sizeof(to_ipv6)) != 0) {
    GTEST_SKIP() << "no IPv6 loopback here";
  }
  const Peer plain = peer_of(ipv6);
  EXPECT_EQ(plain.kind, Peer::Kind::kIpv6);
  std::array<uint8_t, 16> loopback{};
  loopback[15] = 1;
  EXPECT_EQ(plain.address, loopback);
}

// Nothing is reported but the last completion of what was ended.
TEST_P(UringRingTest, EndsWhatHasTheSameKeyAndNothingElse) {
  const Listener listener(AF_INET);
  for (const auto& [begin, end] : {std::pair(OpKind::kPoll, OpKind::kPollEnd),
                                   std::pair(OpKind::kAcceptEach, OpKind::kAcceptEnd)}) {
    EXPECT_TRUE(Turn({Make(begin, listener.fd(), 1), Make(begin, listener.fd(), 2)}).empty());
    const std::vector<Completion> ended = Turn({Make(end, -1, 1)}, kPatienceNs);
    ASSERT_EQ(ended.size(), 1u);
    EXPECT_EQ(ended[0].key.kind, begin);
    EXPECT_EQ(ended[0].key.generation, 1);
    EXPECT_EQ(ended[0].result, -ECANCELED);
    EXPECT_FALSE(ended[0].more);

    EXPECT_TRUE(Turn({Make(end, -1, 1), Make(end, -1, 3)}).empty());
    EXPECT_TRUE(Turn({}).empty());

    const Fd client = listener.Connect();
    const std::vector<Completion> second = Turn({}, kPatienceNs);
    ASSERT_EQ(second.size(), 1u);
    EXPECT_EQ(second[0].key.generation, 2);
    EXPECT_TRUE(second[0].more);
    if (begin == OpKind::kAcceptEach) close(second[0].result);
    EXPECT_EQ(Turn({Make(end, -1, 2)}, kPatienceNs).size(), 1u);
    EXPECT_EQ(AcceptAll(listener), begin == OpKind::kPoll ? 1 : 0);
  }
}

TEST_P(UringRingTest, WatchReportsKnocksThatNobodyReads) {
  const Fd knocks(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  EXPECT_TRUE(Turn({Make(OpKind::kWatch, knocks.get())}).empty());
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(eventfd_write(knocks.get(), 1), 0);
    const std::vector<Completion>& got = Turn({}, kPatienceNs);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].key.kind, OpKind::kWatch);
    EXPECT_TRUE(got[0].more);
  }
}

TEST_P(UringRingTest, CloseCompletesOnlyOnFailure) {
  Fd victim(eventfd(0, EFD_CLOEXEC));
  const int fd = victim.Release();
  EXPECT_TRUE(Turn({Make(OpKind::kClose, fd)}).empty());
  EXPECT_FALSE(IsOpen(fd));
  const std::vector<Completion>& got = Turn({Make(OpKind::kClose, fd)}, kPatienceNs);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].key.kind, OpKind::kClose);
  EXPECT_EQ(got[0].result, -EBADF);
}

// A duplicate shows what the close was made of.
TEST_P(UringRingTest, ClosesInTheBackgroundWhateverTheListenerSaysOfLingering) {
  const Listener listener(AF_INET);
  for (const auto& [given, left] :
       {std::pair(linger{1, 100}, linger{0, 0}), std::pair(linger{1, 0}, linger{1, 0}),
        std::pair(linger{0, 0}, linger{0, 0})}) {
    ASSERT_EQ(setsockopt(listener.fd(), SOL_SOCKET, SO_LINGER, &given, sizeof(given)), 0);
    const Fd client = listener.Connect();
    const int accepted = accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK);
    const Fd copy(dup(accepted));
    Turn({Make(OpKind::kClose, accepted)});
    EXPECT_FALSE(IsOpen(accepted));
    linger found{};
    socklen_t length = sizeof(found);
    ASSERT_EQ(getsockopt(copy.get(), SOL_SOCKET, SO_LINGER, &found, &length), 0);
    EXPECT_EQ(found.l_onoff, left.l_onoff);
    // The kernel keeps the time of one that was switched off.
    if (left.l_onoff != 0) {
      EXPECT_EQ(found.l_linger, left.l_linger);
    }
  }
}

TEST_P(UringRingTest, UsesNoNumberThatIsAnotherFilesByNow) {
  const Listener added(AF_INET);
  const Listener other(AF_INET);
  const Fd number(dup(added.fd()));
  const auto make = [&](OpKind kind) {
    Op op = Make(kind, number.get());
    op.file = FileOf(added.fd());
    return op;
  };
  EXPECT_NE(FileOf(added.fd()), 0u);
  EXPECT_NE(FileOf(added.fd()), FileOf(other.fd()));
  EXPECT_EQ(Turn({make(OpKind::kCount)})[0].result, 0);
  EXPECT_EQ(Turn({make(OpKind::kAccept)}, kPatienceNs)[0].result, -EAGAIN);
  ASSERT_EQ(dup2(other.fd(), number.get()), number.get());
  const Fd client = other.Connect();
  for (const OpKind kind : {OpKind::kPoll, OpKind::kAcceptEach, OpKind::kAccept, OpKind::kCount,
                            OpKind::kState, OpKind::kHangUp}) {
    const std::vector<Completion> got = Turn({make(kind), make(kind)}, kPatienceNs);
    ASSERT_EQ(got.size(), 2u);
    for (const Completion& completion : got) {
      EXPECT_EQ(completion.key.kind, kind);
      EXPECT_EQ(completion.result, -core::kOtherFile);
      EXPECT_FALSE(completion.more);
    }
  }
  EXPECT_EQ(AcceptAll(other), 1);
}

// Where the kernel cannot be told not to wait, it is looked whether it would.
TEST_P(UringRingTest, NeverWaitsAtAListenerThatHasBecomeBlocking) {
  const Listener listener(AF_INET);
  const int flags = fcntl(listener.fd(), F_GETFL);
  ASSERT_EQ(fcntl(listener.fd(), F_SETFL, flags & ~O_NONBLOCK), 0);
  const auto& got = Turn({Make(OpKind::kAccept, listener.fd())}, kPatienceNs);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].result, GetParam().dontwait ? -EAGAIN : -core::kWouldWait);
}

TEST_P(UringRingTest, SaysHowManyCompletionsTheKernelHasMadeRoomFor) {
  MakeRing(64, 100);
  EXPECT_EQ(ring_->completion_entries(), 128u);
}

TEST_P(UringRingTest, AFullCompletionQueueEndsAcceptEachAndLosesNothing) {
  MakeRing(4, 4);
  const Listener listener(AF_INET);
  std::vector<Op> ops = {Make(OpKind::kAcceptEach, listener.fd())};
  EXPECT_TRUE(Turn(ops).empty());
  ops.clear();
  std::vector<Fd> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(listener.Connect());
  int accepted = 0, ended = 0;
  while (accepted < 20) {
    const std::vector<Completion>& got = Turn(ops, kPatienceNs);
    ASSERT_FALSE(got.empty());
    ops.clear();
    for (const Completion& completion : got) {
      ASSERT_GE(completion.result, 0);
      EXPECT_EQ(fcntl(completion.result, F_GETFD), FD_CLOEXEC);
      close(completion.result);
      ++accepted;
      if (!completion.more) {
        ++ended;
        ops.push_back(Make(OpKind::kAcceptEach, listener.fd()));
      }
    }
  }
  EXPECT_EQ(accepted, 20);
  EXPECT_GE(ended, 1);
  EXPECT_EQ(AcceptAll(listener), 0);
}

TEST_P(UringRingTest, AFullCompletionQueueEndsAPollAndArmingReportsTheRest) {
  // A deferring ring merges the edges until it is entered, so nothing fills its queue here.
  if (GetParam().defer) GTEST_SKIP() << "edges are merged";
  MakeRing(4, 4);
  const Listener listener(AF_INET);
  EXPECT_TRUE(Turn({Make(OpKind::kPoll, listener.fd())}).empty());
  std::vector<Fd> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(listener.Connect());
  const std::vector<Completion> got = Turn({}, kPatienceNs);
  ASSERT_FALSE(got.empty());
  for (const Completion& completion : got) EXPECT_TRUE(completion.result & POLLIN);
  EXPECT_FALSE(got.back().more);
  EXPECT_TRUE(Turn({}).empty());
  const std::vector<Completion>& again = Turn({Make(OpKind::kPoll, listener.fd())}, kPatienceNs);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_TRUE(again[0].more);
  EXPECT_EQ(AcceptAll(listener), 20);
}

TEST_P(UringRingTest, OutOfDescriptorsLeavesTheConnectionInTheBacklog) {
  const Listener listener(AF_INET);
  const Fd client = listener.Connect();
  for (const OpKind kind : {OpKind::kAccept, OpKind::kAcceptEach}) {
    const NoDescriptorsLeft none;
    const std::vector<Completion>& got = Turn({Make(kind, listener.fd())}, kPatienceNs);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].key.kind, kind);
    EXPECT_EQ(got[0].result, -EMFILE);
    EXPECT_FALSE(got[0].more);
  }
  EXPECT_EQ(AcceptAll(listener), 1);
}

TEST_P(UringRingTest, ReportsASourceThatCannotBeAcceptedFrom) {
  const Fd datagram(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const Fd deaf(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const Fd event(eventfd(0, EFD_CLOEXEC));
  const std::pair<int, int> expected[] = {
      {datagram.get(), EOPNOTSUPP}, {deaf.get(), EINVAL}, {event.get(), ENOTSOCK}};
  for (const auto& [fd, error] : expected) {
    for (const OpKind kind : {OpKind::kAccept, OpKind::kAcceptEach}) {
      const std::vector<Completion>& got = Turn({Make(kind, fd)}, kPatienceNs);
      ASSERT_EQ(got.size(), 1u);
      EXPECT_EQ(got[0].result, -error);
      EXPECT_FALSE(got[0].more);
    }
  }
}

// A worker's ring of the given kind, as a worker makes it.
class WorkerRing {
 public:
  explicit WorkerRing(unsigned flags) {
    io_uring_params params{};
    params.flags = flags;
    ok_ = io_uring_queue_init_params(8, &ring_, &params) == 0;
  }
  WorkerRing(const WorkerRing&) = delete;
  WorkerRing& operator=(const WorkerRing&) = delete;
  ~WorkerRing() {
    if (ok_) io_uring_queue_exit(&ring_);
  }
  bool ok() const { return ok_; }
  int fd() const { return ring_.ring_fd; }
  // The tag of the next completion, 0 when there is none or its res is not 0.
  uint64_t NextTag() {
    io_uring_get_events(&ring_);
    io_uring_cqe* cqe = nullptr;
    if (io_uring_peek_cqe(&ring_, &cqe) != 0) return 0;
    const uint64_t tag = cqe->res == 0 ? cqe->user_data : 0;
    io_uring_cqe_seen(&ring_, cqe);
    return tag;
  }

  // The next completion, if there is one, whatever it says.
  bool Next(io_uring_cqe& next) {
    io_uring_get_events(&ring_);
    io_uring_cqe* cqe = nullptr;
    if (io_uring_peek_cqe(&ring_, &cqe) != 0) return false;
    next.user_data = cqe->user_data;
    next.res = cqe->res;
    next.flags = cqe->flags;
    io_uring_cqe_seen(&ring_, cqe);
    return true;
  }

 private:
  io_uring ring_{};
  bool ok_ = false;
};

TEST_P(UringRingTest, DoorbellReachesEveryKindOfRingAndCompletesOnlyOnFailure) {
  std::vector<unsigned> kinds = {0, IORING_SETUP_COOP_TASKRUN};
  if (GetParam().defer) kinds.push_back(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  for (const unsigned flags : kinds) {
    WorkerRing worker(flags);
    ASSERT_TRUE(worker.ok());
    Op doorbell = Make(OpKind::kDoorbell, worker.fd());
    for (const uint64_t tag : {uint64_t{1}, UINT64_MAX - 1}) {
      doorbell.tag = tag;
      EXPECT_TRUE(Turn({doorbell}).empty());
      EXPECT_EQ(worker.NextTag(), tag);
      EXPECT_EQ(worker.NextTag(), 0u);
    }
    EXPECT_TRUE(Turn({}).empty());
  }
}

TEST_P(UringRingTest, DoorbellFailsOnWhatIsNoRingOrNotOneYet) {
  WorkerRing disabled(IORING_SETUP_R_DISABLED);
  ASSERT_TRUE(disabled.ok());
  const Fd event(eventfd(0, EFD_CLOEXEC));
  Fd closed(eventfd(0, EFD_CLOEXEC));
  const int closed_fd = closed.get();
  closed.Close();
  const std::pair<int, int> expected[] = {
      {disabled.fd(), EBADFD}, {event.get(), EBADFD}, {closed_fd, EBADF}};
  for (const auto& [fd, error] : expected) {
    const std::vector<Completion>& got = Turn({Make(OpKind::kDoorbell, fd)}, kPatienceNs);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].key.kind, OpKind::kDoorbell);
    EXPECT_EQ(got[0].key.index, 7u);
    EXPECT_EQ(got[0].result, -error);
    EXPECT_FALSE(got[0].more);
  }
}

// A connection that is handed over looks as if the worker's ring had accepted it.
TEST_P(UringRingTest, SendsADescriptorUnderATokenToEveryKindOfRing) {
  std::vector<unsigned> kinds = {0, IORING_SETUP_COOP_TASKRUN};
  if (GetParam().defer) kinds.push_back(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  for (const unsigned flags : kinds) {
    WorkerRing worker(flags);
    ASSERT_TRUE(worker.ok());
    std::vector<Op> sends;
    for (int32_t fd = 0; fd < 100; ++fd) {
      sends.push_back({.key = {.kind = OpKind::kSend, .index = 3},
                       .fd = worker.fd(),
                       .tag = UINT64_MAX - 5,
                       .sent = fd});
    }
    EXPECT_TRUE(Turn(sends).empty());
    EXPECT_TRUE(ring_->AllReported());
    for (int32_t fd = 0; fd < 100; ++fd) {
      io_uring_cqe cqe{};
      ASSERT_TRUE(worker.Next(cqe)) << fd;
      EXPECT_EQ(cqe.res, fd);
      EXPECT_EQ(cqe.user_data, UINT64_MAX - 5);
      EXPECT_EQ(cqe.flags, 0u);
    }
  }
}

// What the engine builds on: after the turn that submits a send, its failure is known.
TEST_P(UringRingTest, ReportsASendThatFailsInTheTurnThatSubmitsIt) {
  const Fd event(eventfd(0, EFD_CLOEXEC));
  WorkerRing worker(0);
  ASSERT_TRUE(worker.ok());
  std::vector<Op> sends;
  for (uint32_t i = 0; i < 50; ++i) {
    sends.push_back(
        {.key = {.kind = OpKind::kSend, .index = i}, .fd = i % 2 == 0 ? worker.fd() : event.get()});
  }
  const std::vector<Completion>& got = Turn(sends);
  ASSERT_TRUE(ring_->AllReported());
  ASSERT_EQ(got.size(), 25u);
  for (uint32_t i = 0; i < 25; ++i) {
    EXPECT_EQ(got[i].key.kind, OpKind::kSend);
    EXPECT_EQ(got[i].key.index, 2 * i + 1);
    EXPECT_EQ(got[i].result, -EBADFD);
  }
}

TEST_P(UringRingTest, SaysThatNotAllIsReportedWhileSomethingDoesNotFit) {
  const Fd event(eventfd(0, EFD_CLOEXEC));
  completions_ = std::vector<Completion>();
  completions_.reserve(4);
  std::vector<Op> sends;
  for (uint32_t i = 0; i < 6; ++i) {
    sends.push_back({.key = {.kind = OpKind::kSend, .index = i}, .fd = event.get()});
  }
  EXPECT_EQ(Turn(sends).size(), 4u);
  EXPECT_FALSE(ring_->AllReported());
  EXPECT_EQ(Turn({}).size(), 2u);
  EXPECT_TRUE(ring_->AllReported());
}

TEST_P(UringRingTest, ARestrictedRingRefusesWhatItIsNotMeantForAndWorksOn) {
  for (const bool restrict_ring : {true, false}) {
    absl::StatusOr<std::unique_ptr<UringRing>> ring =
        UringRing::Create({.restrict = restrict_ring, .features = features_});
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    ASSERT_EQ(ring_->Enable(), 0);

    // The answer to a NOP, made to look like that to a poll so that it is reported.
    io_uring_sqe* sqe = io_uring_get_sqe(ring_->raw());
    io_uring_prep_nop(sqe);
    sqe->user_data = Encode({.kind = OpKind::kPoll});
    const std::vector<Completion> got = Turn({}, kPatienceNs);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].result, restrict_ring ? -EACCES : 0);

    const Fd event(eventfd(0, EFD_CLOEXEC));
    EXPECT_EQ(io_uring_register_eventfd(ring_->raw(), event.get()), restrict_ring ? -EACCES : 0);

    const Listener listener(AF_INET);
    const Fd client = listener.Connect();
    EXPECT_EQ(Turn({Make(OpKind::kPoll, listener.fd())}, kPatienceNs).size(), 1u);
    EXPECT_EQ(AcceptAll(listener), 1);
  }
}

TEST_P(UringRingTest, PassesMoreOperationsThanFitIntoItsQueueInOrder) {
  MakeRing(4, 64);
  const Listener listener(AF_INET);
  std::vector<Fd> clients;
  std::vector<Op> ops;
  for (uint16_t i = 0; i < 50; ++i) {
    clients.push_back(listener.Connect());
    ops.push_back(Make(OpKind::kAccept, listener.fd(), i));
  }
  ops.push_back(Make(OpKind::kAccept, listener.fd(), 50));
  std::vector<Completion> all;
  while (all.size() < ops.size()) {
    const std::vector<Completion>& got = Turn(all.empty() ? ops : std::vector<Op>(), kPatienceNs);
    ASSERT_FALSE(got.empty());
    all.insert(all.end(), got.begin(), got.end());
  }
  for (uint16_t i = 0; i < 50; ++i) {
    EXPECT_EQ(all[i].key.generation, i);
    EXPECT_GE(all[i].result, 0);
    close(all[i].result);
  }
  EXPECT_EQ(all[50].result, -EAGAIN);
}

// Neither the queue of the ring (it overflows) nor the vector has room for all of it.
TEST_P(UringRingTest, KeepsForLaterTurnsWhatDoesNotFit) {
  MakeRing(4, 4);
  const Listener listener(AF_INET);
  std::vector<Op> ops;
  for (uint16_t i = 0; i < 100; ++i) ops.push_back(Make(OpKind::kAccept, listener.fd(), i));
  completions_ = std::vector<Completion>();
  completions_.reserve(3);
  for (uint16_t next = 0; next < 100;) {
    const std::vector<Completion>& got = Turn(next == 0 ? ops : std::vector<Op>(), kPatienceNs);
    ASSERT_FALSE(got.empty());
    ASSERT_LE(got.size(), 3u);
    for (const Completion& completion : got) {
      EXPECT_EQ(completion.key.generation, next++);
      EXPECT_EQ(completion.result, -EAGAIN);
    }
  }
  EXPECT_TRUE(Turn({}).empty());
}

TEST_P(UringRingTest, DrainsADeferringRingInOneTurn) {
  constexpr int kWatched = 200;  // more than one entry into the kernel hands over
  MakeRing(256, 1024);
  std::vector<Fd> events;
  std::vector<Op> ops;
  for (int i = 0; i < kWatched; ++i) {
    events.emplace_back(eventfd(0, EFD_CLOEXEC));
    ops.push_back(Make(OpKind::kPoll, events.back().get(), static_cast<uint16_t>(i)));
  }
  EXPECT_TRUE(Turn(ops).empty());
  for (const Fd& event : events) ASSERT_EQ(eventfd_write(event.get(), 1), 0);
  EXPECT_EQ(Turn({}, kPatienceNs).size(), size_t{kWatched});
}

// That it returns at all is the proof.
TEST_P(UringRingTest, DoesNotWaitWhenToldNotTo) {
  const Listener listener(AF_INET);
  EXPECT_TRUE(Turn({}, 0).empty());
  EXPECT_TRUE(Turn({Make(OpKind::kPoll, listener.fd())}, 0).empty());
}

TEST_P(UringRingTest, DoesNotWaitWhenSomethingIsThereAlready) {
  MakeRing(4, 8);
  const Listener listener(AF_INET);
  completions_ = std::vector<Completion>();
  completions_.reserve(1);
  const Op accept = Make(OpKind::kAccept, listener.fd());
  EXPECT_EQ(Turn({accept, accept, accept}, kWaitForever).size(), 1u);
  EXPECT_EQ(Turn({}, kWaitForever).size(), 1u);
  EXPECT_EQ(Turn({}, kWaitForever).size(), 1u);
  EXPECT_TRUE(Turn({}, 0).empty());
}

TEST_P(UringRingTest, WaitsNoShorterThanAsked) {
  constexpr std::chrono::milliseconds kWait(20);
  const Listener listener(AF_INET);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(
      Turn({Make(OpKind::kPoll, listener.fd())}, std::chrono::nanoseconds(kWait).count()).empty());
  EXPECT_GE(std::chrono::steady_clock::now() - start, kWait);
}

TEST_P(UringRingTest, GathersForAsLongAsAskedAndThenWaitsOn) {
  constexpr std::chrono::milliseconds kGather(20);
  for (const bool by_kernel : {true, false}) {
    if (by_kernel && !features_.min_wait) continue;
    features_.min_wait = by_kernel;
    MakeRing(64, 1024);
    const Listener listener(AF_INET);
    Turn({Make(OpKind::kPoll, listener.fd())});
    for (const int64_t max_ns : {kWaitForever, kPatienceNs}) {
      const core::Wait wait(max_ns, std::chrono::nanoseconds(kGather).count());
      // What comes early does not end it.
      Fd early;
      const auto start = std::chrono::steady_clock::now();
      std::thread client([&, waiting = gettid()] {
        const auto patience = start + std::chrono::nanoseconds(kPatienceNs);
        while (!WaitsOnARing(waiting) && std::chrono::steady_clock::now() < patience) {
          std::this_thread::yield();
        }
        early = listener.Connect();
      });
      EXPECT_EQ(Turn({}, wait).size(), 1u);
      EXPECT_GE(std::chrono::steady_clock::now() - start, kGather);
      client.join();
      // What comes late does, at once.
      Fd late;
      client = std::thread([&] {
        std::this_thread::sleep_for(3 * kGather);
        late = listener.Connect();
      });
      EXPECT_EQ(Turn({}, wait).size(), 1u);
      client.join();
    }
    // When nothing comes, the longest wait is the end of it.
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(Turn({}, {std::chrono::nanoseconds(2 * kGather).count(),
                          std::chrono::nanoseconds(kGather).count()})
                    .empty());
    EXPECT_GE(std::chrono::steady_clock::now() - start, 2 * kGather);
  }
}

TEST_P(UringRingTest, GathersNothingWhenToldNotToWaitOrWhenSomethingIsThereAlready) {
  const Listener listener(AF_INET);
  EXPECT_TRUE(Turn({}, {0, kPatienceNs}).empty());
  EXPECT_EQ(Turn({Make(OpKind::kCount, listener.fd())}, {kWaitForever, kPatienceNs}).size(), 1u);
}

// A completion of no interest (there is nothing to end) does not end the waiting either.
TEST_P(UringRingTest, WaitsThroughSignalsUntilSomethingCompletes) {
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = [](int) {};
  sigaction(SIGUSR1, &ignore, &before);
  const Listener listener(AF_INET);
  Turn({Make(OpKind::kPoll, listener.fd())});
  for (const int64_t wait_ns_max : {kWaitForever, kPatienceNs}) {
    Fd client;
    std::thread other([&client, &listener, waiting = pthread_self()] {
      for (int i = 0; i < 200; ++i) {
        pthread_kill(waiting, SIGUSR1);
        sched_yield();
      }
      client = listener.Connect();
    });
    EXPECT_EQ(Turn({Make(OpKind::kPollEnd, -1, 9)}, wait_ns_max).size(), 1u);
    other.join();
  }
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(UringRingTest, AnIndependentEpollWaiterSeesEveryConnection) {
  const Listener listener(AF_INET);
  const Fd waiter(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  ASSERT_EQ(epoll_ctl(waiter.get(), EPOLL_CTL_ADD, listener.fd(), &event), 0);
  EXPECT_TRUE(Turn({Make(OpKind::kPoll, listener.fd())}).empty());
  int seen_by_waiter = 0, seen_by_poll = 0;
  for (int i = 0; i < 20; ++i) {
    const Fd client = listener.Connect();
    seen_by_waiter += epoll_wait(waiter.get(), &event, 1, 0);
    seen_by_poll += Turn({}, kPatienceNs).empty() ? 0 : 1;
    EXPECT_EQ(AcceptAll(listener), 1);
  }
  EXPECT_EQ(seen_by_waiter, 20);
  EXPECT_EQ(seen_by_poll, 20);
}

TEST_P(UringRingTest, RefusesToTurnBeforeItIsEnabled) {
  absl::StatusOr<std::unique_ptr<UringRing>> ring = UringRing::Create({.features = features_});
  ASSERT_TRUE(ring.ok()) << ring.status();
  const Listener listener(AF_INET);
  const Op op = Make(OpKind::kAccept, listener.fd());
  EXPECT_EQ((*ring)->Turn(std::span(&op, 1), 0, completions_), -EBADFD);
}

// What the default host does: made here, enabled and driven there.
TEST_P(UringRingTest, BelongsToTheThreadThatEnablesIt) {
  absl::StatusOr<std::unique_ptr<UringRing>> ring = UringRing::Create({.features = features_});
  ASSERT_TRUE(ring.ok()) << ring.status();
  ring_ = *std::move(ring);
  const Listener listener(AF_INET);
  std::thread master([&] {
    EXPECT_EQ(ring_->Enable(), 0);
    EXPECT_EQ(AcceptAll(listener), 0);
  });
  master.join();
  if (!GetParam().defer) return;
  const Op op = Make(OpKind::kAccept, listener.fd());
  EXPECT_EQ(ring_->Turn(std::span(&op, 1), 0, completions_), -EEXIST);
}

// A loop that waits for the ring must come and drive it, also when the thread that did so has
// ended.
TEST_P(UringRingTest, APollableRingWithoutAnOwnerIsReadable) {
  if (GetParam().defer) GTEST_SKIP() << "a deferring ring is not pollable";
  ring_ = UringRing::Create({.pollable = true, .features = features_}).value();
  const auto readable = [&] {
    pollfd ring{.fd = ring_->fd(), .events = POLLIN, .revents = 0};
    return poll(&ring, 1, 0) == 1;
  };
  const Listener listener(AF_INET);
  Fd knocks(eventfd(0, EFD_NONBLOCK));
  EXPECT_TRUE(readable());
  std::thread first([&] {
    ASSERT_EQ(ring_->Enable(), 0);
    EXPECT_FALSE(readable());
    EXPECT_TRUE(Turn({{.key = {.kind = OpKind::kWatch}, .fd = knocks.get()},
                      Make(OpKind::kPoll, listener.fd())})
                    .empty());
    EXPECT_EQ(ring_->WakeIn(std::chrono::nanoseconds(std::chrono::hours(1)).count()), 0);
    EXPECT_EQ(Turn({Make(OpKind::kPollEnd, -1)}, kPatienceNs).size(), 1u);
    EXPECT_FALSE(readable());
    ring_->LetGo();
    EXPECT_TRUE(readable());
  });
  first.join();
  EXPECT_TRUE(readable());
  ASSERT_EQ(ring_->Enable(), 0);
  const std::vector<Completion>& ended = Turn({});
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].key.kind, OpKind::kWatch);
  EXPECT_FALSE(ended[0].more);
  EXPECT_FALSE(readable());
  EXPECT_EQ(ring_->WakeIn(1), 0);  // the timeout of the first owner is not relied on
  pollfd ring{.fd = ring_->fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&ring, 1, 10'000), 1);
  EXPECT_TRUE(Turn({Make(OpKind::kPoll, listener.fd(), 2)}).empty());
  const Fd client = listener.Connect();
  EXPECT_EQ(Turn({}, kPatienceNs).size(), 1u);
}

// What nobody reads any more is still somebody's connection.
TEST_P(UringRingTest, WhatRemainsCanBeTakenWithoutItsOwner) {
  const Listener listener(AF_INET);
  std::vector<Fd> clients;
  std::thread owner([&] {
    MakeRing(64, 1024);
    EXPECT_TRUE(Turn({Make(OpKind::kAcceptEach, listener.fd())}).empty());
    for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
    // Crosses into the kernel without reading.
    std::vector<Completion> none;
    EXPECT_EQ(ring_->Turn({}, 1'000'000, none), 0);
  });
  owner.join();
  ring_->TakeRemaining(completions_);
  int accepted = 0;
  for (const Completion& completion : completions_) {
    if (completion.result < 0) continue;
    ++accepted;
    close(completion.result);
  }
  EXPECT_EQ(accepted, 3);
}

TEST(UringRing, RefusesImpossibleSizes) {
  for (const UringRingOptions& options :
       {UringRingOptions{.submission_entries = 0},
        UringRingOptions{.submission_entries = 32769, .completion_entries = 65536},
        UringRingOptions{.submission_entries = 64, .completion_entries = 32},
        UringRingOptions{.completion_entries = 65537}}) {
    EXPECT_EQ(UringRing::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(UringRing, LeavesNothingOpenWhenItCannotBeCreated) {
  absl::StatusOr<Features> features = ProbeFeatures();
  if (!features.ok()) GTEST_SKIP() << features.status().ToString();
  const Fd lowest_before(fcntl(0, F_DUPFD_CLOEXEC, 0));
  {
    const NoDescriptorsLeft none;
    EXPECT_EQ(UringRing::Create({.features = *features}).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
  const Fd lowest_after(fcntl(0, F_DUPFD_CLOEXEC, 0));
  EXPECT_EQ(lowest_after.get(), lowest_before.get() + 1);
}

}  // namespace
}  // namespace ringmaster::ring
