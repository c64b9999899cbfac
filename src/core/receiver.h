// Receiver: what the ring and the workers say of sources: edges, connections, errors, counts,
// tickets that were given back. It brings the books up to date; what is to be done about that is
// for others to decide.
//
// Whoever holds a ring can put anything into it. So what nobody has asked for is not believed. A
// descriptor in it may be anybody's, and stays open.

#ifndef RINGMASTER_SRC_CORE_RECEIVER_H_
#define RINGMASTER_SRC_CORE_RECEIVER_H_

#include <cstdint>

#include "core/books.h"

namespace ringmaster::core {

class Receiver {
 public:
  explicit Receiver(Books& books) : books_(books) {}

  // A completion that names a source.
  void OnCompletion(const Completion& completion);
  // What workers have given back since the last batch. After the ends of leases, which end older
  // back-offs.
  void TakeGivenBack();
  // All completions of the batch were said: learns from them.
  void FinishBatch();

  // How many connections the kernel has dropped by now.
  void NoteOverflows(Source& source, int32_t overflows);

  // Whether any source backs off; and they all do no more, because a descriptor may be free.
  bool BackingOff() const;
  void EndBackOffs();

 private:
  static bool Asked(const Source& source, OpKind kind);
  void OnCounted(Source& source, int32_t result);
  void OnPolled(Source& source, int32_t result);
  void OnState(Source& source, int32_t result);
  void OnHangUp(Source& source, int32_t result);
  void OnAccepted(Source& source, const Completion& completion);
  void DropAtOnce(Source& source, const Completion& completion);
  void TurnAway(Source& source, const Completion& completion);
  void OnAcceptError(Source& source, int32_t error);
  void OnConnectionError(Source& source);
  void FindNothing(Source& source);
  void Pause(Source& source);
  void GiveUp(Source& source, int32_t error);
  void EndBackOff(Source& source);

  Books& books_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RECEIVER_H_
