// The open connections of one worker, by index. Memory comes in chunks that are used again and
// never move, because the kernel reads what is being sent from where it lies.

#ifndef RINGMASTER_TOOLS_ECHO_CONNECTION_TABLE_H_
#define RINGMASTER_TOOLS_ECHO_CONNECTION_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ringmaster/port.h"

namespace ringmaster::echo {

// What a connection keeps for each direction when nothing is left to send.
inline constexpr size_t kRetainedBytes = 4096;

struct EchoConnection {
  int fd = -1;                  // or a slot of the worker's file table; -1: the entry is free
  bool receiving = false;       // a receive is in flight
  bool receive_ending = false;  // of that receive, the cancellation has been asked for
  bool sending = false;         // a send is in flight
  bool end_of_stream = false;   // the client has sent everything
  bool failed = false;          // nothing more can be exchanged; it ends when nothing is in flight
  bool asked = false;           // the client has sent something
  bool within_line = false;     // and the last byte of it ended no line
  bool hung_up_on = false;      // what the client sends from now on is not read, see HangUpOnIdle
  bool closing = false;         // it has failed, and its slot is being closed
  bool moving = false;          // to be passed on to another worker as soon as it is idle
  size_t sent = 0;              // bytes at the front of `outgoing` that have gone
  std::vector<char> outgoing;   // what is being sent; does not change while a send is in flight
  std::vector<char> following;  // what is sent after it
  Lease lease;

  size_t unsent() const { return outgoing.size() - sent + following.size(); }
  // Whether the client waits for nothing: of a line that has begun the rest is still to come.
  bool idle() const { return unsent() == 0 && !within_line && !end_of_stream && !failed; }
  // Notes what was received; `size` is at least 1.
  void NoteReceived(const char* data, size_t size) {
    asked = true;
    within_line = data[size - 1] != '\n';
  }
};

// Empties `bytes`, and gives its memory back when it is more than worth keeping.
void EmptyAndTrim(std::vector<char>& bytes);

// Not for several threads at once.
class ConnectionTable {
 public:
  // An entry for a new connection, which it owns from now on. The table has no limit of its own:
  // the balancer never offers a worker more than its capacity.
  uint32_t Allocate(int fd, Lease lease);

  // Closes the connection, then releases its lease.
  void Free(uint32_t index);
  // The same of one whose slot has been closed.
  void FreeClosed(uint32_t index);

  // Forgets a connection that is another worker's now. Its descriptor and its lease are not
  // touched.
  void Forget(uint32_t index);

  // Says that the connection is to be passed on, or, with PassOnIdle, that up to `count` are that
  // are idle now. KeepAll takes it back for all.
  void PassOn(uint32_t index);
  void PassOnIdle(uint32_t count);
  void KeepAll();

  // How many are to be passed on, and are still here.
  uint32_t moving() const { return moving_; }

  // Hangs up on connections that are idle, while the server drains; by `hang_up`, if that is given.
  // What has arrived by then is still read and echoed, and then the stream ends. One whose client
  // has not asked yet may have a request on its way: it is left out unless `also_new`.
  template <typename HangUp>
  void HangUpOnIdle(bool also_new, HangUp hang_up);
  void HangUpOnIdle(bool also_new);

  EchoConnection& operator[](uint32_t index) { return chunks_[index / kChunk][index % kChunk]; }

  // How many are open.
  uint32_t size() const { return open_; }

  // Every open connection has an index below.
  uint32_t index_end() const { return static_cast<uint32_t>(chunks_.size()) * kChunk; }

 private:
  static constexpr uint32_t kChunk = 64;

  uint32_t open_ = 0;
  uint32_t moving_ = 0;
  std::vector<std::unique_ptr<EchoConnection[]>> chunks_;
  std::vector<uint32_t> free_;  // used like a stack: the memory used last is used next
};

template <typename HangUp>
void ConnectionTable::HangUpOnIdle(bool also_new, HangUp hang_up) {
  for (uint32_t index = 0; index < index_end(); ++index) {
    EchoConnection& connection = (*this)[index];
    if (connection.fd < 0 || connection.hung_up_on || !connection.idle()) continue;
    if (!connection.asked && !also_new) continue;
    connection.hung_up_on = true;
    hang_up(connection);
  }
}

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_CONNECTION_TABLE_H_
