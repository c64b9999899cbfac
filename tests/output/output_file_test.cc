// Writes files into a folder of its own.

#include "output/output_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace ringmaster::output {
namespace {

namespace fs = std::filesystem;

class OutputFile : public ::testing::Test {
 protected:
  OutputFile() : folder_(::testing::TempDir() + "output_file_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }
  ~OutputFile() override { fs::remove_all(folder_); }

  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  ptrdiff_t Count() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

  std::string folder_;
};

TEST_F(OutputFile, IsNotThereUntilItIsWritten) {
  const std::string path = PathOf("figures.json");
  EXPECT_TRUE(PrepareFile(path).ok());
  EXPECT_EQ(Count(), 0);
  EXPECT_TRUE(WriteFile(path, "figures").ok());
  EXPECT_EQ(Read(path), "figures");
  EXPECT_EQ(Count(), 1);
}

TEST_F(OutputFile, IsRefusedWhereThereIsNoFolder) {
  const absl::Status status = PrepareFile(PathOf("new/figures.json"));
  EXPECT_NE(status.message().find("create it first"), std::string::npos) << status;
  EXPECT_EQ(Count(), 0);
}

TEST_F(OutputFile, TakesThePlaceAndTheModeOfWhatWasThere) {
  const std::string path = PathOf("figures.json");
  std::ofstream(path) << "what was there before, which is longer";
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  ASSERT_EQ(symlink(path.c_str(), PathOf("link").c_str()), 0);
  EXPECT_TRUE(PrepareFile(PathOf("link")).ok());
  EXPECT_EQ(Read(path).substr(0, 4), "what");
  EXPECT_TRUE(WriteFile(PathOf("link"), "figures").ok());
  EXPECT_EQ(Read(path), "figures");
  EXPECT_TRUE(fs::is_symlink(PathOf("link")));
  struct stat after {};
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_mode & 07777, mode_t{0640});
  EXPECT_EQ(Count(), 2);
}

TEST_F(OutputFile, IsAsBeforeWhenItCannotBeWrittenToTheEnd) {
  const std::string path = PathOf("figures.json");
  std::ofstream(path) << "before";
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = WriteFile(path, std::string(8192, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(status.message().find("cannot write " + path), std::string::npos) << status;
  EXPECT_EQ(Read(path), "before");
  EXPECT_EQ(Count(), 1);
}

TEST_F(OutputFile, CannotBeAFolder) {
  EXPECT_FALSE(PrepareFile(folder_).ok());
  EXPECT_EQ(Count(), 0);
}

TEST_F(OutputFile, MayBeWhatIsNoRegularFile) {
  EXPECT_TRUE(PrepareFile("/dev/null").ok());
  EXPECT_TRUE(WriteFile("/dev/null", "figures").ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_FALSE(WriteFile("/dev/full", "figures").ok());
}

TEST_F(OutputFile, IsTheSameByWhateverName) {
  EXPECT_TRUE(IsSameFile(PathOf("a"), PathOf("./b/../a")));
  EXPECT_FALSE(IsSameFile(PathOf("a"), PathOf("b")));
  EXPECT_TRUE(IsSameFile("a", fs::current_path() / "a"));
  std::ofstream(PathOf("a")) << "a";
  ASSERT_EQ(symlink(PathOf("a").c_str(), PathOf("b").c_str()), 0);
  EXPECT_TRUE(IsSameFile(PathOf("a"), PathOf("b")));
}

}  // namespace
}  // namespace ringmaster::output
