// Listeners that this process did not make, and how they go from one generation of a server to the
// next one without a refused or a reset client. Also what a service manager is told meanwhile.
//
// A listener can come by number (InheritListener), from systemd (ListenersOfService), or from the
// generation that serves now (TakeOver). A server that can be replaced at any time, by starting the
// same command again, does this:
//
//   auto taken = ringmaster::TakeOver(path);             // from whoever serves `path`
//   if (absl::IsNotFound(taken.status())) …              // nobody does: bind and listen as ever
//   …                                                    // AddSource, and workers join
//   auto hand_over = ringmaster::HandOver::Serve(        // from now on this is the generation
//       path, {{.fd = listen_fd, .name = "http"}}, {.on_handed_over = [&](pid_t) { End(); }},
//       *std::move(taken));
//   …
//   balancer->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] {
//     hand_over->Stop();                                 // then nothing refers to the listener
//     close(listen_fd);
//   }});
//
// Words. The *predecessor* is the process that serves, the *successor* the one that is to replace
// it. Both have the same listening socket for a while, each by a descriptor of its own, and both
// accept from it. Whoever waits in the kernel's queue is accepted by either. When the predecessor
// closes its descriptor, the socket and its queue live on.
//
// Errors. Each is an absl::Status that names the likely cause and the remedy. A call that fails
// leaves everything as it was, and no descriptor open.
//
// Threads. Any thread may call any function here, but two threads must not use one object at once,
// HandOver::Stop excepted. What reads or changes environment variables must not run while another
// thread changes them.

#ifndef RINGMASTER_LISTENERS_H_
#define RINGMASTER_LISTENERS_H_

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ringmaster {

namespace internal {
class Giving;
class Succession;
}  // namespace internal

// --- Listeners that are there already ------------------------------------------------------------

// A listening socket, and the name by which those who hand it on know it. Owns the descriptor:
// destruction closes it.
class [[nodiscard]] NamedListener {
 public:
  NamedListener() = default;  // none
  // Owns `fd` from now on.
  explicit NamedListener(int fd, std::string name = "") : fd_(fd), name_(std::move(name)) {}
  NamedListener(NamedListener&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), name_(std::move(other.name_)) {}
  NamedListener& operator=(NamedListener&& other) noexcept;
  ~NamedListener();

  // -1 when there is none.
  int fd() const { return fd_; }
  const std::string& name() const { return name_; }

  // Hands the descriptor to the caller, who must close it.
  [[nodiscard]] int TakeFd() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
  std::string name_;
};

// Takes over a listener that this process has inherited under a number that it was told, for
// instance on its command line. It must be a stream socket that listens, TCP or Unix, or a datagram
// socket that is bound.
//
// It becomes close-on-exec and non-blocking. O_NONBLOCK belongs to the socket itself, so whoever
// shares it sees that, too: a parent that accepts from it in a blocking way gets EAGAIN from now
// on. On success the descriptor is the result's. Take over each number once.
//
// InvalidArgument when the number is no open descriptor, no socket, a socket that does not listen,
// or a connection.
absl::StatusOr<NamedListener> InheritListener(int fd, std::string name = "");

struct ServiceListenersOptions {
  // Takes over only the listeners of this name (FileDescriptorName= in the socket unit; by default
  // the unit's own name, as in "http.socket"). The others stay open and untouched, but they become
  // close-on-exec. Empty: all of them.
  std::string name = "";
  // Removes LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PIDFDID from the environment, also
  // when the call fails, so that no child takes them for its own.
  bool unset_environment = true;
};

// Takes over the listeners that systemd has opened for this process (socket activation), in the
// order of the socket units' lines. It reads the environment, as sd_listen_fds_with_names(3) does;
// libsystemd is not needed. Each becomes close-on-exec and non-blocking, as by InheritListener.
//
// The result is empty when there are none: the variables are not set, or LISTEN_PID is that of
// another process, from which they were inherited. With `name`, it is also empty if none has that
// name. A listener without a name is called "unknown".
//
// InvalidArgument when the variables make no sense: LISTEN_PID or LISTEN_FDS is no number, or there
// are not as many names as descriptors. InvalidArgument, too, when one that is to be taken over is
// no listener. A connection, for instance, comes from a socket unit with Accept=yes. Call it once.
absl::StatusOr<std::vector<NamedListener>> ListenersOfService(ServiceListenersOptions options = {});

// --- From one generation to the next -------------------------------------------------------------

// How many listeners one generation can hand over: the kernel passes on no more at once.
inline constexpr size_t kHandOverListenersMax = 253;

struct TakeOverOptions {
  // How long the predecessor may take to answer, in all.
  absl::Duration answer_max = absl::Seconds(5);
};

// What a successor has got. The predecessor goes on accepting until HandOver::Serve tells it that
// the successor serves. If this is destroyed before, or the process ends, the predecessor simply
// goes on. So does it when the successor takes longer than the predecessor's
// HandOverOptions::start_max.
class [[nodiscard]] TakenOver {
 public:
  TakenOver();  // nothing
  TakenOver(TakenOver&& other) noexcept;
  TakenOver& operator=(TakenOver&& other) noexcept;
  ~TakenOver();

  // The listeners, in the order and under the names in which the predecessor has them. Move out
  // what you use. Serve all of them: clients wait at each. They are close-on-exec; everything else
  // is as the predecessor has set it.
  std::vector<NamedListener>& listeners() { return listeners_; }

  // The predecessor's process id; 0 when there is none.
  pid_t predecessor() const;

 private:
  friend class HandOver;
  friend absl::StatusOr<TakenOver> TakeOver(const std::string& path, TakeOverOptions options);

  std::vector<NamedListener> listeners_;
  std::unique_ptr<internal::Succession> succession_;
};

// Asks the process that serves `path` (HandOver::Serve) for its listeners. It waits as long as
// `answer_max` says and no longer.
//
// NotFound when nobody serves `path`: there is no such file, or whoever served it has ended. Then
// make listeners of your own. PermissionDenied when it is served by another user, whoever that is.
// Unavailable when the predecessor is just giving its listeners to somebody else.
// DeadlineExceeded when it does not answer. InvalidArgument for a path of more than 107 bytes.
// DataLoss when what answers there does not speak this protocol.
absl::StatusOr<TakenOver> TakeOver(const std::string& path, TakeOverOptions options = {});

// A listener that is handed over. Borrowed: it stays the caller's.
struct OfferedListener {
  int fd = -1;
  std::string name = "";  // at most 255 bytes, none of them 0
};

// The callbacks are called on a thread of the HandOver's own, one at a time. They must not throw,
// and must not destroy the HandOver. Keep them short, and let them tell your own thread what to do:
// while one runs, no successor is heard.
struct HandOverOptions {
  // How long a successor may take from when it gets the listeners until it serves.
  absl::Duration start_max = absl::Seconds(60);

  // A successor serves. It accepts from all listeners now, and whoever asks at the path is its
  // business. So end: shut the balancer down. Called once at most.
  std::function<void(pid_t successor)> on_handed_over = nullptr;

  // The predecessor has called Stop, or has died. From now on nobody but this process accepts.
  // Called once if there was a predecessor.
  //
  // A source with Intake::kAccept needs it: call Source::Pause and Source::Resume then, not in the
  // callback but on a thread of your own. The kernel wakes one of all multishot accepts for a
  // client. If that was the predecessor's, which was just ending, the client waits for the next one
  // to come; a source that is armed anew sees it at once. Other intakes need nothing.
  std::function<void()> on_predecessor_ended = nullptr;

  // An attempt came to nothing, and this process goes on as before. The text says what was wrong: a
  // successor that ended before it served, say, or a process of another user.
  std::function<void(const absl::Status& why)> on_failed = nullptr;
};

// Makes this process the generation that a successor takes over from.
class HandOver {
 public:
  // Serves `path`, and tells the predecessor, if there is one, that this process serves. Call it
  // when all workers have joined, so that both sides accept for a moment.
  //
  // `path` is that of a Unix socket, which this makes, with access for its user alone. A socket of
  // that name that nobody serves any more is replaced. Put it into a directory that others cannot
  // write to. `listeners` are borrowed: keep each open until Stop has returned.
  //
  // `predecessor` is what TakeOver has brought for this path, or nothing. Its listeners are not
  // closed, unless they are still in there.
  //
  // ResourceExhausted for more than 253 listeners. InvalidArgument for none, for one that is no
  // listener, and for a bad name or path. AlreadyExists when another process serves `path` and
  // `predecessor` is nothing. FailedPrecondition when there is a file of that name that is no
  // socket. Aborted when the predecessor does not wait any more, because the start has taken longer
  // than its `start_max`: it goes on, so this process should end.
  static absl::StatusOr<std::unique_ptr<HandOver>> Serve(const std::string& path,
                                                         std::vector<OfferedListener> listeners,
                                                         HandOverOptions options = {},
                                                         TakenOver predecessor = {});

  // As Stop. In a forked child it only closes the child's copies.
  ~HandOver();
  HandOver(const HandOver&) = delete;
  HandOver& operator=(const HandOver&) = delete;

  // Nothing refers to the listeners any more when this returns; a successor is told so. If nobody
  // has taken over, the path is not served any more, and its file is removed. Call it when the
  // balancer's intake has ended (ShutdownOptions::on_intake_ended). Any thread may call it, also a
  // callback; it does not wait for callbacks. A second call changes nothing.
  //
  // Returns whether a successor has taken over. Then the file of a Unix listener is its business.
  // This may be so although on_handed_over is still to be called.
  bool Stop();

 private:
  explicit HandOver(std::unique_ptr<internal::Giving> giving);

  std::unique_ptr<internal::Giving> giving_;
};

// --- What the service manager is told ------------------------------------------------------------

// What to tell; all that is set goes in one message. sd_notify(3) says what systemd makes of it.
struct ServiceState {
  bool ready = false;      // READY=1: it serves, or its configuration is loaded anew
  bool reloading = false;  // RELOADING=1, with the time (MONOTONIC_USEC=)
  bool stopping = false;   // STOPPING=1: it ends
  bool watchdog = false;   // WATCHDOG=1: it is alive
  // MAINPID=: who the service is from now on; 0: nothing is said of it. A generation that has
  // handed over names its successor, and does not say that it stops.
  pid_t main_pid = 0;
  std::string status = "";  // STATUS=: a line for people
};

// Tells the service manager, if there is one: it is asked for by the environment variable
// NOTIFY_SOCKET. Without it this does nothing, and answers OK. Waits a second at most.
//
// InvalidArgument when the status has more than one line, or NOTIFY_SOCKET is no path and no
// abstract name. Unavailable when nobody takes the message. A server should go on in both cases.
absl::Status NotifyService(const ServiceState& state);

// How often the service manager wants to be told that this process is alive (WATCHDOG_USEC, unless
// WATCHDOG_PID is another process): tell it twice as often. InfiniteDuration when it does not want
// to be told. InvalidArgument when the variables are no numbers.
absl::StatusOr<absl::Duration> WatchdogInterval();

}  // namespace ringmaster

#endif  // RINGMASTER_LISTENERS_H_
