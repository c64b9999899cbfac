// A program of a user's, by the public headers alone. It is built as C++17 and as C++20, and links
// the library, which is C++20: what crosses that border means the same on both sides.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "ringmaster/balancer.h"
#include "ringmaster/listeners.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"
#include "ringmaster/processes.h"
#include "ringmaster/ringmaster.h"
#include "ringmaster/span.h"
#include "ringmaster/stats.h"

namespace ringmaster {
namespace {

// --- Spans ---------------------------------------------------------------------------------------

using Words = Span<uint64_t>;
using ConstWords = Span<const uint64_t>;
struct Base {
  uint64_t word = 0;
};
struct Derived : Base {
  uint64_t more = 0;
};

// What std::span accepts, it accepts.
static_assert(std::is_convertible_v<std::vector<uint64_t>&, Words>);
static_assert(std::is_convertible_v<std::array<uint64_t, 3>&, Words>);
static_assert(std::is_convertible_v<uint64_t (&)[3], Words>);
static_assert(std::is_convertible_v<const std::vector<uint64_t>&, ConstWords>);
static_assert(std::is_convertible_v<std::vector<uint64_t>, ConstWords>);
static_assert(std::is_convertible_v<const std::array<uint64_t, 3>&, ConstWords>);
static_assert(std::is_convertible_v<Words, ConstWords>);
// What it refuses, as well: elements that may not be written, or are about to go, and others.
static_assert(!std::is_convertible_v<const std::vector<uint64_t>&, Words>);
static_assert(!std::is_convertible_v<std::vector<uint64_t>, Words>);
static_assert(!std::is_convertible_v<ConstWords, Words>);
static_assert(!std::is_convertible_v<std::vector<uint32_t>&, ConstWords>);
static_assert(!std::is_convertible_v<std::vector<Derived>&, Span<Base>>);
static_assert(!std::is_convertible_v<uint64_t&, Words>);
// It is passed in two registers.
static_assert(std::is_trivially_copyable_v<Words> && sizeof(Words) == 2 * sizeof(void*));

#if __cplusplus >= 202002L
static_assert(std::is_convertible_v<std::span<uint64_t>, Words>);
static_assert(std::is_convertible_v<std::span<uint64_t>&, Words>);
static_assert(std::is_convertible_v<const std::span<uint64_t>&, ConstWords>);
static_assert(std::is_convertible_v<std::span<const uint64_t>, ConstWords>);
static_assert(std::is_convertible_v<std::span<uint64_t, 3>, Words>);
static_assert(!std::is_convertible_v<std::span<const uint64_t>, Words>);
static_assert(std::is_convertible_v<Words, std::span<uint64_t>>);
static_assert(std::is_convertible_v<Words, std::span<const uint64_t>>);
static_assert(std::is_convertible_v<ConstWords&, std::span<const uint64_t>>);
static_assert(!std::is_convertible_v<ConstWords, std::span<uint64_t>>);
static_assert(std::ranges::view<Words> && std::ranges::borrowed_range<ConstWords>);
#endif

TEST(Span, ShowsWhatItWasMadeOf) {
  std::vector<uint64_t> words = {7, 8, 9};
  const Words span = words;
  EXPECT_EQ(span.data(), words.data());
  EXPECT_EQ(span.size(), 3u);
  EXPECT_FALSE(span.empty());
  EXPECT_EQ(span.front(), 7u);
  EXPECT_EQ(span[1], 8u);
  EXPECT_EQ(span.back(), 9u);
  EXPECT_TRUE(std::equal(span.begin(), span.end(), words.begin(), words.end()));
  span[1] = 1;
  EXPECT_EQ(words[1], 1u);
  EXPECT_TRUE(ConstWords().empty());
  EXPECT_EQ(ConstWords(words.data(), 2).size(), 2u);
}

// --- A server ------------------------------------------------------------------------------------

// In turn, by its own count.
class InTurn final : public Policy {
 public:
  std::string name() const override { return "in-turn"; }
  size_t Pick(const Arrival& arrival, const View& view) override {
    EXPECT_EQ(arrival.incoming_cpu, -1);
    EXPECT_EQ(view.joined.size(), 2u);
    EXPECT_LE(view.candidates.size(), view.joined.size());
    for (const Candidate& candidate : view.candidates) EXPECT_GT(candidate.credit, 0u);
    return picks_++ % view.candidates.size();
  }
  bool Save(Span<uint64_t> words) const override {
    words[0] = picks_;
    return true;
  }
  bool Load(Span<const uint64_t> words) override {
    picks_ = words[0];
    return true;
  }

 private:
  uint64_t picks_ = 0;
};

class StandardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listen_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address_);
    auto* const address = reinterpret_cast<sockaddr*>(&address_);
    ASSERT_EQ(bind(listen_fd_, address, size), 0);
    ASSERT_EQ(listen(listen_fd_, 16), 0);
    ASSERT_EQ(getsockname(listen_fd_, address, &size), 0);
  }
  void TearDown() override { close(listen_fd_); }

  sockaddr_in address_{};
  int listen_fd_ = -1;
};

TEST_F(StandardTest, AProgramOfThisStandardServes) {
#if __cplusplus >= 202002L
  auto made = Balancer::Create({.host = Host::kThread, .thread_name = "standard-20"});
#else
  BalancerOptions options;
  options.host = Host::kThread;
  options.thread_name = "standard-17";
  auto made = Balancer::Create(std::move(options));
#endif
  if (absl::IsPermissionDenied(made.status()) || absl::IsUnimplemented(made.status())) {
    GTEST_SKIP() << made.status();
  }
  ASSERT_TRUE(made.ok()) << made.status();
  Balancer& balancer = **made;

#if __cplusplus >= 202002L
  auto source = balancer.AddSource(
      listen_fd_, {.policy = std::make_unique<InTurn>(), .start_workers = 2, .capacity = 100});
#else
  SourceOptions source_options;
  source_options.policy = std::make_unique<InTurn>();
  source_options.start_workers = 2;
  source_options.capacity = 100;
  auto source = balancer.AddSource(listen_fd_, std::move(source_options));
#endif
  ASSERT_TRUE(source.ok()) << source.status();

  std::array<Mailbox, 2> mailboxes;
  std::array<Port, 2> ports;
  for (size_t i = 0; i < ports.size(); ++i) {
    mailboxes[i] = Mailbox::Create().value();
    ports[i] = balancer.AddWorker(mailboxes[i]).value();
    JoinOptions join;
    join.token = 40 + i;
    ASSERT_TRUE(source->Join(ports[i], join).ok());
  }

  for (size_t client = 0; client < 4; ++client) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address_), sizeof(address_)), 0);
    const size_t worker = client % 2;
    Connection served;
    while (served.fd() < 0) {
      pollfd readable = {mailboxes[worker].fd(), POLLIN, 0};
      ASSERT_EQ(poll(&readable, 1, 60'000), 1);
      ports[worker].Claim([&](Connection connection) { served = std::move(connection); });
    }
    EXPECT_EQ(served.token(), 40 + worker);
    EXPECT_EQ(send(served.fd(), "hi", 2, MSG_NOSIGNAL), 2);
    served = Connection();
    std::array<char, 8> bytes = {};
    EXPECT_EQ(recv(fd, bytes.data(), bytes.size(), MSG_WAITALL), 2);
    EXPECT_EQ(std::string_view(bytes.data()), "hi");
    close(fd);
  }

  ShutdownOptions ending;
  ending.drain = absl::Seconds(60);
  bool intake_ended = false;
  ending.on_intake_ended = [&] { intake_ended = true; };
  const ShutdownReport report = balancer.Shutdown(std::move(ending));
  EXPECT_TRUE(intake_ended);
  EXPECT_TRUE(report.drained);
  ASSERT_EQ(report.stats.workers.size(), 2u);
  for (const WorkerStats& worker : report.stats.workers) EXPECT_EQ(worker.claimed, 2u);
  ASSERT_EQ(report.stats.sources.size(), 1u);
  EXPECT_EQ(report.stats.sources[0].policy_faults, 0u);
}

TEST(Standard, PoliciesAreFoundByTheirNames) {
  for (const std::string_view name : PolicyNames()) {
    std::unique_ptr<Policy> policy = PolicyByName(name).value();
    policy->Prepare(2);
    const std::vector<Candidate> candidates(1);
    const std::vector<uint32_t> joined = {0};
    const CpuTopology topology;
    View view;
    view.candidates = candidates;
    view.joined = joined;
    view.topology = &topology;
    EXPECT_EQ(policy->Pick({}, view), 0u) << name;
#if __cplusplus >= 202002L
    const std::span<const Candidate> span = candidates;
    EXPECT_EQ(policy->Pick({}, {.candidates = span, .joined = joined, .topology = &topology}), 0u);
    std::vector<uint64_t> words(Policy::kMemoryWords + 2);
    EXPECT_EQ(policy->Save(std::span(words)), policy->Load(std::span(words)));
#endif
  }
}

}  // namespace
}  // namespace ringmaster
