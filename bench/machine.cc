#include "bench/machine.h"

#include <liburing.h>
#include <sched.h>
#include <sys/utsname.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/commit.h"

namespace ringmaster::bench {
namespace {

constexpr char kVulnerabilities[] = "/sys/devices/system/cpu/vulnerabilities";
constexpr char kGovernor[] = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";

// Empty if there is none.
std::string FirstLineOf(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (absl::StartsWith(line, "model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

// The most that the kernel grants of what ringmaster and the ring mechanisms ask for.
std::string RingFlags() {
  struct Attempt {
    unsigned flags;
    const char* names;
  };
  static constexpr Attempt kAttempts[] = {
      {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
       "SINGLE_ISSUER|DEFER_TASKRUN|SUBMIT_ALL|CQSIZE"},
      {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "COOP_TASKRUN|SUBMIT_ALL|CQSIZE"},
      {0, "CQSIZE"},
  };
  int result = 0;
  for (const Attempt& attempt : kAttempts) {
    io_uring_params params{};
    params.flags = attempt.flags | IORING_SETUP_CQSIZE;
    params.cq_entries = 16;
    io_uring ring;
    result = io_uring_queue_init_params(8, &ring, &params);
    if (result == 0) {
      io_uring_queue_exit(&ring);
      return attempt.names;
    }
    if (result != -EINVAL) break;
  }
  return absl::StrCat("no io_uring: ", std::strerror(-result));
}

// As taskset and a control group's cpuset leave them to this process; 0 if the kernel does not say.
uint32_t CpusAllowed() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 0;
  return static_cast<uint32_t>(CPU_COUNT(&allowed));
}

}  // namespace

std::string KernelVersionOf(std::string_view release) {
  size_t end = 0;
  while (end < release.size() &&
         (std::isdigit(static_cast<unsigned char>(release[end])) != 0 || release[end] == '.')) {
    ++end;
  }
  return std::string(release.substr(0, end));
}

std::string SummarizeVulnerabilities(const std::string& folder) {
  // By name: the order in which a folder lists its files is the file system's.
  std::map<std::string, std::string> states;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    states[entry.path().filename().string()] = FirstLineOf(entry.path().string());
  }
  if (states.empty()) return "unknown";
  std::vector<std::string> parts;
  size_t unaffected = 0;
  for (const auto& [name, state] : states) {
    if (state == "Not affected") {
      ++unaffected;
      continue;
    }
    constexpr std::string_view kMitigation = "Mitigation: ";
    // What follows a semicolon are the details of the details.
    std::string text = state.substr(0, state.find(';'));
    if (absl::StartsWith(text, "Mitigation: ")) text.erase(0, kMitigation.size());
    parts.push_back(absl::StrCat(name, ": ", text));
  }
  if (unaffected > 0) parts.push_back(absl::StrCat(unaffected, " not affected"));
  return absl::StrJoin(parts, "; ");
}

Context DescribeMachine() {
  utsname name{};
  uname(&name);
  double load = 0;
  getloadavg(&load, 1);
  const std::string governor = FirstLineOf(kGovernor);
  return {
      .program = absl::StrCat("ringmaster-bench ", RINGMASTER_VERSION),
      .date = absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone()),
      .kernel = KernelVersionOf(name.release),
      .cpus = std::thread::hardware_concurrency(),
      .cpus_allowed = CpusAllowed(),
      .cpu_model = CpuModel(),
      .governor = governor.empty() ? "unknown" : governor,
      .mitigations = SummarizeVulnerabilities(kVulnerabilities),
      .liburing = LIBURING_VERSION,
      .ring_flags = RingFlags(),
      .compiler = RINGMASTER_COMPILER,
      .build_flags = RINGMASTER_BUILD_FLAGS,
      .commit = RINGMASTER_COMMIT,
      .load_before = load,
  };
}

}  // namespace ringmaster::bench
