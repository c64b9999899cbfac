#include "attack/calls.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>
#include <utility>

#include "attack/checks.h"

namespace ringmaster::attack {
namespace {

constexpr auto kEnded = absl::StatusCode::kFailedPrecondition;
constexpr auto kWrong = absl::StatusCode::kInvalidArgument;
constexpr auto kTwice = absl::StatusCode::kAlreadyExists;
constexpr auto kNoMore = absl::StatusCode::kResourceExhausted;
constexpr auto kAbsent = absl::StatusCode::kNotFound;

// --- Sources.

// Such a policy cannot decide about tickets.
bool NeedsFacts(const Policy* policy) {
  return policy != nullptr && (policy->facts().incoming_cpu || policy->facts().peer);
}

SourceOptions DrawSourceOptions(World& world, Random& random, SourceRecord& record) {
  SourceOptions options;
  options.policy = DrawPolicy(world, random);
  if (random.OneIn(3)) options.master = static_cast<int>(random.Below(world.config.masters));
  options.intake = IsListener(record.kind) ? random.Of({Intake::kPollAccept, Intake::kPollAccept,
                                                        Intake::kAccept, Intake::kReadiness})
                                           : Intake::kReadiness;
  if (world.config.aims && record.kind == FileKind::kTcp && !random.OneIn(6))
    options.intake = Intake::kPollAccept;
  options.hold = random.Of({1u, 4u, 128u, 1048576u});
  if (random.OneIn(4)) options.capacity = random.Between(1, 10);
  const bool accepts = options.intake != Intake::kReadiness;
  if (accepts && random.OneIn(6)) options.age_max = absl::Milliseconds(random.Between(1, 50));
  if (accepts && random.OneIn(12)) options.age_max = absl::Hours(24 * 365 * 250);
  options.recall = !random.OneIn(4);
  if (random.OneIn(4)) options.start_workers = random.Between(1, 5);
  options.permits = !random.OneIn(world.config.aims ? 12 : 4);
  options.nonblocking = !random.OneIn(4);
  options.close_on_exec = !random.OneIn(4);
  if (!accepts)
    while (NeedsFacts(options.policy.get())) options.policy = DrawPolicy(world, random);
  record.intake = options.intake;
  record.nonblocking = options.nonblocking;
  record.close_on_exec = options.close_on_exec;
  record.limited = options.capacity != UINT32_MAX;
  record.recall = options.recall;
  record.start_workers = options.start_workers;
  record.age_limited = options.age_max < absl::Seconds(60);
  record.accepted_by_workers = random.OneIn(2);
  return options;
}

void MakeWrong(Random& random, SourceRecord& record, SourceOptions& options) {
  switch (random.Below(6)) {
    case 0:
      options.intake = Intake::kAccept;
      options.hold = random.Of({0u, 1048577u, UINT32_MAX});
      if (!IsListener(record.kind)) options.capacity = 0;
      break;
    case 1:
      options.capacity = 0;
      break;
    case 2:
      options.age_max =
          random.Of({absl::ZeroDuration(), absl::Microseconds(10), -absl::InfiniteDuration()});
      break;
    case 3:
      options.master = random.Of({-2, 16, INT32_MAX});
      break;
    case 4:
      options.start_workers = 0;
      break;
    default:
      if (IsListener(record.kind)) {
        options.capacity = 0;
      } else {
        options.intake = Intake::kPollAccept;  // of what is no listener
      }
  }
}

void AddSource(Actor& actor) {
  World& world = actor.world;
  Random& random = actor.random;
  const BalancerUse balancer(world);
  if (!balancer || (world.config.aims && world.CountSources() >= 4 && !random.OneIn(16))) return;
  const auto record = world.NewRecord();
  record->kind =
      random.Of({FileKind::kTcp, FileKind::kTcp, FileKind::kTcp, FileKind::kUnix, FileKind::kUnix,
                 FileKind::kEventfd, FileKind::kPipe, FileKind::kDatagrams});
  if (world.config.aims && !random.OneIn(4)) record->kind = FileKind::kTcp;
  record->watched = OpenWatched(record->kind, world.config.backlog);
  if (record->watched.file == nullptr) return;
  record->address = record->watched.address;
  const int fd = record->watched.file->fd();
  SourceOptions options = DrawSourceOptions(world, random, *record);
  const bool wrong = random.OneIn(6);
  if (wrong) MakeWrong(random, *record, options);
  Call call(
      "source %u AddSource(fd %d, kind %d, intake %d, capacity %u, hold %u, %d ms, start %u%s)",
      record->id, fd, static_cast<int>(record->kind), static_cast<int>(options.intake),
      options.capacity, options.hold, record->age_limited, options.start_workers,
      options.recall ? "" : ", no recall");
  absl::StatusOr<Source> added = balancer->AddSource(fd, std::move(options));
  if (wrong) {
    Expect(call, added.status(), {kWrong, kEnded, kNoMore});
    if (added.ok()) Fail("wrong options were taken: %s", call.line());
    return;
  }
  if (!Expect(call, added.status(), {kEnded, kNoMore})) return;
  record->handle = *added;
  if (random.OneIn(4)) {
    Call again("AddSource of source %u once more", record->id);
    const auto twice = balancer->AddSource(fd, {.intake = record->intake});
    Expect(again, twice.status(), {kTwice, kEnded, kNoMore});
    if (twice.ok()) Fail("a descriptor was added twice");
    const int copy = dup(fd);
    if (copy >= 0) {
      Call other("AddSource of a duplicate of source %u", record->id);
      const auto thrice = balancer->AddSource(copy, {.intake = record->intake});
      Expect(other, thrice.status(), {kTwice, kEnded, kNoMore});
      if (thrice.ok()) Fail("a socket was added twice");
      close(copy);
    }
  }
  world.Publish(record);
}

void AddWrongSource(Actor& actor) {
  const BalancerUse balancer(actor.world);
  if (!balancer) return;
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  const int plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);  // does not listen
  const int fd = actor.random.Of({-1, 1 << 20, file, plain});
  SourceOptions options;
  if (fd == file || actor.random.OneIn(2)) options.intake = Intake::kReadiness;
  if (fd == plain) options.intake = Intake::kPollAccept;
  {
    Call call("AddSource(fd %d), which is wrong", fd);
    const auto added = balancer->AddSource(fd, std::move(options));
    Expect(call, added.status(), {kWrong, kEnded, kNoMore});
    if (added.ok()) Fail("what cannot be watched was taken");
  }
  if (file >= 0) close(file);
  if (plain >= 0) close(plain);
}

void Remove(Actor& actor) {
  if (actor.world.config.aims && !actor.random.OneIn(4)) return;
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  record->removed.store(true);
  Call call("source %u Remove", record->id);
  if (Expect(call, record->handle.Remove(), {kEnded})) {
    ExpectError(call, record->handle.Pause(), kEnded);
    record->Close();
  }
}

void Pause(Actor& actor) {
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  Call call("source %u Pause", record->id);
  Expect(call, record->handle.Pause(), {kEnded});
}

void Resume(Actor& actor) {
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  record->resumed.store(true);
  Call call("source %u Resume", record->id);
  Expect(call, record->handle.Resume(), {kEnded});
}

void SetPolicy(Actor& actor) {
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  std::unique_ptr<Policy> policy = DrawPolicy(actor.world, actor.random);
  const bool wrong =
      policy == nullptr || (record->intake == Intake::kReadiness && NeedsFacts(policy.get()));
  Call call("source %u SetPolicy(%s)", record->id,
            policy == nullptr ? "null" : policy->name().c_str());
  const absl::Status status = record->handle.SetPolicy(std::move(policy));
  Expect(call, status, {kEnded, kWrong});
  if (wrong == status.ok()) {
    if (wrong) Fail("a wrong policy was taken");
  } else if (!wrong && status.code() == kWrong) {
    Fail("a policy was refused: %s", status.ToString().c_str());
  }
}

void Again(Actor& actor) {
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  const int error = actor.random.OneIn(3) ? actor.random.Of({-1, INT32_MAX, INT32_MIN})
                                          : DrawError(actor.random, *record);
  Call call("source %u Again(%d)", record->id, error);
  Expect(call, record->handle.Again(error), {kEnded, kWrong});
}

void ExciteOne(Actor& actor) {
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  const Watched watched = record->all();
  if (!record->removed) Excite(watched);
}

void EmptyHandle(Actor& actor) {
  Source nothing;
  Port none;
  Call call("calls of empty handles");
  ExpectError(call, nothing.Pause(), kEnded);
  ExpectError(call, nothing.Remove(), kEnded);
  ExpectError(call, nothing.Again(), kEnded);
  Expect(call, nothing.Join(none), {kEnded, kWrong});
  if (none.Claim([](Connection) {})) Fail("an empty port has offers left");
  none.Took(actor.random.Below(5));
  none.Leave();
  if (none.joined()) Fail("an empty port has joined");
  if (!none.draining() || !none.ended()) Fail("an empty port waits for a balancer");
  const auto record = actor.world.AnySource(actor.random);
  if (record == nullptr) return;
  const absl::Status status = record->handle.Join(none);
  Expect(call, status, {kEnded, kWrong});
  if (status.ok()) Fail("an empty port has joined a source");
}

// The number of a source may be that of another listener then. Nobody serves that one's clients.
// (Of tickets the workers say so by themselves.)
void CloseAndUseAgain(Actor& actor, SourceRecord& record, std::shared_ptr<File> file) {
  Note("source %u is closed without being removed", record.id);
  record.spoilt.store(true);
  const int fd = file->fd();
  file.reset();
  record.Close();
  if (record.intake != Intake::kPollAccept) return;
  const Watched other = OpenWatched(FileKind::kTcp, 16);
  if (other.file == nullptr || other.file->fd() != fd) return;
  Note("descriptor %d is another listener now", fd);
  for (uint32_t i = actor.random.Between(1, 3); i > 0; --i)
    if (!NobodyElseAccepts(fd, other.address, actor.random.Between(1, 8)))
      Fail("source %u accepts from a listener that is not its own", record.id);
}

// Under the balancer: what the headers say that it survives.
void Spoil(Actor& actor) {
  if (!actor.world.config.spoils_files) return;
  const auto record = actor.world.AnySource(actor.random);
  auto file = record == nullptr ? nullptr : record->file();
  if (file == nullptr || record->removed || !IsListener(record->kind)) return;
  const bool may_block = record->intake != Intake::kReadiness || !record->accepted_by_workers;
  switch (actor.random.Below(3)) {
    case 0:
      if (!may_block) return;
      Note("source %u becomes blocking", record->id);
      fcntl(file->fd(), F_SETFL, fcntl(file->fd(), F_GETFL) & ~O_NONBLOCK);
      break;
    case 1:
      Note("source %u is shut down", record->id);
      record->spoilt.store(true);
      shutdown(file->fd(), SHUT_RDWR);
      break;
    default:
      CloseAndUseAgain(actor, *record, std::move(file));
  }
}

// --- Ports of others.

// Calls it with a port that stays meanwhile, and with a source, if there are both.
template <typename OnOther>
void WithOther(Actor& actor, OnOther call) {
  const auto box = actor.world.AnyPort(actor.random);
  const auto record = actor.world.AnySource(actor.random);
  if (box == nullptr || record == nullptr) return;
  const std::shared_lock stays(box->stays, std::try_to_lock);
  if (stays.owns_lock()) call(*box, *record);
}

void JoinOther(Actor& actor) { WithOther(actor, Join); }
void LeaveOther(Actor& actor) { WithOther(actor, LeaveSource); }

// A port that joins and never claims: what it is offered must be recalled.
void AddSpare(Actor& actor) {
  const BalancerUse balancer(actor.world);
  if (!balancer) return;
  absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
  if (!mailbox.ok()) return;
  Call call("AddWorker of one that never claims");
  absl::StatusOr<Port> port = balancer->AddWorker(*mailbox, {.capacity = 3});
  if (!Expect(call, port.status(), {kEnded, kNoMore})) return;
  Call twice("AddWorker of a mailbox in use");
  const auto second = balancer->AddWorker(*mailbox);
  ExpectError(twice, second.status(), kEnded);
  // It says that it waits, and never comes.
  if (actor.world.config.aims) port->BeforeWait();
  const auto record = actor.world.AnySource(actor.random);
  if (record != nullptr && record->recall) {
    record->joins.fetch_add(1);
    Call join("source %u Join(worker %u), which never claims", record->id, port->worker());
    Expect(join, record->handle.Join(*port, {.token = TokenOf(PortBox(), record->id)}), {kEnded});
  }
  if (actor.random.OneIn(2)) *mailbox = Mailbox();
  actor.world.PutAside(*std::move(port));
}

void DropSpare(Actor& actor) {
  Port port = actor.world.TakeSparePort(actor.random);
  Call call("worker %u is destroyed", port.worker());
}

// --- The balancer.

void Statistics(Actor& actor) { LookAtStats(actor.world, "Stats"); }

void LookWhetherEnded(Actor& actor) {
  const BalancerUse balancer(actor.world);
  if (!balancer) return;
  const auto report = balancer->Ended();
  if (report.has_value()) CheckReport(*report, "Ended");
  if (report.has_value() && !actor.world.ending && !actor.world.master_failed)
    Fail("the balancer has ended, but nobody wanted it to");
}

void EndEarly(Actor& actor) {
  if (!actor.world.config.ends_early || !actor.random.OneIn(10)) return;
  const BalancerUse balancer(actor.world);
  if (!balancer) return;
  actor.world.ending.store(true);
  ShutdownOptions options = actor.world.DrawShutdown(actor.random, absl::Milliseconds(20));
  if (actor.random.OneIn(2)) {
    Call call("BeginShutdown");
    Expect(call, balancer->BeginShutdown(std::move(options)), {});
  } else {
    Call call("Shutdown");
    const ShutdownReport report = balancer->Shutdown(std::move(options));
    Expect(call, report.status, {});
    CheckReport(report, "Shutdown");
  }
}

// On a thread that is not the host, while another one is.
void HostFromElsewhere(Actor& actor) {
  World& world = actor.world;
  const std::shared_lock relies(world.hosting_lock, std::try_to_lock);
  if (!relies.owns_lock() || actor.is_host) return;
  const BalancerUse balancer(world);
  if (!balancer) return;
  if (world.config.host == Host::kThread) {
    Call call("RunOnce of a balancer with a thread");
    ExpectError(call, balancer->RunOnce(), kEnded);
    Call lend("Lend to a balancer with a thread");
    ExpectError(lend, balancer->Lend({}), kEnded);
  } else if (world.hosting) {
    Call call("RunOnce on the wrong thread");
    ExpectError(call, balancer->RunOnce(), kEnded);
    if (world.config.host == Host::kRing) {
      Call lend("Lend while a loan is in use");
      const absl::Status lent = balancer->Lend({});
      Expect(lend, lent, {kEnded, kWrong});
      if (lent.ok()) Fail("nothing was lent");
    }
  }
  if ((balancer->fd() >= 0) != (world.config.host == Host::kLoop)) Fail("fd() is wrong");
}

void AnotherBalancer(Actor& actor) {
  World& world = actor.world;
  bool refused = false;
  BalancerOptions options = DrawBalancerOptions(world, actor.random, refused);
  options.on_event = nullptr;
  options.capacity = refused ? options.capacity : 5;
  Call call("Balancer::Create of another one");
  auto created = Balancer::Create(std::move(options));
  if (refused) return ExpectError(call, created.status(), kWrong);
  if (!Expect(call, created.status(), {kNoMore})) return;
  const auto box = world.AnyPort(actor.random);
  if (box == nullptr) return;
  const auto watched = OpenWatched(FileKind::kEventfd, 0);
  if (watched.file == nullptr) return;
  auto source = (*created)->AddSource(watched.file->fd(), {.intake = Intake::kReadiness});
  const std::shared_lock stays(box->stays, std::try_to_lock);
  if (!source.ok() || !stays.owns_lock()) return;
  Call join("Join of a port of another balancer");
  const absl::Status joined = source->Join(box->port);
  Expect(join, joined, {kWrong, kEnded});
  if (joined.ok()) Fail("a port of another balancer has joined");
  created->reset();
  ExpectError(join, source->Pause(), kEnded);
}

void MakeMailboxes(Actor& actor) {
  Call call("Mailbox::Create");
  absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
  if (!Expect(call, mailbox.status(), {kNoMore})) return;
  Mailbox moved = *std::move(mailbox);
  if (moved.fd() < 0 || mailbox->fd() >= 0) Fail("a mailbox was not moved");
  const BalancerUse balancer(actor.world);
  if (!balancer) return;
  Call add("AddWorker of an empty mailbox");
  const auto port = balancer->AddWorker(*mailbox);
  Expect(add, port.status(), {kWrong, kEnded});
  if (port.ok()) Fail("an empty mailbox was taken");
}

void Fork(Actor& actor) {
  if (actor.world.config.forks && actor.random.OneIn(4)) ForkAndCheck(actor, nullptr);
}

void Finish(Actor& actor) { actor.world.FinishOne(actor.random); }

void AddWrongWorker(Actor& actor) { AddWrongPort(actor, nullptr); }

struct Choice {
  uint32_t weight;
  void (*call)(Actor&);
};

constexpr auto kChoices = std::to_array<Choice>({
    {6, AddSource},       {1, AddWrongSource},
    {3, Remove},          {2, Pause},
    {6, Resume},          {3, SetPolicy},
    {2, Again},           {6, ExciteOne},
    {1, EmptyHandle},     {1, Spoil},
    {8, JoinOther},       {2, LeaveOther},
    {1, AddSpare},        {2, DropSpare},
    {4, Statistics},      {1, LookWhetherEnded},
    {1, EndEarly},        {1, HostFromElsewhere},
    {1, MakeMailboxes},   {1, Fork},
    {8, Finish},          {1, AddWrongWorker},
    {1, AnotherBalancer},
});

}  // namespace

void AddSourceOf(Actor& actor) { AddSource(actor); }

void Join(PortBox& box, SourceRecord& record) {
  if (record.intake == Intake::kReadiness && IsListener(record.kind) &&
      !record.accepted_by_workers && box.taker())
    return;  // the listener may become blocking
  record.joins.fetch_add(1);
  Call call("source %u Join(port %llu, worker %u)", record.id,
            static_cast<unsigned long long>(box.serial), box.port.worker());
  const absl::Status status = record.handle.Join(box.port, {.token = TokenOf(box, record.id)});
  Expect(call, status, {kTwice, kEnded, kWrong});
  if (status.code() == kWrong && box.port.joined() && !(box.taker() && record.limited))
    Fail("a port cannot join: %s", status.ToString().c_str());
}

void LeaveSource(PortBox& box, SourceRecord& record) {
  Call call("source %u Leave(port %llu)", record.id, static_cast<unsigned long long>(box.serial));
  Expect(call, record.handle.Leave(box.port), {kEnded, kAbsent, kWrong});
}

void ChangeLimits(Random& random, PortBox& box) {
  const uint32_t capacity = random.Of({0u, 1u, 2u, 10u, 1000u, UINT32_MAX});
  const uint32_t window = random.Of({0u, 1u, box.window, 1024u, UINT32_MAX});
  Call call("port %llu SetCapacity(%u)", static_cast<unsigned long long>(box.serial), capacity);
  const absl::Status set = box.port.SetCapacity(capacity);
  Expect(call, set, {kEnded, kWrong});
  if (box.port.joined() && (set.code() == kWrong) != (capacity == 0))
    Fail("SetCapacity(%u): %s", capacity, set.ToString().c_str());
  Call other("port %llu SetWindow(%u)", static_cast<unsigned long long>(box.serial), window);
  const absl::Status moved = box.port.SetWindow(window);
  Expect(other, moved, {kEnded, kWrong});
  const bool wrong = window == 0 || (!box.taker() && window > box.window);
  if (moved.ok() && wrong) Fail("SetWindow(%u) was taken", window);
}

std::shared_ptr<PortBox> AddPort(Actor& actor, PortBox::Kind kind, Ring* ring) {
  World& world = actor.world;
  auto box = std::make_shared<PortBox>();
  box->serial = world.NewSerial();
  box->kind = kind;
  box->window = actor.random.Of({1u, 2u, 32u, 32u, 1024u});
  WorkerOptions options = {.window = box->window};
  if (actor.random.OneIn(3)) options.capacity = actor.random.Between(1, 12);
  if (actor.random.OneIn(6)) options.cpu = 0;
  if (kind == PortBox::Kind::kMailbox) {
    Call create("Mailbox::Create");
    absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
    if (!Expect(create, mailbox.status(), {kNoMore})) return nullptr;
    box->mailbox = *std::move(mailbox);
  } else if (kind == PortBox::Kind::kOnHost) {
    options.on_host = true;
  } else {
    options.ring_fd = (*ring)->ring_fd;
    options.tag = kDoorbellBit | box->serial;
    if (kind == PortBox::Kind::kCompletion) options.handoff = Handoff::kCompletion;
    if (kind == PortBox::Kind::kDirect) {
      options.handoff = Handoff::kDirect;
      if (!ring->RegisterSlots(actor.random.Of({1u, 4u, 64u}))) return nullptr;
    }
  }
  const BalancerUse balancer(world);
  if (!balancer) return nullptr;
  Call call("port %llu AddWorker(kind %d, window %u)", static_cast<unsigned long long>(box->serial),
            static_cast<int>(kind), box->window);
  absl::StatusOr<Port> port = kind == PortBox::Kind::kMailbox
                                  ? balancer->AddWorker(box->mailbox, options)
                                  : balancer->AddWorker(options);
  if (!Expect(call, port.status(), {kEnded, kNoMore})) return nullptr;
  call.Returns("worker %u, capacity %u", port->worker(), options.capacity);
  box->port = *std::move(port);
  world.Publish(box);
  return box;
}

void WatchSight(Actor& actor, PortBox& box, Ring& ring) {
  const bool refused = box.taker();
  Call call("port %llu WatchSight", static_cast<unsigned long long>(box.serial));
  const absl::StatusOr<int> sight = box.port.WatchSight();
  if (!Expect(call, sight.status(), {kEnded, kNoMore})) return;
  if (refused) Fail("one to whom connections are sent watches a sight");
  if (box.kind == PortBox::Kind::kMailbox && *sight != box.mailbox.fd())
    Fail("the sight of a mailbox is another descriptor");
  if (box.polled == *sight) return;
  // A mailbox that is polled here is looked at nowhere else.
  if (box.kind == PortBox::Kind::kMailbox && actor.random.OneIn(2)) return;
  if (ring.Poll(*sight, kPollBit | box.serial)) box.polled = *sight;
}

void AddWrongPort(Actor& actor, Ring* ring) {
  const BalancerUse balancer(actor.world);
  if (!balancer) return;
  WorkerOptions options;
  if (ring != nullptr) options.ring_fd = (*ring)->ring_fd;
  switch (actor.random.Below(5)) {
    case 0:
      options.ring_fd = actor.random.Of({-1, 0, 1 << 20});
      break;
    case 1:
      options.window = actor.random.Of({0u, 1025u, UINT32_MAX});
      break;
    case 2:
      options.capacity = 0;
      break;
    case 3:
      options.cpu = -2;
      break;
    default:
      options.on_host = true;
      options.ring_fd = 0;
      options.handoff = Handoff::kCompletion;
  }
  Call call("AddWorker, which is wrong");
  const auto port = balancer->AddWorker(options);
  Expect(call, port.status(), {kWrong, kEnded, kNoMore});
  if (port.ok()) Fail("wrong options of a worker were taken");
}

void LookAtStats(World& world, const char* when) {
  const BalancerUse balancer(world);
  if (!balancer) return;
  Call call("%s", when);
  const BalancerStats stats = balancer->Stats();
  call.Returns("%llu accepted, %llu passed on, %llu moved",
               static_cast<unsigned long long>(stats.accepted),
               static_cast<unsigned long long>(stats.passed_on),
               static_cast<unsigned long long>(stats.moved));
  CheckStats(stats, when);
}

bool TryToDestroy(World& world, Ring* host_ring) {
  const std::unique_lock alone(world.balancer_lock, std::try_to_lock);
  if (!alone.owns_lock()) return false;
  if (world.balancer == nullptr) return true;
  if (host_ring != nullptr) {
    Call call("Shutdown on the host's thread");
    CheckReport(world.balancer->Shutdown(absl::ZeroDuration()), "Shutdown on the host's thread");
    call.Returns("done");
    std::vector<io_uring_cqe> cqes;
    host_ring->Collect(true, cqes);
    for (const io_uring_cqe& cqe : cqes) world.balancer->OnCompletion(cqe);
  }
  Call call("~Balancer");
  world.for_callbacks.store(nullptr);
  world.balancer.reset();
  call.Returns("done");
  return true;
}

void CallSomething(Actor& actor) {
  uint32_t total = 0;
  for (const Choice& choice : kChoices) total += choice.weight;
  uint32_t drawn = actor.random.Below(total);
  for (const Choice& choice : kChoices) {
    if (drawn < choice.weight) return choice.call(actor);
    drawn -= choice.weight;
  }
}

}  // namespace ringmaster::attack
