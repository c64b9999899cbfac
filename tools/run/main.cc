// ringmaster-run: starts a server that was not written for the library, and decides by a policy
// which of its workers gets the next connection.

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "processes/choice.h"
#include "run/keeper.h"
#include "run/program.h"

namespace ringmaster::run {
namespace {

struct Options {
  std::string policy = "least-loaded";
  double stats_seconds = 0;
  bool report = false;
  std::vector<std::string> command;
};

absl::StatusOr<processes::PolicyChoice> ChoiceOf(const std::string& name) {
  if (name == "none") return processes::PolicyChoice{};
  return processes::ChoiceByName(name);
}

// The shim lies beside this program, or where it was installed.
std::string FindShim() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const std::filesystem::path& folder :
       {self.parent_path(), self.parent_path() / ".." / RINGMASTER_SHIM_FROM_PREFIX}) {
    const std::filesystem::path shim = folder / "libringmaster-run.so";
    if (std::filesystem::exists(shim, error)) {
      return std::filesystem::canonical(shim, error).string();
    }
  }
  return "";
}

[[noreturn]] void Execute(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  std::fprintf(stderr, "ringmaster-run: cannot start %s: %s\n", arguments[0], std::strerror(errno));
  std::_Exit(errno == ENOENT ? 127 : 126);
}

void PrintReport(Keeper& keeper) {
  uint64_t sum = 0;
  uint64_t most = 0;
  size_t workers = 0;
  for (const WorkerReport& worker : keeper.Report()) {
    if (worker.accepted == 0 && !worker.lives) continue;
    std::fprintf(stderr, "ringmaster-run: worker %d accepted %llu\n", worker.pid,
                 static_cast<unsigned long long>(worker.accepted));
    sum += worker.accepted;
    most = std::max(most, worker.accepted);
    ++workers;
  }
  if (workers == 0) {
    std::fprintf(stderr,
                 "ringmaster-run: no process was seen to accept a connection: nobody has "
                 "connected, or the server accepts in a way that is not known here\n");
    return;
  }
  std::fprintf(stderr,
               "ringmaster-run: %zu workers accepted %llu; the busiest has %.2f times the mean\n",
               workers, static_cast<unsigned long long>(sum),
               sum == 0 ? 0.0 : static_cast<double>(most * workers) / static_cast<double>(sum));
}

// How many words are for ringmaster-run: the rest is the server's command, whose options are not
// looked at.
int CountOwnWords(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--" || word.empty() || word[0] != '-') return i;
    if (word == "--policy" || word == "--stats") ++i;
  }
  return argc;
}

int Main(int argc, char** argv) {
  CLI::App app{
      "Starts a server that was not written for Ringmaster. A policy decides which of its workers "
      "gets the next connection. Put it before the server's command:\n\n"
      "  ringmaster-run -- gunicorn -w 4 -k uvicorn.workers.UvicornWorker app:app",
      "ringmaster-run"};
  Options options;
  app.set_version_flag("--version", "ringmaster-run " RINGMASTER_VERSION);
  app.add_option(
         "--policy", options.policy,
         "who gets the next connection: round-robin, least-loaded[:first], two-choices:SEED, "
         "hermes:STILL_MS; none: the kernel decides, and it is only counted")
      ->capture_default_str();
  app.add_option("--stats", options.stats_seconds,
                 "every so many seconds a line says what each worker has; at the end there is one "
                 "line for each worker")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--report", options.report, "one line for each worker at the end");
  app.footer("What follows is the server's command, with its arguments. -- may stand before it.");
  const int own = CountOwnWords(argc, argv);
  CLI11_PARSE(app, own, argv);
  options.command.assign(argv + own, argv + argc);
  if (!options.command.empty() && options.command[0] == "--") {
    options.command.erase(options.command.begin());
  }
  if (options.command.empty()) {
    std::fprintf(stderr,
                 "ringmaster-run: the server's command is missing, for instance: "
                 "ringmaster-run -- gunicorn -w 4 app:app\n");
    return 2;
  }

  const absl::StatusOr<processes::PolicyChoice> choice = ChoiceOf(options.policy);
  if (!choice.ok()) {
    std::fprintf(stderr, "ringmaster-run: --policy: %s, or none to change nothing\n",
                 std::string(choice.status().message()).c_str());
    return 2;
  }
  const std::string program = FindProgram(options.command[0]);
  if (program.empty()) {
    std::fprintf(stderr, "ringmaster-run: there is no program \"%s\"\n",
                 options.command[0].c_str());
    return 127;
  }
  if (const std::string why = WhyUnreachable(program); !why.empty()) {
    std::fprintf(stderr, "ringmaster-run: %s. It runs as without ringmaster-run\n", why.c_str());
    Execute(options.command);
  }
  const std::string shim = FindShim();
  if (shim.empty()) {
    std::fprintf(stderr,
                 "ringmaster-run: libringmaster-run.so is missing; it belongs beside this "
                 "program, or where it was installed: build all targets, or install both again\n");
    return 2;
  }
  Keeper::Options keeper_options{.policy = *choice, .stats_seconds = options.stats_seconds};
  sigset_t before;
  sigprocmask(SIG_SETMASK, nullptr, &before);
  const absl::StatusOr<std::unique_ptr<Keeper>> keeper = Keeper::Create(std::move(keeper_options));
  if (!keeper.ok()) {
    std::fprintf(stderr, "ringmaster-run: %s. The server runs as without ringmaster-run\n",
                 std::string(keeper.status().message()).c_str());
    sigprocmask(SIG_SETMASK, &before, nullptr);
    Execute(options.command);
  }
  const pid_t server = fork();
  if (server < 0) {
    std::fprintf(stderr, "ringmaster-run: cannot start a process: %s\n", std::strerror(errno));
    return 1;
  }
  if (server == 0) {
    sigprocmask(SIG_SETMASK, &before, nullptr);
    const char* const others = std::getenv(kPreload);
    const std::string preload =
        others == nullptr || *others == '\0' ? shim : absl::StrCat(shim, ":", others);
    setenv(kPreload, preload.c_str(), 1);
    setenv(kVariable, (*keeper)->variable().c_str(), 1);
    // What systemd gives to one process only is the server's (listeners, and who is watched).
    const std::string starter = std::to_string(getppid());
    for (const char* const name : {"LISTEN_PID", "WATCHDOG_PID"}) {
      const char* const receiver = std::getenv(name);
      if (receiver != nullptr && receiver == starter) {
        setenv(name, std::to_string(getpid()).c_str(), 1);
      }
    }
    Execute(options.command);
  }
  const int status = (*keeper)->Run(server);
  if (!(*keeper)->reached_anybody()) {
    std::fprintf(stderr,
                 "ringmaster-run: no process of the server could be reached; it ran as "
                 "without ringmaster-run\n");
  } else if (options.report || options.stats_seconds > 0) {
    PrintReport(**keeper);
  }
  return status;
}

}  // namespace
}  // namespace ringmaster::run

int main(int argc, char** argv) { return ringmaster::run::Main(argc, argv); }
