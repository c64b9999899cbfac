// Receiver: what the ring and the workers say of sources: edges, connections, errors, counts, and
// tickets that were given back. It brings the books up to date; other parts decide what is to be
// done.
//
// Anybody who has the ring's descriptor can put completions into the ring. So a completion that
// nobody has asked for is not believed. A descriptor in it may be anybody's, and stays open.

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
  // What workers have said by their tickets since the last batch. Call it after EndBackOffs: an
  // error that is said here may begin a new back-off, which the end of an earlier lease must not
  // end.
  void TakeGivenBack();
  // All completions of the batch have been said: ends back-offs that are over, and lets the sources
  // learn.
  void FinishBatch();

  // How many connections the kernel has discarded by now because the backlog was full.
  void NoteOverflows(Source& source, int32_t overflows);

  // Whether any source backs off. And ends all back-offs, because a descriptor may have become
  // free.
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
  void Fail(Source& source, BackOff::Failure failure, int32_t error);
  void FindNothing(Source& source);
  void GiveUp(Source& source, int32_t error);
  void TryAgain(Source& source);

  Books& books_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RECEIVER_H_
