// Listeners that go from one generation to the next. Method: both generations live in this process,
// or one of them is the test itself, which says words of the protocol in the wrong place, or
// garbage, or ends in the middle. Afterwards this process has as many descriptors as before.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "listeners/meeting_place.h"
#include "listeners/words.h"
#include "ringmaster/balancer.h"
#include "ringmaster/listeners.h"
#include "sockets.h"
#include "support/seccomp.h"
#include "support/split_mix.h"

namespace ringmaster {
namespace {

using internal::Heard;
using internal::HearWord;
using internal::Meet;
using internal::Say;
using internal::SendWord;
using internal::Word;
using testing::BecomesReadable;
using testing::Bound;
using testing::Child;
using testing::ConnectTo;
using testing::Fd;
using testing::IsCloseOnExec;
using testing::IsOpen;
using testing::OpenDescriptors;
using testing::SameSocket;
using testing::Scratch;

// What the callbacks of one generation were told.
class Told {
 public:
  HandOverOptions options() {
    return {.on_handed_over = [this](pid_t successor) { Note(handed_over_, successor); },
            .on_predecessor_ended = [this] { Note(ended_, 1); },
            .on_failed =
                [this](const absl::Status& why) {
                  const std::lock_guard lock(mutex_);
                  failures_.push_back(why);
                  changed_.notify_all();
                }};
  }

  // The successor; 0 if there is none soon.
  pid_t HandedOver() { return Await(handed_over_); }
  bool PredecessorEnded() { return Await(ended_) == 1; }
  bool was_handed_over() {
    const std::lock_guard lock(mutex_);
    return handed_over_ != 0;
  }
  bool predecessor_has_ended() {
    const std::lock_guard lock(mutex_);
    return ended_ != 0;
  }
  // The next failure; OK if there is none soon.
  absl::Status Failure() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kSoon, [&] { return failures_.size() > read_; });
    return failures_.size() > read_ ? failures_[read_++] : absl::OkStatus();
  }

 private:
  static constexpr std::chrono::milliseconds kSoon{testing::kSoonMs};

  void Note(pid_t& what, pid_t value) {
    const std::lock_guard lock(mutex_);
    what = value;
    changed_.notify_all();
  }
  pid_t Await(const pid_t& what) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kSoon, [&] { return what != 0; });
    return what;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  pid_t handed_over_ = 0;
  pid_t ended_ = 0;
  std::vector<absl::Status> failures_;
  size_t read_ = 0;
};

class HandOverTest : public ::testing::Test {
 protected:
  HandOverTest() : path_(scratch_ / "hand-over"), listener_(Bound()) {}

  std::unique_ptr<HandOver> Serve(Told& told, TakenOver predecessor = {}) {
    auto hand_over = HandOver::Serve(path_, Offered(), told.options(), std::move(predecessor));
    EXPECT_TRUE(hand_over.ok()) << hand_over.status();
    return hand_over.ok() ? *std::move(hand_over) : nullptr;
  }
  std::vector<OfferedListener> Offered() const { return {{.fd = listener_.get(), .name = "http"}}; }
  TakenOver Take() {
    absl::StatusOr<TakenOver> taken = TakeOver(path_);
    EXPECT_TRUE(taken.ok()) << taken.status();
    return taken.ok() ? *std::move(taken) : TakenOver();
  }
  bool PathIsThere() const { return access(path_.c_str(), F_OK) == 0; }

  // A successor whose words are the test's.
  Fd Join() const { return Fd(Meet(path_)); }
  // Says `word`, and returns the next answer once it is there.
  static int Ask(const Fd& stream, const Word& word, Heard& heard) {
    SendWord(stream.get(), word);
    return Hear(stream, heard);
  }
  static int Hear(const Fd& stream, Heard& heard) {
    EXPECT_TRUE(BecomesReadable(stream.get()));
    return HearWord(stream.get(), /*takes_fds=*/true, heard);
  }

  const Scratch scratch_;
  const std::string path_;
  const Fd listener_;
};

// --- As it should be -----------------------------------------------------------------------------

TEST_F(HandOverTest, EachGenerationHasTheListenersOfTheOneBefore) {
  const long before = OpenDescriptors();
  {
    std::vector<std::unique_ptr<Told>> told;
    told.push_back(std::make_unique<Told>());
    std::unique_ptr<HandOver> old = Serve(*told.back());
    ASSERT_NE(old, nullptr);
    for (int generation = 0; generation < 20; ++generation) {
      TakenOver taken = Take();
      ASSERT_EQ(taken.listeners().size(), 1u);
      EXPECT_EQ(taken.predecessor(), getpid());
      const NamedListener listener = std::move(taken.listeners()[0]);
      EXPECT_EQ(listener.name(), "http");
      EXPECT_TRUE(SameSocket(listener.fd(), listener_.get()));
      EXPECT_TRUE(IsCloseOnExec(listener.fd()));
      EXPECT_FALSE(told.back()->was_handed_over());

      told.push_back(std::make_unique<Told>());
      std::unique_ptr<HandOver> next = Serve(*told.back(), std::move(taken));
      ASSERT_NE(next, nullptr);
      EXPECT_EQ(told[told.size() - 2]->HandedOver(), getpid());
      // It has not stopped yet.
      EXPECT_FALSE(told.back()->predecessor_has_ended());
      EXPECT_TRUE(old->Stop());
      EXPECT_TRUE(told.back()->PredecessorEnded());
      old = std::move(next);
      EXPECT_TRUE(PathIsThere());
    }
    EXPECT_FALSE(old->Stop());
    EXPECT_FALSE(old->Stop());
    EXPECT_FALSE(PathIsThere());
    EXPECT_TRUE(absl::IsNotFound(TakeOver(path_).status()));
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(HandOverTest, ASuccessorThatChangesItsMindChangesNothing) {
  const long before = OpenDescriptors();
  {
    Told told;
    const std::unique_ptr<HandOver> old = Serve(told);
    for (int i = 0; i < 3; ++i) {
      { const TakenOver taken = Take(); }
      const absl::Status failure = told.Failure();
      EXPECT_TRUE(absl::IsAborted(failure)) << failure;
      EXPECT_NE(failure.message().find("has ended before it served"), std::string::npos) << failure;
    }
    EXPECT_FALSE(told.was_handed_over());
    EXPECT_EQ(Take().listeners().size(), 1u);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(HandOverTest, NobodyWaitsAtAPathWithoutAServer) {
  EXPECT_TRUE(absl::IsNotFound(TakeOver(path_).status()));
  EXPECT_TRUE(absl::IsNotFound(TakeOver(scratch_ / "none/hand-over").status()));
  // One that was left behind.
  {
    const Fd abandoned(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(abandoned.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
  }
  ASSERT_TRUE(PathIsThere());
  EXPECT_TRUE(absl::IsNotFound(TakeOver(path_).status()));
  Told told;
  EXPECT_NE(Serve(told), nullptr);
}

TEST_F(HandOverTest, OnlyItsUserMayConnect) {
  Told told;
  const std::unique_ptr<HandOver> old = Serve(told);
  struct stat status {};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(HandOverTest, WhatCannotBeServedIsSaidAndLeavesNothing) {
  const long before = OpenDescriptors();
  const auto code = [&](const std::string& path, std::vector<OfferedListener> listeners) {
    const auto served = HandOver::Serve(path, std::move(listeners));
    EXPECT_FALSE(served.ok());
    return served.status().code();
  };
  const Fd deaf(socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_EQ(code(path_, {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(path_, {{.fd = deaf.get()}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(path_, {{.fd = listener_.get(), .name = std::string(256, 'x')}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(path_, {{.fd = listener_.get(), .name = std::string("a\0b", 3)}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("", Offered()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(scratch_ / std::string(108, 'x'), Offered()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(scratch_ / "none/hand-over", Offered()), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(scratch_.path(), Offered()), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(PathIsThere());
  {
    Told told;
    const std::unique_ptr<HandOver> old = Serve(told);
    EXPECT_EQ(code(path_, Offered()), absl::StatusCode::kAlreadyExists);
    EXPECT_TRUE(PathIsThere());
    EXPECT_EQ(Take().listeners().size(), 1u);
  }
  EXPECT_EQ(OpenDescriptors(), before + 1);  // `deaf`
}

TEST_F(HandOverTest, TwoHundredAndFiftyThreeGoAndOneMoreIsAnErrorInWords) {
  const long before = OpenDescriptors();
  {
    std::vector<Fd> copies;
    std::vector<OfferedListener> offered;
    for (size_t i = 0; i <= kHandOverListenersMax; ++i) {
      copies.emplace_back(dup(listener_.get()));
      offered.push_back(
          {.fd = copies.back().get(), .name = std::to_string(i) + std::string(200, 'x')});
    }
    const auto refused = HandOver::Serve(path_, offered);
    EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
    EXPECT_NE(refused.status().message().find("254 listeners cannot be handed over: the kernel "
                                              "passes on 253"),
              std::string::npos)
        << refused.status();

    offered.pop_back();
    const auto served = HandOver::Serve(path_, offered);
    ASSERT_TRUE(served.ok()) << served.status();
    TakenOver taken = Take();
    ASSERT_EQ(taken.listeners().size(), kHandOverListenersMax);
    EXPECT_EQ(taken.listeners()[252].name(), offered[252].name);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

// --- Somebody ends in the middle -----------------------------------------------------------------

TEST_F(HandOverTest, ASuccessorThatDiesWithTheListenersLeavesTheOldOneAsItWas) {
  const long before = OpenDescriptors();
  {
    Told told;
    const std::unique_ptr<HandOver> old = Serve(told);
    Child successor([&] {
      absl::StatusOr<TakenOver> taken = TakeOver(path_);
      if (taken.ok()) raise(SIGKILL);
      return 1;
    });
    EXPECT_EQ(successor.Wait(), 128 + SIGKILL);
    EXPECT_TRUE(absl::IsAborted(told.Failure()));
    EXPECT_FALSE(told.was_handed_over());
    const Fd client = ConnectTo(listener_.get());
    EXPECT_GE(Fd(accept(listener_.get(), nullptr, nullptr)).get(), 0);
    EXPECT_EQ(Take().listeners().size(), 1u);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

// The predecessor is a process of its own that dies when it has sent everything. Its successor
// serves, and so it finds out.
TEST_F(HandOverTest, APredecessorThatDiesAfterItHasSentLeavesAllToItsSuccessor) {
  Child predecessor([&] {
    const auto serves = HandOver::Serve(path_, Offered());
    if (!serves.ok()) return 1;
    pause();
    return 1;
  });
  absl::StatusOr<TakenOver> taken = absl::NotFoundError("");
  while (absl::IsNotFound(taken.status())) taken = TakeOver(path_);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->predecessor(), predecessor.pid());
  predecessor.Signal(SIGKILL);
  EXPECT_EQ(predecessor.Wait(), 128 + SIGKILL);
  Told told;
  const std::unique_ptr<HandOver> served = Serve(told, *std::move(taken));
  ASSERT_NE(served, nullptr);
  EXPECT_TRUE(told.PredecessorEnded());
  EXPECT_EQ(Take().listeners().size(), 1u);
}

// It has sent everything, and does not move when it is told. Its successor waits for five seconds,
// and serves. When it goes on, it finds that it has handed over.
TEST_F(HandOverTest, APredecessorThatIsStoppedHandsOverWhenItGoesOn) {
  Child predecessor([&] {
    Told told;
    const auto serves = HandOver::Serve(path_, Offered(), told.options());
    return serves.ok() && told.HandedOver() == getppid() && (*serves)->Stop() ? 0 : 1;
  });
  absl::StatusOr<TakenOver> taken = absl::NotFoundError("");
  while (absl::IsNotFound(taken.status())) taken = TakeOver(path_);
  ASSERT_TRUE(taken.ok()) << taken.status();
  predecessor.Signal(SIGSTOP);
  siginfo_t stopped{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(predecessor.pid()), &stopped, WSTOPPED), 0);
  Told told;
  const std::unique_ptr<HandOver> served = Serve(told, *std::move(taken));
  ASSERT_NE(served, nullptr);
  EXPECT_FALSE(told.predecessor_has_ended());
  predecessor.Signal(SIGCONT);
  EXPECT_EQ(predecessor.Wait(), 0);
  EXPECT_TRUE(told.PredecessorEnded());
  EXPECT_EQ(Take().listeners().size(), 1u);
}

// Its word that it serves is heard when it is gone. The old one's thread is held back until then.
TEST_F(HandOverTest, ASuccessorThatDiesAsSoonAsItServesLeavesTheOldOneAsItWas) {
  Told first_told, told;
  const std::unique_ptr<HandOver> first = Serve(first_told);
  std::mutex held;
  HandOverOptions options = told.options();
  options.on_predecessor_ended = [&, tell = options.on_predecessor_ended] {
    tell();
    const std::lock_guard until_it_is_gone(held);
  };
  const auto old = HandOver::Serve(path_, Offered(), std::move(options), Take());
  ASSERT_TRUE(old.ok()) << old.status();
  Fd stream = Join();
  Heard heard;
  EXPECT_EQ(Ask(stream, {.say = Say::kAsk}, heard), 0);
  EXPECT_EQ(Hear(stream, heard), 0);
  EXPECT_EQ(heard.word.say, Say::kListeners);
  {
    const std::lock_guard lock(held);
    first->Stop();
    EXPECT_TRUE(told.PredecessorEnded());
    EXPECT_EQ(SendWord(stream.get(), {.say = Say::kServing}), 0);
    stream.Close();
  }
  const absl::Status failure = told.Failure();
  EXPECT_TRUE(absl::IsAborted(failure)) << failure;
  EXPECT_FALSE(told.was_handed_over());
  EXPECT_EQ(Take().listeners().size(), 1u);
}

// From the moment when a successor is told that it is the generation, nobody else is asked.
TEST_F(HandOverTest, AGenerationThatHasHandedOverIsNotAskedAnyMore) {
  Told told;
  const std::unique_ptr<HandOver> old = Serve(told);
  {
    const Fd stream = Join();
    Heard control, listeners, yours;
    EXPECT_EQ(Ask(stream, {.say = Say::kAsk}, control), 0);
    EXPECT_EQ(Hear(stream, listeners), 0);
    EXPECT_EQ(Ask(stream, {.say = Say::kServing}, yours), 0);
    EXPECT_EQ(yours.word.say, Say::kYours);
    EXPECT_EQ(told.HandedOver(), getpid());
  }
  EXPECT_EQ(Meet(path_), -ECONNREFUSED);
  EXPECT_TRUE(PathIsThere());
}

// Before it has sent anything: it is as if there had been none.
TEST_F(HandOverTest, APredecessorThatDiesBeforeItAnswersIsNone) {
  const long before = OpenDescriptors();
  {
    Fd place(internal::OpenMeetingPlace(path_)->socket.Release());
    std::thread server([&] {
      BecomesReadable(place.get());
      const Fd accepted(accept(place.get(), nullptr, nullptr));
      place.Close();
    });
    const absl::Status status = TakeOver(path_).status();
    server.join();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(HandOverTest, APredecessorThatIsStoppedIsNotWaitedForForEver) {
  const Fd place(internal::OpenMeetingPlace(path_)->socket.Release());
  const absl::Status status = TakeOver(path_, {.answer_max = absl::Milliseconds(50)}).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

// It is asked to end while a successor starts. The path is that one's then.
TEST_F(HandOverTest, APredecessorThatStopsMeanwhileLeavesThePathToItsSuccessor) {
  const long before = OpenDescriptors();
  {
    Told old_told, told;
    std::unique_ptr<HandOver> old = Serve(old_told);
    TakenOver taken = Take();
    old->Stop();
    EXPECT_FALSE(PathIsThere());
    const std::unique_ptr<HandOver> next = Serve(told, std::move(taken));
    ASSERT_NE(next, nullptr);
    EXPECT_TRUE(told.PredecessorEnded());
    EXPECT_FALSE(old_told.was_handed_over());
    EXPECT_EQ(Take().listeners().size(), 1u);
    old.reset();
    EXPECT_TRUE(PathIsThere());
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(HandOverTest, ASuccessorThatTakesTooLongIsToldSoAndTheOldOneGoesOn) {
  Told told;
  HandOverOptions options = told.options();
  options.start_max = absl::ZeroDuration();
  const auto old = HandOver::Serve(path_, Offered(), std::move(options));
  ASSERT_TRUE(old.ok()) << old.status();
  TakenOver taken = Take();
  EXPECT_TRUE(absl::IsDeadlineExceeded(told.Failure()));
  const absl::Status late = HandOver::Serve(path_, Offered(), {}, std::move(taken)).status();
  EXPECT_TRUE(absl::IsAborted(late)) << late;
  EXPECT_NE(late.message().find("start_max"), std::string::npos) << late;
  EXPECT_FALSE(told.was_handed_over());
  EXPECT_TRUE(PathIsThere());
}

TEST_F(HandOverTest, TheSecondOfTwoSuccessorsIsToldToWait) {
  Told told;
  const std::unique_ptr<HandOver> old = Serve(told);
  TakenOver first = Take();
  const absl::Status second = TakeOver(path_).status();
  EXPECT_TRUE(absl::IsUnavailable(second)) << second;
  EXPECT_NE(second.message().find("to another process"), std::string::npos) << second;
  Told first_told;
  EXPECT_NE(Serve(first_told, std::move(first)), nullptr);
}

// --- Words that nobody has asked for -------------------------------------------------------------

TEST_F(HandOverTest, AServerIsNotMovedByGarbage) {
  const long before = OpenDescriptors();
  {
    Told told;
    const std::unique_ptr<HandOver> old = Serve(told);
    const auto refuses = [&](const std::function<void(const Fd&)>& say) {
      const Fd stream = Join();
      ASSERT_GE(stream.get(), 0);
      say(stream);
      Heard heard;
      int error;
      while ((error = Hear(stream, heard)) == 0) EXPECT_NE(heard.word.say, Say::kYours);
      EXPECT_EQ(error, EPIPE);
      EXPECT_TRUE(absl::IsDataLoss(told.Failure()));
    };
    const auto sends = [](std::string bytes) {
      return [bytes](const Fd& stream) {
        ASSERT_EQ(send(stream.get(), bytes.data(), bytes.size(), 0),
                  static_cast<ssize_t>(bytes.size()));
      };
    };
    refuses(sends("x"));
    refuses(sends(std::string(40, 'x')));
    refuses(sends(std::string(100'000, 'x')));
    refuses(sends("GET / HTTP/1.1\r\nHost: somebody else\r\n\r\n"));
    // Another version of the protocol.
    refuses([](const Fd& stream) {
      std::array<int, 2> pair;
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
      const Fd one(pair[0]), other(pair[1]);
      SendWord(one.get(), {.say = Say::kAsk});
      std::array<char, 100> bytes;
      const ssize_t size = recv(other.get(), bytes.data(), bytes.size(), 0);
      ASSERT_EQ(std::string(bytes.data(), 8), "RMHAND01");
      bytes[7] = '2';
      ASSERT_EQ(send(stream.get(), bytes.data(), static_cast<size_t>(size), 0), size);
    });
    // Words in the wrong place, or of no meaning, or with what does not belong to them.
    refuses([](const Fd& stream) { SendWord(stream.get(), {.say = Say::kServing}); });
    refuses([](const Fd& stream) { SendWord(stream.get(), {.say = Say::kYours}); });
    refuses([](const Fd& stream) { SendWord(stream.get(), {.say = static_cast<Say>(99)}); });
    refuses([](const Fd& stream) { SendWord(stream.get(), {.say = Say::kAsk}, "more"); });
    refuses([](const Fd& stream) {
      SendWord(stream.get(), {.say = Say::kAsk});
      SendWord(stream.get(), {.say = Say::kAsk});
    });
    // Descriptors never reach it.
    refuses([&](const Fd& stream) {
      const std::vector<int> fds(253, listener_.get());
      SendWord(stream.get(), {.say = Say::kAsk}, {}, fds);
    });
    EXPECT_FALSE(told.was_handed_over());
    EXPECT_EQ(Take().listeners().size(), 1u);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

// What is nearly a word: one that is right but for some bytes, in the place of each that a
// successor says. Whatever the server makes of it, it goes on.
TEST_F(HandOverTest, AServerIsNotMovedByNearlyTheRightWords) {
  constexpr uint64_t kSeed = 20150209;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  testing::SplitMix random(kSeed);
  const long before = OpenDescriptors();
  {
    Told told;
    const std::unique_ptr<HandOver> old = Serve(told);
    std::array<int, 2> pair;
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
    const Fd one(pair[0]), other(pair[1]);
    for (int i = 0; i < 1000; ++i) {
      const bool asks = random.Next() % 2 == 0;
      SendWord(one.get(), {.say = asks ? Say::kAsk : Say::kServing});
      std::array<char, 64> bytes{};
      auto size = static_cast<size_t>(recv(other.get(), bytes.data(), bytes.size(), 0));
      // Its mark and what it says are the first twelve; the rest is not looked at.
      for (uint64_t changes = 1 + random.Next() % 3; changes > 0; --changes) {
        bytes[random.Next() % 12] ^= static_cast<char>(1 + random.Next() % 255);
      }
      if (random.Next() % 4 == 0) size = 1 + random.Next() % bytes.size();
      const Fd stream = Join();
      ASSERT_GE(stream.get(), 0);
      Heard heard;
      if (!asks) {
        ASSERT_EQ(Ask(stream, {.say = Say::kAsk}, heard), 0);
        ASSERT_EQ(Hear(stream, heard), 0);
      }
      send(stream.get(), bytes.data(), size, MSG_NOSIGNAL);
      int error;
      while ((error = Hear(stream, heard)) == 0) ASSERT_NE(heard.word.say, Say::kYours);
      ASSERT_EQ(error, EPIPE);
    }
    EXPECT_FALSE(told.was_handed_over());
    EXPECT_EQ(Take().listeners().size(), 1u);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

// Whoever connects and says nothing is put out after a second, which this waits for.
TEST_F(HandOverTest, AClientThatSaysNothingIsPutOut) {
  Told told;
  const std::unique_ptr<HandOver> old = Serve(told);
  const Fd silent = Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(told.Failure()));
  EXPECT_EQ(Take().listeners().size(), 1u);
}

TEST_F(HandOverTest, ASuccessorTakesNothingFromGarbage) {
  const long before = OpenDescriptors();
  {
    const Fd place(internal::OpenMeetingPlace(path_)->socket.Release());
    // What it answers to a successor that asks.
    const auto refused = [&](const std::function<void(int)>& answer) {
      std::thread server([&] {
        BecomesReadable(place.get());
        const Fd stream(accept(place.get(), nullptr, nullptr));
        BecomesReadable(stream.get());
        answer(stream.get());
        // Until the other one has hung up.
        Heard heard;
        while (BecomesReadable(stream.get()) && HearWord(stream.get(), false, heard) != EPIPE) {
        }
      });
      const absl::Status status = TakeOver(path_).status();
      server.join();
      return status;
    };
    const int one = listener_.get();
    const std::vector<int> two = {one, one};
    const Fd null(open("/dev/null", O_RDONLY));
    const int file = null.get();
    const auto control = [&](int stream) {
      EXPECT_EQ(SendWord(stream, {.say = Say::kControl}, {}, {&one, 1}), 0);
    };
    const auto is_garbage = [&](const std::function<void(int)>& answer) {
      const absl::Status status = refused(answer);
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    };
    is_garbage([](int stream) { send(stream, "hello", 5, 0); });
    is_garbage([](int stream) {
      const std::string much(150'000, 'x');
      send(stream, much.data(), much.size(), 0);
    });
    is_garbage([](int stream) { SendWord(stream, {.say = Say::kYours}); });
    is_garbage([](int stream) { SendWord(stream, {.say = Say::kControl}); });
    is_garbage([&](int stream) { SendWord(stream, {.say = Say::kControl}, {}, two); });
    is_garbage([&](int stream) { control(stream), control(stream); });
    // More, fewer, or other names than descriptors.
    using std::string_literals::operator""s;
    is_garbage([&](int stream) {
      control(stream);
      SendWord(stream, {.say = Say::kListeners, .number = 1}, "a\0"s, two);
    });
    is_garbage([&](int stream) {
      control(stream);
      SendWord(stream, {.say = Say::kListeners, .number = 0}, "");
    });
    for (const std::string& names : {""s, "a"s, "a\0"s, "a\0b"s, "a\0b\0c\0"s, "a\0b\0c"s}) {
      is_garbage([&](int stream) {
        control(stream);
        SendWord(stream, {.say = Say::kListeners, .number = 2}, names, two);
      });
    }
    const absl::Status no_listener = refused([&](int stream) {
      control(stream);
      SendWord(stream, {.say = Say::kListeners, .number = 1}, "a\0"s, {&file, 1});
    });
    EXPECT_TRUE(absl::IsInvalidArgument(no_listener)) << no_listener;
    EXPECT_TRUE(absl::IsUnavailable(
        refused([](int stream) { SendWord(stream, {.say = Say::kRefused, .number = 77}); })));
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

// As many as fit are received before one that does not. None of them stays.
TEST_F(HandOverTest, ASuccessorWithoutDescriptorsSaysSoAndKeepsNone) {
  std::vector<Fd> copies;
  std::vector<OfferedListener> offered;
  for (int i = 0; i < 100; ++i) {
    copies.emplace_back(dup(listener_.get()));
    offered.push_back({.fd = copies.back().get(), .name = "x"});
  }
  const auto served = HandOver::Serve(path_, offered);
  ASSERT_TRUE(served.ok()) << served.status();
  Child successor([&] {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = static_cast<rlim_t>(Fd(dup(0)).get() + 50);
    setrlimit(RLIMIT_NOFILE, &limit);
    const long before = OpenDescriptors();
    const absl::Status status = TakeOver(path_).status();
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(OpenDescriptors(), before);
    return ::testing::Test::HasFailure() ? 1 : 0;
  });
  EXPECT_EQ(successor.Wait(), 0);
  EXPECT_EQ(Take().listeners().size(), 100u);
}

// --- Users and children --------------------------------------------------------------------------

constexpr uid_t kSomebodyElse = 65534;

TEST_F(HandOverTest, AProcessOfAnotherUserGetsNothing) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  Told told;
  const std::unique_ptr<HandOver> old = Serve(told);
  // The file's mode would keep it away already.
  ASSERT_EQ(chmod(scratch_.path().c_str(), 0777), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0777), 0);
  Child foreigner([&] {
    if (setuid(kSomebodyElse) != 0) return 1;
    // One that does not mind whose the path is.
    const Fd stream = Join();
    Heard heard;
    EXPECT_EQ(Ask(stream, {.say = Say::kAsk}, heard), 0);
    EXPECT_EQ(heard.word.say, Say::kRefused);
    EXPECT_TRUE(heard.fds.empty());
    EXPECT_EQ(Hear(stream, heard), EPIPE);
    const absl::Status status = TakeOver(path_).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    return ::testing::Test::HasFailure() ? 1 : 0;
  });
  EXPECT_EQ(foreigner.Wait(), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(told.Failure()));
  EXPECT_EQ(Take().listeners().size(), 1u);
}

// One that does not mind who asks: it would send anything.
TEST_F(HandOverTest, NothingIsTakenFromAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  ASSERT_EQ(chmod(scratch_.path().c_str(), 0777), 0);
  Child foreigner([&] {
    if (setuid(kSomebodyElse) != 0) return 1;
    const Fd place(internal::OpenMeetingPlace(path_)->socket.Release());
    BecomesReadable(place.get());
    const Fd stream(accept(place.get(), nullptr, nullptr));
    const int one = listener_.get();
    SendWord(stream.get(), {.say = Say::kControl}, {}, {&one, 1});
    SendWord(stream.get(), {.say = Say::kListeners, .number = 1}, std::string("a\0", 2), {&one, 1});
    pause();
    return 1;
  });
  absl::Status status;
  do {
    status = TakeOver(path_).status();
  } while (absl::IsNotFound(status));
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
}

// A child that lives on keeps nobody from taking over, once it has closed its copies.
TEST_F(HandOverTest, AForkedChildDoesNotServe) {
  Told told;
  std::unique_ptr<HandOver> old = Serve(told);
  std::array<int, 2> gone;
  ASSERT_EQ(pipe(gone.data()), 0);
  Child child([&] {
    old->Stop();
    AfterForkInChild();
    old.reset();
    close(gone[1]);
    pause();
    return 1;
  });
  close(gone[1]);
  EXPECT_TRUE(BecomesReadable(gone[0]));
  close(gone[0]);
  EXPECT_TRUE(PathIsThere());
  EXPECT_EQ(Take().listeners().size(), 1u);
  EXPECT_TRUE(absl::IsAborted(told.Failure()));
  // As if it had died: its file stays, and nobody listens there.
  const std::string kept = path_ + "-kept";
  ASSERT_EQ(link(path_.c_str(), kept.c_str()), 0);
  old.reset();
  ASSERT_EQ(rename(kept.c_str(), path_.c_str()), 0);
  EXPECT_TRUE(absl::IsNotFound(TakeOver(path_).status()));
}

// --- System calls --------------------------------------------------------------------------------

// The thread permits itself what src/SYSTEM_CALLS.md lists, from its first callback on. Whatever
// else it calls then ends the child.
TEST_F(HandOverTest, ItsThreadNeedsTheSystemCallsThatAreListed) {
#ifdef RINGMASTER_TEST_SANITIZED
  GTEST_SKIP() << "a sanitizer makes system calls of its own";
#endif
  if (testing::kSeccompArchitecture == 0) GTEST_SKIP() << "nobody has tried this machine";
  std::array<int, 2> end;
  ASSERT_EQ(pipe2(end.data(), O_CLOEXEC), 0);
  Child child([&] {
    HandOverOptions options;
    options.on_failed = [filtered = false](const absl::Status&) mutable {
      if (std::exchange(filtered, true)) return;
      std::vector<sock_filter> filter = {
          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
      for (const int call :
           {SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_clock_gettime, SYS_futex,
            SYS_mremap, SYS_poll, SYS_accept4, SYS_getsockopt, SYS_setsockopt, SYS_geteuid,
            SYS_recvmsg, SYS_sendmsg, SYS_getpid, SYS_close, SYS_rt_sigprocmask, SYS_exit}) {
        filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
        filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
      }
      filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
      if (testing::InstallFilter(filter) != 0) _exit(77);
    };
    // It was forked before there is a thread, which the thread sanitizer wants.
    absl::StatusOr<TakenOver> predecessor = absl::NotFoundError("");
    while (absl::IsNotFound(predecessor.status())) predecessor = TakeOver(path_);
    if (!predecessor.ok()) return 1;
    auto serves = HandOver::Serve(path_, Offered(), std::move(options), *std::move(predecessor));
    if (!serves.ok()) return 1;
    char byte;
    if (read(end[0], &byte, 1) != 1) return 1;
    return (*serves)->Stop() ? 0 : 1;
  });
  Told told;
  const std::unique_ptr<HandOver> old = Serve(told);
  EXPECT_EQ(told.HandedOver(), child.pid());
  old->Stop();
  // It has got the filter when this has ended.
  const auto fails = [&] {
    const Fd stream = Join();
    send(stream.get(), "x", 1, 0);
    Heard heard;
    EXPECT_EQ(Hear(stream, heard), EPIPE);
  };
  fails();
  fails();
  { const TakenOver changes_its_mind = Take(); }
  Told next_told;
  const std::unique_ptr<HandOver> next = Serve(next_told, Take());
  EXPECT_EQ(write(end[1], "x", 1), 1);
  const int status = child.Wait();
  if (status == 77) GTEST_SKIP() << "filters are not allowed here";
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(next_told.PredecessorEnded());
  for (const int fd : end) close(fd);
}

}  // namespace
}  // namespace ringmaster
