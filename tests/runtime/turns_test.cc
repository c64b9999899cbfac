// Several sources whose clients want more than the workers can take. Method: all clients wait
// before the worker joins; it has room for one connection at a time and writes down whose it was.
// What is checked is the order, not the time.

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <mutex>
#include <string>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr size_t kFlood = 300;
constexpr size_t kQuiet = 10;
// So many of others may be served for each that waits.
constexpr size_t kTurnsMax = 8;

struct Case {
  Intake flooded = Intake::kPollAccept;
  Intake quiet = Intake::kPollAccept;
  Handoff handoff = Handoff::kInbox;
  bool by_capacity = false;  // rather than by its window the worker is limited
};

// The worker of these tests is not handed tickets as completions.
std::vector<Case> AllCases() {
  const std::array intakes = {Intake::kPollAccept, Intake::kAccept, Intake::kReadiness};
  std::vector<Case> cases;
  for (const Intake flooded : intakes) {
    for (const Intake quiet : intakes) {
      for (const bool by_capacity : {false, true}) {
        cases.push_back({flooded, quiet, Handoff::kInbox, by_capacity});
        if (flooded == Intake::kReadiness || quiet == Intake::kReadiness) continue;
        cases.push_back({flooded, quiet, Handoff::kCompletion, by_capacity});
      }
    }
  }
  return cases;
}

std::string NameOf(Intake intake) {
  switch (intake) {
    case Intake::kPollAccept:
      return "Poll";
    case Intake::kAccept:
      return "Accept";
    case Intake::kReadiness:
      return "Readiness";
  }
  return "";
}

std::string NameOf(const ::testing::TestParamInfo<Case>& param) {
  const Case& it = param.param;
  return NameOf(it.flooded) + "Beside" + NameOf(it.quiet) +
         (it.handoff == Handoff::kCompletion ? "Completions" : "") +
         (it.by_capacity ? "ByCapacity" : "ByWindow");
}

class TurnsTest : public BalancerTest, public ::testing::WithParamInterface<Case> {};
INSTANTIATE_TEST_SUITE_P(Flooded, TurnsTest, ::testing::ValuesIn(AllCases()),
                         [](const auto& param) { return NameOf(param); });

TEST_P(TurnsTest, TheClientsOfAQuietSourceAreServedInTurn) {
  const auto [flooded, quiet, handoff, by_capacity] = GetParam();
  const Listener many = Listener::Tcp();
  const Listener few = Listener::Tcp();
  const std::vector<Source> sources = {AddSource(many, {.intake = flooded}),
                                       AddSource(few, {.intake = quiet})};
  std::vector<int> clients;
  for (size_t i = 0; i < kFlood; ++i) clients.push_back(many.Connect());
  for (size_t i = 0; i < kQuiet; ++i) clients.push_back(few.Connect());
  std::vector<uint64_t> served;
  const auto serve = [&](uint32_t, Connection connection) {
    std::lock_guard lock(mutex_);
    served.push_back(connection.token() % Worker::kTokens);
  };
  const auto worker = AddWorker(sources, serve,
                                {.handoff = handoff,
                                 .capacity = by_capacity ? 1 : UINT32_MAX,
                                 .window = by_capacity ? 4u : 1u});
  EXPECT_TRUE(Eventually([&] {
    std::lock_guard lock(mutex_);
    return served.size() == kFlood + kQuiet;
  }));
  std::lock_guard lock(mutex_);
  size_t found = 0;
  for (size_t i = 0; i < served.size(); ++i) {
    if (served[i] == 0) continue;
    ++found;
    EXPECT_LE(i, kTurnsMax * found) << found;
  }
  EXPECT_EQ(found, kQuiet);
  for (const int client : clients) close(client);
}

}  // namespace
}  // namespace ringmaster
