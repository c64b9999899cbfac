// Describes machines that are made up as files, and then this one.

#include "bench/machine.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace ringmaster::bench {
namespace {

TEST(KernelVersion, LeavesOutWhatADistributionOrAHostAdds) {
  EXPECT_EQ(KernelVersionOf("6.18.44"), "6.18.44");
  EXPECT_EQ(KernelVersionOf("6.1.0-13-amd64"), "6.1.0");
  EXPECT_EQ(KernelVersionOf("6.6.87_custom"), "6.6.87");
  EXPECT_EQ(KernelVersionOf(""), "");
}

class Vulnerabilities : public ::testing::Test {
 protected:
  Vulnerabilities() : folder_(::testing::TempDir() + "vulnerabilities_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }
  ~Vulnerabilities() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& state) {
    std::ofstream(folder_ + "/" + name) << state << "\n";
  }

  std::string folder_;
};

TEST_F(Vulnerabilities, AreNamedUnlessTheCpuHasThemNot) {
  Write("spectre_v2", "Mitigation: Retpolines; STIBP: disabled; RSB filling");
  Write("meltdown", "Mitigation: PTI");
  Write("retbleed", "Vulnerable");
  Write("mds", "Not affected");
  Write("srbds", "Not affected");
  EXPECT_EQ(SummarizeVulnerabilities(folder_),
            "meltdown: PTI; retbleed: Vulnerable; spectre_v2: Retpolines; 2 not affected");
}

TEST_F(Vulnerabilities, AreUnknownWhereTheKernelDoesNotTell) {
  EXPECT_EQ(SummarizeVulnerabilities(folder_), "unknown");
  EXPECT_EQ(SummarizeVulnerabilities(folder_ + "/missing"), "unknown");
}

TEST(Machine, SaysHowManyCpusThisProcessMayUse) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_EQ(DescribeMachine().cpus_allowed, static_cast<uint32_t>(CPU_COUNT(&before)));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(DescribeMachine().cpus_allowed, 1u);
  sched_setaffinity(0, sizeof(before), &before);
}

TEST(Machine, IsDescribedCompletely) {
  const Context context = DescribeMachine();
  for (const std::string& text :
       {context.program, context.date, context.kernel, context.cpu_model, context.governor,
        context.mitigations, context.liburing, context.ring_flags, context.compiler,
        context.build_flags, context.commit}) {
    EXPECT_FALSE(text.empty());
  }
  EXPECT_GE(context.cpus, 1u);
  EXPECT_EQ(context.kernel.find_first_not_of("0123456789."), std::string::npos);
  EXPECT_EQ(context.build_flags.find("-O"), 0u);
}

}  // namespace
}  // namespace ringmaster::bench
