#include "attack/world.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "attack/calls.h"
#include "attack/checks.h"
#include "attack/served.h"

namespace ringmaster::attack {
namespace {

// Sanitizers need descriptors. Without any, the check of virtual calls takes every object for a
// wrong one, and races cannot be told from those that are suppressed.
#ifdef RINGMASTER_TEST_KEEPS_LIMITS
constexpr bool kLowersLimits = false;
#else
constexpr bool kLowersLimits = true;
#endif

}  // namespace

Config Config::Draw(Random& random) {
  Config config;
  config.host = random.Of({Host::kThread, Host::kThread, Host::kLoop, Host::kRing});
  if (config.host == Host::kThread && random.OneIn(3)) config.masters = random.Between(2, 4);
  config.workers = random.Between(1, 4);
  config.setters = random.Between(1, 3);
  config.duration_ms = random.Between(30, 350);
  if (random.OneIn(8)) config.backlog = static_cast<int>(random.Between(1, 8));
  config.hostile_policies = random.OneIn(3);
  config.lowers_limits = random.OneIn(3) && kLowersLimits;
  config.forks = random.OneIn(4);
  config.hosts_end = config.host != Host::kThread && random.OneIn(2);
  config.spoils_files = random.OneIn(4);
  config.ends_early = random.OneIn(6);
  config.checks_liveness = !random.OneIn(4);
  config.end = random.Of({End::kShutdown, End::kTwoShutdowns, End::kBeginShutdown, End::kDestroyed,
                          End::kHostGoneDestroyed});
  if (random.OneIn(6)) config.hogs = 2;
  config.aims = config.host == Host::kThread && random.OneIn(2);
  if (config.aims) config.duration_ms += 100;
  return config;
}

std::string Config::Text() const {
  static const char* const kHosts[] = {"thread", "loop", "ring"};
  static const char* const kEnds[] = {"shutdown", "two-shutdowns", "begin-shutdown", "destroyed",
                                      "host-gone-destroyed"};
  char text[256];
  std::snprintf(
      text, sizeof(text),
      "host=%s masters=%u workers=%u setters=%u ms=%u backlog=%d hogs=%u%s%s%s%s%s%s%s%s "
      "end=%s",
      kHosts[static_cast<int>(host)], masters, workers, setters, duration_ms, backlog, hogs,
      aims ? " aims" : "", hostile_policies ? " hostile" : "", lowers_limits ? " limits" : "",
      forks ? " forks" : "", hosts_end ? " hosts-end" : "", spoils_files ? " spoils" : "",
      ends_early ? " early" : "", checks_liveness ? " liveness" : "", kEnds[static_cast<int>(end)]);
  return text;
}

int DrawError(Random& draws, const SourceRecord& record) {
  const int error = draws.Of({0, 0, 0, EAGAIN, -EAGAIN, EMFILE, -ENFILE, ENOBUFS, ENOMEM});
  // That there is nothing, of a Unix listener whose backlog is full, ends everything. Nobody else
  // can come, and the kernel does not tell how many wait.
  return record.kind == FileKind::kUnix && (error == EAGAIN || error == -EAGAIN) ? 0 : error;
}

BalancerUse::BalancerUse(World& world)
    : lock_(world.balancer_lock), balancer_(world.balancer.get()) {}

World::World(uint64_t the_seed)
    : seed(the_seed),
      random(the_seed),
      config(Config::Draw(random)),
      event_random_(the_seed, 2000) {}

void World::Run() {
  Note("%s", config.Text().c_str());
  if (!CreateBalancer()) return;
  for (int i = 0; i < 3 && config.aims; ++i) {
    Actor actor = {.world = *this, .random = Random(seed, 3000 + static_cast<uint64_t>(i))};
    AddSourceOf(actor);
  }
  std::vector<std::thread> threads;
  std::thread host;
  if (config.host != Host::kThread) host = std::thread([this] { RunHost(*this); });
  std::vector<std::thread> workers;
  for (uint32_t i = 0; i < config.workers; ++i)
    workers.emplace_back([this, i] { RunWorker(*this, i); });
  std::vector<std::thread> setters;
  for (uint32_t i = 0; i < config.setters; ++i)
    setters.emplace_back([this, i] { RunSetter(*this, i); });
  if (config.lowers_limits) setters.emplace_back([this] { RunLimits(*this); });
  for (uint32_t i = 0; i < config.hogs; ++i) setters.emplace_back([this] { RunHog(*this); });
  clients.Begin(seed);

  std::this_thread::sleep_for(std::chrono::milliseconds(config.duration_ms));
  stop_setters.store(true);
  for (std::thread& thread : setters) thread.join();
  clients.Stop();
  calm.store(true);
  Note("the attack is over");
  WaitFor(20, "a worker or the host does not come to rest", [this] {
    return calm_workers == config.workers && (config.host == Host::kThread || calm_host);
  });
  if (config.checks_liveness && !ending && !master_failed) MendAndCheckLiveness();

  EndBalancer();
  stop_workers.store(true);
  for (std::thread& thread : workers) thread.join();
  stop_host.store(true);
  if (host.joinable()) host.join();
  {
    // With a host that has ended, or when nobody destroyed it on the host's thread.
    const std::lock_guard lock(balancer_lock);
    if (balancer != nullptr) {
      Call call("~Balancer");
      for_callbacks.store(nullptr);
      balancer.reset();
      call.Returns("done");
    }
  }
  CheckDue();
  FinishAll();
  {
    const std::lock_guard lock(ports_mutex_);
    ports_.clear();
  }
  for (const auto& record : Sources()) record->Close();
  clients.CheckAllHaveEnded();
}

bool World::CreateBalancer() {
  for (bool refused = false;;) {
    Call call("Balancer::Create");
    absl::StatusOr<std::unique_ptr<Balancer>> created =
        Balancer::Create(DrawBalancerOptions(*this, random, refused));
    if (refused) {
      ExpectError(call, created.status(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    if (!Expect(call, created.status(), {})) return false;
    balancer = *std::move(created);
    for_callbacks.store(balancer.get());
    return true;
  }
}

// --- Sources and ports.

std::shared_ptr<SourceRecord> World::NewRecord() {
  auto record = std::make_shared<SourceRecord>();
  record->id = next_source_.fetch_add(1);
  return record;
}

std::shared_ptr<SourceRecord> World::AnySource(Random& draws) {
  const std::lock_guard lock(sources_mutex_);
  if (sources_.empty()) return nullptr;
  // Mostly one that has not been removed, as far as there are any.
  for (int i = 0; i < 4; ++i) {
    auto record = sources_[draws.Below(sources_.size())];
    if (i == 3 || draws.OneIn(10) || !record->removed) return record;
  }
  return nullptr;
}

std::shared_ptr<SourceRecord> World::SourceById(uint32_t id) {
  const std::lock_guard lock(sources_mutex_);
  for (const auto& record : sources_)
    if (record->id == id) return record;
  return nullptr;
}

std::vector<std::shared_ptr<SourceRecord>> World::Sources() {
  const std::lock_guard lock(sources_mutex_);
  return sources_;
}

size_t World::CountSources() {
  const std::lock_guard lock(sources_mutex_);
  return static_cast<size_t>(std::count_if(sources_.begin(), sources_.end(),
                                           [](const auto& record) { return !record->removed; }));
}

void World::Publish(std::shared_ptr<SourceRecord> record) {
  if (IsListener(record->kind)) clients.Add(record->address);
  const std::lock_guard lock(sources_mutex_);
  sources_.push_back(std::move(record));
}

void World::Publish(std::shared_ptr<PortBox> box) {
  const std::lock_guard lock(ports_mutex_);
  ports_.push_back(std::move(box));
}

void World::Forget(const PortBox& box) {
  const std::lock_guard lock(ports_mutex_);
  std::erase_if(ports_, [&](const auto& other) { return other.get() == &box; });
}

std::shared_ptr<PortBox> World::AnyPort(Random& draws) {
  const std::lock_guard lock(ports_mutex_);
  return ports_.empty() ? nullptr : ports_[draws.Below(ports_.size())];
}

std::shared_ptr<SourceRecord> World::SourceOf(uint64_t token) {
  auto record = (token & kHandedBit) != 0 ? SourceById(SourceOfToken(token)) : nullptr;
  if (record == nullptr)
    Fail("a token that nobody has joined with: %llx", static_cast<unsigned long long>(token));
  return record;
}

// --- What was put aside.

void World::FinishOne(Random& draws) {
  Lease lease;
  Connection connection;
  std::vector<Ticket> ticket;
  {
    const std::lock_guard lock(aside_mutex_);
    const auto take = [&draws](auto& all, auto keep) {
      if (all.empty()) return;
      std::swap(all[draws.Below(all.size())], all.back());
      keep(std::move(all.back()));
      all.pop_back();
    };
    take(leases_, [&](Lease taken) { lease = std::move(taken); });
    take(connections_, [&](Connection taken) { connection = std::move(taken); });
    take(tickets_, [&](Ticket taken) { ticket.push_back(std::move(taken)); });
  }
  if (connection.fd() >= 0) Answer(std::move(connection));
  if (!ticket.empty()) Redeem(draws, std::move(ticket.front()));
}

void World::PassOneOn(Random& draws) {
  Connection connection;
  {
    const std::lock_guard lock(aside_mutex_);
    if (connections_.empty()) return;
    std::swap(connections_[draws.Below(connections_.size())], connections_.back());
    connection = std::move(connections_.back());
    connections_.pop_back();
  }
  auto record = SourceOf(connection.token());
  const auto other = AnySource(draws);
  // Its socket stays as it is.
  if (other != nullptr && other->nonblocking == record->nonblocking &&
      other->close_on_exec == record->close_on_exec && draws.OneIn(3)) {
    record = other;
  }
  PassOn(*record, std::move(connection));
}

void World::FinishAll() {
  std::vector<Lease> leases;
  std::vector<Connection> connections;
  std::vector<Ticket> tickets;
  std::vector<Port> ports;
  {
    const std::lock_guard lock(aside_mutex_);
    leases.swap(leases_);
    connections.swap(connections_);
    tickets.swap(tickets_);
    ports.swap(spare_ports_);
  }
  for (Connection& connection : connections) Answer(std::move(connection));
  for (Ticket& ticket : tickets) ticket.Again();  // what it stands for is still there
}

void World::PutAside(Port port) {
  const std::lock_guard lock(aside_mutex_);
  spare_ports_.push_back(std::move(port));
}

Port World::TakeSparePort(Random& draws) {
  const std::lock_guard lock(aside_mutex_);
  if (spare_ports_.empty()) return Port();
  std::swap(spare_ports_[draws.Below(spare_ports_.size())], spare_ports_.back());
  Port port = std::move(spare_ports_.back());
  spare_ports_.pop_back();
  return port;
}

// --- Serving.

void World::Serve(Random& draws, Connection connection) {
  const auto record = SourceOf(connection.token());
  if (!record->may_have_started()) Fail("source %u has not waited for its workers", record->id);
  CheckFlags(connection.fd(), record->nonblocking, record->close_on_exec);
  Hold(connection.fd());
  switch (calm ? 9 : draws.Below(10)) {
    case 0: {
      const std::lock_guard lock(aside_mutex_);
      connections_.push_back(std::move(connection));
      return;
    }
    case 1: {  // the descriptor and the lease apart, the lease later
      const int fd = connection.TakeFd();
      Lease lease = connection.TakeLease();
      if (!lease.held()) Fail("a connection without a lease");
      AnswerAndClose(fd);
      const std::lock_guard lock(aside_mutex_);
      leases_.push_back(std::move(lease));
      return;
    }
    case 2:  // without an answer
      LetGo(connection.fd());
      return;
    case 3:
      return PassOn(*record, std::move(connection));
    default:
      Answer(std::move(connection));
  }
}

// Somebody else answers, unless nobody else can have it.
void World::PassOn(SourceRecord& record, Connection connection) {
  const int fd = connection.fd();
  LetGo(fd);
  record.passed_to.store(true);
  Call call("source %u PassOn(fd %d)", record.id, fd);
  if (Expect(call, record.handle.PassOn(std::move(connection), {.request_waits = fd % 2 == 0}),
             {absl::StatusCode::kFailedPrecondition, absl::StatusCode::kInvalidArgument})) {
    if (record.intake == Intake::kReadiness) Fail("source %u deals tickets", record.id);
    return;
  }
  // NOLINTNEXTLINE(bugprone-use-after-move): it was not moved from
  if (connection.fd() != fd) Fail("a connection is lost that was not passed on");
  Hold(fd);
  Answer(std::move(connection));
}

void World::Redeem(Random& draws, Ticket ticket) {
  const auto record = SourceOf(ticket.token());
  if (!record->may_have_started()) Fail("source %u has not waited for its workers", record->id);
  if (!calm && draws.OneIn(12)) {
    const std::lock_guard lock(aside_mutex_);
    tickets_.push_back(std::move(ticket));
    return;
  }
  if (!calm && draws.OneIn(12)) {
    ticket.Again(DrawError(draws, *record));
    return;
  }
  if (IsListener(record->kind)) {
    for (uint32_t i = calm ? 1000 : draws.Between(1, 4); i > 0; --i) {
      Connection connection = ticket.Accept();
      if (connection.fd() < 0) return;
      Serve(draws, std::move(connection));
    }
    ticket.Again();
    return;
  }
  const auto file = record->file();  // of a removed source it may be closed
  if (file == nullptr || record->removed) return;
  uint64_t word[8];
  while (read(file->fd(), word, sizeof(word)) > 0) {
  }
}

void World::ServeHandedOver(Random& draws, Port* port, const io_uring_cqe& cqe) {
  const auto record = SourceOf(cqe.user_data);
  if (!record->may_have_started()) Fail("source %u has not waited for its workers", record->id);
  if (cqe.flags != 0) Fail("a connection was handed over with flags %x", cqe.flags);
  if (record->intake != Intake::kReadiness) {
    if (cqe.res < 0) Fail("handed over: %s", strerror(-cqe.res));
    Connection connection;
    if (port != nullptr && !draws.OneIn(4)) {
      Serve(draws, port->Adopt(cqe.res, cqe.user_data));
    } else {
      Hold(cqe.res);
      AnswerAndClose(cqe.res);
    }
    return;
  }
  const auto file = record->file();
  if (file == nullptr) return;
  if (!IsListener(record->kind)) {
    uint64_t word[8];
    while (read(file->fd(), word, sizeof(word)) > 0) {
    }
    return;
  }
  int error = 0;
  for (uint32_t i = calm ? 1000 : draws.Between(1, 4); i > 0 && error == 0; --i) {
    const int fd = accept4(file->fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    error = fd < 0 ? errno : 0;
    if (fd < 0) break;
    Hold(fd);
    AnswerAndClose(fd);
  }
  if (error == ECONNABORTED) error = 0;
  Call call("source %u Again(%d)", record->id, error);
  Expect(call, record->handle.Again(error), {absl::StatusCode::kFailedPrecondition});
}

// --- Shutdowns and events.

ShutdownOptions World::DrawShutdown(Random& draws, absl::Duration drain_max) {
  auto due = std::make_shared<Due>();
  ShutdownOptions options;
  options.drain = draws.OneIn(3) ? absl::ZeroDuration() : drain_max / draws.Between(1, 4);
  due->wants_intake_ended = draws.OneIn(2);
  due->wants_ended = draws.OneIn(2);
  if (due->wants_intake_ended)
    options.on_intake_ended = [this, due] {
      Note("on_intake_ended");
      if (due->ended != 0) Fail("on_ended before on_intake_ended");
      due->intake_ended.fetch_add(1);
      for (const auto& record : Sources())
        if (IsListener(record->kind) && !record->accepted_by_workers) record->Close();
    };
  if (due->wants_ended)
    options.on_ended = [due](const ShutdownReport& report) {
      Note("on_ended");
      CheckReport(report, "on_ended");
      due->ended.fetch_add(1);
    };
  const std::lock_guard lock(due_mutex_);
  due_.push_back(std::move(due));
  return options;
}

void World::CheckDue() {
  const std::lock_guard lock(due_mutex_);
  for (const auto& due : due_) {
    if (due->intake_ended != (due->wants_intake_ended ? 1 : 0))
      Fail("on_intake_ended was called %d times", due->intake_ended.load());
    if (due->ended != (due->wants_ended ? 1 : 0))
      Fail("on_ended was called %d times", due->ended.load());
  }
}

void World::OnEvent(const Event& event) {
  if (in_event_.exchange(true)) Fail("two events at once");
  Note("event %d: source %u, worker %u: %s", static_cast<int>(event.kind), event.source,
       event.worker, event.text.c_str());
  if (event.text.empty()) Fail("an event without a text: %d", static_cast<int>(event.kind));
  if (event.kind == Event::Kind::kMasterFailed) master_failed.store(true);
  if (event.kind == Event::Kind::kSourceFailed && !config.spoils_files && !ending)
    Fail("a source has failed: %s", event.text.c_str());
  Balancer* const own = for_callbacks.load();
  if (own != nullptr) {
    switch (event_random_.Below(8)) {
      case 0: {
        Call call("Stats, in an event");
        const BalancerStats stats = own->Stats();
        if (config.masters == 1) {
          call.Returns("%s", stats.status.ToString().c_str());
          CheckStats(stats, "in an event");
        } else {
          ExpectError(call, stats.status, absl::StatusCode::kFailedPrecondition);
        }
        break;
      }
      case 1: {
        Call call("Shutdown, in an event");
        ExpectError(call, own->Shutdown(absl::ZeroDuration()).status,
                    absl::StatusCode::kFailedPrecondition);
        break;
      }
      case 2: {
        Port port = TakeSparePort(event_random_);
        Call call("Leave of worker %u, in an event", port.worker());
        port.Leave();
        call.Returns("%d", port.joined());
        break;
      }
      case 3: {
        const auto record = AnySource(event_random_);
        if (record == nullptr) break;
        Call call("source %u Pause, in an event", record->id);
        ExpectError(call, record->handle.Pause(), absl::StatusCode::kFailedPrecondition);
        break;
      }
      case 4: {
        Call call("AddWorker, in an event");
        const absl::Status status = own->AddWorker({.ring_fd = 0}).status();
        Expect(call, status,
               {absl::StatusCode::kFailedPrecondition, absl::StatusCode::kInvalidArgument});
        if (status.ok()) Fail("a worker was added in an event");
        break;
      }
      case 5:
        if (config.ends_early && !calm && event_random_.OneIn(4)) {
          ending.store(true);
          Call call("BeginShutdown, in an event");
          Expect(call, own->BeginShutdown(), {});
        }
        break;
      case 6:
        (void)own->Ended();
        break;
      default:
        break;
    }
  }
  in_event_.store(false);
}

}  // namespace ringmaster::attack
