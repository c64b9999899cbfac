// ringmaster-echo: an echo server on libringmaster, small enough to read and whole enough to use.
//
// The main thread sets everything up, waits for signals and prints. The balancer's threads accept.
// Every worker is a thread with a loop of its own (worker.h). The order matters at both ends:
//
//   start   signals blocked -> listener -> balancer and source -> workers join -> "listening on"
//   serve   SIGTTIN -> one more worker joins, and the others pass on what they have above their
//           share; SIGTTOU -> one leaves, and passes on all that it has
//   end     first signal -> BeginShutdown: the listeners are closed as soon as nothing refers to
//           them, so that new clients are refused, or served by a successor on the same port; the
//           workers close what is idle, and go on serving until all is done or time is up;
//           second signal -> the deadline is now;
//           then -> the workers close what is open and end -> what they did is printed

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "listener.h"
#include "options.h"
#include "report.h"
#include "ringmaster/balancer.h"
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
  // To be made before any other thread.
  Signals() {
    sigemptyset(&set_);
    for (const int signal : {SIGTERM, SIGINT, SIGTTIN, SIGTTOU, finished_})
      sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    // A reader of our output that has gone is no reason to drop connections.
    std::signal(SIGPIPE, SIG_IGN);
  }

  // What a signal asks for: SIGTERM and SIGINT, `NotifyFinished`, SIGTTIN, SIGTTOU.
  enum class Wish : uint8_t { kEnd, kNothing, kWorkerMore, kWorkerFewer };
  Wish Wait() {
    int signal = 0;
    while (sigwait(&set_, &signal) != 0) {
    }
    if (signal == SIGTTIN) return Wish::kWorkerMore;
    if (signal == SIGTTOU) return Wish::kWorkerFewer;
    return signal == finished_ ? Wish::kNothing : Wish::kEnd;
  }

  // From any thread.
  void NotifyFinished() { pthread_kill(main_thread_, finished_); }

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
  const int finished_ = SIGRTMIN;
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

// Shuts the balancer down while it listens for a second signal. Closes `listeners` before it
// drains.
ShutdownReport Drain(const Options& options, Balancer& balancer, Signals& signals, Control& control,
                     std::vector<Listener>& listeners) {
  const absl::Status begun = balancer.BeginShutdown(
      {.drain = absl::Milliseconds(options.drain_ms),
       .on_intake_ended =
           [&] {
             listeners.clear();
             // A worker that is sent its connections has no doorbell: this makes it ask its port.
             if (options.handoff == Handoff::kCompletion) control.Wake();
           },
       .on_ended = [&](const ShutdownReport&) { signals.NotifyFinished(); }});
  begun.IgnoreError();  // fails in a forked child
  for (Signals::Wish wish; (wish = signals.Wait()) != Signals::Wish::kNothing;) {
    if (wish != Signals::Wish::kEnd) continue;
    signals.LetEnd();
    balancer.BeginShutdown().IgnoreError();
  }
  return balancer.Shutdown(absl::ZeroDuration());
}

absl::StatusOr<int> Run(const Options& options) {
  // Lines, also into a pipe: whoever started this waits for the first one.
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  std::FILE* const remarks = options.json ? stderr : stdout;
  Signals signals;
  EventPrinter events;

  absl::StatusOr<Listener> first = Listener::Listen(options.listen);
  if (!first.ok()) return first.status();
  std::vector<Listener> listeners;  // one for each master
  listeners.push_back(*std::move(first));
  for (uint32_t i = 1; i < options.masters; ++i) {
    absl::StatusOr<Listener> another = listeners[0].Another();
    if (!another.ok()) return another.status();
    listeners.push_back(*std::move(another));
  }
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
  for (uint32_t i = 0; i < options.masters; ++i) {
    absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(options.policy);
    if (!policy.ok()) return policy.status();
    absl::StatusOr<Source> source = (*balancer)->AddSource(
        listeners[i].fd(),
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
      .multishot = !listeners[0].is_unix(),
      .datagrams = IsDatagrams(options.listen),
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

  std::printf("listening on %s\n", listeners[0].address().c_str());
  std::fprintf(remarks,
               "%u workers, policy %s, intake %s, handoff %s, host %s, masters %u, loop %s\n"
               "try it: %s   (what you type comes back)\n"
               "Ctrl-C ends it and shows what every worker did\n",
               options.workers, options.policy.c_str(), NameOf(options.intake),
               NameOf(options.handoff), NameOf(options.host), options.masters, NameOf(options.loop),
               listeners[0].try_command().c_str());
  setup.hosts = false;
  for (Signals::Wish wish; (wish = signals.Wait()) != Signals::Wish::kEnd;) {
    if (wish == Signals::Wish::kWorkerMore) workers.AddOneMore(setup);
    if (wish == Signals::Wish::kWorkerFewer) workers.LetOneLeave();
  }

  std::fprintf(
      remarks,
      "no more connections are accepted, and idle ones are closed; waiting up to %lld ms for the "
      "others, a second signal ends that\n",
      static_cast<long long>(options.drain_ms));
  const ShutdownReport report = Drain(options, **balancer, signals, **control, listeners);
  (*control)->End();
  const Echoed echoed = workers.Wait(report.stats);
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
