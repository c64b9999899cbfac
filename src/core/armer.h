// Armer: what the engine asks the ring for at the end of a batch, beside accepts and doorbells. It
// arms sources and ends what is armed; it asks whether sources are listeners still, and how many
// connections their backlogs have discarded. And it watches the descriptor by which other threads
// wake the master.

#ifndef RINGMASTER_SRC_CORE_ARMER_H_
#define RINGMASTER_SRC_CORE_ARMER_H_

#include <cstdint>

#include "core/books.h"
#include "core/waits.h"

namespace ringmaster::core {

// How many sources are asked about overflows in one batch, at most.
inline constexpr uint32_t kOverflowLooksPerBatchMax = 64;

class Armer {
 public:
  Armer(Books& books, const Waits& waits) : books_(books), waits_(waits) {}

  void AskForStates();
  void ArmSources();
  void AskForOverflows();

  // The watch of the master's descriptor has completed for the last time.
  void WatchEnded() { watching_ = false; }
  // The ring is out of reach: nothing that was armed or asked for will complete.
  void ForgetRing();

 private:
  void Arm(Source& source);
  void WatchEnd(Source& source);

  Books& books_;
  const Waits& waits_;
  bool watching_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ARMER_H_
