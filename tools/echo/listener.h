// The sockets that are listened on: from the text after --listen to descriptors, and the errors in
// words.

#ifndef RINGMASTER_TOOLS_ECHO_LISTENER_H_
#define RINGMASTER_TOOLS_ECHO_LISTENER_H_

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "ringmaster/listeners.h"

namespace ringmaster::echo {

// Whether `where` asks for a datagram socket, or for a Unix socket.
bool IsDatagrams(const std::string& where);
bool IsUnix(const std::string& where);

// Whether `where` is a listener that is there already: fd:N, systemd or systemd:NAME.
bool IsInherited(const std::string& where);

// A listening stream socket or a bound datagram socket, and the file it is reached by when it is a
// Unix socket. Owns both: destruction closes the socket and removes the file, unless another server
// has replaced it. The file of an inherited socket is owned only if a predecessor has owned it.
class Listener {
 public:
  // Binds and listens. `where` is HOST:PORT, [IPV6]:PORT, udp:HOST:PORT or unix:PATH. A Unix path
  // that nobody listens on any more is taken over; one that is served, or that is no socket, is
  // left alone. An address that is in use is tried for 200 ms. The kernel takes the io_uring of a
  // server that was killed apart some milliseconds after its end, and until then that one still
  // listens. Errors are one sentence each, with the cause and the remedy, and leave nothing behind.
  static absl::StatusOr<Listener> Listen(const std::string& where);

  // One more socket of the same address: the kernel deals what comes to all of them by a hash
  // (SO_REUSEPORT). Not of a Unix socket. Another program that is bound there already is noticed by
  // Listen, as ever.
  absl::StatusOr<Listener> Another() const;

  // One that another process has made. It says by the name whether it owns the file.
  static absl::StatusOr<Listener> Inherit(NamedListener inherited);

  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  ~Listener();

  int fd() const { return fd_; }

  // Where it listens, the port that the kernel chose included, in the form that Listen takes.
  const std::string& address() const { return address_; }

  // Whether it is a Unix socket, and whether it is a datagram socket.
  bool is_unix() const { return IsUnix(address_); }
  bool is_datagrams() const { return IsDatagrams(address_); }

  // As a successor is to know it, and what to do when a successor has it: the file stays then.
  OfferedListener Offered() const;
  void LeaveFile() { path_.clear(); }

  // A command that connects to it from this machine.
  const std::string& try_command() const { return try_command_; }

 private:
  Listener() = default;
  static absl::StatusOr<Listener> ListenOnce(const std::string& where);
  static absl::StatusOr<Listener> ListenUnix(const std::string& path);
  static absl::StatusOr<Listener> ListenInet(const std::string& where, int type, bool shared);

  void NameUnix(const std::string& path);
  void OwnFile(const std::string& path);

  int fd_ = -1;
  std::string address_;
  std::string try_command_;
  std::string path_;  // empty unless it is a Unix socket whose file it owns
  dev_t path_device_ = 0;
  ino_t path_inode_ = 0;
};

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_LISTENER_H_
