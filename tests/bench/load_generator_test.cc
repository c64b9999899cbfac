// Against a tiny server on a thread of its own that echoes, or misbehaves in one way.

#include "bench/load_generator.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "bench/target.h"
#include "support/descriptor_limit.h"

namespace ringmaster::bench {
namespace {

enum class Manner {
  kEcho,
  kEchoInPieces,    // byte by byte
  kEchoOfAnother,   // one byte is not the client's
  kEchoTooMuch,     // one byte more
  kCloseAtOnce,     // without an answer
  kCloseAfterHalf,  // within the answer
  kNeverAnswer,
  kSign,            // the first byte is that of worker 7
  kSignImpossible,  // … of a worker that there cannot be
  kCloseAfterAnswer,
};

class TinyServer {
 public:
  TinyServer(Transport transport, Manner manner)
      : listener_(Listener::Create(transport).value()),
        manner_(manner),
        stop_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        thread_([this] { Run(); }) {}
  ~TinyServer() {
    eventfd_write(stop_fd_, 1);
    thread_.join();
    close(stop_fd_);
  }

  const Target& target() const { return listener_.target(); }
  uint64_t accepted() const { return accepted_; }
  uint64_t answered() const { return answered_; }
  // The most connections that were open at once.
  uint64_t open_max() const { return open_max_; }

 private:
  void Run() {
    std::vector<pollfd> fds = {{stop_fd_, POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
    while (poll(fds.data(), fds.size(), -1) >= 0 && fds[0].revents == 0) {
      for (size_t i = fds.size(); i-- > 2;) {
        if (fds[i].revents == 0 || Serve(fds[i].fd)) continue;
        close(fds[i].fd);
        fds.erase(fds.begin() + static_cast<ptrdiff_t>(i));
      }
      if (fds[1].revents == 0) continue;
      int fd;
      while ((fd = accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        ++accepted_;
        fds.push_back({fd, POLLIN, 0});
        open_max_ = std::max<uint64_t>(open_max_, fds.size() - 2);
      }
    }
    for (size_t i = 2; i < fds.size(); ++i) close(fds[i].fd);
  }

  // Whether the connection stays open.
  bool Serve(int fd) {
    char buffer[8192];
    const ssize_t count = recv(fd, buffer, sizeof(buffer) - 1, 0);
    if (count <= 0) return false;
    auto size = static_cast<size_t>(count);
    if (manner_ == Manner::kCloseAtOnce) return false;
    if (manner_ == Manner::kNeverAnswer) return true;
    if (manner_ == Manner::kEchoOfAnother) buffer[size - 1] ^= 1;
    if (manner_ == Manner::kEchoTooMuch) buffer[size++] = 0;
    if (manner_ == Manner::kSign) buffer[0] = 7;
    if (manner_ == Manner::kSignImpossible) buffer[0] = kWorkersMax;
    if (manner_ == Manner::kCloseAfterHalf) size /= 2;
    const size_t step = manner_ == Manner::kEchoInPieces ? 1 : size;
    for (size_t at = 0; at < size; at += step) (void)send(fd, buffer + at, step, MSG_NOSIGNAL);
    ++answered_;
    return manner_ != Manner::kCloseAfterHalf && manner_ != Manner::kCloseAfterAnswer;
  }

  Listener listener_;
  const Manner manner_;
  const int stop_fd_;
  std::atomic<uint64_t> accepted_{0};
  std::atomic<uint64_t> answered_{0};
  std::atomic<uint64_t> open_max_{0};
  std::thread thread_;
};

LoadOptions Closed(const Target& target) {
  return {.target = target,
          .load = ClosedLoop{.clients = 3},
          .warm_up_ns = 10 * kMillisecond,
          .duration_ns = 100 * kMillisecond,
          .grace_ns = 10 * kSecond};
}

LoadOptions Open(const Target& target, std::vector<int64_t> starts_ns) {
  return {.target = target,
          .load = OpenLoop{.starts_ns = std::move(starts_ns)},
          .duration_ns = 100 * kMillisecond,
          .grace_ns = 10 * kSecond};
}

uint64_t Outcomes(const LoadResult& result) {
  return result.answered + result.refused + result.reset + result.wrong + result.failed +
         result.unanswered;
}

class LoadGenerator : public testing::TestWithParam<Transport> {};
INSTANTIATE_TEST_SUITE_P(Transports, LoadGenerator,
                         testing::Values(Transport::kTcp, Transport::kUnix),
                         [](const auto& param) { return std::string(TransportName(param.param)); });

TEST_P(LoadGenerator, ClosedLoopGetsAnAnswerToEveryRequest) {
  TinyServer server(GetParam(), Manner::kEcho);
  const LoadResult result = RunLoad(Closed(server.target())).value();
  EXPECT_GT(result.started, 0u);
  EXPECT_EQ(result.answered, result.started);
  EXPECT_EQ(result.lost(), 0u);
  EXPECT_EQ(result.latency_ns.count(), result.answered);
  // Those of the warm-up are served besides.
  EXPECT_GE(server.answered(), result.answered);
  EXPECT_FALSE(result.open_loop);
  EXPECT_TRUE(result.latency_valid());
  EXPECT_GT(result.achieved_per_second(), 0);
  EXPECT_GT(result.cpu_ns, 0);
}

TEST_P(LoadGenerator, OpenLoopStartsWhatTheScheduleSaysNoMoreAndNoLess) {
  TinyServer server(GetParam(), Manner::kEcho);
  const LoadResult result =
      RunLoad(Open(server.target(), EvenSchedule(2000, 100 * kMillisecond))).value();
  EXPECT_EQ(result.started, 200u);
  EXPECT_EQ(result.answered, 200u);
  EXPECT_EQ(server.accepted(), 200u);
  EXPECT_TRUE(result.open_loop);
}

TEST_P(LoadGenerator, WindowLeavesOutTheWarmUpAndWhatComesLater) {
  TinyServer server(GetParam(), Manner::kEcho);
  LoadOptions options = Open(server.target(), EvenSchedule(1000, 300 * kMillisecond));
  options.warm_up_ns = 50 * kMillisecond;
  std::vector<bool> edges;
  options.on_window = [&](bool begins) { edges.push_back(begins); };
  const LoadResult result = RunLoad(options).value();
  EXPECT_EQ(result.started, 100u);
  EXPECT_EQ(result.answered, 100u);
  EXPECT_EQ(server.accepted(), 150u);
  EXPECT_EQ(edges, (std::vector<bool>{true, false}));
}

TEST_P(LoadGenerator, AcceptsAnAnswerThatComesInPieces) {
  TinyServer server(GetParam(), Manner::kEchoInPieces);
  const LoadResult result = RunLoad(Open(server.target(), {0, 0, 0, 0, 0})).value();
  EXPECT_EQ(result.answered, 5u);
}

TEST_P(LoadGenerator, TellsAWrongAnswerFromTheRightOne) {
  for (const Manner manner : {Manner::kEchoOfAnother, Manner::kEchoTooMuch}) {
    TinyServer server(GetParam(), manner);
    const LoadResult result = RunLoad(Open(server.target(), {0, 0, 0, 0, 0})).value();
    EXPECT_EQ(result.wrong, 5u);
    EXPECT_EQ(result.lost(), 5u);
    EXPECT_EQ(result.latency_ns.count(), 0u);
    EXPECT_FALSE(result.latency_valid());
  }
}

TEST_P(LoadGenerator, CountsConnectionsThatAreClosedWithoutAWholeAnswer) {
  for (const Manner manner : {Manner::kCloseAtOnce, Manner::kCloseAfterHalf}) {
    TinyServer server(GetParam(), manner);
    const LoadResult result = RunLoad(Open(server.target(), {0, 0, 0, 0, 0})).value();
    EXPECT_EQ(result.reset, 5u);
    EXPECT_EQ(Outcomes(result), result.started);
  }
}

TEST_P(LoadGenerator, CountsConnectionsThatAreRefused) {
  const Target nobody = Listener::Create(GetParam()).value().target();
  const LoadResult open = RunLoad(Open(nobody, {0, 0, 0, 0, 0})).value();
  EXPECT_EQ(open.refused, 5u);
  EXPECT_EQ(open.lost(), 5u);
  const LoadResult closed = RunLoad(Closed(nobody)).value();
  EXPECT_GT(closed.refused, 0u);
  EXPECT_EQ(closed.refused, closed.started);
}

TEST_P(LoadGenerator, CountsConnectionsThatNobodyAnswers) {
  TinyServer server(GetParam(), Manner::kNeverAnswer);
  LoadOptions options = Open(server.target(), {0, 0, 0, 0, 0});
  options.grace_ns = 20 * kMillisecond;
  const LoadResult result = RunLoad(options).value();
  EXPECT_EQ(result.started, 5u);
  EXPECT_EQ(result.unanswered, 5u);
  EXPECT_FALSE(result.latency_valid());
}

// A generator that runs out of clients must not forget what it should have started.
TEST_P(LoadGenerator, OpenLoopOffersTheWholeScheduleEvenIfItCannotStartIt) {
  TinyServer server(GetParam(), Manner::kNeverAnswer);
  LoadOptions options = Open(server.target(), std::vector<int64_t>(50, 0));
  std::get<OpenLoop>(options.load).connections_max = 2;
  options.grace_ns = 20 * kMillisecond;
  const LoadResult result = RunLoad(options).value();
  EXPECT_LE(server.accepted(), 2u);
  EXPECT_EQ(result.started, 50u);
  EXPECT_EQ(result.unanswered, 50u);
}

// One client does the work of two hundred that were to start at once. The last of them has waited
// for all the others, and its latency contains that wait; counted from its own start, it would
// not.
TEST_P(LoadGenerator, OpenLoopCountsLatencyFromTheIntendedStart) {
  TinyServer server(GetParam(), Manner::kEcho);
  LoadOptions options = Open(server.target(), std::vector<int64_t>(200, 0));
  std::get<OpenLoop>(options.load).connections_max = 1;
  const LoadResult result = RunLoad(options).value();
  EXPECT_EQ(result.answered, 200u);
  EXPECT_GE(result.lag_ns.max(), result.latency_ns.min());
  EXPECT_GE(result.latency_ns.max(), result.lag_ns.max());
}

TEST_P(LoadGenerator, HoldsMoreConnectionsThanOneTurnOfItsLoopTakes) {
  TinyServer server(GetParam(), Manner::kEcho);
  const LoadResult result = RunLoad(Open(server.target(), std::vector<int64_t>(1000, 0))).value();
  EXPECT_EQ(result.answered, 1000u);
}

TEST_P(LoadGenerator, KnowsByWhichWorkerItWasServed) {
  TinyServer server(GetParam(), Manner::kSign);
  LoadOptions options = Open(server.target(), {0, 0, 0, 0, 0});
  options.log_answers = true;
  const LoadResult result = RunLoad(options).value();
  EXPECT_EQ(result.answered, 5u);
  EXPECT_EQ(result.answered_by[7], 5u);
  ASSERT_EQ(result.answers.size(), 5u);
  std::vector<uint64_t> numbers;
  for (const Answer& answer : result.answers) {
    numbers.push_back(answer.number);
    EXPECT_EQ(answer.worker, 7);
    EXPECT_GT(answer.latency_ns, 0);
  }
  std::sort(numbers.begin(), numbers.end());
  EXPECT_EQ(numbers, (std::vector<uint64_t>{0, 1, 2, 3, 4}));
}

TEST_P(LoadGenerator, BelievesNoWorkerThatCannotBe) {
  TinyServer server(GetParam(), Manner::kSignImpossible);
  const LoadResult result = RunLoad(Open(server.target(), {0, 0, 0})).value();
  EXPECT_EQ(result.wrong, 3u);
}

TEST_P(LoadGenerator, KeepsNoLogUnlessAskedTo) {
  TinyServer server(GetParam(), Manner::kEcho);
  const LoadResult result = RunLoad(Open(server.target(), {0, 0, 0})).value();
  EXPECT_EQ(result.answered, 3u);
  EXPECT_TRUE(result.answers.empty());
  EXPECT_EQ(std::count(result.answered_by.begin(), result.answered_by.end(), 0u), kWorkersMax);
}

// They are to stay open for longer than the window; its end releases them.
TEST_P(LoadGenerator, HoldsConnectionsOpenUntilTheWindowEnds) {
  TinyServer server(GetParam(), Manner::kEcho);
  LoadOptions options = Open(server.target(), EvenSchedule(400, 50 * kMillisecond));
  std::get<OpenLoop>(options.load).hold_ns = 3600 * kSecond;
  const LoadResult result = RunLoad(options).value();
  EXPECT_EQ(result.answered, 20u);
  EXPECT_EQ(result.answered_in_window, 20u);
  EXPECT_EQ(server.open_max(), 20u);
  // The time for which they are held is no latency.
  EXPECT_LT(result.latency_ns.min(), static_cast<uint64_t>(100 * kMillisecond));
}

// Two clients that hold for a quarter of the window have time for some four connections each.
TEST_P(LoadGenerator, StartsAgainAfterTheHoldInAClosedLoop) {
  TinyServer server(GetParam(), Manner::kEcho);
  LoadOptions options = Closed(server.target());
  options.load = ClosedLoop{.clients = 2, .hold_ns = options.duration_ns / 4};
  const LoadResult result = RunLoad(options).value();
  EXPECT_GT(result.answered, 0u);
  EXPECT_LE(result.answered, 10u);
  EXPECT_EQ(result.answered, result.started);
}

TEST_P(LoadGenerator, CountsAHeldConnectionThatTheServerEndsAsReset) {
  TinyServer server(GetParam(), Manner::kCloseAfterAnswer);
  LoadOptions options = Open(server.target(), {0, 0, 0, 0, 0});
  EXPECT_EQ(RunLoad(options).value().answered, 5u);
  std::get<OpenLoop>(options.load).hold_ns = 3600 * kSecond;
  const LoadResult result = RunLoad(options).value();
  EXPECT_EQ(result.reset, 5u);
  EXPECT_EQ(Outcomes(result), result.started);
}

TEST(LoadGeneratorOptions, AreRefusedWhenTheyMeanNothing) {
  const Target target = Listener::Create(Transport::kTcp).value().target();
  LoadOptions nobody = Closed(target);
  nobody.load = ClosedLoop{.clients = 0};
  EXPECT_EQ(RunLoad(nobody).status().code(), absl::StatusCode::kInvalidArgument);
  LoadOptions tiny = Closed(target);
  tiny.payload_bytes = 1;
  EXPECT_EQ(RunLoad(tiny).status().code(), absl::StatusCode::kInvalidArgument);
  LoadOptions many = Closed(target);
  many.load = ClosedLoop{.clients = 1u << 30};
  EXPECT_EQ(RunLoad(many).status().code(), absl::StatusCode::kResourceExhausted);
}

// Fewer clients would be another load: the starts would wait for each other.
TEST(LoadGeneratorOptions, AreRefusedWhenThereAreTooFewDescriptorsForThem) {
  const DescriptorLimit few(256);
  const Target target = Listener::Create(Transport::kTcp).value().target();
  const LoadOptions many = Open(target, std::vector<int64_t>(1000, 0));
  const absl::Status status = RunLoad(many).status();
  EXPECT_EQ(status, CheckDescriptors(many.load));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "RLIMIT_NOFILE is 256, too few descriptors for 1000 clients; raise it with: "
            "ulimit -n 1128");
  EXPECT_TRUE(CheckDescriptors(ClosedLoop{.clients = 192}).ok());
  EXPECT_FALSE(CheckDescriptors(ClosedLoop{.clients = 193}).ok());
  // As many as there are connections to start are enough.
  EXPECT_TRUE(CheckDescriptors(Open(target, std::vector<int64_t>(100, 0)).load).ok());
}

TEST(LoadResult, QuotesNoLatencyWhenLessThanWhatWasOfferedWasAchieved) {
  LoadResult result;
  result.open_loop = true;
  result.window_ns = 10 * kSecond;
  result.started = 10'000;
  result.answered = 10'000;
  result.latency_ns.Add(1, 10'000);
  result.answered_in_window = 9'900;
  EXPECT_TRUE(result.latency_valid());
  EXPECT_EQ(result.LatencyNs(1), 1u);
  result.answered_in_window = 9'899;
  EXPECT_FALSE(result.latency_valid());
  EXPECT_FALSE(result.LatencyNs(0.5).has_value());
  result.open_loop = false;
  EXPECT_TRUE(result.latency_valid());
}

// Of 1000 that were started, `lost` were let in and then reset, and the others were answered within
// 1 to 1000 - `lost`. The window is so short that a hiccup at its end may be a quarter of it.
LoadResult WithLost(uint64_t lost, bool open_loop) {
  LoadResult result;
  result.open_loop = open_loop;
  result.window_ns = 100 * kMillisecond;
  result.started = 1000;
  result.answered = result.answered_in_window = 1000 - lost;
  result.reset = lost;
  for (uint64_t i = 1; i <= result.answered; ++i) result.latency_ns.Add(i);
  return result;
}

TEST(LoadResult, CountsWhatWasLostAsAnEndlessLatency) {
  struct Case {
    uint64_t lost;
    bool p50, p99, p999, max;
  };
  for (const bool open_loop : {false, true}) {
    for (const Case& made :
         {Case{0, true, true, true, true}, Case{1, true, true, true, false},
          Case{2, true, true, false, false}, Case{10, true, true, false, false},
          Case{11, true, false, false, false}, Case{250, true, false, false, false},
          Case{500, true, false, false, false}, Case{501, false, false, false, false}}) {
      const LoadResult result = WithLost(made.lost, open_loop);
      EXPECT_EQ(result.LatencyNs(0.5).has_value(), made.p50) << made.lost;
      EXPECT_EQ(result.LatencyNs(0.99).has_value(), made.p99) << made.lost;
      EXPECT_EQ(result.LatencyNs(0.999).has_value(), made.p999) << made.lost;
      EXPECT_EQ(result.LatencyNs(1).has_value(), made.max) << made.lost;
    }
  }
}

// Half of all, not half of those that were answered.
TEST(LoadResult, CountsAPercentileOfAllThatWasStarted) {
  EXPECT_NEAR(static_cast<double>(WithLost(250, true).LatencyNs(0.5).value()), 500, 5);
  EXPECT_EQ(WithLost(500, true).LatencyNs(0.5), 500u);
}

// What nobody has answered by the end of the grace may well be in a queue that grows.
TEST(LoadResult, TakesWhatWasNeverAnsweredForFallenBehind) {
  LoadResult result = WithLost(300, true);
  EXPECT_TRUE(result.LatencyNs(0.5).has_value());
  result.unanswered = std::exchange(result.reset, 0);
  EXPECT_FALSE(result.LatencyNs(0.5).has_value());
}

TEST(LoadResult, SaysThatTheGeneratorWasTheLimitWhenItComputedAllTheTime) {
  LoadResult result;
  EXPECT_FALSE(result.generator_limited());
  result.window_ns = kSecond;
  result.cpu_ns = 949 * kMillisecond;
  EXPECT_FALSE(result.generator_limited());
  result.cpu_ns = 950 * kMillisecond;
  EXPECT_TRUE(result.generator_limited());
}

TEST(LoadResult, ForgivesAShortWindowOneHiccupAtItsEnd) {
  LoadResult result;
  result.open_loop = true;
  result.window_ns = kSecond;
  result.started = 2000;
  result.answered = 2000;
  result.latency_ns.Add(1, 2000);
  result.answered_in_window = 1950;
  EXPECT_TRUE(result.latency_valid());
  result.answered_in_window = 1949;
  EXPECT_FALSE(result.latency_valid());
}

TEST(Schedule, IsEvenWhenAskedForThat) {
  const std::vector<int64_t> starts = EvenSchedule(1000, 5 * kMillisecond);
  EXPECT_EQ(starts, (std::vector<int64_t>{0, 1'000'000, 2'000'000, 3'000'000, 4'000'000}));
}

TEST(Schedule, IsTheSameForTheSameSeedOnly) {
  EXPECT_EQ(PoissonSchedule(1000, kSecond, 1), PoissonSchedule(1000, kSecond, 1));
  EXPECT_NE(PoissonSchedule(1000, kSecond, 1), PoissonSchedule(1000, kSecond, 2));
}

// Of a Poisson process with 10,000 events expected, the count is within 5 % (5 standard
// deviations). A part of 1/e of the gaps is longer than the mean gap.
TEST(Schedule, IsRandomWithTheRateAndTheGapsOfAPoissonProcess) {
  const std::vector<int64_t> starts = PoissonSchedule(1000, 10 * kSecond, 42);
  EXPECT_NEAR(static_cast<double>(starts.size()), 10'000, 500);
  EXPECT_TRUE(std::is_sorted(starts.begin(), starts.end()));
  EXPECT_LT(starts.back(), 10 * kSecond);
  size_t longer = 0;
  for (size_t i = 1; i < starts.size(); ++i) {
    if (starts[i] - starts[i - 1] > kMillisecond) ++longer;
  }
  EXPECT_NEAR(static_cast<double>(longer) / static_cast<double>(starts.size()), 0.368, 0.02);
}

// --- Clients that stay ---------------------------------------------------------------------------

LoadOptions Staying(const Target& target, StayingClients clients) {
  return {.target = target,
          .load = std::move(clients),
          .warm_up_ns = 20 * kMillisecond,
          .duration_ns = 200 * kMillisecond,
          .grace_ns = 10 * kSecond};
}

TEST_P(LoadGenerator, WhoStaysAsksOverTheSameConnectionAgainAndAgain) {
  TinyServer server(GetParam(), Manner::kSign);
  const LoadResult result =
      RunLoad(Staying(server.target(),
                      {.clients = 8, .opening_ns = kMillisecond, .think_ns = kMillisecond}))
          .value();
  EXPECT_EQ(server.accepted(), 8u);
  EXPECT_GT(result.answered, 8u);
  EXPECT_EQ(result.answered, result.started);
  EXPECT_EQ(result.answered_by[7], result.answered);
  EXPECT_EQ(result.latency_ns.count(), result.answered);
  EXPECT_FALSE(result.open_loop);
  EXPECT_TRUE(result.staying);
  ASSERT_GE(result.samples.size(), 2u);
  EXPECT_LT(result.samples.front().at_ns, 0);
  EXPECT_EQ(result.samples.back().connections[7], 8u);
  EXPECT_TRUE(result.newcomers.empty());
}

TEST_P(LoadGenerator, AWholePoolComesBeforeItsFirstRequest) {
  TinyServer server(GetParam(), Manner::kSign);
  LoadOptions options = Staying(
      server.target(), {.clients = 4, .opening_ns = 20 * kMillisecond, .think_ns = kMillisecond});
  options.warm_up_ns = 60 * kMillisecond;
  options.duration_ns = 100 * kMillisecond;
  const LoadResult result = RunLoad(options).value();
  // The last client comes when the window begins; 20 ms later the first one asks.
  for (const LoadResult::Sample& sample : result.samples) {
    if (sample.at_ns >= 20 * kMillisecond) continue;
    EXPECT_EQ(sample.connections[7], 0u) << sample.at_ns;
  }
  EXPECT_EQ(result.samples.back().connections[7], 4u);
}

// 100 requests a second of each are offered although none is ever answered.
TEST_P(LoadGenerator, AnOpenLoopOfThoseWhoStayCountsWhatCouldNotBeAsked) {
  TinyServer server(GetParam(), Manner::kNeverAnswer);
  LoadOptions options =
      Staying(server.target(),
              {.clients = 4, .opening_ns = 0, .think_ns = 10 * kMillisecond, .open_loop = true});
  options.grace_ns = 10 * kMillisecond;
  const LoadResult result = RunLoad(options).value();
  EXPECT_TRUE(result.open_loop);
  EXPECT_GT(result.started, 40u);
  EXPECT_EQ(result.unanswered, result.started);
  EXPECT_FALSE(result.latency_valid());
}

TEST_P(LoadGenerator, WhoStaysTellsAWrongAnswerAndAConnectionThatEnds) {
  for (const auto& [manner, count] : {std::pair(Manner::kEchoOfAnother, &LoadResult::wrong),
                                      std::pair(Manner::kEchoTooMuch, &LoadResult::wrong),
                                      std::pair(Manner::kSignImpossible, &LoadResult::wrong),
                                      std::pair(Manner::kCloseAtOnce, &LoadResult::reset),
                                      std::pair(Manner::kCloseAfterHalf, &LoadResult::reset)}) {
    TinyServer server(GetParam(), manner);
    const LoadResult result =
        RunLoad(Staying(server.target(), {.clients = 3, .opening_ns = 0, .think_ns = kMillisecond}))
            .value();
    EXPECT_GT(result.*count, 0u);
    EXPECT_EQ(result.answered, 0u);
    EXPECT_EQ(Outcomes(result), result.started);
    EXPECT_GT(server.accepted(), 3u);  // they come back
  }
}

TEST_P(LoadGenerator, UnequalOnesGoAndAreFollowedByOthers) {
  TinyServer server(GetParam(), Manner::kSign);
  const LoadResult result = RunLoad(Staying(server.target(), {.clients = 8,
                                                              .opening_ns = kMillisecond,
                                                              .think_ns = kMillisecond,
                                                              .unequal = true,
                                                              .stay_ns = 20 * kMillisecond,
                                                              .seed = 3}))
                                .value();
  EXPECT_GT(server.accepted(), 16u);
  EXPECT_LE(server.open_max(), 9u);  // one that has gone may still be seen
  EXPECT_EQ(result.answered, result.started);
  EXPECT_EQ(result.reset, 0u);
}

TEST_P(LoadGenerator, NewcomersComeAndGoBesideThoseWhoStay) {
  TinyServer server(GetParam(), Manner::kSign);
  StayingClients clients{.clients = 4, .opening_ns = 0, .think_ns = kMillisecond};
  clients.newcomers = OpenLoop{.starts_ns = EvenSchedule(500, 220 * kMillisecond)};
  const LoadResult result = RunLoad(Staying(server.target(), clients)).value();
  ASSERT_EQ(result.newcomers.size(), 1u);
  EXPECT_EQ(result.newcomers[0].started, 100u);
  EXPECT_EQ(result.newcomers[0].answered, 100u);
  EXPECT_EQ(server.accepted(), 4u + 110u);
  EXPECT_EQ(result.answered, result.started);
}

}  // namespace
}  // namespace ringmaster::bench
