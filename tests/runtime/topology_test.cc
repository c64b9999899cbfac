// Method: a directory made by the test stands for the kernel's.

#include "runtime/topology.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace ringmaster::internal {
namespace {

class Topology : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "ringmaster-topology-" + std::to_string(getpid());
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ + "/sys/devices/system/cpu/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text << "\n";
  }

  std::string root_;
};

TEST_F(Topology, KnowsNothingWhereThereIsNothingToRead) {
  EXPECT_TRUE(ReadTopology(root_).cpus.empty());
}

TEST_F(Topology, ReadsWhichCpusShareACoreACacheAndANode) {
  for (int cpu = 0; cpu < 4; ++cpu) {
    const std::string path = "cpu" + std::to_string(cpu);
    Write(path + "/topology/core_cpus_list", cpu < 2 ? "0-1" : "2-3");
    Write(path + "/cache/index0/level", "1");
    Write(path + "/cache/index0/shared_cpu_list", std::to_string(cpu));
    Write(path + "/cache/index1/level", "3");
    Write(path + "/cache/index1/shared_cpu_list", "0-3");
    Write(path + "/node" + std::to_string(cpu / 2) + "/marker", "");
  }
  const CpuTopology topology = ReadTopology(root_);
  ASSERT_EQ(topology.cpus.size(), 4u);
  EXPECT_EQ(topology.cpus[0].core, topology.cpus[1].core);
  EXPECT_NE(topology.cpus[1].core, topology.cpus[2].core);
  EXPECT_EQ(topology.cpus[0].cache, topology.cpus[3].cache);
  EXPECT_EQ(topology.cpus[1].node, 0);
  EXPECT_EQ(topology.cpus[2].node, 1);
}

TEST_F(Topology, LeavesUnknownWhatIsMissing) {
  Write("cpu0/topology/thread_siblings_list", "0");
  const CpuTopology topology = ReadTopology(root_);
  ASSERT_EQ(topology.cpus.size(), 1u);
  EXPECT_EQ(topology.cpus[0].core, 0);
  EXPECT_EQ(topology.cpus[0].cache, -1);
  EXPECT_EQ(topology.cpus[0].node, -1);
}

}  // namespace
}  // namespace ringmaster::internal
