// Sources that end, on the real ring: listeners that somebody shuts down, and what else can be
// polled. Somebody hears of it once, and the master does not spin.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

class HangUpTest : public BalancerTest {
 protected:
  size_t Saw(Event::Kind kind) {
    std::lock_guard lock(mutex_);
    return static_cast<size_t>(std::count_if(
        events_.begin(), events_.end(), [&](const Event& event) { return event.kind == kind; }));
  }
  bool IsGivenUp() {
    return Eventually([&] { return SawEvent(Event::Kind::kSourceFailed); });
  }
  // That there is one event, and no more work: each question wakes the master.
  void IsQuiet() {
    const uint64_t wakes = balancer_->Stats().master_wakes;
    for (int i = 0; i < 20; ++i) balancer_->Stats();
    EXPECT_LE(balancer_->Stats().master_wakes, wakes + 30);
    EXPECT_EQ(Saw(Event::Kind::kSourceFailed), 1u);
  }
};

struct Way {
  bool local;
  Intake intake;
  Handoff handoff;

  friend void PrintTo(const Way& way, std::ostream* out) {
    *out << way.local << static_cast<int>(way.intake) << static_cast<int>(way.handoff);
  }
};

class ListenerHangUpTest : public HangUpTest, public ::testing::WithParamInterface<Way> {
 protected:
  static Listener Make() { return GetParam().local ? Listener::Unix() : Listener::Tcp(); }
  std::unique_ptr<Worker> AddWorkerTo(Source source) {
    return AddWorker({source}, ServeIndex, {.handoff = GetParam().handoff});
  }
};

// Whoever is handed tickets as completions accepts by itself, which is another test's matter.
std::vector<Way> AllWays() {
  std::vector<Way> ways;
  for (const bool local : {false, true}) {
    for (const Intake intake : {Intake::kPollAccept, Intake::kAccept, Intake::kReadiness}) {
      ways.push_back({local, intake, Handoff::kInbox});
      if (intake != Intake::kReadiness) ways.push_back({local, intake, Handoff::kCompletion});
    }
  }
  return ways;
}

std::string NameOf(const ::testing::TestParamInfo<Way>& way) {
  std::string name = way.param.local ? "Unix" : "Tcp";
  name += way.param.intake == Intake::kPollAccept ? "PollAccept"
          : way.param.intake == Intake::kAccept   ? "Accept"
                                                  : "Readiness";
  return name + (way.param.handoff == Handoff::kInbox ? "" : "HandedOver");
}

INSTANTIATE_TEST_SUITE_P(Ways, ListenerHangUpTest, ::testing::ValuesIn(AllWays()), NameOf);

TEST_P(ListenerHangUpTest, IsSaidOnceAndTheSourceWatchedNoMore) {
  for (const int how : {SHUT_RD, SHUT_RDWR}) {
    events_.clear();
    Create({});
    const Listener listener = Make();
    Source source = AddSource(listener, {.intake = GetParam().intake});
    auto worker = AddWorkerTo(source);
    ASSERT_EQ(AskWhoServes(listener), 0);
    ASSERT_EQ(shutdown(listener.fd(), how), 0);
    ASSERT_TRUE(IsGivenUp());
    IsQuiet();
    EXPECT_EQ(events_[0].error, EINVAL);
    EXPECT_TRUE(source.Remove().ok());
  }
}

// As a program does that forbids itself to send on it.
TEST_P(ListenerHangUpTest, ServesOnWhenNothingEnds) {
  const Listener listener = Make();
  Source source = AddSource(listener, {.intake = GetParam().intake});
  auto worker = AddWorkerTo(source);
  ASSERT_EQ(AskWhoServes(listener), 0);
  ASSERT_EQ(shutdown(listener.fd(), SHUT_WR), 0);
  for (int i = 0; i < 5; ++i) ASSERT_EQ(AskWhoServes(listener), 0);
  EXPECT_EQ(Saw(Event::Kind::kSourceFailed), 0u);
}

// It was shut down before anybody watched it, or while nobody did.
TEST_P(ListenerHangUpTest, IsFoundOutWhenItIsArmed) {
  const Listener listener = Make();
  Source source = AddSource(listener, {.intake = GetParam().intake});
  ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);
  auto worker = AddWorkerTo(source);
  ASSERT_TRUE(IsGivenUp());
  IsQuiet();
}

// What had come to a Unix listener before its end is served; that of a TCP one the kernel resets.
TEST_P(ListenerHangUpTest, WhatHadComeIsServed) {
  if (!GetParam().local) return;
  const Listener listener = Make();
  Source source = AddSource(listener, {.intake = GetParam().intake, .hold = 2});
  auto worker = AddWorkerTo(source);
  ASSERT_EQ(AskWhoServes(listener), 0);
  ASSERT_TRUE(source.Pause().ok());
  std::vector<int> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(listener.Connect());
  ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);
  ASSERT_TRUE(source.Resume().ok());
  ExpectAnswers(clients);
  ASSERT_TRUE(IsGivenUp());
  IsQuiet();
}

// The poll for its end keeps a Unix socket open no longer than the rest.
TEST_P(ListenerHangUpTest, ARemovedSourceIsLetGo) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  {
    const Listener listener = Make();
    ASSERT_EQ(getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    Source source = AddSource(listener, {.intake = GetParam().intake});
    auto worker = AddWorkerTo(source);
    ASSERT_EQ(AskWhoServes(listener), 0);
    EXPECT_TRUE(source.Remove().ok());
  }
  const int client = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), size), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  close(client);
}

// What a worker says of a listener is no proof.
TEST_P(ListenerHangUpTest, AWorkersWordIsNotBelieved) {
  if (GetParam().intake != Intake::kReadiness) return;
  const Listener listener = Make();
  Source source = AddSource(listener, {.intake = GetParam().intake});
  auto worker = AddWorkerTo(source);
  for (const int error : {EINVAL, EBADF, ENOTSOCK, EOPNOTSUPP, ESTALE}) {
    EXPECT_TRUE(source.Again(error).ok());
    EXPECT_EQ(AskWhoServes(listener), 0) << error;
  }
  EXPECT_EQ(Saw(Event::Kind::kSourceFailed), 0u);
}

// --- Anything else -------------------------------------------------------------------------------

// A worker that takes what a descriptor has when it is told so, until it hears of the end.
class OtherHangUpTest : public HangUpTest {
 protected:
  // The polls that its tickets said; it reads in between until there is nothing.
  std::vector<uint32_t> TicketsOf(int fd, const std::function<void()>& end) {
    Source source = balancer_->AddSource(fd, {.intake = Intake::kReadiness}).value();
    const Mailbox mailbox = Mailbox::Create().value();
    Port port = balancer_->AddWorker(mailbox, {.capacity = 1, .window = 1}).value();
    EXPECT_TRUE(source.Join(port).ok());
    std::vector<uint32_t> events;
    const auto claim = [&] {
      port.Claim([](Connection) {},
                 [&](Ticket ticket) {
                   events.push_back(ticket.events());
                   char bytes[16];
                   while (read(ticket.fd(), bytes, sizeof(bytes)) > 0) continue;
                 });
    };
    balancer_->Stats();
    end();
    EXPECT_TRUE(Eventually([&] {
      claim();
      return !events.empty() && (events.back() & (POLLHUP | POLLRDHUP)) != 0;
    }));
    // Nothing goes round: each of these is a turn of the master's.
    for (int i = 0; i < 50; ++i) {
      balancer_->Stats();
      claim();
    }
    EXPECT_TRUE(source.Remove().ok());
    return events;
  }
};

TEST_F(OtherHangUpTest, ATicketSaysThatAPipeHasNoWriter) {
  for (const bool with_data : {false, true}) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    const std::vector<uint32_t> events = TicketsOf(ends[0], [&] {
      if (with_data) {
        EXPECT_EQ(write(ends[1], "x", 1), 1);
      }
      close(ends[1]);
    });
    EXPECT_LE(events.size(), 3u);
    close(ends[0]);
  }
}

TEST_F(OtherHangUpTest, ATicketSaysThatAPeerHasGone) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    const std::vector<uint32_t> events = TicketsOf(ends[0], [&] {
      EXPECT_EQ(write(ends[1], "x", 1), 1);
      close(ends[1]);
    });
    EXPECT_LE(events.size(), 3u);
    EXPECT_EQ(Saw(Event::Kind::kSourceFailed), 0u);
    close(ends[0]);
  }
}

// It had ended before it was a source, and its only worker has room for one ticket at a time.
TEST_F(OtherHangUpTest, AnEndThatIsThereAlreadyIsSaid) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  close(ends[1]);
  EXPECT_LE(TicketsOf(ends[0], [] {}).size(), 2u);
  close(ends[0]);
}

}  // namespace
}  // namespace ringmaster
