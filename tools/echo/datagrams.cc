#include "datagrams.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>

namespace ringmaster::echo {
namespace {

constexpr int kDatagramsPerTicketMax = 64;
constexpr size_t kDatagramBytesMax = 65536;

}  // namespace

void EchoDatagrams(const Ticket& ticket, std::atomic<uint64_t>& bytes_echoed) {
  std::array<char, kDatagramBytesMax> buffer;
  for (int i = 0; i < kDatagramsPerTicketMax; ++i) {
    sockaddr_storage peer;
    socklen_t peer_size = sizeof(peer);
    const ssize_t size = recvfrom(ticket.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT,
                                  reinterpret_cast<sockaddr*>(&peer), &peer_size);
    if (size < 0) {
      if (errno == EAGAIN) return;
      continue;  // what happened to an earlier reply (ECONNREFUSED, say), or EINTR
    }
    const ssize_t sent =
        sendto(ticket.fd(), buffer.data(), static_cast<size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<sockaddr*>(&peer), peer_size);
    if (sent > 0) bytes_echoed.fetch_add(static_cast<uint64_t>(sent), std::memory_order_relaxed);
  }
  ticket.Again();
}

}  // namespace ringmaster::echo
