// The seam over a ring that a loop has lent (Host::kRing). The master's operations travel with the
// loop's own, and the loop hands over what completes.
//
// Threads: the thread that drives the loop calls everything here. Destruction does not touch the
// ring.
//
// What is different from a ring of the library's own:
//  * A turn never waits, and returns what the loop has handed over since the last one.
//  * What other threads wait for (doorbells, connections, the end of an accept) is submitted within
//    the turn. Polls and accepts go with the loop's next submission.
//  * While the submission queue stays full, operations that do not fit wait here, in their order.
//  * The loop may hand over any number of completions before it drives the master again, and its
//    completion queue may be of any size. Connections of multishot accepts come unasked. So they
//    are kept back here until the master has room for them. What follows them for the same sources
//    stays behind them, the ends of those accepts included.
//  * Nobody says when everything that was submitted has been reported. So a marker follows what was
//    sent. A message is sent when its entry is taken, so its failure comes before the marker.

#ifndef RINGMASTER_SRC_RING_LENT_RING_H_
#define RINGMASTER_SRC_RING_LENT_RING_H_

#include <liburing.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/op.h"
#include "core/ring.h"
#include "ring/master_ring.h"
#include "ring/translate.h"

namespace ringmaster::ring {

// Asks the kernel whether a loop can lend the ring: OK, or the errors of CheckTarget
// (ring/doorbell.h). InvalidArgument also if a thread of the kernel takes its submissions
// (IORING_SETUP_SQPOLL), as far as /proc tells. Any thread; for set-up.
absl::Status CheckLendable(int ring_fd);

// As RingLoan of the public interface.
struct Loan {
  int ring_fd = -1;
  std::function<io_uring_sqe*()> get_sqe;
  std::function<int()> submit;
  uint64_t user_data_mask = 0;
  uint64_t user_data_value = 0;
};

class LentRing final : public MasterRing {
 public:
  LentRing(Loan loan, const Features& features, uint32_t completion_entries);

  // Fills an entry that completes at once. So the loop's next submission wakes it, and it drives
  // the master for the first time. Call this on the loop's thread, or before that thread uses the
  // ring.
  void AskForOwner();

  // If the entry is the master's, keeps what it says for the next turn. Returns false if it is not.
  bool Take(const io_uring_cqe& cqe);

  void SetAcceptsMax(uint32_t accepts_max) override { accepts_max_ = accepts_max; }
  bool KeepsBack() const override { return !accepted_.empty(); }

  // Asks the ring for something that completes at once. This finds out whether the calling thread
  // can use the ring.
  int Enable() override;
  int Turn(std::span<const core::Op> ops, core::Wait wait,
           std::vector<core::Completion>& completions) override;
  void TakeRemaining(std::vector<core::Completion>& completions) override;
  bool AllReported() const override {
    return markers_ == 0 && !marker_due_ && waiting_.empty() && arrived_.empty();
  }
  int WakeIn(int64_t wait_ns) override;
  int fd() const override { return -1; }
  // Whether something was handed over, or waits for room.
  bool HasSomething() const override {
    return woken_ || !arrived_.empty() || !accepted_.empty() || !waiting_.empty();
  }

  // The thread of the loop ends, and its ring may be gone: the loan is not used any more. Returns
  // what had to wait for room in its queue. Completions that still come are accepted, and their
  // connections closed.
  std::vector<core::Op> Retire();
  // After Retire, on the same thread. If the ring is still open, ends there what `ends` are to end,
  // and all that the loan has armed for itself. Other operations in `ends` are ignored. This needs
  // no entry of the ring's queue, so the queue's memory may be gone. Without
  // IORING_REGISTER_SYNC_CANCEL (Linux 6.0), or if a restriction of the ring forbids it, everything
  // stays armed until the ring is closed.
  void EndArmed(std::span<const core::Op> ends) const;
  // Whether entries of this loan may still come that could be mistaken for those of the other loan.
  bool Resembles(const Loan& other) const {
    return used_ && ((loan_.user_data_value ^ other.user_data_value) & loan_.user_data_mask &
                     other.user_data_mask) == 0;
  }

  // Whether operations wait for room in the ring's queue.
  bool HoldsBack() const { return !waiting_.empty(); }
  // Hands the ring's queue to the kernel. What the kernel does not take now goes with the loop's
  // next submission.
  int Submit();

  // Ends the watch and the timeouts; nothing more is asked of the ring afterwards.
  void End();
  // After the end: closes connections that were accepted meanwhile, because nobody will serve them.
  void CloseArrived();

 private:
  // Completions in the order in which they came. Keeps memory for as many as were ever there at
  // once.
  class Arrivals {
   public:
    void reserve(size_t count) { entries_.reserve(count); }
    bool empty() const { return first_ == entries_.size(); }
    void push(const core::Completion& completion) { entries_.push_back(completion); }
    const core::Completion& front() const { return entries_[first_]; }
    void pop() {
      if (++first_ < entries_.size()) return;
      entries_.clear();
      first_ = 0;
    }

   private:
    std::vector<core::Completion> entries_;
    size_t first_ = 0;
  };

  // Moves as many completions as there is room for.
  void Return(std::vector<core::Completion>& completions);
  // The next free entry; null when the queue is full and stays so.
  io_uring_sqe* NextEntry();
  // Puts the operation into the queue. Returns whether there was room.
  bool Queue(const core::Op& op);

  Loan loan_;
  const uint64_t inode_;  // of the ring, whose number may be another file's later; 0: unknown
  bool used_ = false;     // by a thread that drives
  bool retired_ = false;
  const Dialect dialect_;
  Arrivals arrived_;                   // not of multishot accepts, since the last turn
  Arrivals accepted_;                  // the same, of multishot accepts
  uint32_t accepts_max_ = UINT32_MAX;  // of these, in the next turn
  std::vector<core::Op> waiting_;      // for room in the queue
  uint32_t markers_ = 0;               // under way
  bool marker_due_ = false;            // something was sent behind the last one
  bool woken_ = false;                 // a timeout has come since the last turn
  int64_t wakes_at_ns_ = core::kWaitForever;
  __kernel_timespec wake_at_{};  // of the timeout that was prepared last
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_LENT_RING_H_
