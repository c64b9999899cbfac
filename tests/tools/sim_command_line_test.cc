// What ringmaster-sim says, writes and refuses: the real program is run to its end.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "child_process.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

namespace fs = std::filesystem;

using ::testing::TestWithParam;
using ::testing::Values;

Outcome RunSim(const std::vector<std::string>& arguments) {
  const char* const path = std::getenv("RINGMASTER_SIM");
  ChildOptions options{.command = {path == nullptr ? "" : path}};
  options.command.insert(options.command.end(), arguments.begin(), arguments.end());
  return RunToEnd(options, std::chrono::seconds(60));
}

class Folder {
 public:
  Folder() : path_(::testing::TempDir() + "sim_XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
  }
  ~Folder() { fs::remove_all(path_); }

  std::string PathOf(const std::string& name) const { return path_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(PathOf(name)) << text;
    return PathOf(name);
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(PathOf(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string path_;
};

// A run of a moment.
std::vector<std::string> Small(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"--workers", "4", "--arrivals", "500", "--load", "0.8"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(SimCommandLine, HelpNamesEveryOptionAndPolicy) {
  const Outcome help = RunSim({"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_EQ(help.err, "");
  for (const char* const option : {"--policies",     "--workload", "--workers",
                                   "--masters",      "--load",     "--arrivals",
                                   "--capacity",     "--window",   "--recall-after-ms",
                                   "--service-us",   "--warm-up",  "--wake-us",
                                   "--doorbell-us",  "--turn-us",  "--look-ns",
                                   "--operation-us", "--seed",     "--csv",
                                   "--json",         "--picture",  "--list",
                                   "--version",      "trace:FILE", "heavy-tail"}) {
    ExpectContains(help.out, option);
  }
  for (const std::string_view policy : PolicyNames()) {
    ExpectContains(help.out, std::string(policy));
  }
}

TEST(SimCommandLine, ListSaysWhatThereIs) {
  const Outcome list = RunSim({"--list"});
  EXPECT_EQ(list.status, 0);
  for (const char* const name : {"poisson", "bursts", "heavy-tail", "one-slow", "one-dead",
                                 "long-lived", "trace:FILE", "two-choices"}) {
    ExpectContains(list.out, name);
  }
}

TEST(SimCommandLine, VersionIsOneLine) {
  EXPECT_EQ(RunSim({"--version"}).out, "ringmaster-sim " RINGMASTER_VERSION "\n");
}

class SimWrongOptions : public TestWithParam<WrongLine> {};

TEST_P(SimWrongOptions, AreComplainedAboutWithStatusTwo) {
  const Outcome outcome = RunSim(GetParam().arguments);
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(outcome.err.starts_with("ringmaster-sim: ")) << outcome.err;
  ExpectContains(outcome.err, GetParam().complaint);
}

INSTANTIATE_TEST_SUITE_P(
    All, SimWrongOptions,
    Values(WrongLine{{"--bogus"}, "--bogus"}, WrongLine{{"--polices", "x"}, "--policies"},
           WrongLine{{"--workers", "1"}, "from 2 to 1024"},
           WrongLine{{"--workers", "4,1025"}, "from 2 to 1024"},
           WrongLine{{"--workers", "-1"}, "--workers"}, WrongLine{{"--workers", "x"}, "\"x\""},
           WrongLine{{"--masters", "17"}, "from 1 to 16"},
           WrongLine{{"--load", "1"}, "from 0.01 to 0.999"},
           WrongLine{{"--load", "nan"}, "from 0.01 to 0.999"},
           WrongLine{{"--arrivals", "99"}, "from 100"}, WrongLine{{"--window", "0"}, "from 1"},
           WrongLine{{"--capacity", "-1"}, "from 0"}, WrongLine{{"--seed", "-1"}, "--seed"},
           WrongLine{{"--policies", "least-loded"}, "least-loaded"},
           WrongLine{{"--policies", "weighted-round-robin:0,1"}, "weights"},
           WrongLine{{"--workload", "heavytail"}, "did you mean heavy-tail?"},
           WrongLine{{"--workload", "trace:/no/such/file"}, "cannot be read"},
           WrongLine{{"--csv", ""}, "name of the file is empty"},
           WrongLine{{"--csv", "a", "--json", "./a"}, "different names"}));

TEST(SimTrace, ComplaintsNameTheLineAndWhatToDo) {
  const Folder folder;
  const auto complaint = [&](const std::string& text) {
    const Outcome outcome =
        RunSim({"--workload", "trace:" + folder.Write("trace.csv", text), "--workers", "2"});
    EXPECT_EQ(outcome.status, 2);
    return outcome.err;
  };
  ExpectContains(complaint("0,1\n"), "names the columns and their units");
  ExpectContains(complaint("arrival_h,service_us\n"), "must be s, ms, us or ns");
  ExpectContains(complaint("arrival_ms,service_us\n1,2\n1,two\n"), "line 3: the service time");
  ExpectContains(complaint("arrival_ms,service_us\n-1,2\n"), "line 2: the arrival time");
  ExpectContains(complaint("arrival_ms,service_us\n"), "at least one");
}

TEST(SimTrace, IsPlayedAsItWasRecorded) {
  const Folder folder;
  const std::string trace = folder.Write(
      "trace.csv", "service_us, arrival_ms ,who\n1000,0,a\n1000,1,b\n\n2000,2,c\n4000,3,d\r\n");
  const Outcome outcome =
      RunSim({"--workload", "trace:" + trace, "--workers", "2", "--policies", "round-robin",
              "--warm-up", "0", "--json", folder.PathOf("figures.json")});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const auto json = nlohmann::json::parse(folder.Read("figures.json"));
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][0]["requests"], 4);
  EXPECT_EQ(json["rows"][0]["sojourn_max_us"], 4000.0);
  EXPECT_EQ(json["rows"][0]["masters"], nullptr);
  EXPECT_EQ(json["rows"][1]["policy"], "round-robin");
  EXPECT_GT(json["rows"][1]["sojourn_max_us"], 4000.0);
  EXPECT_EQ(json["rows"][1]["lost"], 0);
}

TEST(SimRun, TellsEveryPolicyBesideTheIdeal) {
  const Outcome outcome = RunSim(Small({"--workload", "all"}));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  for (const std::string_view policy : PolicyNames()) {
    ExpectContains(outcome.out, "\n" + std::string(policy) + " ");
  }
  ExpectContains(outcome.out, "one queue (ideal)");
  ExpectContains(outcome.out, "long-lived, 4 workers, load 0.80");
  ExpectContains(outcome.out, "bounded Pareto");
}

TEST(SimRun, TheSameSeedGivesTheSameFiguresAndFiles) {
  const Folder folder;
  const std::string csv = folder.PathOf("figures.csv");
  const std::vector<std::string> arguments =
      Small({"--policies", "two-choices:7,weighted-round-robin:4,1,1", "--masters", "1,2",
             "--workload", "bursts", "--csv", csv, "--seed", "5"});
  const Outcome first = RunSim(arguments);
  const std::string first_csv = folder.Read("figures.csv");
  const Outcome second = RunSim(arguments);
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(first_csv, folder.Read("figures.csv"));
  // A head, the ideal, and two policies with one and with two masters.
  EXPECT_EQ(std::count(first_csv.begin(), first_csv.end(), '\n'), 6);
  ExpectContains(first_csv, "workload,workers,load,policy,masters,");
  ExpectContains(first_csv, "bursts,4,0.8,\"weighted-round-robin:4,1,1\",2,");
  std::vector<std::string> other = arguments;
  other.back() = "6";
  EXPECT_NE(RunSim(other).out, first.out);
}

TEST(SimRun, DrawsAPictureThatNeedsNothingElse) {
  const Folder folder;
  for (const char* const workers : {"4", "2,4,8"}) {
    const Outcome outcome =
        RunSim({"--workers", workers, "--arrivals", "300", "--policies", "least-loaded,hermes",
                "--picture", folder.PathOf("picture.svg")});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    const std::string picture = folder.Read("picture.svg");
    EXPECT_TRUE(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"")) << workers;
    EXPECT_TRUE(picture.ends_with("</svg>\n")) << workers;
    ExpectContains(picture, "prefers-color-scheme:dark");
    ExpectContains(picture, "@media print");
    ExpectContains(picture, "hermes");
    ExpectContains(picture, "class=\"ideal\"");
    // XML knows none of HTML's names, and nothing is fetched.
    EXPECT_EQ(picture.find("&nbsp;"), std::string::npos);
    EXPECT_EQ(picture.find("href"), std::string::npos);
    EXPECT_EQ(picture.find("nan"), std::string::npos);
  }
}

TEST(SimRun, SaysBeforeItBeginsWhatCannotBeWritten) {
  const Outcome outcome = RunSim(Small({"--csv", "/no/such/folder/figures.csv"}));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  ExpectContains(outcome.err, "create it first");
}

}  // namespace
}  // namespace ringmaster::testing
