#include "listeners/giving.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/check.h"
#include "listeners/inherited.h"
#include "ring/errors.h"
#include "ring/quiet_thread.h"

namespace ringmaster {
namespace internal {
namespace {

// What a successor may take to say its first word.
constexpr std::chrono::seconds kAskMax{1};
// How long to leave the place alone when nobody can be accepted there for want of descriptors.
constexpr std::chrono::milliseconds kShortagePause{100};
// How long the predecessor may take to say that this process is the generation.
constexpr std::chrono::seconds kAnswerMax{5};
// For the names of 253 listeners. The kernel lowers it to net.core.wmem_max.
constexpr int kSendBytes = 256 * 1024;

absl::Status CheckListeners(const std::vector<OfferedListener>& listeners) {
  if (listeners.empty()) {
    return absl::InvalidArgumentError(
        "there is no listener to hand over: name those that this process accepts from");
  }
  if (listeners.size() > kHandOverListenersMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(listeners.size(), " listeners cannot be handed over: the kernel passes on ",
                     kHandOverListenersMax,
                     " descriptors at once. Listen on fewer addresses, or let several processes "
                     "share them"));
  }
  for (const OfferedListener& each : listeners) {
    if (each.name.size() > kNameBytesMax || each.name.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the name of a listener has at most ", kNameBytesMax,
                       " bytes, none of them 0: choose another one for descriptor ", each.fd));
    }
    absl::Status status = CheckInherited(
        each.fd, absl::StrCat("descriptor ", each.fd, ", which is to be handed over,"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

Giving::Giving(std::vector<OfferedListener> listeners, HandOverOptions options)
    : process_(ring::ThisProcess()),
      listeners_(std::move(listeners)),
      options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<Giving>> Giving::Start(const std::string& path,
                                                      std::vector<OfferedListener> listeners,
                                                      HandOverOptions options,
                                                      std::unique_ptr<Succession> succession) {
  if (absl::Status status = CheckPath(path); !status.ok()) return status;
  if (absl::Status status = CheckListeners(listeners); !status.ok()) return status;
  if (absl::Status status = ring::KnowThisProcess(); !status.ok()) return status;
  std::unique_ptr<Giving> giving(new Giving(std::move(listeners), std::move(options)));
  absl::Status status = giving->Open(path, std::move(succession));
  if (!status.ok()) return status;
  return giving;
}

// The thread is started first and held back: what could fail has not failed when the predecessor is
// told to end.
absl::Status Giving::Open(const std::string& path, std::unique_ptr<Succession> succession) {
  wake_ = ring::OwnDescriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake_.get() < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  const std::lock_guard lock(mutex_);
  if (absl::Status status = StartThread(); !status.ok()) return status;
  absl::Status status = BecomeGeneration(path, std::move(succession));
  // The destructor waits for the thread, which removes nothing that is not this process's.
  if (!status.ok()) stopped_ = true;
  return status;
}

absl::Status Giving::StartThread() {
  const auto run = [](void* self) -> void* {
    static_cast<Giving*>(self)->Run();
    return nullptr;
  };
  const int error = ring::StartQuietThread(thread_, "hand-over", run, this);
  if (error != 0) return ring::ErrorStatus(ring::Operation::kStartThread, error);
  runs_ = true;
  return absl::OkStatus();
}

absl::Status Giving::BecomeGeneration(const std::string& path,
                                      std::unique_ptr<Succession> succession) {
  if (succession != nullptr) {
    if (succession->place.path != path) {
      return absl::InvalidArgumentError(
          absl::StrCat("what was taken over at ", succession->place.path, " cannot be served at ",
                       path, ": name the same path"));
    }
    if (absl::Status status = succession->SayServing(kAnswerMax); !status.ok()) return status;
    predecessor_ = std::move(succession->stream);
    place_ = std::move(succession->place);
    // A predecessor that was asked to end meanwhile has taken the file away.
    if (place_.IsThere()) return absl::OkStatus();
  }
  absl::StatusOr<MeetingPlace> place = OpenMeetingPlace(path);
  if (!place.ok()) return place.status();
  place_ = *std::move(place);
  return absl::OkStatus();
}

Giving::~Giving() {
  if (process_ != ring::ThisProcess()) return;  // a child has no such thread
  Stop();
  if (!runs_) return;
  if (pthread_equal(thread_, pthread_self()) != 0) {
    core::Misused(
        "a HandOver is destroyed in a callback of its own, which its destruction waits for: call "
        "HandOver::Stop there, and destroy it on another thread");
  }
  pthread_join(thread_, nullptr);
}

bool Giving::Stop() {
  if (process_ != ring::ThisProcess()) return false;
  const std::lock_guard lock(mutex_);
  if (!std::exchange(stopped_, true) && !given_) place_.Remove();
  const uint64_t one = 1;
  static_cast<void>(write(wake_.get(), &one, sizeof(one)));
  return given_;
}

bool Giving::stopped() {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

void Giving::Run() noexcept {
  while (!stopped()) Wait();
  // A successor that has the listeners hears by this that nobody else accepts any more.
  EndSession();
  place_.socket.Close();
  predecessor_.Close();
}

void Giving::Wait() {
  const bool waits = session_ == Session::kAsking || session_ == Session::kStarting;
  enum : size_t { kWake, kPlace, kStream, kPredecessor, kAll };
  std::array<pollfd, kAll> fds{};
  fds[kWake].fd = wake_.get();
  fds[kPlace].fd = place_.socket.get();
  fds[kStream].fd = waits ? stream_.get() : -1;
  fds[kPredecessor].fd = predecessor_.get();
  for (pollfd& each : fds) each.events = POLLIN;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until_ - Clock::now()).count();
  const int timeout = waits ? static_cast<int>(std::clamp<int64_t>(left, 0, 1000)) : -1;
  if (poll(fds.data(), fds.size(), timeout) < 0 || fds[kWake].revents != 0) return;
  if (fds[kPredecessor].revents != 0) OnPredecessor();
  if (fds[kStream].revents != 0) OnWord();
  if (fds[kPlace].revents != 0) OnConnection();
  OnTime();
}

void Giving::OnConnection() {
  if (place_.socket.get() < 0) return;  // given away meanwhile
  const int accepted = accept4(place_.socket.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (accepted < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};
      poll(&wake, 1, static_cast<int>(kShortagePause.count()));
    }
    return;
  }
  ring::OwnDescriptor stream(accepted);
  const Other other = OtherEndOf(accepted);
  if (other.user != geteuid()) {
    Refuse(accepted, Refusal::kForeign);
    return Failed(absl::PermissionDeniedError(
        absl::StrCat("process ", other.process, " of the user ", other.user,
                     " has asked for the listeners and has got none: this process runs as the "
                     "user ",
                     geteuid())));
  }
  if (session_ != Session::kNone) return Refuse(accepted, Refusal::kBusy);
  setsockopt(accepted, SOL_SOCKET, SO_SNDBUF, &kSendBytes, sizeof(kSendBytes));
  stream_ = std::move(stream);
  successor_ = other;
  session_ = Session::kAsking;
  until_ = Clock::now() + kAskMax;
}

void Giving::OnWord() {
  Heard heard;
  const int error = HearWord(stream_.get(), /*takes_fds=*/false, heard);
  if (error == EAGAIN) return;
  if (error == 0 && session_ == Session::kAsking && heard.word.say == Say::kAsk) {
    return SendListeners();
  }
  if (error == 0 && session_ == Session::kStarting && heard.word.say == Say::kServing) {
    return Give();
  }
  const bool starting = session_ == Session::kStarting;
  EndSession();
  if (error == EPIPE && starting) {
    Failed(absl::AbortedError(
        absl::StrCat("process ", successor_.process,
                     " has got the listeners and has ended before it served: see what it said; "
                     "this process goes on")));
  } else if (error != EPIPE) {  // or it only wanted to know whether anybody is here
    Failed(absl::DataLossError(
        absl::StrCat("process ", successor_.process,
                     " has asked for the listeners in words that are not those of a hand-over: it "
                     "has another version of the library, or means another path")));
  }
}

void Giving::OnTime() {
  if (session_ != Session::kAsking && session_ != Session::kStarting) return;
  if (Clock::now() < until_) return;
  const bool starting = session_ == Session::kStarting;
  Refuse(stream_.get(), Refusal::kTooLate);
  EndSession();
  Failed(absl::DeadlineExceededError(
      absl::StrCat("process ", successor_.process,
                   starting ? " has got the listeners and has not served in time: it should end; "
                            : " has connected and has not asked for the listeners: ",
                   "this process goes on")));
}

void Giving::OnPredecessor() {
  Heard heard;
  // An answer that comes late changes nothing: this process serves.
  while (true) {
    const int error = HearWord(predecessor_.get(), /*takes_fds=*/false, heard);
    if (error == EAGAIN) return;
    if (error != 0 && error != EBADMSG) break;
  }
  predecessor_.Close();
  if (options_.on_predecessor_ended != nullptr) options_.on_predecessor_ended();
}

void Giving::SendListeners() {
  std::vector<int> fds;
  for (const OfferedListener& listener : listeners_) fds.push_back(listener.fd);
  const int place = place_.socket.get();
  int error = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    error = SendWord(
        stream_.get(),
        {.say = Say::kControl, .process = getpid(), .device = place_.device, .inode = place_.inode},
        {}, {&place, 1});
    if (error == 0) {
      error = SendWord(stream_.get(),
                       {.say = Say::kListeners, .number = static_cast<uint32_t>(fds.size())},
                       JoinNames(listeners_), fds);
    }
  }
  if (error != 0) {
    Refuse(stream_.get(), Refusal::kUnable);
    EndSession();
    return Failed(absl::UnavailableError(absl::StrCat(
        "the listeners cannot be sent to process ", successor_.process, ": ",
        error == ETOOMANYREFS ? "too many descriptors of this user are on their way to processes "
                                "that do not read them. Raise RLIMIT_NOFILE, or end those"
                              : std::strerror(error))));
  }
  session_ = Session::kStarting;
  until_ = Clock::now() + absl::ToChronoMilliseconds(
                              std::clamp(options_.start_max, absl::ZeroDuration(), kLongest));
}

void Giving::Give() {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    given_ = SendWord(stream_.get(), {.say = Say::kYours}) == 0;
  }
  if (!given_) {
    EndSession();
    return Failed(absl::AbortedError(absl::StrCat(
        "process ", successor_.process, " has ended as soon as it served; this process goes on")));
  }
  session_ = Session::kGiven;
  place_.socket.Close();
  if (options_.on_handed_over != nullptr) options_.on_handed_over(successor_.process);
}

void Giving::Refuse(int fd, Refusal reason) {
  // Where it cannot be told, the end of the stream tells it.
  static_cast<void>(SendWord(fd, {.say = Say::kRefused, .number = static_cast<uint32_t>(reason)}));
}

void Giving::EndSession() {
  stream_.Close();
  session_ = Session::kNone;
}

void Giving::Failed(absl::Status why) {
  if (options_.on_failed != nullptr) options_.on_failed(why);
}

}  // namespace internal

HandOver::HandOver(std::unique_ptr<internal::Giving> giving) : giving_(std::move(giving)) {}
HandOver::~HandOver() = default;

absl::StatusOr<std::unique_ptr<HandOver>> HandOver::Serve(const std::string& path,
                                                          std::vector<OfferedListener> listeners,
                                                          HandOverOptions options,
                                                          TakenOver predecessor) {
  absl::StatusOr<std::unique_ptr<internal::Giving>> giving = internal::Giving::Start(
      path, std::move(listeners), std::move(options), std::move(predecessor.succession_));
  if (!giving.ok()) return giving.status();
  return std::unique_ptr<HandOver>(new HandOver(*std::move(giving)));
}

bool HandOver::Stop() { return giving_->Stop(); }

}  // namespace ringmaster
