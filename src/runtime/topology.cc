#include "runtime/topology.h"

#include <dirent.h>

#include <fstream>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ringmaster::internal {
namespace {

std::string ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Gives each distinct list of CPUs a small number, so that equal lists get equal numbers.
class Ids {
 public:
  int32_t For(const std::string& cpu_list) {
    if (cpu_list.empty()) return -1;
    return ids_.emplace(cpu_list, static_cast<int32_t>(ids_.size())).first->second;
  }

 private:
  std::map<std::string, int32_t> ids_;
};

// The CPUs that share the cache of the highest level.
std::string LastLevelCache(const std::string& cpu_path) {
  std::string shared;
  int level_max = 0;
  for (int index = 0;; ++index) {
    const std::string cache = absl::StrCat(cpu_path, "/cache/index", index);
    int level = 0;
    if (!absl::SimpleAtoi(ReadLine(cache + "/level"), &level)) return shared;
    if (level <= level_max) continue;
    level_max = level;
    shared = ReadLine(cache + "/shared_cpu_list");
  }
}

// The directory of a CPU has a link nodeN to its memory node.
int32_t Node(const std::string& cpu_path) {
  DIR* directory = opendir(cpu_path.c_str());
  if (directory == nullptr) return -1;
  int32_t node = -1;
  while (const dirent* entry = readdir(directory)) {
    absl::string_view name = entry->d_name;
    if (absl::ConsumePrefix(&name, "node") && absl::SimpleAtoi(name, &node)) break;
  }
  closedir(directory);
  return node;
}

}  // namespace

CpuTopology ReadTopology(const std::string& root) {
  CpuTopology topology;
  Ids cores;
  Ids caches;
  for (int cpu = 0;; ++cpu) {
    const std::string path = absl::StrCat(root, "/sys/devices/system/cpu/cpu", cpu);
    std::string siblings = ReadLine(path + "/topology/core_cpus_list");
    if (siblings.empty()) siblings = ReadLine(path + "/topology/thread_siblings_list");
    if (siblings.empty()) return topology;
    topology.cpus.push_back({.core = cores.For(siblings),
                             .cache = caches.For(LastLevelCache(path)),
                             .node = Node(path)});
  }
}

}  // namespace ringmaster::internal
