#include "bench/mechanisms/eventfd_server.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "bench/calls.h"
#include "bench/clock.h"
#include "bench/mechanisms/epoll_worker.h"

namespace ringmaster::bench {
namespace {

// As many as HAProxy's rings have.
constexpr uint32_t kQueueEntries = 1024;

// What the acceptor and one worker share.
class Queue {
 public:
  Queue() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue() {
    for (int fd = Pop(); fd >= 0; fd = Pop()) close(fd);
    if (fd_ >= 0) close(fd_);
  }

  int fd() const { return fd_; }

  // The acceptor's side.
  bool HasRoom(uint32_t capacity) const {
    return !left_.load(std::memory_order_relaxed) &&
           tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire) <
               kQueueEntries &&
           open() < capacity;
  }
  void Push(int connection) {
    open_.fetch_add(1, std::memory_order_relaxed);
    const uint32_t tail = tail_.load(std::memory_order_relaxed);
    entries_[tail % kQueueEntries] = connection;
    tail_.store(tail + 1, std::memory_order_release);  // with the acquire in Pop
  }
  // Whether the worker must be told. Either this sees that it has looked, or it sees what was
  // pushed: pairs with the exchange in OnLook.
  bool MustTell() { return !told_.exchange(true); }

  // The worker's side. -1 if there is none.
  int Pop() {
    const uint32_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_acquire)) return -1;
    const int connection = entries_[head % kQueueEntries];
    head_.store(head + 1, std::memory_order_release);  // with the acquire in HasRoom
    return connection;
  }
  void OnLook() { told_.exchange(false); }
  void OnClosed() { open_.fetch_sub(1); }  // pairs with the look of a hungry acceptor
  void Leave() { left_.store(true, std::memory_order_relaxed); }

  uint32_t open() const { return open_.load(); }

 private:
  const int fd_;
  std::array<int, kQueueEntries> entries_;
  alignas(64) std::atomic<uint32_t> tail_{0};
  alignas(64) std::atomic<uint32_t> head_{0};
  alignas(64) std::atomic<bool> told_{false};
  std::atomic<uint32_t> open_{0};
  std::atomic<bool> left_{false};
};

// Raised by the acceptor when nobody has room; who makes room and sees it, wakes it.
class RoomFlag {
 public:
  RoomFlag() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  RoomFlag(const RoomFlag&) = delete;
  RoomFlag& operator=(const RoomFlag&) = delete;
  ~RoomFlag() {
    if (fd_ >= 0) close(fd_);
  }

  int fd() const { return fd_; }
  void Raise() { hungry_ = true; }
  void Knock(Calls& call) {
    if (hungry_.load() && hungry_.exchange(false)) call(eventfd_write, fd_, eventfd_t{1});
  }

 private:
  const int fd_;
  std::atomic<bool> hungry_{false};
};

class QueueWorker : public EpollWorker {
 public:
  QueueWorker(const ServerOptions& options, uint32_t index, Queue& queue, RoomFlag& room_flag)
      : EpollWorker(options, index, {.fd = queue.fd()}), queue_(queue), room_flag_(room_flag) {}

 private:
  int TakeNext() override {
    int connection = queue_.Pop();
    if (connection < 0) {
      // The end of the queue, as it seems: reset the eventfd, say so, look once more.
      eventfd_t ignored;
      serving().call(eventfd_read, queue_.fd(), &ignored);
      queue_.OnLook();
      connection = queue_.Pop();
    }
    if (connection < 0) return -EAGAIN;
    room_flag_.Knock(serving().call);
    return connection;
  }

  // The acceptor sees to it that the worker is not given too many.
  bool Full() const override { return false; }

  // What is in the queue is served still.
  void Leave() override { queue_.Leave(); }

  void OnClosed(int) override {
    queue_.OnClosed();
    room_flag_.Knock(serving().call);
  }

  Queue& queue_;
  RoomFlag& room_flag_;
};

class EventfdServer : public EpollServer {
 public:
  EventfdServer(const ServerOptions& options, PickWorker pick)
      : listen_fd_(options.listen_fd),
        traits_(options.workers),
        books_(*options.books),
        pick_(pick),
        call_(books_.master),
        views_(options.workers.size()),
        last_(static_cast<uint32_t>(options.workers.size() - 1)) {}
  ~EventfdServer() override {
    Stop();
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }

  absl::Status Start(const ServerOptions& options) {
    books_.has_master = true;
    std::vector<std::unique_ptr<EpollWorker>> workers;
    for (uint32_t i = 0; i < traits_.size(); ++i) {
      queues_.push_back(std::make_unique<Queue>());
      if (queues_.back()->fd() < 0) return absl::ErrnoToStatus(errno, "cannot make an eventfd");
      workers.push_back(std::make_unique<QueueWorker>(options, i, *queues_.back(), room_flag_));
    }
    if (absl::Status status = EpollServer::Start(std::move(workers)); !status.ok()) return status;
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make an epoll set");
    for (const int fd : {stop_fd(), room_flag_.fd()}) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
        return absl::ErrnoToStatus(errno, "cannot watch an eventfd");
      }
    }
    if (!OpenDoor()) return absl::ErrnoToStatus(errno, "cannot watch the listener");
    threads().emplace_back(&EventfdServer::Run, this);
    return absl::OkStatus();
  }

 private:
  // The acceptor's thread.
  void Run() {
    pthread_setname_np(pthread_self(), "acceptor");
    epoll_event events[3];
    for (;;) {
      const int count = call_(epoll_wait, epoll_fd_, events, 3, TimeoutMs());
      Count(books_.master.wakes);
      bool arrivals = false;
      for (int i = 0; i < count; ++i) {
        if (events[i].data.fd == stop_fd()) return;
        if (events[i].data.fd == room_flag_.fd()) {
          eventfd_t ignored;
          call_(eventfd_read, room_flag_.fd(), &ignored);
          resume_ns_ = 0;
        } else {
          arrivals = true;
        }
      }
      if (arrivals) AcceptAll();
      if (!door_open_ && NowNs() >= resume_ns_) OpenDoor();
    }
  }

  void AcceptAll() {
    for (int i = 0; i < kTakesPerTurnMax; ++i) {
      std::optional<uint32_t> worker = Pick();
      if (!worker.has_value()) {
        // Hungry, then a second look: what was released in between would go unnoticed.
        room_flag_.Raise();
        worker = Pick();
      }
      if (!worker.has_value()) return CloseDoor(kNever);
      const int fd = call_(accept4, listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (MeansShortage(errno)) CloseDoor(NowNs() + kAcceptPauseNs);
        return;
      }
      last_ = *worker;
      Queue& queue = *queues_[*worker];
      queue.Push(fd);
      if (!queue.MustTell()) continue;
      Count(books_.master.doorbells);
      call_(eventfd_write, queue.fd(), eventfd_t{1});
    }
  }

  std::optional<uint32_t> Pick() {
    for (uint32_t i = 0; i < views_.size(); ++i) {
      views_[i] = {.open = queues_[i]->open(), .room = queues_[i]->HasRoom(traits_[i].capacity)};
    }
    return pick_(views_, last_);
  }

  bool OpenDoor() {
    epoll_event event{.events = EPOLLIN, .data = {.fd = listen_fd_}};
    door_open_ = call_(epoll_ctl, epoll_fd_, EPOLL_CTL_ADD, listen_fd_, &event) == 0;
    return door_open_;
  }

  void CloseDoor(int64_t resume_ns) {
    resume_ns_ = resume_ns;
    door_open_ = false;
    epoll_event ignored{};
    call_(epoll_ctl, epoll_fd_, EPOLL_CTL_DEL, listen_fd_, &ignored);
  }

  int TimeoutMs() const {
    if (door_open_ || resume_ns_ == kNever) return -1;
    const int64_t rest_ns = std::max<int64_t>(resume_ns_ - NowNs(), 0);
    return static_cast<int>((rest_ns + kMillisecond - 1) / kMillisecond);
  }

  static constexpr int64_t kNever = INT64_MAX;

  const int listen_fd_;
  const std::vector<WorkerTraits> traits_;
  ServerBooks& books_;
  const PickWorker pick_;
  RoomFlag room_flag_;
  std::vector<std::unique_ptr<Queue>> queues_;

  // The acceptor's alone.
  Calls call_;
  int epoll_fd_ = -1;
  bool door_open_ = false;
  int64_t resume_ns_ = 0;  // not before this, unless somebody knocks
  std::vector<QueueView> views_;
  uint32_t last_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> StartEventfdServer(const ServerOptions& options,
                                                           PickWorker pick) {
  auto server = std::make_unique<EventfdServer>(options, pick);
  if (absl::Status status = server->Start(options); !status.ok()) return status;
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace ringmaster::bench
