// Clients that connect and misbehave, and that check what becomes of them. A connection is answered
// once ('S'), or ended without an answer. It is never answered twice. It is never left in silence
// after its listener and all its servers are gone.

#ifndef RINGMASTER_TESTS_ATTACK_CLIENTS_H_
#define RINGMASTER_TESTS_ATTACK_CLIENTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "attack/random.h"
#include "attack/things.h"

namespace ringmaster::attack {

inline constexpr char kAnswerByte = 'S';

class Clients {
 public:
  Clients() = default;
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;

  void Begin(uint64_t seed);
  // Where clients go from now on, too.
  void Add(const Address& address);
  // No new clients from now on.
  void Stop();
  // Once every listener and every accepted connection is closed: all must have ended.
  void CheckAllHaveEnded();

  uint64_t begun() const { return begun_; }
  uint64_t served() const { return served_; }

 private:
  struct Client {
    int fd;
    uint32_t bytes = 0;  // that it was answered
    bool ended = false;  // by the server
    bool connected = false;
  };

  void Run(Random random);
  void ConnectOne(const Address& address, Random& random);
  void Look(Client& client);
  void LookAtAll();

  std::mutex mutex_;
  std::vector<Address> addresses_;
  std::vector<Client> clients_;  // those that wait; of the thread, then of whoever has stopped it
  std::atomic<bool> stop_{false};
  uint64_t begun_ = 0;
  uint64_t served_ = 0;
  std::thread thread_;
};

enum class Outcome : uint8_t { kServed, kEnded, kSilence };

// Opens `count` connections at once, and waits until all have ended, up to `seconds`. How many
// have.
uint32_t AskManyToBeServed(const Address& address, uint32_t count, double seconds);

// Whether `count` connections to this listener, which is nobody's source, wait until it accepts
// them itself. Takes some milliseconds.
bool NobodyElseAccepts(int listener, const Address& address, uint32_t count);

// Connects and waits for the answer, up to `seconds`.
Outcome AskToBeServed(const Address& address, double seconds);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_CLIENTS_H_
