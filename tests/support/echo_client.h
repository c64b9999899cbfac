// A client that checks an echo server: each connection sends a payload of its own and demands
// exactly that back.
//
// One thread, one epoll set, many connections at once; fast enough (some ten thousand connections
// a second) that the server is what is tested. Bounded by a deadline. Nothing outlives a run.

#ifndef RINGMASTER_TESTS_SUPPORT_ECHO_CLIENT_H_
#define RINGMASTER_TESTS_SUPPORT_ECHO_CLIENT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ringmaster::testing {

// How a connection ends once its payload has been sent.
enum class EchoEnd : uint8_t {
  kHalfClose,  // shuts its side down, then demands the whole echo and the end of the stream
  kClose,      // demands the whole echo, then closes
};

struct EchoClientOptions {
  // Where the server listens: IPV4:PORT, [IPV6]:PORT or unix:PATH. Connections to 127.0.0.0/8 come
  // from many addresses of it, so that one address does not run out of ports.
  std::string address;
  uint32_t connections = 1;
  uint32_t parallel = 1;  // connections open at the same time
  // The payload of each connection has a size of its own in this range, and from 4 bytes on no two
  // are alike.
  size_t payload_bytes_min = 1;
  size_t payload_bytes_max = 64;
  EchoEnd end = EchoEnd::kHalfClose;
  // Bounds the whole run; what has not ended by then has timed out.
  std::chrono::milliseconds deadline = std::chrono::seconds(30);
  // Whether to record how long each echoed connection took.
  bool record_latencies = false;
};

struct EchoReport {
  // Every connection is counted in exactly one of these.
  uint32_t echoed = 0;     // the whole payload came back, and nothing else
  uint32_t reset = 0;      // ended by the server with a reset
  uint32_t refused = 0;    // could not connect, or failed for a reason that first_problem tells
  uint32_t wrong = 0;      // other bytes, too few or too many came back
  uint32_t timed_out = 0;  // had not ended, or not begun, at the deadline

  std::chrono::nanoseconds elapsed = {};
  std::string first_problem;                        // empty when everything was echoed
  std::vector<std::chrono::nanoseconds> latencies;  // from before connect to the end, unordered
};

EchoReport RunEchoClient(const EchoClientOptions& options);

// The IPv4 address, as a number, from which connection `number` to an address of 127.0.0.0/8 comes.
uint32_t EchoSourceAddress(uint32_t number);

// Opens one connection to an address as in EchoClientOptions, blocking and with a receive timeout
// of `timeout`. Returns the descriptor, which the caller closes, or -errno.
int ConnectTo(const std::string& address, std::chrono::milliseconds timeout);

// Fills `size` bytes at `data` with what the payload of connection `number` holds from `offset` on.
void FillPayload(uint32_t number, size_t offset, char* data, size_t size);

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_ECHO_CLIENT_H_
