#include "bench/load_generator.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/client_set.h"
#include "bench/measuring_window.h"
#include "bench/random.h"
#include "bench/request.h"
#include "bench/staying_clients.h"

namespace ringmaster::bench {
namespace {

constexpr int kEventsPerTurnMax = 256;
constexpr int kStartsPerTurnMax = 64;       // so that answers are read while many starts are due
constexpr uint32_t kDescriptorsSpare = 64;  // what the process has open besides
constexpr int64_t kRetryNs = 100 * kMicrosecond;  // after a full Unix backlog
constexpr int64_t kBackOffNs = kMillisecond;      // a closed-loop client after a failure
constexpr double kAchievedMin = 0.99;
constexpr double kBusyMin = 0.95;
constexpr int64_t kHiccupNs = 25 * kMillisecond;
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// An open loop has no use for more clients than it starts connections.
size_t ClientsOf(const OpenLoop& open) {
  return std::min<size_t>(open.connections_max, std::max<size_t>(open.starts_ns.size(), 1));
}

size_t ClientsOf(const Load& load) {
  if (const auto* closed = std::get_if<ClosedLoop>(&load)) return closed->clients;
  if (const auto* open = std::get_if<OpenLoop>(&load)) return ClientsOf(*open);
  const auto& staying = std::get<StayingClients>(load);
  return staying.clients + (staying.newcomers ? ClientsOf(*staying.newcomers) : 0);
}

class Generator {
 public:
  explicit Generator(const LoadOptions& options)
      : options_(options),
        closed_(std::get_if<ClosedLoop>(&options.load)),
        open_(std::get_if<OpenLoop>(&options.load)),
        hold_ns_(open_ != nullptr ? open_->hold_ns : closed_->hold_ns) {}

  absl::Status Prepare();
  LoadResult Run();

 private:
  enum class State : uint8_t { kIdle, kBlocked, kConnecting, kWaiting, kHolding };
  enum class End : uint8_t { kAnswered, kRefused, kReset, kWrong, kFailed };

  struct Client {
    int fd = -1;
    State state = State::kIdle;
    uint32_t received = 0;
    int32_t worker = -1;
    int64_t intended_ns = 0;
    int64_t answered_ns = 0;
    uint64_t number = 0;  // of the connection; its payload follows from it
  };

  struct Wake {
    int64_t at_ns;
    uint32_t client;
  };

  struct Held {
    int64_t until_ns;
    uint32_t client;
    uint64_t number;  // of its connection
  };

  void StartDue(int64_t now_ns);
  void Retry(int64_t now_ns);
  void Release(int64_t now_ns);
  void Start(uint32_t index, int64_t intended_ns);
  void Connect(uint32_t index);
  void Send(uint32_t index);
  void Watch(uint32_t index, uint32_t events);
  void OnEvent(uint32_t index, uint32_t events);
  bool RightAnswer(Client& client, const char* answer, size_t size);
  void OnAnswered(uint32_t index);
  void Finish(uint32_t index, End end, int error = 0);
  bool Measured(const Client& client) const { return window_.Holds(client.intended_ns); }
  void FillPayload(uint64_t number, std::vector<char>& payload) const;
  void NoteAnswer(const Client& client);
  int64_t NextScheduledNs() const;
  int64_t NextDueNs() const;

  const LoadOptions& options_;
  const ClosedLoop* const closed_;
  const OpenLoop* const open_;
  const int64_t hold_ns_;

  ClientSet<Client> clients_;
  std::vector<uint32_t> idle_;    // open loop: clients to use
  std::deque<Wake> thinking_;     // closed loop, ascending: every think is equally long
  std::deque<Wake> backing_off_;  // closed loop, ascending
  std::deque<Wake> blocked_;      // ascending
  std::deque<Held> held_;         // ascending; one whose connection has ended before is passed over
  std::vector<char> sent_;
  std::vector<char> received_;
  uint64_t connections_ = 0;
  uint32_t active_ = 0;
  size_t next_start_ = 0;  // open loop: index into the schedule

  int64_t origin_ns_ = 0;  // the beginning of the run
  MeasuringWindow window_{options_};
  LoadResult result_;
};

absl::Status Generator::Prepare() {
  sent_.resize(options_.payload_bytes);
  received_.resize(options_.payload_bytes);
  return clients_.Make(ClientsOf(options_.load));
}

LoadResult Generator::Run() {
  result_.open_loop = open_ != nullptr;
  origin_ns_ = NowNs();
  window_.Start(origin_ns_);
  for (uint32_t i = 0; i < clients_.size(); ++i) {
    if (open_ != nullptr) idle_.push_back(i);
    // The clients begin one after the other, not in step.
    if (closed_ != nullptr) {
      thinking_.push_back(
          {origin_ns_ + closed_->think_ns * i / static_cast<int64_t>(clients_.size()), i});
    }
  }
  epoll_event events[kEventsPerTurnMax];
  for (;;) {
    const int64_t now_ns = NowNs();
    window_.Cross(now_ns, result_);
    if (window_.GraceIsOver(now_ns)) break;
    StartDue(now_ns);
    Release(now_ns);
    if (window_.ended() && active_ == 0 && NextScheduledNs() == kNever) break;
    Retry(now_ns);
    const int count = clients_.WaitUntil(NextDueNs(), events);
    for (int i = 0; i < count; ++i) OnEvent(events[i].data.u32, events[i].events);
  }
  for (const Client& client : clients_) {
    if (client.state != State::kIdle && Measured(client)) ++result_.unanswered;
  }
  // Starts for which there was no client in time are part of what was offered: left out, the worst
  // latencies of all would go missing.
  for (; NextScheduledNs() != kNever; ++next_start_) {
    if (NextScheduledNs() < window_.begin_ns()) continue;
    ++result_.started;
    ++result_.unanswered;
  }
  return std::move(result_);
}

void Generator::StartDue(int64_t now_ns) {
  for (int i = 0; i < kStartsPerTurnMax; ++i) {
    if (open_ != nullptr) {
      const int64_t intended_ns = NextScheduledNs();
      if (intended_ns > now_ns || idle_.empty()) return;
      ++next_start_;
      const uint32_t index = idle_.back();
      idle_.pop_back();
      Start(index, intended_ns);
    } else {
      std::deque<Wake>* queue = nullptr;
      if (!thinking_.empty() && thinking_.front().at_ns <= now_ns) queue = &thinking_;
      if (!backing_off_.empty() && backing_off_.front().at_ns <= now_ns) queue = &backing_off_;
      if (queue == nullptr || window_.ended()) return;
      const uint32_t index = queue->front().client;
      queue->pop_front();
      // A client of a closed loop starts when it is ready to: that is what closes the loop.
      Start(index, NowNs());
    }
  }
}

void Generator::Retry(int64_t now_ns) {
  // As many as there are now: those that fail again come back at the end.
  for (size_t count = blocked_.size(); count > 0; --count) {
    if (blocked_.front().at_ns > now_ns) return;
    const uint32_t index = blocked_.front().client;
    blocked_.pop_front();
    Connect(index);
  }
}

void Generator::Release(int64_t now_ns) {
  while (!held_.empty() && (window_.ended() || held_.front().until_ns <= now_ns)) {
    const Held held = held_.front();
    held_.pop_front();
    const Client& client = clients_[held.client];
    if (client.state == State::kHolding && client.number == held.number) {
      Finish(held.client, End::kAnswered);
    }
  }
}

// The next start of the schedule, or kNever.
int64_t Generator::NextScheduledNs() const {
  if (open_ == nullptr || next_start_ == open_->starts_ns.size()) return kNever;
  const int64_t intended_ns = origin_ns_ + open_->starts_ns[next_start_];
  return intended_ns < window_.end_ns() ? intended_ns : kNever;
}

int64_t Generator::NextDueNs() const {
  int64_t due_ns = window_.NextEdgeNs();
  if (!blocked_.empty()) due_ns = std::min(due_ns, blocked_.front().at_ns);
  if (!held_.empty()) due_ns = std::min(due_ns, held_.front().until_ns);
  if (!idle_.empty()) due_ns = std::min(due_ns, NextScheduledNs());
  if (window_.ended()) return due_ns;
  if (!thinking_.empty()) due_ns = std::min(due_ns, thinking_.front().at_ns);
  if (!backing_off_.empty()) due_ns = std::min(due_ns, backing_off_.front().at_ns);
  return due_ns;
}

void Generator::Start(uint32_t index, int64_t intended_ns) {
  Client& client = clients_[index];
  client.intended_ns = intended_ns;
  client.received = 0;
  client.worker = -1;
  client.number = connections_++;
  client.state = State::kConnecting;
  ++active_;
  if (Measured(client)) {
    ++result_.started;
    if (open_ != nullptr) {
      result_.lag_ns.Add(static_cast<uint64_t>(std::max<int64_t>(NowNs() - intended_ns, 0)));
    }
  }
  client.fd = ClientSocket(options_.target.transport, client.number);
  if (client.fd < 0) return Finish(index, End::kFailed, -client.fd);
  Connect(index);
}

void Generator::Connect(uint32_t index) {
  Client& client = clients_[index];
  const int result = connect(client.fd, reinterpret_cast<const sockaddr*>(&options_.target.address),
                             options_.target.address_size);
  if (result == 0 || errno == EINPROGRESS) return Send(index);
  if (errno == EAGAIN) {
    // A Unix listener whose backlog is full. Nothing tells when there is room again.
    client.state = State::kBlocked;
    blocked_.push_back({NowNs() + kRetryNs, index});
    return;
  }
  Finish(index, errno == ECONNREFUSED ? End::kRefused : End::kFailed, errno);
}

// On loopback the handshake is over when connect returns, although a non-blocking connect answers
// EINPROGRESS, so the payload usually goes out at the first try.
void Generator::Send(uint32_t index) {
  Client& client = clients_[index];
  FillPayload(client.number, sent_);
  const ssize_t count = send(client.fd, sent_.data(), sent_.size(), MSG_NOSIGNAL);
  const bool again = count < 0 && (errno == EAGAIN || errno == ENOTCONN);
  if (again && client.state == State::kConnecting) {
    // A second time comes only after EPOLLOUT; then EAGAIN would be an error.
    return Watch(index, EPOLLOUT | EPOLLONESHOT);
  }
  if (count == static_cast<ssize_t>(sent_.size())) {
    client.state = State::kWaiting;
    return Watch(index, EPOLLIN);
  }
  const bool refused = count < 0 && errno == ECONNREFUSED;
  Finish(index, refused ? End::kRefused : End::kReset, errno);
}

void Generator::Watch(uint32_t index, uint32_t events) {
  epoll_event event{.events = events, .data = {.u32 = index}};
  const int fd = clients_[index].fd;
  if (epoll_ctl(clients_.epoll_fd(), EPOLL_CTL_ADD, fd, &event) == 0) return;
  if (errno == EEXIST && epoll_ctl(clients_.epoll_fd(), EPOLL_CTL_MOD, fd, &event) == 0) return;
  Finish(index, End::kFailed, errno);
}

void Generator::OnEvent(uint32_t index, uint32_t events) {
  Client& client = clients_[index];
  if (client.state == State::kConnecting) {
    if ((events & EPOLLERR) == 0) return Send(index);
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return Finish(index, error == ECONNREFUSED ? End::kRefused : End::kReset, error);
  }
  if (client.state != State::kWaiting && client.state != State::kHolding) return;
  // One byte more than is wanted, so that an answer that is too long is seen; while it is held,
  // nothing is.
  char answer[kPayloadBytesMax + 1];
  const size_t rest = sent_.size() - client.received;
  const ssize_t count = recv(client.fd, answer, rest + 1, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return Finish(index, End::kReset, count < 0 ? errno : 0);
  if (!RightAnswer(client, answer, static_cast<size_t>(count))) return Finish(index, End::kWrong);
  if (client.received == received_.size()) OnAnswered(index);
}

// Whether `answer` is what is to come next.
bool Generator::RightAnswer(Client& client, const char* answer, size_t size) {
  if (size > sent_.size() - client.received) return false;
  FillPayload(client.number, received_);
  size_t at = 0;
  if (client.received == 0 && answer[0] != kUnmarked) {
    if (static_cast<unsigned char>(answer[0]) >= kWorkersMax) return false;
    client.worker = answer[0];
    ++at;
  }
  if (std::memcmp(answer + at, received_.data() + client.received + at, size - at) != 0) {
    return false;
  }
  client.received += static_cast<uint32_t>(size);
  return true;
}

void Generator::OnAnswered(uint32_t index) {
  Client& client = clients_[index];
  client.answered_ns = NowNs();
  if (hold_ns_ == 0 || window_.ended()) return Finish(index, End::kAnswered);
  client.state = State::kHolding;
  held_.push_back({client.answered_ns + hold_ns_, index, client.number});
}

void Generator::Finish(uint32_t index, End end, int error) {
  Client& client = clients_[index];
  if (end == End::kAnswered && window_.Holds(client.answered_ns)) {
    ++result_.answered_in_window;
  }
  if (Measured(client)) {
    switch (end) {
      case End::kAnswered:
        NoteAnswer(client);
        break;
      case End::kRefused:
        ++result_.refused;
        break;
      case End::kReset:
        ++result_.reset;
        break;
      case End::kWrong:
        ++result_.wrong;
        break;
      case End::kFailed:
        ++result_.failed;
        if (result_.failure == 0) result_.failure = error;
        break;
    }
  }
  if (client.fd >= 0) close(client.fd);  // takes it out of the epoll set too
  client.fd = -1;
  client.state = State::kIdle;
  --active_;
  const int64_t now_ns = NowNs();
  if (open_ != nullptr) {
    idle_.push_back(index);
  } else if (end == End::kAnswered) {
    thinking_.push_back({now_ns + closed_->think_ns, index});
  } else {
    backing_off_.push_back({now_ns + std::max(closed_->think_ns, kBackOffNs), index});
  }
}

void Generator::NoteAnswer(const Client& client) {
  const int64_t latency_ns = std::max<int64_t>(client.answered_ns - client.intended_ns, 0);
  ++result_.answered;
  result_.latency_ns.Add(static_cast<uint64_t>(latency_ns));
  if (client.worker >= 0) ++result_.answered_by[static_cast<size_t>(client.worker)];
  if (options_.log_answers) result_.answers.push_back({client.number, client.worker, latency_ns});
}

void Generator::FillPayload(uint64_t number, std::vector<char>& payload) const {
  WriteRequest(number, options_.work ? options_.work(number) : 0, payload);
}

}  // namespace

int ClientSocket(Transport transport, uint64_t number) {
  const bool tcp = transport == Transport::kTcp;
  const int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (!tcp) return fd;
  // The port is chosen by connect, which knows the other end and so has all ports to choose from.
  // bind would have to find one that is free against every destination.
  const int one = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
  // 127.1.0.1 to 127.1.255.250 in turn.
  const auto third = static_cast<uint32_t>(number / 250 % 256);
  const auto fourth = static_cast<uint32_t>(number % 250 + 1);
  sockaddr_in source{};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(uint32_t{127} << 24 | 1u << 16 | third << 8 | fourth);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&source), sizeof(source)) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

std::vector<int64_t> EvenSchedule(double connections_per_second, int64_t duration_ns) {
  std::vector<int64_t> starts_ns;
  const double gap_ns = static_cast<double>(kSecond) / connections_per_second;
  for (double at_ns = 0; at_ns < static_cast<double>(duration_ns);
       at_ns = gap_ns * static_cast<double>(starts_ns.size())) {
    starts_ns.push_back(static_cast<int64_t>(at_ns));
  }
  return starts_ns;
}

std::vector<int64_t> PoissonSchedule(double connections_per_second, int64_t duration_ns,
                                     uint64_t seed) {
  std::vector<int64_t> starts_ns;
  Random random(seed);
  const double gap_ns = static_cast<double>(kSecond) / connections_per_second;
  double at_ns = random.Exponential(gap_ns);
  while (at_ns < static_cast<double>(duration_ns)) {
    starts_ns.push_back(static_cast<int64_t>(at_ns));
    at_ns += random.Exponential(gap_ns);
  }
  return starts_ns;
}

double LoadResult::offered_per_second() const {
  if (window_ns == 0) return 0;
  return static_cast<double>(started) * kSecond / static_cast<double>(window_ns);
}

double LoadResult::achieved_per_second() const {
  if (window_ns == 0) return 0;
  return static_cast<double>(answered_in_window) * kSecond / static_cast<double>(window_ns);
}

bool LoadResult::generator_limited() const {
  return static_cast<double>(cpu_ns) >= kBusyMin * static_cast<double>(window_ns) && window_ns > 0;
}

bool LoadResult::latency_valid() const {
  if (latency_ns.count() == 0) return false;
  if (!open_loop) return true;
  const double hiccup = static_cast<double>(kHiccupNs) / static_cast<double>(window_ns);
  const double missing_max = std::max(1 - kAchievedMin, hiccup) * static_cast<double>(started);
  const uint64_t turned_away = refused + reset + wrong + failed;
  return static_cast<double>(answered_in_window + turned_away) >=
         static_cast<double>(started) - missing_max;
}

std::optional<uint64_t> LoadResult::LatencyNs(double quantile) const {
  if (!latency_valid()) return std::nullopt;
  const auto all = static_cast<double>(started);
  if (static_cast<double>(lost()) > (1 - quantile) * all) return std::nullopt;
  if (quantile >= 1) return latency_ns.max();
  return latency_ns.Quantile(quantile * all / static_cast<double>(answered));
}

absl::Status CheckDescriptors(const Load& load) {
  const size_t clients = ClientsOf(load);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (clients + kDescriptorsSpare <= limit.rlim_cur) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("RLIMIT_NOFILE is ", limit.rlim_cur, ", too few descriptors for ", clients,
                   " clients; raise it with: ulimit -n ", clients + 2 * kDescriptorsSpare));
}

absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options) {
  // The kernel may delay a timer by its slack, 50 µs unless told otherwise. That would be added to
  // every latency that is measured from an intended start.
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  if (options.payload_bytes < kPayloadBytesMin || options.payload_bytes > kPayloadBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("the payload must have ", kPayloadBytesMin,
                                                   " to ", kPayloadBytesMax, " bytes"));
  }
  if (absl::Status status = CheckDescriptors(options.load); !status.ok()) return status;
  if (std::holds_alternative<StayingClients>(options.load)) return RunStaying(options);
  Generator generator(options);
  if (absl::Status status = generator.Prepare(); !status.ok()) return status;
  return generator.Run();
}

}  // namespace ringmaster::bench
