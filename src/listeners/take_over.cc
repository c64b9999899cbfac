#include "listeners/take_over.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "listeners/inherited.h"
#include "ring/errors.h"

namespace ringmaster {
namespace internal {
namespace {

// How long to wait before somebody is asked again who was just about to go.
constexpr absl::Duration kPause = absl::Milliseconds(5);

absl::Status Refused(const std::string& path, uint32_t reason) {
  const std::string what =
      absl::StrCat("the process that serves ", path, " does not hand its listeners over: ");
  switch (static_cast<Refusal>(reason)) {
    case Refusal::kForeign:
      return absl::PermissionDeniedError(
          absl::StrCat(what, "it runs as another user. Start the successor as that user"));
    case Refusal::kBusy:
      return absl::UnavailableError(
          absl::StrCat(what,
                       "it is just giving them to another process. Wait until that one "
                       "serves, and start this one then"));
    case Refusal::kTooLate:
      return absl::AbortedError(
          absl::StrCat(what,
                       "this start has taken longer than it waits, and it goes on by itself. "
                       "Start faster, or raise its HandOverOptions::start_max"));
    case Refusal::kUnable:
      break;
  }
  return absl::UnavailableError(
      absl::StrCat(what, "it cannot send them now, and says why itself. Start this one again"));
}

absl::Status NotOurs(const std::string& path) {
  return absl::DataLossError(
      absl::StrCat("what answers at ", path,
                   " does not speak the protocol of a hand-over, or another version of it. "
                   "Is that the path of another program?"));
}

// What became of one attempt to ask. An empty status with nothing taken: it is worth asking again.
struct Attempt {
  absl::Status status;
  bool again = false;
};

Attempt Fails(absl::Status status) { return {.status = std::move(status)}; }
Attempt Again() { return {.again = true}; }

Attempt ConnectError(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
      return Fails(absl::NotFoundError(absl::StrCat("nobody serves the hand-over at ", path)));
    case EAGAIN:
      return Again();
    case EACCES:
    case EPERM:
      return Fails(absl::PermissionDeniedError(
          absl::StrCat("cannot ask at ", path, ": ", std::strerror(error),
                       ". It belongs to another user; start the successor as that user")));
    case EPROTOTYPE:
      return Fails(NotOurs(path));
    case EMFILE:
    case ENFILE:
      return Fails(ring::ErrorStatus(ring::Operation::kMakeDescriptor, error));
    default:
      return Fails(
          absl::UnknownError(absl::StrCat("cannot ask at ", path, ": ", std::strerror(error))));
  }
}

// What a word that is not the one that was waited for means.
Attempt HeardError(const std::string& path, int error, const Heard& heard) {
  switch (error) {
    case 0:
      return Fails(heard.word.say == Say::kRefused ? Refused(path, heard.word.number)
                                                   : NotOurs(path));
    case EAGAIN:
    case EPIPE:
      return Again();
    case EMFILE:
      return Fails(ring::ErrorStatus(ring::Operation::kMakeDescriptor, error));
    default:
      return Fails(NotOurs(path));
  }
}

Attempt Ask(const std::string& path, Clock::time_point until, std::vector<NamedListener>& listeners,
            Succession& succession) {
  const int connected = Meet(path);
  if (connected < 0) return ConnectError(path, -connected);
  succession.stream = ring::OwnDescriptor(connected);
  // Whoever has made the socket at a path where anybody may make one could send anything.
  if (OtherEndOf(connected).user != geteuid()) {
    return Fails(absl::PermissionDeniedError(
        absl::StrCat("the hand-over at ", path,
                     " is served by another user, from whom nothing is taken. Start the successor "
                     "as that user, or choose a path where others cannot make files")));
  }
  // If this fails, it has refused or ended, which is heard next.
  static_cast<void>(SendWord(connected, {.say = Say::kAsk, .process = getpid()}));

  Heard heard;
  int error = AwaitWord(connected, /*takes_fds=*/true, until, heard);
  if (error != 0 || heard.word.say != Say::kControl) return HeardError(path, error, heard);
  if (heard.fds.size() != 1) return Fails(NotOurs(path));
  succession.place = {.path = path,
                      .socket = ring::OwnDescriptor(heard.fds[0].TakeFd()),
                      .device = heard.word.device,
                      .inode = heard.word.inode};
  succession.predecessor = static_cast<pid_t>(heard.word.process);

  error = AwaitWord(connected, /*takes_fds=*/true, until, heard);
  if (error != 0 || heard.word.say != Say::kListeners) return HeardError(path, error, heard);
  std::vector<std::string> names;
  if (heard.fds.empty() || heard.fds.size() != heard.word.number ||
      !SplitNames(heard.text, heard.fds.size(), names)) {
    return Fails(NotOurs(path));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string which =
        absl::StrCat("\"", names[i], "\", which was handed over at ", path, ",");
    if (absl::Status status = CheckInherited(heard.fds[i].fd(), which); !status.ok()) {
      return Fails(std::move(status));
    }
    listeners.emplace_back(heard.fds[i].TakeFd(), std::move(names[i]));
  }
  return {};
}

}  // namespace

int AwaitWord(int fd, bool takes_fds, Clock::time_point until, Heard& heard) {
  while (true) {
    const int error = HearWord(fd, takes_fds, heard);
    if (error != EAGAIN) return error;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return EAGAIN;
    pollfd waits{.fd = fd, .events = POLLIN, .revents = 0};
    poll(&waits, 1, static_cast<int>(std::min<int64_t>(left, 1000)));
  }
}

absl::Status Succession::SayServing(std::chrono::milliseconds answer_max) {
  const int error = SendWord(stream.get(), {.say = Say::kServing, .process = getpid()});
  if (error != 0 && error != EPIPE && error != ECONNRESET) {
    return absl::UnavailableError(absl::StrCat(
        "the predecessor cannot be told that this process serves: ", std::strerror(error),
        ". It goes on; start this process again"));
  }
  // It may have refused before it ended.
  Heard heard;
  switch (AwaitWord(stream.get(), /*takes_fds=*/false, Clock::now() + answer_max, heard)) {
    case 0:
      if (heard.word.say == Say::kYours) return absl::OkStatus();
      return heard.word.say == Say::kRefused ? Refused(place.path, heard.word.number)
                                             : NotOurs(place.path);
    case EPIPE:   // it has ended
    case EAGAIN:  // it is stopped, and will read it when it goes on: until then both accept
      return absl::OkStatus();
    default:
      return NotOurs(place.path);
  }
}

}  // namespace internal

TakenOver::TakenOver() = default;
TakenOver::TakenOver(TakenOver&& other) noexcept = default;
TakenOver& TakenOver::operator=(TakenOver&& other) noexcept = default;
TakenOver::~TakenOver() = default;

pid_t TakenOver::predecessor() const {
  return succession_ == nullptr ? 0 : succession_->predecessor;
}

absl::StatusOr<TakenOver> TakeOver(const std::string& path, TakeOverOptions options) {
  if (absl::Status status = internal::CheckPath(path); !status.ok()) return status;
  if (absl::Status status = ring::KnowThisProcess(); !status.ok()) return status;
  const auto until = internal::Clock::now() +
                     absl::ToChronoMilliseconds(std::min(options.answer_max, internal::kLongest));
  while (true) {
    TakenOver taken;
    taken.succession_ = std::make_unique<internal::Succession>();
    internal::Attempt attempt = internal::Ask(path, until, taken.listeners_, *taken.succession_);
    if (!attempt.status.ok()) return attempt.status;
    if (!attempt.again) return taken;
    if (internal::Clock::now() >= until) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the process that serves the hand-over at ", path, " has not answered for ",
          absl::FormatDuration(options.answer_max),
          ". See whether it is stopped (kill -CONT), or ends again and again; ss -lxp src '", path,
          "' shows which it is"));
    }
    absl::SleepFor(internal::kPause);
  }
}

}  // namespace ringmaster
