#include "connection_table.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cassert>
#include <utility>

namespace ringmaster::echo {

void EmptyAndTrim(std::vector<char>& bytes) {
  if (bytes.capacity() > kRetainedBytes) {
    std::vector<char>().swap(bytes);
  } else {
    bytes.clear();
  }
}

uint32_t ConnectionTable::Allocate(int fd, Lease lease) {
  if (free_.empty()) {
    const uint32_t begin = index_end();
    chunks_.push_back(std::make_unique<EchoConnection[]>(kChunk));
    for (uint32_t i = kChunk; i > 0; --i) free_.push_back(begin + i - 1);
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  ++open_;
  EchoConnection& connection = (*this)[index];
  connection.fd = fd;
  connection.lease = std::move(lease);
  return index;
}

void ConnectionTable::HangUpOnIdle(bool also_new) {
  HangUpOnIdle(also_new,
               [](const EchoConnection& connection) { shutdown(connection.fd, SHUT_RD); });
}

void ConnectionTable::Free(uint32_t index) {
  EchoConnection& connection = (*this)[index];
  assert(connection.fd >= 0 && !connection.receiving && !connection.sending);
  close(connection.fd);
  FreeClosed(index);
}

void ConnectionTable::FreeClosed(uint32_t index) {
  (*this)[index].lease.Release();
  Forget(index);
}

void ConnectionTable::PassOn(uint32_t index) {
  if (!std::exchange((*this)[index].moving, true)) ++moving_;
}

void ConnectionTable::PassOnIdle(uint32_t count) {
  for (uint32_t index = 0; index < index_end() && count > 0; ++index) {
    const EchoConnection& connection = (*this)[index];
    if (connection.fd < 0 || connection.moving || !connection.idle()) continue;
    PassOn(index);
    --count;
  }
}

void ConnectionTable::KeepAll() {
  for (uint32_t index = 0; index < index_end(); ++index) (*this)[index].moving = false;
  moving_ = 0;
}

void ConnectionTable::Forget(uint32_t index) {
  EchoConnection& connection = (*this)[index];
  assert(connection.fd >= 0 && !connection.receiving && !connection.sending);
  connection.fd = -1;
  if (std::exchange(connection.moving, false)) --moving_;
  connection.receive_ending = false;
  connection.end_of_stream = false;
  connection.failed = false;
  connection.asked = false;
  connection.within_line = false;
  connection.hung_up_on = false;
  connection.closing = false;
  connection.sent = 0;
  EmptyAndTrim(connection.outgoing);
  EmptyAndTrim(connection.following);
  free_.push_back(index);
  --open_;
}

}  // namespace ringmaster::echo
