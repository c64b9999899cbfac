// Probing the kernel that runs, and the texts for one that lacks something.

#include "ring/features.h"

#include <dirent.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "sockets.h"

namespace ringmaster::ring {
namespace {

std::set<std::string> OpenDescriptors() {
  std::set<std::string> open;
  DIR* directory = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(directory)) open.insert(entry->d_name);
  closedir(directory);
  return open;
}

Features Enough() {
  return {.accept = true, .cancel = true, .multishot_poll = true, .msg_ring = true};
}

bool Mentions(const absl::Status& status, const std::string& text) {
  return std::string(status.message()).find(text) != std::string::npos;
}

TEST(Features, ArePlausibleTogether) {
  const absl::StatusOr<Features> features = ProbeFeatures();
  if (!features.ok()) GTEST_SKIP() << features.status().ToString();
  EXPECT_TRUE(CheckFeatures(*features, "").ok());
  // A later feature comes with those before it.
  EXPECT_LE(features->accept_dontwait, features->defer_taskrun);
  EXPECT_LE(features->defer_taskrun, features->single_issuer);
  EXPECT_LE(features->single_issuer, features->coop_taskrun);
  EXPECT_LE(features->coop_taskrun, features->multishot_accept);
  EXPECT_LE(features->multishot_accept, features->submit_all);
}

TEST(Features, AreFoundTheSameEveryTime) {
  const absl::StatusOr<Features> first = ProbeFeatures();
  if (!first.ok()) GTEST_SKIP() << first.status().ToString();
  for (int i = 0; i < 20; ++i) {
    const absl::StatusOr<Features> again = ProbeFeatures();
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->multishot_poll, first->multishot_poll);
    EXPECT_EQ(again->multishot_accept, first->multishot_accept);
    EXPECT_EQ(again->accept_dontwait, first->accept_dontwait);
    EXPECT_EQ(again->msg_ring, first->msg_ring);
  }
}

TEST(Features, AreProbedWithoutLeavingADescriptorBehind) {
  const std::set<std::string> before = OpenDescriptors();
  ProbeFeatures().IgnoreError();
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(Features, SayThatDescriptorsAreMissingAndNotThatTheKernelIsOld) {
  const absl::StatusOr<Features> probed = ProbeFeatures();
  if (!probed.ok()) GTEST_SKIP() << probed.status().ToString();
  // With room for 0, 1, 2, 3 descriptors and so on, the probe stops at each of its steps.
  std::vector<Fd> held;
  for (int i = 0; i < 8; ++i) held.emplace_back(fcntl(0, F_DUPFD_CLOEXEC, 0));
  const NoDescriptorsLeft none;
  int refusals = 0;
  bool succeeded = false;
  while (!held.empty() && !succeeded) {
    const absl::StatusOr<Features> features = ProbeFeatures();
    if (features.ok()) {
      succeeded = true;
      EXPECT_EQ(features->multishot_accept, probed->multishot_accept);
    } else {
      ++refusals;
      EXPECT_EQ(features.status().code(), absl::StatusCode::kResourceExhausted)
          << features.status();
    }
    held.pop_back();
  }
  EXPECT_TRUE(succeeded);
  EXPECT_GE(refusals, 4);
}

// Runs under a filter that refuses io_uring; see meson.build.
TEST(Features, SayWhyWhenIoUringIsRefused) {
  const absl::StatusOr<Features> features = ProbeFeatures();
  if (features.ok()) GTEST_SKIP() << "io_uring works here";
  EXPECT_TRUE(features.status().code() == absl::StatusCode::kPermissionDenied ||
              features.status().code() == absl::StatusCode::kUnimplemented)
      << features.status();
  EXPECT_TRUE(Mentions(features.status(), "cannot create an io_uring")) << features.status();
  EXPECT_TRUE(Mentions(features.status(), "seccomp") || Mentions(features.status(), "sysctl"))
      << features.status();
}

TEST(Features, AreEnoughWithoutTheOptionalOnes) {
  EXPECT_TRUE(CheckFeatures(Enough(), "5.18").ok());
}

TEST(Features, NameWhatIsMissingSinceWhenItExistsAndWhatToDo) {
  struct {
    bool Features::*field;
    const char* name;
    const char* since;
  } const needs[] = {{&Features::accept, "IORING_OP_ACCEPT", "5.5"},
                     {&Features::cancel, "IORING_OP_CLOSE", "5.6"},
                     {&Features::multishot_poll, "multishot poll", "5.13"},
                     {&Features::msg_ring, "IORING_OP_MSG_RING", "5.18"}};
  for (const auto& need : needs) {
    Features features = Enough();
    features.*need.field = false;
    const absl::Status status = CheckFeatures(features, "5.4.0-sample");
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    for (const char* text : {need.name, need.since, "5.4.0-sample", "Run Linux 6.1 or later"}) {
      EXPECT_TRUE(Mentions(status, text)) << text << " is missing in: " << status;
    }
    for (const auto& other : needs) {
      EXPECT_EQ(Mentions(status, other.name), other.field == need.field) << status;
    }
  }
}

TEST(Features, NameAllThatIsMissing) {
  const absl::Status status = CheckFeatures({}, "4.19");
  EXPECT_TRUE(Mentions(status, "IORING_OP_ACCEPT")) << status;
  EXPECT_TRUE(Mentions(status, "IORING_OP_MSG_RING")) << status;
}

}  // namespace
}  // namespace ringmaster::ring
