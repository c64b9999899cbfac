#include "echo_server.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace ringmaster::testing {

std::string EchoProgram() {
  const char* const path = std::getenv("RINGMASTER_ECHO");
  return path == nullptr ? std::string() : path;
}

Outcome RunEcho(const std::vector<std::string>& arguments, ChildOptions options) {
  options.command.push_back(EchoProgram());
  options.command.insert(options.command.end(), arguments.begin(), arguments.end());
  return RunToEnd(options);
}

EchoServer::EchoServer(std::vector<std::string> arguments, ChildOptions options) {
  options.command.push_back(EchoProgram());
  if (std::find(arguments.begin(), arguments.end(), "--listen") == arguments.end()) {
    arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0"});
  }
  options.command.insert(options.command.end(), arguments.begin(), arguments.end());
  child_ = std::make_unique<ChildProcess>(options);
  const std::string prefix = "listening on ";
  const std::optional<std::string> line = child_->WaitForOutLine(prefix, kSoon);
  // The first line of stdout is that and nothing else.
  if (line.has_value() && child_->out().starts_with(*line + "\n") && line->starts_with(prefix)) {
    address_ = line->substr(prefix.size());
  }
}

nlohmann::json EchoServer::Stop(std::chrono::milliseconds deadline) {
  child_->Signal(SIGTERM);
  return WaitForReport(deadline);
}

nlohmann::json EchoServer::WaitForReport(std::chrono::milliseconds deadline) {
  if (child_->WaitForExit(deadline) != 0) return nullptr;
  std::string out = child_->out();
  if (out.empty() || out.back() != '\n') return nullptr;
  out.pop_back();
  const size_t before_last_line = out.rfind('\n');
  const std::string last_line =
      before_last_line == std::string::npos ? out : out.substr(before_last_line + 1);
  nlohmann::json object = nlohmann::json::parse(last_line, nullptr, /*allow_exceptions=*/false);
  return object.is_object() ? object : nlohmann::json(nullptr);
}

ScratchDirectory::ScratchDirectory() {
  // Short, because the path of a Unix socket is limited to 107 bytes.
  path_ = (std::filesystem::temp_directory_path() / "echo-test-XXXXXX").string();
  if (mkdtemp(path_.data()) == nullptr) path_.clear();
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

std::string WhyNoIoUringHere() {
  // Wrong arguments on purpose: a kernel that looks at them answers EFAULT or EINVAL.
  if (syscall(SYS_io_uring_setup, 0, nullptr) < 0 && (errno == EPERM || errno == ENOSYS)) {
    return std::string("io_uring is refused here: ") + std::strerror(errno);
  }
  return std::string();
}

}  // namespace ringmaster::testing
