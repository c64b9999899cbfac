// ringmaster-echo: an echo server on libringmaster, small enough to read and whole enough to use.
//
// The main thread sets everything up, waits for signals and prints. The balancer's threads accept.
// Every worker is a thread with a loop of its own (worker.h). The order matters at both ends:
//
//   start   signals blocked -> listeners -> balancer and sources -> workers join -> with a
//           predecessor: it is told to end -> "listening on"
//   serve   SIGTTIN -> one more worker joins, and the others pass on what they have above their
//           share; SIGTTOU -> one leaves, and passes on all that it has
//   end     first signal, or a successor serves -> BeginShutdown: the listeners are closed as soon
//           as nothing refers to them, so that new clients are refused, or served by a successor;
//           the workers close what is idle, and go on serving until all is done or time is up;
//           second signal -> the deadline is now;
//           then -> the workers close what is open and end -> what they did is printed

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "generation.h"
#include "listener.h"
#include "options.h"
#include "report.h"
#include "ringmaster/balancer.h"
#include "ringmaster/listeners.h"
#include "ringmaster/policy.h"
#include "worker.h"

namespace ringmaster::echo {
namespace {

// Says on stderr what the balancer reports, at most one line of a kind in kQuietFor. Under a burst
// that the descriptors do not suffice for, an episode can end and begin many times in a second.
class EventPrinter {
 public:
  // Whether an event after which nothing is accepted any more has been seen. From any thread.
  bool accepting_has_ended() const { return accepting_has_ended_.load(std::memory_order_relaxed); }

  // Called on the balancer's thread.
  void Print(const Event& event) {
    using Clock = std::chrono::steady_clock;
    constexpr auto kQuietFor = std::chrono::seconds(10);
    const Clock::time_point now = Clock::now();
    const auto kind = static_cast<size_t>(event.kind);
    if (kind >= said_.size() || said_[kind] == Clock::time_point() ||
        now - said_[kind] >= kQuietFor) {
      std::fprintf(stderr, "ringmaster-echo: %s\n", event.text.c_str());
      if (kind < said_.size()) said_[kind] = now;
    }
    if (event.kind == Event::Kind::kSourceFailed || event.kind == Event::Kind::kMasterFailed) {
      // Tied to no other data, hence relaxed; the signal makes the main thread drain and end.
      accepting_has_ended_.store(true, std::memory_order_relaxed);
      pthread_kill(main_thread_, SIGTERM);
    }
  }

 private:
  const pthread_t main_thread_ = pthread_self();
  std::array<std::chrono::steady_clock::time_point, 16> said_ = {};
  std::atomic<bool> accepting_has_ended_ = false;
};

// The signals that the main thread waits for; every thread has them blocked.
class Signals {
 public:
  // What is asked of the main thread: SIGTERM and SIGINT, SIGTTIN, SIGTTOU; `Notify` with the
  // others; and kPing when nothing has come for as long as Wait was told.
  enum class Wish : uint8_t {
    kEnd,
    kWorkerMore,
    kWorkerFewer,
    kPing,
    kFinished,          // the balancer has ended
    kSuccessorServes,   // so this server ends
    kPredecessorEnded,  // nobody else accepts any more
  };

  // To be made before any other thread.
  Signals() {
    sigemptyset(&set_);
    for (const int signal : {SIGTERM, SIGINT, SIGTTIN, SIGTTOU}) sigaddset(&set_, signal);
    for (const Wish wish : {Wish::kFinished, Wish::kSuccessorServes, Wish::kPredecessorEnded})
      sigaddset(&set_, SignalOf(wish));
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    // A reader of our output that has gone is no reason to drop connections.
    std::signal(SIGPIPE, SIG_IGN);
  }

  Wish Wait(std::optional<absl::Duration> ping_after) {
    const timespec longest = absl::ToTimespec(ping_after.value_or(absl::ZeroDuration()));
    while (true) {
      const int signal = ping_after.has_value() ? sigtimedwait(&set_, nullptr, &longest)
                                                : sigwaitinfo(&set_, nullptr);
      if (signal < 0 && errno == EAGAIN) return Wish::kPing;
      if (signal < 0) continue;
      if (signal == SIGTTIN) return Wish::kWorkerMore;
      if (signal == SIGTTOU) return Wish::kWorkerFewer;
      for (const Wish wish : {Wish::kFinished, Wish::kSuccessorServes, Wish::kPredecessorEnded}) {
        if (signal == SignalOf(wish)) return wish;
      }
      return Wish::kEnd;
    }
  }

  // From any thread: one of the last three.
  void Notify(Wish wish) { pthread_kill(main_thread_, SignalOf(wish)); }

  // From now on SIGTERM and SIGINT do what they do by default: they end the process.
  void LetEnd() {
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &ending, nullptr);
  }

 private:
  // No descriptor is spent on this: under a low limit each one is a connection less.
  static int SignalOf(Wish wish) {
    return SIGRTMIN + static_cast<int>(wish) - static_cast<int>(Wish::kFinished);
  }

  const pthread_t main_thread_ = pthread_self();
  sigset_t set_;
};

// The workers, those that have left or are about to included.
class Workers {
 public:
  Workers(Control& control, std::FILE* remarks) : control_(control), remarks_(remarks) {}

  absl::Status Add(const WorkerSetup& setup) {
    absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Start(setup);
    if (worker.ok()) staying_.push_back(*std::move(worker));
    return worker.status();
  }

  // The others pass connections on to the new one, so that all have their share.
  void AddOneMore(const WorkerSetup& setup) {
    if (const absl::Status added = Add(setup); !added.ok()) {
      std::fprintf(stderr, "ringmaster-echo: %s\n", std::string(added.message()).c_str());
      return;
    }
    std::fprintf(remarks_, "worker %u has joined\n", staying_.back()->index());
    for (const std::unique_ptr<Worker>& worker : staying_) worker->ShareOut();
    control_.Wake();
  }

  // The youngest leaves. One stays, which is the host if there is one.
  void LetOneLeave() {
    if (staying_.size() == 1) {
      std::fprintf(remarks_, "worker %u is the last one, and stays\n", staying_[0]->index());
      return;
    }
    leaving_.push_back(std::move(staying_.back()));
    staying_.pop_back();
    leaving_.back()->Leave();
    control_.Wake();
  }

  // Waits for the end of all. What they have sent back, by the workers of which `stats` tells.
  Echoed Wait(const BalancerStats& stats) {
    Echoed echoed;
    for (const std::unique_ptr<Worker>& worker : staying_) {
      worker->Wait();
      echoed.by_worker[worker->index()] = worker->bytes_echoed();
    }
    for (const std::unique_ptr<Worker>& worker : leaving_) {
      worker->Wait();
      const bool listed = std::ranges::any_of(
          stats.workers, [&](const WorkerStats& it) { return it.worker == worker->index(); });
      // Once it has left, its index may be another one's.
      const bool had_not_left = listed && !echoed.by_worker.contains(worker->index());
      uint64_t& sum = had_not_left ? echoed.by_worker[worker->index()] : echoed.departed;
      sum += worker->bytes_echoed();
    }
    return echoed;
  }

 private:
  Control& control_;
  std::FILE* const remarks_;
  std::vector<std::unique_ptr<Worker>> staying_;  // the oldest first
  std::vector<std::unique_ptr<Worker>> leaving_;  // or have left
};

// What the rest of a run needs.
struct Running {
  const Options& options;
  Signals& signals;
  Service& service;
  Control& control;
  Balancer& balancer;
  std::vector<Listener>& listeners;
  std::unique_ptr<HandOver> hand_over;  // if there is to be one

  // Waits for what is asked, and tells the service manager meanwhile that the balancer is alive.
  Signals::Wish Wait() {
    while (true) {
      const Signals::Wish wish = signals.Wait(service.ping_every());
      if (wish != Signals::Wish::kPing) return wish;
      service.Ping(balancer);
    }
  }
};

// Shuts the balancer down while it listens for a second signal. Closes the listeners before it
// drains.
ShutdownReport Drain(Running& run) {
  const absl::Status begun = run.balancer.BeginShutdown(
      {.drain = absl::Milliseconds(run.options.drain_ms),
       .on_intake_ended =
           [&] {
             const bool handed_over = run.hand_over != nullptr && run.hand_over->Stop();
             for (Listener& listener : run.listeners) {
               if (handed_over) listener.LeaveFile();
             }
             run.listeners.clear();
             // A worker that is sent its connections has no doorbell: this makes it ask its port.
             if (run.options.handoff != Handoff::kInbox) run.control.Wake();
           },
       .on_ended = [&](const ShutdownReport&) { run.signals.Notify(Signals::Wish::kFinished); }});
  begun.IgnoreError();  // fails in a forked child
  for (Signals::Wish wish; (wish = run.Wait()) != Signals::Wish::kFinished;) {
    if (wish != Signals::Wish::kEnd) continue;
    run.signals.LetEnd();
    run.balancer.BeginShutdown().IgnoreError();
  }
  return run.balancer.Shutdown(absl::ZeroDuration());
}

// A multishot accept that was armed while the predecessor had one may have missed a client for whom
// the kernel has woken the other one. What is armed anew looks.
void ArmAnew(const Options& options, std::vector<Source>& sources) {
  if (options.intake != Intake::kAccept) return;
  for (Source& source : sources) {
    source.Pause().IgnoreError();
    source.Resume().IgnoreError();
  }
}

// Becomes the generation from which a successor takes over. From here on the predecessor ends.
absl::Status ServeHandOver(Running& run, std::atomic<pid_t>& successor, TakenOver predecessor) {
  std::vector<OfferedListener> offered;
  for (const Listener& listener : run.listeners) offered.push_back(listener.Offered());
  Signals& signals = run.signals;
  absl::StatusOr<std::unique_ptr<HandOver>> served = HandOver::Serve(
      run.options.hand_over, std::move(offered),
      {.on_handed_over =
           [&signals, &successor](pid_t process) {
             successor = process;
             signals.Notify(Signals::Wish::kSuccessorServes);
           },
       .on_predecessor_ended = [&signals] { signals.Notify(Signals::Wish::kPredecessorEnded); },
       .on_failed =
           [](const absl::Status& why) {
             std::fprintf(stderr, "ringmaster-echo: %s\n", std::string(why.message()).c_str());
           }},
      std::move(predecessor));
  if (served.ok()) run.hand_over = *std::move(served);
  return served.status();
}

void SayWhatListens(const Options& options, const std::vector<Listener>& listeners,
                    pid_t predecessor, std::FILE* remarks) {
  std::printf("listening on %s\n", listeners[0].address().c_str());
  for (const Listener& listener : listeners) {
    if (listener.address() == listeners[0].address()) continue;
    std::fprintf(remarks, "and on %s\n", listener.address().c_str());
  }
  if (predecessor != 0) {
    std::fprintf(remarks, "taken over from process %d\n", static_cast<int>(predecessor));
  }
  std::fprintf(remarks,
               "%u workers, policy %s, intake %s, handoff %s, host %s, masters %u, loop %s\n"
               "try it: %s   (what you type comes back)\n"
               "Ctrl-C ends it and shows what every worker did\n",
               options.workers, options.policy.c_str(), NameOf(options.intake),
               NameOf(options.handoff), NameOf(options.host), options.masters, NameOf(options.loop),
               listeners[0].try_command().c_str());
}

absl::StatusOr<int> Run(Options options) {
  // Lines, also into a pipe: whoever started this waits for the first one.
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  std::FILE* const remarks = options.json ? stderr : stdout;
  Signals signals;
  Service service;
  EventPrinter events;
  std::atomic<pid_t> successor = 0;

  absl::StatusOr<Opened> opened = OpenListeners(options);
  if (!opened.ok()) return opened.status();
  std::vector<Listener>& listeners = opened->listeners;
  const pid_t predecessor = opened->predecessor.predecessor();
  absl::StatusOr<std::unique_ptr<Control>> control = Control::Create();
  if (!control.ok()) return control.status();

  BalancerOptions balancer_options;
  balancer_options.host = options.host;
  balancer_options.masters = options.masters;
  balancer_options.on_event = [&events](const Event& event) { events.Print(event); };
  absl::StatusOr<std::unique_ptr<Balancer>> balancer =
      Balancer::Create(std::move(balancer_options));
  if (!balancer.ok()) return balancer.status();
  std::vector<Source> sources;
  for (const Listener& listener : listeners) {
    absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(options.policy);
    if (!policy.ok()) return policy.status();
    absl::StatusOr<Source> source = (*balancer)->AddSource(
        listener.fd(),
        {.policy = *std::move(policy), .intake = options.intake, .start_workers = options.workers});
    if (!source.ok()) return source.status();
    sources.push_back(*std::move(source));
  }

  WorkerSetup setup = {
      .balancer = balancer->get(),
      .sources = sources,
      .control = control->get(),
      .loop = options.loop,
      .handoff = options.handoff,
      .multishot = std::ranges::none_of(listeners, &Listener::is_unix),
      .datagrams = listeners[0].is_datagrams(),
      .connections_max = options.connections_max,
      .on_passed_on =
          [remarks](uint32_t worker, uint32_t connections) {
            std::fprintf(remarks, "worker %u has passed on %u connections\n", worker, connections);
          },
      .on_left =
          [remarks](uint32_t worker) { std::fprintf(remarks, "worker %u has left\n", worker); }};
  Workers workers(**control, remarks);
  for (uint32_t i = 0; i < options.workers; ++i) {
    setup.hosts = options.host != Host::kThread && i == 0;
    if (const absl::Status added = workers.Add(setup); !added.ok()) {
      // First, because whoever leaves would wait for a host that has ended.
      (*balancer)->Shutdown(absl::ZeroDuration());
      (*control)->End();
      return added;
    }
  }

  Running run = {options, signals, service, **control, **balancer, listeners, nullptr};
  absl::Status failure;
  if (!options.hand_over.empty()) {
    failure = ServeHandOver(run, successor, std::move(opened->predecessor));
  }
  if (failure.ok()) {
    SayWhatListens(options, listeners, predecessor, remarks);
    service.Ready("listening on " + listeners[0].address(), predecessor != 0);
    setup.hosts = false;
    for (bool ends = false; !ends;) {
      switch (run.Wait()) {
        case Signals::Wish::kWorkerMore:
          workers.AddOneMore(setup);
          break;
        case Signals::Wish::kWorkerFewer:
          workers.LetOneLeave();
          break;
        case Signals::Wish::kPredecessorEnded:
          ArmAnew(options, sources);
          break;
        default:
          ends = true;
      }
    }
    if (successor != 0) {
      service.HandedOver(successor);
      std::fprintf(remarks, "process %d has taken over\n", static_cast<int>(successor));
    } else {
      service.Stopping();
    }
    std::fprintf(remarks,
                 "no more connections are accepted, and idle ones are closed; waiting up to %lld "
                 "ms for the others, a second signal ends that\n",
                 static_cast<long long>(options.drain_ms));
  }
  // Also without a hand-over there may be clients: the sources were watched by then.
  const ShutdownReport report = Drain(run);
  (*control)->End();
  const Echoed echoed = workers.Wait(report.stats);
  if (!failure.ok()) return failure;
  const std::string text =
      options.json ? ReportAsJson(report, echoed) : ReportAsTable(report, echoed);
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
  return events.accepting_has_ended() ? 1 : 0;
}

}  // namespace
}  // namespace ringmaster::echo

int main(int argument_count, char** arguments) {
  const ringmaster::echo::CommandLine command =
      ringmaster::echo::ParseCommandLine(argument_count, arguments);
  if (command.exit_status.has_value()) return *command.exit_status;
  const absl::StatusOr<int> status = ringmaster::echo::Run(command.options);
  if (!status.ok()) {
    std::fprintf(stderr, "ringmaster-echo: %s\n", std::string(status.status().message()).c_str());
    // What can be told from the command line alone is a matter of the command line.
    return absl::IsInvalidArgument(status.status()) ? ringmaster::echo::kWrongOptions : 1;
  }
  return *status;
}
