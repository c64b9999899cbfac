// What a world is made of beside the balancer: descriptors to watch, sources and ports. Each has
// what the attack must know of it to keep the rules of the headers.

#ifndef RINGMASTER_TESTS_ATTACK_THINGS_H_
#define RINGMASTER_TESTS_ATTACK_THINGS_H_

#include <liburing.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <vector>

#include "attack/random.h"
#include "ringmaster/balancer.h"

namespace ringmaster::attack {

// Which descriptors this program itself has as rings: a forked child compares what it has left.
// Whoever makes or closes one holds `lock` shared, whoever forks holds it alone.
struct OwnRings {
  static constexpr int kDescriptorsMax = 1 << 16;

  std::shared_mutex lock;
  std::atomic<bool> is_ring[kDescriptorsMax] = {};
};
OwnRings& Rings();

// An io_uring of the attack.
class Ring {
 public:
  // Null when it cannot be had now, for the want of descriptors.
  static std::unique_ptr<Ring> Make(unsigned entries, unsigned flags);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  io_uring* operator->() { return &ring_; }
  io_uring& get() { return ring_; }
  // Polls the descriptor from the next turn on, until it is closed. False: there is no room.
  bool Poll(int fd, uint64_t tag);
  // Submits, waits for a completion, at most `wait_us`, and copies what there is.
  void Turn(uint32_t wait_us, std::vector<io_uring_cqe>& cqes);
  // Copies what there is without waiting; `enter`: also what the kernel has put aside, which only
  // the thread of the ring may ask for.
  void Collect(bool enter, std::vector<io_uring_cqe>& cqes);

  // Registers a file table, once. False: it cannot be had, or slots cannot be made descriptors.
  bool RegisterSlots(unsigned slots);
  // A descriptor of what is in the slot, which is closed. What else has completed is copied.
  int FdOfSlot(int slot, bool close_on_exec, std::vector<io_uring_cqe>& cqes);

 private:
  Ring() = default;
  int Ask(std::vector<io_uring_cqe>& cqes);
  io_uring ring_;
  bool has_slots_ = false;
};

// A descriptor, closed with the last reference to it.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;
};

enum class FileKind : uint8_t { kTcp, kUnix, kEventfd, kPipe, kDatagrams };
inline bool IsListener(FileKind kind) { return kind == FileKind::kTcp || kind == FileKind::kUnix; }

// What can be watched.
struct Watched {
  FileKind kind = FileKind::kTcp;
  std::shared_ptr<File> file;    // what is watched
  std::shared_ptr<File> writer;  // the other end, where that is another descriptor
  Address address;               // where to connect or send to
};
// An empty one when it cannot be had.
Watched OpenWatched(FileKind kind, int backlog);
// Makes it readable: not for listeners.
void Excite(const Watched& watched);

// A source of the world, kept to its end, so that late tokens find it.
struct SourceRecord {
  uint32_t id = 0;
  FileKind kind = FileKind::kTcp;
  Intake intake = Intake::kPollAccept;
  bool nonblocking = true;
  bool close_on_exec = true;
  bool limited = false;  // SourceOptions::capacity
  bool age_limited = false;
  bool recall = true;
  uint32_t start_workers = 1;
  // kReadiness: a worker that was told by a completion accepts by itself, so the listener is never
  // made blocking; or there are no such workers.
  bool accepted_by_workers = false;
  Source handle;
  Address address;
  // The attack has ended it, or may have: nobody expects that it goes on.
  std::atomic<bool> spoilt{false};
  std::atomic<bool> removed{false};
  // How often a port was to join it; whether it may have been resumed; whether a connection may
  // have been passed on to it.
  std::atomic<uint32_t> joins{0};
  std::atomic<bool> resumed{false};
  std::atomic<bool> passed_to{false};

  // Whether it may bring something.
  bool may_have_started() const { return joins >= start_workers || resumed || passed_to; }

  std::shared_ptr<File> file() const {
    const std::lock_guard lock(mutex);
    return watched.file;
  }
  Watched all() const {
    const std::lock_guard lock(mutex);
    return watched;
  }
  // Closes it, as soon as nobody uses it any more.
  void Close() {
    Watched closed;
    const std::lock_guard lock(mutex);
    std::swap(closed, watched);
  }

  mutable std::mutex mutex;
  Watched watched;
};

// What Port's header allows other threads to do, they do under `stays` shared. Some things only the
// thread that has the port may do, and not at the same time. It does them under `stays` alone. As
// the others may be waiting for that very thread, which hosts the master, it only tries.
struct PortBox {
  enum class Kind : uint8_t { kRing, kCompletion, kDirect, kMailbox, kOnHost };

  uint64_t serial = 0;
  Kind kind = Kind::kRing;
  // Whether connections are handed over to it.
  bool taker() const { return kind == Kind::kCompletion || kind == Kind::kDirect; }
  uint32_t window = 1;
  // What is polled on the worker's ring, which is told of edges alone: the sight of one with a
  // ring, or a mailbox that is not looked at otherwise. -1: nothing.
  int polled = -1;
  // A claim has said that something is left, or has thrown.
  bool again = false;
  Mailbox mailbox;
  std::shared_mutex stays;
  Port port;
};

// user_data and tokens. A completion whose user_data has `kHandedBit` is an arrival; the token says
// from which source.
inline constexpr uint64_t kDoorbellBit = uint64_t{1} << 48;
inline constexpr uint64_t kHandedBit = uint64_t{1} << 49;
inline constexpr uint64_t kPollBit = uint64_t{1} << 50;
// Of a request whose answer is waited for at once; and of arrivals that come as slots.
inline constexpr uint64_t kAskBit = uint64_t{1} << 51;
inline constexpr uint64_t kSlotBit = uint64_t{1} << 52;
inline uint64_t TokenOf(const PortBox& box, uint32_t source) {
  return kHandedBit | (box.kind == PortBox::Kind::kDirect ? kSlotBit : 0) | (box.serial << 24) |
         source;
}
inline uint32_t SourceOfToken(uint64_t token) { return token & 0xffffff; }
inline uint64_t SerialOfToken(uint64_t token) { return (token >> 24) & 0xffffff; }

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_THINGS_H_
