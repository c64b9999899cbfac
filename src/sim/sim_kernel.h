// The simulated kernel beside the ring: listeners with their backlogs, connections, and numbers of
// descriptors. The lowest free number is always used next, so a number that was closed soon belongs
// to somebody else.

#ifndef RINGMASTER_SRC_SIM_SIM_KERNEL_H_
#define RINGMASTER_SRC_SIM_SIM_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "ringmaster/policy.h"

namespace ringmaster::sim {

class World;

// Numbers of one kind: each belongs to one owner at a time.
class Numbers {
 public:
  static constexpr uint32_t kNobody = UINT32_MAX;

  explicit Numbers(int32_t first) : first_(first) {}

  int32_t Open(uint32_t owner);
  void Close(int32_t number);
  uint32_t OwnerOf(int32_t number) const;  // kNobody: not open
  int32_t open_count() const { return open_count_; }

 private:
  const int32_t first_;
  int32_t open_count_ = 0;
  std::vector<uint32_t> owners_;
};

class SimKernel {
 public:
  static constexpr uint32_t kNobody = Numbers::kNobody;

  SimKernel(World* world, int32_t descriptors_max)
      : world_(world), descriptors_max_(descriptors_max) {}

  // Makes a listener for `source`, at which so many connections may wait. Returns its descriptor.
  int32_t Listen(uint32_t source, uint32_t backlog_max, bool local);
  // What waits in the backlog is reset.
  void CloseListener(uint32_t source);
  // shutdown(): connections that wait are reset, and nothing more can be accepted. At a Unix
  // listener they stay, and can be accepted.
  void ShutDown(uint32_t source);
  bool is_open(uint32_t source) const { return listeners_[source].open; }
  bool shut(uint32_t source) const { return listeners_[source].shut; }
  bool local(uint32_t source) const { return listeners_[source].local; }
  // The source whose listener has this descriptor.
  uint32_t SourceOf(int32_t fd) const { return listener_numbers_.OwnerOf(fd); }
  size_t Backlog(uint32_t source) const { return listeners_[source].backlog.size(); }

  // A client has connected; or the backlog is full and it is dropped: kNobody.
  uint32_t Arrive(uint32_t source);
  // The client hangs up, wherever its connection is by now.
  void HangUp(uint32_t connection);
  bool HasHungUp(uint32_t connection) const { return connections_[connection].hung_up; }
  // When the client of the connection came, as TCP_INFO tells it: in ticks, so never too early, and
  // up to two ticks too late.
  int64_t CameAt(uint32_t connection) const;
  uint32_t ConnectionOf(int32_t fd) const { return connection_numbers_.OwnerOf(fd); }
  int32_t Overflows(uint32_t source) const { return listeners_[source].overflows; }
  // A descriptor, or -errno; EAGAIN when the backlog is empty. The descriptor is allocated before
  // the kernel looks, so EMFILE comes also when there is nothing to accept.
  int32_t Accept(uint32_t source, Arrival& facts);
  bool OutOfDescriptors() const { return connection_numbers_.open_count() >= descriptors_max_; }
  void SetDescriptorsMax(int32_t descriptors_max) { descriptors_max_ = descriptors_max; }
  int32_t FdOf(uint32_t connection) const { return connections_[connection].fd; }
  const Arrival& FactsOf(uint32_t connection) const { return connections_[connection].facts; }
  void CloseConnection(int32_t fd) { connection_numbers_.Close(fd); }

  // The ring of a worker.
  int32_t OpenRing(uint32_t worker) { return ring_numbers_.Open(worker); }
  void CloseRing(int32_t fd) { ring_numbers_.Close(fd); }
  uint32_t WorkerOf(int32_t fd) const { return ring_numbers_.OwnerOf(fd); }

  // A master's number of the sight of a worker.
  int OpenSight(uint32_t worker) { return sight_numbers_.Open(worker); }
  void CloseSight(int sight) { sight_numbers_.Close(sight); }
  uint32_t WorkerOfSight(int sight) const { return sight_numbers_.OwnerOf(sight); }

 private:
  struct Listener {
    int32_t fd = -1;
    bool open = false;
    bool shut = false;
    bool local = false;
    uint32_t backlog_max = UINT32_MAX;
    int32_t overflows = 0;  // how many were dropped
    std::deque<uint32_t> backlog;
  };
  struct Connection {
    int32_t fd = -1;
    int64_t came_at_ns = 0;
    bool hung_up = false;
    Arrival facts;
  };

  void ResetBacklog(uint32_t source);
  Arrival DrawFacts();

  World* const world_;
  int32_t descriptors_max_;
  std::vector<Listener> listeners_;  // by source
  std::vector<Connection> connections_;
  Numbers connection_numbers_{0};
  Numbers listener_numbers_{1'000'000};
  Numbers ring_numbers_{2'000'000};
  Numbers sight_numbers_{4'000'000};
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SIM_KERNEL_H_
