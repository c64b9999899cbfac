// The checking client must notice every way in which a server can be wrong: a thread plays a server
// that makes one mistake.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

// Reads to the end of the stream.
std::string ReadAll(int fd) {
  std::string all;
  std::array<char, 4096> bytes;
  for (ssize_t count; (count = recv(fd, bytes.data(), bytes.size(), 0)) > 0;) {
    all.append(bytes.data(), static_cast<size_t>(count));
  }
  return all;
}

void Write(int fd, const std::string& text) {
  EXPECT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

// Serves connections one after the other until it is destroyed, each by one call.
class OneThreadServer {
 public:
  explicit OneThreadServer(std::function<void(int fd)> serve) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 64), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this, serve = std::move(serve)] {
      for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
        serve(fd);
        close(fd);
      }
    });
  }
  ~OneThreadServer() {
    shutdown(listener_, SHUT_RDWR);  // Wakes the accept.
    thread_.join();
    close(listener_);
  }
  OneThreadServer(const OneThreadServer&) = delete;
  OneThreadServer& operator=(const OneThreadServer&) = delete;

  const std::string& address() const { return address_; }

 private:
  int listener_ = -1;
  std::string address_;
  std::thread thread_;
};

TEST(EchoClient, CountsWhatAnHonestServerEchoes) {
  const OneThreadServer server([](int fd) { Write(fd, ReadAll(fd)); });
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = 50,
                                           .parallel = 5,
                                           .payload_bytes_min = 1,
                                           .payload_bytes_max = 9000,
                                           .record_latencies = true});
  EXPECT_EQ(report.echoed, 50U) << report.first_problem;
  EXPECT_EQ(report.latencies.size(), 50U);
  EXPECT_EQ(report.first_problem, "");
}

TEST(EchoClient, NoticesOneWrongByte) {
  const OneThreadServer server([](int fd) {
    std::string all = ReadAll(fd);
    all.back() ^= 1;
    Write(fd, all);
  });
  const EchoReport report = RunEchoClient({.address = server.address(), .connections = 3});
  EXPECT_EQ(report.wrong, 3U);
  EXPECT_EQ(report.echoed, 0U);
  EXPECT_NE(report.first_problem, "");
}

TEST(EchoClient, NoticesAnEchoThatEndsEarly) {
  const OneThreadServer server([](int fd) {
    const std::string all = ReadAll(fd);
    Write(fd, all.substr(0, all.size() - 1));
  });
  const EchoReport report = RunEchoClient(
      {.address = server.address(), .payload_bytes_min = 100, .payload_bytes_max = 100});
  EXPECT_EQ(report.wrong, 1U) << report.first_problem;
}

TEST(EchoClient, NoticesBytesBehindTheEcho) {
  const OneThreadServer server([](int fd) { Write(fd, ReadAll(fd) + "x"); });
  const EchoReport report = RunEchoClient({.address = server.address()});
  EXPECT_EQ(report.wrong, 1U) << report.first_problem;
}

TEST(EchoClient, NoticesTheEchoOfAnotherConnection) {
  std::string previous;
  const OneThreadServer server([&previous](int fd) {
    const std::string all = ReadAll(fd);
    Write(fd, previous.empty() ? all : previous);
    previous = all;
  });
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = 10,
                                           .payload_bytes_min = 4,
                                           .payload_bytes_max = 4});
  EXPECT_EQ(report.echoed, 1U);
  EXPECT_EQ(report.wrong, 9U) << report.first_problem;
}

TEST(EchoClient, CountsResets) {
  const OneThreadServer server([](int fd) {
    ReadAll(fd);
    const linger at_once = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  });
  const EchoReport report = RunEchoClient({.address = server.address(), .connections = 4});
  EXPECT_EQ(report.reset, 4U) << report.first_problem;
}

TEST(EchoClient, CountsRefusedConnections) {
  std::string address;
  {
    const OneThreadServer gone([](int) {});
    address = gone.address();
  }
  const EchoReport report = RunEchoClient({.address = address, .connections = 4});
  EXPECT_EQ(report.refused, 4U) << report.first_problem;
}

TEST(EchoClient, GivesUpAtTheDeadline) {
  // Waits for the end of a stream that the client does not end before it has the echo.
  const OneThreadServer server([](int fd) { ReadAll(fd); });
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = 3,
                                           .end = EchoEnd::kClose,
                                           .deadline = std::chrono::milliseconds(100)});
  EXPECT_EQ(report.timed_out, 3U) << report.first_problem;
  EXPECT_EQ(report.echoed, 0U);
}

}  // namespace
}  // namespace ringmaster::testing
