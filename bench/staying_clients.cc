#include "bench/staying_clients.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/client_set.h"
#include "bench/measuring_window.h"
#include "bench/random.h"
#include "bench/request.h"

namespace ringmaster::bench {
namespace {

constexpr int kEventsPerTurnMax = 256;
constexpr int64_t kSampleNs = 50 * kMillisecond;
constexpr int64_t kRetryNs = 100 * kMicrosecond;  // where the backlog is full
constexpr int64_t kReopenNs = kMillisecond;       // after a connection that the server has ended
constexpr double kGapMax = 5;                     // times the average
constexpr double kUnequalIndex = 1.2;             // of the Pareto distribution
constexpr double kUnequalMin = 0.29;              // so that the average of what is cut is 1
constexpr double kUnequalMax = 8;

// How many times the average somebody has.
double DrawUnequal(Random& random) {
  const double drawn = kUnequalMin * std::pow(1 - random.Uniform(), -1 / kUnequalIndex);
  return std::min(drawn, kUnequalMax);
}

class Clients {
 public:
  explicit Clients(const LoadOptions& options)
      : options_(options), load_(std::get<StayingClients>(options.load)), random_(load_.seed) {}

  absl::Status Prepare();
  LoadResult Run();

 private:
  struct Client {
    int fd = -1;
    bool waits = false;       // for the answer to its request
    int32_t worker = -1;      // that has the connection; -1: it has not answered yet
    uint32_t received = 0;    // of the answer
    uint64_t number = 0;      // of the request
    int64_t intended_ns = 0;  // when it was to be sent
    int64_t next_ns = 0;      // when the next one is; without a connection: when one is opened
    int64_t ends_ns = 0;      // when the connection is to be closed
    int64_t wakes_ns = -1;    // as it stands in `due_`; -1: it does not
    double rate = 1;          // times the average
  };

  void TakeSample(int64_t now_ns);
  void Act(uint32_t index, int64_t now_ns);
  void Open(uint32_t index, int64_t now_ns);
  void Ask(uint32_t index, int64_t now_ns);
  void OnReadable(uint32_t index);
  void OnAnswered(uint32_t index);
  void Lose(uint32_t index, uint64_t LoadResult::*why);
  void Shut(uint32_t index, int64_t opens_ns);
  void WakeAt(uint32_t index, int64_t at_ns);
  int64_t Gap(const Client& client);
  // Whether it has a request to send, or waits for an answer, that was to begin before the end.
  bool Busy(const Client& client) const {
    return client.fd >= 0 &&
           (client.waits || (load_.open_loop && client.next_ns < window_.end_ns()));
  }

  const LoadOptions& options_;
  const StayingClients& load_;
  Random random_;
  ClientSet<Client> clients_;
  std::set<std::pair<int64_t, uint32_t>> due_;  // by time, those whose turn comes by itself
  std::vector<char> sent_;
  uint64_t connections_ = 0;
  uint64_t requests_ = 0;
  MeasuringWindow window_{options_};
  int64_t all_there_ns_ = 0;  // when the last of the first clients has come
  int64_t next_sample_ns_ = 0;
  LoadResult result_;
};

absl::Status Clients::Prepare() {
  sent_.resize(options_.payload_bytes);
  return clients_.Make(load_.clients);
}

LoadResult Clients::Run() {
  result_.open_loop = load_.open_loop;
  result_.staying = true;
  const int64_t origin_ns = NowNs();
  window_.Start(origin_ns);
  next_sample_ns_ = origin_ns;
  all_there_ns_ = origin_ns + load_.opening_ns * load_.clients;
  for (uint32_t i = 0; i < clients_.size(); ++i) {
    if (load_.unequal) clients_[i].rate = DrawUnequal(random_);
    WakeAt(i, origin_ns + load_.opening_ns * i);
  }
  epoll_event events[kEventsPerTurnMax];
  for (;;) {
    const int64_t now_ns = NowNs();
    if (window_.Cross(now_ns, result_)) next_sample_ns_ = now_ns;  // the last one
    TakeSample(now_ns);
    if (window_.GraceIsOver(now_ns) ||
        (window_.ended() && std::none_of(clients_.begin(), clients_.end(),
                                         [this](const Client& client) { return Busy(client); }))) {
      break;
    }
    while (!due_.empty() && due_.begin()->first <= now_ns) {
      const uint32_t index = due_.begin()->second;
      WakeAt(index, -1);
      Act(index, NowNs());
    }
    int64_t until_ns = std::min(window_.NextEdgeNs(), next_sample_ns_);
    if (!due_.empty()) until_ns = std::min(until_ns, due_.begin()->first);
    const int count = clients_.WaitUntil(until_ns, events);
    for (int i = 0; i < count; ++i) OnReadable(events[i].data.u32);
  }
  for (Client& client : clients_) {
    if (client.waits && window_.Holds(client.intended_ns)) ++result_.unanswered;
    // What was to be sent and never was, because an answer before it did not come, is part of what
    // was offered.
    for (; load_.open_loop && client.fd >= 0 && client.next_ns < window_.end_ns();
         client.next_ns += Gap(client)) {
      if (!window_.Holds(client.next_ns)) continue;
      ++result_.started;
      ++result_.unanswered;
    }
  }
  return std::move(result_);
}

void Clients::TakeSample(int64_t now_ns) {
  if (now_ns < next_sample_ns_) return;
  LoadResult::Sample& sample = result_.samples.emplace_back();
  sample.at_ns = now_ns - window_.begin_ns();
  for (const Client& client : clients_) {
    if (client.fd >= 0 && client.worker >= 0) {
      ++sample.connections[static_cast<size_t>(client.worker)];
    }
  }
  next_sample_ns_ = window_.ended() ? INT64_MAX : now_ns + kSampleNs;
}

void Clients::WakeAt(uint32_t index, int64_t at_ns) {
  Client& client = clients_[index];
  if (client.wakes_ns >= 0) due_.erase({client.wakes_ns, index});
  client.wakes_ns = at_ns;
  if (at_ns >= 0) due_.insert({at_ns, index});
}

int64_t Clients::Gap(const Client& client) {
  const double mean_ns = static_cast<double>(load_.think_ns) / client.rate;
  return static_cast<int64_t>(std::min(random_.Exponential(mean_ns), kGapMax * mean_ns)) + 1;
}

// What its time has come for.
void Clients::Act(uint32_t index, int64_t now_ns) {
  Client& client = clients_[index];
  if (client.fd < 0) {
    if (!window_.ended()) Open(index, now_ns);
  } else if (!client.waits && now_ns >= client.ends_ns) {
    if (!window_.ended()) Shut(index, now_ns + load_.opening_ns);
  } else if (!client.waits &&
             (!window_.ended() || (load_.open_loop && client.next_ns < window_.end_ns()))) {
    Ask(index, now_ns);
  }
}

void Clients::Open(uint32_t index, int64_t now_ns) {
  Client& client = clients_[index];
  client.fd = ClientSocket(options_.target.transport, connections_);
  if (client.fd < 0) {
    ++result_.failed;
    ++result_.started;
    if (result_.failure == 0) result_.failure = -client.fd;
    client.fd = -1;
    return WakeAt(index, now_ns + kReopenNs);
  }
  const auto* const address = reinterpret_cast<const sockaddr*>(&options_.target.address);
  if (connect(client.fd, address, options_.target.address_size) != 0 && errno != EINPROGRESS) {
    const bool full = errno == EAGAIN;  // of a Unix listener
    if (!full && window_.Holds(now_ns)) {
      ++result_.started;
      ++result_.refused;
    }
    return Shut(index, now_ns + (full ? kRetryNs : kReopenNs));
  }
  epoll_event event{.events = EPOLLIN, .data = {.u32 = index}};
  if (epoll_ctl(clients_.epoll_fd(), EPOLL_CTL_ADD, client.fd, &event) != 0) {
    return Shut(index, now_ns + kReopenNs);
  }
  ++connections_;
  client.ends_ns = INT64_MAX;
  if (load_.unequal && load_.stay_ns > 0) {
    client.rate = DrawUnequal(random_);
    client.ends_ns =
        now_ns + static_cast<int64_t>(static_cast<double>(load_.stay_ns) * DrawUnequal(random_));
  }
  client.next_ns = std::max(now_ns, all_there_ns_) + Gap(client);
  WakeAt(index, std::min(client.next_ns, client.ends_ns));
}

void Clients::Ask(uint32_t index, int64_t now_ns) {
  Client& client = clients_[index];
  client.intended_ns = load_.open_loop ? client.next_ns : now_ns;
  WriteRequest(requests_, options_.work ? options_.work(requests_) : 0, sent_);
  const ssize_t count = send(client.fd, sent_.data(), sent_.size(), MSG_NOSIGNAL);
  if (count < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
    return WakeAt(index, now_ns + kRetryNs);  // the handshake is not over
  }
  if (window_.Holds(client.intended_ns)) {
    ++result_.started;
    if (load_.open_loop) {
      result_.lag_ns.Add(static_cast<uint64_t>(std::max<int64_t>(now_ns - client.intended_ns, 0)));
    }
  }
  client.number = requests_++;
  client.waits = true;
  client.received = 0;
  client.next_ns += load_.open_loop ? Gap(client) : 0;
  if (count != static_cast<ssize_t>(sent_.size())) Lose(index, &LoadResult::reset);
}

void Clients::OnReadable(uint32_t index) {
  Client& client = clients_[index];
  if (client.fd < 0) return;
  // One byte more than is wanted, so that an answer that is too long is seen.
  char answer[kPayloadBytesMax + 1];
  const size_t rest = client.waits ? sent_.size() - client.received : 0;
  const ssize_t count = recv(client.fd, answer, rest + 1, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return Lose(index, &LoadResult::reset);
  const auto size = static_cast<size_t>(count);
  if (size > rest) return Lose(index, &LoadResult::wrong);
  WriteRequest(client.number, options_.work ? options_.work(client.number) : 0, sent_);
  size_t at = 0;
  if (client.received == 0 && answer[0] != kUnmarked) {
    if (static_cast<unsigned char>(answer[0]) >= kWorkersMax) {
      return Lose(index, &LoadResult::wrong);
    }
    client.worker = answer[0];
    at = 1;
  }
  if (std::memcmp(answer + at, sent_.data() + client.received + at, size - at) != 0) {
    return Lose(index, &LoadResult::wrong);
  }
  client.received += static_cast<uint32_t>(size);
  if (client.received == sent_.size()) OnAnswered(index);
}

void Clients::OnAnswered(uint32_t index) {
  Client& client = clients_[index];
  const int64_t now_ns = NowNs();
  client.waits = false;
  if (window_.Holds(now_ns)) ++result_.answered_in_window;
  if (window_.Holds(client.intended_ns)) {
    ++result_.answered;
    if (client.worker >= 0) ++result_.answered_by[static_cast<size_t>(client.worker)];
    result_.latency_ns.Add(
        static_cast<uint64_t>(std::max<int64_t>(now_ns - client.intended_ns, 0)));
  }
  if (!load_.open_loop) client.next_ns = now_ns + Gap(client);
  WakeAt(index, std::min(client.next_ns, client.ends_ns));
}

// The connection is of no use any more, and the request that was under way with it.
void Clients::Lose(uint32_t index, uint64_t LoadResult::*why) {
  Client& client = clients_[index];
  const int64_t now_ns = NowNs();
  if (!client.waits) {
    client.intended_ns = now_ns;
    if (window_.Holds(now_ns)) ++result_.started;
  }
  if (window_.Holds(client.intended_ns)) ++(result_.*why);
  Shut(index, now_ns + kReopenNs);
}

void Clients::Shut(uint32_t index, int64_t opens_ns) {
  Client& client = clients_[index];
  if (client.fd >= 0) close(client.fd);  // takes it out of the epoll set too
  client.fd = -1;
  client.waits = false;
  client.worker = -1;
  WakeAt(index, opens_ns);
}

}  // namespace

absl::StatusOr<LoadResult> RunStaying(const LoadOptions& options) {
  Clients clients(options);
  if (absl::Status status = clients.Prepare(); !status.ok()) return status;
  const std::optional<OpenLoop>& newcomers = std::get<StayingClients>(options.load).newcomers;
  if (!newcomers) return clients.Run();
  LoadOptions beside = options;
  beside.load = *newcomers;
  beside.on_window = nullptr;
  absl::StatusOr<LoadResult> come_and_go = absl::UnknownError("the newcomers have not begun");
  std::thread thread;
  try {
    thread = std::thread([&] { come_and_go = RunLoad(beside); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread can be started for the newcomers: ", error.what()));
  }
  LoadResult stayed = clients.Run();
  thread.join();
  if (!come_and_go.ok()) return come_and_go.status();
  stayed.newcomers.push_back(*std::move(come_and_go));
  return stayed;
}

}  // namespace ringmaster::bench
