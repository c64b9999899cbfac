// Starts a program in each way that there is, without what ringmaster-run needs in its environment,
// and with a library of its own to be loaded. Names the ways in which the program was not reached.

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

constexpr char kShell[] = "/bin/sh";
// The program says whether both have arrived, and whether its own library is still to be loaded.
constexpr char kScript[] =
    "case $LD_PRELOAD in *libringmaster-run.so*) test -n \"$RINGMASTER_RUN\" && case "
    "$OWN:$LD_PRELOAD in :*|*libm.so.6*) exit 0;; esac;; esac; exit 1";

char* words[] = {const_cast<char*>(kShell), const_cast<char*>("-c"), const_cast<char*>(kScript),
                 nullptr};

[[noreturn]] void EndAs(pid_t pid) {
  int status = 1;
  waitpid(pid, &status, 0);
  _exit(status == 0 ? 0 : 1);
}

struct Way {
  const char* name;
  std::function<void(char** environment)> start;
};

const std::vector<Way>& Ways() {
  static const std::vector<Way> ways = {
      {"execve", [](char** environment) { execve(kShell, words, environment); }},
      {"execvpe", [](char** environment) { execvpe("sh", words, environment); }},
      {"execle",
       [](char** environment) {
         execle(kShell, kShell, "-c", kScript, static_cast<char*>(nullptr), environment);
       }},
      {"fexecve",
       [](char** environment) { fexecve(open(kShell, O_RDONLY | O_CLOEXEC), words, environment); }},
      {"execveat", [](char** environment) { execveat(AT_FDCWD, kShell, words, environment, 0); }},
      {"posix_spawn",
       [](char** environment) {
         pid_t pid = 0;
         if (posix_spawn(&pid, kShell, nullptr, nullptr, words, environment) == 0) EndAs(pid);
       }},
      {"posix_spawnp",
       [](char** environment) {
         pid_t pid = 0;
         if (posix_spawnp(&pid, "sh", nullptr, nullptr, words, environment) == 0) EndAs(pid);
       }},
      // With the environment of this process.
      {"execv",
       [](char** environment) {
         environ = environment;
         execv(kShell, words);
       }},
      {"execvp",
       [](char** environment) {
         environ = environment;
         execvp("sh", words);
       }},
      {"execl",
       [](char** environment) {
         environ = environment;
         execl(kShell, kShell, "-c", kScript, static_cast<char*>(nullptr));
       }},
      {"execlp",
       [](char** environment) {
         environ = environment;
         execlp("sh", "sh", "-c", kScript, static_cast<char*>(nullptr));
       }},
  };
  return ways;
}

}  // namespace

int main() {
  char path[] = "PATH=/usr/bin:/bin";
  char own[] = "OWN=1";
  char loads[] = "LD_PRELOAD=libm.so.6";
  char* without[] = {path, nullptr};
  char* with_own[] = {path, own, loads, nullptr};
  int lost = 0;
  for (const Way& way : Ways()) {
    for (char** const environment : {without, with_own}) {
      const pid_t pid = fork();
      if (pid == 0) {
        way.start(environment);
        _exit(2);
      }
      int status = 1;
      waitpid(pid, &status, 0);
      if (status == 0) continue;
      ++lost;
      std::printf("%s%s\n", way.name, environment == with_own ? ", with a library of its own" : "");
    }
  }
  return lost == 0 ? 0 : 1;
}
