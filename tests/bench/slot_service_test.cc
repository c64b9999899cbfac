// Connections that are served from the file table of a ring, on the real ring. Clients are the
// other ends of socket pairs. The test is the worker's loop, so it knows what has been submitted.

#include "bench/mechanisms/slot_service.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "bench/books.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/uring_worker.h"
#include "bench/request.h"
#include "bench/serving.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kWorker = 3;
using Request = std::array<char, 64>;

Request Ask(int client, uint32_t work = 0) {
  Request request;
  WriteRequest(7, work, request);
  EXPECT_EQ(write(client, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  return request;
}

class SlotServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoWorkerTables(); !why.empty()) GTEST_SKIP() << why;
    ASSERT_EQ(io_uring_queue_init(64, &ring_, IORING_SETUP_SUBMIT_ALL), 0);
    ring_made_ = true;
    ASSERT_TRUE(SlotService::MakeTable(ring_).ok());
    Make({});
  }
  void TearDown() override {
    if (slots_) {
      slots_->End();
      TurnUntilQuiet();
    }
    if (ring_made_) io_uring_queue_exit(&ring_);
    for (const int client : clients_) close(client);
  }

  void Make(const WorkerTraits& traits, bool waits_for_close = false) {
    options_.workers.assign(kWorker + 1, traits);
    options_.books = &books_;
    serving_ = std::make_unique<Serving>(options_, kWorker);
    slots_ = std::make_unique<SlotService>(*serving_, ring_, waits_for_close);
  }

  // The server's end of a new connection.
  int Connect() {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    clients_.push_back(pair[0]);
    return pair[1];
  }
  // A connection that is served from a slot of the worker's own.
  int Take() {
    const int slot = slots_->Register(Connect());
    EXPECT_GE(slot, static_cast<int>(SlotService::kKernelsSlots));
    slots_->Take(slot);
    return slot;
  }

  // Submits, and returns what has completed.
  std::vector<io_uring_cqe> Turn() {
    io_uring_submit(&ring_);
    std::vector<io_uring_cqe> completions;
    for (io_uring_cqe* cqe; io_uring_peek_cqe(&ring_, &cqe) == 0; io_uring_cqe_seen(&ring_, cqe)) {
      EXPECT_LT(cqe->user_data, SlotService::kDataEnd);
      completions.push_back(*cqe);
    }
    return completions;
  }
  // Turns until nothing completes; returns the slots that have ended.
  std::vector<int> TurnUntilQuiet() {
    std::vector<int> ended;
    for (std::vector<io_uring_cqe> completions = Turn(); !completions.empty();
         completions = Turn()) {
      for (const io_uring_cqe& completion : completions) {
        if (const int slot = slots_->OnCompletion(completion); slot >= 0) ended.push_back(slot);
      }
    }
    return ended;
  }

  // What has come back so far.
  std::string Read(int client) {
    char bytes[256];
    const ssize_t count = read(client, bytes, sizeof(bytes));
    return {bytes, static_cast<size_t>(count > 0 ? count : 0)};
  }
  void ExpectAnswer(int client, const Request& request) {
    const std::string answer = Read(client);
    ASSERT_EQ(answer.size(), request.size());
    EXPECT_EQ(answer[0], static_cast<char>(kWorker));
    EXPECT_EQ(answer.substr(1), std::string(request.begin() + 1, request.end()));
  }
  bool Ends(int client) {
    char byte;
    return read(client, &byte, 1) == 0;
  }
  uint64_t SystemCalls() const { return books_.workers[kWorker].system_calls; }

  ServerBooks books_;
  ServerOptions options_;
  io_uring ring_{};
  bool ring_made_ = false;
  std::unique_ptr<Serving> serving_;
  std::unique_ptr<SlotService> slots_;
  std::vector<int> clients_;
};

TEST_F(SlotServiceTest, AnswersWhatItIsAskedUntilTheClientGoes) {
  const int slot = Take();
  for (int i = 0; i < 3; ++i) {
    const Request request = Ask(clients_[0]);
    EXPECT_TRUE(TurnUntilQuiet().empty());
    ExpectAnswer(clients_[0], request);
  }
  EXPECT_FALSE(slots_->empty());
  shutdown(clients_[0], SHUT_WR);
  EXPECT_EQ(TurnUntilQuiet(), std::vector<int>{slot});
  EXPECT_TRUE(Ends(clients_[0]));
  EXPECT_TRUE(slots_->empty());
  EXPECT_EQ(SystemCalls(), 0u);  // but those of the loop, which is the test
}

TEST_F(SlotServiceTest, ClosesTheDescriptorThatItHasRegistered) {
  const int fd = Connect();
  slots_->Take(slots_->Register(fd));
  TurnUntilQuiet();
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
  const Request request = Ask(clients_[0]);
  TurnUntilQuiet();
  ExpectAnswer(clients_[0], request);
}

TEST_F(SlotServiceTest, ClosesWhenItHasAnsweredIfItIsToHangUp) {
  Make({.hangs_up = true});
  const int slot = Take();
  const Request request = Ask(clients_[0]);
  EXPECT_EQ(TurnUntilQuiet(), std::vector<int>{slot});
  ExpectAnswer(clients_[0], request);
  EXPECT_TRUE(Ends(clients_[0]));
}

// A lease may be released, and a slot of the worker's own used again, when the kernel has closed
// it.
TEST_F(SlotServiceTest, SaysThatAConnectionHasEndedWhenItsSlotIsFree) {
  Make({.hangs_up = true}, /*waits_for_close=*/true);
  const int slot = Take();
  Ask(clients_[0]);
  const std::vector<io_uring_cqe> received = Turn();
  ASSERT_EQ(received.size(), 1u);
  EXPECT_LT(slots_->OnCompletion(received[0]), 0);
  EXPECT_TRUE(slots_->closing());
  EXPECT_NE(Take(), slot);
  EXPECT_EQ(TurnUntilQuiet(), std::vector<int>{slot});
  EXPECT_FALSE(slots_->closing());
  EXPECT_EQ(Take(), slot);
}

// What comes by the kernel's choice, where nobody waits for the close.
TEST_F(SlotServiceTest, SavesATurnWhereNobodyHasToKnowOfTheClose) {
  const int fd = Connect();
  io_uring_register_files_update(&ring_, 5, &fd, 1);
  close(fd);
  slots_->Take(5);
  shutdown(clients_[0], SHUT_WR);
  const std::vector<io_uring_cqe> received = Turn();
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(slots_->OnCompletion(received[0]), 5);
  EXPECT_TRUE(Turn().empty());
  EXPECT_TRUE(Ends(clients_[0]));
}

// The kernel has taken two requests out of the sockets before the worker looks at either.
TEST_F(SlotServiceTest, AnAnswerDoesNotWaitForTheWorkOfTheNextRequest) {
  Take();
  Take();
  const Request first = Ask(clients_[0]);
  const Request second = Ask(clients_[1], /*work=*/1);
  const std::vector<io_uring_cqe> received = Turn();
  ASSERT_EQ(received.size(), 2u);
  slots_->OnCompletion(received[0]);
  EXPECT_EQ(Read(clients_[0]), "") << "nothing has been submitted";
  slots_->OnCompletion(received[1]);
  ExpectAnswer(clients_[0], first);
  EXPECT_EQ(Read(clients_[1]), "");
  EXPECT_EQ(SystemCalls(), 1u);
  TurnUntilQuiet();
  ExpectAnswer(clients_[1], second);
}

TEST_F(SlotServiceTest, AnAnswerDoesNotWaitWhileTheWorkerSleepsWithANewConnection) {
  Take();
  const Request request = Ask(clients_[0]);
  for (const io_uring_cqe& completion : Turn()) slots_->OnCompletion(completion);
  EXPECT_EQ(Read(clients_[0]), "") << "nothing has been submitted";
  books_.orders[kWorker].rest_ns = 1;
  Take();
  ExpectAnswer(clients_[0], request);
}

TEST_F(SlotServiceTest, EndsAllThatThereIsAndWhatComesLater) {
  for (int i = 0; i < 3; ++i) Take();
  Ask(clients_[1]);
  TurnUntilQuiet();
  slots_->End();
  Take();
  EXPECT_EQ(TurnUntilQuiet().size(), 4u);
  EXPECT_TRUE(slots_->empty());
  Read(clients_[1]);
  for (const int client : clients_) EXPECT_TRUE(Ends(client));
}

TEST_F(SlotServiceTest, SaysWhenItHasNoSlotLeft) {
  const int fd = Connect();
  for (uint32_t i = 0; i < SlotService::kOwnSlots; ++i) {
    ASSERT_GE(slots_->Register(dup(fd)), 0) << i;
    io_uring_submit(&ring_);
  }
  EXPECT_LT(slots_->Register(fd), 0);
  close(fd);
}

}  // namespace
}  // namespace ringmaster::bench
